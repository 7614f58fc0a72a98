//! Layers over one another: what they replace, what they take away, and what they cannot reach.

use super::super::*;
use super::made::{BOUNDS, Ring, Tar, refuses};

/// Layers over one another, each with what it takes away.
fn layers(layers: Vec<Tar>) -> Result<Ring, Refused> {
    let mut ring = Ring::new();
    for layer in layers {
        ring.lay(&layer.end(), true)?;
    }
    Ok(ring)
}

#[test]
fn layers_replace_and_take_away_what_lies_below_them() {
    let base = || {
        Tar::good()
            .file("a/one", b"1")
            .file("a/two", b"2")
            .file("a/deep/three", b"3")
            .file("b", b"b")
    };
    let tree = |upper: Tar| layers(vec![base(), upper]).unwrap().tree();
    let all = tree(Tar::default());
    assert_eq!(all.len(), 9);

    let found = tree(Tar::default().file("a/.wh.one", b"").file(".wh.b", b""));
    let gone: Vec<_> = all
        .keys()
        .filter(|name| !found.contains_key(*name))
        .collect();
    assert_eq!(gone, ["a/one", "b"]);
    let found = tree(Tar::default().file(".wh.a", b"").file(".wh.never", b""));
    assert_eq!(found.keys().filter(|name| name.starts_with('a')).count(), 0);
    // Opaque: only what this layer has, wherever its note stands.
    for upper in [
        Tar::default()
            .file("a/new", b"n")
            .file("a/deep/four", b"4")
            .file("a/.wh..wh..opq", b""),
        Tar::default()
            .file("a/.wh..wh..opq", b"")
            .file("a/new", b"n")
            .file("a/deep/four", b"4"),
        Tar::default()
            .file(".wh.a", b"")
            .file("a/new", b"n")
            .file("a/deep/four", b"4"),
        Tar::default()
            .file("a/new", b"n")
            .file("a/deep/four", b"4")
            .file(".wh.a", b""),
    ] {
        let found = tree(upper);
        let below: Vec<_> = found.keys().filter(|name| name.starts_with("a/")).collect();
        assert_eq!(below, ["a/deep", "a/deep/four", "a/new"]);
    }
    // A file for a directory, a directory for a file, a link for either.
    let found = tree(
        Tar::default()
            .file("a", b"file")
            .directory("b")
            .link("etc/hosts", "/b"),
    );
    assert_eq!(
        (&*found["a"], &*found["b"], &*found["etc/hosts"]),
        ("file", "/", "-> /b")
    );
    assert!(!found.contains_key("a/one"));
    // A new file in the place of one with two names leaves the other name what it was.
    let below = base().hard_link("c", "b");
    let found = layers(vec![below, Tar::default().file("b", b"new")])
        .unwrap()
        .tree();
    assert_eq!((&*found["b"], &*found["c"]), ("new", "b"));
    let found = tree(Tar::default().hard_link("c", "a/one"));
    assert_eq!(found["c"], "1");
}

#[test]
fn layers_do_not_reach_out_through_what_lies_below_them() {
    let below = || Tar::good().link("way", "../outside").directory("real");
    let stops = |upper: Tar, entry: &str, flaw: Flaw| {
        let refused = layers(vec![below(), upper])
            .map(|ring| ring.tree())
            .unwrap_err();
        assert_eq!((refused.entry.as_str(), refused.flaw), (entry, flaw));
    };
    stops(
        Tar::default().file("way/new", b"x"),
        "way/new",
        Flaw::ThroughLink,
    );
    stops(
        Tar::default().file("way/.wh.file", b""),
        "way/.wh.file",
        Flaw::ThroughLink,
    );
    let opaque = "way/.wh..wh..opq";
    stops(Tar::default().file(opaque, b""), opaque, Flaw::ThroughLink);
    for bad in [
        ".wh.",
        ".wh..",
        ".wh...",
        "real/.wh...",
        ".wh..wh.plnk",
        ".wh.real/x",
    ] {
        stops(Tar::default().file(bad, b""), bad, Flaw::Whiteout);
    }
    stops(
        Tar::default().file(".wh.etc", b"x"),
        ".wh.etc",
        Flaw::Whiteout,
    );
    stops(
        Tar::default().link(".wh.etc", "x"),
        ".wh.etc",
        Flaw::Whiteout,
    );
    // Taking the link itself away is no way out; a directory may come in its place then.
    let upper = Tar::default().file(".wh.way", b"").file("way/new", b"x");
    let found = layers(vec![below(), upper]).unwrap().tree();
    assert_eq!(found["way/new"], "x");
    // In a root file system that is no layer they are no names.
    refuses(|tar| tar.file(".wh.etc", b""), ".wh.etc", &Flaw::Whiteout);
}

#[test]
fn what_earlier_layers_took_counts_for_later_ones() {
    let mut ring = Ring::new();
    ring.lay(&Tar::good().file("a", &[0; 400_000]).end(), true)
        .unwrap();
    let left = Bounds {
        tree_bytes: BOUNDS.tree_bytes - ring.tally.bytes,
        entries: BOUNDS.entries - ring.tally.entries,
        ..BOUNDS
    };
    let second = Tar::good().file("b", &[0; 400_000]).end();
    assert!(ring.lay_within(&second, true, left).is_ok());
    let third = Tar::good()
        .file("b", &vec![0; 500_000])
        .file("c", &vec![0; 300_000])
        .end();
    let refused = ring.lay_within(&third, true, left).unwrap_err();
    assert_eq!(refused.entry, "c");
}
