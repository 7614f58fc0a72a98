//! A mount namespace with a /dev of its own for tests that start real sandboxes, and what the tests
//! are told by the environment: whether to run whole, with which seed, on which images.
//!
//! A namespace belongs to the thread that made it and to all that this thread starts, so a test
//! enters it first and starts its clients and its server afterwards.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::geteuid;

/// The namespace that the calling thread is in, and a hold on the host's /dev from outside it.
#[derive(Debug)]
pub(crate) struct World {
    host_dev: File,
    /// The image store that the tests use.
    pub(crate) images: PathBuf,
    /// Long tests run whole.
    pub(crate) full: bool,
}

/// Asks again and again until there is an answer, or `patience` has passed.
pub(crate) fn wait_until<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > end {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl World {
    /// Enters a private world; `None`, said aloud, where this machine cannot run sandboxes.
    pub(crate) fn enter(test: &str) -> Option<Self> {
        if !geteuid().is_root() {
            skip(test, "needs root to start real sandboxes");
            return None;
        }
        let Some(images) = read("FAREBOX_TEST_IMAGES").map(PathBuf::from) else {
            skip(
                test,
                "needs images: FAREBOX_TEST_IMAGES names no store (scripts/test.sh sets it)",
            );
            return None;
        };
        let host_dev = File::open("/dev").unwrap();
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            skip(
                test,
                &format!("needs a mount namespace of its own: {errno}"),
            );
            return None;
        }
        private_dev();
        let world = Self {
            host_dev,
            images,
            full: read("FAREBOX_TEST_FULL").is_some(),
        };
        world.assert_host_dev();
        Some(world)
    }

    /// The host's /dev/null is what it must be: something here once gave it away.
    pub(crate) fn assert_host_dev(&self) {
        let null = format!("/proc/self/fd/{}/null", self.host_dev.as_raw_fd());
        let found = fs::symlink_metadata(null).unwrap();
        assert!(
            found.file_type().is_char_device(),
            "/dev/null of the host is no device"
        );
        assert_eq!(
            found.rdev(),
            makedev(1, 3),
            "/dev/null of the host is another device"
        );
        assert_eq!(
            (found.uid(), found.gid()),
            (0, 0),
            "/dev/null of the host was given away"
        );
        assert_eq!(
            found.mode() & 0o777,
            0o666,
            "/dev/null of the host has another mode"
        );
    }
}

/// A number that decides all that is random in a test: printed, and set by `FAREBOX_TEST_SEED`.
pub(crate) fn seed() -> u64 {
    let chosen = read("FAREBOX_TEST_SEED").and_then(|text| text.parse().ok());
    let seed = chosen.unwrap_or_else(|| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        u64::from(now.subsec_nanos())
    });
    say(&format!(
        "seed {seed}: FAREBOX_TEST_SEED={seed} repeats the choices of this run"
    ));
    seed
}

/// A line that shows when the test fails, and under `--no-capture`.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Says aloud that a test does not run here; scripts/test.sh collects these and counts them.
fn skip(test: &str, why: &str) {
    say(&format!("SKIPPED {test}: {why}"));
    if let Some(path) = read("FAREBOX_TEST_SKIPS") {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "{test}: {why}").unwrap();
    }
}

fn read(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn private_dev() {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let new = tempfile::tempdir().unwrap();
    let at = |name: &str| new.path().join(name);
    mount(
        Some("farebox-dev"),
        new.path(),
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=755"),
    )
    .unwrap();
    let nodes = [
        ("null", 1, 3, 0o666),
        ("zero", 1, 5, 0o666),
        ("full", 1, 7, 0o666),
        ("random", 1, 8, 0o666),
        ("urandom", 1, 9, 0o666),
        ("tty", 5, 0, 0o666),
        ("loop-control", 10, 237, 0o600),
    ];
    for (name, major, minor, mode) in nodes {
        let mode = Mode::from_bits(mode).unwrap();
        mknod(&at(name), SFlag::S_IFCHR, mode, makedev(major, minor)).unwrap();
        // The umask has taken bits away.
        let all = fs::Permissions::from_mode(mode.bits());
        fs::set_permissions(at(name), all).unwrap();
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
    ] {
        symlink(target, at(name)).unwrap();
    }
    fs::create_dir(at("shm")).unwrap();
    mount(Some(new.path()), "/dev", none, MsFlags::MS_MOVE, none).unwrap();
    assert!(Path::new("/dev/null").exists());
}
