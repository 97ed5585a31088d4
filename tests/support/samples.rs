//! Images by other tools (umoci, skopeo), and trees of directories as text.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

/// Runs a tool to its end in a directory, which must go well; gives what it printed.
pub(crate) fn tool(dir: &Path, line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let command = Command::new(program).args(words).current_dir(dir).stdin(Stdio::null()).output();
    let output = command.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Bytes that don't compress.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// An image of busybox as an OCI layout (one layer, tag `latest`) and as a docker archive, made by umoci and skopeo.
pub(crate) fn busybox(dir: &Path) -> (PathBuf, PathBuf) {
    tool(dir, "umoci init --layout layout");
    tool(dir, "umoci new --image layout:latest");
    tool(dir, "umoci unpack --image layout:latest bundle");
    let root = dir.join("bundle/rootfs");
    fs::create_dir_all(root.join("bin")).expect("create");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("link");
    tool(dir, "umoci repack --image layout:latest bundle");
    tool(dir, "umoci config --image layout:latest --config.cmd /bin/sh");
    tool(dir, "umoci gc --layout layout");
    let to = "docker-archive:docker.tar:busybox:latest";
    tool(dir, &format!("skopeo copy --insecure-policy -q oci:layout:latest {to}"));
    (dir.join("layout"), dir.join("docker.tar"))
}

/// Every path below a directory with type, mode, owner, time, `user.` attributes, links and contents. Devices and sockets
/// are left out: so does the import.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let (mut out, mut first_names) = (BTreeMap::new(), BTreeMap::new());
    visit(root, String::new(), &mut first_names, &mut out);
    out
}

fn visit(
    at: &Path,
    path: String,
    first_names: &mut BTreeMap<u64, String>,
    out: &mut BTreeMap<String, String>,
) {
    let meta = at.symlink_metadata().expect("stat");
    let kind = meta.file_type();
    if kind.is_block_device() || kind.is_char_device() || kind.is_socket() {
        return;
    }
    let first = first_names.entry(meta.ino()).or_insert_with(|| path.clone()).clone();
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("link {}", fs::read_link(at).expect("link").display())
    } else if kind.is_file() {
        format!("file {first} {} {:x?}", meta.size(), Sha256::digest(fs::read(at).expect("content")))
    } else {
        format!("fifo {first}")
    };
    out.insert(
        path.clone(),
        format!(
            "{:o} {}:{} {}.{:09} {:?} {what}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            attributes(at)
        ),
    );
    if kind.is_dir() {
        // In order: the first name of several is then the same everywhere.
        let names = fs::read_dir(at).expect("directory").map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        for name in names {
            visit(&at.join(&name), format!("{path}/{}", name.display()), first_names, out);
        }
    }
}

/// The extended attributes under `user.`.
fn attributes(at: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(at, &mut names[..]).unwrap_or(0);
    let names = names[..len].split(|&b| b == 0).map(String::from_utf8_lossy);
    let of_user = names.filter(|name| name.starts_with("user."));
    of_user
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rustix::fs::lgetxattr(at, &*name, &mut value[..]).expect("attribute");
            value.truncate(len);
            (name.into_owned(), value)
        })
        .collect()
}

/// Where two trees differ first; nothing where they are equal.
pub(crate) fn difference(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Option<String> {
    let differs = |path: &&String| a.get(*path) != b.get(*path);
    let path = a.keys().chain(b.keys()).find(differs)?;
    Some(format!("{path}: {:?} and {:?}", a.get(path), b.get(path)))
}
