//! One libFuzzer program with all targets, of which the environment variable `FUZZ_TARGET` names the one that runs: a program for each
//! would generate and link fifteen times what they have in common, which took longer than a test run of all.
#![no_main]

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};

mod compressed;
mod devices;
mod erofs_image;
mod erofs_tree;
mod filter;
mod kernel;
mod layers;
mod oci;
mod proc;
mod queue;
mod record;
mod registers;
mod snapshot;
mod tar;
mod wire;

type Target = fn(&[u8]) -> Corpus;

const TARGETS: [(&str, Target); 15] = [
    ("compressed", compressed::run),
    ("devices", devices::run),
    ("erofs_image", erofs_image::run),
    ("erofs_tree", erofs_tree::run),
    ("filter", filter::run),
    ("kernel", kernel::run),
    ("layers", layers::run),
    ("oci", oci::run),
    ("proc", proc::run),
    ("queue", queue::run),
    ("record", record::run),
    ("registers", registers::run),
    ("snapshot", snapshot::run),
    ("tar", tar::run),
    ("wire", wire::run),
];

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(
    init: {
        // As in every Rust program, whose start libFuzzer's takes the place of: a broken pipe is an error, not the end.
        signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::new(AtomicBool::new(false))).expect("a handler");
        TARGET.get_or_init(chosen);
    },
    |data: &[u8]| -> Corpus { TARGET.get().expect("chosen at the start")(data) }
);

/// What `FUZZ_TARGET` names.
fn chosen() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) {
        return *target;
    }
    eprintln!("FUZZ_TARGET is {name:?} and not one of {}", TARGETS.map(|(name, _)| name).join(", "));
    std::process::exit(1);
}

/// Runs with an input that has a structure. Bytes of which none can be made are not kept.
fn made<'a, T: Arbitrary<'a>>(data: &'a [u8], run: impl FnOnce(T)) -> Corpus {
    match T::arbitrary_take_rest(Unstructured::new(data)) {
        Ok(input) if data.len() >= T::size_hint(0).0 => {
            run(input);
            Corpus::Keep
        }
        _ => Corpus::Reject,
    }
}
