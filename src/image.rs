//! `isolab image`: import, build, list, inspect, export, remove.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use isolab_images::budget::Budgets;
use isolab_images::config::ImageConfig;
use isolab_images::escape;
use isolab_images::export;
use isolab_images::programs::WORK;
use isolab_images::pull::PullOptions;
use isolab_images::recipes::{Built, Recipe};
use isolab_images::report::Report;
use isolab_images::source::{Options, Progress};
use isolab_images::store::{self, About, Draft, Entry, NewImage, Removed, Store, StoreError};

use crate::cli::{ExportFormat, ImageCommand, JsonArg};
use crate::importer::Converted;
use crate::units::parse_size;
use crate::{importer, resolve};

/// Carries out the command.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn image(command: ImageCommand) -> anyhow::Result<u8> {
    let store = Store::open_or_create()?;
    match command {
        ImageCommand::Import { path, name, reference, max_size, json } => {
            if path == Path::new("-") {
                bail!("standard input can't be imported: write it to a file first, and give its path");
            }
            let budgets = budgets(&max_size)?;
            let name = name.map_or_else(|| name_of(&path), Ok)?;
            announce(
                &import(&store, &path, &name, Options { budgets, reference: reference.as_deref() })?,
                json,
            )
        }
        ImageCommand::Build { recipe, name, json } => {
            announce(&build(&store, &recipe, name.as_deref())?, json)
        }
        ImageCommand::Pull { reference, name, plain_http, max_size, json } => {
            let budgets = budgets(&max_size)?;
            let last = reference.rsplit('/').next().unwrap_or(&reference);
            let name =
                name.map_or_else(|| name_of(Path::new(last.split([':', '@']).next().unwrap_or(last))), Ok)?;
            announce(&pull(&store, &reference, &name, plain_http, budgets)?, json)
        }
        ImageCommand::Ls(json) => list(&store, json.json),
        ImageCommand::Inspect { image, json: _ } => {
            say!("{}", escape::json(&resolve::image(&image)?.entry)?);
            Ok(())
        }
        ImageCommand::Export { image, output, format } => export(&image, &output, format),
        ImageCommand::Rm { images, json } => remove(&store, &images, json),
    }?;
    Ok(0)
}

/// Removes all of them, or nothing where one is missing.
fn remove(store: &Store, images: &[String], json: JsonArg) -> anyhow::Result<()> {
    for image in images {
        store.resolve(image).map_err(|error| resolve::missing(store, image, error))?;
    }
    let mut removed = Vec::new();
    for image in images {
        match store.remove(image) {
            // The same image twice, or another isolab was faster.
            Err(StoreError::NotFound { .. }) => {}
            done => removed.extend(done?),
        }
    }
    if json.json {
        say!("{}", escape::json(&removed)?);
    } else {
        for Removed { what, path, .. } in removed {
            say!("removed {what} {}", path.display());
        }
    }
    Ok(())
}

fn export(image: &str, output: &Path, format: ExportFormat) -> anyhow::Result<()> {
    let resolved = resolve::image(image)?;
    let to_stdout = output == Path::new("-");
    let failed = || format!("export {image:?} to {}", output.display());
    if !to_stdout && output.symlink_metadata().is_ok() {
        bail!("{} exists and is not overwritten; remove it or choose another name", output.display());
    }
    match format {
        ExportFormat::Oci if to_stdout => bail!("an OCI layout is a directory; name one with -o"),
        ExportFormat::Tar if to_stdout => {
            export::tar(&resolved.file, std::io::stdout().lock()).with_context(failed)
        }
        ExportFormat::Tar => {
            let file = File::create_new(output).with_context(failed)?;
            export::tar(&resolved.file, file).with_context(failed).inspect_err(|_| {
                // The first error is the one to tell.
                let _ = std::fs::remove_file(output);
            })
        }
        ExportFormat::Oci => {
            let name = resolved.entry.name.as_deref().unwrap_or("latest");
            export::oci_layout(&resolved.file, &resolved.entry.config, name, output).with_context(failed)
        }
    }
}

/// Imports a path under the name that its file name gives, or gives the entry of an earlier, unchanged import.
///
/// # Errors
/// It can't be imported.
pub(crate) fn import_path(store: &Store, path: &Path) -> anyhow::Result<Entry> {
    let name = name_of(path)?;
    match store.resolve(&name) {
        // Running something moves no name that was given to something else.
        Ok(entry) if entry.source != source_of(path) => bail!(
            "the store has another image called {name:?}, of {}; give this one a name of its own: isolab image import {} --name NAME",
            entry.source.escape_debug(),
            path.display()
        ),
        _ => import(store, path, &name, Options::default()),
    }
}

/// How the store remembers a path that was imported.
fn source_of(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

fn import(store: &Store, path: &Path, name: &str, options: Options<'_>) -> anyhow::Result<Entry> {
    check_new_name(name)?;
    let mut bar = Bar::new(format!("importing {}", path.display()));
    let imported = importer::convert(store, path, options, &mut |p| bar.show(p))?;
    drop(bar);
    keep(store, imported, ImageConfig::default(), source_of(path), name)
}

/// Pulls into a private OCI layout, then imports that as any other.
fn pull(
    store: &Store,
    reference: &str,
    name: &str,
    plain_http: bool,
    budgets: Budgets,
) -> anyhow::Result<Entry> {
    check_new_name(name)?;
    let scratch = store.scratch()?;
    let mut bar = Bar::new(format!("pulling {reference}"));
    let options = PullOptions { plain_http, ..PullOptions::default() };
    let digest =
        isolab_images::pull::pull(reference, scratch.path(), &options, &budgets, &mut |p| bar.show(p))
            .map_err(|error| refused(store, error.remedy(), error))?;
    let options = Options { budgets, reference: None };
    let imported = importer::convert(store, scratch.path(), options, &mut |p| bar.show(p))?;
    drop(bar);
    if imported.1.source_digest != Some(digest) {
        bail!("the registry client left another image than it named, {digest}; nothing was changed");
    }
    keep(store, imported, ImageConfig::default(), reference.to_owned(), name)
}

fn budgets(max_size: &str) -> anyhow::Result<Budgets> {
    Ok(Budgets { decompressed_bytes: parse_size("--max-size", max_size)?, ..Budgets::default() })
}

/// A step that failed, with what to do about it.
fn refused(
    store: &Store,
    remedy: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> anyhow::Error {
    if store::no_space(&error) {
        return store.full().into();
    }
    anyhow::anyhow!("{:#}; {remedy}", anyhow::Error::from(error))
}

/// Refuses what is no name, and the one that stands for the built-in image.
fn check_new_name(name: &str) -> anyhow::Result<()> {
    if name == resolve::DEMO {
        bail!("the name {name:?} is the built-in image's; give another one with --name");
    }
    Ok(Store::check_name(name)?)
}

/// Keeps what the importer wrote.
fn keep(
    store: &Store,
    (draft, converted): (Draft<'_>, Converted),
    defaults: ImageConfig,
    source: String,
    name: &str,
) -> anyhow::Result<Entry> {
    let config = if converted.config == ImageConfig::default() { defaults } else { converted.config };
    let report = serde_json::to_value(&converted.report)?;
    Ok(store.keep(draft, About { config, source, report, name: Some(name) })?)
}

fn build(store: &Store, recipe: &str, name: Option<&str>) -> anyhow::Result<Entry> {
    if recipe == resolve::DEMO && name.is_none() {
        return Ok(resolve::image(resolve::DEMO)?.entry);
    }
    let recipe = Recipe::find(recipe)?;
    let name = name.unwrap_or(&recipe.name).to_owned();
    check_new_name(&name)?;
    eprintln!("isolab: building {name}: {}", recipe.summary);
    let source = format!("recipe {}", recipe.name);
    match recipe.build(WORK, store.spool()?)? {
        Built::Tree(tree, spool) => {
            let about =
                About { config: recipe.config, source, report: serde_json::Value::Null, name: Some(&name) };
            Ok(store.add(NewImage { tree: &tree, spool: &spool, about })?)
        }
        Built::Tar(mut stream) => {
            let scratch = store.scratch()?;
            let path = scratch.path().join("rootfs.tar");
            let mut file = std::fs::File::create_new(&path).context("create the recipe's archive")?;
            if let Err(error) = std::io::copy(&mut stream, &mut file) {
                if store::no_space(&error) {
                    return Err(store.full().into());
                }
                return Err(error).context("build the recipe's archive");
            }
            drop(file);
            let imported = importer::convert(store, &path, Options::default(), &mut |_| ())?;
            keep(store, imported, recipe.config, source, &name)
        }
    }
}

/// The name that a path suggests: its last part up to the first dot, in the store's alphabet.
fn name_of(path: &Path) -> anyhow::Result<String> {
    let full = std::path::absolute(path)?;
    let last = full.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = last.split('.').next().unwrap_or_default();
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '_']).to_owned();
    if name.is_empty() {
        bail!("{} suggests no name; give one with --name", path.display());
    }
    Ok(name)
}

fn announce(entry: &Entry, json: JsonArg) -> anyhow::Result<()> {
    if json.json {
        say!("{}", escape::json(entry)?);
        return Ok(());
    }
    // A report that we can't read is one of another version's: nothing to tell.
    if let Ok(report) = serde_json::from_value::<Report>(entry.report.clone()) {
        for line in lines(&report) {
            eprintln!("isolab: {line}");
        }
    }
    let name = entry.name.as_deref().unwrap_or("-");
    if entry.inodes == 1 {
        eprintln!("isolab: {name} holds no files: nothing can be run in it");
    }
    let inodes = counted(entry.inodes, "inode");
    say!("{name} {} {:.1} MiB, {inodes}", entry.digest, mib(entry.size));
    Ok(())
}

fn list(store: &Store, json: bool) -> anyhow::Result<()> {
    let mut entries = store.list()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if json {
        say!("{}", escape::json(&entries)?);
        return Ok(());
    }
    let width = entries.iter().map(|e| e.name.as_deref().map_or(1, str::len)).max().unwrap_or(0).max(4);
    say!("{:width$}  {:19}  {:>9}  SOURCE", "NAME", "DIGEST", "MiB");
    for entry in entries {
        let name = entry.name.as_deref().unwrap_or("-");
        say!(
            "{name:width$}  {:19}  {:>9.1}  {}",
            entry.digest.get(..19).unwrap_or(&entry.digest),
            mib(entry.size),
            short(&entry.source).escape_debug()
        );
    }
    Ok(())
}

/// With digests cut to twelve digits.
fn short(source: &str) -> String {
    let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|c| c.is_ascii_hexdigit());
    let cut = |word: &str| if is_digest(word) { word[..12].to_owned() } else { word.to_owned() };
    source.split(' ').map(cut).collect::<Vec<_>>().join(" ")
}

/// A number of things.
fn counted(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

fn mib(bytes: u64) -> f64 {
    // Only for people: a MiB more or less at 2^53 bytes does not matter.
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// What an import left out or changed, one line each.
fn lines(report: &Report) -> Vec<String> {
    [
        (report.devices_dropped, "device node", "dropped (each level makes its own /dev)"),
        (report.sockets_dropped, "socket", "dropped"),
        (report.capabilities_dropped, "capability attribute", "dropped"),
        (report.xattrs_dropped, "extended attribute", "outside user.* dropped"),
        (report.set_id_files, "set-id file", "kept (without effect: each level mounts nosuid)"),
    ]
    .into_iter()
    .filter(|(n, ..)| *n > 0)
    .map(|(n, thing, what)| format!("{} {what}", counted(n, thing)))
    .collect()
}

/// A progress line on a terminal; nothing elsewhere.
struct Bar {
    label: String,
    shown: u64,
    on: bool,
}

impl Bar {
    fn new(label: String) -> Self {
        Self { label, shown: 0, on: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: Progress) {
        const STEP: u64 = 4 << 20;
        if self.on && progress.done_bytes >= self.shown + STEP {
            self.shown = progress.done_bytes;
            let total = progress.total_bytes.map_or(String::new(), |t| format!(" of {:.0}", mib(t)));
            let label = self.label.escape_debug();
            eprint!("\r{label}: {:.0}{total} MiB\u{1b}[K", mib(progress.done_bytes));
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.on && self.shown > 0 {
            eprint!("\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_told_as_many() {
        let report = Report { devices_dropped: 1, sockets_dropped: 2, ..Report::default() };
        assert_eq!(
            lines(&report),
            ["1 device node dropped (each level makes its own /dev)", "2 sockets dropped"]
        );
    }

    #[test]
    fn digests_of_sources_are_cut() {
        let source = format!("isolab 0.1.0 recipe demo {}", "a1".repeat(32));
        assert_eq!(short(&source), "isolab 0.1.0 recipe demo a1a1a1a1a1a1");
        assert_eq!(short("/srv/a b.tar"), "/srv/a b.tar");
    }
}
