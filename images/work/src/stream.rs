//! Bytes in, bytes out.

use core::ffi::CStr;

use isolab_bare::cell::Once;
use isolab_bare::sys::{Errno, io, net};
use isolab_bare::text;

use crate::{End, Run, STDERR, STDIN, STDOUT, lifecycle};

const PIPE: u8 = 13;

fn buffer() -> Result<&'static mut [u8; 131_072], Errno> {
    static BUFFER: Once<[u8; 131_072]> = Once::new([0; 131_072]);
    BUFFER.take().ok_or(Errno::INVAL)
}

/// Standard input to standard output, every byte.
pub(crate) fn cat(run: &Run) -> End {
    let buffer = buffer()?;
    run.ready();
    loop {
        let n = io::read(STDIN, &mut buffer[..])?;
        if n == 0 {
            return Ok(0);
        }
        match io::write_all(STDOUT, buffer.get(..n).unwrap_or_default()) {
            Ok(()) => {}
            // Where SIGPIPE is ignored: end as if it were not.
            Err(Errno::PIPE) => return lifecycle::die_of(PIPE),
            Err(e) => return Err(e),
        }
    }
}

/// Its arguments, with spaces between.
pub(crate) fn echo(run: &Run) -> End {
    run.ready();
    let mut i = 0;
    while let Some(word) = run.arg(i) {
        if i > 0 {
            io::write_all(STDOUT, b" ")?;
        }
        io::write_all(STDOUT, word.to_bytes())?;
        i += 1;
    }
    io::write_all(STDOUT, b"\n")?;
    Ok(0)
}

/// That many MiB of `y` lines.
pub(crate) fn yes(run: &Run) -> End {
    let mib = run.number(0, 1)?;
    let buffer = buffer()?;
    for pair in buffer.chunks_exact_mut(2) {
        pair.copy_from_slice(b"y\n");
    }
    run.ready();
    for _ in 0..mib.saturating_mul(8) {
        io::write_all(STDOUT, &buffer[..])?;
    }
    Ok(0)
}

/// Lines of 64 bytes to standard error, which nobody but the measuring process reads.
pub(crate) fn console(run: &Run) -> End {
    let mut line = [b'.'; 64];
    line[63] = b'\n';
    run.measure("console", 0, 1000, |n| (0..n).try_for_each(|_| io::write_all(STDERR, &line)))
}

/// Answers HTTP requests on 127.0.0.1 or on a socket file, one after the other.
pub(crate) fn serve(run: &Run) -> End {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
    let at = run.arg(0).map(CStr::to_bytes).ok_or(Errno::INVAL)?;
    let requests = run.number(1, u64::MAX)?;
    let socket = match text::parse(at) {
        Some(port) => net::listen_loopback(u16::try_from(port).map_err(|_| Errno::INVAL)?)?,
        None => net::listen_path(at)?,
    };
    let buffer = buffer()?;
    run.ready();
    for _ in 0..requests {
        let connection = net::accept(socket)?;
        // One client's error must not end the server.
        let mut len = 0;
        while let Some(free) = buffer.get_mut(len..).filter(|f| !f.is_empty()) {
            match io::read(connection, free) {
                Ok(n) if n > 0 => len += n,
                _ => break,
            }
            let so_far = buffer.get(..len).unwrap_or_default();
            if so_far.windows(4).any(|w| w == b"\r\n\r\n") {
                let _ = io::write_all(connection, ANSWER);
                break;
            }
        }
        io::close(connection);
    }
    Ok(0)
}
