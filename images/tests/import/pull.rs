//! Pulling from a registry on loopback.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use isolab_images::budget::Budgets;
use isolab_images::pull::{PullOptions, pull};

use crate::samples::{import, listing, make_images, missing, run};

/// Debian's registry on a free port; it ends with the value.
struct Registry(Child);

impl Registry {
    /// Starts it and waits for the line that names its port.
    fn start(dir: &Path) -> (Self, String) {
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            dir.join("registry").display()
        );
        fs::write(dir.join("config.yml"), config).expect("config");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("registry starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening on")));
        let line = line.expect("the registry listens").expect("text");
        // The rest of its log has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let (_, rest) = line.split_once("127.0.0.1:").expect("an address");
        let port = rest.split(|c: char| !c.is_ascii_digit()).next().expect("a port");
        (Self(child), format!("127.0.0.1:{port}"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pulled_image_is_the_one_that_was_pushed() {
    if missing(&["umoci", "skopeo", "docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    make_images(dir.path(), 50_000);
    let (_registry, address) = Registry::start(dir.path());
    // By name, so that the resolver takes part.
    let by_name = address.replace("127.0.0.1", "localhost");
    run(
        dir.path(),
        &format!(
            "skopeo --insecure-policy copy --dest-tls-verify=false oci:layout:latest docker://{address}/team/busybox:1"
        ),
    );
    let get = |name: &str, into: &str, budgets: &Budgets| {
        let into = dir.path().join(into);
        fs::create_dir(&into).expect("directory");
        let mut seen = 0;
        let mut progress = |p: isolab_images::source::Progress| seen = p.done_bytes;
        let result =
            pull(&format!("{by_name}/{name}"), &into, &PullOptions::default(), budgets, &mut progress);
        (result, seen, into)
    };
    let (digest, seen, into) = get("team/busybox:1", "pulled", &Budgets::default());
    let digest = digest.expect("pulled");
    assert!(seen > 10_000, "{seen}");
    let imported = import(&into).expect("imported");
    assert_eq!(imported.source_digest, Some(digest));
    let pushed = import(&dir.path().join("layout")).expect("layout");
    assert_eq!(listing(&imported), listing(&pushed));
    assert_eq!(imported.config, pushed.config);
    let (by_digest, _, _) = get(&format!("team/busybox@{digest}"), "by-digest", &Budgets::default());
    assert_eq!(by_digest.expect("pulled by digest"), digest);
    let (missing, _, into) = get("team/none:1", "none", &Budgets::default());
    assert!(missing.expect_err("no such image").to_string().starts_with("get the manifest of"));
    assert!(!into.join("index.json").exists());
    let small = Budgets { decompressed_bytes: 1000, ..Budgets::default() };
    let (large, _, _) = get("team/busybox:1", "large", &small);
    assert!(large.expect_err("too large").to_string().contains("1000 bytes to download"));
    damaged_on_the_server(dir.path(), &address);
}

/// A registry that serves other bytes than it promises.
fn damaged_on_the_server(dir: &Path, address: &str) {
    let blobs = dir.join("registry/docker/registry/v2/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .expect("blobs")
        .flat_map(|entry| fs::read_dir(entry.expect("entry").path()).expect("digests"))
        .map(|entry| entry.expect("entry").path().join("data"))
        .max_by_key(|path| path.metadata().map_or(0, |meta| meta.len()))
        .expect("a blob");
    let mut bytes = fs::read(&largest).expect("blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).expect("damaged");
    let into = dir.join("damaged");
    fs::create_dir(&into).expect("directory");
    let name = format!("{address}/team/busybox:1");
    let result = pull(&name, &into, &PullOptions::default(), &Budgets::default(), &mut |_| {});
    result.expect_err("a damaged blob is refused");
    assert!(!into.join("index.json").exists());
}
