//! Names of images: registry references fit, and each is one file name.

use super::StoreError;

/// Longest name; escaped it stays below the 255 bytes of a file name.
const MAX: usize = 200;

/// A good name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn new(name: &str) -> Result<Self, StoreError> {
        let this = Self(name.to_owned());
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-+/:".contains(&c);
        // `sha256:` is a digest, whatever follows.
        let good = starts && name.len() <= MAX && name.bytes().all(plain) && !name.starts_with("sha256:");
        if good && this.file_name().len() <= 255 {
            Ok(this)
        } else {
            Err(StoreError::Name { name: name.to_owned() })
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    /// With `/` as `%2F`; `%` itself is in no name.
    pub(super) fn file_name(&self) -> String {
        self.0.replace('/', "%2F")
    }

    pub(super) fn from_file_name(file: &str) -> Option<Self> {
        Self::new(&file.replace("%2F", "/")).ok()
    }
}
