//! The working directory.

use core::ffi::CStr;

use isolab_bare::sys::{CWD, Errno, fs};
use isolab_bare::text::Text;
use isolab_wire::job::{Job, flag};

/// Longest path that the kernel takes.
const PATH_MAX: usize = 4096;

/// Enters the job's working directory after all mounts, making what is missing of it where the root can be written.
pub(crate) fn enter(job: &Job<'_>) -> Result<(), Errno> {
    let path = CStr::from_bytes_with_nul(job.workdir()).map_err(|_| Errno::INVAL)?;
    if !path.to_bytes().starts_with(b"/") {
        return Err(Errno::INVAL);
    }
    match fs::chdir(path) {
        Err(Errno::NOENT) if !job.has(flag::READ_ONLY) => {
            make(path.to_bytes())?;
            fs::chdir(path)?;
        }
        other => other?,
    }
    // A directory outside of the root (the kernel names it "(unreachable)...") would be a way out.
    let mut name = [0; PATH_MAX];
    fs::getcwd(&mut name)?;
    if name[0] == b'/' { Ok(()) } else { Err(Errno::NOENT) }
}

fn make(path: &[u8]) -> Result<(), Errno> {
    let ends = path.iter().enumerate().skip(1).filter(|(_, c)| **c == b'/').map(|(i, _)| i);
    for end in ends.chain([path.len()]) {
        let mut part = Text::<PATH_MAX>::new();
        part.push(path.get(..end).unwrap_or_default());
        match fs::mkdir(CWD, part.c_str().ok_or(Errno::NAMETOOLONG)?, 0o755) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
