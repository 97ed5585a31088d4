//! What is planted on the host: a process that owns everything that the probes look for, and takes it away again when isolab
//! is gone, however that ended.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::load;
use crate::protocol::{Planted, Spec};
use crate::sys;

/// Plants, says what, and stays until standard input ends.
pub(crate) fn stay(spec: &Spec) -> io::Result<()> {
    // Not isolab's child: without a cgroup that ends every child it has after each level.
    if sys::fork().map_err(io::Error::from_raw_os_error)? != 0 {
        sys::exit(0);
    }
    let _ = sys::call(112, &[]);
    // Whoever ends isolab by a signal to its group: the end of standard input is what counts.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        ignore(signal);
    }
    let wanted = &spec.planted;
    const SET_NAME: usize = 15;
    let name = sys::path(&wanted.process);
    let _ = sys::call(157, &[SET_NAME, name.as_ptr().expose_provenance(), 0, 0, 0]);
    let files = Files([&wanted.file, &wanted.secret_file, &wanted.shm_file, &wanted.socket_file]);
    let said = plant(wanted);
    if let Ok((planted, _held)) = &said {
        let mut line = serde_json::to_vec(planted)?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()?;
        // It ends when isolab ends, or when it is told to.
        load::obey(spec)?;
    }
    drop(files);
    said.map(drop)
}

/// Files that go when this is dropped.
struct Files<'a>([&'a String; 4]);

impl Drop for Files<'_> {
    fn drop(&mut self) {
        for path in self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Sockets that listen as long as this is there.
type Held = (TcpListener, UnixListener, UnixListener);

fn plant(wanted: &Planted) -> io::Result<(Planted, Held)> {
    let text = &wanted.nonce;
    for path in [&wanted.file, &wanted.shm_file] {
        if !path.is_empty() {
            fs::File::create_new(path)?.write_all(text.as_bytes())?;
        }
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&wanted.secret_file)?
        .write_all(text.as_bytes())?;
    let port = TcpListener::bind(("127.0.0.1", 0))?;
    let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&wanted.abstract_name)?)?;
    let file = UnixListener::bind(&wanted.socket_file)?;
    for _ in 0..wanted.threads {
        std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            loop {
                std::thread::park();
            }
        })?;
    }
    let planted = Planted {
        port: port.local_addr()?.port(),
        pid: i32::try_from(std::process::id()).unwrap_or(0),
        shm_id: sys::new_shared_memory(text).map_err(io::Error::from_raw_os_error)?,
        ..wanted.clone()
    };
    Ok((planted, (port, hidden, file)))
}

fn ignore(signal: i32) {
    // `struct kernel_sigaction`: handler (1 is SIG_IGN), flags, restorer, mask.
    let action = [1_u64, 0, 0, 0];
    let _ = sys::call(13, &[signal as usize, sys::address(&action), 0, 8]);
}
