//! The surface for a terminal: what may be asked, what was reached, the guest's door, and what the numbers are not.

use std::collections::BTreeSet;

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use crate::report::text::{TextStyle, fill};
use crate::report::words::{self, printable};
use crate::surface::{Allowed, Depth, LevelSurface, Party, Points, Reached, SurfaceRecord};

/// The report, with its last newline. `names`: each call by its name.
#[must_use]
pub fn render(record: &SurfaceRecord, style: TextStyle, names: bool) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        out.push_str(&fill(value, &format!("{key:<9}"), "         ", style.columns));
        out.push('\n');
    };
    line("where", &words::place(&record.host));
    let command = match &record.command[..] {
        [] => "each system call in turn, with arguments that fail".to_owned(),
        words => words.iter().map(|word| printable(word)).collect::<Vec<_>>().join(" "),
    };
    let runs = if record.runs == 1 { "1 run" } else { &format!("{} runs", record.runs) };
    let image = printable(&record.image);
    line("subject", &format!("{image}: {command}; {runs} of each level, traced: no time or memory is told"));
    for level in &record.levels {
        line(if level.level == record.levels[0].level { "may ask" } else { "" }, &may_ask(record, level));
    }
    for level in record.levels.iter().filter(|level| level.statuses.iter().any(|status| *status != 0)) {
        let mut statuses: Vec<u8> = level.statuses.clone();
        statuses.sort_unstable();
        statuses.dedup();
        let statuses = statuses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        line("ended", &format!("{} with status {statuses}", printable(&level.level)));
    }
    out.push('\n');
    out.push_str(&table(record, style));
    out.push('\n');
    for level in record.levels.iter().filter(|level| level.door.is_some()) {
        out.push_str(&fill(&door(level), "door     ", "         ", style.columns));
        out.push('\n');
    }
    for level in &record.levels {
        if let Some(depth) = &level.depth {
            let said = format!("{}: {}", printable(&level.level), deep(depth));
            out.push_str(&fill(&said, "depth    ", "         ", style.columns));
            out.push('\n');
        }
    }
    for sentence in sentences(record) {
        out.push_str(&fill(&sentence, "", "  ", style.columns));
        out.push('\n');
    }
    if names {
        out.push('\n');
        for level in &record.levels {
            for points in level.depth.iter().flat_map(|depth| &depth.passed) {
                let of = format!("{} of {}", points.party.words(), printable(&level.level));
                let list =
                    points.tracepoints.iter().map(|name| printable(name)).collect::<Vec<_>>().join(" ");
                out.push_str(&fill(&format!("{of}, tracepoints: {list}"), "", "  ", style.columns));
                out.push('\n');
            }
            for reached in &level.reached {
                let of = format!("{} of {}", reached.party.words(), printable(&level.level));
                for (what, list) in [
                    ("reached", &reached.calls),
                    ("requests", &reached.requests),
                    ("refused", &reached.refused),
                ] {
                    if !list.is_empty() {
                        let list = list.iter().map(|name| printable(name)).collect::<Vec<_>>().join(" ");
                        out.push_str(&fill(&format!("{of}, {what}: {list}"), "", "  ", style.columns));
                        out.push('\n');
                    }
                }
            }
        }
    }
    let blind = record.blind_spots.iter().map(|spot| printable(spot)).collect::<Vec<_>>().join("; ");
    out.push_str(&fill(&format!("Not in these numbers: {blind}."), "", "  ", style.columns));
    out.push('\n');
    out
}

/// What may be asked of the host's kernel.
fn may_ask(record: &SurfaceRecord, level: &LevelSurface) -> String {
    let one = |allowed: &Allowed| {
        let number = match (allowed.filtered, allowed.by_argument.len()) {
            (false, _) => format!("each of the {} calls that are known", record.known_calls),
            (true, 0) => format!("{} calls", allowed.always.len()),
            (true, some) => format!("{} calls, and {some} by their arguments", allowed.always.len()),
        };
        match allowed.after_takeover {
            true => format!("who takes over the {}: {number}", allowed.party.words()),
            false => number,
        }
    };
    let mut parts: Vec<String> = level.allowed.iter().map(one).collect();
    if level.allowed.iter().all(|allowed| allowed.after_takeover) {
        parts.insert(0, "none".to_owned());
    }
    format!("{}: {}", printable(&level.level), parts.join("; "))
}

fn table(record: &SurfaceRecord, style: TextStyle) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(style.columns).unwrap_or(u16::MAX));
    table.set_header(["level", "calls of", "distinct", "each run", "new last", "with requests", "refused"]);
    for level in &record.levels {
        let mut name = printable(&level.level);
        for reached in &level.reached {
            table.add_row([
                std::mem::take(&mut name),
                reached.party.words().to_owned(),
                reached.calls.len().to_string(),
                span(&reached.distinct),
                reached.new.last().map_or_else(String::new, ToString::to_string),
                with_requests(reached).to_string(),
                reached.refused.len().to_string(),
            ]);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Calls, those with requests counted by request.
fn with_requests(reached: &Reached) -> usize {
    let many: BTreeSet<&str> =
        reached.requests.iter().filter_map(|request| request.split(' ').next()).collect();
    reached.calls.len() - many.len().min(reached.calls.len()) + reached.requests.len()
}

fn span(numbers: &[usize]) -> String {
    match (numbers.iter().min(), numbers.iter().max()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => String::new(),
    }
}

/// Tracepoints, and the parts of the kernel that they are of.
fn deep(depth: &Depth) -> String {
    if let Some(why) = &depth.not_measured {
        return format!("not measured: {}", printable(why));
    }
    let one = |points: &Points| {
        let parts: BTreeSet<&str> =
            points.tracepoints.iter().filter_map(|name| Some(name.split_once(':')?.0)).collect();
        format!(
            "{} {} in {} parts of the kernel",
            points.party.words(),
            points.tracepoints.len(),
            parts.len()
        )
    };
    let parties = depth.passed.iter().map(one).collect::<Vec<_>>().join("; ");
    format!("of {} tracepoints, in one more run and coarsely: {parties}", depth.known)
}

fn door(level: &LevelSurface) -> String {
    let Some(door) = &level.door else { return String::new() };
    let names = |names: &[String]| names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ");
    let count = |counts: &[u64]| counts.last().map_or(0, |count| *count);
    format!(
        "{}: the guest left its processor {} times in the last run, for {}; {} times it went out to the monitor, for {}; it used {} ports \
         and {} device registers",
        printable(&level.level),
        count(&door.exit_counts),
        names(&door.exits),
        count(&door.reason_counts),
        names(&door.reasons),
        door.ports.len(),
        door.registers.len(),
    )
}

/// What may be said of it: two rings, never one sum.
fn sentences(record: &SurfaceRecord) -> Vec<String> {
    let distinct =
        |level: &LevelSurface, party| level.of(party).map_or(0, |reached: &Reached| reached.calls.len());
    record
        .levels
        .iter()
        .map(|level| {
            let name = printable(&level.level);
            let used = distinct(level, Party::Workload);
            let taken: Vec<String> = level
                .allowed
                .iter()
                .filter(|allowed| allowed.after_takeover)
                .map(|allowed| (allowed.always.len() + allowed.by_argument.len()).to_string())
                .collect();
            if taken.is_empty() {
                let number = level.allowed.first().map_or_else(String::new, |allowed| match allowed.filtered {
                    false => "everything".to_owned(),
                    true => format!(
                        "{} calls with any arguments, and {} with some",
                        allowed.always.len(),
                        allowed.by_argument.len()
                    ),
                });
                let did = match record.command[..] {
                    [] => format!(
                        "of all numbers that were tried, unknown ones too, {used} entered it and {} were refused before",
                        level.of(Party::Workload).map_or(0, |reached| reached.refused.len())
                    ),
                    _ => format!("this workload used {used}"),
                };
                return format!("Hostile code at {name} may ask the host's kernel for {number}, directly; {did}.");
            }
            format!(
                "Hostile code at {name} may ask the host's kernel for none; through the door, and only after taking over a thread of the \
                 monitor, for {}. While the guest ran, the monitor used {} and {}.",
                taken.join(" or "),
                distinct(level, Party::Devices),
                distinct(level, Party::Processors),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracepoints_are_told_with_their_parts_or_with_the_reason_why_not() {
        let tracepoints =
            ["sched:sched_switch", "sched:sched_wakeup", "kmem:mm_page_alloc"].map(str::to_owned);
        let passed = vec![Points { party: Party::Workload, tracepoints: tracepoints.into() }];
        let depth = Depth { known: 1200, passed, not_measured: None };
        assert!(deep(&depth).ends_with("coarsely: workload 3 in 2 parts of the kernel"), "{}", deep(&depth));
        let none = Depth { not_measured: Some("records\u{1b} were lost".into()), ..Depth::default() };
        assert_eq!(deep(&none), "not measured: records\\u{1b} were lost");
    }

    #[test]
    fn calls_that_are_many_in_one_count_by_request() {
        let reached = Reached {
            party: Party::Devices,
            calls: vec!["ioctl".into(), "read".into()],
            requests: vec!["ioctl 0xae80".into(), "ioctl 0xae01".into()],
            refused: vec![],
            distinct: vec![1, 2],
            total: vec![9, 9],
            new: vec![1, 1],
        };
        assert_eq!(with_requests(&reached), 3);
        assert_eq!(span(&reached.distinct), "1 to 2");
        assert_eq!(span(&[4, 4]), "4");
    }
}
