//! From what was said inside and what the host knows to items with an outcome.

use std::collections::BTreeMap;

use isolab_bench::probe::{BASELINE, ItemRecord, Outcome, Reason};
use isolab_container::seccomp::{Verdict, verdict};
use isolab_images::probe::{Found, Item};

use super::calls;
use super::errors;
use super::host::HostTruth;
use super::lines::Said;
use super::load;
use super::truth::{Compare, Lines, Wanted, is_hosts};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENXIO: i32 = 6;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const ENOTDIR: i32 = 20;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;
const ECONNREFUSED: i32 = 111;
const SIGSYS: i32 = 31;
/// What a guest has: the published list.
const GUEST_DEVICES: &str = "block console rng";
/// What the monitor names itself by CPUID.
const MONITOR: &str = "KVMKVMKVM";

/// What a level is judged with.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) level: &'a str,
    /// Another kernel than the host's answered.
    pub(super) own_kernel: bool,
    pub(super) files: &'a [Wanted],
    pub(super) before: &'a Lines,
    pub(super) after: &'a Lines,
    pub(super) host: &'a HostTruth,
    /// Outcomes of the level without isolation, by probe and item; nothing while that level itself is judged.
    pub(super) baseline: Option<&'a Outcomes>,
    /// Answers of that level to the sweep of system calls.
    pub(super) baseline_calls: Option<&'a calls::Answers>,
}

/// Outcomes by probe and item.
pub(super) type Outcomes = BTreeMap<(String, String), Outcome>;

impl Context<'_> {
    /// The items of a probe.
    pub(super) fn items(&self, probe: &str, said: &Said) -> Vec<ItemRecord> {
        let items = said.items.get(probe).map(Vec::as_slice).unwrap_or_default();
        let mut records: Vec<ItemRecord> = items.iter().flat_map(|item| self.item(item)).collect();
        let failed = match said.ends.get(probe) {
            None => Some("it was not run to its end".to_owned()),
            Some(end) if end.late => Some("its time was over".to_owned()),
            Some(end) => end.signal.map(|signal| format!("ended by signal {signal}")),
        };
        if let Some(why) = failed {
            records.push(plain("the probe itself", Outcome::Unknown, Some(why), None));
        } else if records.is_empty() {
            records.push(plain("the probe itself", Outcome::Unknown, Some("it said nothing".into()), None));
        }
        records
    }

    fn item(&self, item: &Item) -> Vec<ItemRecord> {
        match (item.probe.as_str(), item.item.as_str(), item.found) {
            ("P06", "sweep", Found::Told) => {
                return calls::records(item.seen.as_deref().unwrap_or_default(), self);
            }
            ("P06", "skipped", _) => {
                return vec![plain("not called", Outcome::NotApplicable, item.seen.clone(), None)];
            }
            (_, _, Found::Told) => return vec![self.told(item)],
            _ => {}
        }
        let (outcome, reason) = self.outcome(item);
        vec![ItemRecord {
            item: item.item.clone(),
            outcome,
            reason,
            seen: item.seen.clone().filter(|seen| !seen.is_empty()).or_else(|| answered(item)),
            host_truth: self.baseline_truth(item),
        }]
    }

    /// What the level without isolation got, where this one got something else.
    fn baseline_truth(&self, item: &Item) -> Option<String> {
        let baseline = self.base(item)?;
        (baseline != Outcome::NotApplicable).then(|| format!("{} without isolation", baseline.word()))
    }

    fn base(&self, item: &Item) -> Option<Outcome> {
        self.baseline?.get(&(item.probe.clone(), item.item.clone())).copied()
    }

    fn outcome(&self, item: &Item) -> (Outcome, Option<Reason>) {
        let by_filter = self.refused_by_filter(item);
        match item.found {
            Found::Reached => (Outcome::Reached, None),
            Found::Blocked => (Outcome::Blocked, Some(self.reason(item, by_filter))),
            Found::Absent if by_filter => (Outcome::Blocked, Some(self.reason(item, true))),
            Found::Absent if self.base(item) == Some(Outcome::Reached) => {
                (Outcome::Blocked, Some(self.reason(item, false)))
            }
            // Nothing of the kind without isolation either: there is nothing to be kept away.
            Found::Absent => (Outcome::NotApplicable, None),
            Found::Unknown | Found::Told => (Outcome::Unknown, Some(self.reason(item, by_filter))),
        }
    }

    /// The container's filter has this answer in its table.
    fn refused_by_filter(&self, item: &Item) -> bool {
        let Some((number, args)) = item.call.filter(|_| self.level == "container") else { return false };
        let answer = match verdict(number) {
            Verdict::Check(check) => check.answer(args),
            other => other,
        };
        matches!(answer, Verdict::Errno(errno) if item.errno == Some(i32::from(errno)))
    }

    fn reason(&self, item: &Item, by_filter: bool) -> Reason {
        let layer = match (item.signal, item.errno) {
            (Some(SIGSYS), _) => "seccomp",
            _ if by_filter => "seccomp",
            _ if item.probe == "P32" => "monitor",
            // Files there are not executed.
            (_, Some(EACCES)) if item.probe == "P09" => "mount",
            (_, Some(EPERM | EACCES | ESRCH | ECONNREFUSED)) if self.own_kernel => "own kernel",
            (_, None) if item.found == Found::Absent => "not there",
            (_, Some(EROFS)) => "read-only mount",
            (_, Some(ENOENT | ENXIO | ENODEV | ENOTDIR)) => "not there",
            (_, Some(EPERM | EACCES)) => "capability",
            (_, Some(ESRCH | ECONNREFUSED)) => "namespace",
            (_, Some(ENOSYS)) => "kernel",
            _ => layer_without_error(item, self.own_kernel),
        };
        reason(layer, item.errno, item.signal)
    }

    /// An item that only the host's truth can judge.
    fn told(&self, item: &Item) -> ItemRecord {
        let seen = item.seen.clone().unwrap_or_default();
        let truth = self.host;
        let record = |outcome, layer: &str, host: &str| {
            let reason = (outcome == Outcome::Blocked).then(|| reason(layer, None, None));
            let host = (!host.is_empty()).then(|| host.to_owned());
            ItemRecord {
                item: item.item.clone(),
                outcome,
                reason,
                seen: Some(seen.clone()),
                host_truth: host,
            }
        };
        let equal = |same: bool| if same { Outcome::Reached } else { Outcome::Blocked };
        match (item.probe.as_str(), item.item.as_str()) {
            ("P01", "release") => {
                record(equal(!self.own_kernel && seen == truth.release), "own kernel", &truth.release)
            }
            ("P02", _) => {
                let host = truth.hypervisor.as_deref().unwrap_or_default();
                let monitors = self.own_kernel && seen == MONITOR;
                record(equal(!monitors && seen == host), "monitor", host)
            }
            ("P17", "own mounts" | "mounts of process 1") => {
                let common = seen.split(' ').any(|source| truth.sources.iter().any(|host| host == source));
                let host = truth.sources.join(" ");
                let outcome =
                    if host.is_empty() { Outcome::NotApplicable } else { equal(common && !self.own_kernel) };
                record(outcome, "namespace", &host)
            }
            ("P17", name) => {
                let host = if name == "disk ids" { &truth.disk_ids } else { &truth.blocks };
                record(equal(!host.is_empty() && seen == *host), "own kernel", host)
            }
            ("P20", name) => {
                let host = truth.namespaces.get(name).map(String::as_str).unwrap_or_default();
                let layer = if self.own_kernel { "own kernel" } else { "namespace" };
                record(equal(!self.own_kernel && seen == host), layer, host)
            }
            ("P27", _) => {
                let outcome = match (seen.is_empty(), truth.interfaces.is_empty()) {
                    (false, _) => Outcome::Reached,
                    (true, true) => Outcome::NotApplicable,
                    (true, false) => Outcome::Blocked,
                };
                let layer = if self.own_kernel { "own kernel" } else { "namespace" };
                record(outcome, layer, &truth.interfaces)
            }
            // What it did; what that did to the host isolab saw.
            ("D05" | "D06" | "D07" | "D08", _) => {
                plain(&item.item, Outcome::NotApplicable, item.seen.clone(), None)
            }
            ("P31", name) => guest_device(&record, name, &seen),
            ("P38", "merging") => self.merging(&record, &seen),
            ("P38", _) => self.image_pages(item, &seen),
            ("P39", "stolen time") => plain(&item.item, Outcome::NotApplicable, item.seen.clone(), None),
            ("P39", _) => self.load(item, &seen),
            _ => self.compared(item, &seen, &record),
        }
    }

    /// Whether own pages can be merged with others' now.
    fn merging(&self, record: &dyn Fn(Outcome, &str, &str) -> ItemRecord, seen: &str) -> ItemRecord {
        let switch = format!("the host's switch: {}", self.host.merging);
        match seen {
            "all" => record(Outcome::Reached, "", &switch),
            "asked" if self.own_kernel => record(Outcome::Blocked, "own kernel", &switch),
            "asked" if self.host.merging == "1" => record(Outcome::Reached, "", &switch),
            "asked" => record(Outcome::Blocked, "kernel", &switch),
            "none" => record(Outcome::NotApplicable, "", &switch),
            _ => record(Outcome::Unknown, "", &switch),
        }
    }

    /// Whether the image's file system, and so its pages in memory, is that of another instance: isolab's own, at the same time.
    fn image_pages(&self, item: &Item, seen: &str) -> ItemRecord {
        let Some(image) = &self.host.image else {
            let why = format!("{seen}; without root isolab has no other mount of it to compare");
            return plain(&item.item, Outcome::NotApplicable, Some(why), None);
        };
        let host = Some(format!("{} of isolab's own mount", image.device));
        if self.own_kernel || seen != image.device {
            let layer = if self.own_kernel { "own kernel" } else { "mount" };
            let mut record = plain(&item.item, Outcome::Blocked, Some(seen.to_owned()), host);
            record.reason = Some(reason(layer, None, None));
            return record;
        }
        let name = if image.is_disk { "pages of the image's disk" } else { item.item.as_str() };
        plain(name, Outcome::Reached, Some(seen.to_owned()), host)
    }

    /// Whether a series follows the load that was made.
    fn load(&self, item: &Item, seen: &str) -> ItemRecord {
        let host = Some(load::made(self.host.load.step_ms));
        let Some(follows) = load::follows(seen, self.host.load.step_ms) else {
            return plain(&item.item, Outcome::Unknown, Some("too few samples".to_owned()), host);
        };
        let said = Some(follows.to_string());
        if follows.is_visible() {
            return plain(&item.item, Outcome::Reached, said, host);
        }
        let layer = if self.own_kernel { "own kernel" } else { "namespace" };
        let mut record = plain(&item.item, Outcome::Blocked, said, host);
        record.reason = Some(reason(layer, None, None));
        record
    }

    fn compared(
        &self,
        item: &Item,
        seen: &str,
        record: &dyn Fn(Outcome, &str, &str) -> ItemRecord,
    ) -> ItemRecord {
        let key = (item.probe.clone(), item.item.clone());
        let wanted = self.files.iter().find(|w| w.file.probe == item.probe && w.file.item == item.item);
        let (Some(wanted), Some(before), Some(after)) = (wanted, self.before.get(&key), self.after.get(&key))
        else {
            // The host's own file has no such line.
            let outcome =
                if self.own_kernel && !seen.is_empty() { Outcome::Reached } else { Outcome::NotApplicable };
            let outcome = if item.probe == "P14" { Outcome::NotApplicable } else { outcome };
            return record(outcome, "", "");
        };
        if seen.is_empty() {
            return record(Outcome::Blocked, "masked", before);
        }
        if self.own_kernel && wanted.compare == Compare::OfKernel {
            return record(Outcome::Blocked, "own kernel", before);
        }
        if self.own_kernel && wanted.compare == Compare::Setting {
            return record(Outcome::Reached, "", before);
        }
        let layer = if self.own_kernel { "own kernel" } else { "namespace" };
        match is_hosts(wanted, seen, before, after) {
            Some(true) => record(Outcome::Reached, "", before),
            Some(false) => record(Outcome::Blocked, layer, before),
            None => record(Outcome::Unknown, "", before),
        }
    }
}

fn guest_device(record: &dyn Fn(Outcome, &str, &str) -> ItemRecord, name: &str, seen: &str) -> ItemRecord {
    let known = match name {
        "virtio devices" => seen == GUEST_DEVICES,
        // Loop and memory disks are the guest kernel's own.
        "block devices" => seen
            .split(' ')
            .all(|disk| disk == "vda" || ["loop", "ram", "zram"].iter().any(|kind| disk.starts_with(kind))),
        _ => seen.is_empty(),
    };
    let published = match name {
        "virtio devices" => GUEST_DEVICES,
        "block devices" => "vda",
        _ => "none",
    };
    record(if known { Outcome::Blocked } else { Outcome::Reached }, "device list", published)
}

/// What refused without an error: something is hidden, limited or was never there.
fn layer_without_error(item: &Item, own_kernel: bool) -> &'static str {
    match item.probe.as_str() {
        _ if own_kernel
            && !matches!(
                item.probe.as_str(),
                "P09" | "P19" | "P24" | "P34" | "D01" | "D02" | "D03" | "D04"
            ) =>
        {
            "own kernel"
        }
        "P04" => "masked",
        "P08" => "capability",
        "P19" => "not inherited",
        "P29" if item.item == "own environment" => "not inherited",
        "P09" => "mount",
        "P24" | "D01" | "D02" | "D03" | "D04" => "limit",
        "P34" => "device",
        "P13" | "P26" | "P28" | "P35" => "not there",
        _ => "namespace",
    }
}

/// A reason with the error's name.
pub(super) fn reason(layer: &str, errno: Option<i32>, signal: Option<i32>) -> Reason {
    Reason { layer: layer.to_owned(), errno, error: errno.and_then(errors::name).map(str::to_owned), signal }
}

/// An item without a reason.
pub(super) fn plain(
    item: &str,
    outcome: Outcome,
    seen: Option<String>,
    host_truth: Option<String>,
) -> ItemRecord {
    ItemRecord { item: item.to_owned(), outcome, reason: None, seen, host_truth }
}

/// What a call that got through answered.
fn answered(item: &Item) -> Option<String> {
    match (item.call, item.errno, item.found) {
        (Some(_), None, Found::Reached) => Some("it succeeded".into()),
        (Some(_), Some(errno), Found::Reached) => {
            let name = errors::name(errno).map_or_else(|| format!("error {errno}"), str::to_owned);
            Some(format!("past the checks, then {name}"))
        }
        _ => None,
    }
}

/// The outcomes of the level without isolation.
pub(super) fn outcomes<'a>(cells: impl Iterator<Item = (&'a str, &'a [ItemRecord])>) -> Outcomes {
    cells
        .flat_map(|(probe, items)| {
            items.iter().map(move |item| ((probe.to_owned(), item.item.clone()), item.outcome))
        })
        .collect()
}

/// Whether the context is of the level without isolation.
pub(super) fn is_baseline(level: &str) -> bool {
    level == BASELINE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context<'a>(level: &'a str, own_kernel: bool, parts: &'a (Lines, HostTruth, Outcomes)) -> Context<'a> {
        Context {
            level,
            own_kernel,
            files: &[],
            before: &parts.0,
            after: &parts.0,
            host: &parts.1,
            baseline: Some(&parts.2),
            baseline_calls: None,
        }
    }

    fn item(
        probe: &str,
        name: &str,
        found: Found,
        errno: Option<i32>,
        call: Option<(u32, [u32; 3])>,
    ) -> Item {
        Item { probe: probe.into(), item: name.into(), found, errno, signal: None, call, seen: None }
    }

    fn judged(level: &str, item: &Item) -> (Outcome, Option<String>) {
        let mut parts = (Lines::new(), HostTruth::default(), Outcomes::new());
        parts.2.insert(("P12".into(), "there".into()), Outcome::Reached);
        let context = context(level, false, &parts);
        let record = context.item(item).remove(0);
        (record.outcome, record.reason.map(|reason| reason.layer))
    }

    #[test]
    fn a_refusal_that_is_in_the_filters_table_is_the_filters() {
        let bpf = item("P12", "bpf", Found::Blocked, Some(EPERM), Some((321, [0, 0, 0])));
        assert_eq!(judged("container", &bpf), (Outcome::Blocked, Some("seccomp".into())));
        assert_eq!(judged("process", &bpf), (Outcome::Blocked, Some("capability".into())));
        // The filter lets mknod through: what refuses it is a missing capability.
        let mknod = item("P13", "mknod null", Found::Blocked, Some(EPERM), Some((133, [0, 0, 0])));
        assert_eq!(judged("container", &mknod), (Outcome::Blocked, Some("capability".into())));
    }

    #[test]
    fn what_is_absent_is_blocked_only_where_it_is_there_without_isolation() {
        let absent = |name| item("P12", name, Found::Absent, Some(ENOENT), None);
        assert_eq!(judged("container", &absent("there")), (Outcome::Blocked, Some("not there".into())));
        assert_eq!(judged("container", &absent("nowhere")), (Outcome::NotApplicable, None));
    }

    #[test]
    fn an_error_of_the_probe_is_never_a_refusal() {
        let failed = item("P12", "there", Found::Unknown, Some(5), None);
        assert_eq!(judged("container", &failed).0, Outcome::Unknown);
        let parts = (Lines::new(), HostTruth::default(), Outcomes::new());
        let nothing = context("vm", true, &parts).items("P12", &Said::default());
        assert_eq!(nothing[0].outcome, Outcome::Unknown);
    }
}
