//! Process 1 of a container and of a guest: the same program, so that comparing the two levels is fair.
//!
//! [`boot`] is the whole recipe, in order. It ends in one last mark: how the workload ended, or which step failed.
//! Contracts with isolab: `images/wire`. Everything in the job block is checked data; no byte of it, and nothing that
//! an image holds, makes this program panic.
#![no_std]
#![no_main]

mod channels;
mod guest;
mod launch;
mod mounts;
mod plan;
mod privileges;
mod pump;
mod stdio;
mod supervise;
mod template;
mod timeline;
mod workdir;

use isolab_bare::mark::Marks;
use isolab_bare::start::Start;
use isolab_bare::sys::{Errno, memory, process};
use isolab_wire::job::flag;
use isolab_wire::mark::{Code, Exit, Failure, Step};
use isolab_wire::trace::Subphase;
use timeline::Timeline;

#[allow(unsafe_code)]
mod entry {
    isolab_bare::entry!(super::main);
}

/// Where this process 1 is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In namespaces that isolab made; channels are inherited descriptors.
    Container,
    /// `/init` of a guest kernel; channels are console ports, marks are port writes.
    Guest,
}

/// Status of "there, but can't be executed".
const NOT_EXECUTABLE: i32 = 126;

fn main(start: Start) -> ! {
    // A workload can name us (`/proc/self/exe`); nobody but process 1 has any business here. Above all, `kill(-1)` at the
    // end must never meet a host's processes.
    if process::pid() != 1 {
        process::exit(NOT_EXECUTABLE)
    }
    let place = if start.arg(1).is_some_and(|a| a == c"container") { Place::Container } else { Place::Guest };
    let marks = match place {
        Place::Container => Marks::Pipe(channels::MARKS),
        Place::Guest => Marks::port().unwrap_or(Marks::Off),
    };
    // In a container it is told with the next mark.
    if place == Place::Guest {
        marks.write(Code::Init, 0);
    }
    let mut timeline = Timeline::default();
    match boot(place, marks, &start, &mut timeline) {
        Ok(exit) => {
            let claims = timeline.wanted().then(memory::ram_kib).flatten();
            let claims = claims.map(|[all, free]| [(Code::Ram, all), (Code::FreeRam, free)]);
            let claims = claims.as_ref().map_or(&[][..], |claims| claims);
            marks.write_last(Code::Exit, exit.encode(), timeline.ends(), claims);
        }
        Err(failure) => marks.write(Code::Failed, failure.encode()),
    }
    if place == Place::Guest {
        // The VMM stops at the last mark; should it not, the machine must not go on.
        process::reset_machine();
        loop {
            process::pause();
        }
    }
    process::exit(0)
}

/// The recipe, the same at both levels; where they differ, the step says so. A template is stored in the middle of it.
fn boot(place: Place, marks: Marks, start: &Start, timeline: &mut Timeline) -> Result<Exit, Failure> {
    supervise::take_signals().at(Step::Channels)?;
    let channels = match place {
        Place::Container => channels::inherited(),
        Place::Guest => guest::prepare(start),
    }?;
    let mut job = channels::read_job(channels.control)?;
    timeline.begin(&job);
    timeline::fault(&job, Subphase::GuestInit).at(Step::Channels)?;
    let program = channels::program(place, &job)?;
    timeline.end(&job, Subphase::InitJob).at(Step::Job)?;

    mounts::skeleton(place, &job).at(Step::Overlay)?;
    mounts::lower(place, &job).at(Step::Lower)?;
    let root = mounts::overlay(place, &job).at(Step::Overlay)?;
    let image = mounts::image_below(&job).at(Step::Overlay)?;
    timeline.end(&job, Subphase::RootMounts).at(Step::Overlay)?;
    mounts::kernel_file_systems(place, &job, root, image).at(Step::Mounts)?;
    timeline.end(&job, Subphase::KernelMounts).at(Step::Mounts)?;
    mounts::enter(place, root).at(Step::Root)?;
    timeline.end(&job, Subphase::Pivot).at(Step::Root)?;
    mounts::mask(&job).at(Step::Masks)?;
    timeline.end(&job, Subphase::Masks).at(Step::Masks)?;
    if place == Place::Guest {
        // In a container it is up already. A kernel without network has none, and nobody misses it there.
        let _ = isolab_bare::sys::tty::loopback_up();
        if job.has(flag::TEMPLATE) {
            job = template::wait(&job, &channels, marks)?;
        }
    }

    let hostname = job.hostname().strip_suffix(b"\0").unwrap_or_default();
    if !hostname.is_empty() {
        process::set_hostname(hostname).at(Step::Hostname)?;
    }
    workdir::enter(&job).at(Step::Workdir)?;

    let mut stdio = stdio::prepare(place, &job, &channels)?;
    timeline.end(&job, Subphase::Workspace).at(Step::Workdir)?;
    privileges::bound(&job).at(Step::Privileges)?;
    let workload = launch::start(&job, &stdio, (marks, start.tsc), program)?;
    stdio.close_workload_side();
    privileges::keep_only_kill(&job).at(Step::Privileges)?;

    Ok(supervise::until_end(workload, channels.control, &mut stdio))
}

/// Names the step of an error.
trait At<T> {
    /// As a failure of `step`.
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|e| Failure { step, errno: e.0 })
    }
}
