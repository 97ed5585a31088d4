//! Whiteouts: the examples of the image specification, refusals, and independence of order.

use proptest::prelude::*;

use super::{Budgets, Tar, import, outcome, show};

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

/// Names of two levels: few, so that they meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["a", "b", "c"]).prop_map(String::from),
        (prop::sample::select(vec!["d", "e"]), prop::sample::select(vec!["a", "b", "f"]))
            .prop_map(|(dir, name)| format!("{dir}/{name}")),
        prop::sample::select(vec!["d/g/x", "d/g/y"]).prop_map(String::from),
    ]
}

fn whiteout(name: &str) -> String {
    match name.rsplit_once('/') {
        Some((dir, name)) => format!("f {dir}/.wh.{name}"),
        None => format!("f .wh.{name}"),
    }
}

/// Entries of one layer whose order means nothing but for whiteouts: each path once, as one type.
fn layer() -> impl Strategy<Value = Vec<String>> {
    let files = prop::collection::btree_map(name(), "[0-9]{1,3}", 0..5);
    let whiteouts = prop::collection::btree_set(name(), 0..5);
    let dirs = prop::sample::subsequence(vec!["d", "e", "d/g"], 0..=3);
    let opaque = prop::sample::subsequence(vec![".wh..wh..opq", "d/.wh..wh..opq", "d/g/.wh..wh..opq"], 0..=2);
    (files, whiteouts, dirs, opaque).prop_map(|(files, whiteouts, dirs, opaque)| {
        let files = files.into_iter().map(|(name, data)| format!("f {name} {data}"));
        let whiteouts = whiteouts.iter().map(|name| whiteout(name));
        let dirs = dirs.into_iter().map(|dir| format!("d {dir}"));
        files.chain(whiteouts).chain(dirs).chain(opaque.into_iter().map(|path| format!("f {path}"))).collect()
    })
}

fn tree_of(layers: &[&[String]]) -> String {
    let layers: Vec<_> = layers.iter().map(|lines| Tar::parse(&lines.join(" | "))).collect();
    let (tree, spool) = import(&layers, Budgets::default()).unwrap();
    show(&tree, &spool)
}

/// The same by the book, on a map of paths: hide first, then add.
fn model(layers: &[&[String]]) -> String {
    let mut map = std::collections::BTreeMap::<String, Option<String>>::new();
    for lines in layers {
        for path in lines.iter().filter_map(|line| line.strip_prefix("f ")) {
            let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
            let join = |name: &str| if dir.is_empty() { name.to_string() } else { format!("{dir}/{name}") };
            if name == ".wh..wh..opq" {
                let prefix = join("");
                map.retain(|path, _| !path.starts_with(&prefix) || path.len() == prefix.len());
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                let hidden = join(hidden);
                let below = format!("{hidden}/");
                map.retain(|path, _| *path != hidden && !path.starts_with(&below));
            }
        }
        for line in lines.iter().filter(|line| !line.contains(".wh.")) {
            let (path, data) = match line.split_once(' ').unwrap() {
                ("d", path) => (path, None),
                (_, rest) => rest.split_once(' ').map(|(path, data)| (path, Some(data.to_string()))).unwrap(),
            };
            for (at, _) in path.match_indices('/') {
                map.insert(path[..at].to_string(), None);
            }
            map.insert(path.to_string(), data);
        }
    }
    let mut lines: Vec<_> = map
        .iter()
        .map(|(path, data)| match data {
            Some(data) => (path.split('/').collect::<Vec<_>>(), format!("{path}={data}")),
            None => (path.split('/').collect(), format!("{path}/")),
        })
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_within_a_layer_does_not_matter(
        lower in layer(),
        (upper, shuffled) in layer().prop_flat_map(|layer| (Just(layer.clone()), Just(layer).prop_shuffle())),
    ) {
        let tree = tree_of(&[&lower, &upper]);
        prop_assert_eq!(&tree, &tree_of(&[&lower, &shuffled]));
        prop_assert_eq!(&tree, &model(&[&lower, &upper]));
    }
}
