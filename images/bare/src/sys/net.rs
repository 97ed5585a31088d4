//! A listening socket.

use super::{Errno, Fd, call};

const CLOEXEC: i32 = 0o2_000_000;
const STREAM: i32 = 1;

fn listen_on(family: i32, address: &[u8]) -> Result<Fd, Errno> {
    let socket = Fd(call!(41, family, STREAM | CLOEXEC, 0)? as i32);
    if family == 2 {
        // SOL_SOCKET, SO_REUSEADDR: a port of a run before this one may still be in TIME_WAIT.
        call!(54, socket, 1, 2, &1_i32, 4)?;
    }
    call!(49, socket, address, address.len())?;
    call!(50, socket, 128)?;
    Ok(socket)
}

/// Listens on 127.0.0.1.
///
/// # Errors
/// As `socket(2)`, `bind(2)` and `listen(2)`.
pub fn listen_loopback(port: u16) -> Result<Fd, Errno> {
    let [high, low] = port.to_be_bytes();
    let address = [2, 0, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    listen_on(2, &address)
}

/// Listens on a socket file.
///
/// # Errors
/// As `socket(2)`, `bind(2)` and `listen(2)`.
pub fn listen_path(path: &[u8]) -> Result<Fd, Errno> {
    let mut address = [0_u8; 110];
    address[0] = 1;
    let room = address.get_mut(2..2 + path.len()).filter(|r| r.len() < 108).ok_or(Errno::NAMETOOLONG)?;
    room.copy_from_slice(path);
    listen_on(1, address.get(..2 + path.len() + 1).unwrap_or_default())
}

/// Accepts a connection.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(socket: Fd) -> Result<Fd, Errno> {
    call!(288, socket, 0, 0, CLOEXEC).map(|fd| Fd(fd as i32))
}
