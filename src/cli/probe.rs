//! `isolab probe`.

use clap::Args;

use super::{JobOptions, OutputOptions};

/// `isolab probe`.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Levels, in this order of the matrix [default: process,container,vm]
    #[arg(long, visible_alias = "level", value_delimiter = ',', value_name = "LIST")]
    pub(crate) levels: Option<Vec<String>>,
    /// Only these probes, with their evidence
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub(crate) only: Option<Vec<String>>,
    /// Also use things up (processes, memory, descriptors, room, time, output) at levels with limits, after making sure of those
    #[arg(long)]
    pub(crate) stress: bool,
    /// Print the evidence of each cell below the matrix
    #[arg(long)]
    pub(crate) evidence: bool,
    /// Where the results go.
    #[command(flatten)]
    pub(crate) output: OutputOptions,
    /// Test the probes instead of the levels: whether each can say "reached" (on this host, level process)
    #[arg(long, conflicts_with_all = ["levels", "json", "html", "evidence", "quiet", "stress"])]
    pub(crate) self_test: bool,
    /// Leave a mechanism of the container out, to see that the probes find it (as `run --knob`)
    #[arg(long, hide = true, value_name = "KNOB=VALUE")]
    pub(crate) knob: Vec<String>,
    /// The job.
    #[command(flatten)]
    pub(crate) options: JobOptions,
    /// Store name, `demo`, or a path (directory, tar, OCI layout), which is imported
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}
