//! `isolab check`: does a record hold what an exercise asked for?

use std::path::Path;

use anyhow::Context;
use isolab_bench::check::{Spec, check, render};

use crate::cli::CheckArgs;
use crate::levels;
use crate::report::{bytes, read};
use crate::say;

/// Exit status of a record that does not.
const NOT_MET: u8 = 1;

/// Checks.
///
/// # Errors
/// The record or the specification can't be read.
pub(crate) fn command(args: &CheckArgs) -> anyhow::Result<u8> {
    let spec = spec(&args.against)?;
    spec.check_names(&levels::names().collect::<Vec<_>>())
        .with_context(|| format!("read {}", args.against.display()))?;
    let checked = check(&read(&args.record)?, &spec);
    let text = if args.json { isolab_images::escape::json(&checked)? + "\n" } else { render(&checked) };
    say::all(text)?;
    Ok(if checked.passed { 0 } else { NOT_MET })
}

/// The specification: JSON where the file's name says so, else TOML.
fn spec(path: &Path) -> anyhow::Result<Spec> {
    let reading = || format!("read {}", path.display());
    let bytes = bytes(path)?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_slice(&bytes).with_context(reading);
    }
    let text = String::from_utf8(bytes).with_context(reading)?;
    // The parser's message shows the line with a mark below: here all stands on one.
    let flat = |error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count());
        anyhow::anyhow!("line {}: {}", line + 1, error.message())
    };
    toml::from_str(&text).map_err(flat).with_context(reading)
}
