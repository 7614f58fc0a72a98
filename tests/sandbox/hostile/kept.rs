//! What a hostile program can leave for whoever reads its files once it has failed.
//!
//! The server asks a reader that stands in the sandbox; the host opens nothing of the tenant's. The
//! control of each refusal is an ordinary file beside it, which is read.

use std::collections::BTreeSet;
use std::fs;

use runtime::{EntryKind, Kept, Outcome, ReadError};

use super::order;
use super::special::Case;
use crate::bed::{Bed, Language, PATIENCE};

pub(super) const CASES: [Case; 6] = [
    (
        "kept_links_lead_to_nothing_of_the_host",
        kept_links_lead_to_nothing_of_the_host,
    ),
    (
        "kept_pipes_and_devices_are_not_opened",
        kept_pipes_and_devices_are_not_opened,
    ),
    (
        "ten_thousand_kept_entries_are_listed",
        ten_thousand_kept_entries_are_listed,
    ),
    (
        "kept_names_and_modes_are_told_as_they_are",
        kept_names_and_modes_are_told_as_they_are,
    ),
    (
        "nothing_runs_on_beside_kept_files",
        nothing_runs_on_beside_kept_files,
    ),
    (
        "kept_files_of_a_full_sandbox_are_read",
        kept_files_of_a_full_sandbox_are_read,
    ),
];

/// Runs a program that fails; answers its files, among them `control` with the word `tame`.
fn left_by(bed: &Bed, code: &str) -> Kept {
    let code = format!("open('control', 'w').write('tame')\n{code}\n");
    let mut order = order(Language::Python, &code, |_| {});
    order.code.push_str("\nsys.stdout.flush()\nos._exit(3)\n");
    order.keep_s = 500;
    let report = bed.run(&order).report;
    let errors = String::from_utf8_lossy(&report.stderr.bytes).into_owned();
    let expected = [
        Outcome::Exited { code: 3 },
        Outcome::DiskFull,
        Outcome::ProcessLimit,
    ];
    assert!(expected.contains(&report.outcome), "{report:?} {errors}");
    let kept = report.kept.unwrap();
    let control = read(bed, &kept, b"/workspace/control").unwrap();
    assert_eq!(control, b"tame");
    kept
}

fn read(bed: &Bed, kept: &Kept, path: &[u8]) -> Result<Vec<u8>, ReadError> {
    let piece = bed.executor.block_on(kept.read(path, 0, 64 * 1024));
    piece.map(|piece| piece.bytes)
}

fn kept_links_lead_to_nothing_of_the_host(bed: &Bed) {
    let secret = bed.dir.path().join("secret");
    fs::write(&secret, "host").unwrap();
    let path = secret.to_str().unwrap();
    let kept = left_by(
        bed,
        &format!(
            "os.symlink('{path}', 'absolute')\n\
             os.symlink('../' * 40 + '{path}', 'climbing')\n\
             os.symlink('/proc/self/root{path}', 'magic')\n\
             os.symlink('/proc/1/root{path}', 'init')\n\
             os.symlink('/etc/shadow', 'shadow')\n\
             os.symlink('/etc/hostname', 'hostname')\n\
             os.symlink('self', 'self')\n\
             os.symlink('/', 'top')"
        ),
    );
    for name in ["absolute", "climbing", "magic", "init", "self"] {
        let found = read(bed, &kept, format!("/workspace/{name}").as_bytes());
        assert!(
            matches!(found, Err(ReadError::NotFound)),
            "{name}: {found:?}"
        );
    }
    let host = fs::read("/etc/shadow").unwrap_or_default();
    for path in [
        "/workspace/shadow",
        "/etc/shadow",
        "/workspace/top/etc/shadow",
    ] {
        let found = read(bed, &kept, path.as_bytes());
        assert!(
            found.as_ref().map_or(true, |bytes| *bytes != host),
            "{path}"
        );
        assert!(found.is_err(), "{path}: {found:?}");
    }
    // Where the launcher and the shim have things of theirs.
    for path in [
        "/run",
        "/disk",
        "/img",
        "/images",
        "/st",
        "/bdi",
        "/m",
        "/proc/1",
        "/dev/null",
    ] {
        let found = bed.executor.block_on(kept.list(path.as_bytes(), 0, 9));
        let is_empty = found
            .as_ref()
            .is_ok_and(|listing| listing.entries.is_empty());
        // The image may have a directory of that name.
        assert!(
            found.is_err() || is_empty || path == "/run",
            "{path}: {found:?}"
        );
    }
    let found = read(bed, &kept, b"/workspace/top/workspace/control").unwrap();
    assert_eq!(found, b"tame");
    end(bed, &kept);
}

/// A reader that waited for a pipe would be given up, and its files with it.
fn kept_pipes_and_devices_are_not_opened(bed: &Bed) {
    let kept = left_by(
        bed,
        "import socket\n\
         os.mkfifo('pipe')\n\
         os.symlink('pipe', 'to-pipe')\n\
         socket.socket(socket.AF_UNIX).bind('socket')\n\
         for kind in (0o020666, 0o060666):\n    \
             try: os.mknod('device%d' % kind, kind, os.makedev(1, 5))\n    \
             except OSError: pass",
    );
    for name in ["pipe", "to-pipe", "socket"] {
        let found = read(bed, &kept, format!("/workspace/{name}").as_bytes());
        assert!(
            matches!(found, Err(ReadError::NotAFile)),
            "{name}: {found:?}"
        );
    }
    for kind in [0o020_666, 0o060_666] {
        let found = read(bed, &kept, format!("/workspace/device{kind}").as_bytes());
        assert!(found.is_err(), "{kind}: {found:?}");
    }
    end(bed, &kept);
}

fn ten_thousand_kept_entries_are_listed(bed: &Bed) {
    let kept = left_by(
        bed,
        "os.mkdir('many')\n\
         for n in range(10000): open('many/' + str(n) + 'x' * 200, 'w').close()",
    );
    let (mut from, mut names) = (0, BTreeSet::new());
    loop {
        let part = bed
            .executor
            .block_on(kept.list(b"/workspace/many", from, 1_000));
        let part = part.unwrap();
        assert!(!part.entries.is_empty() && part.entries.len() <= 1_000);
        from += u64::try_from(part.entries.len()).unwrap();
        names.extend(part.entries.into_iter().map(|entry| entry.name));
        if !part.more {
            break;
        }
    }
    assert_eq!((names.len(), from), (10_000, 10_000));
    end(bed, &kept);
}

fn kept_names_and_modes_are_told_as_they_are(bed: &Bed) {
    let kept = left_by(
        bed,
        "for name in (b'line\\nbreak', b'\\xff\\xfe', b'\\x1b[31mred', b'x' * 255, b'-rf', b' '):\n    \
             open(name, 'w').write('odd')\n\
         open('hidden', 'w').write('secret')\n\
         os.chmod('hidden', 0)\n\
         os.makedirs('shut/in')\n\
         os.chmod('shut', 0)\n\
         os.makedirs('blind')\n\
         open('blind/x', 'w').close()\n\
         os.chmod('blind', 0o444)\n\
         deep = '/workspace'\n\
         for n in range(300):\n    \
             os.mkdir('d' * 50); os.chdir('d' * 50)\n\
         f = os.open('/workspace/sparse', os.O_CREAT | os.O_WRONLY)\n\
         os.ftruncate(f, 1 << 27)",
    );
    let listing = bed
        .executor
        .block_on(kept.list(b"/workspace", 0, 100))
        .unwrap();
    let find = |name: &[u8]| {
        let mut entries = listing.entries.iter();
        entries.find(|entry| entry.name == name).unwrap()
    };
    let long = [b'x'; 255];
    for name in [
        b"line\nbreak".as_slice(),
        b"\xff\xfe",
        b"\x1b[31mred",
        &long,
        b"-rf",
        b" ",
    ] {
        assert_eq!((find(name).kind, find(name).size), (EntryKind::File, 3));
        let path = [b"/workspace/", name].concat();
        assert_eq!(read(bed, &kept, &path).unwrap(), b"odd");
    }
    assert_eq!((find(b"hidden").mode, find(b"hidden").size), (0, 6));
    let hidden = read(bed, &kept, b"/workspace/hidden");
    assert!(matches!(hidden, Err(ReadError::Denied)), "{hidden:?}");
    let shut = bed.executor.block_on(kept.list(b"/workspace/shut", 0, 9));
    assert!(matches!(shut, Err(ReadError::Denied)), "{shut:?}");
    let blind = bed
        .executor
        .block_on(kept.list(b"/workspace/blind", 0, 9))
        .unwrap();
    assert_eq!(blind.entries[0].kind, EntryKind::Other);
    assert_eq!(find(b"sparse").size, 1 << 27);
    let end_of_it = bed
        .executor
        .block_on(kept.read(b"/workspace/sparse", (1 << 27) - 3, 9));
    assert_eq!(end_of_it.unwrap().bytes, [0; 3]);
    let too_deep = [
        b"/workspace".to_vec(),
        [b"/", [b'd'; 50].as_slice()].concat().repeat(100),
    ];
    let found = read(bed, &kept, &too_deep.concat());
    assert!(matches!(found, Err(ReadError::NotFound)), "{found:?}");
    end(bed, &kept);
}

fn nothing_runs_on_beside_kept_files(bed: &Bed) {
    let kept = left_by(
        bed,
        "for n in range(8):\n    \
             if os.fork() == 0:\n        \
                 os.setsid()\n        \
                 f = open('grows', 'a')\n        \
                 while True:\n            \
                     f.write('x'); f.flush()\n\
         time.sleep(0.2)",
    );
    let size = || {
        let piece = bed.executor.block_on(kept.read(b"/workspace/grows", 0, 0));
        piece.unwrap().size
    };
    let first = size();
    let now = bed.look();
    // The reader, and nobody else.
    assert_eq!(now.processes.len(), 1, "{now:?}");
    let pid = now.processes.first().unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name, "farebox-reader\n");
    assert!(first > 0);
    assert_eq!(size(), first, "the file still grows");
    end(bed, &kept);
}

fn kept_files_of_a_full_sandbox_are_read(bed: &Bed) {
    let kept = left_by(
        bed,
        "try:\n    \
             f = os.open('all', os.O_CREAT | os.O_WRONLY)\n    \
             while True: os.write(f, b'x' * (1 << 20))\n\
         except OSError: pass\n\
         for n in range(60):\n    \
             try:\n        \
                 if os.fork() == 0: time.sleep(1000)\n    \
             except OSError: break",
    );
    let piece = bed
        .executor
        .block_on(kept.read(b"/workspace/all", 1 << 20, 64 * 1024));
    assert_eq!(piece.unwrap().bytes, [b'x'; 64 * 1024]);
    end(bed, &kept);
}

/// Lets the files go; nothing of them may stay.
fn end(bed: &Bed, kept: &Kept) {
    kept.end();
    let gone = async { tokio::time::timeout(PATIENCE, kept.gone()).await };
    assert!(bed.executor.block_on(gone).is_ok(), "it does not go");
    let late = read(bed, kept, b"/workspace/control");
    assert!(matches!(late, Err(ReadError::Gone)), "{late:?}");
}
