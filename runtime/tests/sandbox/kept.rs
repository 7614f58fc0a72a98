//! Files of a failed run that are kept: what the reader is, seen from outside, what it shows, and
//! that nothing of it is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::{Clock, EntryKind, Kept, Outcome, ReadError, Report};
use tokio::time::timeout;

use crate::Test;
use crate::bed::{Bed, Run, children};

pub(crate) const TESTS: &[Test] = &[
    ("a_reader_is_what_the_tenants_code_was", posture),
    ("kept_files_are_listed_and_read", files),
    ("kept_files_go_when_their_time_is_over", expiry),
    ("only_a_failed_run_is_kept_and_only_if_asked", only_failures),
    ("every_bad_end_can_be_kept", bad_ends),
    ("a_shim_that_dies_takes_the_kept_files_along", shim_dies),
    ("kept_files_take_a_slot_until_they_are_gone", slots),
    ("kept_files_do_not_outlive_their_runtime", drain),
    ("the_launchers_maximum_bounds_the_time", bounded),
];

/// Longest that anything which must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Shortest time that files of these tests are kept for.
const LONG_S: u32 = 50;

fn failing(keep_s: u32) -> Run {
    let mut run = Run::shell("echo result > out.txt; exit 3");
    run.keep_s = keep_s;
    run
}

fn kept(report: &Report) -> Kept {
    report.kept.clone().unwrap()
}

fn gone(bed: &Bed, kept: &Kept) {
    let waited = bed.block_on(async { timeout(PATIENCE, kept.gone()).await });
    assert!(waited.is_ok(), "it is still there");
    let read = bed.block_on(kept.read(b"/workspace/out.txt", 0, 9));
    assert!(matches!(read, Err(ReadError::Gone)), "{read:?}");
}

/// The reader of the only sandbox that is there, and its shim.
fn reader(bed: &Bed) -> (i32, i32) {
    let shims = children(bed.launcher);
    let [shim] = shims[..] else {
        panic!("{shims:?}")
    };
    let readers = children(shim);
    let [reader] = readers[..] else {
        panic!("{readers:?}")
    };
    (reader, shim)
}

fn dir(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn link(pid: i32, name: &str) -> String {
    let target = fs::read_link(dir(pid).join(name)).unwrap();
    target.to_str().unwrap().to_owned()
}

fn posture(bed: &mut Bed) {
    let report = bed.run(&failing(LONG_S));
    let kept = kept(&report);
    let (reader, shim) = reader(bed);
    is_nobody(reader);
    is_apart(bed, reader, shim);
    has_nothing(reader);
    is_alone(reader);
    kept.end();
    gone(bed, &kept);
    assert!(!dir(reader).exists() && !dir(shim).exists());
}

fn text_of(pid: i32, name: &str) -> String {
    fs::read_to_string(dir(pid).join(name)).unwrap()
}

/// The tenant's user, no capability, the filter.
fn is_nobody(reader: i32) {
    let status = text_of(reader, "status");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap().trim_start_matches(':').split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("Name"), "farebox-reader");
    let user = (0x4000_0000_u32 + 1000).to_string();
    let four = [user.as_str(); 4].join(" ");
    assert_eq!((line("Uid"), line("Gid")), (four.clone(), four));
    assert_eq!(line("Groups"), user);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (line("NoNewPrivs").as_str(), line("Seccomp").as_str()),
        ("1", "2")
    );
    assert_eq!(line("Threads"), "1");
    assert!(line("NSpid").ends_with(" 1"), "{}", line("NSpid"));
    // Undumpable: what tells of its memory is root's, whoever it is.
    let memory = fs::metadata(dir(reader).join("environ")).unwrap();
    assert_eq!(memory.uid(), 0);
}

/// Namespaces of its own, and the sandbox's ids.
fn is_apart(bed: &Bed, reader: i32, shim: i32) {
    let own = i32::try_from(std::process::id()).unwrap();
    for name in ["pid", "mnt", "net", "ipc", "uts", "cgroup", "user"] {
        let name = format!("ns/{name}");
        for other in [own, bed.launcher, shim] {
            assert_ne!(link(reader, &name), link(other, &name), "{name} of {other}");
        }
    }
    let map = text_of(reader, "uid_map");
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", (0x4000_0000_u32).to_string().as_str(), "65536"]);
}

/// One socket, and a root that is read-only and all that is mounted.
fn has_nothing(reader: i32) {
    let open: Vec<_> = fs::read_dir(dir(reader).join("fd")).unwrap().collect();
    assert_eq!(open.len(), 1, "{open:?}");
    let name = open[0].as_ref().unwrap().file_name();
    let target = link(reader, &format!("fd/{}", name.to_str().unwrap()));
    assert!(target.starts_with("socket:["), "{target}");
    let (cwd, root) = (link(reader, "cwd"), link(reader, "root"));
    assert_eq!((cwd.as_str(), root.as_str()), ("/", "/"));
    let mounts = text_of(reader, "mountinfo");
    let [mount] = mounts.lines().collect::<Vec<_>>()[..] else {
        panic!("{mounts}")
    };
    let words: Vec<&str> = mount.split(' ').collect();
    assert_eq!(words[4], "/", "{mount}");
    assert!(mount.contains(" - overlay "), "{mount}");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(words[5].split(',').any(|word| word == option), "{mount}");
    }
    let limits = text_of(reader, "limits");
    for title in ["Max core file size", "Max file size"] {
        let line = limits.lines().find_map(|line| line.strip_prefix(title));
        let soft = line.unwrap().split_whitespace().next();
        assert_eq!(soft, Some("0"), "{title}");
    }
}

/// In the sandbox's own group, and the only one there.
fn is_alone(reader: i32) {
    let groups = text_of(reader, "cgroup");
    let own = format!("/sandboxes/{}", "01".repeat(16));
    let line = groups.lines().find(|line| line.ends_with(&own));
    // With the instance's name: other tests have sandboxes of the same one.
    let group = line.unwrap().rsplit(':').next().unwrap();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().ok()?;
        name.parse::<i32>().ok()
    });
    let members = numbers.filter(|pid| {
        let text = fs::read_to_string(dir(*pid).join("cgroup"));
        text.is_ok_and(|text| text.contains(group))
    });
    assert_eq!(members.collect::<Vec<_>>(), [reader]);
}

fn files(bed: &mut Bed) {
    let code = "\
import os
open('out.txt', 'w').write('result')
os.symlink('/etc/shadow', 'shadow')
os.symlink('out.txt', 'link')
os.mkfifo('pipe')
os.mkdir('sub')
open('sub/secret', 'w').close()
os.chmod('sub/secret', 0)
open(b'a\\nb\\xff', 'w').close()
os.makedirs('/tmp/x/y')
open('/dev/shm/gone', 'w').write('x')
raise SystemExit(3)
";
    let mut run = Run::python(code);
    run.keep_s = LONG_S;
    let report = bed.run(&run);
    assert_eq!(report.outcome, Outcome::Exited { code: 3 });
    let kept = kept(&report);
    assert_eq!(kept.for_s(), LONG_S);
    let read = |path: &[u8]| bed.block_on(kept.read(path, 0, 100));
    let piece = read(b"/workspace/out.txt").unwrap();
    assert_eq!(
        (piece.size, piece.bytes.as_slice()),
        (6, b"result".as_slice())
    );
    let linked = read(b"/workspace/link").unwrap();
    assert_eq!(linked.bytes, b"result");
    assert_eq!(read(b"/workspace/a\nb\xff").unwrap().size, 0);
    // The image's own, which the sandbox's user may not read either; the host's is out of reach.
    let shadow = read(b"/workspace/shadow");
    assert!(
        matches!(shadow, Err(ReadError::Denied | ReadError::NotFound)),
        "{shadow:?}"
    );
    let pipe = read(b"/workspace/pipe");
    assert!(matches!(pipe, Err(ReadError::NotAFile)), "{pipe:?}");
    let secret = read(b"/workspace/sub/secret");
    assert!(matches!(secret, Err(ReadError::Denied)), "{secret:?}");
    for path in [
        "/dev/null",
        "/dev/shm/gone",
        "/proc/1/environ",
        "/run/final",
        "/disk/u",
    ] {
        let found = read(path.as_bytes());
        assert!(found.is_err(), "{path}: {found:?}");
    }
    let listing = bed.block_on(kept.list(b"/workspace", 0, 100)).unwrap();
    let mut kinds: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| (entry.name.as_slice(), entry.kind))
        .collect();
    kinds.sort_unstable_by_key(|(name, _)| *name);
    let expected: [(&[u8], EntryKind); 7] = [
        (b"a\nb\xff", EntryKind::File),
        (b"link", EntryKind::Link),
        (b"main.py", EntryKind::File),
        (b"out.txt", EntryKind::File),
        (b"pipe", EntryKind::Other),
        (b"shadow", EntryKind::Link),
        (b"sub", EntryKind::Directory),
    ];
    assert_eq!(kinds, expected);
    assert!(!listing.more);
    let none = bed.block_on(kept.list(b"/no/such", 0, 100));
    assert!(matches!(none, Err(ReadError::NotFound)), "{none:?}");
    kept.end();
    gone(bed, &kept);
}

fn expiry(bed: &mut Bed) {
    let report = bed.run(&failing(1));
    let kept = kept(&report);
    assert!(bed.block_on(kept.read(b"/workspace/out.txt", 0, 9)).is_ok());
    gone(bed, &kept);
    assert!(children(bed.launcher).is_empty());
}

fn only_failures(bed: &mut Bed) {
    assert!(bed.run(&failing(0)).kept.is_none());
    let mut good = Run::shell("sleep 1000 & exit 0");
    good.keep_s = LONG_S;
    assert!(bed.run(&good).kept.is_none());
}

fn bad_ends(bed: &mut Bed) {
    let mut wall = Run::shell("echo w > out.txt; sleep 1000 & sleep 1000");
    wall.limits.wall_ms = 3_000;
    let mut memory = Run::python(
        "open('out.txt', 'w').write('w')\nx = [bytearray(1 << 20) for _ in range(500)]",
    );
    memory.limits.memory_bytes = 64 << 20;
    let disk = Run::shell("echo w > out.txt; cat /dev/zero > big; exit 1");
    let wall_out = Outcome::TimedOut { clock: Clock::Wall };
    for (mut run, outcome) in [
        (wall, wall_out),
        (memory, Outcome::OutOfMemory),
        (disk, Outcome::DiskFull),
    ] {
        run.keep_s = LONG_S;
        let report = bed.run(&run);
        assert_eq!(report.outcome, outcome);
        let kept = kept(&report);
        let piece = bed
            .block_on(kept.read(b"/workspace/out.txt", 0, 1))
            .unwrap();
        assert_eq!(piece.bytes, b"w", "{outcome:?}");
        // With the last clone it goes as well.
        drop(report);
        drop(kept);
    }
}

fn shim_dies(bed: &mut Bed) {
    let report = bed.run(&failing(LONG_S));
    let kept = kept(&report);
    let (reader, shim) = reader(bed);
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    gone(bed, &kept);
    assert!(!dir(reader).exists());
    // What the sweep wrote down had been settled before.
    assert_eq!(bed.runtime.left_behind(), []);
}

fn slots(bed: &mut Bed) {
    let reports: Vec<Report> = (0..4).map(|_| bed.run(&failing(LONG_S))).collect();
    let spec = bed.spec(crate::bed::limits());
    let full = bed.block_on(bed.runtime.open(spec.clone()));
    let full = full.unwrap_err();
    assert!(
        matches!(full, runtime::StartError::Overloaded { .. }),
        "{full:?}"
    );
    let first = kept(&reports[0]);
    first.end();
    gone(bed, &first);
    let sandbox = bed.block_on(bed.runtime.open(spec)).unwrap();
    bed.block_on(sandbox.discard());
}

/// The bed's own end finds nothing left.
fn drain(bed: &mut Bed) {
    let report = bed.run(&failing(LONG_S));
    let kept = kept(&report);
    assert!(bed.block_on(kept.list(b"/", 0, 100)).is_ok());
    std::mem::forget(kept);
    bed.block_on(bed.runtime.drain());
}

fn bounded(bed: &mut Bed) {
    let report = bed.run(&failing(u32::MAX));
    assert_eq!(kept(&report).for_s(), 60);
}
