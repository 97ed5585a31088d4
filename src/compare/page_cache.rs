//! Brings the files that a start reads into the state of the page cache that the plan declares, and reads back what came of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};

use anyhow::Context;
use isolab_bench::conditions::{CacheState, Residency};
use isolab_container::page_cache::{evict, look, warm};

use crate::kernel;

/// Larger files are not read whole before each run: what the runs themselves read is warm after the warm-up.
const MOST_READ: u64 = 1 << 30;

/// The files, and the state they are to be in.
#[derive(Debug)]
pub(crate) struct PageCache {
    state: CacheState,
    files: Vec<(&'static str, File, u64)>,
}

impl PageCache {
    /// For runs of this image, and of this guest kernel where a vm is among them.
    ///
    /// # Errors
    /// A file can't be opened.
    pub(crate) fn new(state: CacheState, image: &File, kernel: Option<&str>) -> anyhow::Result<Self> {
        let mut files = vec![("image", image.try_clone().context("copy the image's descriptor")?)];
        if let Some(name) = kernel {
            let entry = kernel::store()?.get(name)?;
            let path = entry.vmlinux().unwrap_or_else(|| entry.kernel());
            files.push(("kernel", File::open(path).context("open the guest kernel")?));
        }
        files.push(("binary", File::open("/proc/self/exe").context("open isolab's own program")?));
        let sized = files.into_iter().map(|(name, mut file)| {
            // A block device has no size but where it ends.
            let bytes = file.seek(SeekFrom::End(0))?;
            Ok((name, file, bytes))
        });
        Ok(Self {
            state,
            files: sized.collect::<std::io::Result<_>>().context("measure the files of a run")?,
        })
    }

    /// The name of the guest kernel that runs use, where a level has one.
    ///
    /// # Errors
    /// No home directory.
    pub(crate) fn kernel_of(levels: &[String], asked: Option<&str>) -> anyhow::Result<Option<String>> {
        if !levels.iter().any(|level| level == "vm") {
            return Ok(None);
        }
        let store = kernel::store()?;
        Ok(Some(asked.unwrap_or_else(|| store.default_name()).to_owned()))
    }

    /// Makes the state and looks; a file that can't be looked at is left out.
    pub(crate) fn prepare(&self) -> BTreeMap<String, Residency> {
        let seen = self.files.iter().filter_map(|(name, file, bytes)| {
            let before = look(file, *bytes).ok()?;
            // What could not be done shows in what is seen after it.
            let _ = match self.state {
                CacheState::Warm if before.resident < before.all && *bytes <= MOST_READ => warm(file, *bytes),
                // A program that runs is mapped and stays.
                CacheState::Cold if *name != "binary" => evict(file),
                _ => Ok(()),
            };
            let pages = look(file, *bytes).ok()?;
            Some(((*name).to_owned(), Residency { resident_pages: pages.resident, pages: pages.all }))
        });
        seen.collect()
    }
}
