//! Images made with umoci and skopeo from Debian's busybox, and trees as text.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use isolab_images::budget::Budgets;
use isolab_images::source::{Imported, Options, read};
use isolab_images::tree::{InodeId, Kind, Spool, Tree};

pub(crate) type Listing = BTreeMap<String, String>;

pub(crate) fn import(path: &Path) -> Result<Imported, String> {
    let spool = Spool::from_file(tempfile::tempfile().expect("temporary file")).expect("empty spool");
    let options = Options { budgets: Budgets::default(), reference: None };
    read(path, options, spool, &mut |_| {}).map_err(|error| {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(error) = next {
            text = format!("{text}: {error}");
            next = error.source();
        }
        text
    })
}

/// Every path with type, mode, owner, links and content.
pub(crate) fn listing(imported: &Imported) -> Listing {
    let mut out = Listing::new();
    let mut links = BTreeMap::new();
    walk(imported, Tree::ROOT, String::new(), &mut links, &mut out);
    out
}

fn walk(
    imported: &Imported,
    id: InodeId,
    path: String,
    links: &mut BTreeMap<InodeId, String>,
    out: &mut Listing,
) {
    let inode = imported.tree.inode(id);
    let first = links.entry(id).or_insert_with(|| path.clone()).clone();
    let what = match &inode.kind {
        Kind::Dir(_) => "dir".to_string(),
        Kind::File(content) => {
            format!("file {first} {:?}", imported.spool.read(*content).expect("content in the spool"))
        }
        Kind::Symlink(target) => format!("link {}", target.escape_ascii()),
        Kind::Fifo => format!("fifo {first}"),
    };
    let meta = inode.meta;
    let line = format!("{:o} {}:{} {:?} {what}", meta.mode, meta.uid, meta.gid, inode.xattrs);
    out.insert(path.clone(), line);
    if let Kind::Dir(names) = &inode.kind {
        for (name, &child) in names {
            walk(imported, child, format!("{path}/{}", name.escape_ascii()), links, out);
        }
    }
}

/// The same from a real directory.
pub(crate) fn listing_of_dir(root: &Path) -> Listing {
    fn visit(at: &Path, path: String, links: &mut BTreeMap<u64, String>, out: &mut Listing) {
        let meta = at.symlink_metadata().expect("stat");
        let first = links.entry(meta.ino()).or_insert_with(|| path.clone()).clone();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            "dir".to_string()
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(at).expect("link").display())
        } else if kind.is_file() {
            format!("file {first} {:?}", fs::read(at).expect("content"))
        } else {
            format!("fifo {first}")
        };
        let mut value = [0; 64];
        let found = rustix::fs::lgetxattr(at, "user.note", &mut value[..]).ok();
        let xattrs: BTreeMap<_, _> =
            found.map(|len| (b"user.note".to_vec(), value[..len].to_vec())).into_iter().collect();
        let mode = meta.permissions().mode() & 0o7777;
        out.insert(path.clone(), format!("{mode:o} {}:{} {xattrs:?} {what}", meta.uid(), meta.gid()));
        if kind.is_dir() {
            let names = fs::read_dir(at).expect("directory").map(|entry| entry.expect("entry").file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            for name in names {
                visit(&at.join(&name), format!("{path}/{}", name.display()), links, out);
            }
        }
    }
    let mut out = Listing::new();
    visit(root, String::new(), &mut BTreeMap::new(), &mut out);
    out
}

pub(crate) fn missing(tools: &[&str]) -> bool {
    let missing = tools.iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    if let Some(tool) = missing {
        println!("skipped: {tool}");
    }
    missing.is_some()
}

pub(crate) fn run(dir: &Path, line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).current_dir(dir).output();
    let output = output.expect("program starts");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A small root filesystem with links of both kinds, a pipe and set-id bits.
pub(crate) fn make_rootfs(root: &Path, program_bytes: usize) {
    for dir in ["bin", "etc", "tmp", "var/empty/deep", "gone"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    let busybox = Path::new("/bin/busybox");
    let program =
        if busybox.exists() { busybox.to_path_buf() } else { std::env::current_exe().expect("self") };
    let bytes = fs::read(program).expect("a program");
    fs::write(root.join("bin/busybox"), &bytes[..bytes.len().min(program_bytes)]).expect("file");
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o4755)).expect("mode");
    fs::hard_link(root.join("bin/busybox"), root.join("bin/ash")).expect("hard link");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("symlink");
    std::os::unix::fs::symlink("/../../etc/passwd", root.join("etc/odd")).expect("symlink");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("file");
    fs::write(root.join(format!("etc/{}", "n".repeat(200))), "long\n").expect("file");
    fs::write(root.join("gone/lower"), "lower\n").expect("file");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
    for name in ["etc/passwd", "tmp"] {
        let set =
            rustix::fs::setxattr(root.join(name), "user.note", b"kept\0", rustix::fs::XattrFlags::CREATE);
        if set.is_err() {
            println!("skipped: extended attributes on this filesystem");
        }
    }
    run(root, "mkfifo var/pipe");
}

/// `layout` (two layers, one whiteout), `docker.tar`, `oci.tar`, `zstd` and umoci's own unpacked `bundle`.
pub(crate) fn make_images(dir: &Path, program_bytes: usize) {
    run(dir, "umoci init --layout layout");
    run(dir, "umoci new --image layout:latest");
    run(dir, "umoci unpack --image layout:latest work");
    make_rootfs(&dir.join("work/rootfs"), program_bytes);
    run(dir, "umoci repack --refresh-bundle --image layout:latest work");
    let root = dir.join("work/rootfs");
    fs::remove_dir_all(root.join("gone")).expect("removed");
    fs::remove_file(root.join("bin/ash")).expect("removed");
    fs::write(root.join("etc/second"), "2\n").expect("file");
    run(dir, "umoci repack --image layout:latest work");
    run(dir, "umoci config --image layout:latest --config.cmd=/bin/sh --config.env=A=b --config.user=1:2");
    run(dir, "umoci gc --layout layout");
    run(dir, "umoci unpack --image layout:latest bundle");
    run(dir, "skopeo --insecure-policy copy oci:layout:latest docker-archive:docker.tar:busybox:latest");
    run(dir, "skopeo --insecure-policy copy oci:layout:latest oci-archive:oci.tar:latest");
    run(dir, "skopeo --insecure-policy copy --dest-compress-format zstd oci:layout:latest oci:zstd:latest");
}
