//! A launcher for tests: `unshare` makes the namespaces, bash places the descriptors, `isolab-init` does the rest.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Io};
use std::sync::Mutex;

use isolab_images::job::{BlockOptions, Job, Stdio, User};
use isolab_images::programs::{INIT, WORK};
use isolab_wire::mark::{Code, Exit, Failure, Mark, RECORD_LEN};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use tempfile::TempDir;

/// An image made by the reference tool, and the init program as a file.
pub(crate) struct Lab {
    dir: TempDir,
}

/// What the host lacks for these tests, printed by each test that is skipped for it.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let here = |program: &str| Path::new("/usr/bin").join(program).exists();
    ["mkfs.erofs", "unshare", "bash"].into_iter().find(|p| !here(p))
}

/// How the instance ended and what it said.
pub(crate) struct Report {
    pub(crate) marks: Vec<Mark>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = (self.exit(), self.failure());
        write!(f, "{} {end:?} stdout {:?} stderr {:?}", self.codes(), self.text(), self.stderr)
    }
}

impl Report {
    pub(crate) fn codes(&self) -> String {
        self.marks.iter().map(|m| char::from(m.code as u8)).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        let last = self.marks.last().filter(|m| m.code == Code::Exit)?;
        Exit::decode(last.value)
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        let last = self.marks.last().filter(|m| m.code == Code::Failed)?;
        Failure::decode(last.value)
    }
}

/// What is different from a plain run.
#[derive(Clone, Copy, Default)]
pub(crate) struct How<'a> {
    pub(crate) block: BlockParts<'a>,
    pub(crate) stdin: &'a [u8],
    pub(crate) user_namespace: bool,
}

/// The parts of [`BlockOptions`] that tests choose.
#[derive(Clone, Copy, Default)]
pub(crate) struct BlockParts<'a> {
    pub(crate) confine_with: Option<&'a [u8]>,
    pub(crate) root_is_dir: bool,
    pub(crate) limits: &'a [(u32, u64, u64)],
}

/// A running instance.
pub(crate) struct Instance {
    pub(crate) control: File,
    pub(crate) marks: File,
    pub(crate) child: Child,
}

/// Descriptors are inheritable for the moment of a start: one start at a time.
static STARTING: Mutex<()> = Mutex::new(());

impl Lab {
    /// An image of `isolab-work`, busybox where the host has it, and what `add` puts there.
    pub(crate) fn new(add: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new().expect("temporary directory");
        let path = dir.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
        for (name, bytes) in [("init", INIT), ("image/isolab-work", WORK)] {
            fs::create_dir_all(path.join("image/etc")).expect("image directory");
            fs::write(path.join(name), bytes).expect("program");
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o755)).expect("mode");
        }
        fs::write(path.join("image/etc/motd"), "from the image\n").expect("file");
        if let Ok(busybox) = fs::read("/bin/busybox") {
            fs::create_dir(path.join("image/bin")).expect("directory");
            fs::write(path.join("image/bin/busybox"), busybox).expect("busybox");
            fs::set_permissions(path.join("image/bin/busybox"), fs::Permissions::from_mode(0o755))
                .expect("mode");
        }
        add(&path.join("image"));
        let made = Command::new("mkfs.erofs").arg(path.join("image.erofs")).arg(path.join("image")).output();
        assert!(made.expect("mkfs.erofs").status.success());
        Self { dir }
    }

    pub(crate) fn image_dir(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn detached_image(&self) -> OwnedFd {
        let fs = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
        rustix::mount::fsconfig_set_string(&fs, "source", self.dir.path().join("image.erofs"))
            .expect("source");
        rustix::mount::fsconfig_set_flag(&fs, "ro").expect("ro");
        rustix::mount::fsconfig_create(&fs).expect("mount the image");
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).expect("fsmount")
    }

    /// Starts init with these bytes as its job block.
    pub(crate) fn start(&self, block: &[u8], how: &How<'_>) -> Instance {
        let _one = STARTING.lock().expect("no test panics while it starts");
        let (control_read, control) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let (marks, marks_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let root = (!how.block.root_is_dir).then(|| self.detached_image());
        // Above the numbers that bash places them at, or one would overwrite another.
        let high = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 20).expect("descriptor");
        let (control_read, marks_write) = (high(&control_read), high(&marks_write));
        let root = root.as_ref().map(high);
        for fd in [Some(&control_read), Some(&marks_write), root.as_ref()].into_iter().flatten() {
            fcntl_setfd(fd, FdFlags::empty()).expect("inheritable");
        }
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        // A directory must be opened in the new mount namespace.
        let root_from =
            root.as_ref().map_or_else(|| "<\"$DIR\"".to_owned(), |fd| format!("<&{}", number(fd)));
        let script = format!(
            "exec 3<&{} 4>&{} 5{root_from} && exec \"$INIT\" container",
            number(&control_read),
            number(&marks_write)
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--kill-child"]);
        if how.user_namespace {
            // One user only: the mapping of a rootless run, without the right to set groups.
            unshare.args(["--user", "--map-root-user"]);
        }
        let child = unshare
            .args(["bash", "-c", &script])
            .env("INIT", self.dir.path().join("init"))
            .env("DIR", self.image_dir())
            .stdin(Io::piped())
            .stdout(Io::piped())
            .stderr(Io::piped())
            .spawn()
            .expect("unshare");
        let mut control = File::from(control);
        control.write_all(block).expect("job block");
        Instance { control, marks: File::from(marks), child }
    }

    /// Runs a job to its end.
    pub(crate) fn run(&self, job: &Job, how: &How<'_>) -> Report {
        let block = job
            .encode(&BlockOptions {
                fault: (0, 0),
                confine_with: how.block.confine_with,
                root_is_dir: how.block.root_is_dir,
                program: false,
                no_groups: false,
                limits: how.block.limits,
                template: false,
            })
            .expect("job fits");
        self.start(&block, how).finish(how.stdin)
    }
}

impl Instance {
    /// The next mark; nothing when the pipe has ended.
    pub(crate) fn next_mark(&mut self) -> Option<Mark> {
        let mut record = [0; RECORD_LEN];
        self.marks.read_exact(&mut record).ok()?;
        Some(Mark::decode(&record).expect("a mark"))
    }

    /// Waits for a mark of this kind.
    pub(crate) fn until(&mut self, code: Code) {
        while self.next_mark().expect("the mark comes").code != code {}
    }

    /// Feeds standard input, reads everything, waits.
    pub(crate) fn finish(mut self, stdin: &[u8]) -> Report {
        let mut feed = self.child.stdin.take().expect("piped");
        let stdin = stdin.to_vec();
        // A workload that does not read is no error here.
        let feeder = std::thread::spawn(move || drop(feed.write_all(&stdin)));
        let output = self.child.wait_with_output().expect("output");
        feeder.join().expect("feeder");
        let mut marks = Vec::new();
        let mut record = [0; RECORD_LEN];
        while self.marks.read_exact(&mut record).is_ok() {
            marks.push(Mark::decode(&record).expect("a mark"));
        }
        drop(self.control);
        Report { marks, stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

/// A job of this command with the defaults of most tests.
pub(crate) fn job(argv: &[&str]) -> Job {
    Job {
        image: "sha256:0".to_owned(),
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        env: vec!["PATH=/bin:/".to_owned(), "NAME=value".to_owned()],
        workdir: "/".to_owned(),
        user: User::default(),
        hostname: "inside".to_owned(),
        memory_bytes: 64 << 20,
        cpus: 1,
        pids: 64,
        read_only: false,
        stdio: Stdio::Output,
        timeout: None,
        marks: false,
    }
}
