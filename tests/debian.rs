//! A real Debian root with python3 (about 150 MB): built by the recipe, packed by umoci and skopeo in several forms,
//! imported to one EROFS image, compared with what umoci unpacks, run at every level.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::lab::WALL;
use support::samples::{difference, tool, tree};
use support::{in_lab, isolab, run};

/// Criterion: an import of 150 MB takes less than this.
const IMPORT: Duration = Duration::from_secs(5);

#[test]
fn a_real_debian_is_one_image_from_every_source_and_runs_at_every_level() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let built = build(dir.path());
    pack(dir.path());
    every_source_gives(&built, dir.path());
    layers_give_the_tree_that_umoci_unpacks(dir.path());
    python_prints_the_same_at_every_level();
    for name in ["debian", "odd"] {
        assert_eq!(run(&["image", "rm", name]).status, Some(0), "{name}");
    }
}

/// `isolab image build debian`; the tar that mmdebstrap printed is kept as `root.tar`. Gives the image's digest.
fn build(dir: &Path) -> String {
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("directory");
    let path = std::env::var("PATH").expect("PATH");
    let script = format!(
        "#!/bin/bash\nset -o pipefail\nPATH='{path}' mmdebstrap \"$@\" | tee '{}'\n",
        dir.join("root.tar").display()
    );
    fs::write(bin.join("mmdebstrap"), script).expect("script");
    fs::set_permissions(bin.join("mmdebstrap"), fs::Permissions::from_mode(0o755)).expect("mode");
    let start = Instant::now();
    let output = isolab(&["image", "build", "debian", "--json"])
        .env("PATH", format!("{}:{path}", bin.display()))
        .output()
        .expect("isolab starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("build: {:.1} s", start.elapsed().as_secs_f64());
    let entry: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(entry["name"], "debian");
    assert_eq!(entry["config"]["cmd"][0], "/bin/bash");
    let mib = entry["size"].as_u64().expect("size") >> 20;
    assert!((100..220).contains(&mib), "about 150 MB, not {mib} MiB");
    let judge = Command::new("fsck.erofs").arg(entry["path"].as_str().expect("path")).output();
    let judge = judge.expect("erofs-utils is installed");
    assert!(judge.status.success(), "{}", String::from_utf8_lossy(&judge.stdout));
    entry["digest"].as_str().expect("digest").to_owned()
}

/// The same files as OCI layout `layout` (tag `plain`: two layers with a whiteout; tag `odd`: one more, with what Debian
/// has none of), as `zstd` and as `docker.tar`.
fn pack(dir: &Path) {
    let root = dir.join("bundle/rootfs");
    tool(dir, "umoci init --layout layout");
    tool(dir, "umoci new --image layout:plain");
    tool(dir, "umoci unpack --image layout:plain bundle");
    tool(dir, "tar -xf root.tar -C bundle/rootfs --numeric-owner --exclude=./usr/lib/python3*");
    fs::create_dir(root.join("usr/share/gone")).expect("directory");
    fs::write(root.join("usr/share/gone/file"), "of the lower layer\n").expect("file");
    tool(dir, "umoci repack --refresh-bundle --image layout:plain bundle");
    fs::remove_dir_all(root.join("usr/share/gone")).expect("removed");
    tool(dir, "tar -xf root.tar -C bundle/rootfs --numeric-owner");
    tool(dir, "umoci repack --refresh-bundle --image layout:plain bundle");
    tool(dir, "umoci config --image layout:plain --config.cmd /bin/bash --config.env LANG=C.UTF-8");
    tool(dir, "skopeo copy --insecure-policy -q oci:layout:plain docker-archive:docker.tar:debian:12");
    tool(dir, "skopeo copy --insecure-policy -q --dest-compress-format zstd oci:layout:plain oci:zstd:plain");
    let flags = rustix::fs::XattrFlags::CREATE;
    rustix::fs::setxattr(root.join("etc/debian_version"), "user.note", b"kept\0", flags).expect("attribute");
    fs::hard_link(root.join("etc/debian_version"), root.join("etc/second-name")).expect("link");
    fs::remove_dir_all(root.join("usr/share/doc")).expect("removed");
    tool(&root, "mkfifo -m 0622 etc/pipe");
    tool(&root, "chown 1234:4294967294 etc/hostname");
    tool(dir, "umoci repack --image layout:odd bundle");
}

fn import(args: &[&str]) -> (String, Duration) {
    let start = Instant::now();
    let result = run(&[&["image", "import", "--json"], args].concat());
    let took = start.elapsed();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    let entry: Value = serde_json::from_str(&result.stdout).expect("JSON");
    (entry["digest"].as_str().expect("digest").to_owned(), took)
}

fn every_source_gives(built: &str, dir: &Path) {
    let magic = |name: &str| {
        let blobs = fs::read_dir(dir.join(name).join("blobs/sha256")).expect("blobs");
        let start = |path: PathBuf| fs::read(path).expect("blob")[..4].to_vec();
        blobs.map(|blob| start(blob.expect("entry").path())).collect::<Vec<_>>()
    };
    assert!(magic("layout").iter().filter(|start| start.starts_with(&[0x1f, 0x8b])).count() >= 2, "gzip");
    assert!(magic("zstd").iter().any(|start| *start == [0x28, 0xb5, 0x2f, 0xfd]), "zstd");
    let mut fastest = Duration::MAX;
    for source in ["root.tar", "docker.tar", "layout", "zstd"] {
        let path = dir.join(source);
        let mut args = vec![path.to_str().expect("UTF-8"), "--name", "again"];
        if source == "layout" {
            args.extend(["--reference", "plain"]);
        }
        let (digest, took) = import(&args);
        println!("import of {source}: {:.2} s", took.as_secs_f64());
        assert_eq!(digest, built, "{source}");
        fastest = fastest.min(took);
    }
    // The fastest: a single one may have had to wait for other writers of the disk.
    assert!(fastest < IMPORT, "{fastest:?}");
    assert_eq!(run(&["image", "rm", "again"]).status, Some(0));
}

/// The judge: what umoci unpacks on one side, what the kernel shows of our EROFS file on the other.
fn layers_give_the_tree_that_umoci_unpacks(dir: &Path) {
    let layout = dir.join("layout");
    import(&[layout.to_str().expect("UTF-8"), "--reference", "odd", "--name", "odd"]);
    tool(dir, "umoci unpack --image layout:odd judge");
    let inspect = run(&["image", "inspect", "odd"]);
    let entry: Value = serde_json::from_str(&inspect.stdout).expect("JSON");
    let file = entry["path"].as_str().expect("path");
    let judge = Command::new("fsck.erofs").arg(file).output().expect("erofs-utils is installed");
    assert!(judge.status.success(), "{}", String::from_utf8_lossy(&judge.stdout));
    let judge = tree(&dir.join("judge/rootfs"));
    assert!(judge["/etc/debian_version"].contains("user.note") && judge["/etc/pipe"].ends_with("/etc/pipe"));
    assert!(judge["/etc/second-name"].contains("file /etc/debian_version "), "{}", judge["/etc/second-name"]);
    assert!(judge.len() > 5000 && !judge.contains_key("/usr/share/gone"), "{}", judge.len());
    let mounted = Mounted::new(file, dir.join("mounted"));
    assert_eq!(difference(&tree(&mounted.0), &judge), None);
}

/// An image file mounted by the kernel, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(file: &str, at: PathBuf) -> Self {
        fs::create_dir(&at).expect("directory");
        tool(Path::new("/"), &format!("mount -t erofs -o ro,loop {file} {}", at.display()));
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool(Path::new("/"), &format!("umount {}", self.0.display()));
    }
}

fn python_prints_the_same_at_every_level() {
    let programs = [
        "print(sum(i * i for i in range(100000)))",
        "import os, sys; print(sys.version_info[:2], os.getpid() > 0, os.getcwd(), os.environ['LANG'])",
        "import os; print(sorted((f, os.stat('/etc/' + f).st_size) for f in os.listdir('/etc')))",
        "import sys; sys.stderr.write('error'); sys.exit(41)",
    ];
    let python = |level, program| vec!["run", "--level", level, "debian", "--", "python3", "-c", program];
    let uname = |level| vec!["run", "--level", level, "debian", "--", "uname", "-r"];
    let here = |level| programs.map(|program| run(&python(level, program)));
    let (process, container) = (here("process"), here("container"));
    let of_snapshot = |program| [&["run", "--from-snapshot"], &python("vm", program)[1..]].concat();
    let mut commands = programs.map(of_snapshot).to_vec();
    commands.extend([uname("container"), uname("vm"), vec!["snapshot", "debian"]]);
    commands.rotate_right(1);
    let mut lab = in_lab(&WALL, &["debian"], &commands);
    let made = lab.remove(0);
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    for (level, done) in
        [("process", &process[..]), ("container", &container), ("vm", &lab[..programs.len()])]
    {
        assert_eq!(done[0].stdout, "333328333350000\n", "{level}: {}", done[0].stderr);
        assert_eq!((done[3].status, done[3].stderr.as_str()), (Some(41), "error"), "{level}");
        for ((program, done), process) in programs.iter().zip(done).zip(&process) {
            assert_eq!(done.status, process.status, "{level} {program}: {}", done.stderr);
            assert_eq!(done.stdout, process.stdout, "{level} {program}");
        }
    }
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    assert_eq!(run(&uname("container")).stdout, host);
    // The lab's own kernel and the guest's are both the entry `stock`.
    let stock: Value = serde_json::from_str(&run(&["kernel", "inspect", "stock"]).stdout).expect("JSON");
    for done in &lab[programs.len()..] {
        assert_eq!(stock["version"], done.stdout.trim(), "{}", done.stderr);
        assert_ne!(done.stdout, host);
    }
}
