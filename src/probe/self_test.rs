//! `isolab probe --self-test`: whether each probe can say "reached" at all.
//!
//! The program runs at level process and, for what that level takes away already, straight as a child of isolab. What neither
//! reaches is listed with the reason.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use isolab_bench::probe::table::Row;
use isolab_bench::probe::{BASELINE, Cell, Outcome};
use isolab_images::programs::{PROBE, Sealed};

use super::judge::Context;
use super::{NOT_AS_PUBLISHED, Session, job_of, lines, run, truth};
use crate::cli::ProbeArgs;
use crate::config::JobConfig;
use crate::{resolve, say};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

/// Most bytes that the program may say.
const MOST: u64 = 8 << 20;

/// What the test says about a probe.
enum Shown {
    /// Reached, here.
    Reached(&'static str),
    /// This machine has nothing to reach.
    Nothing(String),
    /// It asks about a guest.
    Guest,
    /// Refused or unknown even so.
    Not(String),
}

/// Runs it and gives the exit status.
pub(super) fn run(_: &ProbeArgs, config: &JobConfig, rows: &[&'static Row]) -> anyhow::Result<u8> {
    let image = resolve::image(&config.image)?;
    let job = job_of(config, &image)?;
    let mut session = Session::new(config, &image, job, rows)?;
    let level = match session.run(BASELINE)? {
        Ok(level) => level,
        Err(signal) => return Ok(128_u8.saturating_add(signal)),
    };
    let (cells, _) = session.judge(&[level], &[BASELINE.to_owned()]);
    let direct = session.directly()?;
    let mut text = String::new();
    let (mut reached, mut nothing, mut guest, mut not) = (0, 0, 0, 0);
    for row in rows {
        let find = |cells: &[Cell]| cells.iter().find(|cell| cell.probe == row.id).cloned();
        let shown = shown(row, find(&cells).as_ref(), find(&direct).as_ref());
        let said = match shown {
            Shown::Reached(how) => {
                reached += 1;
                format!("can fail: reached {how}")
            }
            Shown::Nothing(why) => {
                nothing += 1;
                format!("not shown here: this machine has {why}")
            }
            Shown::Guest => {
                guest += 1;
                "not shown here: asks about a guest's devices".to_owned()
            }
            Shown::Not(why) => {
                not += 1;
                format!("NOT SHOWN: {why}")
            }
        };
        text.push_str(&format!("{:<5}{:<32}{said}\n", row.id, row.title));
    }
    text.push_str(&format!(
        "\n{reached} of {} probes can fail; {nothing} have nothing to reach on this machine, {guest} ask about a guest, {not} are not shown.\n",
        rows.len()
    ));
    say::all(text)?;
    Ok(if not == 0 { 0 } else { NOT_AS_PUBLISHED })
}

fn shown(row: &Row, level: Option<&Cell>, direct: Option<&Cell>) -> Shown {
    let is = |cell: Option<&Cell>, outcome| cell.is_some_and(|cell| cell.outcome == outcome);
    if is(level, Outcome::Reached) {
        return Shown::Reached("at level process");
    }
    if is(direct, Outcome::Reached) {
        return Shown::Reached("by the program as a plain child of isolab");
    }
    if row.at(BASELINE).outcome.outcome() == Some(Outcome::NotApplicable) {
        return Shown::Guest;
    }
    let Some(cell) = level else { return Shown::Not("it did not run".to_owned()) };
    let names = |outcome| {
        let items = cell.items.iter().filter(|item| item.outcome == outcome);
        items.map(|item| item.item.as_str()).collect::<Vec<_>>().join(", ")
    };
    match cell.outcome {
        Outcome::NotApplicable => Shown::Nothing(format!("no {}", names(Outcome::NotApplicable))),
        Outcome::Blocked => Shown::Not(format!("refused to isolab itself: {}", names(Outcome::Blocked))),
        _ => Shown::Not(format!("it failed: {}", names(Outcome::Unknown))),
    }
}

impl Session<'_> {
    /// The cells of the program as a plain child of isolab, with what it leaves open.
    fn directly(&self) -> anyhow::Result<Vec<Cell>> {
        let spec = self.spec(BASELINE)?;
        let program = Sealed::new(c"isolab-probe", PROBE)?;
        let left_open = File::open(&self.plants.planted.file).context("open the planted file")?;
        fcntl_setfd(&left_open, FdFlags::empty()).context("leave a descriptor open")?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
        let before = truth::read(&self.files);
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_fd().as_raw_fd()));
        command.stdin(Stdio::piped()).stdout(write).stderr(Stdio::null());
        let mut child = command.spawn().context("start the probe program")?;
        drop((command, left_open));
        let said = run::reader(File::from(read), MOST);
        let mut text = serde_json::to_vec(&spec)?;
        text.push(b'\n');
        child.stdin.take().context("take its standard input")?.write_all(&text)?;
        child.wait().context("wait for the probe program")?;
        let said = said.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let after = truth::read(&self.files);
        let said = lines::read(&said.bytes, &spec.probes)?;
        let context = Context {
            level: BASELINE,
            own_kernel: false,
            files: &self.files,
            before: &before,
            after: &after,
            host: &self.host,
            baseline: None,
            baseline_calls: None,
        };
        let asked = self.rows.iter().filter(|row| spec.probes.iter().any(|id| id == row.id));
        Ok(asked.map(|row| Cell::judged(row, BASELINE, false, 0, context.items(row.id, &said))).collect())
    }
}
