//! What the host has for sandboxes, and how the server gives up its privileges.

#![expect(unsafe_code, reason = "capability prctls")]

mod checks;
pub(crate) mod filter;

use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, User, getresgid, getresuid, setgroups, setresgid, setresuid};

pub use self::checks::{Check, Needs, Verdict, doctor};

/// The ids that the server runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerUser {
    /// User id; not 0.
    pub uid: u32,
    /// Group id; not 0.
    pub gid: u32,
}

/// Why the server cannot run as it should.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The configured user does not exist, or is root.
    #[error("cannot run as user {user:?}: {reason}")]
    User {
        /// As configured.
        user: String,
        /// Why not.
        reason: String,
    },
    /// A step failed; the process must not go on.
    #[error("cannot {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The steps went well, but privileges are left.
    #[error("privileges are left after they were dropped: {found}")]
    Left {
        /// Which.
        found: String,
    },
}

/// Finds the server's user: a number (the group has the same), or a name that the host knows.
///
/// # Errors
/// An unknown name, and root under any name.
pub fn server_user(user: &str) -> Result<ServerUser, PrivilegeError> {
    let wrong = |reason: &str| PrivilegeError::User {
        user: user.to_owned(),
        reason: reason.to_owned(),
    };
    let found = match user.parse::<u32>() {
        Ok(id) => ServerUser { uid: id, gid: id },
        Err(_) => match User::from_name(user) {
            Ok(Some(found)) => ServerUser {
                uid: found.uid.as_raw(),
                gid: found.gid.as_raw(),
            },
            Ok(None) => return Err(wrong("this host does not know it")),
            Err(errno) => return Err(wrong(errno.desc())),
        },
    };
    // The last id is the kernel's "leave it as it is".
    if [found.uid, found.gid]
        .iter()
        .any(|id| *id == 0 || *id == u32::MAX)
    {
        return Err(wrong("the server must not run as root"));
    }
    Ok(found)
}

/// Takes the user's ids and gives up every capability, for good and for every program started
/// later.
///
/// Called by `serve` once the launcher runs, before any thread exists and before it listens.
///
/// # Errors
/// Any step that fails, or privileges that are left; the process must not serve then.
pub fn drop_privileges(user: ServerUser) -> Result<(), PrivilegeError> {
    let step = |step| {
        move |errno: Errno| PrivilegeError::Step {
            step,
            source: errno.into(),
        }
    };
    setgroups(&[]).map_err(step("drop supplementary groups"))?;
    for capability in 0..=63 {
        match prctl_number(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // The kernel has no more of them.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(step("empty the bounding set")(errno)),
        }
    }
    let clear_all = libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned();
    prctl_number(libc::PR_CAP_AMBIENT, clear_all.into()).map_err(step("empty the ambient set"))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setresgid(gid, gid, gid).map_err(step("take the group id"))?;
    setresuid(uid, uid, uid).map_err(step("take the user id"))?;
    prctl::set_no_new_privs().map_err(step("set no-new-privileges"))?;
    verify(user)
}

fn prctl_number(operation: i32, argument: libc::c_ulong) -> Result<(), Errno> {
    let none: libc::c_ulong = 0;
    // SAFETY: the operations used here take numbers only.
    Errno::result(unsafe { libc::prctl(operation, argument, none, none, none) }).map(drop)
}

/// Reads back what is left, rather than to believe that the steps did what they say.
fn verify(user: ServerUser) -> Result<(), PrivilegeError> {
    let left = |found: String| Err(PrivilegeError::Left { found });
    let read = |step| move |source| PrivilegeError::Step { step, source };
    let uids = getresuid().map_err(|errno| read("read the user ids")(errno.into()))?;
    let gids = getresgid().map_err(|errno| read("read the group ids")(errno.into()))?;
    if [uids.real, uids.effective, uids.saved]
        .iter()
        .any(|uid| uid.as_raw() != user.uid)
    {
        return left(format!("{uids:?}"));
    }
    if [gids.real, gids.effective, gids.saved]
        .iter()
        .any(|gid| gid.as_raw() != user.gid)
    {
        return left(format!("{gids:?}"));
    }
    let status = std::fs::read_to_string("/proc/self/status").map_err(read("read own status"))?;
    match left_in(&status) {
        Some(line) => left(line),
        None => Ok(()),
    }
}

/// The first line of a status that tells of a privilege.
fn left_in(status: &str) -> Option<String> {
    let is_wrong = |line: &&str| match line.split_once(':') {
        Some((name, value)) if name.starts_with("Cap") => value.trim().chars().any(|c| c != '0'),
        Some(("NoNewPrivs", value)) => value.trim() != "1",
        Some(("Groups", value)) => !value.trim().is_empty(),
        Some(_) | None => false,
    };
    status.lines().find(is_wrong).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_users_and_root_is_none() {
        assert_eq!(
            server_user("65530").unwrap(),
            ServerUser {
                uid: 65530,
                gid: 65530
            }
        );
        for refused in ["0", "root", "4294967295", "no-such-user-here", ""] {
            assert!(server_user(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn every_privilege_that_is_left_is_found() {
        let good =
            "CapInh:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nGroups:\t\n";
        assert_eq!(left_in(good), None);
        for (from, to) in [
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000200000"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Groups:\t", "Groups:\t0 4"),
        ] {
            assert_eq!(left_in(&good.replace(from, to)).as_deref(), Some(to));
        }
    }
}
