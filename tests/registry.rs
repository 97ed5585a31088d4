//! `isolab image pull` from Debian's docker-registry on loopback.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::samples::{busybox, tool};
use support::{Done, run_in};

/// A registry on a free port; it ends with the value.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    /// Starts it and waits for the line that names its port.
    fn start(dir: &Path) -> Self {
        let storage = dir.join("registry");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        fs::write(dir.join("config.yml"), config).expect("config");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("listening on")).expect("the registry listens");
        // The rest of its log has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let (_, rest) = line.split_once("127.0.0.1:").expect("an address");
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Self { child, address: format!("127.0.0.1:{port}") }
    }

    fn pull(&self, home: &Path, what: &str, name: &str) -> Done {
        run_in(home, &["image", "pull", &format!("{}/team/busybox{what}", self.address), "--name", name])
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pull was refused in one line that has each of these words, and nothing is left of it.
fn refused(home: &Path, result: &Done, words: &[&str]) {
    assert_eq!((result.status, result.stdout.as_str()), (Some(125), ""), "{}", result.stderr);
    assert_eq!(result.stderr.lines().count(), 1, "{}", result.stderr);
    for word in words {
        assert!(result.stderr.contains(word), "{word}: {}", result.stderr);
    }
    for dir in ["tmp", "scratch"] {
        assert_eq!(fs::read_dir(home.join(dir)).expect("list").count(), 0, "{dir}: {}", result.stderr);
    }
}

fn json(result: &Done) -> Value {
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    serde_json::from_str(&result.stdout).expect("JSON")
}

/// Data file of the largest blob in the registry's storage, which is the layer, with its digest.
fn layer(dir: &Path) -> (PathBuf, String) {
    let blobs = dir.join("registry/docker/registry/v2/blobs/sha256");
    let all = fs::read_dir(blobs)
        .expect("blobs")
        .flat_map(|e| fs::read_dir(e.expect("entry").path()).expect("blobs"));
    let path = all
        .map(|e| e.expect("entry").path())
        .max_by_key(|p| fs::metadata(p.join("data")).map_or(0, |m| m.len()));
    let path = path.expect("a blob");
    let digest = path.file_name().expect("name").to_string_lossy().into_owned();
    (path.join("data"), digest)
}

#[test]
fn an_image_is_pulled_by_tag_and_by_digest_and_every_refusal_names_its_cause() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (layout, _) = busybox(dir.path());
    let registry = Registry::start(dir.path());
    let to = format!("docker://{}/team/busybox", registry.address);
    tool(
        dir.path(),
        &format!("skopeo copy --insecure-policy -q --dest-tls-verify=false oci:layout:latest {to}:1.0"),
    );
    let manifest = tool(dir.path(), &format!("skopeo inspect --tls-verify=false {to}:1.0"));
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let digest = manifest["Digest"].as_str().expect("digest");

    let home = dir.path().join("home");
    let path = layout.to_str().expect("UTF-8");
    let of_layout = json(&run_in(&home, &["image", "import", "--json", path, "--name", "of-layout"]));
    let reference = format!("{}/team/busybox:1.0", registry.address);
    let pulled = json(&run_in(&home, &["image", "pull", "--json", &reference]));
    assert_eq!((&pulled["name"], &pulled["source"]), (&Value::from("busybox"), &Value::from(reference)));
    assert_eq!((&pulled["digest"], &pulled["config"]), (&of_layout["digest"], &of_layout["config"]));
    let result = registry.pull(&home, &format!("@{digest}"), "by-digest");
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert_eq!(result.stderr, "", "no progress where no terminal is");
    assert!(result.stdout.starts_with("by-digest sha256:"), "{}", result.stdout);
    let ran = run_in(&home, &["run", "by-digest", "--", "/bin/sh", "-c", "echo pulled"]);
    assert_eq!(ran.stdout, "pulled\n", "{}", ran.stderr);

    let before = run_in(&home, &["image", "ls", "--json"]).stdout;
    let refusal = |what: &str, name: &str, words: &[&str]| {
        refused(&home, &registry.pull(&home, what, name), words);
    };
    refusal(":2.0", "x", &["team/busybox:2.0", "check name, tag"]);
    let other = format!("sha256:{}", "0".repeat(64));
    refusal(&format!("@{other}"), "x", &[&other, "check name, tag"]);
    refusal("/none:1", "x", &["team/busybox/none:1", "check name, tag"]);
    refusal(":1.0", "not a name", &["`not a name`", "is not a name"]);
    let (path, hex) = layer(dir.path());
    let whole = fs::read(&path).expect("blob");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() / 2]] {
        fs::write(&path, bytes).expect("blob");
        refusal(":1.0", "x", &[&hex, "push the image again"]);
    }
    fs::remove_file(&path).expect("removed");
    refusal(":1.0", "x", &[&hex]);
    fs::write(&path, &whole).expect("blob");
    let address = registry.address.clone();
    drop(registry);
    let stopped = run_in(&home, &["image", "pull", &format!("{address}/team/busybox:1.0"), "--name", "x"]);
    refused(&home, &stopped, &[&address, "check the address"]);
    assert_eq!(run_in(&home, &["image", "ls", "--json"]).stdout, before);
}

/// What a client says first to a registry of this name, and how the pull ends.
fn first_bytes(home: &Path, host: &str, flags: &[&str]) -> (Vec<u8>, Done) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
    let port = listener.local_addr().expect("address").port();
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("a client");
        let mut start = [0; 4];
        connection.read_exact(&mut start).expect("a request");
        let _ = connection.write_all(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        start.to_vec()
    });
    let reference = format!("{host}:{port}/a:1");
    let done = run_in(home, &[&["image", "pull", &reference, "--name", "x"], flags].concat());
    (server.join().expect("served"), done)
}

#[test]
fn plain_http_is_spoken_to_loopback_or_when_asked_for() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let home = dir.path().join("home");
    let (start, done) = first_bytes(&home, "127.0.0.1", &[]);
    assert_eq!(start, b"GET ", "plain HTTP");
    refused(&home, &done, &["127.0.0.1"]);
    // A name of this machine that is not `localhost` and no address: a registry like any other.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux").trim().to_owned();
    let this_machine = (host.as_str(), 0_u16);
    let loops = std::net::ToSocketAddrs::to_socket_addrs(&this_machine)
        .is_ok_and(|mut all| all.all(|address| address.ip().is_loopback()));
    if !loops || host == "localhost" {
        println!("skipped: the host name leads to another address than loopback");
        return;
    }
    let (start, done) = first_bytes(&home, &host, &[]);
    assert_eq!(start[..2], [0x16, 3], "TLS");
    refused(&home, &done, &[&host, "--plain-http"]);
    let (start, _) = first_bytes(&home, &host, &["--plain-http"]);
    assert_eq!(start, b"GET ", "plain HTTP");
}
