//! Terminals.

use super::{Errno, Fd, call, io::open};

/// Window size (`struct winsize`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Window {
    /// Character rows.
    pub rows: u16,
    /// Character columns.
    pub cols: u16,
    pixels: [u16; 2],
}

impl Window {
    /// A size in characters.
    #[must_use]
    pub const fn new(rows: u16, cols: u16) -> Self {
        Self { rows, cols, pixels: [0; 2] }
    }
}

/// Unlocks a master's other side and opens it, without any path.
///
/// # Errors
/// As the requests `TIOCSPTLCK` and `TIOCGPTPEER`.
pub fn open_peer(master: Fd) -> Result<Fd, Errno> {
    call!(16, master, 0x4004_5431_u32, &0_i32)?;
    call!(16, master, 0x5441, open::RDWR | open::NOCTTY | open::CLOEXEC).map(|fd| Fd(fd as i32))
}

/// Sets the window size.
///
/// # Errors
/// As the request `TIOCSWINSZ`.
pub fn set_window(fd: Fd, window: Window) -> Result<(), Errno> {
    call!(16, fd, 0x5414, &window).map(drop)
}

/// The window size.
///
/// # Errors
/// As the request `TIOCGWINSZ`: not a terminal.
pub fn window(fd: Fd) -> Result<Window, Errno> {
    let mut window = Window::default();
    call!(16, fd, 0x5413, &mut window).map(|_| window)
}

/// Makes a terminal the controlling terminal of this session.
///
/// # Errors
/// As the request `TIOCSCTTY`.
pub fn make_controlling(fd: Fd) -> Result<(), Errno> {
    call!(16, fd, 0x540e, 0).map(drop)
}

/// Sets the loopback interface up, so that programs find 127.0.0.1 in a fresh network namespace.
///
/// # Errors
/// No sockets, or no right to the network.
pub fn loopback_up() -> Result<(), Errno> {
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    const UP: u16 = 1;
    const CLOEXEC_DATAGRAM: i32 = 0o2_000_002;
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    let request = Request { name, flags: UP, rest: [0; 22] };
    let socket = Fd(call!(41, 2, CLOEXEC_DATAGRAM, 0)? as i32);
    let done = call!(16, socket, 0x8914, &request).map(drop);
    super::io::close(socket);
    done
}
