//! What is seen of a sandbox just before it is ended: its processes, from outside, in a moment.
//!
//! The kill waits for this, so that it is bounded in number and in time whatever the tenant has
//! started. Only files are read that answer from the kernel's own tables: `cmdline` and `environ`
//! would wait for locks that a program can hold.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::cgroup::Group;
use crate::clock::Monotonic;
use crate::launcher::kernel;
use crate::oci::RANGE;
use crate::wire::{NAME_MAX, PROCESSES_MAX, Seen};

/// Longest time that the looking may take, in us: then the rest is only counted.
const LOOK_US: u64 = 5_000;
/// More than the part of a process's `stat` or `status` that is read.
const TEXT_MAX: u64 = 4096;

/// The processes of a sandbox but init, the oldest first, and how many more there were.
pub(super) fn processes(group: &Group, init: Pid, uid_first: u32) -> (Vec<Seen>, u32) {
    let Ok(mut members) = group.members() else {
        return (Vec::new(), 0);
    };
    members.retain(|pid| *pid != init);
    let clock = Monotonic::start();
    let mut found: Vec<Found> = Vec::new();
    let mut looked = 0;
    for pid in members.iter().take(PROCESSES_MAX) {
        if looked > 0 && clock.now_us() > LOOK_US {
            break;
        }
        looked += 1;
        // One that has ended meanwhile is not missed.
        found.extend(look(*pid, uid_first).ok().flatten());
    }
    let more = members.len().saturating_sub(looked);
    let mut inside: HashMap<i32, u32> = found.iter().map(|one| (one.pid, one.seen.pid)).collect();
    inside.insert(init.as_raw(), 1);
    let seen = found.into_iter().map(|mut one| {
        one.seen.parent = inside.get(&one.parent).copied().unwrap_or(0);
        one.seen
    });
    (seen.collect(), u32::try_from(more).unwrap_or(u32::MAX))
}

/// A process with its own id and its parent's as outside.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    pid: i32,
    parent: i32,
    seen: Seen,
}

/// Looks at one process; none if it is not of the sandbox, whose ids begin at `uid_first`: its
/// number may have been given to another since it was listed.
fn look(pid: Pid, uid_first: u32) -> io::Result<Option<Found>> {
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        options.read(true),
        (OFlag::O_PATH | OFlag::O_DIRECTORY).bits(),
    );
    // Both files are read of the process that this stands for, whoever has its number later.
    let dir: OwnedFd = options.open(format!("/proc/{pid}"))?.into();
    let (status, stat) = (read(dir.as_fd(), "status")?, read(dir.as_fd(), "stat")?);
    let ids = uid_first..uid_first.saturating_add(RANGE);
    Ok(understand(pid.as_raw(), &status, &stat, &ids))
}

fn read(dir: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    let file = File::from(kernel::open_beneath(dir, name, OFlag::O_RDONLY.bits())?);
    let mut bytes = Vec::new();
    file.take(TEXT_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts together what the two files say. The name may hold any byte, so that it is what stands
/// between the first bracket and the last, behind which there are only numbers and the state.
fn understand(pid: i32, status: &[u8], stat: &[u8], ids: &Range<u32>) -> Option<Found> {
    let status = String::from_utf8_lossy(status);
    let numbers = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let words = line.strip_prefix(':')?.split_ascii_whitespace();
        words
            .map(|word| word.parse::<u32>().ok())
            .collect::<Option<Vec<_>>>()
    };
    if !ids.contains(numbers("Uid")?.first()?) {
        return None;
    }
    let inside = *numbers("NSpid")?.last()?;
    let open = stat.iter().position(|byte| *byte == b'(')? + 1;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open..close)?;
    let rest = String::from_utf8_lossy(stat.get(close + 1..)?);
    let mut words = rest.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    let parent = words.next()?.parse().ok()?;
    // Behind the parent: nine fields, then time in user mode, and in the kernel.
    let mut ticks = words.skip(9).map(|word| word.parse::<u64>().ok());
    let ticks = ticks.next()??.saturating_add(ticks.next()??);
    let seen = Seen {
        pid: inside,
        parent: 0,
        name: name.get(..NAME_MAX).unwrap_or(name).to_vec(),
        state,
        cpu_us: ticks.saturating_mul(1_000_000) / ticks_per_second(),
    };
    Some(Found { pid, parent, seen })
}

fn ticks_per_second() -> u64 {
    let found = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    found
        .and_then(|ticks| u64::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = b"Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nNSpid:\t812\t7\n";

    fn stat(name: &[u8]) -> Vec<u8> {
        let tail = b") S 800 812 812 0 -1 4194304 5 6 7 8 150 25 0 0 20 0 1 0 99 4 5";
        [b"812 (", name, tail.as_slice()].concat()
    }

    #[test]
    fn a_process_is_told_by_its_numbers_inside() {
        let found = understand(812, STATUS, &stat(b"sh"), &(0..2000)).unwrap();
        assert_eq!((found.pid, found.parent, found.seen.pid), (812, 800, 7));
        assert_eq!(
            (found.seen.name.as_slice(), found.seen.state),
            (b"sh".as_slice(), b'S')
        );
        let ticks = ticks_per_second();
        assert_eq!(found.seen.cpu_us, 175 * 1_000_000 / ticks);
    }

    #[test]
    fn a_name_cannot_pretend_to_be_another_field() {
        let hostile = b") R 1 (\xff\n 9";
        let found = understand(812, STATUS, &stat(hostile), &(0..2000)).unwrap();
        assert_eq!(found.seen.name, hostile);
        assert_eq!((found.parent, found.seen.state), (800, b'S'));
        let long = understand(812, STATUS, &stat(&[b'x'; 64]), &(0..2000)).unwrap();
        assert_eq!(long.seen.name.len(), NAME_MAX);
    }

    #[test]
    fn a_process_of_somebody_else_is_not_told() {
        assert_eq!(understand(812, STATUS, &stat(b"sh"), &(1001..2000)), None);
        assert_eq!(understand(812, b"", b"", &(0..2000)), None);
    }
}
