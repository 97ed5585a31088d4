//! `regex-lite` under the name of `regex`, for the dependencies that want the latter (`Cargo.toml`, `[patch]`).
//!
//! They match image references, CPU lists and (in tests) the patterns of JSON schemas: ASCII. The Unicode tables of `regex` are
//! 190 KiB of pointers, which a static position-independent program has to relocate at each start: 46 pages to copy, a tenth
//! of what isolab's own start costs.
#![forbid(unsafe_code)]

pub use regex_lite::{Captures, Error, Match, Regex};

/// [`regex_lite::RegexBuilder`] with the limits that `regex` has; those of automata that do not exist here say nothing.
#[derive(Debug)]
pub struct RegexBuilder(regex_lite::RegexBuilder);

impl RegexBuilder {
    /// For this pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(regex_lite::RegexBuilder::new(pattern))
    }

    /// Most bytes of the compiled pattern.
    pub fn size_limit(&mut self, bytes: usize) -> &mut Self {
        self.0.size_limit(bytes);
        self
    }

    /// Nothing: there is no lazy automaton.
    pub fn dfa_size_limit(&mut self, _bytes: usize) -> &mut Self {
        self
    }

    /// Compiles it.
    ///
    /// # Errors
    /// Not a pattern, or too large.
    pub fn build(&self) -> Result<Regex, Error> {
        self.0.build()
    }
}
