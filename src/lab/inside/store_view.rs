//! The store of the lab: images are block devices under the names of the store's files.
//!
//! `images/sha256-HEX.erofs` is a device node, `images/sha256-HEX.json` the host's record with the stamp of that node:
//! the store trusts an image whose file still has the stamp in its record, and the host has checked this one before it
//! handed it in. Files below `names/` are the host's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use super::super::protocol::JobImage;

/// Makes the image on block device `device` an entry of the store at `home`.
pub(super) fn place(home: &Path, image: &JobImage, device: &Path) -> Result<()> {
    let Some(hex) = image.digest.strip_prefix("sha256:").filter(|hex| is_hex(hex)) else {
        bail!("{} is not a digest", image.digest);
    };
    let (images, names) = (home.join("images"), home.join("names"));
    for dir in [&images, &names] {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let node = images.join(format!("sha256-{hex}.erofs"));
    let number = fs::metadata(device).with_context(|| format!("look at {}", device.display()))?;
    mknodat(CWD, &node, FileType::BlockDevice, Mode::from_raw_mode(0o444), number.rdev())
        .with_context(|| format!("create {}", node.display()))?;
    let mut record: serde_json::Value =
        serde_json::from_str(&image.record).context("read the image's record")?;
    let meta = fs::symlink_metadata(&node).with_context(|| format!("look at {}", node.display()))?;
    record["stamp"] = json!({
        "dev": meta.dev(),
        "ino": meta.ino(),
        "size": meta.size(),
        "mtime_s": meta.mtime(),
        "mtime_ns": meta.mtime_nsec(),
        "ctime_s": meta.ctime(),
        "ctime_ns": meta.ctime_nsec(),
    });
    write(&node.with_extension("json"), record.to_string())?;
    for (file, record) in &image.names {
        write(&names.join(file), record.clone())?;
    }
    Ok(())
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

fn write(path: &Path, content: String) -> Result<()> {
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}
