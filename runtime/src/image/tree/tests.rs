//! Hostile trees: each is refused for its flaw, and accepted without it.

use std::fs::Permissions;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

const BOUNDS: Bounds = Bounds {
    tree_bytes: 1 << 20,
    file_bytes: 1 << 19,
    entries: 100,
};

fn walk(root: &Path) -> Result<Summary, Error> {
    summarise(root, &BOUNDS, &mut || Ok(()))
}

/// A small good tree; none where owners cannot be set.
fn tree() -> Option<tempfile::TempDir> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    needs::complete(File::open(dir.path()).unwrap().as_fd()).unwrap();
    fs::write(dir.path().join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    symlink("hosts", dir.path().join("etc/link")).unwrap();
    Some(dir)
}

/// The flaw that the walk finds, and where.
fn flaw_of(root: &Path) -> (String, Flaw) {
    match walk(root) {
        Err(Error::Unsafe { entry, flaw }) => (entry, flaw),
        other => panic!("not refused: {other:?}"),
    }
}

/// Makes something bad of a good tree, which must be refused for it, and good again without it.
fn refused_only_with(
    make: impl FnOnce(&Path),
    entry: &str,
    flaw: &Flaw,
    unmake: impl FnOnce(&Path),
) {
    let Some(dir) = tree() else { return };
    let before = walk(dir.path()).unwrap();
    make(dir.path());
    assert_eq!(flaw_of(dir.path()), (entry.to_owned(), flaw.clone()));
    unmake(dir.path());
    assert_eq!(walk(dir.path()).unwrap(), before, "{entry}: {flaw}");
}

fn remove(name: &'static str) -> impl FnOnce(&Path) {
    move |root| {
        let path = root.join(name);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn the_digest_depends_on_what_is_there_and_not_on_when_it_came() {
    let (Some(one), Some(two)) = (tree(), tree()) else {
        return;
    };
    let first = walk(one.path()).unwrap();
    assert_eq!(first, walk(two.path()).unwrap());
    assert_eq!((first.entries, first.size_bytes), (10, 20));

    let hosts = two.path().join("etc/hosts");
    fs::set_permissions(&hosts, Permissions::from_mode(0o600)).unwrap();
    let second = walk(two.path()).unwrap();
    assert_ne!(second.digest, first.digest);
    fs::write(&hosts, "127.0.0.2 localhost\n").unwrap();
    let third = walk(two.path()).unwrap();
    assert_ne!(third.digest, second.digest);
    fs::remove_file(two.path().join("etc/link")).unwrap();
    symlink("hostz", two.path().join("etc/link")).unwrap();
    assert_ne!(walk(two.path()).unwrap().digest, third.digest);
}

#[test]
fn a_link_in_the_place_of_a_mount_point_is_refused() {
    for name in needs::names() {
        let Some(dir) = tree() else { return };
        let path = dir.path().join(name);
        fs::remove_dir_all(&path).unwrap();
        let missing = flaw_of(dir.path());
        assert_eq!(missing, (format!("/{name}"), Flaw::Missing));
        symlink("/tmp", &path).unwrap();
        let linked = flaw_of(dir.path());
        assert_eq!(linked, (format!("/{name}"), Flaw::NotDirectory));
    }
}

#[test]
fn special_files_are_refused() {
    let bind = |root: &Path| {
        drop(std::os::unix::net::UnixListener::bind(root.join("run/s")).unwrap());
    };
    refused_only_with(bind, "/run/s", &Flaw::Special, remove("run/s"));
    let pipe = |root: &Path| {
        nix::unistd::mkfifo(&root.join("run/p"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    };
    refused_only_with(pipe, "/run/p", &Flaw::Special, remove("run/p"));
    let device = |root: &Path| {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        // A character device 0:0 is an overlay's whiteout.
        let (kind, mode) = (SFlag::S_IFCHR, Mode::S_IRUSR);
        mknod(&root.join("etc/gone"), kind, mode, makedev(0, 0)).unwrap();
    };
    refused_only_with(device, "/etc/gone", &Flaw::Device, remove("etc/gone"));
}

#[test]
fn set_id_bits_and_owners_that_no_sandbox_has_are_refused() {
    for mode in [0o4755, 0o2755] {
        let set = move |root: &Path| {
            fs::set_permissions(root.join("etc/hosts"), Permissions::from_mode(mode)).unwrap();
        };
        let unset = |root: &Path| {
            fs::set_permissions(root.join("etc/hosts"), Permissions::from_mode(0o644)).unwrap();
        };
        refused_only_with(set, "/etc/hosts", &Flaw::SetId, unset);
    }
    let set = |root: &Path| chown(root.join("etc/hosts"), None, Some(65_536)).unwrap();
    let unset = |root: &Path| chown(root.join("etc/hosts"), None, Some(0)).unwrap();
    refused_only_with(set, "/etc/hosts", &Flaw::ForeignId { id: 65_536 }, unset);
}

#[test]
fn attributes_are_refused_above_all_those_that_an_overlay_obeys() {
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "user.overlay.opaque",
        "security.capability",
        "user.note",
    ] {
        let Some(dir) = tree() else { return };
        let path = dir.path().join("etc/hosts");
        // A capability is only taken in its own form: version 2, cap_net_raw, effective.
        let value: &[u8] = match name {
            "security.capability" => &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => b"y",
        };
        if set_attribute(&path, name, value).is_err() {
            // Nothing to refuse on a file system without them.
            continue;
        }
        let flaw = Flaw::Attribute {
            name: name.to_owned(),
        };
        assert_eq!(flaw_of(dir.path()), ("/etc/hosts".to_owned(), flaw));
    }
}

#[expect(unsafe_code, reason = "the standard library sets no attributes")]
fn set_attribute(path: &Path, name: &str, value: &[u8]) -> std::io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = CString::new(name).unwrap();
    // SAFETY: both names are C strings, the value is as long as is said.
    let done = unsafe {
        let value_at = value.as_ptr().cast();
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value_at, value.len(), 0)
    };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[test]
fn sizes_beyond_the_bounds_are_refused_unread() {
    let holes = |root: &Path| {
        // A file system may not have that many; then it is as many as it has.
        let file = File::create(root.join("etc/holes")).unwrap();
        file.set_len(1 << 40)
            .or_else(|_| file.set_len(1 << 30))
            .unwrap();
    };
    let flaw = Flaw::Beyond {
        bound: Bound::FileBytes,
        max: BOUNDS.file_bytes,
    };
    refused_only_with(holes, "/etc/holes", &flaw, remove("etc/holes"));
    let much = |root: &Path| {
        fs::create_dir(root.join("etc/much")).unwrap();
        for name in ["a", "b", "c"] {
            let file = File::create(root.join("etc/much").join(name)).unwrap();
            file.set_len(BOUNDS.file_bytes - 16).unwrap();
        }
    };
    let flaw = Flaw::Beyond {
        bound: Bound::TreeBytes,
        max: BOUNDS.tree_bytes,
    };
    refused_only_with(much, "/etc/much/c", &flaw, remove("etc/much"));
    let many = |root: &Path| {
        fs::create_dir(root.join("etc/many")).unwrap();
        for number in 0..BOUNDS.entries {
            fs::write(root.join(format!("etc/many/{number}")), "").unwrap();
        }
    };
    let flaw = Flaw::Beyond {
        bound: Bound::Entries,
        max: BOUNDS.entries,
    };
    refused_only_with(many, "/etc/many", &flaw, remove("etc/many"));
}

#[test]
fn paths_beyond_the_bounds_are_refused() {
    let Some(dir) = tree() else { return };
    let bounds = Bounds {
        entries: 1000,
        ..BOUNDS
    };
    let deepest = usize::try_from(flaw::DEPTH_MAX).unwrap();
    let deep = dir.path().join(vec!["d"; deepest].join("/"));
    fs::create_dir_all(&deep).unwrap();
    summarise(dir.path(), &bounds, &mut || Ok(())).unwrap();
    fs::create_dir(deep.join("d")).unwrap();
    let refused = summarise(dir.path(), &bounds, &mut || Ok(()));
    let expected = Flaw::Beyond {
        bound: Bound::Depth,
        max: flaw::DEPTH_MAX,
    };
    assert!(
        matches!(&refused, Err(Error::Unsafe { flaw, .. }) if *flaw == expected),
        "{refused:?}"
    );
    fs::remove_dir_all(dir.path().join("d")).unwrap();

    let name = "n".repeat(255);
    let long = dir.path().join([name.as_str(); 8].join("/"));
    fs::create_dir_all(&long).unwrap();
    summarise(dir.path(), &bounds, &mut || Ok(())).unwrap();
    fs::create_dir(long.join("n")).unwrap();
    let refused = summarise(dir.path(), &bounds, &mut || Ok(()));
    let bound = Bound::PathBytes;
    let expected = Flaw::Beyond {
        bound,
        max: flaw::PATH_BYTES_MAX,
    };
    assert!(
        matches!(&refused, Err(Error::Unsafe { flaw, .. }) if *flaw == expected),
        "{refused:?}"
    );
}

#[test]
fn names_with_control_bytes_are_legal_and_told_escaped() {
    let Some(dir) = tree() else { return };
    let name = std::ffi::OsString::from_vec(b"etc/a\n\x1b[2J\xff".to_vec());
    fs::write(dir.path().join(&name), "").unwrap();
    walk(dir.path()).unwrap();
    fs::set_permissions(dir.path().join(&name), Permissions::from_mode(0o4755)).unwrap();
    let error = walk(dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/etc/a\\n\\x1b[2J\\xff"), "{text}");
    assert!(!text.contains(['\n', '\x1b']), "{text}");
}

#[test]
fn a_walk_ends_when_its_caller_says_so() {
    let Some(dir) = tree() else { return };
    let mut calls = 0;
    let ended = summarise(dir.path(), &BOUNDS, &mut || {
        calls += 1;
        if calls == 3 {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    });
    assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
    assert_eq!(calls, 3);
}

/// A link is a link, wherever it points: its target's content is no part of an image.
#[test]
fn a_link_to_the_host_is_recorded_and_not_read() {
    let Some(dir) = tree() else { return };
    let before = walk(dir.path()).unwrap();
    let hosts = dir.path().join("etc/hosts");
    fs::remove_file(&hosts).unwrap();
    symlink("/etc/passwd", &hosts).unwrap();
    let after = walk(dir.path()).unwrap();
    assert_eq!(after.size_bytes, before.size_bytes - 20);
    assert_eq!(after.entries, before.entries);
}
