//! The console device with its four generic ports: control and stdin into the guest, stdout and stderr out of it.
//!
//! None is a console port: no terminal layer touches the bytes. End of file travels both ways as "port open 0".

pub(crate) mod control;
pub(crate) mod port;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use isolab_wire::port as number;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::{Queue, QueueT};

use super::{Malformed, Served, VirtioDevice, chain};
use crate::memory::GuestRam;
use control::{Asked, Control, event};
use port::{Input, Output};

/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const MULTIPORT: u64 = 1 << 1;
const CONTROL_TO_GUEST: usize = 2;
const CONTROL_FROM_GUEST: usize = 3;
const STDIN: usize = number::STDIN as usize;
const STDOUT: usize = number::STDOUT as usize;
/// Ports into the guest come first.
const INPUTS: usize = 2;
const OUTPUTS: usize = 2;
/// All of them.
pub(crate) const PORTS: usize = INPUTS + OUTPUTS;

/// Sizes of the queues. A driver fills each queue into the guest with pages before anything is sent, and rings for each of
/// them: a page and 20 000 instructions of every start, so they are as short as their use allows.
const QUEUE_SIZES: [u16; 2 * PORTS + 2] = {
    let mut sizes = [64; 2 * PORTS + 2];
    // Pages for what a pipe of the host holds, and for a few messages.
    sizes[to_guest(0)] = 16;
    sizes[to_guest(STDIN)] = 16;
    sizes[CONTROL_TO_GUEST] = 16;
    // Nothing goes that way.
    sizes[to_guest(STDOUT)] = 2;
    sizes[to_guest(STDOUT + 1)] = 2;
    sizes
};

/// Queue that carries a port's bytes into the guest.
const fn to_guest(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * port + 2 }
}

/// Queue that carries a port's bytes out of the guest.
const fn from_guest(port: usize) -> usize {
    to_guest(port) + 1
}

/// The host's ends.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) control: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The device.
#[derive(Debug)]
pub(crate) struct Console {
    control: Control,
    inputs: [Input; INPUTS],
    outputs: [Output; OUTPUTS],
    guest_open: [bool; PORTS],
    /// Outputs that the guest has closed: the host's side follows when all bytes are out.
    closing: [bool; OUTPUTS],
    config: [u8; 12],
}

/// What the device knows of its guest, without the host's ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConsoleState {
    control: Control,
    guest_open: [bool; PORTS],
    closing: [bool; OUTPUTS],
}

impl Console {
    /// Its state; nothing while a port is not open on both sides or holds bytes of the guest: the ends of another host process
    /// could not go on from there.
    pub(crate) fn state(&self) -> Option<ConsoleState> {
        let hosts = self.inputs.iter().all(|input| input.fd().is_some());
        let idle = self.outputs.iter().all(|output| output.is_open() && output.is_idle());
        (hosts && idle && self.guest_open == [true; PORTS]).then(|| ConsoleState {
            control: self.control.clone(),
            guest_open: self.guest_open,
            closing: self.closing,
        })
    }

    /// Takes over what another device of this kind knew. The guest was told that all ports are open; one without standard input
    /// closes that port by itself when it has read its job.
    pub(crate) fn set_state(&mut self, state: ConsoleState) -> Result<(), Malformed> {
        if !state.control.is_possible() {
            return Err(Malformed);
        }
        self.control = state.control;
        (self.guest_open, self.closing) = (state.guest_open, state.closing);
        Ok(())
    }

    pub(crate) fn new(ends: Ends) -> Self {
        let mut config = [0; 12];
        config[4..8].copy_from_slice(&number::COUNT.to_le_bytes());
        Self {
            control: Control::default(),
            inputs: [Input::new(Some(ends.control)), Input::new(ends.stdin)],
            outputs: [Output::new(ends.stdout), Output::new(ends.stderr)],
            guest_open: [false; PORTS],
            closing: [false; OUTPUTS],
            config,
        }
    }

    /// Descriptors to poll: inputs that the guest has room for, outputs that had no room; with their port.
    pub(crate) fn interest(&self, ram: &GuestRam, queues: &[Queue]) -> [Option<Arc<OwnedFd>>; PORTS] {
        let mut fds = [const { None }; PORTS];
        for (port, input) in self.inputs.iter().enumerate() {
            let room = queues.get(to_guest(port)).is_some_and(|q| chain::has_next(q, ram));
            fds[port] = input.fd().filter(|_| room && self.guest_open[port]).cloned();
        }
        for (i, output) in self.outputs.iter().enumerate() {
            fds[STDOUT + i] = output.waits_for().cloned();
        }
        fds
    }

    /// Whether a port carries bytes into the guest.
    pub(crate) const fn is_input(port: usize) -> bool {
        port < INPUTS
    }

    /// A polled input is readable (or at its end).
    pub(crate) fn input_ready(
        &mut self,
        port: usize,
        ram: &GuestRam,
        queues: &mut [Queue],
    ) -> Result<Served, Malformed> {
        let (Some(input), Some(queue)) = (self.inputs.get_mut(port), queues.get_mut(to_guest(port))) else {
            return Ok(Served::default());
        };
        let moved = input.turn(ram, queue)?;
        let mut served = Served { interrupt: moved.served, again: false };
        if moved.ended {
            // After the data in the same direction, so that the guest reads to the end first.
            self.control.send(port, event::PORT_OPEN, 0);
            served.interrupt |= self.deliver(ram, queues)?;
        }
        Ok(served)
    }

    /// The machine has ended: what the guest has sent by now is the last output.
    pub(crate) fn seal(&mut self, ram: &GuestRam, queues: &[Queue]) {
        for (i, output) in self.outputs.iter_mut().enumerate() {
            if let Some(queue) = queues.get(from_guest(STDOUT + i)) {
                output.seal(ram, queue);
            }
        }
    }

    /// Whether all output of the guest is with the host.
    pub(crate) fn is_drained(&self, ram: &GuestRam, queues: &[Queue]) -> bool {
        let drained = |(i, output): (usize, &Output)| {
            queues.get(from_guest(STDOUT + i)).is_none_or(|queue| output.is_drained(ram, queue))
        };
        self.outputs.iter().enumerate().all(drained)
    }

    fn deliver(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<bool, Malformed> {
        queues.get_mut(CONTROL_TO_GUEST).map_or(Ok(false), |queue| self.control.deliver(ram, queue))
    }

    fn serve_control(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<Served, Malformed> {
        let mut served = Served::default();
        let Some(queue) = queues.get_mut(CONTROL_FROM_GUEST) else { return Ok(served) };
        for _ in 0..queue.size() {
            let Some(asked) = self.control.receive(ram, queue)? else { return Ok(served) };
            served.interrupt = true;
            self.answer(asked);
        }
        served.again = chain::has_next(queue, ram);
        Ok(served)
    }

    fn answer(&mut self, asked: Asked) {
        match asked {
            Asked::Nothing => {}
            Asked::Greet(port) => {
                let open = match port.checked_sub(INPUTS) {
                    None => self.inputs[port].fd().is_some(),
                    Some(output) => self.outputs[output].is_open(),
                };
                self.control.send(port, event::PORT_OPEN, u16::from(open));
            }
            Asked::Open(port, open) => {
                self.guest_open[port] = open;
                if let Some(output) = port.checked_sub(INPUTS) {
                    self.closing[output] = !open;
                } else if port == STDIN && !open {
                    // The workload's side is gone: who writes to it shall know.
                    self.inputs[STDIN].close();
                }
            }
        }
    }

    fn serve_outputs(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<Served, Malformed> {
        let mut served = Served::default();
        for (i, output) in self.outputs.iter_mut().enumerate() {
            let port = STDOUT + i;
            let Some(queue) = queues.get_mut(from_guest(port)) else { continue };
            let (turn, reader_gone) = output.turn(ram, queue)?;
            served.interrupt |= turn.interrupt;
            served.again |= turn.again;
            if reader_gone {
                self.control.send(port, event::PORT_OPEN, 0);
            }
            if self.closing[i] && output.is_drained(ram, queue) {
                output.close();
            }
        }
        Ok(served)
    }

    /// Ports into the guest carry nothing out of it.
    fn discard(ram: &GuestRam, queues: &mut [Queue]) -> Result<bool, Malformed> {
        let mut any = false;
        for port in 0..INPUTS {
            let Some(queue) = queues.get_mut(from_guest(port)) else { continue };
            for _ in 0..queue.size() {
                let Some(chain) = chain::pop(queue, ram)? else { break };
                chain::push(queue, ram, chain.head, 0)?;
                any = true;
            }
        }
        Ok(any)
    }
}

impl VirtioDevice for Console {
    const ID: u32 = VIRTIO_ID_CONSOLE;

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn reset(&mut self) {
        self.control = Control::default();
        self.guest_open = [false; PORTS];
        self.closing = [false; OUTPUTS];
        self.outputs.iter_mut().for_each(Output::reset);
    }

    fn serve(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<Served, Malformed> {
        let control = self.serve_control(ram, queues)?;
        let outputs = self.serve_outputs(ram, queues)?;
        let discarded = Self::discard(ram, queues)?;
        let delivered = self.deliver(ram, queues)?;
        Ok(Served {
            interrupt: control.interrupt || outputs.interrupt || discarded || delivered,
            again: control.again || outputs.again,
        })
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
