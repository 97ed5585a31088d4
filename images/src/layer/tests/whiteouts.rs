//! Whiteouts: the examples of the image specification, refusals, and independence of order.

use proptest::prelude::*;

use super::outcome;
use crate::layer::invariants::{layer_of, same_as_the_model};

/// Layers joined by ` || `, and the tree or a part of the error.
const TABLE: [(&str, &str); 25] = [
    // The specification's own examples.
    ("f a/b/c/bar x || f a/ignore y | f a/.wh..wh..opq", "a/ a/ignore=y"),
    ("f a/b/c/bar x || d a | f a/.wh.b | d a/b | d a/b/c | f a/b/c/foo y", "a/ a/b/ a/b/c/ a/b/c/foo=y"),
    ("f a/b/c/bar x || f a/.wh..wh..opq | d a/b | d a/b/c | f a/b/c/foo y", "a/ a/b/ a/b/c/ a/b/c/foo=y"),
    ("f a/b/c/bar x || f a/b/c/foo y | f a/.wh..wh..opq", "a/ a/b/ a/b/c/ a/b/c/foo=y"),
    ("f bin/app x | f bin/tool y || f bin/.wh.tool", "bin/ bin/app=x"),
    // Lower layers only.
    ("f a x | f .wh.a", "a=x"),
    ("f .wh.a | f a x", "a=x"),
    ("f a 1 || f .wh.a | f a 2", "a=2"),
    ("f a 1 || f a 2 | f .wh.a", "a=2"),
    ("d d | f d/lower 1 || f d/.wh..wh..opq | f d/new 2", "d/ d/new=2"),
    ("d d | f d/lower 1 || f d/new 2 | f d/.wh..wh..opq", "d/ d/new=2"),
    ("f a 1 || f .wh.a || f a 3", "a=3"),
    ("f a 1 || h .wh.a a", ""),
    // Nothing to hide.
    ("d d || f d/.wh.none | f none/.wh.x | f none/.wh..wh..opq", "d/"),
    ("f a x || f a/.wh.b | f a/.wh..wh..opq", "a=x"),
    // Through symlinks of lower layers, unless the layer brings that path itself.
    ("d d | f d/x 1 | l s d || f s/.wh.x", "d/ s->d"),
    ("d d | f d/x 1 | l s d || d s | f s/.wh.x | f s/.wh..wh..opq", "d/ d/x=1 s/"),
    ("d d | f d/x 1 | l s d || f s/.wh.x | f .wh.s", "d/"),
    ("d d | f d/x 1 | l s d || f .wh.s | f s/.wh.x", "d/"),
    // The link goes, not its target.
    ("f t x | l s t || f .wh.s", "t=x"),
    ("f a x | h b a || f .wh.a", "b=x"),
    // Refused.
    ("f .wh. x", "ERROR misplaced whiteout"),
    ("f d/.wh...", "ERROR misplaced whiteout"),
    ("f .wh.a data", "ERROR misplaced whiteout"),
    ("d .wh.a", "ERROR misplaced whiteout"),
];

#[test]
fn follows_the_specification() {
    for (layers, expected) in TABLE {
        let found = outcome(layers);
        match expected.strip_prefix("ERROR ") {
            Some(part) => assert!(found.starts_with("ERROR ") && found.contains(part), "{layers}: {found}"),
            None => assert_eq!(found, expected, "{layers}"),
        }
    }
}

#[test]
fn hides_the_root_but_keeps_it() {
    assert_eq!(outcome("f a x | d b || f .wh..wh..opq | f c y"), "c=y");
    assert!(outcome("f h y | h x .wh.a").starts_with("ERROR "));
    assert!(outcome("f .wh.a/b x").starts_with("ERROR "));
}

fn layer() -> impl Strategy<Value = Vec<String>> {
    any::<(u16, u16, u8, u8, u8)>().prop_map(layer_of)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_within_a_layer_does_not_matter(
        lower in layer(),
        (upper, shuffled) in layer().prop_flat_map(|layer| (Just(layer.clone()), Just(layer).prop_shuffle())),
    ) {
        same_as_the_model(&[&lower, &upper], &[&lower, &shuffled]);
    }
}
