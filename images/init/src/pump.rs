//! One direction of pumping between two descriptors.

use isolab_bare::sys::io::{self, ERR, HUP, IN, OUT, Poll};
use isolab_bare::sys::{Errno, Fd};

/// Bytes that are under way in one direction at most.
pub(crate) const BUFFER: usize = 65536;
/// What a pipe takes for sure, without blocking, once it polls writable.
const PIPE_BUF: usize = 4096;
/// End of input as a terminal's line discipline knows it.
const CONTROL_D: u8 = 4;

/// Bytes from one descriptor to another.
pub(crate) struct Flow {
    from: Fd,
    to: Fd,
    buffer: &'static mut [u8; BUFFER],
    start: usize,
    end: usize,
    source_blocks: bool,
    target_blocks: bool,
    source_open: bool,
    ended: bool,
    to_terminal: bool,
}

impl Flow {
    /// A flow between two descriptors that never block.
    pub(crate) const fn new(from: Fd, to: Fd, buffer: &'static mut [u8; BUFFER]) -> Self {
        Self {
            from,
            to,
            buffer,
            start: 0,
            end: 0,
            source_blocks: false,
            target_blocks: false,
            source_open: true,
            ended: false,
            to_terminal: false,
        }
    }

    /// The source is shared with other processes and so must stay blocking.
    pub(crate) const fn sharing_source(mut self, shared: bool) -> Self {
        self.source_blocks = shared;
        self
    }

    /// The target is shared with other processes and so must stay blocking.
    pub(crate) const fn sharing_target(mut self, shared: bool) -> Self {
        self.target_blocks = shared;
        self
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
        let at_once = !self.target_blocks && source != 0;
        if self.holds_data() && (target & OUT != 0 || at_once) {
            self.drain();
        }
    }

    /// Reads what there is: a port gives one page at a time.
    fn fill(&mut self) {
        (self.start, self.end) = (0, 0);
        while let Some(room) = self.buffer.get_mut(self.end..).filter(|r| !r.is_empty()) {
            match io::read(self.from, room) {
                Ok(n) if n > 0 => self.end += n,
                Err(Errno::AGAIN) => return,
                // The end of a pipe or port, or of a terminal (EIO).
                Ok(_) | Err(_) => return self.end_of_source(),
            }
            if self.source_blocks {
                return;
            }
        }
    }

    fn end_of_source(&mut self) {
        self.source_open = false;
        if self.to_terminal
            && let Some(slot) = self.buffer.get_mut(self.end)
        {
            *slot = CONTROL_D;
            self.end += 1;
        }
        if !self.holds_data() {
            self.end();
        }
    }

    fn drain(&mut self) {
        let piece = if self.target_blocks { PIPE_BUF } else { BUFFER };
        let stop = self.end.min(self.start.saturating_add(piece));
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
