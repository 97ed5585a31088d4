//! Files and directories that must not outlive their writer: named at random, locked, removed on drop.

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use super::{Store, StoreError, io_step};

/// A file being written.
#[derive(Debug)]
pub(super) struct Temp<'s> {
    store: &'s Store,
    path: PathBuf,
    file: Option<File>,
}

impl<'s> Temp<'s> {
    /// A new file in `tmp/`, open for reading and writing.
    pub(super) fn create(store: &'s Store) -> Result<Self, StoreError> {
        // Under the lock, so that no sweep comes between the file and its lock.
        let _guard = store.lock()?;
        Self::create_locked(store)
    }

    /// The same where the caller holds the store's lock.
    pub(super) fn create_locked(store: &'s Store) -> Result<Self, StoreError> {
        let path = store.home.join("tmp").join(random()?);
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(|source| store.io("create", &path, source))?;
        let this = Self { store, path, file: Some(file) };
        retry_on_intr(|| flock(this.file(), FlockOperation::NonBlockingLockExclusive))
            .map_err(|e| store.io("lock", &this.path, e.into()))?;
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_ref().expect("taken only by methods that consume this")
    }

    /// Read-only for all, and on the disk.
    pub(super) fn complete(&self) -> Result<(), StoreError> {
        let failed = |step| move |source| self.store.io(step, &self.path, source);
        self.file().set_permissions(Permissions::from_mode(0o444)).map_err(failed("change the mode of"))?;
        self.file().sync_all().map_err(failed("sync"))
    }

    /// Gives the file its name, in place of what was there.
    pub(super) fn publish(mut self, to: &Path) -> Result<File, StoreError> {
        std::fs::rename(&self.path, to).map_err(|source| self.store.io("rename to", to, source))?;
        let file = self.file.take().expect("taken only here");
        if let Some(dir) = to.parent() {
            let sync = || File::open(dir)?.sync_all();
            sync().map_err(io_step("sync directory", dir))?;
        }
        Ok(file)
    }

    /// Takes the name away and keeps the file.
    pub(super) fn into_unnamed(mut self) -> Result<File, StoreError> {
        std::fs::remove_file(&self.path).map_err(io_step("unlink", &self.path))?;
        Ok(self.file.take().expect("taken only here"))
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What can't be removed now is swept later.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// An image that is being written.
#[derive(Debug)]
pub struct Draft<'s>(pub(super) Temp<'s>);

impl Draft<'_> {
    /// Where it is written to.
    #[must_use]
    pub fn file(&self) -> &File {
        self.0.file()
    }

    /// The same for another process, which has no part in the lock: where we are killed, the lock is free at once, and the file is
    /// swept, however long that process takes to end.
    ///
    /// # Errors
    /// The file can't be opened again.
    pub fn writer(&self) -> Result<File, StoreError> {
        let open = File::options().read(true).write(true).open(&self.0.path);
        open.map_err(|source| self.0.store.io("open", &self.0.path, source))
    }
}

/// A private directory of one run; removed on drop, swept by gc after a kill.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    dir: File,
}

impl Scratch {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor; a child that must outlive this process's lock inherits it.
    #[must_use]
    pub fn dir(&self) -> &File {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is swept by gc.
        let _ = super::gc::remove_dir(&self.path);
    }
}

impl Store {
    /// A new empty directory for one run.
    ///
    /// # Errors
    /// It can't be made.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let _guard = self.lock()?;
        let path = self.home.join("scratch").join(random()?);
        DirBuilder::new().mode(0o700).create(&path).map_err(|source| self.io("create", &path, source))?;
        let dir = File::open(&path).map_err(io_step("open", &path))?;
        retry_on_intr(|| flock(&dir, FlockOperation::NonBlockingLockExclusive))
            .map_err(|e| self.io("lock", &path, e.into()))?;
        Ok(Scratch { path, dir })
    }
}

/// 16 hex digits.
fn random() -> Result<String, StoreError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| io_step("read random bytes for", Path::new("tmp"))(e.into()))?;
    Ok(crate::digest::hex(&bytes))
}
