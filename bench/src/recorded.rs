//! A record of either kind: of a comparison (one JSON document) or of a bench run (JSON Lines).

use serde::Deserialize;

use crate::record::{Record, RecordError};
use crate::suite::lines::{LinesError, SuiteRecord};

/// What a record file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// Of `compare`.
    Comparison(Box<Record>),
    /// Of `bench`.
    Bench(Box<SuiteRecord>),
}

/// A record of either kind that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// Of a comparison.
    #[error(transparent)]
    Comparison(#[from] RecordError),
    /// Of a bench run.
    #[error(transparent)]
    Bench(#[from] LinesError),
}

/// What every bench schema begins with, whatever its version.
const BENCH: &str = "isolab.bench/";

/// The first line of a bench record, as far as it tells what it is.
#[derive(Deserialize)]
struct Head {
    schema: String,
}

impl Recorded {
    /// Reads a record. A first line that is a whole JSON value with a schema of `bench` makes it one of a bench run.
    ///
    /// # Errors
    /// [`RecordedError`]: of the kind that it was taken for.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordedError> {
        let first = bytes.split(|&byte| byte == b'\n').find(|line| !line.is_empty()).unwrap_or_default();
        let is_bench = serde_json::from_slice::<Head>(first).is_ok_and(|head| head.schema.starts_with(BENCH));
        if is_bench {
            return Ok(Self::Bench(Box::new(SuiteRecord::from_text(bytes)?)));
        }
        Ok(Self::Comparison(Box::new(Record::from_json(bytes)?)))
    }
}
