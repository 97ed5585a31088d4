//! Filters of system calls as classic BPF (kernel doc: userspace-api/seccomp_filter). For build scripts.
//!
//! A filter is a binary search over ranges of numbers, so that both its installation (the kernel tries each number once to learn
//! which are always allowed, and compiles the whole) and the calls are quick. A list of comparisons, as general filter compilers
//! emit it, costs the installation some hundred thousand steps more. Answers are there once, behind all comparisons.
#![forbid(unsafe_code)]

/// `AUDIT_ARCH_X86_64`.
pub const ARCH: u32 = 0xc000_003e;
/// Above every number that a kernel has; x32's numbers (from `0x4000_0000`) too get the answer of unknown ones.
const END: u32 = 1024;
/// Above the numbers that kernels have today, each of which is tried when a filter is installed.
const TRIED: u32 = 472;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const RET_ERRNO: u32 = 0x0005_0000;

/// The kernel runs the call.
pub const ALLOW: Insn = ret(0x7fff_0000);
/// The process ends by `SIGSYS`.
pub const KILL: Insn = ret(0x8000_0000);

/// One instruction, as `struct sock_filter`: operation, jump if true, jump if false, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn(u16, u8, u8, u32);

const fn load(offset: u32) -> Insn {
    Insn(0x20, 0, 0, offset)
}

const fn ret(value: u32) -> Insn {
    Insn(0x06, 0, 0, value)
}

const fn jump(k: u32) -> Insn {
    Insn(0x05, 0, 0, k)
}

const fn if_at_least(k: u32, yes: u8, no: u8) -> Insn {
    Insn(0x35, yes, no, k)
}

/// Loads the low 32 bits of an argument.
#[must_use]
pub const fn argument(n: u32) -> Insn {
    load(ARGUMENTS + 8 * n)
}

/// Keeps these bits of what is loaded.
#[must_use]
pub const fn mask(bits: u32) -> Insn {
    Insn(0x54, 0, 0, bits)
}

/// Skips `yes` instructions if what is loaded is `k`, else `no`.
#[must_use]
pub const fn if_equal(k: u32, yes: u8, no: u8) -> Insn {
    Insn(0x15, yes, no, k)
}

/// Skips `yes` instructions if any of the bits `k` is set in what is loaded, else `no`.
#[must_use]
pub const fn if_bits(k: u32, yes: u8, no: u8) -> Insn {
    Insn(0x45, yes, no, k)
}

/// The call fails with this number.
#[must_use]
pub const fn refuse(errno: u16) -> Insn {
    ret(RET_ERRNO | errno as u32)
}

/// Where a comparison leads: to another one, or to the instructions for a verdict.
#[derive(Clone, Copy, Debug)]
enum Next {
    Comparison(usize),
    Leaf(usize),
}

/// From the number `first` on to `high`, else to `low`.
#[derive(Debug)]
struct Comparison {
    first: u32,
    low: Next,
    high: Next,
}

/// A search whose comparisons come one after the other, then the instructions for each verdict, once.
#[derive(Debug)]
struct Search<V> {
    comparisons: Vec<Comparison>,
    leaves: Vec<(V, Vec<Insn>)>,
}

/// The filter as `struct sock_filter` instructions of 8 bytes. `verdict` says what becomes of a number, `leaf` with which
/// instructions, the last of which return. Calls of another architecture end the process.
pub fn compile<V: Copy + PartialEq>(verdict: impl Fn(u32) -> V, leaf: impl Fn(V) -> Vec<Insn>) -> Vec<u8> {
    let mut search = Search { comparisons: Vec::new(), leaves: Vec::new() };
    search.add(&ranges(verdict), u32::MAX, &leaf);
    let mut program = vec![load(ARCHITECTURE), if_equal(ARCH, 1, 0), KILL, load(NUMBER)];
    program.extend(search.code());
    let mut bytes = Vec::new();
    for Insn(code, yes, no, k) in program {
        bytes.extend_from_slice(&code.to_le_bytes());
        bytes.extend_from_slice(&[yes, no]);
        bytes.extend_from_slice(&k.to_le_bytes());
    }
    bytes
}

/// First number and verdict of each run of numbers with the same verdict.
fn ranges<V: Copy + PartialEq>(verdict: impl Fn(u32) -> V) -> Vec<(u32, V)> {
    let mut ranges: Vec<(u32, V)> = Vec::new();
    for number in 0..=END {
        let verdict = verdict(number);
        if ranges.last().is_none_or(|&(_, last)| last != verdict) {
            ranges.push((number, verdict));
        }
    }
    ranges
}

/// Where to halve these two or more ranges up to `end`, so that as many of the numbers that a kernel tries are on both sides.
fn middle<V>(ranges: &[(u32, V)], end: u32) -> usize {
    let tried = |number: u32| number.min(TRIED);
    let (start, end) = (tried(ranges[0].0), tried(end));
    let split = |&at: &usize| {
        let first = tried(ranges[at].0);
        (first - start).abs_diff(end - first)
    };
    (1..ranges.len()).min_by_key(split).unwrap_or(0)
}

impl<V: Copy + PartialEq> Search<V> {
    /// Adds what finds one of these ranges up to `end`, and gives where that begins.
    fn add(&mut self, ranges: &[(u32, V)], end: u32, leaf: &impl Fn(V) -> Vec<Insn>) -> Next {
        if let [(_, verdict)] = *ranges {
            let known = self.leaves.iter().position(|(known, _)| *known == verdict);
            return Next::Leaf(known.unwrap_or_else(|| {
                self.leaves.push((verdict, leaf(verdict)));
                self.leaves.len() - 1
            }));
        }
        let at = self.comparisons.len();
        let (low, high) = ranges.split_at(middle(ranges, end));
        let first = high[0].0;
        self.comparisons.push(Comparison { first, low: Next::Leaf(0), high: Next::Leaf(0) });
        let (low, high) = (self.add(low, first, leaf), self.add(high, end, leaf));
        self.comparisons[at] = Comparison { first, low, high };
        Next::Comparison(at)
    }

    fn code(&self) -> Vec<Insn> {
        // Conditional jumps reach 255 instructions; a comparison that leads further has two jumps behind it.
        let mut far = vec![false; self.comparisons.len()];
        loop {
            let places = self.places(&far);
            let leads = |at: usize, next: Next, from: u32| places.of(next) - (places.comparisons[at] + from);
            let reaches = |at: usize, next: Next| u8::try_from(leads(at, next, 1)).is_ok();
            let short: Vec<usize> = self
                .comparisons
                .iter()
                .enumerate()
                .filter(|&(at, c)| !far[at] && [c.low, c.high].iter().any(|next| !reaches(at, *next)))
                .map(|(at, _)| at)
                .collect();
            if short.is_empty() {
                let near = |at, next| u8::try_from(leads(at, next, 1)).unwrap_or(u8::MAX);
                let comparisons = self.comparisons.iter().enumerate().flat_map(|(at, c)| match far[at] {
                    false => vec![if_at_least(c.first, near(at, c.high), near(at, c.low))],
                    true => vec![
                        if_at_least(c.first, 1, 0),
                        jump(leads(at, c.low, 2)),
                        jump(leads(at, c.high, 3)),
                    ],
                });
                return comparisons.chain(self.leaves.iter().flat_map(|(_, code)| code.clone())).collect();
            }
            short.into_iter().for_each(|at| far[at] = true);
        }
    }

    fn places(&self, far: &[bool]) -> Places {
        let mut end = 0;
        let mut place = |len: u32| {
            end += len;
            end - len
        };
        let comparisons = far.iter().map(|far| place(if *far { 3 } else { 1 })).collect();
        let len = |code: &[Insn]| u32::try_from(code.len()).unwrap_or(u32::MAX);
        let leaves = self.leaves.iter().map(|(_, code)| place(len(code))).collect();
        Places { comparisons, leaves }
    }
}

/// The first instruction of each comparison and of each leaf.
struct Places {
    comparisons: Vec<u32>,
    leaves: Vec<u32>,
}

impl Places {
    fn of(&self, next: Next) -> u32 {
        match next {
            Next::Comparison(at) => self.comparisons[at],
            Next::Leaf(at) => self.leaves[at],
        }
    }
}

/// What the kernel would return from a filter for a call of an architecture (`SECCOMP_RET_*`), for tests; nothing where it has an instruction
/// that [`compile`] does not write, or reaches outside.
#[must_use]
pub fn answer(filter: &[u8], architecture: u32, number: u32, arguments: [u32; 6]) -> Option<u32> {
    let (insns, rest) = filter.as_chunks::<8>();
    let (mut at, mut loaded) = (0_usize, 0_u32);
    // Each jump goes forward, so that this ends.
    while let Some(&[c0, c1, yes, no, k @ ..]) = insns.get(at).filter(|_| rest.is_empty()) {
        let k = u32::from_le_bytes(k);
        let branch = |condition: bool| usize::from(if condition { yes } else { no });
        at += 1 + match u16::from_le_bytes([c0, c1]) {
            0x20 => {
                loaded = match k {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    _ => *arguments.get(usize::try_from(k.checked_sub(ARGUMENTS)? / 8).ok()?)?,
                };
                0
            }
            0x54 => {
                loaded &= k;
                0
            }
            0x05 => usize::try_from(k).ok()?,
            0x15 => branch(loaded == k),
            0x35 => branch(loaded >= k),
            0x45 => branch(loaded & k != 0),
            0x06 => return Some(k),
            _ => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers divisible by `n` are allowed, and 1 by its first argument.
    fn made(n: u32) -> Vec<u8> {
        let verdict = |number: u32| match number {
            1 => 2,
            other => i32::from(other.is_multiple_of(n)),
        };
        compile(verdict, |verdict| match verdict {
            0 => vec![refuse(38)],
            1 => vec![ALLOW],
            _ => vec![argument(0), mask(0xff00), if_equal(0xae00, 0, 1), ALLOW, KILL],
        })
    }

    #[test]
    fn each_number_has_its_verdict() {
        for n in [2, 3, 100] {
            let filter = made(n);
            for number in (0..=END).filter(|number| *number != 1) {
                let allowed = number.is_multiple_of(n);
                let expected = if allowed { 0x7fff_0000 } else { 0x5_0026 };
                assert_eq!(answer(&filter, ARCH, number, [0; 6]), Some(expected), "{number} of {n}");
            }
            let unknown = answer(&filter, ARCH, END, [0; 6]);
            assert_eq!(answer(&filter, ARCH, 0x4000_0000 + n, [0; 6]), unknown);
            assert_eq!(answer(&filter, ARCH, u32::MAX, [0; 6]), unknown);
            assert_eq!(answer(&filter, 0x4000_0003, 4, [0; 6]), Some(0x8000_0000));
        }
    }

    #[test]
    fn an_argument_decides() {
        let filter = made(7);
        assert_eq!(answer(&filter, ARCH, 1, [0xae80, 0, 0, 0, 0, 0]), Some(0x7fff_0000));
        assert_eq!(answer(&filter, ARCH, 1, [0xaf80, 0, 0, 0, 0, 0]), Some(0x8000_0000));
        assert_eq!(answer(&filter, ARCH, 1, [0, 0xae80, 0, 0, 0, 0]), Some(0x8000_0000));
    }

    #[test]
    fn what_is_no_filter_has_no_answer() {
        assert_eq!(answer(&[], ARCH, 0, [0; 6]), None);
        assert_eq!(answer(&made(2)[..9], ARCH, 0, [0; 6]), None);
        assert_eq!(answer(&[0xff; 8], ARCH, 0, [0; 6]), None);
    }
}
