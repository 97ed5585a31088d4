//! `struct boot_params`, the "zero page" of the Linux boot protocol.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress};

use super::ArchError;
use crate::boot::initramfs::Placed;
use crate::layout;
use crate::memory::GuestRam;

const E820_RAM: u32 = 1;
const E820_ACPI: u32 = 3;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x100_0000;

/// What the kernel is told.
pub(crate) struct Told<'a> {
    /// The setup header of the file; an ELF kernel has none.
    pub(crate) header: Option<setup_header>,
    /// Command line without NUL.
    pub(crate) cmdline: &'a str,
    pub(crate) initramfs: Placed,
    /// Root of the ACPI tables, where there are some.
    pub(crate) acpi_root: Option<GuestAddress>,
    pub(crate) memory_bytes: u64,
}

/// Writes the command line and the zero page.
pub(crate) fn write(ram: &GuestRam, told: &Told<'_>) -> Result<(), ArchError> {
    let failed =
        |table| move |e: vm_memory::GuestMemoryError| ArchError::Write { table, reason: e.to_string() };
    let mut cmdline = told.cmdline.as_bytes().to_vec();
    cmdline.push(0);
    ram.write_slice(&cmdline, layout::CMDLINE.address()).map_err(failed("command line"))?;
    let mut params = boot_params::default();
    let too_big = |_| ArchError::Write { table: "boot parameters", reason: "an address is too high".into() };
    let mut header = told.header.unwrap_or_else(|| setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        kernel_alignment: KERNEL_ALIGNMENT,
        ..Default::default()
    });
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = u32::try_from(layout::CMDLINE.start).map_err(too_big)?;
    header.cmdline_size = u32::try_from(cmdline.len()).map_err(too_big)?;
    header.ramdisk_image = told.initramfs.start;
    header.ramdisk_size = told.initramfs.size;
    params.hdr = header;
    params.acpi_rsdp_addr = told.acpi_root.map_or(0, |root| root.0);
    let map = memory_map(told);
    for (slot, entry) in params.e820_table.iter_mut().zip(&map) {
        *slot = *entry;
    }
    params.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    ram.write_obj(params, layout::BOOT_PARAMS.address()).map_err(failed("boot parameters"))
}

fn memory_map(told: &Told<'_>) -> Vec<boot_e820_entry> {
    let entry = |addr, size, kind| boot_e820_entry { addr, size, r#type: kind };
    let mut map = vec![entry(layout::LOW_RAM.start, layout::LOW_RAM.size, E820_RAM)];
    if told.acpi_root.is_some() {
        map.push(entry(layout::ACPI.start, layout::ACPI.size, E820_ACPI));
    }
    for (start, len) in layout::ram_ranges(told.memory_bytes) {
        // The first MiB of the first piece is described above.
        let first = start.0.max(layout::HIGH_MEMORY);
        map.push(entry(first, (start.0 + len).saturating_sub(first), E820_RAM));
    }
    map
}
