//! The arms of a comparison: the levels as they are, or one level with one knob changed at a time.

use anyhow::bail;
use isolab_bench::record::Arm;
use isolab_bench::vary::Change;

use crate::arguments;
use crate::cli::{CompareArgs, JobArgs};
use crate::config::JobConfig;
use crate::knobs::Setting;

/// The level whose knobs are varied when the user names none.
const VARIED: &str = "container";

/// One arm.
pub(super) struct ArmPlan {
    /// Its name in plan, samples and tables.
    pub(super) name: String,
    /// The level.
    pub(super) level: String,
    /// How it differs from the first arm.
    pub(super) change: Option<Change>,
    /// What was set.
    settings: Vec<Setting>,
    /// The job's options with it, checked.
    config: JobConfig,
    options: JobArgs,
    /// Further arguments of `isolab run`.
    further: Vec<String>,
}

/// The one level whose knobs are varied.
///
/// # Errors
/// There are several.
pub(super) fn varied_level(args: &CompareArgs) -> anyhow::Result<String> {
    match args.levels.as_deref() {
        None => Ok(VARIED.to_owned()),
        Some([level]) => Ok(level.clone()),
        Some(_) => bail!("--vary changes one level; name one with --levels"),
    }
}

impl ArmPlan {
    /// This level with these settings.
    fn new(
        level: &str,
        name: String,
        job: &JobArgs,
        settings: Vec<Setting>,
        change: Option<Change>,
    ) -> anyhow::Result<Self> {
        let mut options =
            JobArgs { options: job.options.clone(), image: job.image.clone(), command: job.command.clone() };
        let mut further = Vec::new();
        settings.iter().try_for_each(|s| s.apply(&mut options.options, &mut further))?;
        let config = JobConfig::new(&options, None)?;
        Ok(Self { name, level: level.to_owned(), change, settings, config, options, further })
    }

    /// Each level as the options have it.
    ///
    /// # Errors
    /// An option that is refused.
    pub(super) fn of_levels(levels: &[String], job: &JobArgs) -> anyhow::Result<Vec<Self>> {
        levels.iter().map(|level| Self::new(level, level.clone(), job, vec![], None)).collect()
    }

    /// The level with the first value of each `KNOB=VALUE,VALUE...`, and for each further value an arm that differs in that alone.
    ///
    /// # Errors
    /// A knob or value that there is not, or that the level does not have.
    pub(super) fn of_knobs(level: &str, vary: &[String], job: &JobArgs) -> anyhow::Result<Vec<Self>> {
        let mut knobs: Vec<Vec<Setting>> = Vec::new();
        for word in vary {
            let Some((name, values)) = word.split_once('=') else {
                bail!("--vary {word:?} is not KNOB=VALUE,VALUE...");
            };
            let settings: Vec<Setting> =
                values.split(',').map(|value| Setting::new(name, value, level)).collect::<Result<_, _>>()?;
            let twice = (1..settings.len()).any(|i| settings[..i].contains(&settings[i]));
            if settings.len() < 2 || twice {
                bail!("--vary {word:?} needs two or more different values");
            }
            if knobs.iter().any(|known| known.first().map(|s| s.knob) == Some(settings[0].knob)) {
                bail!("--vary names {name} twice; name each knob once, with all its values");
            }
            knobs.push(settings);
        }
        let first: Vec<Setting> = knobs.iter().filter_map(|settings| settings.first().cloned()).collect();
        let weak = first.iter().filter(|s| s.weaker).map(|s| format!(" {}={}", s.knob, s.value));
        let base = format!("{level}{}", weak.collect::<String>());
        let mut arms = vec![Self::new(level, base.clone(), job, first.clone(), None)?];
        for (i, settings) in knobs.iter().enumerate() {
            for setting in &settings[1..] {
                let mut own = first.clone();
                own[i] = setting.clone();
                let name = format!("{base} {}={}", setting.knob, setting.value);
                let change = Change {
                    arm: name.clone(),
                    knob: setting.knob.to_owned(),
                    from: first[i].value.clone(),
                    to: setting.value.clone(),
                    weaker: setting.weaker,
                };
                arms.push(Self::new(level, name, job, own, Some(change))?);
            }
        }
        Ok(arms)
    }

    /// Its job.
    pub(super) const fn config(&self) -> &JobConfig {
        &self.config
    }

    /// Level and further arguments of its `isolab run`.
    pub(super) fn run(&self, image: &str) -> (String, Vec<String>) {
        let arguments = self.further.iter().cloned().chain(arguments::of_job(&self.options, image));
        (self.level.clone(), arguments.collect())
    }

    /// What is known of it before it runs.
    pub(super) fn arm(&self, digest: &str) -> Arm {
        let mut arm = super::arm(&self.level, &self.config, digest);
        for setting in &self.settings {
            match (setting.knob, setting.value.as_str()) {
                ("seccomp", "off") => "none".clone_into(&mut arm.seccomp),
                ("net", "host") => "host".clone_into(&mut arm.net),
                ("limits", "off") => (arm.mem_limit_bytes, arm.cpus) = (None, None),
                ("console", "on") => "guest".clone_into(&mut arm.console),
                _ => {}
            }
        }
        arm
    }
}
