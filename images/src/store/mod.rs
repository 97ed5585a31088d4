//! The store: images by digest, names that point to them, and nothing half-written.
//!
//! ```text
//! HOME/images/sha256-HEX.erofs   the image, 0444
//! HOME/images/sha256-HEX.json    its record: size, stamp, what the first import knew
//! HOME/names/NAME                the record of a name: digest, config, source, report
//! HOME/tmp/                      files being written, each locked by its writer
//! HOME/scratch/                  private copies of running instances, each locked by its run
//! HOME/lock                      held while any of these appears or goes
//! ```
//!
//! An image exists once its record does. Everything appears by rename under the lock, so concurrent imports
//! see each other's results whole; a writer that died leaves an unlocked file that the next import or gc sweeps.

mod entry;
mod error;
mod gc;
mod name;
mod names;
mod temp;

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::erofs;
use crate::tree::{Spool, Tree};

pub use entry::Entry;
pub(crate) use entry::Stamp;
use entry::{Description, NameRecord, Record, hash};
pub use error::{StoreError, no_space};
use error::{io_step, is_full};
pub use gc::Removed;
use name::Name;
use temp::Temp;
pub use temp::{Draft, Scratch};

/// Longest record or name file.
const MAX_RECORD: u64 = 8 << 20;

/// An image to add.
#[derive(Debug)]
pub struct NewImage<'a> {
    /// Its files.
    pub tree: &'a Tree,
    /// Their contents.
    pub spool: &'a Spool,
    /// What is told of it.
    pub about: About<'a>,
}

/// What is told of an image.
#[derive(Debug)]
pub struct About<'a> {
    /// Its config.
    pub config: ImageConfig,
    /// Where it came from, for people.
    pub source: String,
    /// What was dropped or changed on import, for people.
    pub report: serde_json::Value,
    /// Name that shall point to it.
    pub name: Option<&'a str>,
}

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    home: PathBuf,
}

impl Store {
    /// Where the store of this user is: `$ISOLAB_HOME`, else `/var/lib/isolab` for root, else `isolab` in
    /// `$XDG_DATA_HOME` or `~/.local/share`.
    ///
    /// # Errors
    /// No variable leads anywhere.
    pub fn home() -> Result<PathBuf, StoreError> {
        home_from(|name| std::env::var_os(name).map(PathBuf::from), rustix::process::geteuid().is_root())
    }

    /// Opens the store at [`Store::home`], made first where it is missing.
    ///
    /// # Errors
    /// A directory that can't be made, or that others can write to, itself or on the way to it.
    pub fn open_or_create() -> Result<Self, StoreError> {
        Self::at(&Self::home()?)
    }

    /// The same at a place of the caller's choice.
    ///
    /// # Errors
    /// See [`Store::open_or_create`].
    pub fn at(home: &Path) -> Result<Self, StoreError> {
        let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
        let make = |dir: &Path| {
            let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
            made.map_err(|source| {
                if is_full(&source) {
                    StoreError::Full { path: home.into() }
                } else {
                    StoreError::Place { path: home.into(), source }
                }
            })
        };
        // A store that its owner put elsewhere by a symlink is fine; symlinks inside it are not.
        if !home.is_dir() {
            make(home)?;
        }
        let home = home.canonicalize().map_err(io_step("find", home))?;
        for dir in home.ancestors().skip(1) {
            way(dir, &std::fs::symlink_metadata(dir).map_err(io_step("look at", dir))?)?;
        }
        let parts = ["images", "names", "tmp", "scratch"].map(|part| home.join(part));
        for dir in [home.clone()].into_iter().chain(parts) {
            if !dir.is_dir() {
                make(&dir)?;
            }
            let meta = std::fs::symlink_metadata(&dir).map_err(io_step("look at", &dir))?;
            private(&dir, &meta)?;
        }
        Ok(Self { home })
    }

    /// The directory of the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.home
    }

    /// A new spool on the store's disk, without a name.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn spool(&self) -> Result<Spool, StoreError> {
        Ok(Spool { file: Temp::create(self)?.into_unnamed()?, len: 0 })
    }

    /// Whether an image can have this name, to be asked before there is much to lose.
    ///
    /// # Errors
    /// It can't.
    pub fn check_name(name: &str) -> Result<(), StoreError> {
        Name::new(name).map(drop)
    }

    /// A file for an image, to be written and then given to [`Store::keep`]; dropped, it is gone.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn draft(&self) -> Result<Draft<'_>, StoreError> {
        self.sweep_temporary()?;
        Ok(Draft(Temp::create(self)?))
    }

    /// Writes an image and keeps it. On any error nothing is left.
    ///
    /// # Errors
    /// A bad name, a tree that can't be written, a full disk.
    pub fn add(&self, new: NewImage<'_>) -> Result<Entry, StoreError> {
        new.about.name.map(Self::check_name).transpose()?;
        let draft = self.draft()?;
        erofs::write(new.tree, new.spool, draft.file())
            .map_err(|e| if no_space(&e) { self.full() } else { e.into() })?;
        self.keep(draft, new.about)
    }

    /// Checks and records an image that somebody wrote into a draft, who is not believed: it must be, byte by byte of its metadata, what
    /// isolab writes for such files, and its digest is taken anew. On any error nothing is left.
    ///
    /// # Errors
    /// A bad name, a file that is not such an image, a full disk.
    pub fn keep(&self, draft: Draft<'_>, new: About<'_>) -> Result<Entry, StoreError> {
        let name = new.name.map(Name::new).transpose()?;
        let Draft(temp) = draft;
        let inodes = erofs::check(temp.file())?.tree.inodes.len() as u64;
        temp.complete()?;
        let read = |source| self.io("read", temp.path(), source);
        let digest = hash(temp.file()).map_err(read)?;
        let size = temp.file().metadata().map_err(read)?.len();
        let image = self.image_path(&digest);
        let created_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let description =
            Description { config: new.config, source: new.source, report: new.report, created_s };
        let _guard = self.lock()?;
        let known = self.record(&digest).ok();
        // Where the same image is there untouched, its pages may be in use: keep it.
        let present = known
            .as_ref()
            .map(|record| record.stamp)
            .filter(|stamp| Stamp::of_path(&image).ok() == Some(*stamp));
        let stamp = match present {
            Some(stamp) => stamp,
            None => Stamp::of(&temp.publish(&image)?, &image)?,
        };
        let record = Record {
            version: Record::VERSION,
            digest,
            size,
            inodes,
            stamp,
            description: known.map_or_else(|| description.clone(), |record| record.description),
        };
        self.put_record(&record)?;
        if let Some(name) = &name {
            self.put_name(name, &NameRecord { digest, description: description.clone() })?;
        }
        let name = name.map(|name| (name.into_string(), description));
        Ok(Entry::new(record, name, image, self.clone()))
    }

    /// The image of a name, of a digest (`sha256:HEX`), or of the first 8 or more digits of one.
    ///
    /// # Errors
    /// Nothing or several things there, or a damaged record.
    pub fn resolve(&self, wanted: &str) -> Result<Entry, StoreError> {
        match self.named(wanted)? {
            Some(NameRecord { digest, description }) => {
                self.entry(&digest, Some((wanted.to_owned(), description)))
            }
            None => self.entry(&self.digest_of(wanted)?, None),
        }
    }

    /// The digest that is meant by these digits.
    fn digest_of(&self, wanted: &str) -> Result<Digest, StoreError> {
        let not_found = || StoreError::NotFound { name: wanted.to_owned() };
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        if digits.len() < 8 || !digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(not_found());
        }
        let mut found = self.digests()?.into_iter().filter(|digest| digest.hex().starts_with(digits));
        match (found.next(), found.next()) {
            (first, None) => first.ok_or_else(not_found),
            (_, Some(_)) => Err(StoreError::Ambiguous { prefix: digits.to_owned() }),
        }
    }

    /// All names, and the images without one, oldest first.
    ///
    /// # Errors
    /// A directory that can't be read, or a damaged record.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let names = self.names()?;
        let mut found = Vec::new();
        for digest in self.digests()? {
            let named = || {
                names
                    .iter()
                    .filter_map(|(name, to)| Some((name, to.as_ref()?)))
                    .filter(|(_, to)| to.digest == digest)
            };
            if named().next().is_none() {
                found.push(self.entry(&digest, None));
            }
            found.extend(named().map(|(name, to)| {
                self.entry(&digest, Some((name.as_str().to_owned(), to.description.clone())))
            }));
        }
        // What was removed since is no error.
        found.retain(|entry| !matches!(entry, Err(StoreError::NotFound { .. })));
        let mut entries = found.into_iter().collect::<Result<Vec<_>, _>>()?;
        entries.sort_by(|a, b| (a.created_s, &a.digest, &a.name).cmp(&(b.created_s, &b.digest, &b.name)));
        Ok(entries)
    }

    /// Digests that have a record.
    fn digests(&self) -> Result<Vec<Digest>, StoreError> {
        let files = files(&self.home.join("images"))?;
        Ok(files.iter().filter_map(|file| Digest::from_file_stem(file.strip_suffix(".json")?)).collect())
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.home.join("images").join(format!("{}.erofs", digest.file_stem()))
    }

    fn record_path(&self, digest: &Digest) -> PathBuf {
        self.home.join("images").join(format!("{}.json", digest.file_stem()))
    }

    fn record(&self, digest: &Digest) -> Result<Record, StoreError> {
        let path = self.record_path(digest);
        let text = read(&path).map_err(|e| match e {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                StoreError::NotFound { name: digest.to_string() }
            }
            e => e,
        })?;
        let record: Record = serde_json::from_slice(&text)
            .map_err(|source| StoreError::Record { path: path.clone(), source })?;
        if record.version != Record::VERSION || record.digest != *digest {
            let source = serde::de::Error::custom("another version or another image's record");
            return Err(StoreError::Record { path, source });
        }
        Ok(record)
    }

    fn put_record(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.record_path(&record.digest);
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| StoreError::Record { path: path.clone(), source })?;
        self.put(&path, &text)
    }

    /// Remembers the stamp of an image that was just proven to be what its digest says.
    fn restamp(&self, digest: &Digest, stamp: Stamp) -> Result<(), StoreError> {
        let _guard = self.lock()?;
        let record = self.record(digest)?;
        self.put_record(&Record { stamp, ..record })
    }

    fn entry(&self, digest: &Digest, name: Option<(String, Description)>) -> Result<Entry, StoreError> {
        Ok(Entry::new(self.record(digest)?, name, self.image_path(digest), self.clone()))
    }

    /// Writes a small file whole or not at all; the store is locked.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        use std::io::Write;
        let temp = Temp::create_locked(self)?;
        let mut file = temp.file();
        file.write_all(bytes).map_err(|source| self.io("write", path, source))?;
        temp.complete()?;
        temp.publish(path)?;
        Ok(())
    }

    /// Waits for other imports that are just publishing.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.home.join("lock");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => StoreError::Place { path: self.home.clone(), source },
            _ => self.io("open", &path, source),
        })?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|e| self.io("lock", &path, e.into()))?;
        Ok(file)
    }

    /// What to tell where the store's disk is full.
    #[must_use]
    pub fn full(&self) -> StoreError {
        StoreError::Full { path: self.home.clone() }
    }

    fn io(&self, step: &'static str, path: &Path, source: io::Error) -> StoreError {
        if is_full(&source) { self.full() } else { StoreError::Io { step, path: path.to_path_buf(), source } }
    }
}

/// Refuses what another user than root or ourselves could change.
fn private(path: &Path, meta: &std::fs::Metadata) -> Result<(), StoreError> {
    let refuse = |why| Err(StoreError::Unsafe { path: path.to_path_buf(), why });
    let me = rustix::process::geteuid().as_raw();
    if meta.is_symlink() {
        refuse("is a symlink")
    } else if meta.uid() != me && meta.uid() != 0 {
        refuse("belongs to another user")
    } else if meta.permissions().mode() & 0o022 != 0 {
        refuse("can be written by other users")
    } else {
        Ok(())
    }
}

/// Refuses a directory above the store in which another user than root or ourselves could put something else into its place.
fn way(dir: &Path, meta: &std::fs::Metadata) -> Result<(), StoreError> {
    const STICKY: u32 = 0o1000;
    /// `PROC_USER_INIT_INO` of the kernel.
    const FIRST_NAMESPACE: u64 = 0xefff_fffd;
    /// Whom files belong to in a user namespace that belong to nobody there.
    const OVERFLOW: u32 = 65_534;
    let unknown = || {
        let namespace = std::fs::metadata("/proc/self/ns/user");
        meta.uid() == OVERFLOW && namespace.is_ok_and(|meta| meta.ino() != FIRST_NAMESPACE)
    };
    let refuse = |why| Err(StoreError::UnsafeWay { path: dir.to_path_buf(), why });
    let me = rustix::process::geteuid().as_raw();
    let mode = meta.permissions().mode();
    // The group that a user has for himself has his number; many a user's directories are open to it.
    let group = if meta.gid() == meta.uid() { 0 } else { 0o020 };
    if meta.uid() != me && meta.uid() != 0 && !unknown() {
        refuse("belongs to another user")
    } else if mode & STICKY == 0 && mode & (group | 0o002) != 0 {
        refuse("can be written by other users")
    } else {
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_step("open", path))?;
    file.take(MAX_RECORD).read_to_end(&mut bytes).map_err(io_step("read", path))?;
    Ok(bytes)
}

/// File names of a directory, in order; those that are not UTF-8 are not ours.
fn files(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_step("read directory", dir))? {
        let entry = entry.map_err(io_step("read directory", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn home_from(var: impl Fn(&str) -> Option<PathBuf>, root: bool) -> Result<PathBuf, StoreError> {
    let absolute = |name| var(name).filter(|path| path.is_absolute());
    if let Some(home) = var("ISOLAB_HOME").filter(|path| !path.as_os_str().is_empty()) {
        return std::path::absolute(&home).map_err(io_step("find", &home));
    }
    if root {
        return Ok(PathBuf::from("/var/lib/isolab"));
    }
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Ok(data.ok_or(StoreError::Home)?.join("isolab"))
}

#[cfg(test)]
mod tests;
