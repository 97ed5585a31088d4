//! The store through the commands: names, export and back, removal, several isolabs at once, kills.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::samples::{busybox, difference, noise, tool, tree};
use support::{Done, isolab, run_in};

/// A store of its own, and sources for it.
struct Home {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("home");
        Self { dir, path }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn run(&self, args: &[&str]) -> Done {
        run_in(&self.path, args)
    }

    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.status, Some(0), "{args:?}: {}", done.stderr);
        done.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }

    /// Refused in one line with these words.
    fn refuses(&self, args: &[&str], words: &[&str]) {
        let done = self.run(args);
        assert_eq!((done.status, done.stdout.as_str()), (Some(125), ""), "{args:?}: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        for word in words {
            assert!(done.stderr.contains(word), "{args:?}: no {word:?} in {}", done.stderr);
        }
    }

    /// Starts a command in this store.
    fn start(&self, args: &[&str]) -> Child {
        let mut command = isolab(args);
        command
            .env("ISOLAB_HOME", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("isolab starts")
    }

    /// A root directory with one file of so many bytes.
    fn root(&self, name: &str, bytes: usize) -> String {
        let root = self.dir.path().join(name);
        fs::create_dir(&root).expect("directory");
        fs::write(root.join("noise"), noise(bytes)).expect("file");
        self.at(name)
    }

    fn count(&self, part: &str) -> usize {
        fs::read_dir(self.path.join(part)).expect("list").count()
    }
}

#[test]
fn names_lead_to_images_and_an_unknown_one_is_answered_with_the_nearest() {
    let home = Home::new();
    let (one, two) = (home.root("one", 1000), home.root("two", 2000));
    let first = home.json(&["image", "import", "--json", &one, "--name", "team/alpha:1"]);
    let digest = first["digest"].as_str().expect("digest");
    home.ok(&["image", "import", &one, "--name", "beta"]);
    let listed = home.json(&["image", "ls", "--json"]);
    let names: Vec<_> = listed.as_array().expect("list").iter().map(|e| (&e["name"], &e["digest"])).collect();
    let (first, second) = (serde_json::json!("team/alpha:1"), serde_json::json!("beta"));
    let digest_value = serde_json::json!(digest);
    assert!(
        names.contains(&(&first, &digest_value)) && names.contains(&(&second, &digest_value)),
        "{listed}"
    );
    assert_eq!(names.len(), 2, "{listed}");
    for wanted in ["beta", "team/alpha:1", digest, &digest[7..19]] {
        assert_eq!(home.json(&["image", "inspect", "--json", wanted])["digest"], digest, "{wanted}");
    }
    // The name of a file is the image's where none is given.
    assert_eq!(home.json(&["image", "import", "--json", &two])["name"], "two");
    // The same name again: it moves, and gc takes what has no name any more.
    let moved = home.json(&["image", "import", "--json", &two, "--name", "beta"]);
    assert_ne!(moved["digest"], digest);
    assert_eq!(home.json(&["image", "inspect", "beta"])["digest"], moved["digest"]);
    assert_eq!(home.ok(&["image", "rm", "team/alpha:1"]).lines().count(), 3, "name, record, image");
    home.refuses(&["image", "inspect", digest], &["no image", digest]);
    home.refuses(&["image", "inspect", "betta"], &["no image \"betta\"", "did you mean beta?"]);
    home.refuses(&["image", "export", "betta", "-o", "-"], &["did you mean beta?"]);
    home.refuses(&["run", "betta"], &["did you mean beta?"]);
    home.refuses(&["run", "busybox"], &["no image \"busybox\"", "isolab image build busybox"]);
    home.refuses(&["image", "rm", "two", "betta"], &["did you mean beta?"]);
    home.refuses(&["image", "inspect", "nothing-like-it"], &["isolab image ls", "isolab image import"]);
    home.refuses(&["image", "import", &two, "--name", "a b"], &["`a b`", "is not a name"]);
    home.refuses(&["image", "import", &two, "--name", "../x"], &["`../x`", "is not a name"]);
    home.refuses(&["image", "build", "debiam"], &["debiam", "debian"]);
    let removed = home.json(&["image", "rm", "--json", "two", "beta"]);
    let what: Vec<&str> =
        removed.as_array().expect("list").iter().filter_map(|r| r["what"].as_str()).collect();
    assert_eq!(what, ["name", "name", "record", "image"], "nothing was removed before, all is now");
    assert_eq!(home.json(&["image", "ls", "--json"]), serde_json::json!([]));
    assert_eq!((home.count("images"), home.count("names"), home.count("tmp")), (0, 0, 0));
}

#[test]
fn what_is_exported_comes_back_as_the_same_image() {
    let home = Home::new();
    busybox(home.dir.path());
    let first = home.json(&["image", "import", "--json", &home.at("layout"), "--name", "first"]);
    home.ok(&["image", "export", "first", "-o", &home.at("first.tar")]);
    let mut child = home.start(&["image", "export", "first", "-o", "-"]);
    let mut stdout = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut stdout).expect("tar");
    assert!(child.wait().expect("ends").success());
    assert!(
        stdout == fs::read(home.at("first.tar")).expect("tar"),
        "a file and standard output say the same"
    );
    home.ok(&["image", "export", "first", "--format", "oci", "-o", &home.at("oci")]);
    for source in ["first.tar", "oci"] {
        let back = home.json(&["image", "import", "--json", &home.at(source), "--name", "back"]);
        assert_eq!(back["digest"], first["digest"], "{source}");
        assert!(source != "oci" || back["config"] == first["config"], "{}", back["config"]);
    }
    // Judges: tar and umoci unpack the files that went in.
    fs::create_dir(home.at("out")).expect("directory");
    tool(home.dir.path(), "tar --xattrs -xpf first.tar -C out");
    tool(home.dir.path(), "umoci unpack --image oci:first judge");
    let (out, judge) = (tree(Path::new(&home.at("out"))), tree(Path::new(&home.at("judge/rootfs"))));
    assert_eq!(difference(&out, &judge), None);
    assert!(out.contains_key("/bin/busybox"));
    // Nothing is overwritten, nothing half-written stays.
    for (format, to) in [("tar", "first.tar"), ("oci", "oci"), ("tar", "out"), ("oci", "first.tar")] {
        home.refuses(
            &["image", "export", "first", "--format", format, "-o", &home.at(to)],
            &[to, "exists and is not overwritten"],
        );
    }
    assert!(fs::read(home.at("first.tar")).expect("tar") == stdout);
    home.refuses(&["image", "export", "first", "-o", &home.at("no/such/dir.tar")], &["no/such/dir.tar"]);
    home.refuses(&["image", "export", "first", "--format", "oci", "-o", "-"], &["directory"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = Home::new();
    home.ok(&["image", "import", &home.root("large", 4 << 20), "--name", "large"]);
    for args in [
        &["image", "export", "large", "-o", "-"][..],
        &["image", "ls"],
        &["image", "ls", "--json"],
        &["image", "inspect", "large"],
        &["kernel", "ls"],
        &["explain"],
        &["completions", "bash"],
    ] {
        let mut child = home.start(args);
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        // Short output may be written before the reader is gone.
        let quiet = output.status.signal() == Some(13) || output.status.success();
        assert!(quiet, "{args:?}: {:?}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn a_kernel_build_without_its_tools_names_them_and_leaves_nothing() {
    let home = Home::new();
    let mut command = isolab(&["kernel", "build"]);
    let output =
        command.env("ISOLAB_HOME", &home.path).env("PATH", "/nonexistent").output().expect("isolab starts");
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr);
    for word in ["building a kernel needs gcc, ld, make, flex, bison, bc", "apt-get install", " libelf-dev"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!home.path.join("kernels").exists());
}

#[test]
fn an_image_in_use_can_be_removed() {
    let home = Home::new();
    busybox(home.dir.path());
    for level in ["process", "container"] {
        home.ok(&["image", "import", &home.at("layout"), "--name", "used"]);
        let script = "echo up; read word; echo $word; cat /bin/busybox | wc -c";
        let mut child = home.start(&["run", "-i", "--level", level, "used", "--", "/bin/sh", "-c", script]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("up"), "{level}");
        home.ok(&["image", "rm", "used"]);
        assert_eq!(home.count("images"), 0, "{level}");
        home.refuses(&["run", "used"], &["no image \"used\""]);
        child.stdin.take().expect("piped").write_all(b"word\n").expect("isolab reads");
        let size = fs::metadata("/bin/busybox").expect("busybox").len().to_string();
        assert_eq!(lines.collect::<Vec<_>>(), ["word".to_owned(), size], "{level}");
        assert!(child.wait().expect("ends").success(), "{level}");
    }
}

#[test]
fn imports_and_removals_at_the_same_time_leave_a_whole_store() {
    let home = Home::new();
    let (one, two) = (home.root("one", 300_000), home.root("two", 400_000));
    let end = Instant::now() + Duration::from_secs(3);
    let repeat = |args: Vec<String>| {
        let mut done = (0, 0);
        while Instant::now() < end {
            let result = run_in(&home.path, &args.iter().map(String::as_str).collect::<Vec<_>>());
            match result.status {
                Some(0) => done.0 += 1,
                // Only because another one removed it just now.
                Some(125) if args[1] != "import" && result.stderr.contains("no image") => done.1 += 1,
                other => panic!("{args:?}: {other:?} {}", result.stderr),
            }
        }
        done
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let commands = [
        format!("image import {one} --name shared"),
        format!("image import {two} --name shared"),
        format!("image import {one} --name other"),
        "image rm shared".to_owned(),
        "image ls --json".to_owned(),
        "gc".to_owned(),
    ];
    let counts = std::thread::scope(|scope| {
        let running: Vec<_> = commands.iter().map(|line| scope.spawn(|| repeat(words(line)))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert!(counts.iter().all(|(ok, _)| *ok > 0), "{counts:?}");
    home.ok(&["gc"]);
    assert_eq!((home.count("tmp"), home.count("scratch")), (0, 0));
    for entry in home.json(&["image", "ls", "--json"]).as_array().expect("list") {
        let digest = entry["digest"].as_str().expect("digest");
        let file = fs::read(entry["path"].as_str().expect("path")).expect("image");
        let hex: String =
            <sha2::Sha256 as sha2::Digest>::digest(file).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, format!("sha256:{hex}"));
        // One image can be listed several times, with a configuration for each of its names.
        if !Path::new(&home.at(&hex)).exists() {
            home.ok(&["image", "export", digest, "-o", &home.at(&hex)]);
        }
    }
    for name in ["shared", "other"] {
        home.ok(&["image", "import", &one, "--name", name]);
        home.ok(&["image", "export", name, "-o", &home.at(name)]);
    }
}

#[test]
fn an_import_that_is_ended_shows_nothing_and_gc_removes_the_rest() {
    let home = Home::new();
    home.ok(&["image", "build", "demo"]);
    let large = home.root("large", 24 << 20);
    tool(home.dir.path(), "tar -cf large.tar -C large .");
    let start = Instant::now();
    home.ok(&["image", "import", &large, "--name", "large"]);
    let whole = start.elapsed();
    home.ok(&["image", "rm", "large"]);
    let mut early = 0;
    for (round, signal) in [2, 9, 15, 9, 2, 9, 15, 9, 9, 9].into_iter().enumerate() {
        let source = if round % 2 == 0 { large.clone() } else { home.at("large.tar") };
        let mut child = home.start(&["image", "import", &source, "--name", "large"]);
        // The moments spread over the import; where in it each one falls does not matter.
        let until = Instant::now() + whole * u32::try_from(round).expect("small") / 10;
        while Instant::now() < until && child.try_wait().expect("wait").is_none() {
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_child(&child);
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
        let _ = rustix::process::kill_process(pid, signal);
        let _ = child.wait().expect("ends");
        // All of it or nothing: where the name is there, the image is whole.
        if home.run(&["image", "inspect", "large"]).status == Some(0) {
            home.ok(&["image", "export", "large", "-o", &home.at(&format!("{round}.tar"))]);
            home.ok(&["image", "rm", "large"]);
        } else {
            early += 1;
        }
        home.ok(&["gc"]);
        assert_eq!((home.count("tmp"), home.count("scratch")), (0, 0), "round {round}");
        assert_eq!((home.count("images"), home.count("names")), (2, 1), "round {round}");
    }
    assert!(early >= 3, "{early} of 10 ended early");
}
