//! Reading a whole tree of files.

use core::ffi::CStr;

use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{CWD, Errno, Fd, fs};

use crate::measure::{Line, Operation};
use crate::{End, Run};

const DEEPEST: u32 = 40;
const DIRECTORY: u8 = 4;
const REGULAR: u8 = 8;

#[derive(Default)]
struct Found {
    dirs: u64,
    files: u64,
    bytes: u64,
}

/// Reads every regular file below a directory (`/`: without proc, sys and dev), links not followed.
pub(crate) fn tree(run: &Run) -> End {
    let from = run.arg(0).unwrap_or(c"/");
    let top = open::RDONLY | open::DIRECTORY | open::CLOEXEC;
    run.measure("tree", 1, 1, Tree { from, top, found: Found::default() })
}

struct Tree {
    from: &'static CStr,
    top: i32,
    /// By the last walk.
    found: Found,
}

impl Operation for Tree {
    fn batch(&mut self, n: u64) -> Result<(), Errno> {
        for _ in 0..n {
            self.found = Found::default();
            let top = io::open(CWD, self.from, self.top, 0)?;
            walk(top, self.from == c"/", DEEPEST, &mut self.found)?;
        }
        Ok(())
    }

    fn tell(&self, line: &mut Line) {
        line.push(b",\"dirs\":").number(self.found.dirs).push(b",\"files\":").number(self.found.files);
        line.push(b",\"bytes\":").number(self.found.bytes);
    }
}

fn walk(dir: Fd, is_root: bool, depth: u32, found: &mut Found) -> Result<(), Errno> {
    let mut buffer = [0; 4096];
    found.dirs += 1;
    loop {
        let len = fs::entries(dir, &mut buffer)?;
        if len == 0 {
            io::close(dir);
            return Ok(());
        }
        let mut packed = buffer.get(..len).unwrap_or_default();
        while let Some((name, kind, rest)) = fs::next_entry(packed) {
            packed = rest;
            match kind {
                REGULAR => read(dir, name, found)?,
                DIRECTORY if !left_out(name, is_root) && depth > 0 => {
                    let flags = open::RDONLY | open::DIRECTORY | open::NOFOLLOW | open::CLOEXEC;
                    walk(io::open(dir, name, flags, 0)?, false, depth - 1, found)?;
                }
                _ => {}
            }
        }
    }
}

fn left_out(name: &CStr, is_root: bool) -> bool {
    let kernel = [c"proc", c"sys", c"dev"];
    name == c"." || name == c".." || (is_root && kernel.contains(&name))
}

fn read(dir: Fd, name: &CStr, found: &mut Found) -> Result<(), Errno> {
    let mut buffer = [0; 16384];
    let file = io::open(dir, name, open::RDONLY | open::NOFOLLOW | open::CLOEXEC, 0)?;
    found.files += 1;
    loop {
        let n = io::read(file, &mut buffer)?;
        found.bytes += n as u64;
        if n == 0 {
            io::close(file);
            return Ok(());
        }
    }
}
