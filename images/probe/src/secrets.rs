//! Secrets by their usual names, in environments and files. Names only: no value is ever told.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use crate::files::{beginning, open, ways};
use crate::out::Out;
use crate::processes;
use crate::protocol::Spec;

/// Parts of the names that variables with secrets have.
const WORDS: [&str; 10] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIALS",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
];

/// Where systems and tools keep secrets.
const FILES: [&str; 18] = [
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/kubernetes/admin.conf",
    "/run/secrets",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "/root/.ssh/id_rsa",
    "/root/.ssh/id_ecdsa",
    "/root/.ssh/id_ed25519",
    "/root/.aws/credentials",
    "/root/.azure/accessTokens.json",
    "/root/.config/gcloud/application_default_credentials.json",
    "/root/.docker/config.json",
    "/root/.kube/config",
    "/root/.git-credentials",
    "/root/.netrc",
    "/root/.pgpass",
    "/root/.npmrc",
    "/root/.cargo/credentials.toml",
];

/// Most names that are told.
const MOST: usize = 6;

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// P29: variables and files that are named as secrets are. What the image's configuration and the image itself give is
/// counted, and no more than that.
pub(crate) fn names(spec: &Spec, out: &Out<'_>) {
    let is_given = |name: &String| spec.env_names.contains(name);
    let own = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let (given, more): (Vec<String>, Vec<String>) = own.filter(|name| is_secret(name)).partition(is_given);
    if more.is_empty() {
        out.hidden("own environment", &format!("{} such names, of the job's own", given.len()));
    } else {
        out.reached("own environment", &more.join(" "));
    }
    others(spec, out);
    own_files(out);
    foreign_files(out);
    planted(spec, out);
}

/// Environments of other processes: a variable that the job does not have.
fn others(spec: &Spec, out: &Out<'_>) {
    let own = i32::try_from(std::process::id()).ok();
    let (mut read, mut found) = (0, Vec::new());
    for pid in processes::numbers().into_iter().filter(|pid| Some(*pid) != own) {
        let Ok(text) = beginning(format!("/proc/{pid}/environ"), 256 << 10) else { continue };
        read += 1;
        let names = text.split('\0').filter_map(|entry| entry.split_once('=')).map(|(name, _)| name);
        let more = names.filter(|name| is_secret(name) && !spec.env_names.iter().any(|n| n == name));
        found.extend(more.map(|name| format!("{name} of process {pid}")));
    }
    // The planted one first: the machine may have any others.
    found.sort_by_key(|name| !name.starts_with(&spec.planted.secret_variable));
    found.truncate(MOST);
    if found.is_empty() {
        out.hidden("other environments", &format!("no such name in {read} environments"));
    } else {
        out.reached("other environments", &found.join(", "));
    }
}

/// Whether there is something in it that can be read.
fn holds(path: &str) -> bool {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
        Ok(meta) if meta.is_file() => {
            open(path, libc::O_NONBLOCK).is_ok_and(|mut file| matches!(file.read(&mut [0]), Ok(1)))
        }
        _ => false,
    }
}

/// Files below the own root: the image's, unless something else is mounted there.
fn own_files(out: &Out<'_>) {
    let mounts = beginning("/proc/self/mountinfo", 256 << 10).unwrap_or_default();
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let is_mounted = |path: &&&str| {
        points.iter().any(|point| *point != "/" && (path == &point || path.starts_with(&format!("{point}/"))))
    };
    let there: Vec<&&str> = FILES.iter().filter(|path| holds(path)).collect();
    let given: Vec<&str> = there.iter().copied().filter(is_mounted).copied().collect();
    if given.is_empty() {
        let mut said = format!("{} of {} names", there.len(), FILES.len());
        if !there.is_empty() {
            said.push_str(", of the image itself: ");
            said.push_str(&there.iter().map(|path| **path).collect::<Vec<_>>().join(" "));
        }
        out.hidden("own files", &said);
    } else {
        out.reached("own files", &given.join(" "));
    }
}

/// Files below the roots of other processes, where those are other directories.
fn foreign_files(out: &Out<'_>) {
    let id = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let own = id("/");
    let mut found = Vec::new();
    for [_, first, planted] in FILES.map(ways) {
        // A path that ends in the root itself follows the link.
        let is_foreign = |way: &&String| {
            let root = way.split_inclusive("/root").next().map(|root| format!("{root}/"));
            root.and_then(|root| id(&root)).is_some_and(|root| Some(root) != own)
        };
        found.extend([first, planted].iter().filter(is_foreign).find(|way| holds(way)).cloned());
    }
    found.truncate(MOST);
    if found.is_empty() {
        out.hidden("files of others", &format!("none of {} names below another root", FILES.len()));
    } else {
        out.reached("files of others", &found.join(" "));
    }
}

fn planted(spec: &Spec, out: &Out<'_>) {
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for way in ways(&spec.planted.secret_file) {
        match beginning(&way, 256) {
            Ok(text) if text == spec.planted.nonce => return out.reached("planted file", &way),
            Err(e) if e.kind() != io::ErrorKind::NotFound => error = e,
            _ => {}
        }
    }
    match error.kind() {
        io::ErrorKind::NotFound => out.hidden("planted file", "no file of that name"),
        _ => out.io("planted file", &error, ""),
    }
}
