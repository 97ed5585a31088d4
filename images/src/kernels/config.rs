//! A kernel's configuration (`.config`): what it says, and whether what workloads need is in it.

use super::Discovery;

/// The options that are set, with their values.
fn options(config: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let lines = config.split(|&byte| byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    lines.filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='))
}

/// The value of an option, written without `CONFIG_`; nothing where it is off.
pub(super) fn value<'a>(config: &'a [u8], name: &str) -> Option<&'a str> {
    options(config).find(|(option, _)| *option == name).map(|(_, value)| value.trim_matches('"'))
}

fn built_in(config: &[u8], name: &str) -> bool {
    value(config, name) == Some("y")
}

/// How a kernel of this configuration learns of devices. Without one: ACPI, as the distributions' have it.
pub(super) fn discovery(config: &[u8]) -> Discovery {
    let by_command_line = built_in(config, "VIRTIO_MMIO_CMDLINE_DEVICES") && !built_in(config, "ACPI");
    if by_command_line { Discovery::CommandLine } else { Discovery::Acpi }
}

/// Whether a kernel of this configuration can tell its host of free pages, by a built-in driver or a module.
pub(super) fn reports_free_pages(config: &[u8]) -> bool {
    built_in(config, "PAGE_REPORTING") && value(config, "VIRTIO_BALLOON").is_some()
}

/// A line of the list of what is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Requirement<'a> {
    pub(super) option: &'a str,
    pub(super) reason: &'a str,
}

/// Reads the list: one option and its reason a line, `#` before a comment.
pub(super) fn requirements(list: &str) -> impl Iterator<Item = Requirement<'_>> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (option, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Requirement { option, reason: reason.trim() }
    })
}

/// What of the list is not built in.
pub(super) fn missing<'a>(config: &[u8], list: &'a str) -> Vec<Requirement<'a>> {
    requirements(list).filter(|required| !built_in(config, required.option)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &[u8] = b"#\n# Linux/x86 6.12\n#\nCONFIG_EROFS_FS=y\nCONFIG_OVERLAY_FS=m\n\
        # CONFIG_PCI is not set\nCONFIG_CC_VERSION_TEXT=\"gcc (Debian 12.2.0) 12.2.0\"\nCONFIG_HZ=100\n";

    #[test]
    fn reads_values_by_their_whole_name() {
        assert_eq!(value(CONFIG, "CC_VERSION_TEXT"), Some("gcc (Debian 12.2.0) 12.2.0"));
        assert_eq!(value(CONFIG, "HZ"), Some("100"));
        assert_eq!(value(CONFIG, "PCI"), None);
        assert_eq!(value(CONFIG, "EROFS"), None);
    }

    #[test]
    fn modules_and_absent_options_are_missing() {
        let list =
            "# what images need\nEROFS_FS  the image\n\nOVERLAY_FS  the writable layer\nFUTEX every thread\n";
        let missing = missing(CONFIG, list);
        assert_eq!(missing.iter().map(|m| m.option).collect::<Vec<_>>(), ["OVERLAY_FS", "FUTEX"]);
        assert_eq!(missing[0].reason, "the writable layer");
    }

    #[test]
    fn free_pages_are_told_by_a_driver_built_in_or_not() {
        let both = |driver: &str| [driver, "\nCONFIG_PAGE_REPORTING=y\n"].concat().into_bytes();
        assert!(reports_free_pages(&both("CONFIG_VIRTIO_BALLOON=y")));
        assert!(reports_free_pages(&both("CONFIG_VIRTIO_BALLOON=m")));
        assert!(!reports_free_pages(&both("# CONFIG_VIRTIO_BALLOON is not set")));
        assert!(!reports_free_pages(b"CONFIG_VIRTIO_BALLOON=m\n"));
    }

    #[test]
    fn only_a_kernel_without_acpi_takes_devices_from_its_command_line() {
        let by_line: &[u8] = b"CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\n";
        assert_eq!(discovery(by_line), Discovery::CommandLine);
        assert_eq!(discovery(&[by_line, b"CONFIG_ACPI=y\n"].concat()), Discovery::Acpi);
        assert_eq!(discovery(CONFIG), Discovery::Acpi);
        assert_eq!(discovery(b""), Discovery::Acpi);
    }
}
