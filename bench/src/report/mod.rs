//! Reports: pure functions of a record. Nothing here measures, and nothing here judges.

mod density;
pub mod html;
pub mod markdown;
pub mod probe;
pub(crate) mod quantity;
pub mod suite;
pub mod surface;
pub mod text;
mod vary;
pub(crate) mod words;

pub(crate) use words::quotable;
