//! Sockets.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::files::beginning;
use crate::out::Out;
use crate::protocol::{Found, Spec};
use crate::sys::{Ended, attempt};

const LIMIT: Duration = Duration::from_secs(3);
/// Families that kernels have, with their numbers.
const FAMILIES: [(&str, usize); 22] = [
    ("unix", 1),
    ("inet", 2),
    ("ax25", 3),
    ("ipx", 4),
    ("appletalk", 5),
    ("inet6", 10),
    ("key", 15),
    ("netlink", 16),
    ("packet", 17),
    ("rds", 21),
    ("llc", 26),
    ("can", 29),
    ("tipc", 30),
    ("bluetooth", 31),
    ("rxrpc", 33),
    ("ieee802154", 36),
    ("alg", 38),
    ("nfc", 39),
    ("vsock", 40),
    ("kcm", 41),
    ("smc", 43),
    ("xdp", 44),
];

/// P11: which families of sockets can be made. Nothing is done with them.
pub(crate) fn families(_: &Spec, out: &Out<'_>) {
    const SOCKET: u32 = 41;
    const TYPES: [usize; 4] = [2, 1, 5, 3];
    for (name, family) in FAMILIES {
        let mut best = None;
        for kind in TYPES {
            let args = [family, kind, 0];
            let ended = attempt(LIMIT, SOCKET, &args);
            let made = matches!(ended, Ended::Value(value) if value >= 0);
            // The first refusal is the family's; a type that it lacks says less.
            if made || best.is_none() {
                best = Some((args, ended));
            }
            if made {
                break;
            }
        }
        let Some((args, ended)) = best else { continue };
        match ended {
            // The kernel has no such family, or a filter says so: which, the host's own kernel tells.
            Ended::Value(value) if value == -i64::from(libc::EAFNOSUPPORT) => {
                out.call_absent(name, SOCKET, &args, libc::EAFNOSUPPORT);
            }
            Ended::Value(value) if value < 0 && !refused(value) => {
                out.call_absent(name, SOCKET, &args, i32::try_from(-value).unwrap_or(0));
            }
            ended => out.call(name, SOCKET, &args, ended),
        }
    }
    let raw = [2, 3, 255];
    out.call("inet raw", SOCKET, &raw, attempt(LIMIT, SOCKET, &raw));
}

fn refused(value: i64) -> bool {
    [libc::EPERM, libc::EACCES].iter().any(|errno| value == -i64::from(*errno))
}

/// P27: what can be connected to.
pub(crate) fn reach(spec: &Spec, out: &Out<'_>) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spec.planted.port));
    match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
        Ok(_) => out.reached("planted port", &address.to_string()),
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => {
            out.absent("planted port", "no network, not even loopback");
        }
        Err(error) => out.io("planted port", &error, &address.to_string()),
    }
    match beginning("/proc/self/net/dev", 64 << 10) {
        Ok(text) => {
            let names: Vec<&str> =
                text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
            let others: Vec<&str> = names.iter().copied().filter(|name| *name != "lo").collect();
            // Where the host has none either, there is none to be kept away.
            out.told("interfaces", &others.join(" "));
        }
        Err(error) => out.io("interfaces", &error, ""),
    }
    match beginning("/proc/self/net/route", 64 << 10) {
        Ok(text) => {
            let routes: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
            out.told("routes", &routes.join(" "));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => out.absent("routes", ""),
        Err(error) => out.say("routes", Found::Unknown, &error.to_string()),
    }
}
