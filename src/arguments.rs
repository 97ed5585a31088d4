//! The job's options as arguments again: for the isolab in the lab and for the fresh processes of a comparison.

use crate::cli::JobArgs;

/// Options, image and command.
pub(crate) fn of_job(job: &JobArgs, image: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut option = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            // With `=`, a value that begins with a dash stays a value.
            out.push(format!("{name}={value}"));
        }
    };
    // What was not asked for stays a default there too: a default that can't be enforced stops nothing.
    option("--memory", job.memory.as_ref());
    option("--cpus", job.cpus.as_ref());
    option("--pids", job.pids.map(|n| n.to_string()).as_ref());
    option("--hostname", job.hostname.as_ref());
    option("--workdir", job.workdir.as_ref());
    option("--user", job.user.as_ref());
    option("--timeout", job.timeout.as_ref());
    option("--start-timeout", job.start_timeout.as_ref());
    option("--kernel", job.kernel.as_ref());
    for entry in &job.env {
        option("--env", Some(entry));
    }
    let flags = [
        (job.read_only, "--read-only"),
        (job.from_snapshot, "--from-snapshot"),
        (job.free_page_reporting, "--free-page-reporting"),
        (job.interactive, "-i"),
        (job.tty, "-t"),
    ];
    out.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()));
    out.push(image.to_owned());
    if !job.command.is_empty() {
        out.push("--".into());
        out.extend(job.command.iter().cloned());
    }
    out
}
