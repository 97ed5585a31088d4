//! placeholder
use crate::record::{Record, RecordError};
/// x
pub fn render(record: &Record) -> Result<String, RecordError> {
    record.to_json()
}
