//! Layers against the tree.

mod archives;
pub(crate) mod bombs;
mod breakouts;
mod whiteouts;

use super::samples::{import, spool};
pub(crate) use super::samples::{Tar, chain, show};
use crate::budget::Budgets;

/// Layers joined by ` || ` to the tree's line, or the error's.
pub(crate) fn outcome(layers: &str) -> String {
    let layers: Vec<_> = layers.split(" || ").map(Tar::parse).collect();
    match import(&layers, Budgets::default()) {
        Ok((tree, spool)) => show(&tree, &spool),
        Err(error) => format!("ERROR {}", chain(&error)),
    }
}
