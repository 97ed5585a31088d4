//! One direction of pumping between two descriptors.

use isolab_bare::sys::io::{self, ERR, HUP, IN, OUT, Poll};
use isolab_bare::sys::{Errno, Fd};

/// Bytes that are under way in one direction at most.
pub(crate) const BUFFER: usize = 65536;
/// End of input as a terminal's line discipline knows it.
const CONTROL_D: u8 = 4;

/// Bytes from one descriptor to another.
pub(crate) struct Flow {
    from: Fd,
    to: Fd,
    buffer: &'static mut [u8; BUFFER],
    start: usize,
    end: usize,
    piece: usize,
    source_open: bool,
    ended: bool,
    to_terminal: bool,
}

impl Flow {
    /// A flow that writes at most `piece` bytes at once.
    pub(crate) fn new(from: Fd, to: Fd, buffer: &'static mut [u8; BUFFER], piece: usize) -> Self {
        Self {
            from,
            to,
            buffer,
            start: 0,
            end: 0,
            piece,
            source_open: true,
            ended: false,
            to_terminal: false,
        }
    }

    /// The target is a terminal: its end of file is a character, and the descriptor is not this flow's to close.
    pub(crate) fn ending_with_control_d(mut self) -> Self {
        self.to_terminal = true;
        self
    }

    /// Whether nothing will pass any more.
    pub(crate) const fn ended(&self) -> bool {
        self.ended
    }

    const fn holds_data(&self) -> bool {
        self.start < self.end
    }

    /// What to wait for: the source where there is room, the target for room or for its closing.
    pub(crate) fn interest(&self) -> [Poll; 2] {
        let source = if self.source_open && !self.holds_data() { self.from.0 } else { -1 };
        // A terminal's target side reports nothing of use while there is no data for it.
        let target = if self.to_terminal && !self.holds_data() { -1 } else { self.to.0 };
        let events = if self.holds_data() { OUT } else { 0 };
        [Poll { fd: source, events: IN, found: 0 }, Poll { fd: target, events, found: 0 }]
    }

    /// Moves what can be moved, given what the wait found for [`Flow::interest`].
    pub(crate) fn advance(&mut self, found: [i16; 2]) {
        let [source, target] = found;
        if target & (HUP | ERR) != 0 && target & OUT == 0 {
            // Nobody takes it: the writer must learn that, as with any closed pipe.
            return self.end();
        }
        if source & (IN | HUP | ERR) != 0 {
            self.fill();
        }
        // What was just read goes out at once where a full target says so instead of blocking.
        let at_once = self.piece == BUFFER && source != 0;
        if self.holds_data() && (target & OUT != 0 || at_once) {
            self.drain();
        }
    }

    fn fill(&mut self) {
        match io::read(self.from, &mut self.buffer[..]) {
            Ok(n) if n > 0 => (self.start, self.end) = (0, n),
            Err(Errno::AGAIN) => {}
            // The end of a pipe or port, or of a terminal (EIO).
            Ok(_) | Err(_) => {
                self.source_open = false;
                if self.to_terminal {
                    self.buffer[0] = CONTROL_D;
                    (self.start, self.end) = (0, 1);
                } else {
                    self.end();
                }
            }
        }
    }

    fn drain(&mut self) {
        let stop = self.end.min(self.start.saturating_add(self.piece));
        let Some(bytes) = self.buffer.get(self.start..stop) else { return };
        match io::write(self.to, bytes) {
            Ok(n) => self.start += n,
            Err(Errno::AGAIN) => {}
            Err(_) => return self.end(),
        }
        if !self.holds_data() && !self.source_open {
            self.end();
        }
    }

    fn end(&mut self) {
        self.ended = true;
        io::close(self.from);
        if !self.to_terminal {
            io::close(self.to);
        }
    }
}
