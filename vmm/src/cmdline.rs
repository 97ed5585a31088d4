//! The kernel command line: constant tokens and their reasons, and for a kernel without ACPI the addresses of its devices. Image
//! data never enters it.

use std::fmt::Write;

use isolab_images::kernels::Discovery;

use crate::arch::acpi::Window;
use crate::layout;

/// Whom a token is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// Every kernel.
    All,
    /// A distribution's, which has what these tokens switch off.
    Acpi,
    /// The tuned one.
    CommandLine,
    /// One whose free memory returns to the host.
    Reporting,
}

const TOKENS: &[(For, &str, &str)] = &[
    (For::All, "reboot=t", "a reboot is a triple fault: KVM reports it at once, no device is asked first"),
    (For::All, "panic=-1", "a panic reboots at once instead of waiting for somebody to read it"),
    (For::Acpi, "pci=off", "there is no PCI bus; probing for one costs exits"),
    (For::Acpi, "8250.nr_uarts=0", "no serial driver: the debug port below needs none"),
    (For::Acpi, "cryptomgr.notests", "no self-tests of ciphers that nobody uses here"),
    (For::All, "tsc=reliable", "no warp test between CPUs: their counters are one counter under KVM"),
    (
        For::Acpi,
        "initcall_blacklist=tracer_init_tracefs,trace_eval_init",
        "no tables and files for kernel tracing, which nothing inside can reach: a sixth of the start, and 6 MiB, \
         which decides whether a stock kernel fits into 64 MiB",
    ),
    (
        For::CommandLine,
        "percpu_alloc=page",
        "per-CPU memory in pages: else the kernel clears 2 MiB for each CPU, to free nine tenths of it again",
    ),
    (
        For::CommandLine,
        "noreplace-smp",
        "lock prefixes stay: to replace each of them, where there is one CPU, takes 3 million instructions",
    ),
    (
        For::CommandLine,
        "cpuhp.parallel=off",
        "CPUs come up one after the other: all at once they spin for each other, and hang where the host has fewer CPUs",
    ),
    (
        For::CommandLine,
        "initcall_blacklist=slab_late_init,param_sysfs_builtin_init",
        "no /sys/kernel/slab and no /sys/module/*/parameters, thousands of files that no workload reads",
    ),
    (
        For::Reporting,
        "page_reporting.page_reporting_order=5",
        "free blocks of 128 KiB and more return; else only those of 2 MiB, and none where fewer than 64 MiB are free",
    ),
    (
        For::Reporting,
        "isolab_reported_order=5",
        "the same for process 1 to set: the driver of kernel 6.1 overwrites what is said here",
    ),
    // Order matters: the level is read before the port starts to print.
    (For::All, "loglevel=1", "print only what precedes the end of the kernel"),
    (
        For::All,
        "earlyprintk=serial,0x3f8,115200,keep",
        "last words go to the debug port, which remembers the tail",
    ),
];

/// Tokens that replace the level where the guest's console is wanted.
const DEBUG_LEVEL: &str = "loglevel=8";

/// What the line depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// How the kernel learns of its devices.
    pub(crate) discovery: Discovery,
    /// Its messages are wanted.
    pub(crate) console_log: bool,
    /// Its free memory is.
    pub(crate) free_page_reporting: bool,
}

/// The whole line, without its final NUL.
pub(crate) fn line(wanted: Wanted, devices: &[Window]) -> String {
    let Wanted { discovery, console_log, free_page_reporting } = wanted;
    let wanted = |whom| match whom {
        For::All => true,
        For::Acpi => discovery == Discovery::Acpi,
        For::CommandLine => discovery == Discovery::CommandLine,
        For::Reporting => free_page_reporting,
    };
    let tokens = TOKENS.iter().filter(|(whom, _, _)| wanted(*whom)).map(|&(_, token, _)| match token {
        "loglevel=1" if console_log => DEBUG_LEVEL,
        token => token,
    });
    let mut line = tokens.collect::<Vec<_>>().join(" ");
    if discovery == Discovery::CommandLine {
        for device in devices {
            // Writing to a string does not fail.
            let _ = write!(
                line,
                " virtio_mmio.device={:#x}@{:#x}:{}",
                layout::VIRTIO_STRIDE,
                device.address,
                device.gsi
            );
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: [Window; 2] =
        [Window { address: 0xd000_0000, gsi: 5 }, Window { address: 0xd000_1000, gsi: 6 }];

    #[test]
    fn line_fits_its_area_and_each_token_has_a_reason() {
        let both = [Discovery::Acpi, Discovery::CommandLine].map(|d| [(d, false), (d, true)]);
        for (discovery, on) in both.concat() {
            let wanted = Wanted { discovery, console_log: on, free_page_reporting: on };
            let line = line(wanted, &DEVICES);
            assert!(u64::try_from(line.len()).unwrap() < layout::CMDLINE.size);
            assert!(line.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
        }
        assert!(TOKENS.iter().all(|(_, token, reason)| !token.contains(' ') && !reason.is_empty()));
        let console = line(Wanted { console_log: true, ..Wanted::default() }, &DEVICES);
        assert!(console.contains("loglevel=8") && !console.contains("loglevel=1 "));
    }

    #[test]
    fn devices_are_on_the_line_of_a_kernel_without_acpi_and_on_no_other() {
        let by_line = Wanted { discovery: Discovery::CommandLine, ..Wanted::default() };
        let without = line(by_line, &DEVICES);
        let devices = " virtio_mmio.device=0x1000@0xd0000000:5 virtio_mmio.device=0x1000@0xd0001000:6";
        assert!(without.ends_with(devices), "{without}");
        assert!(!line(Wanted::default(), &DEVICES).contains("virtio_mmio"));
    }

    #[test]
    fn a_kernel_hears_of_free_blocks_only_where_it_is_to_tell_of_them() {
        let told = line(Wanted { free_page_reporting: true, ..Wanted::default() }, &DEVICES);
        assert_eq!(told.matches("order=5").count(), 2, "{told}");
        assert!(!line(Wanted::default(), &DEVICES).contains("order"));
    }
}
