//! Page faults.

use core::hint::black_box;

use isolab_bare::sys::Errno;
use isolab_bare::sys::memory::{Pages, file_pages};
use isolab_bare::sys::process::minor_faults;

use crate::measure::{Line, MOST_BATCHES, Operation, list};
use crate::memory::{PAGE, write_each_page};
use crate::{End, Run};

/// Most pages of a batch that `auto` chooses: 2 MiB, so that eleven batches of fresh pages fit into a small guest.
const MOST: u64 = 512;
/// Touched and kept before fresh pages are measured, at every level: a guest kernel hands out first what it has used and
/// freed while it started, and those pages the host has given it already.
const USED_UP: usize = 40 << 20;

/// Page faults on memory never touched before, on addresses whose pages were given back, or on pages of a file in the
/// page cache.
pub(crate) fn fault(run: &Run) -> End {
    match run.arg(0).ok_or(Errno::INVAL)?.to_bytes() {
        b"anon" => {
            let mut used = Pages::map(USED_UP)?.small();
            write_each_page(&mut used);
            run.measure("fault anon", 1, 512, Fault::new(Kind::Fresh))
        }
        b"anon-again" => run.measure("fault anon-again", 1, 512, Fault::new(Kind::GivenBack)),
        b"file" => run.measure("fault file", 1, 512, Fault::new(Kind::File)),
        _ => Err(Errno::INVAL),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// New pages each time; the old ones stay, or the kernel would hand out the same ones again.
    Fresh,
    /// The same addresses each time, after their pages were given back.
    GivenBack,
    /// The same pages of a file each time, mapped anew by each fault.
    File,
}

struct Fault {
    kind: Kind,
    pages: Option<Pages>,
    kept: [Option<Pages>; MOST_BATCHES],
    before: u64,
    /// Faults of each timed batch.
    faults: [u64; MOST_BATCHES],
    batches: usize,
}

impl Fault {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            pages: None,
            kept: [const { None }; MOST_BATCHES],
            before: 0,
            faults: [0; MOST_BATCHES],
            batches: 0,
        }
    }

    fn map(&self, len: usize) -> Result<Pages, Errno> {
        match self.kind {
            Kind::File => file_pages(len),
            Kind::Fresh => Ok(Pages::map(len)?.small()),
            Kind::GivenBack => {
                let mut pages = Pages::map(len)?.small();
                write_each_page(&mut pages);
                Ok(pages)
            }
        }
    }
}

impl Operation for Fault {
    fn prepare(&mut self, n: u64) -> Result<(), Errno> {
        let len = usize::try_from(n).ok().and_then(|n| n.checked_mul(PAGE)).ok_or(Errno::INVAL)?;
        if self.kind == Kind::Fresh {
            let old = self.pages.take();
            if let Some(slot) = self.kept.iter_mut().find(|slot| slot.is_none()) {
                *slot = old;
            }
        }
        if self.pages.as_ref().is_none_or(|pages| pages.len() != len) {
            self.pages = Some(self.map(len)?);
        }
        let pages = self.pages.as_mut().ok_or(Errno::INVAL)?;
        if self.kind != Kind::Fresh {
            pages.forget()?;
        }
        self.before = minor_faults();
        Ok(())
    }

    fn batch(&mut self, _: u64) -> Result<(), Errno> {
        write_each_page(self.pages.as_mut().ok_or(Errno::INVAL)?);
        black_box(&self.pages);
        Ok(())
    }

    fn settle(&mut self) {
        if let Some(slot) = self.faults.get_mut(self.batches) {
            *slot = minor_faults() - self.before;
            self.batches += 1;
        }
    }

    fn restart(&mut self) {
        self.batches = 0;
    }

    fn tell(&self, line: &mut Line) {
        list(line, "minor_faults", self.faults.iter().take(self.batches).copied());
    }

    fn most(&self) -> u64 {
        MOST
    }
}
