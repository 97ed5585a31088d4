//! Recipes: images that are built from what this machine's packages offer, without a registry.
//!
//! A recipe is a small TOML file of `images/recipes/`: where its files come from and the image's config. It gives
//! either a tree, or a tar on a pipe that the importer reads like any other.

mod skeleton;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::Deserialize;

use crate::config::ImageConfig;
use crate::tree::{Spool, Tree};
use skeleton::Skeleton;

/// Largest output of a program that lists its applets.
const MAX_LIST: usize = 1 << 20;

const BUILT_IN: [(&str, &str); 3] = [
    ("demo", include_str!("../../recipes/demo.toml")),
    ("busybox", include_str!("../../recipes/busybox.toml")),
    ("debian", include_str!("../../recipes/debian.toml")),
];

/// Why a recipe gives no image.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// No such recipe.
    #[error("no recipe `{}`: there are demo, busybox and debian", name.escape_debug())]
    Unknown {
        /// The name.
        name: String,
    },
    /// Not a recipe.
    #[error("recipe `{}` is not understood", name.escape_debug())]
    Parse {
        /// Its name.
        name: String,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// A program that it needs is not installed.
    #[error("recipe `{name}` needs `{}`: install the package {package} (`isolab doctor --fix` does it)", program.display())]
    Missing {
        /// The recipe.
        name: String,
        /// The program.
        program: PathBuf,
        /// The package that has it.
        package: String,
    },
    /// A program could not be started.
    #[error("start `{}`", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The list of applets is not one.
    #[error("`{}` gave no list of applets ({status})", program.display())]
    Applets {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// Reading the program or writing the spool.
    #[error("copy `{}` into the image", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A recipe.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name, which is the image's too.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// Config of the image.
    pub config: ImageConfig,
    from: Origin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    summary: String,
    from: Origin,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    workdir: Option<String>,
    user: Option<String>,
}

/// Where the files come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Origin {
    /// The workloads embedded in isolab.
    Work {},
    /// One static program with a hard link for each name that it lists.
    Applets { program: PathBuf, list: String, package: String },
    /// A command that prints a tar of a root directory.
    Tar {
        command: Vec<String>,
        #[serde(default)]
        env: BTreeMap<String, String>,
        package: String,
    },
}

/// What a recipe gives.
#[derive(Debug)]
pub enum Built {
    /// Files in memory and spool.
    Tree(Tree, Spool),
    /// A tar to import.
    Tar(TarStream),
}

impl Recipe {
    /// Names of the built-in recipes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A built-in recipe.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn find(name: &str) -> Result<Self, RecipeError> {
        let text = BUILT_IN.iter().find(|(built_in, _)| *built_in == name);
        let (name, text) = text.ok_or_else(|| RecipeError::Unknown { name: name.to_owned() })?;
        Self::parse(name, text)
    }

    /// A recipe from its text.
    ///
    /// # Errors
    /// Not TOML, or not a recipe.
    pub fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        let file: RecipeFile = toml::from_str(text)
            .map_err(|e| RecipeError::Parse { name: name.to_owned(), source: Box::new(e) })?;
        let Config { entrypoint, cmd, env, workdir, user } = file.config;
        let config = ImageConfig { entrypoint, cmd, env, workdir, user, ..ImageConfig::default() };
        Ok(Self { name: name.to_owned(), summary: file.summary, config, from: file.from })
    }

    /// Whether this machine has what the recipe needs.
    ///
    /// # Errors
    /// The program that is missing and its package.
    pub fn check(&self) -> Result<(), RecipeError> {
        let (program, package) = match &self.from {
            Origin::Work {} => return Ok(()),
            Origin::Applets { program, package, .. } => (program.clone(), package),
            Origin::Tar { command, package, .. } => {
                (command.first().map(PathBuf::from).unwrap_or_default(), package)
            }
        };
        if installed(&program) {
            return Ok(());
        }
        Err(RecipeError::Missing { name: self.name.clone(), program, package: package.clone() })
    }

    /// Builds it; `work` is the workload program, `spool` an empty spool.
    ///
    /// # Errors
    /// See [`RecipeError`]. A command that fails later makes its tar end with an error.
    pub fn build(&self, work: &[u8], spool: Spool) -> Result<Built, RecipeError> {
        self.check()?;
        match &self.from {
            Origin::Work {} => demo(work, spool),
            Origin::Applets { program, list, .. } => applets(program, list, spool),
            Origin::Tar { command, env, .. } => Ok(Built::Tar(TarStream::start(command, env)?)),
        }
    }
}

fn installed(program: &Path) -> bool {
    let runs = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    if program.is_absolute() {
        return runs(program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    !program.as_os_str().is_empty() && std::env::split_paths(&path).any(|dir| runs(&dir.join(program)))
}

/// The image `demo`: the workload program alone.
fn demo(work: &[u8], spool: Spool) -> Result<Built, RecipeError> {
    let name = "isolab-work";
    let copy = |source| RecipeError::Copy { path: name.into(), source };
    let mut files = Skeleton::new(spool).map_err(copy)?;
    files.file(name, 0o755, work).map_err(copy)?;
    let (tree, spool) = files.finish();
    Ok(Built::Tree(tree, spool))
}

fn applets(program: &Path, list: &str, spool: Spool) -> Result<Built, RecipeError> {
    let copy = |source| RecipeError::Copy { path: program.into(), source };
    let output = Command::new(program)
        .arg(list)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|source| RecipeError::Start { program: program.into(), source })?;
    let names = String::from_utf8(output.stdout).ok().filter(|names| names.len() <= MAX_LIST);
    let Some(names) = names.filter(|names| output.status.success() && !names.is_empty()) else {
        return Err(RecipeError::Applets { program: program.into(), status: output.status });
    };
    let mut files = Skeleton::new(spool).map_err(copy)?;
    let bytes = std::fs::read(program).map_err(copy)?;
    let own = program.strip_prefix("/").unwrap_or(program).to_string_lossy().into_owned();
    let id = files.file(&own, 0o755, &bytes).map_err(copy)?;
    for name in names.lines().filter(|name| name.contains('/') && *name != own) {
        files.link(name, id).map_err(copy)?;
    }
    let (tree, spool) = files.finish();
    Ok(Built::Tree(tree, spool))
}

/// Standard output of a running command, as a reader that fails where the command fails. Dropping it ends the command.
#[derive(Debug)]
pub struct TarStream {
    child: Child,
    stdout: ChildStdout,
    program: String,
}

impl TarStream {
    fn start(command: &[String], env: &BTreeMap<String, String>) -> Result<Self, RecipeError> {
        let program = command.first().cloned().unwrap_or_default();
        let failed = |source| RecipeError::Start { program: PathBuf::from(&program), source };
        let mut child = Command::new(&program)
            .args(command.iter().skip(1))
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        match child.stdout.take() {
            Some(stdout) => Ok(Self { child, stdout, program }),
            None => Err(failed(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Read for TarStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.stdout.read(buf)? {
            0 if !buf.is_empty() => {
                let status = self.child.wait()?;
                if status.success() {
                    Ok(0)
                } else {
                    Err(io::Error::other(format!("{}: {status}", self.program)))
                }
            }
            n => Ok(n),
        }
    }
}

impl Drop for TarStream {
    fn drop(&mut self) {
        // Both fail only where the command has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests;
