//! Which system calls are left to a guest's monitor, for who shows it.

use crate::filter::table::{Kind, conditions};

/// A kind of thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// It runs a processor of the guest; else it serves the devices.
    pub of_processor: bool,
    /// Numbers of the calls that it may make with any arguments.
    pub always: Vec<i64>,
    /// Of those that it may make with some.
    pub by_argument: Vec<i64>,
}

/// All kinds of a guest that no template is made of, as the filters are that are shipped.
#[must_use]
pub fn all() -> [Thread; 2] {
    [Kind::Devices, Kind::Processor].map(|kind| {
        let calls = kind.calls();
        let (always, by_argument) = calls.iter().partition(|call| conditions(kind, **call).is_empty());
        Thread { of_processor: kind == Kind::Processor, always, by_argument }
    })
}
