//! Filters of system calls: the compiled program answers as the table does.

use arbitrary::Arbitrary;
use isolab_bpf::{ALLOW, ARCH, Insn, KILL, answer, argument, compile, if_equal, mask, refuse};
use isolab_container::seccomp::{FILTER, Verdict, verdict};
use isolab_fuzz::made;
use libfuzzer_sys::Corpus;

const ALLOWED: u32 = 0x7fff_0000;
const KILLED: u32 = 0x8000_0000;

#[derive(Arbitrary, Debug)]
struct Input {
    calls: Vec<(u32, u32, [u32; 6])>,
    /// A table of another program's: last number and verdict of each run of numbers.
    table: Vec<(u8, u8, u16)>,
    values: [u32; 3],
}

const fn errno(number: u16) -> u32 {
    0x5_0000 | number as u32
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    made(data, |input: Input| {
        let mut last = 0_u32;
        let runs: Vec<(u32, u8, u16)> = input
            .table
            .iter()
            .map(|&(len, kind, number)| {
                last = last.saturating_add(u32::from(len));
                (last, kind % 4, number % 4096)
            })
            .collect();
        let [bits, value, _] = input.values;
        let of = |number: u32| runs.iter().find(|run| number < run.0).map_or((3, 38), |run| (run.1, run.2));
        let leaf = |(kind, number): (u8, u16)| -> Vec<Insn> {
            match kind {
                0 => vec![ALLOW],
                1 => vec![KILL],
                2 => vec![argument(2), mask(bits), if_equal(value & bits, 0, 1), ALLOW, refuse(number)],
                _ => vec![refuse(number)],
            }
        };
        let made = compile(of, leaf);
        for &(number, shift, mut arguments) in &input.calls {
            // Mostly numbers that there are.
            let number = if shift % 4 == 0 { number } else { number % 1100 };
            if shift % 8 == 1 {
                arguments[usize::try_from(number % 6).unwrap_or(0)] = value;
            }
            let container = match verdict(number) {
                Verdict::Check(check) => check.answer([arguments[0], arguments[1], arguments[2]]),
                other => other,
            };
            let expected = match container {
                Verdict::Allow => ALLOWED,
                Verdict::Errno(number) => errno(number),
                Verdict::Check(_) => unreachable!("an answer is none"),
            };
            assert_eq!(answer(FILTER, ARCH, number, arguments), Some(expected), "{number} {arguments:?}");
            assert_eq!(answer(FILTER, shift | 1 << 31, number, arguments).is_some(), true);
            // Beyond the last number that a kernel has, the answer is that of unknown ones.
            let (kind, refused) = of(number.min(1024));
            let expected = match kind {
                0 => ALLOWED,
                1 => KILLED,
                2 if arguments[2] & bits == value & bits => ALLOWED,
                _ => errno(refused),
            };
            assert_eq!(answer(&made, ARCH, number, arguments), Some(expected), "{number} of {runs:?}");
            if shift != ARCH {
                assert_eq!(answer(&made, shift, number, arguments), Some(KILLED));
            }
        }
    })
}
