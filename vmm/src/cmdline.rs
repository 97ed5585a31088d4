//! The kernel command line: constant tokens and their reasons. Image data never enters it.

/// Tokens of every guest.
const TOKENS: &[(&str, &str)] = &[
    ("reboot=t", "a reboot is a triple fault: KVM reports it at once, no device is asked first"),
    ("panic=-1", "a panic reboots at once instead of waiting for somebody to read it"),
    ("pci=off", "there is no PCI bus; probing for one costs exits"),
    ("8250.nr_uarts=0", "no serial driver: the debug port below needs none"),
    ("cryptomgr.notests", "no self-tests of ciphers that nobody uses here"),
    ("tsc=reliable", "no warp test between CPUs: their counters are one counter under KVM"),
    (
        "initcall_blacklist=tracer_init_tracefs,trace_eval_init",
        "no tables and files for kernel tracing, which nothing inside can reach: a sixth of the start, and 6 MiB, \
         which decides whether a stock kernel fits into 64 MiB",
    ),
    // Order matters: the level is read before the port starts to print.
    ("loglevel=1", "print only what precedes the end of the kernel"),
    ("earlyprintk=serial,0x3f8,115200,keep", "last words go to the debug port, which remembers the tail"),
];

/// Tokens that replace the level where the guest's console is wanted.
const DEBUG_LEVEL: &str = "loglevel=8";

/// The whole line, without its final NUL.
pub(crate) fn line(console_log: bool) -> String {
    let tokens = TOKENS.iter().map(|&(token, _)| match token {
        "loglevel=1" if console_log => DEBUG_LEVEL,
        token => token,
    });
    tokens.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout;

    #[test]
    fn line_fits_its_area_and_each_token_has_a_reason() {
        for console_log in [false, true] {
            let line = line(console_log);
            assert!(u64::try_from(line.len()).unwrap() < layout::CMDLINE.size);
            assert!(line.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
        }
        assert!(TOKENS.iter().all(|(token, reason)| !token.contains(' ') && !reason.is_empty()));
        assert!(line(true).contains("loglevel=8") && !line(true).contains("loglevel=1 "));
    }
}
