//! Small measurements, each of one kind of cost.

use core::hint::black_box;

use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{CWD, Errno, clock as time, fs, out8, process};
use isolab_bare::text::Text;

use crate::{End, Run, STDOUT};

/// Dependent integer arithmetic (the shifts and xors of Marsaglia's xorshift64).
pub(crate) fn alu(run: &Run) -> End {
    let n = run.number(0, 10_000_000)?;
    run.measure("alu", n, || {
        let mut x = 88_172_645_463_325_252_u64;
        for _ in 0..n {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        black_box(x);
        Ok(())
    })
}

/// Reading the clock, by the function that the kernel maps into the program where it has one.
pub(crate) fn clock(run: &Run) -> End {
    let n = run.number(0, 100_000)?;
    let read = isolab_bare::vdso::Clock::find(&run.start);
    let name = if read.is_mapped() { "clock vdso" } else { "clock syscall" };
    run.measure(name, n, || {
        for _ in 0..n {
            black_box(read.monotonic_ns());
        }
        Ok(())
    })
}

/// System calls that do one known thing.
pub(crate) fn sys(run: &Run) -> End {
    let kind = run.arg(0).ok_or(Errno::INVAL)?.to_bytes();
    let n = run.number(1, 100_000)?;
    let repeat = |name: &str, call: &mut dyn FnMut() -> Result<(), Errno>| {
        run.measure(name, n, || (0..n).try_for_each(|_| call()))
    };
    match kind {
        b"null" => repeat("sys null", &mut || {
            black_box(process::pid());
            Ok(())
        }),
        b"open" => repeat("sys open", &mut || {
            io::close(io::open(CWD, c"/", open::RDONLY | open::DIRECTORY, 0)?);
            Ok(())
        }),
        b"stat" => repeat("sys stat", &mut || fs::stat(CWD, c"/", 0).map(drop)),
        b"readdir" => {
            let mut entries = [0; 4096];
            repeat("sys readdir", &mut || {
                let dir = io::open(CWD, c"/", open::RDONLY | open::DIRECTORY, 0)?;
                while fs::entries(dir, &mut entries)? > 0 {}
                io::close(dir);
                Ok(())
            })
        }
        b"neglookup" => repeat("sys neglookup", &mut || match fs::stat(CWD, c"/isolab-no-such-name", 0) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e),
            Ok(_) => Err(Errno::EXIST),
        }),
        _ => Err(Errno::INVAL),
    }
}

/// One byte to another process and back, over two pipes.
pub(crate) fn pingpong(run: &Run) -> End {
    if run.arg(0).is_none_or(|a| a != c"pipe") {
        return Err(Errno::INVAL);
    }
    let n = run.number(1, 10_000)?;
    let (their_in, our_out) = io::pipe(open::CLOEXEC)?;
    let (our_in, their_out) = io::pipe(open::CLOEXEC)?;
    let child = process::fork()?;
    if child == 0 {
        io::close(our_out);
        let mut byte = [0];
        while io::read(their_in, &mut byte) == Ok(1) && io::write(their_out, &byte) == Ok(1) {}
        process::exit(0);
    }
    io::close(their_in);
    io::close(their_out);
    let end = run.measure("pingpong pipe", n, || {
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

/// Making and ending processes: a copy of this one, or this program anew.
pub(crate) fn proc(run: &Run) -> End {
    let kind = run.arg(0).ok_or(Errno::INVAL)?.to_bytes();
    let n = run.number(1, 500)?;
    let (name, exec) = match kind {
        b"fork" => ("proc fork", false),
        b"exec" => ("proc exec", true),
        _ => return Err(Errno::INVAL),
    };
    let argv = [c"true".as_ptr() as usize, 0];
    run.measure(name, n, || {
        for _ in 0..n {
            if process::fork()? == 0 {
                if exec {
                    // The child would write marks as its parent did: it gets an environment without them.
                    process::execve(c"/proc/self/exe", &argv, &[0]);
                    process::exit(127);
                }
                process::exit(0);
            }
            match process::wait(true)? {
                Some((_, 0)) => {}
                _ => return Err(Errno::NOENT),
            }
        }
        Ok(())
    })
}

/// How late a sleep of one millisecond ends: mean and largest, in nanoseconds.
pub(crate) fn timer(run: &Run) -> End {
    let n = run.number(0, 200)?.max(1);
    let (mut sum, mut largest) = (0_u64, 0);
    run.ready();
    for _ in 0..n {
        let at = time::monotonic_ns() + 1_000_000;
        time::sleep_until_ns(at)?;
        let late = time::monotonic_ns().saturating_sub(at);
        sum = sum.saturating_add(late);
        largest = late.max(largest);
    }
    let mut line = Text::<256>::new();
    line.push(b"{\"name\":\"timer\",\"n\":").number(n).push(b",\"late_mean_ns\":").number(sum / n);
    line.push(b",\"late_max_ns\":").number(largest).push(b"}\n");
    io::write_all(STDOUT, line.bytes())?;
    Ok(0)
}

/// Random bytes, 32 at a time.
pub(crate) fn rand(run: &Run) -> End {
    let n = run.number(0, 1000)?;
    let mut bytes = [0; 32];
    run.measure("rand", n, || (0..n).try_for_each(|_| time::random(&mut bytes).map(drop)))
}

/// Exits to the VMM: writes of 0, which is no mark, to the mark port. Only in a guest with marks.
pub(crate) fn pio(run: &Run) -> End {
    let n = run.number(0, 1000)?;
    let (port, count) = isolab_wire::mark::PORTS;
    process::ioperm(port, count)?;
    run.measure("pio", n, || {
        for _ in 0..n {
            out8(port, 0);
        }
        Ok(())
    })
}
