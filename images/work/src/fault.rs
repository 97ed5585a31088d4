//! Page faults.

use core::hint::black_box;

use isolab_bare::sys::Errno;
use isolab_bare::sys::memory::{Pages, file_pages};
use isolab_bare::sys::process::minor_faults;

use crate::measure::{Line, Operation};
use crate::memory::{PAGE, write_each_page};
use crate::{End, Run};

/// Most pages of a batch that `auto` chooses: 4 MiB, so that eleven batches of fresh pages fit into the smallest guest.
const MOST: u64 = 1024;
/// Most batches whose pages are kept.
const KEPT: usize = 32;

/// Page faults on memory never touched before, on addresses whose pages were given back, or on pages of a file in the
/// page cache.
pub(crate) fn fault(run: &Run) -> End {
    match run.arg(0).ok_or(Errno::INVAL)?.to_bytes() {
        b"anon" => run.measure("fault anon", 1, 1024, Fault::new(Kind::Fresh)),
        b"anon-again" => run.measure("fault anon-again", 1, 1024, Fault::new(Kind::GivenBack)),
        b"file" => run.measure("fault file", 1, 1024, Fault::new(Kind::File)),
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
    kept: [Option<Pages>; KEPT],
    before: u64,
    /// Faults of all timed batches.
    faults: u64,
}

impl Fault {
    const fn new(kind: Kind) -> Self {
        Self { kind, pages: None, kept: [const { None }; KEPT], before: 0, faults: 0 }
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
        self.faults += minor_faults() - self.before;
    }

    fn restart(&mut self) {
        self.faults = 0;
    }

    fn tell(&self, line: &mut Line) {
        line.push(b",\"minor_faults\":").number(self.faults);
    }

    fn most(&self) -> u64 {
        MOST
    }
}
