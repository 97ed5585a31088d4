//! From the table to instructions. Used by `build.rs` only.

use isolab_bpf::{ALLOW, Insn, argument, if_bits, if_equal, refuse};

use crate::rules::{
    CLONE_NAMESPACES, Check, EAFNOSUPPORT, EPERM, FAMILIES, IOCTLS_REFUSED, NETLINK, PERSONALITIES, UNIX,
    Verdict, verdict,
};

/// The whole filter's bytes.
pub(crate) fn filter() -> Vec<u8> {
    isolab_bpf::compile(verdict, leaf)
}

fn leaf(verdict: Verdict) -> Vec<Insn> {
    match verdict {
        Verdict::Allow => vec![ALLOW],
        Verdict::Errno(errno) => vec![refuse(errno)],
        Verdict::Check(Check::CloneFlags) => {
            vec![argument(0), if_bits(CLONE_NAMESPACES, 0, 1), refuse(EPERM), ALLOW]
        }
        Verdict::Check(Check::IoctlRequest) => {
            let [a, b] = IOCTLS_REFUSED;
            vec![argument(1), if_equal(a, 1, 0), if_equal(b, 0, 1), refuse(EPERM), ALLOW]
        }
        Verdict::Check(Check::SocketFamily) => {
            let [a, b, c] = FAMILIES;
            vec![
                argument(0),
                if_equal(a, 6, 0),
                if_equal(b, 5, 0),
                if_equal(c, 4, 0),
                if_equal(NETLINK, 0, 2),
                argument(2),
                if_equal(0, 1, 0),
                refuse(EAFNOSUPPORT),
                ALLOW,
            ]
        }
        Verdict::Check(Check::SocketPairFamily) => {
            vec![argument(0), if_equal(UNIX, 1, 0), refuse(EAFNOSUPPORT), ALLOW]
        }
        Verdict::Check(Check::Personality) => {
            let mut code = vec![argument(0)];
            for (value, left) in PERSONALITIES.iter().zip((0_u8..5).rev()) {
                code.push(if_equal(*value, left + 1, 0));
            }
            code.extend([refuse(EPERM), ALLOW]);
            code
        }
    }
}
