//! Reports: pure functions of a record. Nothing here measures, and nothing here judges.

pub mod html;
mod quantity;
pub mod suite;
pub mod text;
mod words;

pub(crate) use words::quotable;
