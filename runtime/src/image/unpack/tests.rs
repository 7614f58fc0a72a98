//! Hostile archives: each is refused for its flaw and touches nothing outside; the same archive
//! without the trick is unpacked.

mod bounds;
mod layers;
mod made;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tar::EntryType;

use self::made::{Tar, accepts, gzip, header, lay, malformed, refuses};
use super::*;

#[test]
fn a_good_archive_becomes_what_it_says_plain_or_compressed() {
    let tar = Tar::good()
        .file("usr/bin/tool", b"#!")
        .hard_link("usr/bin/other", "usr/bin/tool")
        .end();
    for archive in [
        tar.clone(),
        gzip(&tar),
        [gzip(&tar[..700]), gzip(&tar[700..])].concat(),
    ] {
        let ring = lay(&archive).unwrap();
        let tree = ring.tree();
        let text = format!("{tree:?}");
        assert_eq!(
            text,
            r##"{"etc": "/", "etc/hosts": "localhost", "etc/link": "-> hosts", "usr": "/", "usr/bin": "/", "usr/bin/other": "#!", "usr/bin/tool": "#!"}"##
        );
        let tool = fs::metadata(ring.root().join("usr/bin/tool")).unwrap();
        assert_eq!(
            (tool.nlink(), tool.mtime(), tool.mode() & 0o7777),
            (2, 1_700_000_000, 0o644)
        );
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    let file = |path: &'static str| move |tar: Tar| tar.file(path, b"x");
    refuses(file("../outside/new"), "../outside/new", &Flaw::Upward);
    refuses(
        file("etc/../../outside/new"),
        "etc/../../outside/new",
        &Flaw::Upward,
    );
    refuses(file("etc/.."), "etc/..", &Flaw::Upward);
    refuses(file("/etc/new"), "/etc/new", &Flaw::Absolute);
    accepts(file("./etc//./..new"));
    let long = |path: &'static [u8]| {
        move |tar: Tar| tar.before(EntryType::GNULongName, path).file("short", b"x")
    };
    refuses(long(b"../outside/new\0"), "../outside/new", &Flaw::Upward);
    refuses(long(b"etc/new\0/x"), "etc/new\\x00/x", &Flaw::BadName);
    let ring = accepts(long(b"etc/new\0"));
    assert_eq!(ring.tree()["etc/new"], "x");
    let path = |path: &'static [u8]| move |tar: Tar| tar.pax(&[("path", path)]).file("short", b"x");
    refuses(path(b"../outside/new"), "../outside/new", &Flaw::Upward);
    refuses(path(b"/etc/new"), "/etc/new", &Flaw::Absolute);
    refuses(path(b"etc/a\0b"), "etc/a\\x00b", &Flaw::BadName);
    refuses(path(b""), "the archive", &Flaw::BadName);
    assert_eq!(accepts(path(b"etc/new")).tree()["etc/new"], "x");
    refuses(|tar| tar.file("./", b""), "./", &Flaw::BadName);
}

#[test]
fn nothing_is_laid_behind_a_link_or_below_a_file() {
    for target in ["../outside", "/etc", "/proc/self/root/tmp", "etc", "."] {
        refuses(
            |tar| tar.link("way", target).file("way/new", b"x"),
            "way/new",
            &Flaw::ThroughLink,
        );
        refuses(
            |tar| tar.link("way", target).directory("way/new/deep"),
            "way/new/deep",
            &Flaw::ThroughLink,
        );
    }
    accepts(|tar| tar.link("way", "../outside").file("wax/new", b"x"));
    refuses(
        |tar| tar.file("etc/hosts/new", b"x"),
        "etc/hosts/new",
        &Flaw::UnderFile,
    );
}

#[test]
fn a_second_entry_of_one_name_is_refused_but_for_directories() {
    refuses(
        |tar| tar.file("etc/hosts", b"y"),
        "etc/hosts",
        &Flaw::Duplicate,
    );
    refuses(
        |tar| tar.file("./etc//hosts", b"y"),
        "./etc//hosts",
        &Flaw::Duplicate,
    );
    // First a directory, then a way out in its place, and the other way round.
    refuses(|tar| tar.link("etc", "../outside"), "etc", &Flaw::Duplicate);
    refuses(
        |tar| tar.directory("etc/link"),
        "etc/link",
        &Flaw::Duplicate,
    );
    refuses(
        |tar| tar.file("a/b", b"").file("a", b""),
        "a",
        &Flaw::Duplicate,
    );
    // A link that is replaced would be written through.
    refuses(
        |tar| tar.link("l", "../outside/file").file("l", b"y"),
        "l",
        &Flaw::Duplicate,
    );
    refuses(
        |tar| tar.file("f", b"f").hard_link("h", "f").file("h", b"y"),
        "h",
        &Flaw::Duplicate,
    );
    accepts(|tar| {
        tar.directory("etc/")
            .directory("etc")
            .file("a/b", b"")
            .directory("a")
    });
}

#[test]
fn hard_links_lead_to_files_of_the_archive_only() {
    let to =
        |target: &'static str| move |tar: Tar| tar.link("way", "../outside").hard_link("h", target);
    refuses(to("../outside/file"), "h", &Flaw::Upward);
    refuses(to("/etc/passwd"), "h", &Flaw::Absolute);
    refuses(to("way/file"), "h", &Flaw::ThroughLink);
    refuses(to("later"), "h", &Flaw::LinkTarget);
    refuses(to("etc"), "h", &Flaw::LinkTarget);
    refuses(to("./"), "h", &Flaw::LinkTarget);
    refuses(to(""), "h", &Flaw::BadName);
    let pax = |tar: Tar| {
        tar.pax(&[("linkpath", b"../outside/file")])
            .hard_link("h", "etc/hosts")
    };
    refuses(pax, "h", &Flaw::Upward);
    let ring = accepts(to("etc/hosts"));
    assert_eq!(ring.tree()["h"], "localhost");
    // A second name of a link is a link: it is not followed for it.
    let ring = accepts(|tar| tar.link("l", "../outside/file").hard_link("h", "l"));
    assert_eq!(ring.tree()["h"], "-> ../outside/file");
}

#[test]
fn special_files_are_refused() {
    for kind in [EntryType::Char, EntryType::Block] {
        refuses(|tar| tar.special(kind, "dev/sda"), "dev/sda", &Flaw::Device);
    }
    refuses(
        |tar| tar.special(EntryType::Fifo, "run/p"),
        "run/p",
        &Flaw::Special,
    );
    for (kind, letter) in [
        (b'V', "a volume"),
        (b'M', "a continuation"),
        (b'Z', "nothing"),
    ] {
        let flaw = Flaw::UnknownKind { kind };
        let special = |tar: Tar| tar.special(EntryType::new(kind), letter);
        refuses(special, letter, &flaw);
    }
    accepts(|tar| tar.special(EntryType::Regular, "dev/sda"));
}

#[test]
fn set_id_bits_and_attributes_are_left_out_and_counted() {
    let mut tool = header(EntryType::Regular, "tool", 0);
    tool.set_mode(0o6755);
    let mut spool = header(EntryType::Directory, "spool", 0);
    spool.set_mode(0o3777);
    let capability: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let records = [
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.user.note", b"x"),
        ("LIBARCHIVE.xattr.trusted.x", b"eA=="),
        ("SCHILY.acl.access", b"user::rw-"),
    ];
    let ring = accepts(|tar| {
        let tar = tar.pax(&records).entry(&tool, b"");
        tar.entry(&spool, b"")
    });
    assert_eq!((ring.tally.set_ids, ring.tally.attributes), (2, 4));
    let mode = |name: &str| {
        fs::metadata(ring.root().join(name))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(
        (mode("tool") & 0o7777, mode("spool") & 0o7777),
        (0o755, 0o1777)
    );
    let path = std::ffi::CString::new(ring.root().join("tool").to_str().unwrap()).unwrap();
    assert_eq!(kernel::attribute_names(&path).unwrap(), b"");
}

#[test]
fn instructions_to_an_overlay_are_refused() {
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.whiteout",
    ] {
        for prefix in ["SCHILY.xattr.", "LIBARCHIVE.xattr."] {
            let key = format!("{prefix}{name}");
            let flaw = Flaw::Attribute {
                name: name.to_owned(),
            };
            let trick = |tar: Tar| tar.pax(&[("path", b"etc/x"), (&key, b"y")]).file("x", b"");
            refuses(trick, "etc/x", &flaw);
        }
    }
    accepts(|tar| {
        tar.pax(&[("SCHILY.xattr.user.overlays", b"y")])
            .file("x", b"")
    });
}

#[test]
fn owners_that_no_sandbox_has_are_refused() {
    let by = |id: u64| {
        move |tar: Tar| {
            let mut header = header(EntryType::Regular, "f", 0);
            header.set_uid(id);
            tar.entry(&header, b"")
        }
    };
    for id in [65_536, 1 << 32, u64::MAX >> 8] {
        refuses(by(id), "f", &Flaw::ForeignId { id });
    }
    let pax = |tar: Tar| tar.pax(&[("gid", b"4294967296")]).file("f", b"");
    refuses(pax, "f", &Flaw::ForeignId { id: 1 << 32 });
    let pax = |tar: Tar| tar.pax(&[("uid", b"-1")]).file("f", b"");
    let reason = "a PAX header has no number where one must be";
    refuses(pax, "the archive", &malformed(reason));
    if nix::unistd::geteuid().is_root() {
        let ring = accepts(by(65_535));
        assert_eq!(fs::metadata(ring.root().join("f")).unwrap().uid(), 65_535);
    }
}

#[test]
fn names_with_control_bytes_are_kept_and_told_escaped() {
    let name = "etc/a\n\x1b[2J";
    let ring = accepts(|tar| tar.file(name, b"x"));
    assert_eq!(ring.tree()[name], "x");
    let twice = |tar: Tar| tar.file(name, b"x").file(name, b"y");
    refuses(twice, "etc/a\\n\\x1b[2J", &Flaw::Duplicate);
}
