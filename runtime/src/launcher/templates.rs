//! The templates: one for an image whose Python sandboxes are forked from; started, replaced,
//! killed.
//!
//! ```text
//! launcher --fork--> group, image as root (read only), nothing else mounted but two files of ours,
//!                    no network, its own user id, no capability, filter --exec--> python3
//! shim --Request, descriptors--> template: forks into that sandbox (`template/native.rs`)
//! ```
//!
//! It is code of the image and trusted with no more than its sandboxes: it owns the user namespaces
//! of the slots that are made for it and nothing else. What it forks is looked at from outside
//! before it is used.

use std::fs::{File, Permissions};
use std::io::{self, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, getppid, setgroups, setresgid, setresuid};

use super::kernel;
use super::root::{pivot, tmpfs};
use super::step::{During, Failed, log};
use crate::cgroup::{Group, Home, Kin, Version};
use crate::clock::Monotonic;
use crate::init;
use crate::oci::ROOT;
use crate::runner;
use crate::seccomp::Program;
use crate::shim::ForkFrom;
use crate::template::{DIRECTORY, FILTER_NAME, NATIVE, NATIVE_NAME};
use crate::wire::WireLimits;

/// Most templates at one time; the one that was not wanted for longest makes room.
const TEMPLATES_MAX: usize = 8;
/// How long one that was replaced may take to end by itself, in us: longer than a shim that knows
/// it takes to ask for a fork.
const LEAVE_US: u64 = 60_000_000;
/// How old one may become, in us.
const AGE_MAX_US: u64 = 3_600_000_000;
/// What a template may use; each process that it forks is in the sandbox's group from the start.
const LIMITS: WireLimits = WireLimits {
    cpu_millis: 1000,
    memory_bytes: 256 << 20,
    pids: 64,
    open_files: 256,
};

/// The templates that live.
#[derive(Debug)]
pub(super) struct Templates {
    /// The one that was wanted last is last.
    all: Vec<Template>,
    /// Those that were replaced, the first one first.
    leaving: Vec<Leaving>,
    /// After how many forks one is replaced: they share a hash secret and a layout of memory.
    forks_max: u32,
    /// User id of the next one, and the last that there is.
    uids: (u32, u32),
    clock: Monotonic,
    filter: Program,
}

/// One template.
#[derive(Debug)]
struct Template {
    image: [u8; 32],
    env: Vec<(String, String)>,
    /// Who it is: no other template and no sandbox ever was.
    uid: u32,
    /// Where it takes requests.
    socket: OwnedFd,
    pid: Pid,
    forks: u32,
    since_us: u64,
}

/// A template that no new shim is told of. Those that know it may still ask it for a fork.
#[derive(Debug)]
struct Leaving {
    uid: u32,
    /// `None` once it was reaped: its group is left, while somebody on the way to a sandbox is in
    /// it.
    pid: Option<Pid>,
    since_us: u64,
}

/// What a template is started with.
pub(super) struct Start<'a> {
    pub(super) image: [u8; 32],
    /// The image's root.
    pub(super) root: BorrowedFd<'a>,
    pub(super) env: &'a [(String, String)],
    pub(super) home: &'a Home,
    /// What its forks load.
    pub(super) filter: &'a Program,
    /// The most open files that a sandbox may have: a fork cannot raise what its template has.
    pub(super) open_files: u32,
}

impl Templates {
    /// None yet. They take user ids from below `uid_base` downwards, as many as there are slots in
    /// a range: none is taken twice.
    pub(super) fn new(uid_base: u32, forks_max: u32, filter: Program) -> Templates {
        let last = uid_base.saturating_sub(crate::oci::RANGE);
        Templates {
            all: Vec::new(),
            leaving: Vec::new(),
            forks_max,
            uids: (uid_base.saturating_sub(1), last),
            clock: Monotonic::start(),
            filter,
        }
    }

    /// The template of an image, started if there is none that will do; none if it cannot be, which
    /// is logged. `gone` is told the user id of one that had to go.
    pub(super) fn get(
        &mut self,
        start: &Start<'_>,
        gone: impl FnOnce(u32),
    ) -> Option<ForkFrom<'_>> {
        let now_us = self.clock.now_us();
        let is_same = |one: &Template| one.image == start.image && one.env == start.env;
        let found = self
            .all
            .iter()
            .position(is_same)
            .map(|at| self.all.remove(at));
        let forks_max = self.forks_max;
        let is_old = |one: &Template| one.forks >= forks_max || now_us - one.since_us > AGE_MAX_US;
        let one = match found {
            Some(one) if !is_old(&one) => one,
            other => {
                let is_full = self.all.len() >= TEMPLATES_MAX;
                let leaves = other.or_else(|| is_full.then(|| self.all.remove(0)));
                if let Some(one) = leaves {
                    gone(self.retire(&one));
                }
                self.tidy(start.home);
                match self.start(start, now_us) {
                    Ok(one) => one,
                    Err(failed) => {
                        log("launcher", &failed.to_string());
                        return None;
                    }
                }
            }
        };
        self.all.push(Template {
            forks: one.forks + 1,
            ..one
        });
        self.all.last().map(|one| ForkFrom {
            socket: &one.socket,
            uid: one.uid,
        })
    }

    /// Takes note of a child that was reaped; answers its user id if it was a template.
    pub(super) fn reaped(&mut self, pid: Pid, home: &Home) -> Option<u32> {
        if let Some(at) = self.all.iter().position(|one| one.pid == pid) {
            log("launcher", "a template ended by itself");
            let one = self.all.remove(at);
            self.retire(&one);
        }
        let mut leaving = self.leaving.iter_mut();
        let one = leaving.find(|one| one.pid == Some(pid))?;
        one.pid = None;
        let uid = one.uid;
        self.tidy(home);
        Some(uid)
    }

    /// Ends the templates of an image at once; answers their user ids.
    pub(super) fn renew(&mut self, image: [u8; 32], home: &Home) -> Vec<u32> {
        let is_its = |one: &mut Template| one.image == image;
        let its: Vec<_> = self.all.extract_if(.., is_its).collect();
        let uids: Vec<_> = its.iter().map(|one| self.retire(one)).collect();
        let others = self.leaving.iter_mut();
        others
            .filter(|one| uids.contains(&one.uid))
            .for_each(Leaving::end);
        self.tidy(home);
        uids
    }

    /// Ends all. Their groups stay while somebody is in them: see [`super::sweep::templates`].
    pub(super) fn end(&mut self, home: &Home) {
        for one in std::mem::take(&mut self.all) {
            self.retire(&one);
        }
        self.leaving.iter_mut().for_each(Leaving::end);
        self.tidy(home);
    }

    /// Lets a template go, which ends when nobody has its socket any more; answers its user id.
    fn retire(&mut self, one: &Template) -> u32 {
        self.leaving.push(Leaving {
            uid: one.uid,
            pid: Some(one.pid),
            since_us: self.clock.now_us(),
        });
        one.uid
    }

    /// Ends those that had time enough to go by themselves, and removes groups that are empty.
    fn tidy(&mut self, home: &Home) {
        let now_us = self.clock.now_us();
        let too_many = self.leaving.len().saturating_sub(TEMPLATES_MAX);
        for (at, one) in self.leaving.iter_mut().enumerate() {
            let is_late = at < too_many || now_us - one.since_us > LEAVE_US;
            if is_late && one.pid.is_some() {
                log(
                    "launcher",
                    "a template that was replaced did not end by itself",
                );
                one.end();
            }
        }
        self.leaving
            .retain(|one| one.pid.is_some() || !is_removed(one.uid, home));
    }

    fn start(&mut self, start: &Start<'_>, now_us: u64) -> Result<Template, Failed> {
        let (uid, last) = self.uids;
        if uid <= last {
            let cure = "its user ids are used up: restart the server";
            return Err(Failed::because("start a template", cure));
        }
        self.uids.0 -= 1;
        let kind = (AddressFamily::Unix, SockType::SeqPacket);
        let (near, far) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC)
            .during("make a template's socket")?;
        // A template that takes nothing must not stop a shim.
        fcntl(near.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .during("make a template's socket non-blocking")?;
        let group = start.home.make_group(Kin::Templates, &uid.to_string());
        let group = group.during("make a template's group")?;
        let launcher = Pid::this();
        let forked = group
            .limit(&LIMITS)
            .and_then(|()| kernel::fork().during("fork a template"));
        let pid = match forked {
            Ok(ForkResult::Parent { child }) => child,
            Ok(ForkResult::Child) => {
                let ended = become_template(start, &self.filter, (launcher, uid), &group, far);
                let code = ended.unwrap_or_else(|failed| {
                    log("template", &failed.to_string());
                    1
                });
                kernel::exit_now(u8::try_from(code).unwrap_or(1))
            }
            Err(failed) => {
                start
                    .home
                    .remove(Kin::Templates, &uid.to_string())
                    .during("remove a template's group")?;
                return Err(failed);
            }
        };
        Ok(Template {
            image: start.image,
            env: start.env.to_vec(),
            uid,
            socket: near,
            pid,
            forks: 0,
            since_us: now_us,
        })
    }
}

impl Leaving {
    /// Kills it, if it is still there, and waits until it is gone. What it has forked stays.
    fn end(&mut self) {
        let Some(pid) = self.pid.take() else { return };
        // Until it is reaped, here, it has its pid.
        if let Err(errno) = kill(pid, Signal::SIGKILL) {
            log("launcher", &format!("cannot kill a template: {errno}"));
        }
        while waitpid(pid, None) == Err(Errno::EINTR) {}
    }
}

/// Removes a template's group; false if somebody is still in it.
fn is_removed(uid: u32, home: &Home) -> bool {
    match home.remove(Kin::Templates, &uid.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => false,
        Err(error) => {
            // The next start of a launcher removes it.
            let said = format!("cannot remove a template's group: {error}");
            log("launcher", &said);
            true
        }
        Ok(()) => true,
    }
}

/// From a copy of the launcher, which is root, to the image's Python; answers an exit code if that
/// cannot be executed.
fn become_template(
    start: &Start<'_>,
    filter: &Program,
    (launcher, uid): (Pid, u32),
    group: &Group,
    socket: OwnedFd,
) -> Result<i32, Failed> {
    prctl::set_name(c"farebox-template").during("take a name")?;
    group.enter().during("enter its group")?;
    std::fs::write("/proc/self/oom_score_adj", "500").during("offer itself to be killed")?;
    enter_image(start)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    kernel::empty_bounding_set().during("give up what it could get back")?;
    setgroups(&[]).during("drop groups")?;
    setresgid(gid, gid, gid).during("take its group id")?;
    setresuid(uid, uid, uid).during("take its user id")?;
    kernel::drop_held_capabilities().during("drop capabilities")?;
    prctl::set_no_new_privs().during("set no-new-privileges")?;
    // A change of ids clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie itself to the launcher")?;
    if getppid() != launcher {
        return Err(Failed::because("start", "the launcher is gone"));
    }
    // What it says goes nowhere, and by what a process in a sandbox has, too: interpreters look at
    // that when they start.
    let (_, nowhere) = pipe().during("make a pipe")?;
    let other = nowhere.try_clone().during("copy a pipe")?;
    filter.load().during("load its filter")?;
    let stdio = [socket, nowhere.into(), other.into()];
    let program = runner::template(start.env, start.open_files);
    init::become_program(&program, stdio)
        .ok_or_else(|| Failed::because("start the interpreter", "a text has a NUL in it"))
}

/// Makes the image, read only, the root of a mount namespace of its own, with two files of ours.
fn enter_image(start: &Start<'_>) -> Result<(), Failed> {
    let tree = kernel::clone_tree(start.root).during("clone the image's mount")?;
    kernel::set_attributes(tree.as_fd(), kernel::IMAGE_ATTRIBUTES, None)
        .during("make the image read-only")?;
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    // On v2 nobody forks into a group that is not in their cgroup namespace. It sees no group.
    flags.set(
        CloneFlags::CLONE_NEWCGROUP,
        start.home.version() == Version::V1,
    );
    unshare(flags).during("make namespaces")?;
    let point = std::ffi::CString::new(ROOT).during("name the image's mount point")?;
    kernel::attach(tree.as_fd(), &point).during("mount the image")?;
    let dir = Path::new(ROOT).join(DIRECTORY);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    tmpfs(&dir, flags, "mode=755,size=256k,nr_inodes=8")?;
    for (name, bytes) in [
        (NATIVE_NAME, NATIVE),
        (FILTER_NAME, &start.filter.to_bytes()),
    ] {
        lay(&dir.join(name), bytes).during("lay a template's files")?;
    }
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>)
        .during("make a template's files read-only")?;
    pivot(ROOT.as_ref())
}

fn lay(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o444))
}
