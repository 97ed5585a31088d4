//! The system calls of a container: refused unless the table allows them.
//!
//! The table is compiled to classic BPF when isolab is built: a binary search over ranges of numbers, so that both the
//! installation (the kernel tries each number once to learn which are always allowed) and the calls are quick. A list
//! of comparisons, as general filter compilers emit it, costs the installation some hundred thousand steps more.

pub mod rules;

pub use rules::{Check, GROUPS, Group, Verdict, verdict};

/// The filter, as `struct sock_filter` instructions of 8 bytes.
pub const FILTER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seccomp.bpf"));

/// Name of a call; of one that the table does not know, its number.
#[must_use]
pub fn name(number: u32) -> String {
    let known = GROUPS.iter().flat_map(|group| group.calls).find(|(n, _)| *n == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_number_once() {
        let mut numbers: Vec<u32> = GROUPS.iter().flat_map(|g| g.calls).map(|&(n, _)| n).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert!(count > 370, "{count} calls");
    }

    #[test]
    fn names_each_call_of_the_installed_kernel_header() {
        let Ok(header) = std::fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h") else {
            eprintln!("skipped: no kernel headers are installed");
            return;
        };
        let named = |n: u32, name: &str| GROUPS.iter().any(|g| g.calls.contains(&(n, name)));
        let calls = header.lines().filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '));
        let missing: Vec<&str> = calls
            .filter(|(name, n)| !n.trim().parse().is_ok_and(|n| named(n, name)))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn fits_the_job_block() {
        assert!(FILTER.len().is_multiple_of(8) && FILTER.len() < isolab_wire::job::MAX_FILTER / 4);
    }
}
