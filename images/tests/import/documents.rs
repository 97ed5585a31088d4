//! Indexes, manifests and configurations made here: selection, refusals, contradictions (threat I-06).

use std::fs;
use std::path::Path;

use isolab_images::digest::Digest;
use isolab_images::source::{Imported, Options, SourceKind, detect, read};
use isolab_images::tree::Spool;
use serde_json::{Value, json};

use crate::samples::{import, listing, run};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layout under construction.
struct Layout(tempfile::TempDir);

impl Layout {
    fn new() -> Self {
        let layout = Self(tempfile::tempdir().expect("temporary directory"));
        fs::create_dir_all(layout.path().join("blobs/sha256")).expect("blobs");
        fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("header");
        layout
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Stores a blob and describes it.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.path().join("blobs/sha256").join(digest.hex()), bytes).expect("blob");
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    }

    fn document(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// A tar with one file.
    fn tar(&self, name: &str) -> Vec<u8> {
        let work = tempfile::tempdir().expect("temporary directory");
        fs::write(work.path().join(name), name).expect("file");
        run(work.path(), &format!("tar --format=ustar -cf out.tar {name}"));
        fs::read(work.path().join("out.tar")).expect("tar")
    }

    fn config(&self, architecture: &str, diff_ids: &[Digest]) -> Value {
        let diff_ids: Vec<_> = diff_ids.iter().map(Digest::to_string).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs, "config": { "Cmd": ["x"] } })
    }

    /// A whole image with one file; gives its manifest as a document.
    fn manifest(&self, name: &str) -> Value {
        let tar = self.tar(name);
        let config = self.document(CONFIG, &self.config("amd64", &[Digest::of(&tar)]));
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [self.blob(LAYER, &tar)] })
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        fs::write(self.path().join("index.json"), index.to_string()).expect("index");
    }

    /// Imports one manifest.
    fn outcome(&self, manifest: &Value) -> Result<Imported, String> {
        self.index(&[self.document(MANIFEST, manifest)]);
        import(self.path())
    }
}

fn refused(result: Result<Imported, String>, part: &str) {
    let error = result.expect_err(part);
    assert!(error.contains(part), "expected {part}: {error}");
}

fn with(mut value: Value, key: &str, new: Value) -> Value {
    value[key] = new;
    value
}

#[test]
fn refuses_documents_that_contradict_themselves() {
    let layout = Layout::new();
    let good = layout.manifest("a");
    layout.outcome(&good).expect("the base of this table");
    let layer = good["layers"][0].clone();
    let one = |layer: Value| with(good.clone(), "layers", json!([layer]));
    let table = [
        (with(good.clone(), "manifests", json!([])), "ambiguous type"),
        (with(good.clone(), "fsLayers", json!([])), "ambiguous type"),
        (with(good.clone(), "mediaType", json!(INDEX)), "ambiguous type"),
        (with(good.clone(), "schemaVersion", json!(1)), "version is not supported"),
        (with(good.clone(), "schemaVersion", json!("2")), "parse"),
        (with(good.clone(), "layers", json!([])), "0 layers and 1 diff_ids"),
        (with(good.clone(), "layers", json!([layer, layer])), "2 layers and 1 diff_ids"),
        (one(with(layer.clone(), "mediaType", json!("text/html"))), "media type \"text/html\""),
        (one(with(layer.clone(), "mediaType", json!(format!("{LAYER}+gzip")))), "its media type says Gzip"),
        (
            one(with(
                layer.clone(),
                "mediaType",
                json!("application/vnd.oci.image.layer.nondistributable.v1.tar"),
            )),
            "is not supported",
        ),
        (one(with(layer.clone(), "size", json!(5))), "bytes, expected 5"),
        (one(with(layer.clone(), "size", json!(-1))), "parse"),
        (one(with(layer.clone(), "size", json!(u64::MAX))), "bytes, expected 18446744073709551615"),
        (one(with(layer.clone(), "digest", json!(format!("sha256:{}", "0".repeat(64))))), "the image has no"),
        (one(with(layer.clone(), "digest", json!("sha256:../../../etc/passwd"))), "parse"),
        (
            one(with(layer.clone(), "digest", json!(format!("sha512:{}", "0".repeat(128))))),
            "not a sha256 digest",
        ),
    ];
    for (manifest, part) in table {
        refused(layout.outcome(&manifest), part);
    }
    let urls = one(with(layer, "urls", json!(["http://127.0.0.1:9/never"])));
    layout.outcome(&urls).expect("urls are not followed, the blob is here");
}

#[test]
fn refuses_configurations_that_do_not_fit() {
    let layout = Layout::new();
    let good = layout.manifest("a");
    let diff_id = Digest::of(&layout.tar("a"));
    let with_config =
        |media_type: &str, config: Value| with(good.clone(), "config", layout.document(media_type, &config));
    let base = layout.config("amd64", &[diff_id]);
    let table = [
        (with_config("application/vnd.oci.empty.v1+json", base.clone()), "media type"),
        (
            with_config(CONFIG, layout.config("arm64", &[diff_id])),
            "nothing for linux/amd64 (found: linux/arm64)",
        ),
        (with_config(CONFIG, with(base.clone(), "os", json!("windows"))), "found: windows/amd64"),
        (with_config(CONFIG, layout.config("amd64", &[Digest::of(b"")])), "digest of the layer's tar stream"),
        (with_config(CONFIG, with(base.clone(), "config", json!({ "Env": ["\u{1b}[2J"] }))), r"\x1b[2J"),
        (with_config(CONFIG, with(base.clone(), "config", json!({ "WorkingDir": "x" }))), "is not absolute"),
        (
            with_config(CONFIG, with(base, "rootfs", json!({ "type": "layers", "diff_ids": ["x"] }))),
            "not a sha256",
        ),
    ];
    for (manifest, part) in table {
        refused(layout.outcome(&manifest), part);
    }
}

/// Each of 9 million ways to the one manifest would be kept and its index be read 3000 times.
#[test]
fn an_index_that_is_named_often_is_read_once() {
    let layout = Layout::new();
    let manifest = layout.document(MANIFEST, &layout.manifest("a"));
    let nested = json!({ "schemaVersion": 2, "manifests": vec![manifest; 3000] });
    layout.index(&vec![layout.document(INDEX, &nested); 3000]);
    let start = std::time::Instant::now();
    let found = import(layout.path()).expect("imported");
    assert!(listing(&found).contains_key("/a") && start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn chooses_the_platform_and_the_name() {
    let layout = Layout::new();
    let platform = |manifest: &Value, os: &str, architecture: &str| {
        let descriptor = layout.document(MANIFEST, manifest);
        with(descriptor, "platform", json!({ "os": os, "architecture": architecture }))
    };
    let (a, b) = (layout.manifest("a"), layout.manifest("b"));
    let files = |result: Result<Imported, String>| {
        listing(&result.expect("imported")).into_keys().collect::<Vec<_>>().join(" ")
    };
    layout.index(&[
        platform(&a, "linux", "arm64"),
        platform(&b, "linux", "amd64"),
        platform(&a, "unknown", "unknown"),
    ]);
    assert_eq!(files(import(layout.path())), " /b");
    layout.index(&[platform(&a, "linux", "arm64"), platform(&b, "windows", "amd64")]);
    refused(import(layout.path()), "(found: linux/arm64, windows/amd64)");
    let list = json!({ "schemaVersion": 2, "manifests": [platform(&a, "linux", "amd64")] });
    let nested = layout.document(INDEX, &list);
    layout.index(std::slice::from_ref(&nested));
    assert_eq!(files(import(layout.path())), " /a");
    let deeper = json!({ "schemaVersion": 2, "manifests": [nested] });
    layout.index(&[layout.document(INDEX, &deeper)]);
    refused(import(layout.path()), "nested more than twice");
    let named = |manifest: &Value, name: &str| {
        let annotations = json!({ "org.opencontainers.image.ref.name": name });
        with(layout.document(MANIFEST, manifest), "annotations", annotations)
    };
    layout.index(&[named(&a, "one"), named(&b, "two")]);
    refused(import(layout.path()), "the source has: \"one\", \"two\"");
    for (name, expected) in [("one", " /a"), ("two", " /b")] {
        let spool = Spool::from_file(tempfile::tempfile().expect("file")).expect("spool");
        let options = Options { reference: Some(name), ..Options::default() };
        let result = read(layout.path(), options, spool, &mut |_| {});
        assert_eq!(files(result.map_err(|error| error.to_string())), expected);
    }
    layout.index(&[named(&a, "one"), named(&a, "latest")]);
    assert_eq!(files(import(layout.path())), " /a");
    layout.index(&[]);
    refused(import(layout.path()), "choose one image by its name; the source has: no name");
}

#[test]
fn refuses_a_layout_that_points_outside() {
    let layout = Layout::new();
    let manifest = layout.manifest("a");
    let digest = manifest["layers"][0]["digest"].as_str().expect("digest").replace("sha256:", "");
    let blob = layout.path().join("blobs/sha256").join(digest);
    let outside = tempfile::tempdir().expect("temporary directory");
    fs::rename(&blob, outside.path().join("blob")).expect("moved");
    std::os::unix::fs::symlink(outside.path().join("blob"), &blob).expect("symlink");
    refused(layout.outcome(&manifest), "read \"blobs/sha256/");
}

/// The form before OCI: a folder for each layer, shared ones as symlinks.
#[test]
fn reads_and_refuses_old_docker_archives() {
    let layout = Layout::new();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (first, second) = ("1".repeat(64), "2".repeat(64));
    let tar = layout.tar("a");
    fs::create_dir(dir.path().join(&first)).expect("directory");
    fs::create_dir(dir.path().join(&second)).expect("directory");
    fs::write(dir.path().join(&first).join("layer.tar"), &tar).expect("layer");
    let link = dir.path().join(&second).join("layer.tar");
    std::os::unix::fs::symlink(format!("../{first}/layer.tar"), &link).expect("symlink");
    let config = layout.config("amd64", &[Digest::of(&tar), Digest::of(&tar)]).to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    fs::write(dir.path().join(&config_name), &config).expect("config");
    let layers = [format!("{first}/layer.tar"), format!("{second}/layer.tar")];
    let outcome = |config_name: &str, layers: &[String]| {
        let manifest = json!([{ "Config": config_name, "RepoTags": ["a:1"], "Layers": layers }]);
        fs::write(dir.path().join("manifest.json"), manifest.to_string()).expect("manifest");
        run(dir.path(), &format!("tar -cf image.tar {first} {second} {config_name} manifest.json"));
        let path = dir.path().join("image.tar");
        assert_eq!(detect(&path).expect("archive"), SourceKind::DockerArchive);
        import(&path)
    };
    let imported = outcome(&config_name, &layers).expect("imported");
    assert_eq!(listing(&imported).into_keys().collect::<Vec<_>>(), ["", "/a"]);
    assert_eq!(imported.config.cmd, ["x"]);
    refused(outcome(&config_name, &["../x".to_string(), layers[1].clone()]), "path with \"..\"");
    refused(outcome(&config_name, &layers[..1]), "1 layers and 2 diff_ids");
    refused(outcome(&config_name, &[layers[0].clone(), "none".into()]), "the image has no \"none\"");
    let flipped = config.replace("\"x\"", "\"y\"");
    fs::write(dir.path().join(&config_name), flipped).expect("config");
    refused(outcome(&config_name, &layers), "has digest");
    fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink("../../../etc/passwd", &link).expect("symlink");
    refused(outcome(&config_name, &layers), "path with \"..\"");
}

/// Whatever its members are called, what has a manifest of layers is no root filesystem: taking it for one would let it past
/// every check of its layers.
#[test]
fn an_image_archive_with_other_names_is_not_taken_for_a_root() {
    let layout = Layout::new();
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("layers")).expect("directory");
    let tar = layout.tar("a");
    let config = layout.config("amd64", &[Digest::of(&tar)]).to_string();
    fs::write(dir.path().join("c.json"), config).expect("config");
    for layer in ["l.tar", "layers/l.tar"] {
        fs::write(dir.path().join(layer), &tar).expect("layer");
        let manifest = json!([{ "Config": "c.json", "RepoTags": null, "Layers": [layer] }]);
        fs::write(dir.path().join("manifest.json"), manifest.to_string()).expect("manifest");
        for order in [format!("manifest.json c.json {layer}"), format!("c.json {layer} manifest.json")] {
            run(dir.path(), &format!("tar -cf image.tar {order}"));
            let path = dir.path().join("image.tar");
            assert_eq!(detect(&path).expect("archive"), SourceKind::DockerArchive, "{order}");
            refused(import(&path), "not named by its digest");
        }
    }
    // The file of a program that is called so says nothing.
    fs::write(dir.path().join("manifest.json"), "{\"name\": \"app\"}").expect("manifest");
    run(dir.path(), "tar -cf root.tar manifest.json c.json l.tar");
    assert_eq!(detect(&dir.path().join("root.tar")).expect("archive"), SourceKind::RootfsTar);
}
