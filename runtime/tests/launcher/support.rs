//! A launcher under test, the image that sandboxes get, and what tests ask of them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;

use nix::fcntl::{AtFlags, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::fstatat;
use nix::unistd::pipe2;

use crate::own_dev;
use crate::wire::{
    Ended, FRAME_MAX, FinalRecord, FromInit, FromLauncher, FromShim, Go, INIT_FRAME_MAX, Id, Make,
    Start, ToInit, ToLauncher, ToShim, WireImage, WireLimits, WireNetwork, recv, send,
};

/// Longest wait for anything; a test that needs a tenth of it has failed.
const PATIENCE_MS: u16 = 60_000;
/// Numeric user of the server.
pub(crate) const SERVER: u32 = 65_530;
/// Digest of the test image; the launcher resolves digests, it does not compute them.
pub(crate) const IMAGE: [u8; 32] = [0xa5; 32];
/// Index of the large disk class.
pub(crate) const LARGE: u8 = 1;
/// Usable bytes and inodes of the small disk class.
pub(crate) const SMALL_DISK: (u64, u64) = (16 << 20, 300);

/// Moves this process into a mount namespace with a `/dev` of its own.
pub(crate) fn isolate() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    let dev = File::open("/dev").map_err(|error| format!("no /dev: {error}"))?;
    HOST_DEV.get_or_init(|| dev);
    own_dev::enter().map_err(|errno| format!("no mount namespace of its own: {errno}"))
}

/// The host's `/dev`, from before this process had one of its own.
static HOST_DEV: OnceLock<File> = OnceLock::new();

/// What the host's `/dev/null` is: type and mode, owner, device.
pub(crate) fn host_null() -> (u32, u32, u32, u64) {
    let dev = HOST_DEV.get().unwrap().as_raw_fd();
    let found = fstatat(Some(dev), "null", AtFlags::AT_SYMLINK_NOFOLLOW).unwrap();
    (found.st_mode, found.st_uid, found.st_gid, found.st_rdev)
}

/// A launcher, and the directory that it works in.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) instance: String,
    socket: OwnedFd,
    child: Child,
}

/// A sandbox under test.
pub(crate) struct Live {
    pub(crate) id: Id,
    pub(crate) shim: OwnedFd,
    pub(crate) init: OwnedFd,
    /// Init's pid, seen from here.
    pub(crate) pid: i32,
}

pub(crate) fn config(dir: &Path) -> runtime::LauncherConfig {
    let class = |(bytes, inodes)| runtime::DiskClass { bytes, inodes };
    runtime::LauncherConfig {
        images_dir: dir.join("images"),
        state_dir: dir.join("run"),
        server_uid: SERVER,
        server_gid: SERVER,
        uid_base: 0x4000_0000,
        sandboxes_max: 4,
        maxima: runtime::WireLimits {
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
            pids: 256,
            open_files: 1024,
        },
        disk_classes: vec![class(SMALL_DISK), class((256 << 20, 20_000))],
        disk_commit_bytes: 2 << 30,
        disks_ahead: 4,
        template_forks: 10_000,
        keep_s_max: 60,
    }
}

/// A root that holds this very binary as `/probe`, with the libraries that it has loaded.
pub(crate) fn make_image(images: &Path) {
    let digest: String = IMAGE.iter().map(|byte| format!("{byte:02x}")).collect();
    let root = images.join("sha256").join(digest).join("rootfs");
    for dir in [
        "dev",
        "proc",
        "sys",
        "etc",
        "tmp",
        "run",
        "workspace",
        "lib64",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::copy("/proc/self/exe", root.join("probe")).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    for library in paths.filter(|path| path.contains(".so")) {
        let copy = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(library, &copy).unwrap();
        // Where the loader itself is looked up.
        let name = Path::new(library).file_name().unwrap();
        fs::copy(library, root.join("lib64").join(name)).unwrap();
    }
    fs::write(root.join("owned"), "image").unwrap();
    std::os::unix::fs::chown(root.join("workspace"), Some(1000), Some(1000)).unwrap();
    std::os::unix::fs::chown(root.join("owned"), Some(1000), Some(1000)).unwrap();
}

pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for a frame; `None` at the end of the stream.
pub(crate) fn receive<T: serde::de::DeserializeOwned>(
    socket: &OwnedFd,
) -> Option<(T, Vec<OwnedFd>)> {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut polled, PollTimeout::from(PATIENCE_MS)),
        Ok(1),
        "nothing came"
    );
    match recv(socket.as_fd(), INIT_FRAME_MAX) {
        Ok(frame) => frame,
        Err(crate::wire::WireError::Socket { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Polls until it holds; the one place where tests wait for what sends no event.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..PATIENCE_MS / 5 {
        if holds() {
            return;
        }
        poll(&mut [], PollTimeout::from(5_u8)).unwrap();
    }
    panic!("never: {what}");
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

impl Bed {
    pub(crate) fn start() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        make_image(&dir.path().join("images"));
        Bed::start_in(dir)
    }

    /// Starts in a directory where an earlier launcher may have left something.
    pub(crate) fn start_in(dir: tempfile::TempDir) -> Bed {
        let (socket, child) = runtime::spawn(&config(dir.path())).unwrap().into_parts();
        match receive::<FromLauncher>(&socket) {
            Some((FromLauncher::Up { instance, .. }, _)) => Bed {
                dir,
                instance,
                socket,
                child,
            },
            other => panic!("the launcher is not up: {other:?}"),
        }
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn launcher(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn answer(&self) -> FromLauncher {
        receive(&self.socket).unwrap().0
    }

    /// Asks for a sandbox; the answer is the server's ends of its two sockets.
    pub(crate) fn ask(&self, make: &Make) -> (OwnedFd, OwnedFd) {
        let (shim, shim_far) = pair();
        let (init, init_far) = pair();
        let frame = ToLauncher::Make(make.clone());
        let far = [shim_far.as_fd(), init_far.as_fd()];
        send(self.socket.as_fd(), &frame, FRAME_MAX, &far).unwrap();
        (shim, init)
    }

    pub(crate) fn open(&self, make: &Make) -> Live {
        let (shim, init) = self.ask(make);
        Live::await_ready(make.sandbox, shim, init)
    }

    pub(crate) fn expect_gone(&self, sandbox: Id) {
        assert_eq!(self.answer(), FromLauncher::Gone { sandbox });
    }

    /// Groups of this instance that are there, in any hierarchy.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut all = vec![PathBuf::from("/sys/fs/cgroup")];
        all.extend(hierarchies);
        let groups = all
            .into_iter()
            .map(|path| path.join("farebox").join(&self.instance));
        groups.filter(|path| path.exists()).collect()
    }

    /// The files that were left for the server.
    pub(crate) fn finals(&self) -> Vec<FinalRecord> {
        let entries = fs::read_dir(self.dir.path().join("run/final")).unwrap();
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            assert!(meta.is_file() && meta.uid() == SERVER && meta.mode() & 0o777 == 0o600);
            let record: FinalRecord = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert_eq!(
                stem,
                hex(&record.sandbox),
                "a final file is named after its sandbox"
            );
            found.push(record);
        }
        found
    }

    /// Closes the socket, as a server that is gone; answers what is needed to look at what is left.
    pub(crate) fn leave(self) -> (tempfile::TempDir, Child, String) {
        drop(self.socket);
        (self.dir, self.child, self.instance)
    }

    /// Ends the launcher and asserts that it went well and left nothing.
    pub(crate) fn end(self) {
        let groups = self.groups();
        assert!(!groups.is_empty(), "the launcher has groups while it lives");
        let (_dir, mut child, _) = self.leave();
        assert!(child.wait().unwrap().success(), "the launcher ends well");
        assert!(groups.iter().all(|path| !path.exists()), "no group is left");
    }
}

impl Live {
    pub(crate) fn await_ready(id: Id, shim: OwnedFd, init: OwnedFd) -> Live {
        let descriptors = match receive::<FromShim>(&shim) {
            Some((FromShim::Ready { handles }, descriptors)) => {
                assert_eq!(handles.len(), descriptors.len());
                descriptors
            }
            other => panic!("the sandbox is not ready: {other:?}"),
        };
        assert_eq!(receive::<FromInit>(&init).unwrap().0, FromInit::Hello);
        let pid = pid_of(descriptors.last().unwrap());
        Live {
            id,
            shim,
            init,
            pid,
        }
    }

    pub(crate) fn tell(&self, frame: ToShim) {
        send(self.shim.as_fd(), &frame, FRAME_MAX, &[]).unwrap();
    }

    pub(crate) fn go(&self, wall_us: u64, cpu_us: u64) {
        self.tell(ToShim::Go(Go {
            execution: [9; 16],
            wall_us,
            cpu_us,
            cpu_millis: 2000,
            keep_s: 0,
        }));
    }

    /// Starts the probe; answers its standard output.
    pub(crate) fn start(&self, probe: &[&str]) -> File {
        let (input, _) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (output, theirs) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let argv = ["/probe", "probe"].iter().chain(probe);
        let start = ToInit::Start(Start {
            argv: argv.map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            open_files: 256,
        });
        let stdio = [input.as_fd(), theirs.as_fd(), theirs.as_fd()];
        send(self.init.as_fd(), &start, INIT_FRAME_MAX, &stdio).unwrap();
        drop(theirs);
        assert_eq!(
            receive::<FromInit>(&self.init).unwrap().0,
            FromInit::Started
        );
        output.into()
    }

    /// Waits for the main process; answers its wait status and whether others are left.
    pub(crate) fn exited(&self) -> (i32, bool) {
        match receive::<FromInit>(&self.init) {
            Some((
                FromInit::Exited {
                    status,
                    others_left,
                },
                _,
            )) => (status, others_left),
            other => panic!("the main process has not ended: {other:?}"),
        }
    }

    pub(crate) fn ended(&self) -> Ended {
        match receive::<FromShim>(&self.shim) {
            Some((FromShim::Ended(ended, _), _)) => ended,
            other => panic!("the sandbox has not ended: {other:?}"),
        }
    }

    pub(crate) fn finish(&self) -> Ended {
        self.tell(ToShim::Finish { failed: false });
        self.ended()
    }

    /// Runs the probe to its end; answers what it printed and how the sandbox ended.
    pub(crate) fn run(&self, probe: &[&str]) -> (String, Ended) {
        self.go(600_000_000, 600_000_000);
        let mut output = self.start(probe);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        let (status, _) = self.exited();
        assert_eq!(status, 0, "{text}");
        (text, self.finish())
    }
}

/// The process behind a pidfd.
fn pid_of(pidfd: &OwnedFd) -> i32 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .unwrap();
    line.trim().parse().unwrap()
}

/// A request for a sandbox of the test image on the small disk.
pub(crate) fn make(id: u8) -> Make {
    Make {
        sandbox: [id; 16],
        image: WireImage::Digest(IMAGE),
        disk_class: 0,
        weight: 1_000,
        behind: false,
        ahead: false,
        limits: WireLimits {
            cpu_millis: 2000,
            memory_bytes: 128 << 20,
            pids: 32,
            open_files: 256,
        },
        network: WireNetwork::None,
        template: None,
    }
}

/// Reads what a probe prints, up to the end of the line.
pub(crate) fn line(output: &mut File) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Prints at once.
pub(crate) fn say(text: &str) {
    println!("{text}");
    std::io::stdout().flush().unwrap();
}
