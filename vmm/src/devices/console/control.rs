//! The console's control messages (virtio 1.2, section 5.3.6.2).

use std::collections::VecDeque;

use isolab_wire::port;
use serde::{Deserialize, Serialize};
use virtio_queue::Queue;

use crate::devices::Malformed;
use crate::devices::chain;
use crate::memory::GuestRam;

/// Bytes of a message.
pub(crate) const MESSAGE_LEN: usize = 8;
/// Messages that wait for the guest at most; while so many wait, nothing more is read from it.
const OUTBOX_MAX: usize = 32;

/// Events.
pub(crate) mod event {
    pub(crate) const DEVICE_READY: u16 = 0;
    pub(crate) const PORT_ADD: u16 = 1;
    pub(crate) const PORT_READY: u16 = 3;
    pub(crate) const PORT_OPEN: u16 = 6;
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) port: u32,
    pub(crate) event: u16,
    pub(crate) value: u16,
}

impl Message {
    pub(crate) fn encode(self) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        bytes[..4].copy_from_slice(&self.port.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.event.to_le_bytes());
        bytes[6..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    pub(crate) const fn decode(b: &[u8; MESSAGE_LEN]) -> Self {
        Self {
            port: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            event: u16::from_le_bytes([b[4], b[5]]),
            value: u16::from_le_bytes([b[6], b[7]]),
        }
    }
}

/// What a message of the guest means to the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing.
    Nothing,
    /// A port is set up: say whether the host's side is open.
    Greet(usize),
    /// The guest opened (or closed) its side.
    Open(usize, bool),
}

/// The control queues' state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    outbox: VecDeque<Message>,
    announced: bool,
}

impl Control {
    /// Whether it can have come about by [`Control::send`].
    pub(crate) fn is_possible(&self) -> bool {
        self.outbox.len() <= 2 * OUTBOX_MAX
    }

    /// Queues a message for the guest.
    pub(crate) fn send(&mut self, port: usize, event: u16, value: u16) {
        if let Ok(port) = u32::try_from(port)
            && self.outbox.len() < 2 * OUTBOX_MAX
        {
            self.outbox.push_back(Message { port, event, value });
        }
    }

    /// Takes a message of the guest, while there is room for answers.
    pub(crate) fn receive(&mut self, ram: &GuestRam, queue: &mut Queue) -> Result<Option<Asked>, Malformed> {
        if self.outbox.len() >= OUTBOX_MAX {
            return Ok(None);
        }
        let Some(chain) = chain::pop(queue, ram)? else { return Ok(None) };
        let mut bytes = [0; MESSAGE_LEN];
        let whole = chain::read(ram, &chain.readable, &mut bytes).is_some();
        chain::push(queue, ram, chain.head, 0)?;
        Ok(Some(if whole { self.handle(Message::decode(&bytes)) } else { Asked::Nothing }))
    }

    pub(crate) fn handle(&mut self, message: Message) -> Asked {
        let number = usize::try_from(message.port).ok().filter(|_| message.port < port::COUNT);
        match (message.event, message.value, number) {
            (event::DEVICE_READY, 1, _) if !self.announced => {
                self.announced = true;
                // The control port last: init takes its opening as the sign that all are open.
                for number in (0..port::COUNT as usize).rev() {
                    self.send(number, event::PORT_ADD, 1);
                }
                Asked::Nothing
            }
            (event::PORT_READY, 1, Some(number)) => Asked::Greet(number),
            (event::PORT_OPEN, value, Some(number)) => Asked::Open(number, value == 1),
            _ => Asked::Nothing,
        }
    }

    /// Gives waiting messages to the guest, one to a buffer.
    pub(crate) fn deliver(&mut self, ram: &GuestRam, queue: &mut Queue) -> Result<bool, Malformed> {
        let mut any = false;
        while let Some(message) = self.outbox.front() {
            let Some(chain) = chain::pop(queue, ram)? else { break };
            let written = chain::write(ram, &chain.writable, &message.encode());
            chain::push(queue, ram, chain.head, written)?;
            if written < MESSAGE_LEN {
                return Err(Malformed);
            }
            self.outbox.pop_front();
            any = true;
        }
        Ok(any)
    }
}
