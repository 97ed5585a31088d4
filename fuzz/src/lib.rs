//! What the programs of the fuzz targets have in common: the environment variable `FUZZ_TARGET` names the one of its targets that a
//! program runs.
//!
//! A program for each would be linked fifteen times with what they share. One for all would have the counters of all reports' code, and
//! libFuzzer looks through all counters after each input: the small targets would have up to a third fewer executions.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::Corpus;

/// What runs with the bytes of an input.
pub type Target = fn(&[u8]) -> Corpus;

/// The target that this process runs.
#[derive(Debug, Default)]
pub struct Chosen(OnceLock<Target>);

impl Chosen {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Begins: takes that of these which is asked for. Where there is none of that name the program ends.
    pub fn choose(&self, targets: &[(&str, Target)]) {
        // As in every Rust program, whose start libFuzzer's takes the place of: a broken pipe is an error, not the end.
        signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::new(AtomicBool::new(false)))
            .expect("a handler");
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let Some((_, target)) = targets.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = targets.iter().map(|(known, _)| *known).collect();
            eprintln!("FUZZ_TARGET is {name:?} and not one of {}", known.join(", "));
            std::process::exit(1);
        };
        self.0.get_or_init(|| *target);
    }

    /// Runs it.
    pub fn run(&self, data: &[u8]) -> Corpus {
        self.0.get().expect("chosen at the start")(data)
    }
}

/// Runs with an input that has a structure. Bytes of which none can be made are not kept.
pub fn made<'a, T: Arbitrary<'a>>(data: &'a [u8], run: impl FnOnce(T)) -> Corpus {
    match T::arbitrary_take_rest(Unstructured::new(data)) {
        Ok(input) if data.len() >= T::size_hint(0).0 => {
            run(input);
            Corpus::Keep
        }
        _ => Corpus::Reject,
    }
}
