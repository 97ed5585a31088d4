//! What holds for any report of free memory.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::driver::{DATA, Descriptor, Driver, RAM, SIZE, ram};

/// What memory holds.
pub(super) const KEPT: u8 = 0xee;

/// The queues of a device, of which one has a driver.
pub(super) fn queues(driver: &Driver, index: usize) -> Vec<Queue> {
    let queue = |i: usize| if i == index { driver.queue() } else { Queue::new(SIZE).expect("in RAM") };
    (0..QUEUES.len()).map(queue).collect()
}

/// The byte at the start of each page from `DATA` on, and at its end.
pub(super) fn pages(ram: &GuestRam) -> Vec<(u8, u8)> {
    let byte = |at| ram.read_obj::<u8>(GuestAddress(at)).expect("in RAM");
    (DATA..RAM).step_by(4096).map(|at| (byte(at), byte(at + 4095))).collect()
}

pub(super) fn filled() -> GuestRam {
    let ram = ram();
    let whole = usize::try_from(RAM - DATA).expect("in RAM");
    ram.write_slice(&vec![KEPT; whole], GuestAddress(DATA)).expect("in RAM");
    ram
}

/// Whatever a guest reports on the queue at `place`, its queues and itself included: a turn ends, and pages go whole or stay.
pub fn pages_go_whole_or_stay(descriptors: &[Descriptor], heads: &[u16], place: usize) {
    let place = place % QUEUES.len();
    let ram = filled();
    let mut driver = Driver::new(&ram, 0);
    for (index, descriptor) in (0..SIZE).zip(descriptors) {
        driver.put(index, *descriptor);
    }
    heads.iter().for_each(|head| driver.offer(*head));
    let mut queues = queues(&driver, place);
    for _ in 0..3 {
        if Balloon.serve(&ram, &mut queues).is_err() {
            break;
        }
    }
    let may_go = place >= REPORTS;
    for page in pages(&ram) {
        assert!(page == (KEPT, KEPT) || may_go && page == (0, 0), "{page:?} on queue {place}");
    }
}
