//! Whether two records may be set against each other, and what else differs between them.

use std::collections::BTreeSet;

use crate::comparability::Verdict;
use crate::record::{Arm, Record};

/// Why two records can't be set against each other; empty: they can.
pub type Reasons = Vec<String>;

/// Looks for what makes the numbers those of another experiment.
#[must_use]
pub fn reasons(a: &Record, b: &Record) -> Reasons {
    let mut found = Vec::new();
    for (name, record) in [("A", a), ("B", b)] {
        if record.comparability.verdict == Verdict::Refused {
            found.push(format!("record {name} is refused by its own checks"));
        }
    }
    let class = |r: &Record| serde_json::to_value(r.host.class).map(|v| v.to_string()).unwrap_or_default();
    let clock = |r: &Record| serde_json::to_value(r.host.clock).map(|v| v.to_string()).unwrap_or_default();
    unequal(&mut found, "host class", &class(a), &class(b));
    unequal(&mut found, "clock", &clock(a), &clock(b));
    unequal(&mut found, "architecture", &a.host.arch, &b.host.arch);
    unequal(&mut found, "CPU", &a.host.cpu_model, &b.host.cpu_model);
    unequal(&mut found, "command", &a.workload.args, &b.workload.args);
    unequal(&mut found, "program of the workload", &a.workload.binary_digest, &b.workload.binary_digest);
    let cache = |r: &Record| r.run.plan.cache.map(|state| state.word().to_owned());
    unequal(&mut found, "page cache before each run", &cache(a), &cache(b));
    unequal(&mut found, "arms", &a.run.plan.arms, &b.run.plan.arms);
    unequal(&mut found, "counter of memory", &sources(a), &sources(b));
    for name in a.run.plan.arms.iter().filter(|arm| b.run.plan.arms.contains(arm)) {
        if let (Some(one), Some(other)) = (a.arms.get(name), b.arms.get(name)) {
            arms(&mut found, name, one, other);
        }
    }
    found
}

/// What makes an arm another one.
fn arms(found: &mut Reasons, name: &str, a: &Arm, b: &Arm) {
    let mut unequal = |what: &str, a: &dyn Text, b: &dyn Text| {
        let (a, b) = (a.text(), b.text());
        if a != b {
            found.push(format!("{what} of {name} differs: A {a}, B {b}"));
        }
    };
    unequal("level", &a.level, &b.level);
    unequal("image", &a.rootfs.digest, &b.rootfs.digest);
    unequal("medium of the image", &a.rootfs.via, &b.rootfs.via);
    unequal("memory limit", &a.mem_limit_bytes, &b.mem_limit_bytes);
    unequal("CPUs", &a.cpus, &b.cpus);
}

/// What differs and may be the very cause that is looked for.
pub(super) fn differences(a: &Record, b: &Record) -> Vec<String> {
    let mut found = Vec::new();
    unequal(&mut found, "isolab", &a.run.tool.version, &b.run.tool.version);
    unequal(&mut found, "revision of isolab", &a.run.tool.git, &b.run.tool.git);
    unequal(&mut found, "build profile", &a.run.tool.profile, &b.run.tool.profile);
    // Older records have none.
    if let (Some(a), Some(b)) = (&a.run.tool.digest, &b.run.tool.digest) {
        unequal(&mut found, "program of isolab", a, b);
    }
    unequal(&mut found, "kernel", &a.host.kernel, &b.host.kernel);
    unequal(&mut found, "CPUs online", &a.host.cpus_online, &b.host.cpus_online);
    unequal(&mut found, "memory", &a.host.mem_total_bytes, &b.host.mem_total_bytes);
    unequal(&mut found, "frequency governor", &a.host.governor, &b.host.governor);
    unequal(&mut found, "huge pages", &a.host.thp, &b.host.thp);
    for (name, one) in &a.arms {
        let Some(other) = b.arms.get(name) else { continue };
        unequal(&mut found, &format!("kernel of {name}"), &one.kernel, &other.kernel);
        unequal(&mut found, &format!("system call filter of {name}"), &one.seccomp, &other.seccomp);
        unequal(&mut found, &format!("network of {name}"), &one.net, &other.net);
        unequal(&mut found, &format!("console of {name}"), &one.console, &other.console);
        let reporting = |arm: &Arm| if arm.free_page_reporting { "on" } else { "off" }.to_owned();
        let what = format!("free page reporting of {name}");
        unequal(&mut found, &what, &reporting(one), &reporting(other));
    }
    found
}

fn sources(record: &Record) -> Option<String> {
    let seen: BTreeSet<&str> =
        record.samples.iter().filter_map(|s| Some(s.mem_bytes.as_ref()?.source.as_str())).collect();
    let seen: Vec<&str> = seen.into_iter().collect();
    (!seen.is_empty()).then(|| seen.join(" and "))
}

fn unequal(found: &mut Vec<String>, what: &str, a: &dyn Text, b: &dyn Text) {
    let (a, b) = (a.text(), b.text());
    if a != b {
        found.push(format!("{what} differs: A {a}, B {b}"));
    }
}

/// A field of a record in words.
trait Text {
    fn text(&self) -> String;
}

impl Text for String {
    fn text(&self) -> String {
        self.clone()
    }
}

impl Text for u32 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Text for u64 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Text for Vec<String> {
    fn text(&self) -> String {
        self.join(" ")
    }
}

impl<T: Text> Text for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map_or_else(|| "not known".to_owned(), Text::text)
    }
}
