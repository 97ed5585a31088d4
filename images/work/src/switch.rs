//! Going from one process to another and back, on one CPU.

use isolab_bare::sys::futex::{SharedWords, Word};
use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{Errno, process};

use crate::{End, Run};

/// Tells the other process to end.
const STOP: u32 = u32::MAX;

/// To another process and back, over two pipes or two shared words; both stay on one CPU, so that every operation is
/// two switches at every level.
pub(crate) fn pingpong(run: &Run) -> End {
    let kind = run.arg(0).ok_or(Errno::INVAL)?.to_bytes();
    process::stay_on_this_cpu()?;
    match kind {
        b"pipe" => pipe(run),
        b"futex" => futex(run),
        _ => Err(Errno::INVAL),
    }
}

fn pipe(run: &Run) -> End {
    let (their_in, our_out) = io::pipe(open::CLOEXEC)?;
    let (our_in, their_out) = io::pipe(open::CLOEXEC)?;
    if process::fork()? == 0 {
        io::close(our_out);
        let mut byte = [0];
        while io::read(their_in, &mut byte) == Ok(1) && io::write(their_out, &byte) == Ok(1) {}
        process::exit(0);
    }
    io::close(their_in);
    io::close(their_out);
    let end = run.measure("pingpong pipe", 1, 10_000, |n| {
        let mut byte = [0];
        for _ in 0..n {
            io::write_all(our_out, &byte)?;
            if io::read(our_in, &mut byte)? != 1 {
                return Err(Errno::PIPE);
            }
        }
        Ok(())
    });
    io::close(our_out);
    process::wait(true)?;
    end
}

fn futex(run: &Run) -> End {
    let words = SharedWords::map()?;
    if process::fork()? == 0 {
        let mut turn = 1_u32;
        while matches!(words.await_value(Word::There, &[turn, STOP]), Ok(value) if value != STOP) {
            if words.post(Word::Back, turn).is_err() {
                break;
            }
            turn = next(turn);
        }
        process::exit(0);
    }
    let mut turn = 1_u32;
    let end = run.measure("pingpong futex", 1, 10_000, |n| {
        for _ in 0..n {
            words.post(Word::There, turn)?;
            words.await_value(Word::Back, &[turn])?;
            turn = next(turn);
        }
        Ok(())
    });
    words.post(Word::There, STOP)?;
    process::wait(true)?;
    end
}

/// The next turn: never 0, with which the words begin, and never [`STOP`].
const fn next(turn: u32) -> u32 {
    if turn >= STOP - 1 { 1 } else { turn + 1 }
}
