//! From what was typed to what is run: the image by name or path, the job by image and options.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use isolab_images::job::Job;
use isolab_images::programs::{WORK, WORK_DIGEST};
use isolab_images::recipes::{Built, Recipe};
use isolab_images::store::{About, Entry, NewImage, Store, StoreError};
use isolab_images::users;

use crate::config::JobConfig;
use crate::{hint, image};

/// The image that is built in.
pub(crate) const DEMO: &str = "demo";
/// What a command without a path is looked up in, where the image says nothing.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image of the store, opened and verified.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Its entry.
    pub(crate) entry: Entry,
    /// The descriptor that was verified and is the one to mount.
    pub(crate) file: File,
}

/// The image of a store name, a digest, `demo`, or a path, which is imported on first use.
///
/// # Errors
/// There is none, or it can't be imported or verified.
pub(crate) fn image(wanted: &str) -> anyhow::Result<Resolved> {
    let store = Store::open_or_create()?;
    let entry = match store.resolve(wanted) {
        // A store from another build has another demo.
        Ok(entry) if wanted == DEMO && entry.source != demo_source() => demo(&store)?,
        Ok(entry) => entry,
        Err(StoreError::NotFound { .. }) if wanted == DEMO => demo(&store)?,
        Err(StoreError::NotFound { .. }) if wanted.contains('/') || Path::new(wanted).exists() => {
            image::import_path(&store, Path::new(wanted))?
        }
        Err(error) => return Err(missing(&store, wanted, error)),
    };
    let file = entry.open()?;
    Ok(Resolved { entry, file })
}

/// Why an image of the store can't be had, with the nearest name where there is none of this one.
pub(crate) fn missing(store: &Store, wanted: &str, error: StoreError) -> anyhow::Error {
    /// Names less alike than this have nothing to do with each other.
    const ALIKE: f64 = 0.75;
    if !matches!(error, StoreError::NotFound { .. }) {
        return error.into();
    }
    let names = store.list().into_iter().flatten().filter_map(|entry| entry.name);
    let alike = names.map(|name| (strsim::jaro_winkler(&name, wanted), name));
    let nearest = alike.filter(|(alike, _)| *alike >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    let nearest = nearest.as_ref().map(|(_, name)| name.as_str());
    let hint = hint::image_missing(wanted, nearest, Recipe::find(wanted).is_ok());
    anyhow::anyhow!("{}; {}", hint.reason, hint.remedy)
}

fn demo_source() -> String {
    format!("isolab {} recipe demo {}", env!("CARGO_PKG_VERSION"), WORK_DIGEST)
}

fn demo(store: &Store) -> anyhow::Result<Entry> {
    let recipe = Recipe::find(DEMO)?;
    let Built::Tree(tree, spool) = recipe.build(WORK, store.spool()?)? else {
        bail!("recipe demo gives no tree");
    };
    let about = About {
        config: recipe.config,
        source: demo_source(),
        report: serde_json::Value::Null,
        name: Some(DEMO),
    };
    store.add(NewImage { tree: &tree, spool: &spool, about }).context("build the image demo")
}

/// The job: options over the image's own configuration.
///
/// # Errors
/// No command, or a user that the image does not know.
pub(crate) fn job(config: &JobConfig, image: &Resolved, marks: bool) -> anyhow::Result<Job> {
    let defaults = &image.entry.config;
    let argv: Vec<String> = if config.command.is_empty() {
        defaults.entrypoint.iter().chain(&defaults.cmd).cloned().collect()
    } else {
        config.command.clone()
    };
    if argv.is_empty() {
        bail!("image {:?} names no command of its own; give one after --", config.image);
    }
    let mut env = defaults.env.clone();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    if matches!(config.stdio, isolab_images::job::Stdio::Terminal { .. }) {
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".into());
        env.push(format!("TERM={term}"));
    }
    for entry in &config.env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        env.retain(|old| old.split_once('=').is_none_or(|(n, _)| n != name));
        env.push(entry.clone());
    }
    let user = config.user.as_deref().or(defaults.user.as_deref());
    Ok(Job {
        image: image.entry.digest.clone(),
        argv,
        env,
        workdir: config.workdir.clone().or_else(|| defaults.workdir.clone()).unwrap_or_else(|| "/".into()),
        user: users::resolve(&image.file, user)?,
        hostname: config.hostname.clone(),
        memory_bytes: config.memory_bytes,
        cpus: config.cpus,
        pids: config.pids,
        read_only: config.read_only,
        stdio: config.stdio,
        timeout: config.timeout,
        marks,
    })
}
