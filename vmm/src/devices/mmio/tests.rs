use proptest::prelude::*;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::invariants::{machine_stays_alive, negotiate, read, set_queue, write};
use super::*;
use crate::devices::driver::{DATA, Driver, RAM, ram};
use crate::devices::registers::status;
use crate::devices::rng::Rng;

fn rng() -> (GuestRam, VirtioMmio<Rng>) {
    let ram = ram();
    let device = VirtioMmio::new(Rng, ram.clone()).unwrap();
    (ram, device)
}

fn running() -> (GuestRam, VirtioMmio<Rng>, Driver) {
    let (ram, device) = rng();
    negotiate(&device);
    set_queue(&device, 0x1000, 0x1400, 0x1800);
    write(&device, offset::STATUS, 15);
    let driver = Driver::new(&ram, 0);
    (ram, device, driver)
}

#[test]
fn a_request_is_served_and_interrupts() {
    let (ram, device, mut driver) = running();
    assert_eq!(read(&device, offset::STATUS), 15);
    driver.chain(&[(DATA, 64, true)]);
    device.serve();
    assert_eq!(driver.used(), (1, 64));
    assert_eq!(device.irq.read().unwrap(), 1);
    assert_eq!(read(&device, offset::INTERRUPT_STATUS), INTERRUPT_QUEUE);
    write(&device, offset::INTERRUPT_ACK, INTERRUPT_QUEUE);
    assert_eq!(read(&device, offset::INTERRUPT_STATUS), 0);
    let mut bytes = [0; 64];
    ram.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
    assert_ne!(bytes, [0; 64]);
}

#[test]
fn entropy_is_capped_whatever_the_buffers_hold() {
    let (_, device, mut driver) = running();
    // Eight pieces over the same 128 KiB.
    driver.chain(&[(DATA, 0x2_0000, true); 8]);
    device.serve();
    assert_eq!(driver.used(), (1, 64 << 10));
}

#[test]
fn a_driver_that_polls_is_not_interrupted() {
    let (ram, device, mut driver) = running();
    ram.write_obj(NO_INTERRUPT, GuestAddress(0x1400)).unwrap();
    driver.chain(&[(DATA, 64, true)]);
    device.serve();
    assert_eq!(driver.used(), (1, 64));
    device.irq.read().expect_err("it was interrupted");
}

#[test]
fn a_broken_queue_asks_for_a_reset_and_a_reset_heals() {
    let (_, device, mut driver) = running();
    driver.offer(u16::MAX);
    device.serve();
    assert_eq!(read(&device, offset::STATUS), 15 | status::NEEDS_RESET);
    assert_eq!(read(&device, offset::INTERRUPT_STATUS), INTERRUPT_CONFIG);
    negotiate(&device);
    set_queue(&device, 0x3000, 0x3400, 0x3800);
    write(&device, offset::STATUS, 15);
    assert_eq!(read(&device, offset::STATUS), 15);
}

#[test]
fn queues_outside_ram_or_over_each_other_are_refused() {
    let table = [
        (RAM, 0x1400, 0x1800),
        (RAM - 64, 0x1400, 0x1800),
        (0x1000, RAM - 8, 0x1800),
        (0x1000, 0x1400, u64::MAX - 3),
        (0x1000, 0x1000, 0x1800),
        (0x1000, 0x1400, 0x1408),
        (0x1000, 0x1400, 0x1070),
        (0x1001, 0x1400, 0x1800),
        (0x1000, 0x1401, 0x1800),
        (0x1000, 0x1400, 0x1802),
    ];
    for (descriptors, available, used) in table {
        let (_, device) = rng();
        negotiate(&device);
        set_queue(&device, descriptors, available, used);
        write(&device, offset::STATUS, 15);
        let wanted = 15 | status::NEEDS_RESET;
        assert_eq!(read(&device, offset::STATUS), wanted, "{descriptors:#x} {available:#x} {used:#x}");
        device.serve();
    }
}

#[test]
fn a_reset_stops_the_queues() {
    let (_, device, mut driver) = running();
    write(&device, offset::STATUS, 0);
    driver.chain(&[(DATA, 64, true)]);
    device.serve();
    assert_eq!(driver.used().0, 0);
    assert!(device.lock().queues.iter().all(|q| !q.ready()));
}

proptest! {
    #[test]
    fn any_accesses_and_any_memory_leave_the_machine_alive(
        accesses in prop::collection::vec((0_u16..0x120, prop_oneof![0_u32..16, any::<u32>()], 0_u8..9), 0..60),
        memory in prop::collection::vec(any::<u8>(), 0x1000),
        start in any::<bool>(),
        which in 0_u8..4,
    ) {
        machine_stays_alive(which, start, &accesses, &memory);
    }
}
