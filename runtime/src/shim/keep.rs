//! The files of a failed run, kept for reading: a reader, shut in where the tenant's code was.
//!
//! ```text
//! sandbox empty -> fork: pid, mount, network, ipc and uts namespaces -> death signal -> group
//!   -> root: the overlay, read only, and nothing else -> user namespace -> user -> no capability
//!   -> limits -> descriptors -> filter -> crate::reader
//! ```
//!
//! The shim itself opens nothing below that root, and hears nothing from the reader but its first
//! word; the server talks to it by a socket of its own.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, Gid, Uid, setgroups, setresgid, setresuid};

use super::Host;
use super::watch::Sandbox;
use crate::launcher::kernel;
use crate::launcher::root::pivot;
use crate::launcher::step::{During, Failed};
use crate::oci::{ROOT, USER};
use crate::reader;
use crate::wire::{self, Answer, FromReader, INIT_FRAME_MAX};

/// How long a reader may take until it listens, in ms.
const READY_MS: u16 = 5_000;
/// Open files of a reader: its socket and what it looks at.
const OPEN_FILES: u64 = 16;
/// What its root is: nothing can be changed, run or used as a device.
const ATTRIBUTES: u64 = kernel::IMAGE_ATTRIBUTES | libc::MOUNT_ATTR_NOEXEC;

/// A reader that listens. It ends with the shim, at the latest.
#[derive(Debug)]
pub(super) struct Reader {
    /// Readable once it has ended.
    pub(super) pidfd: OwnedFd,
}

impl Reader {
    /// Starts a reader in a sandbox that has no process; answers the server's end of its socket.
    pub(super) fn start(
        host: &Host<'_>,
        sandbox: &Sandbox<'_>,
    ) -> Result<(Reader, OwnedFd), Failed> {
        // Its share and all else as before the end, when everything had been let loose.
        sandbox.group.limit(sandbox.expected.limits)?;
        let (near, far) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .during("make the reader's socket")?;
        let namespaces = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        let child = match kernel::fork_into(namespaces).during("fork a reader")? {
            ForkResult::Child => {
                drop(far);
                kernel::exit_now(shut_in_and_run(host, sandbox, &near))
            }
            ForkResult::Parent { child } => child,
        };
        drop(near);
        let pidfd = kernel::pidfd_open(child).during("open the reader's pidfd")?;
        let reader = Reader { pidfd };
        match first_word(&far) {
            Ok(()) => Ok((reader, far)),
            Err(failed) => {
                reader.end();
                Err(failed)
            }
        }
    }

    /// Kills it. It may have ended already.
    pub(super) fn end(&self) {
        // A process of ours that cannot be killed is held back only by the kernel itself; that the
        // group cannot be removed then tells of it.
        drop(kernel::pidfd_signal(self.pidfd.as_fd(), Signal::SIGKILL));
    }
}

/// Waits for the reader to say that it listens.
fn first_word(socket: &OwnedFd) -> Result<(), Failed> {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let because = |reason: &str| Failed::because("start a reader", reason);
    if poll(&mut polled, PollTimeout::from(READY_MS)).during("wait for the reader")? == 0 {
        return Err(because("it does not answer"));
    }
    match wire::recv::<FromReader>(socket.as_fd(), INIT_FRAME_MAX) {
        Ok(Some((frame, _))) => match frame.answer {
            Answer::Ready => Ok(()),
            Answer::Unable { reason } => Err(because(&reason)),
            _ => Err(because("it speaks out of turn")),
        },
        Ok(None) => Err(because("it has ended")),
        Err(error) => Err(because(&error.to_string())),
    }
}

/// The reader's whole life, in the child; answers its exit code.
fn shut_in_and_run(host: &Host<'_>, sandbox: &Sandbox<'_>, socket: &OwnedFd) -> u8 {
    match shut_in(host, sandbox, socket) {
        Ok(()) => reader::run(socket),
        Err(failed) => {
            let answer = Answer::Unable {
                reason: wire::clip(&failed.to_string()),
            };
            let frame = FromReader { seq: 0, answer };
            drop(wire::send(socket.as_fd(), &frame, INIT_FRAME_MAX, &[]));
            1
        }
    }
}

/// From a copy of the shim, which is root, to what the tenant's code was, with nothing in hand.
fn shut_in(host: &Host<'_>, sandbox: &Sandbox<'_>, socket: &OwnedFd) -> Result<(), Failed> {
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the reader to its shim")?;
    prctl::set_name(c"farebox-reader").during("take a name")?;
    // That the shim still lived is told by the socket: it holds the other end until this has
    // spoken.
    sandbox.group.enter().during("enter the sandbox's group")?;
    unshare(CloneFlags::CLONE_NEWCGROUP).during("make a cgroup namespace")?;
    enter_root()?;
    setns(sandbox.userns, CloneFlags::CLONE_NEWUSER).during("enter the user namespace")?;
    let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
    setgroups(&[gid]).during("take the groups")?;
    setresgid(gid, gid, gid).during("take the group id")?;
    setresuid(uid, uid, uid).during("take the user id")?;
    // The ids that were left are not the namespace's root, so that capabilities would stay.
    kernel::drop_capabilities().during("drop every capability")?;
    prctl::set_no_new_privs().during("set no-new-privileges")?;
    prctl::set_dumpable(false).during("become undumpable")?;
    // Again: changing ids clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the reader to its shim")?;
    for (limit, value) in [
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
    ] {
        setrlimit(limit, value, value).during("limit the reader")?;
    }
    kernel::close_all_from(0, &[socket.as_raw_fd()]).during("close inherited descriptors")?;
    host.filter.load().during("load the filter")
}

/// Makes a read-only view of the sandbox's overlay the root of this mount namespace, and drops the
/// rest of it.
fn enter_root() -> Result<(), Failed> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits());
    let root = options.open(ROOT).during("open the sandbox's root")?;
    let tree = kernel::clone_tree(root.as_fd()).during("clone the sandbox's root")?;
    kernel::set_attributes(tree.as_fd(), ATTRIBUTES, None).during("make it read-only")?;
    let point = CString::new(ROOT).during("name its mount point")?;
    kernel::attach(tree.as_fd(), &point).during("mount it")?;
    pivot(ROOT.as_ref())
}
