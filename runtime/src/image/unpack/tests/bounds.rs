//! Archives that are too large, lie about their sizes, or are no archives.

use tar::EntryType;

use super::super::*;
use super::made::{
    BOUNDS, Tar, accepts, gzip, header, lay, malformed, pax, refuses, refuses_bytes,
};
use crate::image::flaw::Bound;

#[test]
fn sizes_beyond_the_bounds_are_refused() {
    let beyond = |bound, max| Flaw::Beyond { bound, max };
    let big = |size: usize| move |tar: Tar| tar.file("big", &vec![0; size]);
    let flaw = beyond(Bound::FileBytes, BOUNDS.file_bytes);
    refuses(big((1 << 19) + 1), "big", &flaw);
    accepts(big(1 << 19));
    // A size that is only claimed: nothing is made of it.
    let lie = |tar: Tar| {
        let mut header = header(EntryType::Regular, "lie", 0);
        header.set_size(1 << 50);
        tar.entry(&header, b"")
    };
    refuses(lie, "lie", &flaw);
    let many = |tar: Tar| (0..3).fold(tar, |tar, n| tar.file(&format!("{n}"), &vec![0; 400_000]));
    refuses(many, "2", &beyond(Bound::TreeBytes, BOUNDS.tree_bytes));
    let entries =
        |count: u64| move |tar: Tar| (0..count).fold(tar, |tar, n| tar.file(&format!("f{n}"), b""));
    let flaw = beyond(Bound::Entries, BOUNDS.entries);
    refuses(entries(197), "f196", &flaw);
    accepts(entries(196));
    // Directories that only paths tell of are entries, too.
    let implied = |tar: Tar| (0..100).fold(tar, |tar, n| tar.file(&format!("d{n}/f"), b""));
    refuses(implied, "d98/f", &flaw);
}

#[test]
fn paths_beyond_the_bounds_are_refused() {
    let beyond = |bound, max| Flaw::Beyond { bound, max };
    let named = |path: String| move |tar: Tar| tar.pax(&[("path", path.as_bytes())]).file("f", b"");
    let cut = |path: &str| format!("{}...", &path[..200]);
    let deep = vec!["d"; 129].join("/");
    refuses(named(deep.clone()), &cut(&deep), &beyond(Bound::Depth, 128));
    accepts(named(vec!["d"; 128].join("/")));
    let name = "n".repeat(256);
    refuses(
        named(name.clone()),
        &cut(&name),
        &beyond(Bound::NameBytes, 255),
    );
    accepts(named("n".repeat(255)));
    let long = vec!["n".repeat(255); 9].join("/");
    refuses(
        named(long.clone()),
        &cut(&long),
        &beyond(Bound::PathBytes, 2048),
    );
    accepts(named(vec!["n".repeat(255); 8].join("/")));
    let to = |long: usize| {
        let target = vec![b't'; long];
        move |tar: Tar| tar.pax(&[("linkpath", &target)]).link("l", "short")
    };
    refuses(to(4096), "l", &beyond(Bound::TargetBytes, 4095));
    accepts(to(4095));
    refuses(
        |tar| tar.pax(&[("linkpath", b"a\0b")]).link("l", "x"),
        "l",
        &Flaw::BadName,
    );
}

#[test]
fn what_two_readers_could_take_differently_is_refused() {
    let sizes =
        |told: &'static [u8]| move |tar: Tar| tar.pax(&[("size", told)]).file("f", b"12345");
    refuses(sizes(b"512"), "f", &Flaw::TwoSizes);
    refuses(sizes(b"0"), "f", &Flaw::TwoSizes);
    accepts(sizes(b"5"));
    let content = |kind: EntryType| {
        move |tar: Tar| {
            let mut header = header(kind, "x", 512);
            header.as_old_mut().linkname[..9].copy_from_slice(b"etc/hosts");
            tar.entry(&header, &Tar::default().file("smuggled", b"").0)
        }
    };
    for kind in [EntryType::Directory, EntryType::Symlink, EntryType::Link] {
        refuses(content(kind), "x", &Flaw::Content);
    }
    let twice = malformed("two headers tell the same of one entry");
    let first = "the archive";
    let name = |tar: Tar| tar.before(EntryType::GNULongName, b"one\0");
    refuses(|tar| name(name(tar)).file("f", b""), first, &twice);
    refuses(
        |tar| name(tar).pax(&[("path", b"two")]).file("f", b""),
        first,
        &twice,
    );
    refuses(
        |tar| tar.pax(&[("path", b"a"), ("path", b"b")]).file("f", b""),
        first,
        &twice,
    );
    refuses(
        |tar| tar.pax(&[]).pax(&[("path", b"b")]).file("f", b""),
        first,
        &twice,
    );
    let global = |records: &'static [(&str, &[u8])]| {
        move |tar: Tar| {
            tar.before(EntryType::XGlobalHeader, &pax(records))
                .file("f", b"")
        }
    };
    let flaw = Flaw::UnknownKind { kind: b'g' };
    refuses(global(&[("path", b"../outside/new")]), first, &flaw);
    refuses(global(&[("size", b"0")]), first, &flaw);
    accepts(global(&[("comment", b"0123456789abcdef")]));
}

#[test]
fn sparse_files_are_refused_in_every_form() {
    refuses(
        |tar| tar.special(EntryType::GNUSparse, "s"),
        "s",
        &Flaw::Sparse,
    );
    for key in ["GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.realsize"] {
        let trick = |tar: Tar| tar.pax(&[("path", b"s"), (key, b"0")]).file("s", b"");
        refuses(trick, "s", &Flaw::Sparse);
    }
    accepts(|tar| {
        tar.pax(&[("path", b"s"), ("GNU.dumpdir", b"0")])
            .file("s", b"")
    });
}

#[test]
fn broken_archives_are_refused() {
    let whole = Tar::good().file("last", &[b'x'; 1000]);
    let bytes = whole.clone().end();
    assert!(lay(&bytes).is_ok());
    for (cut, entry) in [
        // Between entries, where the end has no mark; in a header; in a content.
        (whole.0.len(), "last"),
        (whole.0.len() - 512 - 1024, "etc/link"),
        (whole.0.len() - 1024 - 100, "etc/link"),
        (whole.0.len() - 700, "last"),
    ] {
        refuses_bytes(&bytes[..cut], entry, &Flaw::Truncated);
    }
    let mut flipped = bytes.clone();
    flipped[1024] ^= 1;
    let flaw = malformed("archive header checksum mismatch");
    refuses_bytes(&flipped, "etc/", &flaw);
    let second = [bytes.clone(), Tar::good().end()].concat();
    refuses_bytes(&second, "last", &Flaw::Trailing);
    assert!(lay(&[bytes, vec![0; 9 << 10]].concat()).is_ok());
    let announced = Tar::good().before(EntryType::GNULongName, b"more\0").end();
    refuses_bytes(&announced, "etc/link", &Flaw::Truncated);
    for (magic, with) in [
        (&b"\x28\xb5\x2f\xfdxx"[..], "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\x03\x04", "zip"),
    ] {
        let with = with.to_owned();
        refuses_bytes(magic, "the archive", &Flaw::Compressed { with });
    }
    refuses_bytes(b"", "the archive", &Flaw::Truncated);
    let text = "plain text, no archive. ".repeat(100);
    assert!(matches!(
        lay(text.as_bytes()).map(|_| ()).unwrap_err().flaw,
        Flaw::Malformed { .. }
    ));
}

#[test]
fn compressed_streams_are_bounded_and_their_checksums_count() {
    let whole = gzip(&Tar::good().end());
    assert!(lay(&whole).is_ok());
    let mut flipped = whole.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    assert!(matches!(
        lay(&flipped).map(|_| ()).unwrap_err().flaw,
        Flaw::Malformed { .. }
    ));
    refuses_bytes(&whole[..whole.len() - 4], "etc/link", &Flaw::Truncated);
    // A thousand times as much as it seems: content, then nothing but the filling of records.
    let bomb = gzip(&Tar::good().file("bomb", &vec![0; 64 << 20]).end());
    assert!(bomb.len() < 1 << 20);
    let max = BOUNDS.file_bytes;
    let bound = Bound::FileBytes;
    refuses_bytes(&bomb, "bomb", &Flaw::Beyond { bound, max });
    let mut filled = Tar::good().end();
    filled.resize(filled.len() + (17 << 20), 0);
    let (bound, max) = (Bound::PaddingBytes, 16 << 20);
    refuses_bytes(&gzip(&filled), "etc/link", &Flaw::Beyond { bound, max });
    let (bound, max) = (Bound::HeaderBytes, 64 << 10);
    let name = vec![b'n'; 70_000];
    let long = |tar: Tar| tar.before(EntryType::GNULongName, &name).file("f", b"");
    let first = "the archive";
    refuses(long, first, &Flaw::Beyond { bound, max });
}

#[test]
fn a_report_of_any_flaw_fits_its_pipe() {
    let refused = Refused::of(&[b'\n'; 5000], malformed(&flaw::escape(&[0; 5000])));
    let report = serde_json::to_vec(&Report::Refused(refused)).unwrap();
    assert!(report.len() <= REPORT_MAX, "{}", report.len());
}
