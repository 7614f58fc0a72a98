//! Has the image's template fork into the sandbox, and looks at what came of it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollTimeout, poll};
use nix::unistd::Pid;

use super::Host;
use super::watch::Sandbox;
use crate::cgroup::Version;
use crate::clock;
use crate::launcher::root::CGROUPS;
use crate::launcher::step::{During, Failed, log};
use crate::launcher::{cpus, kernel};
use crate::oci::{USER, process_limits};
use crate::posture::{self, Deviation, Fork};
use crate::template::request::{BY_BIRTH, BY_WRITING, NAMESPACES, OFFSETS_MAX, Request, VERSION};
use crate::wire;

/// Who owns groups.
const ROOT: u32 = 0;

/// How often it is looked whether those that have helped to fork are gone, and after which pause.
const LOOKS: u32 = 100;
const PAUSE_MS: u8 = 1;

/// Asks the template to fork; `stdio` become the fork's.
///
/// # Errors
/// There is no template, or it takes no request; nothing was forked then.
pub(super) fn ask(
    host: &Host<'_>,
    sandbox: &Sandbox<'_>,
    stdio: Vec<OwnedFd>,
) -> Result<(), Failed> {
    let stdio: [OwnedFd; 3] = wire::exactly(stdio)
        .map_err(std::io::Error::other)
        .during("take the pipes of a fork")?;
    let template = sandbox
        .template
        .ok_or_else(|| Failed::because("fork from a template", "the sandbox has none"))?;
    let namespaces = NAMESPACES.map(|kind| File::open(format!("/proc/{}/ns/{kind}", sandbox.init)));
    let namespaces = namespaces.into_iter().collect::<Result<Vec<_>, _>>();
    let namespaces = namespaces.during("open the sandbox's namespaces")?;
    let (way, groups) = match sandbox.group.version() {
        Version::V1 => (BY_WRITING, entrances(host, sandbox, template.uid)?),
        Version::V2 => (BY_BIRTH, vec![birthplace(sandbox, template.uid)?]),
    };
    let descriptors: Vec<BorrowedFd<'_>> = stdio
        .iter()
        .map(AsFd::as_fd)
        .chain(namespaces.iter().map(AsFd::as_fd))
        .chain(groups.iter().map(AsFd::as_fd))
        .collect();
    let request = request(sandbox, way).during("tell what time it is")?;
    wire::send_bytes(template.socket.as_fd(), &to_bytes(&request), &descriptors)
        .during("ask the template for a fork")
}

/// The files through which processes move themselves into the sandbox's groups, opened as the
/// template: through a file that root has opened, whoever holds it may move any process of the
/// host.
fn entrances(host: &Host<'_>, sandbox: &Sandbox<'_>, uid: u32) -> Result<Vec<OwnedFd>, Failed> {
    kernel::become_keeping_capabilities(uid).during("take the template's user id")?;
    let opened = sandbox.group.entrances();
    if let Err(error) = kernel::become_root_again() {
        log(sandbox.name, &format!("cannot become root again: {error}"));
        // Half a shim is none: the launcher sweeps.
        kernel::exit_now(1);
    }
    super::tie_to(host.launcher)?;
    opened.during("open the sandbox's groups")
}

/// The group itself, for cgroup v2, where the file that would let the template in would let it move
/// every process of this instance. It may fork into the group until [`inspect`] takes that back,
/// and cannot write any file: the group comes as a read-only mount of its own, with nothing above
/// it.
fn birthplace(sandbox: &Sandbox<'_>, uid: u32) -> Result<OwnedFd, Failed> {
    let step = "lend the sandbox's group";
    let path = format!("{CGROUPS}{}", sandbox.expected.group);
    let dir = File::open(path).during(step)?;
    let tree = kernel::clone_tree(dir.as_fd()).during(step)?;
    kernel::set_attributes(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, None).during(step)?;
    sandbox.group.admit(uid).during(step)?;
    Ok(tree)
}

fn request(sandbox: &Sandbox<'_>, way: u32) -> std::io::Result<Request> {
    let text = clock::offsets_to_zero()?;
    let mut offsets = [0; OFFSETS_MAX];
    let room = offsets.get_mut(..text.len());
    room.ok_or(std::io::ErrorKind::InvalidData)?
        .copy_from_slice(text.as_bytes());
    let limits = process_limits(sandbox.expected.limits, sandbox.expected.disk);
    Ok(Request {
        version: VERSION,
        user: USER,
        limits: limits.map(|(name, value)| [number_of(name), value]),
        way,
        offsets_len: u32::try_from(text.len()).unwrap_or(0),
        offsets,
    })
}

/// A request as it is in memory.
fn to_bytes(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<Request>());
    for word in [request.version, request.user] {
        bytes.extend(word.to_ne_bytes());
    }
    for word in request.limits.as_flattened() {
        bytes.extend(word.to_ne_bytes());
    }
    for word in [request.way, request.offsets_len] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(request.offsets);
    bytes
}

fn number_of(limit: &str) -> u64 {
    let number = match limit {
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        _ => libc::RLIMIT_SIGPENDING,
    };
    number.into()
}

/// What is wrong with the fork that calls itself `pid` inside; it has the sandbox's CPUs
/// afterwards, and nothing else can be forked into the sandbox.
pub(super) fn inspect(sandbox: &Sandbox<'_>, pid: u32) -> Vec<Deviation> {
    let mut findings = Vec::new();
    if sandbox.group.version() == Version::V2
        && let Err(error) = sandbox.group.admit(ROOT)
    {
        findings.push(deviation("the group of a fork", error.to_string()));
    }
    match only_other(sandbox) {
        Ok(process) => {
            if let Err(error) = cpus::pin(process, sandbox.cpus) {
                findings.push(deviation("CPUs of a fork", error.to_string()));
            }
            let fork = Fork { process, pid };
            findings.extend(posture::inspect_fork(sandbox.init, fork, &sandbox.expected));
        }
        Err(failed) => findings.push(deviation("a fork", wire::clip(&failed.to_string()))),
    }
    findings
}

fn deviation(what: &str, found: String) -> Deviation {
    Deviation {
        what: what.to_owned(),
        found,
        cure: String::new(),
    }
}

/// The one process beside init, once those that have helped to fork it are gone.
fn only_other(sandbox: &Sandbox<'_>) -> Result<Pid, Failed> {
    for _ in 0..LOOKS {
        let members = sandbox
            .group
            .members()
            .during("list the sandbox's processes")?;
        let others: Vec<Pid> = members
            .into_iter()
            .filter(|pid| *pid != sandbox.init)
            .collect();
        match others.as_slice() {
            [one] => return Ok(*one),
            _ => poll(&mut [], PollTimeout::from(PAUSE_MS)).during("wait")?,
        };
    }
    Err(Failed::because(
        "find the process that was forked",
        "it is not the only one beside init",
    ))
}
