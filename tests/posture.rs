//! Golden postures: what a guest's monitor and a container's workload are to the host's kernel, seen from outside while they run, fact by
//! fact. A difference in either direction fails.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use support::posture::{self, Posture, differences};

/// Name of this test's own half, which runs inside of the lab.
const INSIDE: &str = "inside_the_lab_postures_are_read";

#[test]
fn a_monitor_and_a_workload_are_to_the_kernel_what_is_written_here() {
    support::half_in_lab(&["--lab-clock", "wall"], INSIDE);
}

#[test]
fn a_fact_too_many_and_a_fact_too_few_are_differences() {
    let of = |facts: &[&str]| facts.iter().map(|fact| (*fact).to_owned()).collect::<Posture>();
    let expected = of(&["namespace mnt: its own", "vcpu0: Seccomp 2"]);
    assert_eq!(differences(&expected, &expected), [""; 0]);
    assert_eq!(
        differences(&expected, &of(&["namespace mnt: its own", "vcpu0: Seccomp 0", "open: /etc x1"])),
        ["- vcpu0: Seccomp 2", "+ vcpu0: Seccomp 0", "+ open: /etc x1"]
    );
}

const NO_CAPABILITY: &str = "0000000000000000";
/// All that the lab's kernel has.
const EACH_CAPABILITY: &str = "000001ffffffffff";
/// An ordinary user.
const USER: u32 = 1_900_000_000;

/// The facts of a thread with this limit of capabilities and number of filters.
fn thread(name: &str, bounding: &str, filters: u32) -> Vec<String> {
    let ids = ["Uid", "Gid"].map(|key| format!("{name}: {key} OWN OWN OWN OWN"));
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|key| format!("{name}: {key} {NO_CAPABILITY}"));
    let others = [
        format!("{name}: CapBnd {bounding}"),
        format!("{name}: Groups "),
        format!("{name}: NoNewPrivs 1"),
        format!("{name}: Seccomp 2"),
        format!("{name}: Seccomp_filters {filters}"),
    ];
    ids.into_iter().chain(sets).chain(others).collect()
}

/// A monitor of a guest with so many processors, which keeps so many numbers of descriptors from being used.
fn monitor(cpus: u32, kept: u32) -> Posture {
    let names = (0..cpus).map(|cpu| format!("vcpu{cpu}")).chain(["isolab".to_owned()]);
    let threads = names.flat_map(|name| thread(&name, EACH_CAPABILITY, 2));
    let vcpus = (0..cpus).map(|cpu| format!("open: anon_inode:kvm-vcpu:{cpu} x1"));
    let facts = [
        "mount: / / ro,nosuid,nodev,noexec,relatime - tmpfs none rw,inode64",
        "uid_map: 0 0 4294967295",
        "gid_map: 0 0 4294967295",
        "its files in /proc belong to: 0",
        "limit Max core file size: 1 1 bytes",
        "limit Max open files: 16 16 files",
        "open: IMAGE x1",
        "open: anon_inode:kvm-vm x1",
        // Standard error, once as isolab's and once as the guest's.
        "open: /dev/null x2",
        // The same of input and output; control, marks and complaint, and this once more for a panic.
        "open: pipe x8",
    ];
    // Doorbell and interrupt of three devices, and the end; of which there are copies.
    let events = [format!("open: anon_inode:[eventfd] x{}", 7 + kept)];
    let all = threads.chain(vcpus).chain(events).chain(namespaces(&["mnt"]));
    all.chain(facts.map(str::to_owned)).collect()
}

/// The same where an ordinary user started it.
fn users_monitor() -> Posture {
    let changed = monitor(1, 2).into_iter().map(|fact| match fact.as_str() {
        "namespace user: the host's" => "namespace user: its own".to_owned(),
        "uid_map: 0 0 4294967295" => "uid_map: ".to_owned(),
        "gid_map: 0 0 4294967295" => "gid_map: ".to_owned(),
        "its files in /proc belong to: 0" => "its files in /proc belong to: OWN".to_owned(),
        _ => fact.replace("none rw,inode64", "none rw,uid=OWN,gid=OWN,inode64"),
    });
    changed.collect()
}

/// A container's workload.
fn workload() -> Posture {
    const HIDDEN: [&str; 4] = ["interrupts", "kcore", "keys", "timer_list"];
    const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
    let root = ["dev", "etc", "isolab-work", "proc", "root", "run", "sys", "tmp"];
    let facts = [
        "mount: / / rw,nosuid,nodev,relatime - overlay overlay rw,lowerdir=lower,upperdir=upper,workdir=work,userxattr",
        "mount: / /dev rw,nosuid,noexec,relatime - tmpfs tmpfs rw,size=64k,nr_inodes=64,mode=755,uid=OWN,gid=OWN,inode64",
        "mount: / /dev/.image ro,nosuid,nodev,relatime,idmapped - erofs /proc/self/fd/9 ro,user_xattr,acl,cache_strategy=readaround",
        "mount: / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=OWN+5,mode=620,ptmxmode=666",
        "mount: / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=65536k,nr_inodes=16384,uid=OWN,gid=OWN,inode64",
        "mount: / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw",
        "mount: / /proc/acpi ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs ro,size=4k,nr_inodes=1,uid=OWN,gid=OWN,inode64",
        "mount: /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw",
        "mount: /fs /proc/fs ro,nosuid,nodev,noexec,relatime - proc proc rw",
        "mount: /irq /proc/irq ro,nosuid,nodev,noexec,relatime - proc proc rw",
        "mount: /pressure /proc/pressure ro,nosuid,nodev,noexec,relatime - proc proc rw",
        "mount: /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw",
        "mount: /sysrq-trigger /proc/sysrq-trigger ro,nosuid,nodev,noexec,relatime - proc proc rw",
        "uid_map: 0 OWN 65536",
        "gid_map: 0 OWN 65536",
        "its files in /proc belong to: OWN",
        "limit Max core file size: 1 1 bytes",
        "limit Max open files: 1024 524288 files",
        "open: /dev/null x1",
        "open: pipe x2",
    ];
    let mounted =
        |what: &str, place: String| format!("mount: /{what} {place} rw,nosuid,relatime - devtmpfs devtmpfs");
    let mut all = thread("isolab-work", NO_CAPABILITY, 1);
    all.extend(namespaces(&["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]));
    all.extend(root.map(|name| format!("in its root: {name}")));
    all.extend(DEVICES.map(|name| mounted(name, format!("/dev/{name}"))));
    all.extend(HIDDEN.map(|name| mounted("null", format!("/proc/{name}"))));
    all.extend(facts.map(str::to_owned));
    all
}

/// The namespaces of which it has its own.
fn namespaces(own: &[&str]) -> Vec<String> {
    let all = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let of = |name: &&str| if own.contains(name) { "its own" } else { "the host's" };
    all.iter().map(|name| format!("namespace {name}: {}", of(name))).collect()
}

/// A running isolab whose workload says a line, waits for a byte, says another one and ends at the end of its input.
struct Running {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(options: &[&str], user: Option<u32>) -> Self {
        let mut command = Command::new("/lab/isolab");
        command.args(["run", "--on", "host", "-i"]).args(options);
        command.args(["demo", "--", "/isolab-work", "touch-free", "1"]);
        user.map(|id| command.uid(id).gid(id));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("isolab starts");
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut running = Self { child, input, lines };
        assert_eq!(running.next(), "touched");
        running
    }

    fn next(&mut self) -> String {
        self.lines.next().and_then(Result::ok).expect("a line of the workload")
    }

    /// The last of its descendants: the monitor, or the workload.
    fn last(&self) -> i32 {
        let mut last = i32::try_from(self.child.id()).expect("a number");
        while let Some(child) = child_of(last) {
            last = child;
        }
        last
    }

    /// The posture of the last process, the same at two moments. `ids` says whose it is, by its number and by isolab's.
    fn posture(mut self, ids: impl Fn(u32, u32) -> u32) -> Posture {
        let pid = self.last();
        let own = ids(u32::try_from(pid).expect("a number"), self.child.id());
        let words = [(own.to_string(), "OWN"), ((own + 5).to_string(), "OWN+5")];
        let early = posture::of(pid, &words);
        self.input.write_all(b"\n").expect("the workload reads");
        assert_eq!(self.next(), "freed");
        assert_eq!(posture::of(pid, &words), early);
        drop(self.input);
        assert!(self.child.wait().expect("isolab ends").success());
        early
    }
}

fn child_of(parent: i32) -> Option<i32> {
    let numbers = fs::read_dir("/proc").expect("/proc").flatten();
    let mut numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        of == Some(parent)
    })
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_postures_are_read() {
    assert!(fs::exists("/lab/isolab").expect("a file system"), "this half runs in the lab");
    let everybody = fs::Permissions::from_mode(0o666);
    fs::set_permissions("/dev/kvm", everybody).expect("the lab's own device");
    let single = |pid, _| 0x7fc0_0000 + pid;
    let same = |expected: Posture, found: Posture, what| {
        let differ = differences(&expected, &found);
        assert!(differ.is_empty(), "{what}:\n{}", differ.join("\n"));
    };
    let guest = Running::start(&["--level", "vm", "--cpus", "2"], None).posture(single);
    same(monitor(2, 2), guest, "a guest with two processors");
    let restored = Running::start(&["--level", "vm", "--from-snapshot"], None).posture(single);
    same(monitor(1, 3), restored, "a restored guest");
    let users = Running::start(&["--level", "vm"], Some(USER)).posture(|_, _| USER);
    same(users_monitor(), users, "a user's guest");
    let block = |_, isolab| 0x4000_0000 + isolab * 0x1_0000;
    let container = Running::start(&["--level", "container"], None).posture(block);
    same(workload(), container, "a container");

    // Each of these is seen.
    let open = Running::start(&["--level", "vm", "--knob", "jail=off"], None).posture(|_, _| u32::MAX - 5);
    let differ = differences(&monitor(1, 2), &open);
    for fact in [
        "+ vcpu0: Uid 0 0 0 0",
        "+ isolab: Gid 0 0 0 0",
        "+ namespace mnt: the host's",
        "+ in its root: lab",
        "- limit Max open files: 16 16 files",
        "- limit Max core file size: 1 1 bytes",
    ] {
        assert!(differ.iter().any(|found| found == fact), "{fact}:\n{}", differ.join("\n"));
    }
    let unfiltered = Running::start(&["--level", "container", "--knob", "seccomp=off"], None).posture(block);
    let differ = differences(&workload(), &unfiltered);
    assert!(differ.iter().any(|found| found == "+ isolab-work: Seccomp 0"), "{}", differ.join("\n"));
}
