//! What the fuzz targets of this crate begin with.

use std::collections::BTreeMap;

use super::{Parts, Sketch, Xattrs, image_of, imported_or_refused, reseal};
use crate::erofs::BLOCK;
use crate::layer::tests::bombs::{gzip, text};
use crate::layer::tests::{Tar, sample};
use crate::tree::Meta;

#[path = "../../../fuzz/seeds.rs"]
mod keep;
use keep::seed;

const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@manifest-digest","size":@manifest-size,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"a"}}]}"#;
const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@config-digest","size":@config-size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"@layer-digest","size":@layer-size}]}"#;
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/a"],"Cmd":["b"],"Env":["A=b"],"WorkingDir":"/","User":"0:0","Labels":{"k":"v"},"StopSignal":"SIGTERM"},"rootfs":{"type":"layers","diff_ids":["@layer-digest"]}}"#;
const DOCKER: &str = r#"[{"Config":"@config-hex.json","RepoTags":["a:b"],"Layers":["@layer-hex.tar"]}]"#;
const PASSWD: &[u8] = b"root:x:0:0:r:/:/bin/sh\na:x:1:2:::\n";
const GROUP: &[u8] = b"root:x:0:\na:x:2:a\nb:x:3:a,root\n";

fn image() -> Vec<u8> {
    let meta = Meta { mode: 0o755, uid: 1, gid: 2, mtime_s: 3, mtime_ns: 4 };
    let xattrs = Xattrs::from([(b"user.a".to_vec(), vec![1; 50])]);
    let dir = BTreeMap::from([
        (b"a".to_vec(), Sketch::File(meta, xattrs.clone(), vec![7; 5000])),
        (b"link".to_vec(), Sketch::Symlink(meta, b"../a".to_vec())),
        (b"pipe".to_vec(), Sketch::Fifo(meta)),
    ]);
    image_of(BTreeMap::from([
        (b"a".to_vec(), Sketch::File(meta, Xattrs::new(), b"text".to_vec())),
        (b"dir".to_vec(), Sketch::Dir(meta, xattrs, dir)),
        (b"same".to_vec(), Sketch::Link(0)),
    ]))
}

#[test]
fn seeds_are_those_of_the_repository() {
    seed("tar", "all", &sample());
    seed(
        "tar",
        "whiteouts",
        &Tar::parse("d a | f a/b x | f a/.wh.c | f .wh..wh..opq | l s a/b | h t a/b | c dev"),
    );
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(&text()[..], level);
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    seed("compressed", "gzip", &gzip(&text()[..]));
    seed("compressed", "members", &[gzip(&b"a"[..]), gzip(&b"b"[..])].concat());
    seed("compressed", "zstd", &zstd);
    seed(
        "compressed",
        "frames",
        &[&skipped[..], &ruzstd::encoding::compress_to_vec(&b"ab"[..], level)].concat(),
    );
    let layer = &Tar::parse("f a x")[..];
    let parts = |kind: &[u8], index: &[u8]| {
        [kind, index, MANIFEST.as_bytes(), CONFIG.as_bytes(), layer].join(&b"\n--\n"[..])
    };
    seed("oci", "layout", &parts(b"oci", INDEX.as_bytes()));
    seed("oci", "docker", &parts(b"docker", DOCKER.as_bytes()));
    seed("oci", "control", &parts(b"oci", INDEX.replace("@manifest-digest", "a\rb:c").as_bytes()));
    seed("oci", "users", &[b"users", PASSWD, GROUP, b"\x01"].join(&b"\n--\n"[..]));
    seed("oci", "digest", crate::digest::Digest::of(b"").to_string().as_bytes());
    let image = image();
    let blocks = (1_u8..).find(|blocks| {
        let mut again = image.clone();
        reseal(&mut again[..usize::from(*blocks) * BLOCK]);
        again == image
    });
    seed("erofs_image", "small", &[&[blocks.expect("all of it is metadata")][..], &image].concat());
}

#[test]
fn the_layout_of_the_seed_is_imported() {
    let layer = Tar::parse("f a x");
    let parts = |index: &str, docker| Parts {
        index: index.into(),
        manifest: MANIFEST.into(),
        config: CONFIG.into(),
        layer: layer.clone(),
        docker,
    };
    assert!(imported_or_refused(&parts(INDEX, false)) && imported_or_refused(&parts(DOCKER, true)));
}
