//! `--test-fault`: makes stages of a start longer, fail, panic or die, to see what follows from it.

use std::str::FromStr;

use anyhow::bail;
use isolab_wire::DELAY_ENV;
use isolab_wire::fault::{Fault, MAX_DELAY_MS};
use isolab_wire::trace::Subphase;

use Subphase as S;

/// Which stage, and what happens where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StageFault {
    pub(crate) stage: Subphase,
    pub(crate) fault: Fault,
}

/// Stages that isolab only waits for: another program makes them, which can be delayed.
const OF_OTHERS: [Subphase; 3] = [S::ExecSelf, S::WorkloadReady, S::WorkloadRun];

/// Stages of the launcher and its child at every level.
const COMMON: [Subphase; 10] = [
    S::ImageOpen,
    S::Job,
    S::Cgroup,
    S::Channels,
    S::Clone,
    S::Namespaces,
    S::CgroupJoin,
    S::Reading,
    S::Teardown,
    S::Exec,
];

/// Those that a level has besides. In a container and a guest process 1 makes more ([`Subphase::OF_INIT`]).
const OF_LEVELS: [(&str, &[Subphase]); 3] = [
    ("process", &[S::ImageMount, S::IdMap, S::RootMounts, S::Workspace, S::Privileges]),
    ("container", &[S::IdMap, S::ImageMount, S::InitProgram, S::JobBlock, S::Identity, S::ExecInit]),
    (
        "vm",
        &[
            S::TemplateOpen,
            S::KernelFiles,
            S::JobBlock,
            S::Ram,
            S::CreateVm,
            S::RamRegister,
            S::Irqchip,
            S::KernelLoad,
            S::InitramfsLoad,
            S::BootParams,
            S::Devices,
            S::Vcpus,
            S::VcpuStart,
            S::TemplateRead,
            S::RestoreState,
            S::GuestKernel,
        ],
    ),
];

impl FromStr for StageFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, what) = text.split_once('=').ok_or("give STAGE=delay:MS, STAGE=error, =panic or =kill")?;
        let stage = Subphase::from_key(key).ok_or_else(|| format!("there is no stage {key:?}"))?;
        let fault = match what.split_once(':') {
            Some(("delay", ms)) => {
                let ms = ms.parse().ok().filter(|ms| (1..=MAX_DELAY_MS).contains(ms));
                Fault::Delay(ms.ok_or_else(|| format!("give 1 to {MAX_DELAY_MS} milliseconds"))?)
            }
            None if what == "error" => Fault::Error,
            None if what == "panic" => Fault::Panic,
            None if what == "kill" => Fault::Kill,
            _ => return Err("give delay:MS, error, panic or kill".to_owned()),
        };
        let fault = Self { stage, fault };
        if OF_OTHERS.contains(&stage) && !matches!(fault.fault, Fault::Delay(_)) {
            return Err(format!("no code of isolab's runs in {key}; it can only be delayed"));
        }
        if !OF_LEVELS.iter().any(|(level, _)| fault.is_of(level)) {
            return Err(format!("no code of isolab's runs in {key}; no fault can be made there"));
        }
        Ok(fault)
    }
}

impl StageFault {
    /// As the option's value.
    pub(crate) fn text(self) -> String {
        let key = self.stage.key();
        match self.fault {
            Fault::Delay(ms) => format!("{key}=delay:{ms}"),
            Fault::Error => format!("{key}=error"),
            Fault::Panic => format!("{key}=panic"),
            Fault::Kill => format!("{key}=kill"),
        }
    }

    fn is_of(self, level: &str) -> bool {
        let stage = &self.stage;
        let has_init = level == "vm" || level == "container" && *stage != S::GuestInit;
        COMMON.contains(stage)
            || OF_OTHERS.contains(stage)
            || OF_LEVELS.iter().any(|(name, stages)| *name == level && stages.contains(stage))
            || has_init && S::OF_INIT.contains(stage)
    }

    /// Refuses a fault of a stage that the level does not have: it would never be made.
    ///
    /// # Errors
    /// With the stage.
    pub(crate) fn check(all: &[Self], level: &str) -> anyhow::Result<()> {
        if let Some(fault) = all.iter().find(|fault| !fault.is_of(level)) {
            bail!("--test-fault: level {level} has no stage {}", fault.stage.key());
        }
        Ok(())
    }

    /// The milliseconds of a delay.
    pub(crate) const fn delay_ms(self) -> Option<u16> {
        match self.fault {
            Fault::Delay(ms) => Some(ms),
            _ => None,
        }
    }

    /// What tells `isolab-work` of the delay that it has to make itself, one at most.
    pub(crate) fn for_workload(all: &[Self]) -> Option<String> {
        let own = |fault: &&Self| matches!(fault.stage, S::WorkloadReady | S::WorkloadRun);
        let fault = all.iter().find(own)?;
        Some(format!("{DELAY_ENV}={}={}", fault.stage.key(), fault.delay_ms()?))
    }

    /// The options that say the same.
    pub(crate) fn options(all: &[Self]) -> impl Iterator<Item = String> + '_ {
        all.iter().map(|fault| format!("--test-fault={}", fault.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for stage in Subphase::ALL.iter().copied().filter(|stage| *stage != S::Resume) {
            for fault in [Fault::Delay(50), Fault::Error, Fault::Panic, Fault::Kill] {
                let fault = StageFault { stage, fault };
                if !OF_OTHERS.contains(&stage) || fault.delay_ms().is_some() {
                    assert_eq!(fault.text().parse(), Ok(fault));
                }
                assert_eq!(Fault::decode(fault.fault.encode()), Some(fault.fault));
            }
        }
    }

    #[test]
    fn refuses_what_no_code_of_ours_could_make() {
        let wrong = [
            "",
            "exec",
            "exec=",
            "exec=50",
            "exec=delay:0",
            "exec=delay:10001",
            "nosuch=kill",
            "exec=kill:1",
        ];
        let of_others = ["workload_run=kill", "exec_self=panic", "workload_ready=error", "resume=delay:5"];
        for wrong in wrong.iter().chain(&of_others) {
            assert!(wrong.parse::<StageFault>().is_err(), "{wrong}");
        }
        let pivot: StageFault = "pivot=kill".parse().expect("a fault");
        StageFault::check(&[pivot], "process").expect_err("a process has not");
        StageFault::check(&[pivot], "container").expect("a container has it");
    }
}
