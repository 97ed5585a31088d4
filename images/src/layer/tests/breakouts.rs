//! Threats I-01 and I-02: no order of entries leaves the tree, and every outcome is known.

use super::outcome;

/// What goes in, what comes out (`ERROR` and a part of the message, or the whole tree).
const TABLE: [(&str, &str); 46] = [
    // Names.
    ("f ../a x", "ERROR tar entry \"../a\" at byte 0: path with \"..\""),
    ("f /../a x", "ERROR path with \"..\""),
    ("f a/../../b x", "ERROR path with \"..\""),
    ("f a/../b x", "ERROR path with \"..\""),
    ("d a/..", "ERROR path with \"..\""),
    ("f /etc/passwd x", "etc/ etc/passwd=x"),
    ("f //etc//passwd x", "etc/ etc/passwd=x"),
    ("f ./././a x", "a=x"),
    ("f ..a x | f ... y | f a.. z", "...=y ..a=x a..=z"),
    ("f . x", "ERROR path of a directory"),
    ("l / /etc", "ERROR path of a directory"),
    ("l ./ /etc", "ERROR path of a directory"),
    ("l /. /etc", "ERROR path of a directory"),
    ("l a/. /etc", "ERROR path of a directory"),
    ("h . a", "ERROR path of a directory"),
    ("f a/ x", "ERROR path of a directory"),
    // Symlinks as parents: resolved inside.
    ("l a / | f a/b x", "a->/ b=x"),
    ("l a /.. | f a/b x", "a->/.. b=x"),
    ("l a ../../../.. | f a/b x", "a->../../../.. b=x"),
    ("l a /etc | f a/passwd x", "a->/etc etc/ etc/passwd=x"),
    ("d etc | l a /etc | f a/b x", "a->/etc etc/ etc/b=x"),
    ("d d | l d/up .. | f d/up/up2 x", "d/ d/up->.. up2=x"),
    ("l a ../../b/c | f a/d x", "a->../../b/c b/ b/c/ b/c/d=x"),
    ("l a a | f a/b x", "ERROR more than 40 symlinks"),
    ("l a b | l b a | f a/c x", "ERROR more than 40 symlinks"),
    (
        "l a /proc/self/fd/3 | f a/b x",
        "a->/proc/self/fd/3 proc/ proc/self/ proc/self/fd/ proc/self/fd/3/ proc/self/fd/3/b=x",
    ),
    ("f a x | f a/b y", "ERROR a parent is not a directory"),
    ("p a | f a/b y", "ERROR a parent is not a directory"),
    ("f a x | l b a | f b/c y", "ERROR a parent is not a directory"),
    // A symlink as the last component is replaced, never followed.
    ("f t x | l a t | f a y", "a=y t=x"),
    ("d t | f t/x 1 | l a t | d a", "a/ t/ t/x=1"),
    ("d t | f t/x 1 | l t /etc", "t->/etc"),
    ("l a /etc/passwd | f a y", "a=y"),
    ("d a | f a/b 1 | f a 2", "a=2"),
    ("f a 1 | d a | f a/b 2", "a/ a/b=2"),
    // Hard links.
    ("f a x | h b a", "a=x b==a"),
    ("f a x | h b /a", "a=x b==a"),
    ("h b ../a", "ERROR path with \"..\""),
    ("h b /etc/passwd", "ERROR hard link to \"etc/passwd\", which does not exist"),
    ("d a | h b a", "ERROR hard link to the directory \"a\""),
    ("l a /etc/passwd | h b a | f b x", "a->/etc/passwd b=x"),
    ("l a / | f c x | h b a/c", "a->/ b=x c==b"),
    ("f a x | h a a", "a=x"),
    ("f a x | h b a || f a y", "a=y b=x"),
    // Devices are left out and hide what was there; links to them go with them.
    ("f a x || c a", ""),
    ("c dev/null | h dev/zero dev/null", "dev/"),
];

#[test]
fn no_breakout_leaves_the_tree() {
    for (layers, expected) in TABLE {
        let found = outcome(layers);
        match expected.strip_prefix("ERROR ") {
            Some(part) => assert!(found.starts_with("ERROR ") && found.contains(part), "{layers}: {found}"),
            None => assert_eq!(found, expected, "{layers}"),
        }
    }
}

#[test]
fn resolves_merged_usr_of_a_lower_layer() {
    let layers = "d usr | d usr/bin | l bin usr/bin || f bin/sh x | h bin/ash bin/sh";
    assert_eq!(outcome(layers), "bin->usr/bin usr/ usr/bin/ usr/bin/ash=x usr/bin/sh==usr/bin/ash");
}

#[test]
fn allows_forty_symlinks_and_no_more() {
    let links = |count: usize| {
        let links: Vec<_> = (0..count).map(|n| format!("l l{n} l{}", n + 1)).collect();
        outcome(&format!("d l{count} | {} | f l0/x y", links.join(" | ")))
    };
    assert!(links(40).contains("l40/x=y"));
    assert!(links(41).contains("more than 40 symlinks"));
}
