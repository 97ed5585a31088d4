// Included by the tests of the parts, whose small samples the fuzz targets begin with.

/// Holds a file of `fuzz/corpus/TARGET` against what it is made of; with `ISOLAB_SEEDS=write`, writes it.
pub(crate) fn seed(target: &str, name: &str, bytes: &[u8]) {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let file = corpus.join(format!("seed-{name}"));
    if std::env::var_os("ISOLAB_SEEDS").is_some_and(|what| what == "write") {
        std::fs::create_dir_all(&corpus).expect("a directory");
        std::fs::write(&file, bytes).expect("write a seed");
    }
    let found = std::fs::read(&file).unwrap_or_default();
    assert!(found == bytes, "{} is not what it is made of: make fuzz-seeds", file.display());
}
