//! What is planted on the host: a process of the probe program's own that owns it all and takes it away when isolab is gone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use isolab_bench::probe::PlantedFact;
use isolab_images::probe::{LOAD_OFF, LOAD_ON, MAX_LINE, Planted, Spec};
use isolab_images::programs::{PROBE, Sealed};
use rustix::rand::{GetRandomFlags, getrandom};

use super::run::Begin;

/// The variable of the planted process's environment.
const VARIABLE: &str = "ISOLAB_PROBE_PLANTED";
/// Another, which is named as secrets are.
const SECRET_VARIABLE: &str = "ISOLAB_PROBE_SECRET_TOKEN";
/// Threads that sleep on the host, and as many more at most: a guest has not half as many tasks.
const THREADS: u32 = 200;

/// The planted process; when this is dropped, all of it goes.
#[derive(Debug)]
pub(super) struct Plants {
    stdin: Option<ChildStdin>,
    /// It ends when that process does.
    stdout: BufReader<ChildStdout>,
    /// What there is.
    pub(super) planted: Planted,
}

fn random(bytes: &mut [u8]) -> anyhow::Result<()> {
    let n = getrandom(&mut *bytes, GetRandomFlags::empty()).context("get random bytes")?;
    if n == bytes.len() { Ok(()) } else { bail!("the kernel gave {n} random bytes") }
}

impl Plants {
    /// Plants everything; the load on the host is to have steps of so many milliseconds.
    ///
    /// # Errors
    /// The process can't be started or can't plant.
    pub(super) fn new(load_step_ms: u32) -> anyhow::Result<Self> {
        let mut bytes = [0; 10];
        random(&mut bytes)?;
        let mut hex = String::new();
        bytes.iter().take(8).try_for_each(|byte| write!(hex, "{byte:02x}"))?;
        let nonce = format!("isolab-{hex}");
        let dir = writable_dir()?;
        let shm = Path::new("/dev/shm");
        let wanted = Planted {
            file: dir.join(&nonce).to_str().context("name the planted file")?.to_owned(),
            socket_file: dir
                .join(format!("{nonce}.s"))
                .to_str()
                .context("name the planted socket")?
                .to_owned(),
            secret_file: dir
                .join(format!("{nonce}.netrc"))
                .to_str()
                .context("name the planted file of secrets")?
                .to_owned(),
            secret_variable: SECRET_VARIABLE.to_owned(),
            abstract_name: nonce.clone(),
            // Names of processes have 15 bytes.
            process: nonce.chars().take(15).collect(),
            shm_file: if shm.is_dir() { format!("/dev/shm/{nonce}") } else { String::new() },
            threads: THREADS + u32::from(bytes[8]) % 100,
            load_step_ms,
            variable: VARIABLE.to_owned(),
            nonce,
            ..Planted::default()
        };
        let program = Sealed::new(c"isolab-probe", PROBE)?;
        let mut child = Command::new(format!("/proc/self/fd/{}", program.as_fd().as_raw_fd()))
            .arg("decoy")
            .env_clear()
            .env(VARIABLE, &wanted.nonce)
            .env(SECRET_VARIABLE, &wanted.nonce)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the planted process")?;
        let mut stdin = child.stdin.take().context("take its standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("take its standard output")?);
        let spec = Spec { planted: wanted, ..Spec::default() };
        let mut line = serde_json::to_vec(&spec)?;
        line.push(b'\n');
        stdin.write_all(&line).context("tell the planted process what to plant")?;
        let mut plants = Self { stdin: Some(stdin), stdout, planted: spec.planted };
        // What stays is a child of this one, which ends at once.
        child.wait().context("wait for the start of the planted process")?;
        let mut line = Vec::new();
        plants.stdout.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
        match serde_json::from_slice(&line) {
            Ok(planted) => plants.planted = planted,
            Err(_) => {
                let mut why = String::new();
                if let Some(stderr) = child.stderr.take() {
                    stderr.take(1024).read_to_string(&mut why)?;
                }
                bail!(
                    "nothing could be planted on the host: {}",
                    why.trim().trim_start_matches("isolab-probe: ")
                );
            }
        }
        Ok(plants)
    }

    /// Whether the process is there: without it, what a level does not find shows nothing.
    pub(super) fn are_there(&self) -> bool {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.planted.pid)).unwrap_or_default();
        name.trim_end() == self.planted.process
    }

    /// What makes load on the host from the moment on when it is called.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn load(&self) -> anyhow::Result<Begin> {
        let stdin = self.stdin.as_ref().context("speak to the planted process")?;
        let mut stdin = File::from(stdin.as_fd().try_clone_to_owned().context("copy a descriptor")?);
        // Where it is gone, `are_there` tells so.
        Ok(Box::new(move || drop(stdin.write_all(&[LOAD_ON]))))
    }

    /// Makes none any more.
    ///
    /// # Errors
    /// The planted process is gone.
    pub(super) fn no_load(&mut self) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("speak to the planted process")?;
        stdin.write_all(&[LOAD_OFF]).context("tell the planted process to make no load")
    }

    /// For the record.
    pub(super) fn facts(&self) -> Vec<PlantedFact> {
        let p = &self.planted;
        let facts = [
            ("random text", p.nonce.clone()),
            ("file", p.file.clone()),
            ("file of secrets", p.secret_file.clone()),
            ("socket file", p.socket_file.clone()),
            ("abstract socket", p.abstract_name.clone()),
            ("port of 127.0.0.1", p.port.to_string()),
            ("process", format!("{} ({})", p.process, p.pid)),
            ("variable of its environment", format!("{}={}", p.variable, p.nonce)),
            ("variable of secrets", format!("{}={}", p.secret_variable, p.nonce)),
            ("System V segment", p.shm_id.to_string()),
            ("POSIX shared memory", p.shm_file.clone()),
            ("sleeping threads", p.threads.to_string()),
        ];
        let fact = |(what, value): (&str, String)| PlantedFact { what: what.to_owned(), value };
        facts.into_iter().filter(|(_, value)| !value.is_empty()).map(fact).collect()
    }
}

impl Drop for Plants {
    fn drop(&mut self) {
        // The end of its standard input is what it waits for.
        drop(self.stdin.take());
        // It has nothing to do but to remove three files, and closes this when it has; should it be gone, it is closed already.
        let _ = self.stdout.read_to_end(&mut Vec::new());
    }
}

/// A directory for the planted files, with a path short enough for a socket's.
fn writable_dir() -> anyhow::Result<PathBuf> {
    let candidates =
        [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/run"), PathBuf::from("/root")];
    let fits = |dir: &&PathBuf| {
        dir.as_os_str().len() < 48 && fs::metadata(dir).is_ok_and(|meta| meta.is_dir()) && may_write(dir)
    };
    candidates.iter().find(fits).cloned().context("no directory takes the planted files; set TMPDIR to one")
}

fn may_write(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}
