//! Documents of an image archive: an image that can be used as it is, or an error that can be shown.

use isolab_images::digest::Digest;
use isolab_images::invariants::{Parts, imported_or_refused, the_number_that_was_asked_for};
use libfuzzer_sys::Corpus;

// A line for what is meant, then parts with a line `--` between them.
pub(crate) fn run(input: &[u8]) -> Corpus {
    if let Ok(digest) = str::from_utf8(input).unwrap_or_default().parse::<Digest>() {
        assert_eq!(digest.to_string().as_bytes(), input);
    }
    let mut parts = split(input, b"\n--\n").map(<[u8]>::to_vec);
    let [kind, index, manifest, config, layer] = [(); 5].map(|()| parts.next().unwrap_or_default());
    match &kind[..] {
        b"users" => {
            the_number_that_was_asked_for(&index, &manifest, u32::from(config.first().copied().unwrap_or(0)))
        }
        kind => {
            imported_or_refused(&Parts { index, manifest, config, layer, docker: kind == b"docker" });
        }
    }
    Corpus::Keep
}

fn split<'a>(text: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.windows(mark.len()).position(|window| window == mark) {
            Some(at) => {
                rest = Some(&text[at + mark.len()..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}
