//! isolab as an ordinary user: levels process and container, the user's own store, what is refused and why.
//!
//! Each test runs as a user of its own: a number that nobody has, or an account with subordinate ids made for the test.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use support::{Done, binary, done, run};

const LEVELS: [&str; 2] = ["process", "container"];
const WORK: &str = "/isolab-work";
/// Ends the test where users can't be changed.
macro_rules! root_or_skip {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: rootless: needs root to become other users");
            return;
        }
    };
}

/// A user with a home, and a copy of the binary where he can reach it.
struct User {
    dir: PathBuf,
    uid: u32,
    gid: u32,
    account: Option<String>,
}

impl User {
    /// A number without an account and without subordinate ids.
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = 1_900_000_000 + NEXT.fetch_add(1, Ordering::Relaxed);
        Self::with(id, id, None)
    }

    /// An account with a range in `/etc/subuid` and `/etc/subgid`.
    fn with_range() -> Self {
        let name = format!("isolab-t{}", std::process::id());
        tool("useradd", &["--no-create-home", "--shell", "/bin/sh", "--user-group", &name]);
        let range = "1800000000-1800065535";
        tool("usermod", &["--add-subuids", range, "--add-subgids", range, &name]);
        let id = |flag: &str| {
            let output = Command::new("id").args([flag, &name]).output().expect("id");
            String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
        };
        let (uid, gid) = (id("-u"), id("-g"));
        Self::with(uid, gid, Some(name))
    }

    fn with(uid: u32, gid: u32, account: Option<String>) -> Self {
        // Not $TMPDIR, which may be root's alone.
        let dir = PathBuf::from(format!("/tmp/isolab-rootless-{}-{uid}", std::process::id()));
        fs::create_dir(&dir).expect("a new directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("mode");
        fs::create_dir(dir.join("home")).expect("home");
        chown(dir.join("home"), Some(uid), Some(gid)).expect("owner");
        fs::set_permissions(dir.join("home"), fs::Permissions::from_mode(0o700)).expect("mode");
        fs::copy(binary(), dir.join("isolab")).expect("the binary");
        fs::set_permissions(dir.join("isolab"), fs::Permissions::from_mode(0o755)).expect("mode");
        Self { dir, uid, gid, account }
    }

    fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// Any program as this user, with nothing of ours in the environment.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={}", self.uid), &format!("--regid={}", self.gid), "--clear-groups"]);
        command.arg(program).args(args).stdin(Stdio::null()).current_dir("/").env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", self.home());
        command
    }

    fn isolab(&self, args: &[&str]) -> Command {
        self.command(self.dir.join("isolab").to_str().expect("UTF-8"), args)
    }

    fn run(&self, args: &[&str]) -> Done {
        done(self.isolab(args).output().expect("setpriv starts"))
    }

    /// `isolab run --level L ARGS`.
    fn at(&self, level: &str, args: &[&str]) -> Done {
        self.run(&[&["run", "--level", level][..], args].concat())
    }

    fn scratch(&self) -> Vec<PathBuf> {
        entries(&self.home().join(".local/share/isolab/scratch"))
    }

    /// Processes of this user and of his subordinate ids that run `word`.
    fn processes(&self, word: &str) -> Vec<String> {
        let ours = |pid: &String| {
            let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            cmdline.contains(word)
        };
        let pids = entries(Path::new("/proc")).into_iter();
        let pids = pids.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        pids.filter(|name| name.bytes().all(|c| c.is_ascii_digit())).filter(ours).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        if let Some(name) = &self.account {
            // Its ranges go with it.
            tool("userdel", &[name]);
        }
    }
}

fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn exit_status_is_that_of_root() {
    root_or_skip!();
    let user = User::new();
    let table: &[(&[&str], i32)] = &[
        (&["demo"], 0),
        (&["demo", "--", WORK, "null"], 0),
        (&["demo", "--", WORK, "exit", "7"], 7),
        (&["demo", "--", WORK, "exit", "255"], 255),
        (&["demo", "--", WORK, "crash", "11"], 139),
        (&["demo", "--", WORK, "crash", "15"], 143),
        (&["demo", "--", "/etc/passwd"], 126),
        (&["demo", "--", "/no/such/command"], 127),
        (&["--timeout", "1s", "demo", "--", WORK, "spin"], 124),
    ];
    for level in LEVELS {
        for (args, expected) in table {
            let result = user.at(level, args);
            assert_eq!(result.status, Some(*expected), "{level} {args:?}: {}", result.stderr);
        }
    }
    assert_eq!(user.scratch(), [] as [PathBuf; 0], "the private copies are gone");
}

#[test]
fn the_image_lies_read_only_below_a_writable_overlay() {
    root_or_skip!();
    let user = User::new();
    assert_eq!(user.run(&["image", "build", "busybox"]).status, Some(0));
    let script =
        "echo new > /made && echo more >> /etc/passwd && rm /bin/ls && cat /made && tail -n1 /etc/passwd";
    for level in LEVELS {
        for time in ["first", "second"] {
            let result =
                user.at(level, &["busybox", "--", "/bin/sh", "-c", &format!("! test -e /made && {script}")]);
            let seen = (result.status, result.stdout.as_str());
            assert_eq!(seen, (Some(0), "new\nmore\n"), "{level}, {time}: {}", result.stderr);
        }
        let mounts = user.at(level, &["busybox", "--", "/bin/cat", "/proc/self/mounts"]).stdout;
        assert!(mounts.starts_with("overlay / overlay rw,"), "{level}: {mounts}");
        assert_eq!(mounts.lines().filter(|line| line.contains(" / ")).count(), 1, "{level}: {mounts}");
        let result = user.at(level, &["--read-only", "busybox", "--", "/bin/sh", "-c", "echo x > /made"]);
        assert!(result.stderr.contains("Read-only file system"), "{level}: {}", result.stderr);
    }
    let below = user.at(
        "container",
        &["busybox", "--", "/bin/sh", "-c", "test -e /dev/.image/bin/sh && echo x > /dev/.image/x"],
    );
    assert!(below.stderr.contains("Read-only file system"), "{}", below.stderr);
    let home = user.home();
    let inside = user.at("container", &["busybox", "--", "/bin/ls", home.to_str().expect("UTF-8")]);
    assert!(inside.stderr.contains("No such file"), "the host's files are out of reach: {}", inside.stderr);
}

#[test]
fn a_user_without_a_range_is_root_inside_and_nobody_else() {
    root_or_skip!();
    let user = User::new();
    for level in LEVELS {
        let result = user.at(level, &["demo", "--", WORK, "id"]);
        assert!(result.stdout.starts_with("uid=0 euid=0 gid=0 egid=0 "), "{level}: {}", result.stdout);
        let refused = user.at(level, &["--user", "12:34", "demo", "--", WORK, "id"]);
        assert_eq!((refused.status, refused.stdout.as_str()), (Some(125), ""), "{level}");
        assert_eq!(refused.stderr.lines().count(), 1, "{level}: {}", refused.stderr);
        let named = ["user 12 or group 34", "/etc/subuid", "usermod"];
        let named = if Path::new("/usr/bin/newuidmap").exists() { &named[..] } else { &named[..2] };
        for word in named {
            assert!(refused.stderr.contains(word), "{level}: {}", refused.stderr);
        }
    }
    let uname = user.at("container", &["--hostname", "classroom", "demo", "--", WORK, "uname"]);
    assert!(uname.stdout.contains(" classroom "), "{}", uname.stdout);
}

#[test]
fn a_user_with_a_range_has_other_users_inside() {
    root_or_skip!();
    let user = User::with_range();
    assert_eq!(user.run(&["image", "build", "busybox"]).status, Some(0));
    for level in LEVELS {
        let result = user.at(
            level,
            &[
                "--user",
                "12:34",
                "busybox",
                "--",
                "/bin/sh",
                "-c",
                "id -u; id -g; > /tmp/x; stat -c %u:%g /tmp/x",
            ],
        );
        assert_eq!(
            (result.status, result.stdout.as_str()),
            (Some(0), "12\n34\n12:34\n"),
            "{level}: {}",
            result.stderr
        );
        let last = user.at(level, &["--user", "65535:65535", "demo", "--", WORK, "id"]);
        assert!(last.stdout.starts_with("uid=65535 "), "{level}: {}{}", last.stdout, last.stderr);
        let over = user.at(level, &["--user", "65536", "demo", "--", WORK, "id"]);
        assert_eq!(over.status, Some(125), "{level}: {}", over.stderr);
    }
    // No capability reaches the container's workload; the process has those of its user namespace.
    let chown = ["busybox", "--", "/bin/sh", "-c", "> /made; chown 5:6 /made && stat -c %u:%g /made"];
    let result = user.at("process", &chown);
    assert_eq!((result.status, result.stdout.as_str()), (Some(0), "5:6\n"), "{}", result.stderr);
    assert_eq!(user.at("container", &chown).status, Some(1));
    assert_eq!(user.scratch(), [] as [PathBuf; 0], "the private copies are gone");
}

#[test]
fn the_store_is_the_users_own() {
    root_or_skip!();
    let user = User::new();
    let home = user.home();
    let (tree, archive) = (home.join("tree"), home.join("tree.tar"));
    fs::create_dir_all(tree.join("bin")).expect("directory");
    fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("busybox-static is installed");
    tool("tar", &["-C", tree.to_str().expect("UTF-8"), "-cf", archive.to_str().expect("UTF-8"), "."]);
    for path in [&tree, &archive] {
        let path = path.to_str().expect("UTF-8");
        let imported = user.run(&["image", "import", path, "--name", "mine"]);
        assert_eq!(imported.status, Some(0), "{}", imported.stderr);
        let result = user.at("container", &["mine", "--", "/bin/busybox", "echo", "from mine"]);
        assert_eq!(result.stdout, "from mine\n", "{}", result.stderr);
    }
    assert!(user.run(&["image", "ls"]).stdout.contains("mine"));
    assert!(home.join(".local/share/isolab/names/mine").exists());
    let elsewhere = home.join("xdg");
    let listed = user.isolab(&["image", "ls", "--json"]).env("XDG_DATA_HOME", &elsewhere).output();
    assert_eq!(String::from_utf8_lossy(&listed.expect("starts").stdout).trim(), "[]");
    assert!(elsewhere.join("isolab").is_dir());
    assert_eq!(user.run(&["image", "rm", "mine"]).status, Some(0));
    assert_eq!(user.at("container", &["mine"]).status, Some(125));
    assert_eq!(user.run(&["gc"]).status, Some(0));
    let images = entries(&home.join(".local/share/isolab/images"));
    assert_eq!(images, [] as [PathBuf; 0], "space is given back");
}

#[test]
fn a_limit_that_was_asked_for_is_refused_where_it_cannot_be_enforced() {
    root_or_skip!();
    let user = User::new();
    for (option, value) in [("--memory", "64M"), ("--cpus", "1"), ("--pids", "100")] {
        let result = user.at("container", &[option, value, "demo"]);
        assert_eq!(result.status, Some(125), "{option}: {}", result.stderr);
        assert!(result.stderr.contains(&format!("{option} can't be enforced: ")), "{}", result.stderr);
        assert!(result.stderr.contains("--on lab"), "{}", result.stderr);
        assert_eq!(result.stderr.lines().count(), 1, "{}", result.stderr);
    }
    let plain = user.at("container", &["demo"]);
    assert_eq!((plain.status, plain.stderr.as_str()), (Some(0), ""), "the defaults stop nothing");
}

#[test]
fn compare_says_what_was_not_enforced() {
    root_or_skip!();
    let user = User::new();
    let levels = ["compare", "--on", "host", "--levels", "process,container", "--pairs", "2", "--json", "-"];
    // A machine that others slow down may refuse, which is not what this is about.
    let result = user.run(&[&levels[..], &["--allow-incomparable", "demo"]].concat());
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    let record: Value = serde_json::from_str(&result.stdout).expect("one JSON document");
    let arm = &record["arms"]["container"];
    assert_eq!(arm["limits_not_enforced"], serde_json::json!(["memory", "cpu", "pids"]));
    assert_eq!((&arm["mem_limit_bytes"], &arm["cpus"]), (&Value::Null, &Value::Null));
    assert_eq!(arm["rootfs"]["via"], "directory");
    assert_eq!(record["arms"]["process"].get("limits_not_enforced"), None);
    let samples = record["samples"].as_array().expect("samples");
    assert!(samples.iter().all(|sample| sample["ok"] == true), "{samples:?}");
    assert_eq!(result.stderr.matches("without its default limits").count(), 1, "{}", result.stderr);
    let asked = user.run(&[&levels[..], &["--memory", "64M", "demo"]].concat());
    let why = "container can't run here: --memory can't be enforced";
    assert!(asked.stderr.contains(why), "{}", asked.stderr);
}

#[test]
fn doctor_says_what_run_does() {
    root_or_skip!();
    let user = User::new();
    let report: Value = serde_json::from_str(&user.run(&["doctor", "--json"]).stdout).expect("JSON");
    for level in LEVELS {
        let on_host = |l: &&Value| l["level"] == level && l["on"] == "host";
        let found = report["levels"].as_array().expect("levels").iter().find(on_host).expect("the level");
        assert_eq!(found["state"], "limited", "{found}");
        assert_eq!(user.at(level, &["demo"]).status, Some(0), "a limited level runs");
        let reasons = found["problems"].to_string();
        assert!(reasons.contains("private copy") && reasons.contains("one user exists inside"), "{reasons}");
    }
    let refused = user.at("container", &["--memory", "64M", "demo"]).stderr;
    let problems = report["levels"][1]["problems"].as_array().expect("problems").clone();
    let same = problems.iter().any(|p| {
        let remedy = p["remedy"].as_str().unwrap_or("?");
        p["reason"].as_str().is_some_and(|reason| reason.contains("cgroup")) && refused.contains(remedy)
    });
    assert!(same, "{refused} {problems:?}");
}

#[test]
fn forbidden_user_namespaces_are_one_line_with_the_remedy() {
    root_or_skip!();
    let user = User::new();
    let isolab = user.dir.join("isolab");
    let isolab = isolab.to_str().expect("UTF-8");
    // The setting belongs to each user namespace: this one's is gone with it. Without its capabilities the user is an
    // ordinary one there.
    let inside = "echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all \"$@\"";
    // And the limit of an outer one, which can't be read from inside.
    let outside =
        "echo 1 > /proc/sys/user/max_user_namespaces && exec unshare --user --map-current-user \"$@\"";
    // And one kind of the others.
    let mounts = "echo 0 > /proc/sys/user/max_mnt_namespaces && \
         exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"";
    let none_left = "no more namespaces can be made";
    for (script, reason) in [(inside, "user namespaces are off"), (outside, none_left), (mounts, none_left)] {
        for level in LEVELS {
            let unshare = ["--user", "--map-current-user", "--keep-caps", "sh", "-c", script, "sh"];
            let run = [isolab, "run", "--level", level, "demo"];
            let result =
                done(user.command("unshare", &[&unshare[..], &run].concat()).output().expect("starts"));
            assert_eq!(result.status, Some(125), "{level}: {}", result.stderr);
            assert!(result.stderr.contains(reason), "{level}: {}", result.stderr);
            assert!(result.stderr.contains("sysctl user.max_user_namespaces"), "{level}: {}", result.stderr);
            assert_eq!(result.stderr.lines().count(), 1, "{level}: {}", result.stderr);
        }
    }
}

#[test]
fn nothing_that_the_workload_started_outlives_the_run() {
    root_or_skip!();
    let user = User::new();
    assert_eq!(user.run(&["image", "build", "busybox"]).status, Some(0));
    let word = format!("left-by-{}", user.uid);
    // An orphan, a session of its own, and one that is still starting others.
    let script = format!(
        "(sh -c 'sleep 300; : {word}' >/dev/null 2>&1 &); setsid sh -c 'sleep 300; : {word}' >/dev/null 2>&1 & \
         sh -c 'while :; do sleep 300 & : {word}; sleep 0.01; done' >/dev/null 2>&1 & exit 3"
    );
    for level in LEVELS {
        let result = user.at(level, &["busybox", "--", "/bin/sh", "-c", &script]);
        assert_eq!(result.status, Some(3), "{level}: {}", result.stderr);
        assert_eq!(user.processes(&word), [] as [String; 0], "{level}");
    }
}

#[test]
fn gc_removes_the_private_copy_of_a_killed_run() {
    root_or_skip!();
    let user = User::new();
    assert_eq!(user.run(&["image", "build", "busybox"]).status, Some(0));
    for level in LEVELS {
        let script = "mkdir /closed && chmod 0 /closed; echo up; exec sleep 300";
        let mut child = user
            .isolab(&["run", "--level", level, "busybox", "--", "/bin/sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("isolab writes");
        assert_eq!(line, "up\n", "{level}");
        let living = user.run(&["gc"]);
        assert_eq!(living.stdout, "nothing to remove\n", "{level}: a living run keeps its copy");
        child.kill().expect("kill");
        child.wait().expect("ends");
        // The workload ends with isolab: then nobody holds its output open any more.
        line.clear();
        assert_eq!(out.read_line(&mut line).expect("end of output"), 0, "{level}");
        assert_eq!(user.scratch().len(), 1, "{level}");
        let result = user.run(&["gc"]);
        assert!(result.stdout.starts_with("removed private copy of a run "), "{level}: {}", result.stdout);
        assert_eq!(user.scratch(), [] as [PathBuf; 0], "{level}");
    }
}

#[test]
fn a_proc_with_hidden_parts_is_named_with_the_remedy() {
    root_or_skip!();
    let user = User::new();
    let isolab = user.dir.join("isolab");
    let script = "mount --bind /dev/null /proc/cpuinfo && exec setpriv --reuid=\"$0\" --clear-groups \"$@\"";
    let as_in_a_container = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, &user.uid.to_string()]).arg(&isolab).args(args);
        done(command.env("HOME", user.home()).env_remove("ISOLAB_HOME").output().expect("starts"))
    };
    let result = as_in_a_container(&["run", "--level", "container", "demo"]);
    assert_eq!(result.status, Some(125), "{}", result.stderr);
    assert!(result.stderr.contains("parts of /proc are hidden"), "{}", result.stderr);
    assert_eq!(result.stderr.lines().count(), 1, "{}", result.stderr);
    assert_eq!(as_in_a_container(&["run", "--level", "process", "demo"]).status, Some(0));
    assert!(as_in_a_container(&["doctor"]).stdout.contains("with hidden parts"));
}

/// What the isolab of an ordinary user does in a part of the version 2 tree that was delegated to him, as a service
/// manager does it. The lab has such a tree, whatever this host has.
#[test]
fn delegated_cgroups_are_used() {
    root_or_skip!();
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir.path().join("root");
    for part in ["bin", "etc", "cgroup", "home"] {
        fs::create_dir_all(root.join(part)).expect("directory");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in ["sh", "mount", "mkdir", "chown", "su", "ls"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("link");
    }
    fs::copy(binary(), root.join("bin/isolab")).expect("the binary");
    fs::set_permissions(root.join("bin/isolab"), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")
        .expect("write");
    chown(root.join("home"), Some(1000), Some(1000)).expect("owner");
    let script = "set -e; mount -t cgroup2 none /cgroup; cd /cgroup
        echo '+memory +cpu +pids' > cgroup.subtree_control; mkdir -p slice/own
        echo '+memory +cpu +pids' > slice/cgroup.subtree_control; chown -R 1000:1000 slice
        echo $$ > slice/own/cgroup.procs; unset ISOLAB_HOME
        su user -c 'set +e; export HOME=/home; run() { isolab run --level container \"$@\"; echo status $?; }
            run --memory 64M --cpus 1 --pids 50 demo
            run --memory 64M demo -- /isolab-work touch 128
            run demo
            ls -d /cgroup/slice/isolab-*'";
    let image = format!("rootless-{}", std::process::id());
    let imported = run(&["image", "import", root.to_str().expect("UTF-8"), "--name", &image]);
    assert_eq!(imported.status, Some(0), "{}", imported.stderr);
    let job = ["run", "--level", "process", &image, "--", "/bin/sh", "-c", script];
    let lab = ["lab", "--lab-memory", "1500M", "--"];
    // A lab that gets stuck is the emulator's fault and told as such.
    let stuck = |result: &Done| result.status == Some(125) && result.stderr.contains("is stuck");
    let result = (0..8).map(|_| run(&[&lab[..], &job].concat())).find(|result| !stuck(result));
    let result = result.expect("one lab in eight that does not get stuck");
    run(&["image", "rm", &image]);
    assert_eq!(result.stdout, "status 0\nstatus 137\nstatus 0\n", "{}", result.stderr);
    assert!(result.stderr.contains("out of memory: the limit is 64 MiB"), "{}", result.stderr);
    assert!(result.stderr.contains("/cgroup/slice/isolab-*: No such file"), "{}", result.stderr);
}
