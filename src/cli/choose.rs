//! `isolab choose`.

use std::path::PathBuf;

use clap::Args;

/// `isolab choose`.
#[derive(Debug, Args)]
pub(crate) struct ChooseArgs {
    /// What the workload could do that is to be kept from it (repeatable): mistakes, curious-code, leaks, exhaustion,
    /// privileged-code, untrusted-code, side-channels
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) threat: Vec<String>,
    /// What the workload must be able to do (repeatable): kernel-modules, mounts, bpf, capabilities, namespaces,
    /// kernel-settings, kernel-log, own-kernel, host-network, host-processes, host-devices
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) need: Vec<String>,
    /// Most time from request to ready (50ms), or instructions of the lab (25Mi)
    #[arg(long, value_name = "TIME")]
    pub(crate) start_budget: Option<String>,
    /// Most memory charged when ready
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_budget: Option<String>,
    /// What was measured: the record of `isolab compare --json` (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// What was probed: the record of `isolab probe --json`, instead of the published table
    #[arg(long, value_name = "FILE")]
    pub(crate) probe: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use isolab_bench::choose::{NEEDS, THREATS};

    #[test]
    fn the_help_names_each_threat_and_need() {
        let mut cli = crate::cli::Cli::command();
        let help = cli.find_subcommand_mut("choose").expect("a command").render_long_help().to_string();
        let words: Vec<&str> = help.split([' ', ',', '\n']).collect();
        let names = THREATS.iter().map(|threat| threat.name).chain(NEEDS.iter().map(|need| need.name));
        for name in names {
            assert!(words.contains(&name), "{name}: {help}");
        }
    }
}
