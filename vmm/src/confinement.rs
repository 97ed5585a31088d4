//! Which system calls are left to a guest's monitor, for who shows it.

use crate::filter::table::{OF_DEVICES, OF_PROCESSOR, conditions};

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

/// All kinds, as the filters are that are shipped.
#[must_use]
pub fn all() -> [Thread; 2] {
    let thread = |of_processor, calls: &[i64]| {
        let (always, by_argument) = calls.iter().partition(|call| conditions(**call).is_empty());
        Thread { of_processor, always, by_argument }
    };
    [thread(false, &[OF_PROCESSOR, OF_DEVICES].concat()), thread(true, OF_PROCESSOR)]
}
