//! Snapshots: templates of waiting guests, as entries of the store.
//!
//! ```text
//! HOME/snapshots/NAME/entry.json   what it was made of, and the digests and stamps of the other two
//! HOME/snapshots/NAME/state        processors and devices
//! HOME/snapshots/NAME/memory       what guest RAM held
//! ```
//!
//! All three are the user's own and closed to everybody else (0600): they hold a guest's memory. An entry is built under a
//! temporary name, renamed, and never changed after; running guests keep what they have mapped of an entry that is removed.

mod own;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::kernels::KernelInfo;
use crate::programs::INIT_DIGEST;
use crate::staging::{self, Staging};
use crate::store::Stamp;
use own::{hash, open_own, read_small};

const ENTRY: &str = "entry.json";
const STATE: &str = "state";
const MEMORY: &str = "memory";

/// What a guest is made of, as far as its snapshot depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The image as it is named in the store, or its digest.
    pub image_name: String,
    /// Digest of its EROFS file.
    pub image: String,
    /// Name of the guest kernel.
    pub kernel: String,
    /// Digest of its file.
    pub kernel_sha256: String,
    /// Release of the kernel.
    pub kernel_version: String,
    /// Digest of process 1.
    pub init_sha256: String,
    /// Guest RAM.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
    /// No writable overlay.
    pub read_only: bool,
    /// Memory that the guest frees returns to the host.
    #[serde(default)]
    pub free_page_reporting: bool,
    /// Format of the two files ([`Subject::new`]).
    pub format: u32,
}

/// One file of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its bytes.
    pub bytes: u64,
    sha256: String,
    stamp: Stamp,
}

/// What `entry.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotInfo {
    /// What it was made of.
    pub subject: Subject,
    /// Processors and devices.
    pub state: Part,
    /// Guest RAM.
    pub memory: Part,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

/// A snapshot can't be made, found or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// None of this subject.
    #[error("there is no snapshot of {wanted}{others}; make it: `{remedy}`")]
    NotFound {
        /// What was wanted, in words.
        wanted: String,
        /// Those of the same image.
        others: String,
        /// The command.
        remedy: String,
    },
    /// No entry of this name.
    #[error("there is no snapshot named {name:?}; `isolab snapshot ls` lists them")]
    Unknown {
        /// As asked.
        name: String,
    },
    /// Made of something else than what is there now.
    #[error("the snapshot {name} can't be used: {why}; make it anew: `{remedy}`")]
    Other {
        /// Its name.
        name: String,
        /// The difference.
        why: String,
        /// The command.
        remedy: String,
    },
    /// Its files are not what was written.
    #[error("the snapshot {name} can't be used: its file {file} {why}; make it anew: `{remedy}`")]
    Altered {
        /// Its name.
        name: String,
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        why: &'static str,
        /// The command.
        remedy: String,
    },
    /// Reading or writing the store failed.
    #[error("{step} {path}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn io_error<'a>(step: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::Io { step, path: path.display().to_string(), source }
}

impl Subject {
    /// A guest with this image (its name in the store, and its digest) and kernel. `format` is the version of the two files.
    #[must_use]
    pub fn new(image: (&str, &str), kernel: &KernelInfo, format: u32) -> Self {
        Self {
            image_name: image.0.to_owned(),
            image: image.1.to_owned(),
            kernel: kernel.name.clone(),
            kernel_sha256: kernel.sha256.clone(),
            kernel_version: kernel.version.clone(),
            init_sha256: INIT_DIGEST.to_owned(),
            memory_bytes: 0,
            cpus: 1,
            read_only: false,
            free_page_reporting: false,
            format,
        }
    }

    /// Name of its entry: one for each combination that a user can ask for. No name of an image or a kernel holds `@` or a comma.
    #[must_use]
    pub fn entry_name(&self) -> String {
        // A digest is a name that is too long to read.
        let image = self.image_name.get(..19).filter(|_| self.image_name.starts_with("sha256:"));
        let image = image.unwrap_or(&self.image_name).replace('/', "%2F");
        let options = self.options(|_, name| format!(",{name}"));
        format!("{image}@{},{},{}{options}", self.kernel, self.memory(), self.cpus)
    }

    fn memory(&self) -> String {
        let mib = self.memory_bytes >> 20;
        if mib << 20 == self.memory_bytes { format!("{mib}M") } else { self.memory_bytes.to_string() }
    }

    fn words(&self) -> String {
        let options = self.options(|words, _| format!(", {words}"));
        let Self { image_name, kernel, cpus, .. } = self;
        format!("{image_name} with kernel {kernel}, memory {}, cpus {cpus}{options}", self.memory())
    }

    /// The options that are on, each told by its words and its name.
    fn options(&self, told: impl Fn(&str, &str) -> String) -> String {
        let all = [
            (self.read_only, "read-only", "read-only"),
            (self.free_page_reporting, "free page reporting", "free-page-reporting"),
        ];
        all.into_iter().filter(|(on, ..)| *on).map(|(_, words, name)| told(words, name)).collect()
    }

    /// The command that makes it.
    #[must_use]
    pub fn remedy(&self) -> String {
        let options = self.options(|_, name| format!("--{name} "));
        let Self { image_name, kernel, cpus, .. } = self;
        format!(
            "isolab snapshot --kernel {kernel} --memory {} --cpus {cpus} {options}{image_name}",
            self.memory()
        )
    }

    /// The first thing in which a stored subject differs from this one.
    fn difference(&self, stored: &Self) -> Option<String> {
        let differs = [
            (self.format != stored.format, {
                format!("it is of format {}, and this isolab reads {}", stored.format, self.format)
            }),
            (self.image != stored.image, format!("image {} has changed since", self.image_name)),
            (self.kernel_sha256 != stored.kernel_sha256, format!("kernel {} has changed since", self.kernel)),
            (self.init_sha256 != stored.init_sha256, "another isolab made it, with another process 1".into()),
            (self != stored, format!("it is of {}", stored.words())),
        ];
        differs.into_iter().find(|(differs, _)| *differs).map(|(_, why)| why)
    }
}

/// The snapshots below one directory (`$ISOLAB_HOME/snapshots`).
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    root: PathBuf,
}

/// A snapshot, checked and open.
#[derive(Debug)]
pub struct OpenSnapshot {
    /// Processors and devices.
    pub state: File,
    /// Guest RAM.
    pub memory: File,
}

/// A snapshot being made. Dropped, nothing of it is left.
#[derive(Debug)]
pub struct NewSnapshot {
    staging: Staging,
    target: PathBuf,
    subject: Subject,
    /// For processors and devices.
    pub state: File,
    /// For guest RAM.
    pub memory: File,
}

impl SnapshotStore {
    /// The store at `root`, which need not exist yet.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Begins to make one.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn create(&self, subject: Subject) -> Result<NewSnapshot, SnapshotError> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        make.map_err(io_error("create", &self.root))?;
        let staging = Staging::new_in(&self.root).map_err(io_error("create a directory in", &self.root))?;
        let built = staging.path().join("entry");
        DirBuilder::new().mode(0o700).create(&built).map_err(io_error("create", &built))?;
        let file = |name| {
            let path = built.join(name);
            let mut options = File::options();
            options.read(true).write(true).create_new(true).mode(0o600);
            options.open(&path).map_err(io_error("create", &path))
        };
        let (state, memory) = (file(STATE)?, file(MEMORY)?);
        let target = self.root.join(subject.entry_name());
        Ok(NewSnapshot { staging, target, subject, state, memory })
    }

    /// The snapshot of a subject, checked: its files are what was written, and what it was made of has not changed.
    ///
    /// # Errors
    /// There is none, or it can't be used.
    pub fn open(&self, subject: &Subject) -> Result<OpenSnapshot, SnapshotError> {
        let name = subject.entry_name();
        let info = match self.read(&name, subject) {
            Err(SnapshotError::Unknown { .. }) => return Err(self.not_found(subject)),
            info => info?,
        };
        let remedy = || subject.remedy();
        if let Some(why) = subject.difference(&info.subject) {
            return Err(SnapshotError::Other { name, why, remedy: remedy() });
        }
        let open = |file: &'static str, part: &Part| {
            let altered = |why| SnapshotError::Altered { name: name.clone(), file, why, remedy: remedy() };
            let path = self.root.join(&name).join(file);
            let opened = open_own(&path).map_err(|e| e.explain(&path, altered))?;
            let meta = opened.metadata().map_err(io_error("look at", &path))?;
            if meta.len() != part.bytes {
                return Err(altered("has another length than what was written"));
            }
            // Untouched since it was hashed, or hashed again.
            if Stamp::from(&meta) != part.stamp
                && hash(&opened).map_err(io_error("read", &path))? != part.sha256
            {
                return Err(altered("has been changed"));
            }
            Ok(opened)
        };
        Ok(OpenSnapshot { state: open(STATE, &info.state)?, memory: open(MEMORY, &info.memory)? })
    }

    /// Whether there is an entry for a subject, whatever its state.
    #[must_use]
    pub fn contains(&self, subject: &Subject) -> bool {
        self.root.join(subject.entry_name()).is_dir()
    }

    /// Names of all entries, with what they say; nothing where that is damaged.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn list(&self) -> Result<Vec<(String, Option<SnapshotInfo>)>, SnapshotError> {
        let mut names = staging::names(&self.root).map_err(io_error("read", &self.root))?;
        names.retain(|name| !name.starts_with('.'));
        let info = |name: &String| {
            let text = read_small(&self.root.join(name).join(ENTRY)).ok()?;
            serde_json::from_slice(&text).ok()
        };
        Ok(names.into_iter().map(|name| (info(&name), name)).map(|(info, name)| (name, info)).collect())
    }

    /// Removes an entry: out of sight first, so that nobody sees half of it.
    ///
    /// # Errors
    /// There is none, or it can't be removed.
    pub fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        let entry = self.root.join(name);
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        if !is_name || !fs::symlink_metadata(&entry).is_ok_and(|meta| meta.is_dir()) {
            return Err(SnapshotError::Unknown { name: name.to_owned() });
        }
        let staging = Staging::new_in(&self.root).map_err(io_error("create a directory in", &self.root))?;
        fs::rename(&entry, staging.path().join("entry")).map_err(io_error("remove", &entry))?;
        staging.close().map_err(io_error("remove", &entry))
    }

    /// Directories that an interrupted making or removal left.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn stale(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        staging::stale(&self.root).map_err(io_error("read", &self.root))
    }

    /// Where an entry is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn read(&self, name: &str, subject: &Subject) -> Result<SnapshotInfo, SnapshotError> {
        let path = self.root.join(name).join(ENTRY);
        let altered = |why| SnapshotError::Altered {
            name: name.to_owned(),
            file: ENTRY,
            why,
            remedy: subject.remedy(),
        };
        if !self.root.join(name).exists() {
            return Err(SnapshotError::Unknown { name: name.to_owned() });
        }
        let text = read_small(&path).map_err(|e| e.explain(&path, altered))?;
        serde_json::from_slice(&text).map_err(|_| altered("is damaged, or of another isolab"))
    }

    fn not_found(&self, subject: &Subject) -> SnapshotError {
        let all = self.list().unwrap_or_default().into_iter().filter_map(|(_, info)| Some(info?.subject));
        let others: Vec<String> =
            all.filter(|other| other.image_name == subject.image_name).map(|other| other.words()).collect();
        let others =
            if others.is_empty() { String::new() } else { format!(" (there is: {})", others.join("; ")) };
        SnapshotError::NotFound { wanted: subject.words(), others, remedy: subject.remedy() }
    }
}

impl NewSnapshot {
    /// Gives the finished snapshot its name, in the place of an older one.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn publish(self) -> Result<(String, SnapshotInfo), SnapshotError> {
        let built = self.staging.path().join("entry");
        let part = |file: &File, name| {
            let path = built.join(name);
            let sha256 = hash(file).map_err(io_error("read", &path))?;
            let meta = file.metadata().map_err(io_error("look at", &path))?;
            Ok(Part { bytes: meta.len(), sha256, stamp: Stamp::from(&meta) })
        };
        let created_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let info = SnapshotInfo {
            state: part(&self.state, STATE)?,
            memory: part(&self.memory, MEMORY)?,
            subject: self.subject,
            created_s,
        };
        let path = built.join(ENTRY);
        let json =
            serde_json::to_vec_pretty(&info).map_err(io::Error::from).map_err(io_error("write", &path))?;
        let mut options = File::options();
        let written = options.write(true).create_new(true).mode(0o600).open(&path);
        written.and_then(|mut file| file.write_all(&json)).map_err(io_error("write", &path))?;
        let published = self.staging.publish(&built, &self.target, true);
        published.map_err(|errno| io_error("name", &self.target)(errno.into()))?;
        let name = self.target.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok((name.unwrap_or_default(), info))
    }
}

#[cfg(test)]
mod tests;
