//! Commands about what the store holds: `image`, `kernel`, `snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::JsonArg;

/// `isolab image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import a `docker save` archive, an OCI layout (directory or tar), a root file system tar or directory
    #[command(
        after_help = "Example:\n  skopeo copy docker://debian:12 docker-archive:d.tar && isolab image import d.tar --name debian"
    )]
    Import {
        /// What to import.
        path: PathBuf,
        /// Name in the store (default: the file's name).
        #[arg(long)]
        name: Option<String>,
        /// Which image, where the source holds several.
        #[arg(long, value_name = "NAME")]
        reference: Option<String>,
        /// Most bytes that it may unpack to.
        #[arg(long, value_name = "SIZE", default_value = "16G")]
        max_size: String,
        /// The result as JSON.
        #[command(flatten)]
        json: JsonArg,
    },
    /// Build an image from a recipe: demo, busybox, debian
    #[command(after_help = "Example:\n  isolab image build busybox && isolab run -it busybox -- sh")]
    Build {
        /// Which recipe.
        recipe: String,
        /// Name in the store (default: the recipe's name).
        #[arg(long)]
        name: Option<String>,
        /// The result as JSON.
        #[command(flatten)]
        json: JsonArg,
    },
    /// Pull an image from a registry
    #[command(
        after_help = "Example:\n  isolab image pull localhost:5000/tools/busybox:1 --name bb && isolab run bb -- ls"
    )]
    Pull {
        /// Reference, such as HOST/NAME:TAG.
        reference: String,
        /// Name in the store (default: the last part of the reference).
        #[arg(long)]
        name: Option<String>,
        /// Allow plain HTTP (allowed anyway for loopback).
        #[arg(long)]
        plain_http: bool,
        /// Most bytes that it may unpack to.
        #[arg(long, value_name = "SIZE", default_value = "16G")]
        max_size: String,
        /// The result as JSON.
        #[command(flatten)]
        json: JsonArg,
    },
    /// List images
    #[command(after_help = "Example:\n  isolab image ls --json")]
    Ls(JsonArg),
    /// Show an image's configuration, origin and what was dropped, as JSON
    #[command(after_help = "Example:\n  isolab image inspect debian")]
    Inspect {
        /// Name or digest.
        image: String,
        /// Accepted, as in the other commands: it is JSON anyway.
        #[command(flatten)]
        json: JsonArg,
    },
    /// Write an image as a tar archive of its files or as an OCI layout; nothing is overwritten
    #[command(after_help = "\
Examples:
  isolab image export debian -o - | tar t
  isolab image export debian --format oci -o debian-oci && skopeo inspect oci:debian-oci")]
    Export {
        /// Name or digest.
        image: String,
        /// New file (`-`: standard output), or new directory of an OCI layout.
        #[arg(long, short)]
        output: PathBuf,
        /// As what.
        #[arg(long, value_enum, default_value_t = ExportFormat::Tar)]
        format: ExportFormat,
    },
    /// Remove images
    #[command(after_help = "Example:\n  isolab image rm debian busybox")]
    Rm {
        /// Names or digests.
        #[arg(required = true)]
        images: Vec<String>,
        /// What was removed as JSON.
        #[command(flatten)]
        json: JsonArg,
    },
}

/// What `image export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The files.
    Tar,
    /// An OCI layout with one layer and the image's configuration.
    Oci,
}

/// `isolab kernel`.
#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Fetch the distribution's cloud kernel (entry `stock`); nothing is installed on the host
    #[command(after_help = "Example:\n  isolab kernel fetch && isolab run --level vm demo")]
    Fetch,
    /// Build a small kernel that starts fast (entry `tuned`), from the distribution's source package
    ///
    /// Everything that guests need is built in; it has no modules, no PCI and no ACPI. Where it is there, guests get it
    /// unless another one is asked for with --kernel. Needs apt, gcc, make, flex, bison, bc and libelf-dev (what is missing
    /// is named), 150 MB of download, 1.5 GB of disk for the time of the build, and some minutes.
    #[command(after_help = "\
Example:
  isolab kernel build && isolab compare --levels process,vm demo
  isolab run --level vm --kernel stock demo        the distribution's kernel all the same")]
    Build {
        /// Compilers at the same time (default: one for each processor).
        #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
        jobs: Option<u16>,
    },
    /// Add a kernel file (vmlinux or bzImage)
    #[command(
        after_help = "Example:\n  isolab kernel add ./vmlinux --name mine && isolab run --level vm --kernel mine demo"
    )]
    Add {
        /// The kernel.
        path: PathBuf,
        /// Entry name.
        #[arg(long)]
        name: String,
        /// Directory with its modules (lib/modules/VERSION).
        #[arg(long)]
        modules: Option<PathBuf>,
    },
    /// List kernels
    #[command(after_help = "Example:\n  isolab kernel ls")]
    Ls(JsonArg),
    /// Show an entry as JSON
    #[command(after_help = "Example:\n  isolab kernel inspect stock")]
    Inspect {
        /// Entry name.
        name: String,
    },
    /// Remove entries
    #[command(after_help = "Example:\n  isolab kernel rm mine")]
    Rm {
        /// Entry names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// `isolab snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// List or remove.
    #[command(subcommand)]
    pub(crate) command: Option<SnapshotCommand>,
    /// Store name, `demo`, or a path (directory, tar, OCI layout), which is imported
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) image: Option<String>,
    /// Memory of the guests [default: 128M]
    #[arg(long, allow_negative_numbers = true, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// CPUs of the guests [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub(crate) cpus: Option<String>,
    /// Guest kernel by name (see `isolab kernel ls`; default: `tuned` where it has been built, else `stock`)
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// Guests without a writable overlay
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Guests that give memory which they free back to the host
    #[arg(long)]
    pub(crate) free_page_reporting: bool,
    /// What was made as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Commands of `isolab snapshot` besides making one.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List snapshots
    #[command(after_help = "Example:\n  isolab snapshot ls --json")]
    Ls(JsonArg),
    /// Remove snapshots; guests that run from them go on
    #[command(after_help = "Example:\n  isolab snapshot rm demo@stock,128M,1")]
    Rm {
        /// Names, as `snapshot ls` shows them.
        #[arg(required = true)]
        names: Vec<String>,
    },
}
