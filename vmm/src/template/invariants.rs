//! What holds for any state file.

use super::format::{decode, write};
use super::*;
use crate::devices::driver;
use crate::devices::mmio::{Queued, VirtioMmio};
use crate::devices::rng::Rng;

fn memfd() -> File {
    File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("it is there"))
}

pub(super) fn device() -> VirtioMmio<Rng> {
    VirtioMmio::new(Rng, driver::ram()).expect("it is there")
}

pub(super) fn state() -> MachineState {
    MachineState {
        memory_bytes: 1 << 20,
        pieces: vec![Piece { start: 0x1000, len: 0x2000 }],
        cpus: vec![VcpuState::blank(), VcpuState::blank()],
        chips: CHIPS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() }).to_vec(),
        clock: kvm_clock_data { clock: 7, ..Default::default() },
        console: (device().state(), ConsoleState::default()),
        block: device().state(),
        rng: device().state(),
        balloon: Some(device().state()),
    }
}

/// The state file of a machine with two processors.
#[must_use]
pub fn encoded() -> Vec<u8> {
    stored(&state())
}

fn stored(state: &MachineState) -> Vec<u8> {
    let file = memfd();
    write(state, &file).expect("it is there");
    let mut bytes = vec![0; usize::try_from(len(&file).expect("it is there")).expect("it is there")];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).expect("it is there");
    bytes
}

/// Any bytes are refused, or a state that is written as it is read. Memory and devices take of it what a guest could have set,
/// and such a device can be served.
pub fn a_state_that_fits_or_an_error(bytes: &[u8]) {
    let Ok(state) = decode(bytes) else { return };
    let written = stored(&state);
    assert!(stored(&decode(&written).expect("read what was written")) == written, "another state was read");
    let checked = state.check(1 << 20, 2);
    assert_eq!(checked.is_ok(), state.memory_bytes == 1 << 20 && state.cpus.len() == 2);
    // Not `map`: what that maps stays for as long as the process.
    if let Ok(total) = ram::checked(1 << 20, &state.pieces) {
        assert!(total <= 1 << 20 && state.pieces.iter().all(|piece| piece.start + piece.len <= 1 << 20));
    }
    for registers in [&state.rng, &state.block, &state.console.0] {
        let device = device();
        if device.set_state(registers, |_| Ok(())).is_ok() {
            assert_eq!(device.state(), *registers);
            device.serve();
        }
    }
}
