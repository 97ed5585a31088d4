//! Guest RAM.

use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

use crate::layout;
use crate::sys::{self, Advice};

/// Guest RAM: private memory, taken from the host as the guest touches it (of a restored guest: as it writes to it).
pub(crate) type GuestRam = GuestMemoryMmap<()>;

/// Guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused the mapping.
    #[error("map {bytes} bytes of guest memory")]
    Map {
        /// How much.
        bytes: u64,
        /// Why.
        source: std::io::Error,
    },
    /// Keep it out of core dumps and page merging.
    #[error("protect guest memory from dumps and merging")]
    Advise(#[source] std::io::Error),
    /// KVM refused it.
    #[error("give guest memory to kvm")]
    Register(#[source] std::io::Error),
}

/// Maps RAM of this many bytes, in no core dump, in small pages and never merged with others'.
pub(crate) fn map(bytes: u64) -> Result<GuestRam, MemoryError> {
    let refused = |source| MemoryError::Map { bytes, source };
    let mut regions = Vec::new();
    for (start, len) in layout::ram_ranges(bytes) {
        let len = usize::try_from(len).map_err(|e| refused(std::io::Error::other(e)))?;
        let region = GuestRegionMmap::new(sys::map_aligned(len).map_err(refused)?, start);
        regions.push(region.ok_or_else(|| refused(std::io::ErrorKind::InvalidInput.into()))?);
    }
    let ram = GuestRam::from_regions(regions).map_err(|e| refused(std::io::Error::other(e)))?;
    // Page merging is a side channel between guests; large pages would hide which ones the guest touches.
    for advice in [Advice::NoDump, Advice::NoMerging, Advice::SmallPages] {
        sys::advise(&ram, advice).map_err(MemoryError::Advise)?;
    }
    Ok(ram)
}

/// Keeps what was laid over it out of core dumps and page merging, too.
pub(crate) fn hide(ram: &GuestRam) -> Result<(), MemoryError> {
    [Advice::NoDump, Advice::NoMerging]
        .into_iter()
        .try_for_each(|advice| sys::advise(ram, advice).map_err(MemoryError::Advise))
}

/// Gives all of it to the guest.
pub(crate) fn register(vm: &VmFd, ram: &GuestRam) -> Result<(), MemoryError> {
    for (slot, index) in (0_u32..).zip(0..ram.num_regions()) {
        sys::register_ram(vm, slot, ram, index).map_err(MemoryError::Register)?;
    }
    Ok(())
}

/// Where it lies in this process: first address and length of each range.
pub(crate) fn host_ranges(ram: &GuestRam) -> impl Iterator<Item = (u64, u64)> + '_ {
    ram.iter().filter_map(|region| {
        let host = ram.get_host_address(region.start_addr()).ok()?;
        Some((host.addr() as u64, region.len()))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether all of it is kept out of core dumps (`dd` of its flags in `smaps`) and none may be merged (`mg`).
    pub(crate) fn is_kept_apart(ram: &GuestRam) -> bool {
        let (start, len) = host_ranges(ram).next().unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut found = Vec::new();
        for line in smaps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let number = |text| u64::from_str_radix(text, 16).ok();
            if let Some((from, to)) = range.and_then(|(from, to)| number(from).zip(number(to))) {
                inside = from < start + len && start < to;
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                found.push(flags.split_whitespace().collect::<Vec<_>>());
            }
        }
        !found.is_empty() && found.iter().all(|flags| flags.contains(&"dd") && !flags.contains(&"mg"))
    }

    #[test]
    fn guest_ram_is_in_no_core_dump_and_is_not_merged() {
        assert!(is_kept_apart(&map(4 << 20).unwrap()));
    }
}
