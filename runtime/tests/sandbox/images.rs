//! Imported images: what runs in them, who unpacks them, and what becomes of a store that somebody
//! has changed.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use nix::poll::{PollTimeout, poll};
use nix::sys::stat::Mode;
use runtime::image::{Bounds, Error, Flaw, Import, Imported, Source, Store};
use runtime::{Outcome, StartError};
use tar::{Builder, EntryType, Header};

use crate::Test;
use crate::bed::{Bed, Run, children, images, limits, text};

pub(crate) const TESTS: &[Test] = &[
    ("an_imported_archive_runs", archive_runs),
    (
        "an_imported_layout_runs_with_its_layers_in_order",
        layout_runs,
    ),
    ("a_changed_store_is_refused_at_start", changed_store),
    (
        "the_unpacking_process_can_reach_nothing_but_the_tree",
        walls,
    ),
    (
        "a_refused_import_leaves_the_store_as_it_was",
        refused_leaves_nothing,
    ),
    (
        "image_and_overlay_are_mounted_without_set_id_and_devices",
        mounts,
    ),
];

/// Longest wait for a process to begin its work, in ms.
const PATIENCE_MS: u32 = 60_000;

const BOUNDS: Bounds = Bounds {
    tree_bytes: 1 << 28,
    file_bytes: 1 << 27,
    entries: 10_000,
};

fn import(store: &Store, source: Source) -> Result<Imported, Error> {
    let import = Import {
        name: "tiny:1".to_owned(),
        languages: vec!["shell".to_owned()],
        source,
        bounds: BOUNDS,
    };
    store.import(&import, &mut |_| {})
}

/// A shell and its libraries, from the image that other tests run in: paths below the root.
fn shell_files(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("usr/bin/dash"), PathBuf::from("usr/bin/sh")];
    let mut todo = vec![PathBuf::from("usr/lib"), PathBuf::from("usr/lib64")];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs::read_dir(root.join(&dir)) else {
            continue;
        };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), dir.join(entry.file_name()));
            let name = name.to_string_lossy();
            if entry.file_type().unwrap().is_dir() {
                todo.push(path);
            } else if name == "libc.so.6" || name.starts_with("ld-linux") {
                found.push(path);
            }
        }
    }
    found
}

/// An archive of a small root file system with a shell.
fn shell() -> Builder<Vec<u8>> {
    let store = images();
    let image = Store::open(&store).resolve("python").unwrap();
    let root = store.join("sha256").join(image.digest.hex()).join("rootfs");
    let mut tar = Builder::new(Vec::new());
    tar.follow_symlinks(false);
    for link in ["bin", "lib", "lib64"] {
        tar.append_path_with_name(root.join(link), link).unwrap();
    }
    for path in shell_files(&root) {
        tar.append_path_with_name(root.join(&path), &path).unwrap();
    }
    tar
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn add(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = header(EntryType::Regular, mode, content.len());
    tar.append_data(&mut header, path, content).unwrap();
}

/// A store of its own, and a file beside it.
fn store_and_file(content: &[u8]) -> (tempfile::TempDir, Store, Source) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archive");
    fs::write(&file, content).unwrap();
    let store = Store::open(&dir.path().join("store"));
    (dir, store, Source::Path(file))
}

fn run_in(store: &Store, script: &str) -> (Outcome, String) {
    let mut bed = Bed::on(store.dir().to_owned(), "tiny:1");
    let report = bed.run(&Run::command(&["sh", "-c", script]));
    bed.end();
    let told = text(&report.stdout) + &text(&report.stderr);
    (report.outcome, told)
}

fn archive_runs(_: &mut Bed) {
    let mut tar = shell();
    add(&mut tar, "etc/motd", 0o644, b"hello\n");
    add(&mut tar, "usr/bin/grow", 0o6755, b"#!/bin/sh\n");
    let (_dir, store, source) = store_and_file(&tar.into_inner().unwrap());
    let imported = import(&store, source.clone()).unwrap();
    assert_eq!(imported.set_ids_dropped, 1);
    let image = &imported.image;
    assert_eq!((image.name.as_str(), image.tag.as_str()), ("tiny", "1"));
    assert!(image.origin.starts_with("tar sha256:"), "{image:?}");
    assert_eq!(store.inspect("tiny:1", &BOUNDS).unwrap(), *image);
    // The same again is the same image.
    assert_eq!(import(&store, source).unwrap().image.digest, image.digest);
    assert_eq!(fs::read_dir(store.dir().join("sha256")).unwrap().count(), 1);

    let script = "read line < /etc/motd; echo $line from $PWD; echo kept > note; read kept < note
        echo $kept; [ -u /usr/bin/grow ] && echo set-id; [ -d /run ] && echo run
        echo x > /etc/motd";
    let (outcome, told) = run_in(&store, script);
    let expected = "hello from /workspace\nkept\nrun\n";
    assert!(told.starts_with(expected), "{told}");
    assert!(told.contains("Permission denied"), "{told}");
    assert_ne!(outcome, Outcome::Exited { code: 0 });
}

/// Writes a layout of these layers to `dir`.
fn write_layout(dir: &Path, layers: &[Vec<u8>]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |content: &[u8], kind: &str| {
        let digest = sha256(content);
        fs::write(blobs.join(&digest), content).unwrap();
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"), "size": content.len(),
        })
    };
    let config = serde_json::json!({ "config": { "Env": ["GREETING=from the image"] } });
    let config = put(config.to_string().as_bytes(), "config.v1+json");
    let layers: Vec<_> = layers.iter().map(|one| put(one, "layer.v1.tar")).collect();
    let manifest = serde_json::json!({ "config": config, "layers": layers });
    let manifest = put(manifest.to_string().as_bytes(), "manifest.v1+json");
    let index = serde_json::json!({ "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

fn sha256(content: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(content);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn layout_runs(_: &mut Bed) {
    let mut base = shell();
    add(&mut base, "data/old", 0o644, b"old");
    add(&mut base, "data/kept", 0o644, b"kept");
    let mut upper = Builder::new(Vec::new());
    add(&mut upper, "data/.wh.old", 0o644, b"");
    add(&mut upper, "data/new", 0o644, b"new");
    let layers = [base.into_inner().unwrap(), upper.into_inner().unwrap()];
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    write_layout(&layout, &layers);
    let store = Store::open(&dir.path().join("store"));
    let image = import(&store, Source::Path(layout.clone())).unwrap().image;
    assert!(image.origin.starts_with("oci sha256:"), "{image:?}");
    let (outcome, told) = run_in(&store, "echo $GREETING; echo /data/*");
    assert_eq!(told, "from the image\n/data/kept /data/new\n");
    assert_eq!(outcome, Outcome::Exited { code: 0 });

    // The same as an archive, whose blobs may come before the index; it is the same image.
    let mut tar = Builder::new(Vec::new());
    tar.append_dir_all(".", &layout).unwrap();
    let file = dir.path().join("layout.tar");
    fs::write(&file, tar.into_inner().unwrap()).unwrap();
    let again = import(&store, Source::Path(file)).unwrap().image;
    assert_eq!((again.digest, again.origin), (image.digest, image.origin));

    // A layer that is not what its digest says is found out, and nothing is kept.
    let layer = layout.join("blobs/sha256").join(sha256(&layers[1]));
    let mut other = layers[1].clone();
    // Behind two headers, the first of an empty file.
    let content = 1024;
    assert_eq!(&other[content..content + 3], b"new");
    other[content] = b'N';
    fs::write(&layer, other).unwrap();
    let error = import(&store, Source::Path(layout.clone())).unwrap_err();
    assert!(error.to_string().contains("has another digest"), "{error}");
    assert!(!store.dir().join("staging").exists());
    fs::write(&layer, &layers[1]).unwrap();
    assert!(import(&store, Source::Path(layout)).is_ok());
}

/// Where the image of a store is.
fn root_of(store: &Store) -> (PathBuf, String) {
    let digest = store.resolve("tiny:1").unwrap().digest;
    let root = store.dir().join("sha256").join(digest.hex()).join("rootfs");
    (root, digest.to_string())
}

fn changed_store(_: &mut Bed) {
    let (_dir, store, source) = store_and_file(&shell().into_inner().unwrap());
    import(&store, source).unwrap();
    let (root, digest) = root_of(&store);
    let mut bed = Bed::on(store.dir().to_owned(), "tiny:1");
    let hello = Run::command(&["sh", "-c", "echo hello"]);
    assert_eq!(text(&bed.run(&hello).stdout), "hello\n");

    let refused = |bed: &mut Bed, entry: &str, reason: &str| {
        let spec = bed.spec(limits());
        let error = bed.block_on(bed.runtime.open(spec)).unwrap_err();
        let told = error.to_string();
        let StartError::UnsafeImage {
            image,
            entry: found,
            why,
        } = error
        else {
            panic!("refused otherwise: {error:?}");
        };
        assert_eq!((image.to_string(), found.as_str()), (digest.clone(), entry));
        assert!(why.starts_with(reason), "{why}");
        assert!(told.contains(&digest) && told.contains(entry), "{told}");
    };
    let outside = tempfile::tempdir().unwrap();
    for name in ["dev", "proc", "sys", "etc", "tmp", "run", "workspace"] {
        let (path, aside) = (root.join(name), root.join("aside"));
        fs::rename(&path, &aside).unwrap();
        refused(&mut bed, &format!("/{name}"), "is missing");
        symlink(outside.path(), &path).unwrap();
        refused(&mut bed, &format!("/{name}"), "is not a plain directory");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(
        fs::read_dir(outside.path()).unwrap().count(),
        0,
        "a link was followed"
    );
    fs::set_permissions(root.join("etc"), Permissions::from_mode(0o777)).unwrap();
    refused(&mut bed, "/etc", "can be written to by others");
    fs::set_permissions(root.join("etc"), Permissions::from_mode(0o755)).unwrap();
    // As it was, it runs again.
    assert_eq!(text(&bed.run(&hello).stdout), "hello\n");
    bed.end();
}

/// The process that unpacks, while it waits for the rest of its archive.
fn walls(_: &mut Bed) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"));
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "seen", 0o644, b"x");
    let archive = tar.into_inner().unwrap();
    let importing = {
        let (store, source) = (store.clone(), Source::Path(pipe.clone()));
        thread::spawn(move || import(&store, source))
    };
    let mut feed = File::options().write(true).open(&pipe).unwrap();
    feed.write_all(&archive[..1024]).unwrap();
    // Once the first entry is there, all walls are.
    let seen = store.dir().join("staging/rootfs/seen");
    let begun = (0..PATIENCE_MS).any(|_| {
        poll(&mut [], PollTimeout::from(1_u8)).unwrap();
        seen.exists() || importing.is_finished()
    });
    assert!(begun && seen.exists(), "nothing is unpacked");
    let pid = unpacker();
    has_three_capabilities(pid);
    sees_only_the_tree(pid);

    // It ends with its archive, which ends too early, and so does the import.
    drop(feed);
    let error = importing.join().unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unsafe {
                flaw: Flaw::Truncated,
                ..
            }
        ),
        "{error}"
    );
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!store.dir().join("staging").exists());
}

/// What a process may do: give files their owners and modes, within its limits.
fn has_three_capabilities(pid: i32) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = read("status");
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t000000000000000b",
        "CapEff:\t000000000000000b",
        "CapBnd:\t000000000000000b",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Groups:\t ",
    ] {
        assert!(status.contains(line), "{line} is not in:\n{status}");
    }
    assert!(
        status
            .lines()
            .any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    );
    assert_eq!(read("environ"), "");
    let limits = read("limits");
    for (name, most) in [
        ("Max file size", "134217728"),
        ("Max core file size", "0"),
        ("Max open files", "512"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(most), "{line}");
    }
}

/// What a process can reach: no mount, directory, descriptor or namespace but its own.
fn sees_only_the_tree(pid: i32) {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let options = mounts.split_whitespace().nth(5).unwrap();
    for option in ["nosuid", "nodev", "noexec", "nosymfollow"] {
        assert!(options.split(',').any(|one| one == option), "{options}");
    }
    let root: Vec<_> = fs::read_dir(format!("/proc/{pid}/root")).unwrap().collect();
    assert_eq!(root.len(), 1, "{root:?}");
    for kind in ["pid", "mnt", "net", "ipc", "uts"] {
        let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(space(&pid.to_string()), space("self"), "{kind}");
    }
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let files: Vec<PathBuf> = files
        .map(|one| fs::read_link(one.unwrap().path()).unwrap())
        .collect();
    let outside = |one: &&PathBuf| !one.to_string_lossy().starts_with("pipe:");
    let files: Vec<_> = files.iter().filter(outside).collect();
    // The file that has just been unpacked may still be open.
    let own = ["/", "/dev/null", "/seen"].map(Path::new);
    assert!(
        files.iter().all(|one| own.contains(&one.as_path())),
        "{files:?}"
    );
}

/// The confined process: the child of the one that the import has started.
fn unpacker() -> i32 {
    let own = i32::try_from(std::process::id()).unwrap();
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: String| fs::read_to_string(format!("/proc/{own}/task/{task}/children"));
    let all = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    let all = all
        .filter_map(|task| of_task(task).ok())
        .collect::<Vec<_>>()
        .join(" ");
    let is_unpacker = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"unpack")
    };
    let outer = all
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .find(is_unpacker);
    *children(outer.unwrap()).first().unwrap()
}

fn refused_leaves_nothing(_: &mut Bed) {
    let mut tar = shell();
    let mut device = header(EntryType::Char, 0o666, 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    tar.append_data(&mut device, "dev/null", &b""[..]).unwrap();
    let (_dir, store, source) = store_and_file(&tar.into_inner().unwrap());
    let error = import(&store, source).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unsafe {
                flaw: Flaw::Device,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(store.list().unwrap(), []);
    let mut left: Vec<_> = fs::read_dir(store.dir())
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["lock", "sha256"]);
    assert_eq!(fs::read_dir(store.dir().join("sha256")).unwrap().count(), 0);
}

/// What a launcher's shim has mounted, seen from outside.
fn mounts(bed: &mut Bed) {
    let spec = bed.spec(limits());
    let sandbox = bed.block_on(bed.runtime.open(spec)).unwrap();
    let shim = *children(bed.launcher).last().unwrap();
    let mounts = fs::read_to_string(format!("/proc/{shim}/mountinfo")).unwrap();
    let options = |point: &str| {
        let line = mounts
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some(point));
        let line = line.unwrap_or_else(|| panic!("no {point} in:\n{mounts}"));
        line.split(' ')
            .nth(5)
            .unwrap()
            .split(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (point, wanted) in [
        ("/img", &["ro", "nosuid", "nodev"][..]),
        ("/images", &["ro", "nosuid", "nodev"][..]),
        ("/m", &["nosuid", "nodev"][..]),
    ] {
        let found = options(point);
        assert!(
            wanted.iter().all(|one| found.iter().any(|is| is == one)),
            "{point}: {found:?}"
        );
    }
    let overlay = mounts
        .lines()
        .find(|line| line.contains(" - overlay "))
        .unwrap();
    assert!(overlay.contains("redirect_dir=nofollow"), "{overlay}");
    assert!(!overlay.contains("metacopy=on"), "{overlay}");
    bed.block_on(sandbox.discard());
}
