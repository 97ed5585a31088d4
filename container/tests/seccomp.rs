//! The filter as the kernel runs it, for every system call, against the table.
//!
//! Nothing is executed: a second filter below ours turns "allowed" into an error number that no kernel knows. Of two
//! errors the kernel takes the one of the filter that was installed last, which is ours.

use isolab_container::child::{SpawnOptions, spawn};
use isolab_container::seccomp::rules::{CLONE_NAMESPACES, IOCTLS_REFUSED, PERSONALITIES};
use isolab_container::seccomp::{Check, FILTER, Verdict, verdict};
use seccompiler::sock_filter;

/// Stands for "allowed": the largest error number that a system call can return.
const ALLOWED: i32 = 4095;
/// Calls that the test itself needs: write, exit_group, prctl, seccomp.
const NEEDED: [u32; 4] = [1, 231, 157, 317];
/// `uretprobe`, `uprobe`: calls of the kernel's own trampolines, which it lets past every filter (from 6.14 on) and
/// answers with SIGILL when anybody else makes them.
const UNFILTERED: [u32; 2] = [335, 336];
const X32: u32 = 0x4000_0000;

fn filter(bytes: &[u8]) -> Vec<sock_filter> {
    let insn = |b: &[u8]| sock_filter {
        code: u16::from_le_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
    };
    bytes.chunks_exact(8).map(insn).collect()
}

/// Answers [`ALLOWED`] to all but the needed calls.
fn below() -> Vec<sock_filter> {
    let insn = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = vec![insn(0x20, 0, 0, 0)];
    for (number, left) in NEEDED.iter().zip((0_u8..4).rev()) {
        program.push(insn(0x15, left + 1, 0, *number));
    }
    program.push(insn(0x06, 0, 0, 0x0005_0000 | ALLOWED.unsigned_abs()));
    program.push(insn(0x06, 0, 0, 0x7fff_0000));
    program
}

fn call(number: u32, args: [u64; 3]) -> i32 {
    // SAFETY: both filters refuse every call that gets here, so the kernel never looks at the arguments.
    let result = unsafe { libc::syscall(number.into(), args[0], args[1], args[2]) };
    if result == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

fn expected(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Allow => ALLOWED,
        Verdict::Errno(errno) => errno.into(),
        Verdict::Check(_) => unreachable!("resolved by the caller"),
    }
}

/// Each call with the arguments that tell its rule apart, and the answer by the table.
fn cases() -> Vec<(u32, [u64; 3], i32)> {
    let high = 0xffff_ffff_0000_0000_u64;
    let mut cases = Vec::new();
    for number in
        (0..1024).chain([9999, u32::MAX >> 1]).filter(|n| !NEEDED.contains(n) && !UNFILTERED.contains(n))
    {
        match verdict(number) {
            Verdict::Check(check) => {
                let firsts: Vec<[u32; 3]> = match check {
                    Check::CloneFlags => (0..32).map(|bit| [1 << bit, 0, 0]).chain([[0x11, 0, 0]]).collect(),
                    Check::IoctlRequest => IOCTLS_REFUSED
                        .iter()
                        .flat_map(|&r| [[0, r - 1, 0], [0, r, 0], [0, r + 1, 0]])
                        .collect(),
                    Check::SocketFamily => {
                        (0..64).flat_map(|family| [[family, 1, 0], [family, 1, 9], [family, 3, 15]]).collect()
                    }
                    Check::SocketPairFamily => (0..64).map(|family| [family, 1, 0]).collect(),
                    Check::Personality => {
                        PERSONALITIES.iter().chain(&[4, 0x4_0000, 0x40_0000]).map(|&p| [p, 0, 0]).collect()
                    }
                };
                for args in firsts {
                    let answer = expected(check.answer(args));
                    // The upper halves, which the kernel ignores in these arguments, must change nothing.
                    for upper in [0, high] {
                        cases.push((number, args.map(|a| u64::from(a) | upper), answer));
                    }
                }
            }
            other => cases.push((number, [0; 3], expected(other))),
        }
    }
    for number in [0, 1, 39, 59, 512, 547] {
        cases.push((X32 | number, [0; 3], 38));
    }
    cases
}

#[test]
fn the_kernel_answers_every_call_as_the_table_says() {
    let (below, ours, cases) = (below(), filter(FILTER), cases());
    assert!(cases.len() > 1024);
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    let held = spawn(&SpawnOptions::default(), |_handed| {
        if seccompiler::apply_filter(&below).is_err() || seccompiler::apply_filter(&ours).is_err() {
            return 2;
        }
        let mut wrong = 0;
        for &(number, args, answer) in &cases {
            let got = call(number, args);
            if got != answer {
                wrong = 1;
                let line = format!("call {number:#x} {args:x?}: {got} instead of {answer}\n");
                let _ = rustix::io::write(&write, line.as_bytes());
            }
        }
        wrong
    });
    let mut child = held.expect("spawn").release(None, &[]).expect("release");
    drop(write);
    let mut wrong = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut wrong).expect("read");
    assert_eq!(wrong, "");
    assert_eq!(child.wait().expect("wait").exit_status(), Some(0));
}

#[test]
fn a_call_of_another_architecture_ends_the_process() {
    let ours = filter(FILTER);
    let held = spawn(&SpawnOptions::default(), |_handed| {
        if seccompiler::apply_filter(&ours).is_err() {
            return 2;
        }
        // SAFETY: getpid of the 32-bit table has no arguments; rbx is not touched by it.
        unsafe { core::arch::asm!("int 0x80", inlateout("eax") 20 => _, options(nostack)) };
        0
    });
    let mut child = held.expect("spawn").release(None, &[]).expect("release");
    let status = child.wait().expect("wait");
    // A kernel without 32-bit support ends it by SIGSEGV.
    assert!(matches!(status.terminating_signal(), Some(31 | 11)), "{status:?}");
}

#[test]
fn needed_calls_are_allowed_by_the_table() {
    for number in NEEDED {
        assert_eq!(verdict(number), Verdict::Allow, "{number}");
    }
    assert_eq!(CLONE_NAMESPACES & 0x11, 0);
}
