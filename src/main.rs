//! The isolab command: command line -> validated configuration -> level -> outcome. The only place that knows all
//! levels.
#![forbid(unsafe_code)]

#[macro_use]
mod say;

mod arguments;
mod batch;
mod bench;
mod check;
mod choose;
mod cli;
mod clock;
mod compare;
mod completions;
mod config;
mod diff;
pub mod doctor;
pub mod explain;
mod fault;
mod gc;
pub mod hint;
mod image;
mod importer;
mod kernel;
mod knobs;
mod lab;
mod levels;
mod manual;
mod output;
mod place;
mod probe;
mod report;
mod report_fd;
mod resolve;
mod run;
mod signals;
mod snapshot;
mod stdio;
mod supervise;
mod surface;
mod terminal;
mod units;

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use cli::{Cli, Command};
use isolab_container::panics;
use isolab_images::escape::escaped;
use rustix::process::{getegid, geteuid, getgid, getuid};

/// isolab's own error.
const OWN_ERROR: u8 = 125;
/// What was asked to be compared is not comparable.
const REFUSED: u8 = 3;

fn main() -> ExitCode {
    let main_ns = clock::now_ns();
    reach_stack();
    if has_borrowed_rights() {
        eprintln!(
            "isolab: with set-id bits, file capabilities or a policy's rights isolab would let its callers do what they may not; take \
             them away (chmod ug-s, setcap -r) and start it as a user who may"
        );
        return ExitCode::from(OWN_ERROR);
    }
    panics::end_with(OWN_ERROR.into());
    isolab_container::child::keep_children();
    if let Some(status) = lab::take_over() {
        return ExitCode::from(status);
    }
    let cli = match Cli::of(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            if asked || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                // Where the terminal is gone there is nobody left to tell.
                let _ = error.print();
            } else {
                eprintln!("isolab: {}{}", usage_line(&error.to_string()), misplaced(&error));
            }
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(OWN_ERROR) };
        }
    };
    match dispatch(cli, main_ns) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("isolab: {}{}", lab::shown(&error), remedy(&error));
            ExitCode::from(OWN_ERROR)
        }
    }
}

/// What to do where only who gave the command can do it: a comparison starts over by itself.
fn remedy(error: &anyhow::Error) -> &'static str {
    if error.is::<lab::Stuck>() { "; run it again" } else { "" }
}

/// Has the kernel map the stack that a run uses (28 to 32 KiB; every page of a large frame is probed), before anything is decided.
///
/// An emulated processor loses the condition that an instruction stores to a page not there yet (`docs/lab.md`): one of so
/// many command lines then had an option that nobody gave.
#[inline(never)]
fn reach_stack() {
    let room = [MaybeUninit::<u8>::uninit(); 28 << 10];
    black_box(&room);
}

/// Whether the file of this program gave it rights that its caller has not.
fn has_borrowed_rights() -> bool {
    isolab_container::has_borrowed_rights() || getuid() != geteuid() || getgid() != getegid()
}

/// Advice for who gives a command, or the file of an export, as other tools take it.
fn misplaced(error: &clap::Error) -> &'static str {
    let unexpected = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::UnknownArgument => word.as_str(),
        _ => return "",
    };
    let usage = error.to_string();
    match usage.split_once("Usage: ").map_or("", |(_, usage)| usage) {
        _ if unexpected.starts_with('-') => "",
        usage if usage.contains("-- <") => "; what is run goes after `--`",
        usage if usage.contains("--output <") => "; give the file with -o",
        _ => "",
    }
}

/// What was wrong with the command line in one line: clap's paragraphs up to the usage, joined.
fn usage_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let told: Vec<&str> = text.split("\n\n").take_while(|part| !part.starts_with("Usage:")).collect();
    let told =
        told.iter().flat_map(|part| part.split("\n  tip: ")).map(|part| part.trim_start_matches("  tip: "));
    let joined: Vec<String> = told
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        // This advice is for values that look like options; here they are options that are not there.
        .filter(|p| !p.is_empty() && !p.starts_with("to pass '"))
        .collect();
    let joined: Vec<&str> = joined.iter().map(|part| part.trim_end_matches('.')).collect();
    joined.join("; ").replace("; For more information, try", "; for more, try")
}

/// Whether the command's output is all that it does at the end: a reader that goes away then ends it quietly, as it ends
/// other programs.
const fn prints(command: &Command) -> bool {
    match command {
        Command::Run(_)
        | Command::Compare(_)
        | Command::Bench(_)
        | Command::Probe(_)
        | Command::Surface(_)
        | Command::Lab(_)
        | Command::Snapshot(_)
        | Command::Batch { .. } => false,
        Command::Image(_)
        | Command::Kernel(_)
        | Command::Report(_)
        | Command::Diff(_)
        | Command::Check(_)
        | Command::Choose(_)
        | Command::Doctor(_)
        | Command::Explain(_)
        | Command::Gc(_)
        | Command::Completions { .. }
        | Command::Man { .. } => true,
    }
}

fn dispatch(cli: Cli, main_ns: u64) -> anyhow::Result<u8> {
    if prints(&cli.command) {
        signals::end_with_a_closed_pipe()?;
    }
    match cli.command {
        Command::Run(args) => place::run(&args, main_ns),
        Command::Compare(args) => compare::compare(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Surface(args) => surface::surface(&args),
        Command::Image(command) => image::image(command),
        Command::Kernel(command) => kernel::kernel(command),
        Command::Report(args) => report::report(&args),
        Command::Diff(args) => diff::command(&args),
        Command::Check(args) => check::command(&args),
        Command::Choose(args) => choose::command(&args),
        Command::Snapshot(args) => snapshot::command(&args),
        Command::Doctor(args) => doctor::command(&args),
        Command::Lab(args) => place::lab(&args),
        Command::Explain(args) => {
            say::all(explain::explain(args.topic.as_deref())?)?;
            Ok(0)
        }
        Command::Gc(args) => gc::gc(&args),
        Command::Batch { .. } => {
            batch::run(std::io::stdin().lock(), std::io::stdout().lock())?;
            Ok(0)
        }
        Command::Completions { shell } => {
            say::all(completions::script(shell))?;
            Ok(0)
        }
        Command::Man { command } => {
            say::all(manual::page(&command)?)?;
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_without_a_place_gets_the_advice_of_its_command() {
        let advice = |line: &str| {
            let words = line.split(' ').map(Into::into);
            misplaced(&Cli::of(words).expect_err("refused"))
        };
        for line in ["run demo /isolab-work null", "compare demo true", "surface demo true", "lab doctor"] {
            assert_eq!(advice(&format!("isolab {line}")), "; what is run goes after `--`", "{line}");
        }
        assert_eq!(advice("isolab image export mine my.tar"), "; give the file with -o");
        for line in ["gc extra", "explain lab levels", "image rm", "run --memori 1G demo"] {
            assert_eq!(advice(&format!("isolab {line}")), "", "{line}");
        }
    }
}
