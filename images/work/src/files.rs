//! Names and files.

use core::hint::black_box;

use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{CWD, Errno, Fd, fs, process};

use crate::measure::Operation;
use crate::{End, Run};

const BLOCK: usize = 4096;
/// Most blocks of the file that is written: 8 MiB.
const MOST_BLOCKS: u64 = 2048;

/// System calls that do one known thing.
pub(crate) fn sys(run: &Run) -> End {
    let kind = run.arg(0).ok_or(Errno::INVAL)?.to_bytes();
    let repeat = |name: &str, call: &mut dyn FnMut() -> Result<(), Errno>| {
        run.measure(name, 1, 100_000, |n| (0..n).try_for_each(|_| call()))
    };
    match kind {
        b"null" => repeat("sys null", &mut || {
            black_box(process::parent());
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

/// Blocks of 4 KiB: read from this program's own file in the image, in a fixed scattered order; written to a new file
/// in the writable layer; written with each one waited for.
pub(crate) fn blk(run: &Run) -> End {
    let kind = run.arg(0).ok_or(Errno::INVAL)?.to_bytes();
    match kind {
        b"read" => {
            let file = io::open(CWD, c"/proc/self/exe", open::RDONLY | open::CLOEXEC, 0)?;
            let blocks = fs::stat(file, c"", fs::EMPTY_PATH)?[6] / BLOCK as u64;
            run.measure("blk read", 1, 10_000, |n| read(file, n, blocks))
        }
        b"write" => run.measure("blk write", 1, 10_000, Write::new(false)?),
        b"fsync" => run.measure("blk fsync", 1, 1000, Write::new(true)?),
        _ => Err(Errno::INVAL),
    }
}

fn read(file: Fd, n: u64, blocks: u64) -> Result<(), Errno> {
    let mut buffer = [0; BLOCK];
    for i in 0..n {
        let block = i.wrapping_mul(2_654_435_761).checked_rem(blocks).ok_or(Errno::INVAL)?;
        if io::read_at(file, &mut buffer, block * BLOCK as u64)? != BLOCK {
            return Err(Errno::IO);
        }
    }
    black_box(&buffer);
    Ok(())
}

struct Write {
    file: Fd,
    sync: bool,
}

impl Write {
    fn new(sync: bool) -> Result<Self, Errno> {
        const NAME: &core::ffi::CStr = c"/isolab-blk";
        let file = io::open(CWD, NAME, open::RDWR | open::CREAT | open::EXCL | open::CLOEXEC, 0o600)?;
        // Its space is free again whatever ends us.
        fs::unlink(CWD, NAME)?;
        Ok(Self { file, sync })
    }
}

impl Operation for Write {
    fn batch(&mut self, n: u64) -> Result<(), Errno> {
        let block = [1; BLOCK];
        for i in 0..n {
            if io::write_at(self.file, &block, i % MOST_BLOCKS * BLOCK as u64)? != BLOCK {
                return Err(Errno::IO);
            }
            if self.sync {
                io::sync(self.file)?;
            }
        }
        Ok(())
    }
}
