//! What names stand for: each has a record of its own (`names/NAME`).

use std::io;
use std::path::{Path, PathBuf};

use super::entry::{Entry, NameRecord, Record};
use super::name::Name;
use super::{Store, StoreError, files, read};

impl Store {
    /// The records of an image on disk, for a store elsewhere that has its bytes by other means: of the files, and of
    /// each name (with the name of its file below `names/`).
    ///
    /// # Errors
    /// No such image any more, or a file that can't be read.
    pub fn records_of(&self, entry: &Entry) -> Result<(String, Vec<(String, String)>), StoreError> {
        let text = |path: &Path| read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mut names = Vec::new();
        for (name, to) in self.names()? {
            if to.is_some_and(|to| to.digest.to_string() == entry.digest) {
                names.push((name.file_name(), text(&self.name_path(&name))?));
            }
        }
        Ok((text(&entry.path.with_extension("json"))?, names))
    }

    /// Lets another name point to an image.
    ///
    /// # Errors
    /// No such image, or a bad name.
    pub fn tag(&self, wanted: &str, name: &str) -> Result<(), StoreError> {
        let name = Name::new(name)?;
        let _guard = self.lock()?;
        let record = match self.named(wanted)? {
            Some(record) => record,
            None => {
                let Record { digest, description, .. } = self.record(&self.digest_of(wanted)?)?;
                NameRecord { digest, description }
            }
        };
        self.put_name(&name, &record)
    }

    /// What a name stands for; nothing for a damaged one.
    pub(super) fn named(&self, name: &str) -> Result<Option<NameRecord>, StoreError> {
        let Ok(name) = Name::new(name) else { return Ok(None) };
        match read(&self.name_path(&name)) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All names with what they stand for, in order.
    pub(super) fn names(&self) -> Result<Vec<(Name, Option<NameRecord>)>, StoreError> {
        let mut names = Vec::new();
        for file in files(&self.home.join("names"))? {
            let Some(name) = Name::from_file_name(&file) else { continue };
            let record = self.named(name.as_str())?;
            names.push((name, record));
        }
        Ok(names)
    }

    pub(super) fn put_name(&self, name: &Name, record: &NameRecord) -> Result<(), StoreError> {
        let path = self.name_path(name);
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| StoreError::Record { path: path.clone(), source })?;
        self.put(&path, &text)
    }

    pub(super) fn name_path(&self, name: &Name) -> PathBuf {
        self.home.join("names").join(name.file_name())
    }
}
