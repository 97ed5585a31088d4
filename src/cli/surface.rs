//! `isolab surface`.

use std::path::PathBuf;

use clap::Args;

use super::JobArgs;

/// `isolab surface`.
#[derive(Debug, Args)]
pub(crate) struct SurfaceArgs {
    /// Levels, in this order of the table [default: process,container,vm]
    #[arg(long, visible_alias = "level", value_delimiter = ',', value_name = "LIST")]
    pub(crate) levels: Option<Vec<String>>,
    /// Runs of each level, of which the union is told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Instead of a command, try each system call in turn (probe P06)
    #[arg(long, conflicts_with = "command")]
    pub(crate) sweep: bool,
    /// One more run of each level, in which the kernel's tracepoints are counted
    #[arg(long)]
    pub(crate) depth: bool,
    /// Print the calls by name
    #[arg(long)]
    pub(crate) names: bool,
    /// Write the record here (`-`: standard output, and nothing else there)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The job.
    #[command(flatten)]
    pub(crate) job: JobArgs,
}
