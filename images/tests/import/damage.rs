//! Bits flipped and bytes cut off, in blobs and in archives.

use std::fs;
use std::path::Path;

use crate::samples::{import, listing, make_images, missing};

#[test]
fn a_flipped_bit_or_a_cut_in_any_blob_is_refused() {
    if missing(&["umoci", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    make_images(dir.path(), 50_000);
    let blobs = dir.path().join("layout/blobs/sha256");
    let mut tried = 0;
    for blob in fs::read_dir(&blobs).expect("blobs").map(|entry| entry.expect("entry").path()) {
        let whole = fs::read(&blob).expect("blob");
        for step in 0..6 {
            let mut bytes = whole.clone();
            let at = (whole.len() - 1) * step / 5;
            bytes[at] ^= 1 << step;
            fs::write(&blob, &bytes).expect("changed");
            let error = import(&dir.path().join("layout")).expect_err("a flipped bit is refused");
            assert!(error.contains("digest") || error.contains("layer"), "{error}");
            bytes = whole[..at].to_vec();
            fs::write(&blob, &bytes).expect("changed");
            let error = import(&dir.path().join("layout")).expect_err("a short blob is refused");
            assert!(error.contains("bytes, expected"), "{error}");
            tried += 1;
        }
        fs::write(&blob, [&whole[..], b"\0"].concat()).expect("changed");
        import(&dir.path().join("layout")).expect_err("a longer blob is refused");
        fs::write(&blob, &whole).expect("restored");
    }
    assert_eq!(tried, 4 * 6, "manifest, configuration and two layers");
    import(&dir.path().join("layout")).expect("restored");
    damaged_archive(&dir.path().join("docker.tar"));
    damaged_archive(&dir.path().join("oci.tar"));
}

/// Flips bits over a whole archive: refused, or the flip was where nothing is read and the result is the same.
fn damaged_archive(path: &Path) {
    let whole = fs::read(path).expect("archive");
    let good = listing(&import(path).expect("undamaged"));
    let mut refused = 0;
    for step in 0..60 {
        let mut bytes = whole.clone();
        let at = (whole.len() - 1) * step / 59;
        bytes[at] ^= 1 << (step % 8);
        fs::write(path, &bytes).expect("changed");
        match import(path) {
            Err(_) => refused += 1,
            Ok(imported) => assert_eq!(listing(&imported), good, "bit {} of byte {at}", step % 8),
        }
        fs::write(path, &whole[..at]).expect("changed");
        import(path).expect_err("a cut archive is refused");
    }
    assert!(refused > 50, "{refused} of 60");
}
