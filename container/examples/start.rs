//! Starts a command in an EROFS image and prints its moments: `start container|process IMAGE RUNS CMD...`.

use std::fs::File;
use std::os::fd::AsFd;

use isolab_container::bare::{self, BareConfig};
use isolab_container::cgroup::Limits;
use isolab_container::launch::{self, ContainerConfig, job_limits};
use isolab_container::root::RootSource;
use isolab_images::job::{Job, Stdio, User};
use isolab_images::programs::INIT;
use isolab_wire::trace::Tracer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [level, image, runs, argv @ ..] = args.as_slice() else { return Err("too few arguments".into()) };
    let root = RootSource::Erofs(File::open(image)?);
    let job = Job {
        image: String::new(),
        argv: argv.to_vec(),
        env: vec!["PATH=/bin".into()],
        workdir: "/".into(),
        user: User::default(),
        hostname: "isolab".into(),
        memory_bytes: 128 << 20,
        cpus: 1,
        pids: 64,
        read_only: false,
        stdio: Stdio::Output,
        timeout: None,
        marks: false,
    };
    let null = File::open("/dev/null")?;
    let (out, err) = (std::io::stdout(), std::io::stderr());
    let stdio = [null.as_fd(), out.as_fd(), err.as_fd()];
    for _ in 0..runs.parse::<u32>()? {
        let request = isolab_container::clock::now_ns();
        let instance = if level == "container" {
            let limits = job_limits(&job);
            launch::start(&ContainerConfig {
                job: &job,
                root: &root,
                program: None,
                stdio,
                init: INIT,
                limits,
                tracer: Tracer::OFF,
            })?
        } else {
            bare::start(&BareConfig {
                job: &job,
                root: &root,
                program: None,
                stdio,
                limits: Limits::default(),
                tracer: Tracer::OFF,
            })?
        };
        let started = isolab_container::clock::now_ns();
        let outcome = instance.wait()?;
        let us = |ns: u64| (ns - request) / 1000;
        let stamps: Vec<String> =
            outcome.stamps.iter().map(|s| format!("{:?} {}", s.code, us(s.at_ns))).collect();
        eprintln!(
            "{:?}: {} released {} clean {}",
            outcome.end,
            stamps.join(" "),
            us(started),
            us(outcome.clean_ns)
        );
    }
    Ok(())
}
