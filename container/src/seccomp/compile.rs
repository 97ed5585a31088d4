//! From the table to classic BPF. Used by `build.rs` only.

use crate::rules::{
    CLONE_NAMESPACES, Check, EAFNOSUPPORT, ENOSYS, EPERM, FAMILIES, IOCTLS_REFUSED, NETLINK, PERSONALITIES,
    UNIX, Verdict, verdict,
};

/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;
/// Above every number that a kernel has; x32's numbers (from `0x4000_0000`) too get the answer of unknown ones.
const END: u32 = 1024;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL: u32 = 0x8000_0000;

/// One instruction: operation, jump if true, jump if false, operand.
type Insn = (u16, u8, u8, u32);

const fn load(offset: u32) -> Insn {
    (0x20, 0, 0, offset)
}
const fn ret(value: u32) -> Insn {
    (0x06, 0, 0, value)
}
const fn jump(k: u32) -> Insn {
    (0x05, 0, 0, k)
}
const fn if_equal(k: u32, yes: u8, no: u8) -> Insn {
    (0x15, yes, no, k)
}
const fn if_at_least(k: u32, yes: u8, no: u8) -> Insn {
    (0x35, yes, no, k)
}
const fn if_bits(k: u32, yes: u8, no: u8) -> Insn {
    (0x45, yes, no, k)
}
const fn refuse(errno: u16) -> Insn {
    ret(RET_ERRNO | errno as u32)
}
const fn argument(n: u32) -> Insn {
    load(ARGUMENTS + 8 * n)
}

/// The whole filter's bytes.
pub(crate) fn filter() -> Vec<u8> {
    let mut program = vec![load(ARCHITECTURE), if_equal(ARCH, 1, 0), ret(RET_KILL), load(NUMBER)];
    program.extend(tree(&ranges()));
    let mut bytes = Vec::new();
    for (code, yes, no, k) in program {
        bytes.extend_from_slice(&code.to_le_bytes());
        bytes.extend_from_slice(&[yes, no]);
        bytes.extend_from_slice(&k.to_le_bytes());
    }
    bytes
}

/// First number and verdict of each run of numbers with the same verdict.
fn ranges() -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=END {
        let verdict = verdict(number);
        if ranges.last().is_none_or(|&(_, last)| last != verdict) {
            ranges.push((number, verdict));
        }
    }
    ranges
}

fn tree(ranges: &[(u32, Verdict)]) -> Vec<Insn> {
    match ranges {
        [] => vec![refuse(ENOSYS)],
        [(_, verdict)] => leaf(*verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low_code, high_code) = (tree(low), tree(high));
            let skip = low_code.len();
            let mut code = match u8::try_from(skip) {
                Ok(skip) => vec![if_at_least(high[0].0, skip, 0)],
                // Conditional jumps reach 255 instructions.
                Err(_) => vec![if_at_least(high[0].0, 0, 1), jump(u32::try_from(skip).unwrap_or(u32::MAX))],
            };
            code.extend(low_code);
            code.extend(high_code);
            code
        }
    }
}

fn leaf(verdict: Verdict) -> Vec<Insn> {
    match verdict {
        Verdict::Allow => vec![ret(RET_ALLOW)],
        Verdict::Errno(errno) => vec![refuse(errno)],
        Verdict::Check(Check::CloneFlags) => {
            vec![argument(0), if_bits(CLONE_NAMESPACES, 0, 1), refuse(EPERM), ret(RET_ALLOW)]
        }
        Verdict::Check(Check::IoctlRequest) => {
            let [a, b] = IOCTLS_REFUSED;
            vec![argument(1), if_equal(a, 1, 0), if_equal(b, 0, 1), refuse(EPERM), ret(RET_ALLOW)]
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
                ret(RET_ALLOW),
            ]
        }
        Verdict::Check(Check::SocketPairFamily) => {
            vec![argument(0), if_equal(UNIX, 1, 0), refuse(EAFNOSUPPORT), ret(RET_ALLOW)]
        }
        Verdict::Check(Check::Personality) => {
            let mut code = vec![argument(0)];
            for (value, left) in PERSONALITIES.iter().zip((0_u8..5).rev()) {
                code.push(if_equal(*value, left + 1, 0));
            }
            code.extend([refuse(EPERM), ret(RET_ALLOW)]);
            code
        }
    }
}
