//! ACPI tables: the only way in which a stock kernel learns of virtio-mmio devices.
//!
//! Hardware-reduced ACPI: no PIC, no PIT, no RTC, no keyboard controller, so the kernel probes none of them.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, Interrupt, Memory32Fixed, Name, ONE, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress};

use super::ArchError;
use crate::layout;
use crate::memory::GuestRam;

const OEM: [u8; 6] = *b"ISOLAB";
const OEM_TABLE: [u8; 8] = *b"ISOLABVM";
const REVISION: u32 = 1;
/// `IAPC_BOOT_ARCH`: no VGA, no message-signalled interrupts, no CMOS clock; bit 1 clear: no keyboard controller.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 3 | 1 << 5;

/// Bytes of registers ([`layout::VIRTIO_STRIDE`]).
const VIRTIO_STRIDE: u32 = 0x1000;

/// Registers and interrupt of a virtio device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// First register.
    pub(crate) address: u32,
    /// Interrupt.
    pub(crate) gsi: u32,
}

/// Writes the tables; returns the address of their root.
pub(crate) fn write(ram: &GuestRam, cpus: u8, devices: &[Window]) -> Result<GuestAddress, ArchError> {
    let mut tables = Tables { ram, next: layout::ACPI.start };
    // The root goes first, where a scan of the BIOS area would find it too.
    let root = tables.next;
    tables.next += 64;
    let dsdt = tables.put("dsdt", &dsdt(devices))?;
    let fadt = tables.put("fadt", &fadt(dsdt))?;
    let madt = tables.put("madt", &madt(cpus))?;
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.put("xsdt", &bytes(&xsdt))?;
    tables.next = root;
    tables.put("rsdp", &bytes(&Rsdp::new(OEM, xsdt)))?;
    Ok(GuestAddress(root))
}

struct Tables<'a> {
    ram: &'a GuestRam,
    next: u64,
}

impl Tables<'_> {
    fn put(&mut self, table: &'static str, bytes: &[u8]) -> Result<u64, ArchError> {
        let at = self.next;
        let end = at + bytes.len() as u64;
        if end > layout::ACPI.end() {
            return Err(ArchError::Write { table, reason: "the area for tables is full".into() });
        }
        self.ram
            .write_slice(bytes, GuestAddress(at))
            .map_err(|e| ArchError::Write { table, reason: e.to_string() })?;
        self.next = end.next_multiple_of(16);
        Ok(at)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    let sleep =
        || GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(layout::port::SLEEP));
    fadt.sleep_control_reg = sleep();
    fadt.sleep_status_reg = sleep();
    bytes(&fadt.finalize())
}

fn madt(cpus: u8) -> Vec<u8> {
    let lapic = LocalInterruptController::Address(address32(&layout::LAPIC));
    let mut madt = MADT::new(OEM, OEM_TABLE, REVISION, lapic);
    for cpu in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, address32(&layout::IOAPIC), 0));
    bytes(&madt)
}

fn address32(area: &layout::Area) -> u32 {
    u32::try_from(area.start).unwrap_or_default()
}

fn dsdt(devices: &[Window]) -> Vec<u8> {
    let mut aml = Vec::new();
    // Sleep state 5, "soft off": written to the sleep register when the guest powers off.
    Name::new("_S5_".into(), &Package::new(vec![&5_u8, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut aml);
    for (uid, device) in (0_u8..).zip(devices) {
        let name = format!("VR{uid:02}");
        let hid = Name::new("_HID".into(), &"LNRO0005");
        let number = Name::new("_UID".into(), &uid);
        // Device and processor see the same memory.
        let coherent = Name::new("_CCA".into(), &ONE);
        let settings = Name::new(
            "_CRS".into(),
            &ResourceTemplate::new(vec![
                &Memory32Fixed::new(true, device.address, VIRTIO_STRIDE),
                &Interrupt::new(true, true, false, false, device.gsi),
            ]),
        );
        let device = Device::new(Path::new(&name), vec![&hid, &number, &coherent, &settings]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(&mut aml);
    }
    // Revision 2: integers are 64 bits wide.
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, REVISION);
    dsdt.append_slice(&aml);
    dsdt.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_right_checksums_and_point_to_each_other() {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        let window = Window { address: 0xd000_0000, gsi: 5 };
        let root = write(&ram, 8, &[window; 3]).unwrap();
        let mut rsdp = [0_u8; 36];
        ram.read_slice(&mut rsdp, root).unwrap();
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!(rsdp.iter().fold(0_u8, |a, b| a.wrapping_add(*b)), 0);
        let table = |at: u64| {
            let len: u32 = ram.read_obj(GuestAddress(at + 4)).unwrap();
            let mut table = vec![0; len as usize];
            ram.read_slice(&mut table, GuestAddress(at)).unwrap();
            assert_eq!(table.iter().fold(0_u8, |a, b| a.wrapping_add(*b)), 0);
            table
        };
        let xsdt = table(u64::from_le_bytes(rsdp[24..32].try_into().unwrap()));
        assert_eq!(&xsdt[..4], b"XSDT");
        let entries: Vec<_> =
            xsdt[36..].chunks_exact(8).map(|e| table(u64::from_le_bytes(e.try_into().unwrap()))).collect();
        assert_eq!(&entries[0][..4], b"FACP");
        assert_eq!(&entries[1][..4], b"APIC");
        let dsdt = table(u64::from_le_bytes(entries[0][140..148].try_into().unwrap()));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(dsdt.windows(8).filter(|w| w == b"LNRO0005").count(), 3);
    }
}
