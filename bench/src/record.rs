//! The record `isolab.result/1`: one file per run, from which every report is made.
//!
//! Rules: units in the key, integers only in raw samples, raw samples always kept, unknown is `null`, an absent
//! metric is an absent key. Within version 1 things are only added, so a reader ignores what it does not know.
//! The schema is `bench/schema/result.schema.json`; tests judge every record that they write against it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::comparability::{Comparability, Evidence, judge};
pub use crate::crosscheck::Crosscheck;
use crate::crosscheck::crosschecks;
use crate::environment::{Host, HostClass};
use crate::plan::Plan;
use crate::report::quotable;
use crate::run_report::{Detail, SNAPSHOT};
use crate::sample::Sample;
use crate::stop::Ended;
use crate::subphase::{SubphaseOf, legend};
use crate::summary::{Headline, Summary, summarise};
use crate::timeline::{PhaseKind, phases_of};
use crate::vary::Variation;

/// Name and version of the format.
pub const SCHEMA: &str = "isolab.result/1";

/// Everything about one comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// Which run.
    pub run: Run,
    /// The machine.
    pub host: Host,
    /// The arms by name; their order is that of the plan.
    pub arms: BTreeMap<String, Arm>,
    /// What was run in each.
    pub workload: Workload,
    /// Whether they may be compared.
    pub comparability: Comparability,
    /// Every run, also warm-up and failed ones.
    pub samples: Vec<Sample>,
    /// The numbers, computed from the samples.
    pub summary: Vec<Summary>,
    /// Which of them the reports lead with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headline: Option<Headline>,
    /// The instrument's checks of itself.
    pub crosschecks: Vec<Crosscheck>,
    /// Arms that differ from the first in one knob, and what it costs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vary: Vec<Variation>,
    /// Levels that were asked for and can't run here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// A level that can't run here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which.
    pub level: String,
    /// What is missing.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// Which run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// ULID: sorts by time.
    pub id: String,
    /// Wall clock at the start.
    pub started_unix_ns: u64,
    /// The program that measured.
    pub tool: Tool,
    /// Its command line.
    pub argv: Vec<String>,
    /// Written before the first sample.
    pub plan: Plan,
    /// Number of the signal that ended the measuring before its plan was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<u8>,
    /// What ended the measuring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// The program that measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Revision of its source, where known.
    pub git: Option<String>,
    /// Whether the source differed from that revision.
    pub dirty: Option<bool>,
    /// Build profile.
    pub profile: String,
    /// Digest of its file, `sha256:` and 64 hex digits; records of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// One arm: a level under one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// The level.
    pub level: String,
    /// `process`, `namespace`, `kvm` or the level's name.
    pub kind: String,
    /// Release of the kernel that the workload saw.
    pub kernel: Option<String>,
    /// CPUs it may use; null: all.
    pub cpus: Option<u32>,
    /// Its memory limit; null: none.
    pub mem_limit_bytes: Option<u64>,
    /// Default limits that the host did not let this user enforce, by controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits_not_enforced: Vec<String>,
    /// Its root.
    pub rootfs: Rootfs,
    /// Process 1: `isolab-init` or `none`.
    pub init: String,
    /// Console in the timed part.
    pub console: String,
    /// Network.
    pub net: String,
    /// System call filter of the workload.
    pub seccomp: String,
    /// Clock source of the kernel it ran on.
    pub clocksource: Option<String>,
    /// What the kernel it ran on does about weaknesses of the CPU, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mitigations: Option<String>,
    /// How its memory is shared with other instances, where it is: `ksm`, `dax`, `snapshot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<String>,
    /// `cold`, or `snapshot` for an instance that continues from a stored state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Memory that it frees while it runs returns to the host; of guests, whose kernel has to tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free_page_reporting: bool,
    /// What stands between it and the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The machine's own facts (kind `kvm`), on the same level as the others.
    #[serde(flatten)]
    pub machine: Option<Machine>,
    /// The phases of its timeline, in order, with their meaning.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// What its phases consist of, in order, with their meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subphases: Vec<SubphaseOf>,
}

/// What stands between a workload and the host, besides its system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// It runs on a kernel of its own.
    pub own_kernel: bool,
    /// Its root is nobody on the host.
    pub user_namespace: bool,
    /// Devices of the host, or of the machine made for it, that it can reach.
    pub devices: String,
}

impl Isolation {
    /// What stands between a workload of this level and the host; nothing for a level that is not known.
    #[must_use]
    pub fn of(level: &str) -> Option<Self> {
        let (own_kernel, user_namespace, devices) = match level {
            "process" => (false, false, "all of the host"),
            "container" => (false, true, "null, zero, full, random, urandom, tty"),
            "vm" => (true, false, "virtio block, console and rng"),
            _ => return None,
        };
        Some(Self { own_kernel, user_namespace, devices: devices.to_owned() })
    }

    /// In one line.
    #[must_use]
    pub fn words(&self, seccomp: &str) -> String {
        let kernel = if self.own_kernel { "own kernel" } else { "host kernel" };
        let users = if self.user_namespace { ", user namespace" } else { "" };
        format!("{kernel}, filter {seccomp}{users}, devices: {}", self.devices)
    }
}

/// Facts of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What is behind `/dev/kvm`.
    pub kvm: Kvm,
    /// Kernel command line.
    pub cmdline: Option<String>,
    /// What guest RAM is made of.
    pub mem_backing: Option<String>,
    /// `vmlinux` or `bzImage`.
    pub kernel_format: Option<String>,
}

/// A phase of an arm's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Key in `phase_ns`.
    pub name: String,
    /// For a reader.
    pub meaning: String,
}

impl Phase {
    fn of(kind: &PhaseKind) -> Self {
        Self { name: kind.name.to_owned(), meaning: kind.meaning.to_owned() }
    }
}

/// The root of an arm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Type of the lower file system.
    pub fs: Option<String>,
    /// How it got there.
    pub via: Option<String>,
    /// Digest of the image.
    pub digest: Option<String>,
}

/// What is behind `/dev/kvm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kvm {
    /// Class of the machine.
    pub class: HostClass,
    /// Its kernel module.
    pub module: Option<String>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Image name and command, for a reader.
    pub name: String,
    /// Version of the workload: that of isolab for its own, else of nothing.
    pub version: String,
    /// Digest of its program, where known.
    pub binary_digest: Option<String>,
    /// The image as the user named it.
    pub image: String,
    /// Command and arguments.
    pub args: Vec<String>,
    /// Work with files is what is timed; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_files: Option<bool>,
}

/// A record that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or not of this form.
    #[error("read the result record")]
    Read(#[source] serde_json::Error),
    /// Another format or version.
    #[error("read the result record: its schema is {0:?}, this isolab reads {SCHEMA:?}")]
    Schema(String),
    /// The serializer's own.
    #[error("write the result record")]
    Write(#[source] serde_json::Error),
    /// No random numbers.
    #[error("draw a random run id")]
    Random(#[source] std::io::Error),
}

impl Run {
    /// A run that starts now.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn starting_now(tool: Tool, argv: Vec<String>, plan: Plan) -> Result<Self, RecordError> {
        let (id, started_unix_ns) = identity()?;
        Ok(Self { id, started_unix_ns, tool, argv, plan, interrupted: None, ended: None })
    }

    /// Gives it a new identity and the wall clock of now, which is where the record is kept: a lab's own clock tells neither.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn stamp(&mut self) -> Result<(), RecordError> {
        (self.id, self.started_unix_ns) = identity()?;
        Ok(())
    }
}

/// A new ULID and the wall clock in nanoseconds since 1970.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn identity() -> Result<(String, u64), RecordError> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| RecordError::Random(errno.into()))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let id = Ulid::from_parts(millis, u128::from_le_bytes(random)).to_string();
    let started_unix_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    Ok((id, started_unix_ns))
}

impl Arm {
    /// An arm of this level with nothing known but what the level implies.
    #[must_use]
    pub fn new(level: &str) -> Self {
        let kind = match level {
            "container" => "namespace",
            "vm" => "kvm",
            other => other,
        };
        Self {
            level: level.to_owned(),
            kind: kind.to_owned(),
            kernel: None,
            cpus: None,
            mem_limit_bytes: None,
            limits_not_enforced: vec![],
            rootfs: Rootfs::default(),
            init: if level == "process" { "none" } else { "isolab-init" }.to_owned(),
            console: "none".to_owned(),
            net: if level == "process" { "host" } else { "none" }.to_owned(),
            seccomp: if level == "container" { "default" } else { "none" }.to_owned(),
            clocksource: None,
            mitigations: None,
            sharing: None,
            start: Some("cold".to_owned()),
            free_page_reporting: false,
            isolation: Isolation::of(level),
            machine: None,
            phases: phases_of(level, false).iter().map(Phase::of).collect(),
            subphases: vec![],
        }
    }

    /// The same level, where each instance continues from a snapshot.
    #[must_use]
    pub fn restored(self) -> Self {
        Self {
            start: Some(SNAPSHOT.to_owned()),
            sharing: Some(SNAPSHOT.to_owned()),
            phases: phases_of(&self.level, true).iter().map(Phase::of).collect(),
            ..self
        }
    }

    /// The same, with a device more by which memory that it frees returns to the host.
    #[must_use]
    pub fn reporting(self) -> Self {
        let devices = "virtio block, console, rng and balloon".to_owned();
        let isolation = self.isolation.map(|isolation| Isolation { devices, ..isolation });
        Self { free_page_reporting: true, isolation, ..self }
    }

    /// Fills kernel and root from what the samples of `name` reported, and takes back limits that were not enforced.
    pub fn learn(&mut self, name: &str, samples: &[Sample]) {
        self.subphases = legend(samples.iter().filter(|s| s.arm == name).map(|s| &s.subphase_ns));
        samples.iter().filter(|s| s.arm == name).for_each(|s| self.learn_from(&s.detail));
    }

    /// The same from what one instance reported.
    pub fn learn_from(&mut self, detail: &Detail) {
        let keep = |known: &mut Option<String>, seen: &Option<String>| {
            if known.is_none() {
                known.clone_from(seen);
            }
        };
        keep(&mut self.kernel, &detail.kernel);
        keep(&mut self.rootfs.fs, &detail.lower_fs);
        keep(&mut self.rootfs.via, &detail.lower_via);
        keep(&mut self.rootfs.digest, &detail.image_digest);
        for limit in &detail.limits_not_enforced {
            match limit.as_str() {
                "memory" => self.mem_limit_bytes = None,
                "cpu" => self.cpus = None,
                _ => {}
            }
            if !self.limits_not_enforced.contains(limit) {
                self.limits_not_enforced.push(limit.clone());
            }
        }
    }
}

impl Record {
    /// Judges and summarises: everything but the arguments is computed here; [`Record::skipped`] is the caller's.
    #[must_use]
    pub fn new(
        run: Run,
        host: Host,
        mut arms: BTreeMap<String, Arm>,
        workload: Workload,
        samples: Vec<Sample>,
    ) -> Self {
        for (name, arm) in &mut arms {
            arm.learn(name, &samples);
            if arm.kind == "kvm" && arm.machine.is_none() {
                let kvm = Kvm { class: host.class, module: None };
                arm.machine = Some(Machine { kvm, cmdline: None, mem_backing: None, kernel_format: None });
            }
        }
        let evidence =
            Evidence { plan: &run.plan, host: &host, arms: &arms, workload: &workload, samples: &samples };
        let comparability = judge(evidence);
        let summary = summarise(&run.plan, &samples);
        let headline = Some(Headline::of(&summary));
        let crosschecks = crosschecks(&samples, host.cpus_online);
        let mut record = Self {
            schema: SCHEMA.to_owned(),
            run,
            host,
            arms,
            workload,
            comparability,
            samples,
            summary,
            headline,
            crosschecks,
            vary: vec![],
            skipped: vec![],
        };
        record.quote();
        record
    }

    /// Puts the sentences beside their comparisons, as far as the verdict allows any; anew after a change of what they name.
    pub fn quote(&mut self) {
        for (metric, comparison, sentence) in quotable(self) {
            self.summary[metric].comparisons[comparison].sentence = Some(sentence);
        }
    }

    /// The file's content.
    ///
    /// # Errors
    /// [`RecordError::Write`].
    pub fn to_json(&self) -> Result<String, RecordError> {
        let mut json = isolab_images::escape::json(self).map_err(RecordError::Write)?;
        json.push('\n');
        Ok(json)
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// [`RecordError::Read`], [`RecordError::Schema`].
    pub fn from_json(json: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let Head { schema } = serde_json::from_slice(json).map_err(RecordError::Read)?;
        if schema != SCHEMA {
            return Err(RecordError::Schema(schema));
        }
        serde_json::from_slice(json).map_err(RecordError::Read)
    }

    /// What reports lead with; a record of an older isolab does not say it.
    #[must_use]
    pub fn headline(&self) -> Headline {
        self.headline.clone().unwrap_or_else(|| Headline::of(&self.summary))
    }

    /// The summary of a metric.
    #[must_use]
    pub fn summary_of(&self, metric: &str) -> Option<&Summary> {
        self.summary.iter().find(|s| s.metric == metric)
    }
}
