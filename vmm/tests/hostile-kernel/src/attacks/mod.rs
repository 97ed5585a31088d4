//! The attacks, by name. `docs/security.md` G-01 to G-12 are what they try.

mod bus;
mod console;
mod ends;
mod processor;
mod queues;
mod requests;

use crate::Verdict;
use crate::random::Random;

/// An attack: what is wrong with the monitor's answers, where it looks at them, is its error.
type Attack = fn(&mut Random) -> Verdict;

/// All of them. The names are those of `tests/hostile_guest.rs`.
const ALL: &[(&str, Attack)] = &[
    ("rest", |_| Ok(())),
    // Those that the machine survives.
    ("ports", bus::ports),
    ("registers", bus::registers),
    ("nowhere", bus::nowhere),
    ("rings", queues::rings),
    ("moved-queues", queues::moved),
    ("storm", queues::storm),
    ("block", requests::block),
    ("entropy", requests::entropy),
    ("control", console::control),
    ("marks", console::marks),
    ("serial", console::serial),
    ("msrs", processor::registers),
    ("privileged", processor::privileged),
    ("controllers", processor::controllers),
    // Those that end it, or never do.
    ("halt", ends::halt),
    ("spin", ends::spin),
    ("notify-on", ends::notify_on),
    ("triple-fault", ends::triple_fault),
    ("reset", ends::reset),
    ("off", ends::off),
    ("device-code", ends::device_code),
    ("failed", ends::failed),
    ("tables", bus::tables),
];

/// The attack of this name.
pub fn named(name: &str) -> Option<Attack> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, attack)| *attack)
}
