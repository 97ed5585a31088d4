//! The table of the MultiProcessor Specification (Intel, version 1.4): how a kernel without ACPI learns of its
//! processors, of the I/O APIC, and of which interrupt goes to which of its inputs.

use vm_memory::{Bytes, GuestAddress};

use super::ArchError;
use super::acpi::Window;
use crate::layout;
use crate::memory::GuestRam;

/// Chapter 4: bytes of the pointer, and of the header of the table that it points to.
const POINTER: usize = 16;
const HEADER: usize = 44;
/// Version 1.4.
const VERSION: u8 = 4;

/// Kinds of entries (table 4-3).
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// Versions of integrated local APICs and of the 82093AA.
const LAPIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 1 << 1;

/// Interrupt types (table 4-10).
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;
/// Polarity and trigger mode as the bus has them: ISA's are active high and by edge, which is how KVM raises ours.
const CONFORMS: [u8; 2] = [0, 0];

/// The only bus: what a kernel takes as legacy interrupts.
const ISA: u8 = 0;
/// Every local APIC.
const ALL: u8 = 0xff;

/// Writes pointer and table where the last KiB of conventional memory is scanned for them.
pub(crate) fn write(ram: &GuestRam, cpus: u8, devices: &[Window]) -> Result<(), ArchError> {
    let failed = |reason: String| ArchError::Write { table: "multiprocessor table", reason };
    let table = table(cpus, devices)?;
    let start = layout::MP_TABLE.start;
    let at = u32::try_from(start).unwrap_or_default() + 16;
    let bytes = [pointer(at).as_slice(), &table].concat();
    if bytes.len() as u64 > layout::MP_TABLE.size {
        return Err(failed("its area is full".into()));
    }
    ram.write_slice(&bytes, GuestAddress(start)).map_err(|e| failed(e.to_string()))
}

/// The floating pointer (4.1): length in units of 16 bytes, no default configuration, virtual wire mode.
fn pointer(table: u32) -> [u8; POINTER] {
    let mut bytes = [0; POINTER];
    bytes[..4].copy_from_slice(b"_MP_");
    bytes[4..8].copy_from_slice(&table.to_le_bytes());
    bytes[8] = 1;
    bytes[9] = VERSION;
    bytes[10] = complement(&bytes);
    bytes
}

/// The configuration table (4.2, 4.3).
fn table(cpus: u8, devices: &[Window]) -> Result<Vec<u8>, ArchError> {
    let out_of_range = |what: &str| ArchError::Write {
        table: "multiprocessor table",
        reason: format!("{what} out of range"),
    };
    // Any number that no local APIC has.
    let io_apic = cpus;
    let mut entries = Vec::new();
    for cpu in 0..cpus {
        entries.push(processor(cpu));
    }
    entries.push([&[BUS, ISA][..], b"ISA   "].concat());
    let [a, b, c, d] = address32(&layout::IOAPIC).to_le_bytes();
    entries.push(vec![IO_APIC, io_apic, IO_APIC_VERSION, ENABLED, a, b, c, d]);
    for device in devices {
        let input = u8::try_from(device.gsi).map_err(|_| out_of_range("an interrupt"))?;
        entries.push(interrupt(IO_INTERRUPT, VECTORED, input, io_apic, input));
    }
    entries.push(interrupt(LOCAL_INTERRUPT, EXTERNAL, 0, ALL, 0));
    entries.push(interrupt(LOCAL_INTERRUPT, NMI, 0, ALL, 1));
    let count = u16::try_from(entries.len()).map_err(|_| out_of_range("number of entries"))?;
    let entries = entries.concat();
    let length = u16::try_from(HEADER + entries.len()).map_err(|_| out_of_range("length"))?;
    let mut table = vec![0; HEADER];
    table[..4].copy_from_slice(b"PCMP");
    table[4..6].copy_from_slice(&length.to_le_bytes());
    table[6] = VERSION;
    table[8..16].copy_from_slice(b"ISOLAB  ");
    table[16..28].copy_from_slice(b"VM          ");
    table[34..36].copy_from_slice(&count.to_le_bytes());
    table[36..40].copy_from_slice(&address32(&layout::LAPIC).to_le_bytes());
    table.extend(entries);
    table[7] = complement(&table);
    Ok(table)
}

/// A processor (4.3.1). Signature and features stay empty: kernels ask the processor itself.
fn processor(cpu: u8) -> Vec<u8> {
    let flags = if cpu == 0 { ENABLED | BOOT_PROCESSOR } else { ENABLED };
    let mut entry = vec![PROCESSOR, cpu, LAPIC_VERSION, flags];
    entry.resize(20, 0);
    entry
}

/// An interrupt of the bus (4.3.4), or one of a local APIC's own inputs (4.3.5).
fn interrupt(entry: u8, kind: u8, source: u8, apic: u8, input: u8) -> Vec<u8> {
    vec![entry, kind, CONFORMS[0], CONFORMS[1], ISA, source, apic, input]
}

/// What makes the sum of all bytes zero.
fn complement(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

fn address32(area: &layout::Area) -> u32 {
    u32::try_from(area.start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(cpus: u8) -> (Vec<u8>, Vec<u8>) {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        let devices = [5, 6, 7].map(|gsi| Window { address: 0xd000_0000, gsi });
        write(&ram, cpus, &devices).unwrap();
        let read = |at: u64, len: usize| {
            let mut bytes = vec![0; len];
            ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            bytes
        };
        let pointer = read(layout::MP_TABLE.start, POINTER);
        let at = u32::from_le_bytes(pointer[4..8].try_into().unwrap());
        let len: u16 = ram.read_obj(GuestAddress(u64::from(at) + 4)).unwrap();
        (pointer, read(at.into(), len.into()))
    }

    /// The entries behind the header: a processor has 20 bytes, each other kind 8.
    fn entries(table: &[u8]) -> Vec<&[u8]> {
        let mut rest = &table[HEADER..];
        let mut entries = Vec::new();
        while let Some(&kind) = rest.first() {
            let (entry, after) = rest.split_at(if kind == PROCESSOR { 20 } else { 8 });
            entries.push(entry);
            rest = after;
        }
        entries
    }

    #[test]
    fn pointer_and_table_have_their_signatures_and_sum_to_zero() {
        let (pointer, table) = written(8);
        assert_eq!((&pointer[..4], pointer[8], pointer[9]), (&b"_MP_"[..], 1, 4));
        assert_eq!((&table[..4], table[6]), (&b"PCMP"[..], 4));
        for bytes in [pointer, table] {
            assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        }
    }

    #[test]
    fn every_processor_is_enabled_and_the_first_one_boots() {
        let (_, table) = written(8);
        let entries = entries(&table);
        let count = u16::from_le_bytes(table[34..36].try_into().unwrap());
        assert_eq!(usize::from(count), entries.len());
        let processors: Vec<_> = entries.iter().filter(|e| e[0] == PROCESSOR).map(|e| (e[1], e[3])).collect();
        assert_eq!(processors[0], (0, 3));
        assert_eq!(processors[1..], [1, 2, 3, 4, 5, 6, 7].map(|cpu| (cpu, 1)));
    }

    #[test]
    fn devices_reach_the_input_of_their_interrupt_by_edge() {
        let (_, table) = written(1);
        let entries = entries(&table);
        let routes: Vec<_> =
            entries.iter().filter(|e| e[0] == IO_INTERRUPT).map(|e| e[1..].to_vec()).collect();
        // Type, flags, bus, line of the bus, I/O APIC, input.
        assert_eq!(routes, [5, 6, 7].map(|line| vec![VECTORED, 0, 0, ISA, line, 1, line]));
        let chip = entries.iter().find(|e| e[0] == IO_APIC).unwrap();
        assert_eq!((chip[1], &chip[4..]), (1, &0xfec0_0000_u32.to_le_bytes()[..]));
    }
}
