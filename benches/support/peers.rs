//! Others that run a program once on the same root: bubblewrap, crun, runc, podman; and the floor,
//! the interpreter alone.
//!
//! All that they write lies in a temporary directory, and the root is a mount that nobody can write
//! through. Debian's crun 1.8.1 fails where a cgroup v2 tree is mounted beside v1, so whoever has
//! entered a stage does not see that one: start servers before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::chroot;

use serde_json::Value;

use crate::oci::{self, Extras};
use crate::traffic::PRINTED;
use crate::world::World;

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// The group that podman makes for all of its containers, and leaves.
const PODMANS: &str = "libpod_parent";

/// Who runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// fork, chroot and exec: no isolation at all.
    Floor,
    Bwrap,
    Crun,
    CrunSeccomp,
    CrunUsers,
    Runc,
    /// Without a filter of system calls.
    PodmanUnconfined,
    /// With the filter that it has by itself.
    Podman,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "python3 alone",
            Self::Bwrap => "bwrap",
            Self::Crun => "crun run",
            Self::CrunSeccomp => "crun run, seccomp",
            Self::CrunUsers => "crun run, user namespace",
            Self::Runc => "runc run",
            Self::PodmanUnconfined => "podman run, no seccomp",
            Self::Podman => "podman run",
        }
    }

    /// The program that must be installed.
    fn needs(self) -> Option<&'static str> {
        match self {
            Self::Floor => None,
            Self::Bwrap => Some("bwrap"),
            Self::Crun | Self::CrunSeccomp | Self::CrunUsers => Some("crun"),
            Self::Runc => Some("runc"),
            Self::PodmanUnconfined | Self::Podman => Some("podman"),
        }
    }

    /// Whether it can be measured here.
    pub(crate) fn is_here(self) -> bool {
        let found = |name| std::env::split_paths(PATH).any(|dir| dir.join(name).exists());
        self.needs().is_none_or(found)
    }
}

/// Where peers run: a root, and a directory for what they leave.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    root: PathBuf,
}

/// A peer with a program, ready to be run again and again.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) peer: Peer,
    argv: Vec<String>,
    root: PathBuf,
    home: PathBuf,
}

impl Stage {
    /// Lays the root of the Python image out, and hides the unified tree from the calling thread
    /// and all that it will start.
    pub(crate) fn enter(world: &World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A user namespace's root must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        if Path::new(UNIFIED).exists() {
            umount2(UNIFIED, MntFlags::MNT_DETACH).unwrap();
        }
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let image = image_root(&world.images, "python");
        mount(Some(&image), &root, none, MsFlags::MS_BIND, none).unwrap();
        let locked = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, &root, none, locked | MsFlags::MS_NOSUID, none).unwrap();
        Self { dir, root }
    }

    /// A peer with a Python program.
    pub(crate) fn act(&self, peer: Peer, code: &str) -> Act {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let program = ["python3", "-c", code];
        let argv = match peer {
            Peer::Floor => program.map(str::to_owned).to_vec(),
            Peer::Bwrap => self.bwrap(&program),
            Peer::Crun | Peer::CrunSeccomp | Peer::CrunUsers | Peer::Runc => {
                let extras = Extras {
                    seccomp: peer == Peer::CrunSeccomp,
                    users: peer == Peer::CrunUsers,
                };
                let config = oci::config(&self.root, &program, extras);
                fs::write(dir.join("config.json"), config.to_string()).unwrap();
                let name = peer.needs().unwrap();
                let state = dir.join("state");
                words(&[name, "--root"], &state, &["run", "--bundle"], &dir)
            }
            Peer::PodmanUnconfined => self.podman(&["--security-opt=seccomp=unconfined"], &program),
            Peer::Podman => self.podman(&[], &program),
        };
        let (root, home) = (self.root.clone(), self.dir.path().to_owned());
        Act {
            peer,
            argv,
            root,
            home,
        }
    }

    fn bwrap(&self, program: &[&str]) -> Vec<String> {
        let root = self.root.to_str().unwrap();
        let mut argv = vec![
            "bwrap",
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
        ];
        argv.extend(["--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev"]);
        argv.extend(["--tmpfs", "/tmp", "--chdir", "/tmp", "--cap-drop", "ALL"]);
        argv.extend(["--uid", "1000", "--gid", "1000", "--"]);
        argv.extend(program);
        argv.into_iter().map(str::to_owned).collect()
    }

    /// Its own state, no network, the same limits, no capability; a root with a writable layer over
    /// it, as an image would have.
    fn podman(&self, options: &[&str], program: &[&str]) -> Vec<String> {
        let at = |name: &str| self.dir.path().join("podman").join(name);
        let mut argv = vec!["podman".to_owned()];
        for (option, name) in [("root", "root"), ("runroot", "run"), ("tmpdir", "tmp")] {
            argv.push(format!("--{option}={}", at(name).display()));
        }
        let fixed = [
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--runtime=crun",
            "--events-backend=none",
            "run",
            "--rm",
            "--network=none",
            "--cpus=1",
            "--user=1000:1000",
            "--workdir=/tmp",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--read-only",
            "--ulimit=nproc=4096:4096",
        ];
        argv.extend(
            fixed
                .into_iter()
                .chain(options.iter().copied())
                .map(str::to_owned),
        );
        let files = oci::OPEN_FILES;
        argv.push(format!("--ulimit=nofile={files}:{files}"));
        argv.push(format!("--memory={}", oci::MEMORY_BYTES));
        argv.push(format!("--pids-limit={}", oci::PIDS));
        argv.extend(["--rootfs".to_owned(), format!("{}:O", self.root.display())]);
        argv.extend(program.iter().map(|&word| word.to_owned()));
        argv
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        umount2(&self.root, MntFlags::MNT_DETACH).unwrap();
        // What podman has started to clean up may be at it still. A group that is used stays.
        for _ in 0..100 {
            let mut left = groups_of_podman().peekable();
            if left.peek().is_none() {
                return;
            }
            for group in left {
                drop(fs::remove_dir(group.join("conmon")));
                drop(fs::remove_dir(group));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The tree of an image in the store.
fn image_root(store: &Path, name: &str) -> PathBuf {
    let names = fs::read_to_string(store.join("names.json")).unwrap();
    let names: Value = serde_json::from_str(&names).unwrap();
    let digest = names[format!("{name}:latest")].as_str();
    let hex = digest.unwrap_or_else(|| panic!("no image {name} in {}", store.display()));
    store
        .join("sha256")
        .join(hex.trim_start_matches("sha256:"))
        .join("rootfs")
}

fn groups_of_podman() -> impl Iterator<Item = PathBuf> {
    let tops = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let groups = tops.map(|top| top.path().join(PODMANS));
    groups
        .chain([Path::new("/sys/fs/cgroup").join(PODMANS)])
        .filter(|group| group.is_dir())
}

fn words(before: &[&str], first: &Path, between: &[&str], last: &Path) -> Vec<String> {
    let (first, last) = (first.to_str().unwrap(), last.to_str().unwrap());
    let argv = [before, &[first], between, &[last]].concat();
    argv.into_iter().map(str::to_owned).collect()
}

impl Act {
    /// Runs the program once; from before the first process to the end of all output.
    pub(crate) fn run(&self) -> Duration {
        match self.peer {
            Peer::Floor => std::thread::scope(|scope| {
                let alone = || {
                    // Only this thread's root changes.
                    unshare(CloneFlags::CLONE_FS).unwrap();
                    chroot(&self.root).unwrap();
                    let mut command = self.command();
                    command.current_dir("/tmp").uid(1000).gid(1000);
                    self.time(command)
                };
                scope.spawn(alone).join().unwrap()
            }),
            Peer::Crun | Peer::CrunSeccomp | Peer::CrunUsers | Peer::Runc => {
                static NEXT: AtomicU64 = AtomicU64::new(0);
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let mut command = self.command();
                command.arg(format!("farebox-bench-{}-{number}", std::process::id()));
                self.time(command)
            }
            Peer::Bwrap | Peer::PodmanUnconfined | Peer::Podman => self.time(self.command()),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.home);
        command.env("LANG", "C.UTF-8");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn time(&self, mut command: Command) -> Duration {
        let begin = Instant::now();
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", self.peer.name()));
        let output = child.wait_with_output().unwrap();
        let took = begin.elapsed();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            PRINTED,
            "{}: {}",
            self.peer.name(),
            String::from_utf8_lossy(&output.stderr)
        );
        took
    }
}
