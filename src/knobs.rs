//! Mechanisms that can be set one at a time to see what each costs. Those that weaken isolation have no option of their own:
//! `compare --vary` reaches them through the hidden `run --knob`, and the record names them.

use anyhow::bail;
use isolab_container::child::namespace;
use isolab_container::knobs::Knobs as ContainerKnobs;

use crate::cli::JobOptions;

/// The setting of everything that `run --knob` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    /// Mechanisms of the container itself.
    pub(crate) container: ContainerKnobs,
    /// Limits of its cgroup. Without them there is still a cgroup, to read the charge.
    pub(crate) limits: bool,
    /// The monitor's own user, its empty root directory and its limits.
    pub(crate) jail: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { container: ContainerKnobs::default(), limits: true, jail: true }
    }
}

/// What can be varied.
struct Knob {
    name: &'static str,
    /// The values; empty: those of the option of the same name.
    values: &'static [&'static str],
    /// Levels that have it.
    levels: &'static [&'static str],
    /// The value that weakens isolation.
    weak: Option<&'static str>,
}

const KNOBS: [Knob; 14] = [
    Knob { name: "seccomp", values: &["on", "off"], levels: &["container"], weak: Some("off") },
    Knob { name: "net", values: &["private", "host"], levels: &["container"], weak: Some("host") },
    Knob { name: "uts", values: &["private", "host"], levels: &["container"], weak: Some("host") },
    Knob { name: "ipc", values: &["private", "host"], levels: &["container"], weak: Some("host") },
    Knob { name: "cgroupns", values: &["private", "host"], levels: &["container"], weak: Some("host") },
    Knob { name: "limits", values: &["on", "off"], levels: &["container"], weak: Some("off") },
    Knob { name: "jail", values: &["on", "off"], levels: &["vm"], weak: Some("off") },
    Knob { name: "overlay", values: &["on", "off"], levels: &["process", "container", "vm"], weak: None },
    Knob { name: "console", values: &["off", "on"], levels: &["vm"], weak: None },
    Knob { name: "free-page-reporting", values: &["off", "on"], levels: &["vm"], weak: None },
    Knob { name: "memory", values: &[], levels: &["container", "vm"], weak: None },
    Knob { name: "cpus", values: &[], levels: &["container", "vm"], weak: None },
    Knob { name: "pids", values: &[], levels: &["container"], weak: None },
    Knob { name: "kernel", values: &[], levels: &["vm"], weak: None },
];

/// The knobs that are namespaces.
const NAMESPACES: [(&str, u64); 4] = [
    ("net", namespace::NET),
    ("uts", namespace::UTS),
    ("ipc", namespace::IPC),
    ("cgroupns", namespace::CGROUP),
];

/// One knob and its value, both known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The knob.
    pub(crate) knob: &'static str,
    /// Its value.
    pub(crate) value: String,
    /// The value is a weaker isolation.
    pub(crate) weaker: bool,
}

impl Setting {
    /// This knob with this value at a level.
    ///
    /// # Errors
    /// There is no such knob or value, or the level does not have it.
    pub(crate) fn new(name: &str, value: &str, level: &str) -> anyhow::Result<Self> {
        let Some(knob) = KNOBS.iter().find(|knob| knob.name == name) else {
            let names: Vec<&str> = KNOBS.iter().map(|knob| knob.name).collect();
            bail!("there is no knob {name:?}; the knobs are {}", names.join(", "));
        };
        if !knob.values.is_empty() && !knob.values.contains(&value) {
            bail!("knob {name} has no value {value:?}; its values are {}", knob.values.join(" and "));
        }
        if !knob.levels.contains(&level) {
            bail!("knob {name} has no effect at level {level}; use level {}", knob.levels.join(" or "));
        }
        let weaker = knob.weak == Some(value);
        Ok(Self { knob: knob.name, value: value.to_owned(), weaker })
    }

    /// Sets it: in the options where it is one of them, else among the further arguments of `run`.
    pub(crate) fn apply(&self, options: &mut JobOptions, further: &mut Vec<String>) -> anyhow::Result<()> {
        let value = || Some(self.value.clone());
        match self.knob {
            "overlay" => options.read_only = self.value == "off",
            "free-page-reporting" => options.free_page_reporting = self.value == "on",
            "memory" => options.memory = value(),
            "cpus" => options.cpus = value(),
            "kernel" => options.kernel = value(),
            "pids" => match self.value.parse() {
                Ok(pids) => options.pids = Some(pids),
                Err(_) => bail!("knob pids has no value {:?}; give a whole number", self.value),
            },
            "console" => further.extend((self.value == "on").then(|| "--guest-console".to_owned())),
            name => further.extend(self.weaker.then(|| format!("--knob={name}={}", self.value))),
        }
        Ok(())
    }
}

impl Knobs {
    /// The settings of `run --knob NAME=VALUE` at a level.
    ///
    /// # Errors
    /// What can't be set so.
    pub(crate) fn new(words: &[String], level: &str) -> anyhow::Result<Self> {
        let mut knobs = Self::default();
        for word in words {
            let Some((name, value)) = word.split_once('=') else {
                bail!("--knob {word:?} is not NAME=VALUE")
            };
            let setting = Setting::new(name, value, level)?;
            match setting.knob {
                "seccomp" => knobs.container.seccomp = !setting.weaker,
                "limits" => knobs.limits = !setting.weaker,
                "jail" => knobs.jail = !setting.weaker,
                name => match NAMESPACES.iter().find(|(known, _)| *known == name) {
                    Some((_, bit)) if setting.weaker => knobs.container.shared |= bit,
                    Some(_) => {}
                    None => bail!("knob {name} is an option of its own; see `isolab run --help`"),
                },
            }
        }
        Ok(knobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn only_what_is_named_is_left_out() {
        let knobs = Knobs::new(&words(&["seccomp=off"]), "container").expect("a knob");
        assert!(!knobs.container.seccomp && knobs.container.shared == 0 && knobs.limits);
        assert_eq!(Knobs::new(&words(&["net=private"]), "container").expect("a knob"), Knobs::default());
    }

    #[test]
    fn what_means_nothing_is_refused_with_what_would() {
        let said = |word: &str, level: &str| {
            Knobs::new(&words(&[word]), level).expect_err("means nothing").to_string()
        };
        assert_eq!(
            said("seccomp=of", "container"),
            "knob seccomp has no value \"of\"; its values are on and off"
        );
        assert_eq!(said("net=host", "vm"), "knob net has no effect at level vm; use level container");
        assert!(
            said("colour=off", "container")
                .starts_with("there is no knob \"colour\"; the knobs are seccomp, ")
        );
        assert_eq!(said("seccomp", "container"), "--knob \"seccomp\" is not NAME=VALUE");
        assert!(said("memory=64M", "container").starts_with("knob memory is an option of its own"));
    }
}
