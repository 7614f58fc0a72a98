//! What was seen of a sandbox just before a bad end: the evidence behind its outcome.

use crate::outcome::EndedBy;
use crate::wire::{self, Ended, NAME_MAX, PROCESSES_MAX};

/// What the shim saw from outside before it ended a run that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Autopsy {
    /// What ended it; `None` when its shim went without a word.
    pub ended_by: Option<EndedBy>,
    /// CPU time used when the end was decided, in microseconds: what was used while processes were
    /// being killed is only in [`crate::Measured`].
    pub cpu_us: u64,
    /// Processes and threads that the kernel refused at the limit.
    pub pids_refused: u64,
    /// What was left of the disk once nothing ran any more; `None` when nobody looked.
    pub disk_free: Option<DiskFree>,
    /// At most 32 processes that were there, the oldest first; process 1 is the platform's own and
    /// not listed.
    pub processes: Vec<ProcessSeen>,
    /// How many more there were.
    pub processes_more: u64,
}

/// What is left of a sandbox's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFree {
    /// In bytes; the file system may keep the last few blocks back.
    pub bytes: u64,
    /// Files, directories and links that can still be made.
    pub inodes: u64,
}

/// One process of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSeen {
    /// Its id, as inside the sandbox.
    pub pid: u32,
    /// Its parent's; `None` when that was not looked at.
    pub parent: Option<u32>,
    /// What it called itself, everything but plain characters escaped: at most 150 bytes.
    pub name: String,
    /// What it was doing: `running`, `sleeping`, `blocked`, `stopped`, `traced`, `zombie`, `dead`,
    /// `idle`, or `unknown`.
    pub state: &'static str,
    /// CPU time that it had used itself, in microseconds; the kernel counts it in ticks.
    pub cpu_us: u64,
}

impl Autopsy {
    /// Puts together what a shim has said, which is not trusted. Of a shim that has died there is
    /// only what the launcher read.
    pub(crate) fn new(ended: Option<Ended>, seen: Option<wire::Autopsy>) -> Autopsy {
        let mut autopsy = Autopsy {
            ended_by: ended.map(|ended| EndedBy::from(ended.by)),
            cpu_us: ended.map_or(0, |ended| ended.measured.cpu_us),
            pids_refused: ended.map_or(0, |ended| ended.measured.pids_refused),
            ..Autopsy::default()
        };
        if let Some(seen) = seen {
            let free = |(bytes, inodes)| DiskFree { bytes, inodes };
            let listed = seen.processes.into_iter().take(PROCESSES_MAX);
            autopsy.cpu_us = seen.cpu_us;
            autopsy.disk_free = seen.disk_free.map(free);
            autopsy.processes = listed.map(ProcessSeen::from).collect();
            autopsy.processes_more = seen.more.into();
        }
        autopsy
    }
}

impl From<wire::Seen> for ProcessSeen {
    fn from(seen: wire::Seen) -> ProcessSeen {
        let name = seen.name.get(..NAME_MAX).unwrap_or(&seen.name);
        ProcessSeen {
            pid: seen.pid,
            parent: (seen.parent > 0).then_some(seen.parent),
            name: plain(name),
            state: state(seen.state),
            cpu_us: seen.cpu_us,
        }
    }
}

/// A name that a tenant gave, fit for anything that shows text: what does not print is escaped.
pub(crate) fn plain(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars().fold(String::new(), |mut shown, c| {
        match c {
            '"' | '\'' => shown.push(c),
            other => shown.extend(other.escape_debug()),
        }
        shown
    })
}

/// The letter of `/proc/PID/stat` as a word.
fn state(letter: u8) -> &'static str {
    match letter {
        b'R' => "running",
        b'S' => "sleeping",
        b'D' => "blocked",
        b'T' => "stopped",
        b't' => "traced",
        b'Z' => "zombie",
        b'X' | b'x' => "dead",
        b'I' => "idle",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FRAME_MAX, FromShim, Seen, WireMeasured, decode, encode};

    fn seen(name: &[u8]) -> Seen {
        Seen {
            pid: u32::MAX,
            parent: u32::MAX,
            name: name.to_vec(),
            state: b'R',
            cpu_us: u64::MAX,
        }
    }

    fn autopsy(processes: Vec<Seen>) -> wire::Autopsy {
        wire::Autopsy {
            cpu_us: u64::MAX,
            disk_free: Some((u64::MAX, u64::MAX)),
            processes,
            more: u32::MAX,
        }
    }

    fn ended() -> Ended {
        Ended {
            by: wire::EndedBy::Wall,
            measured: WireMeasured {
                cpu_us: u64::MAX,
                cpu_user_us: u64::MAX,
                cpu_system_us: u64::MAX,
                wall_us: u64::MAX,
                memory_peak_bytes: u64::MAX,
                throttled_us: u64::MAX,
                oom_kills: u64::MAX,
                pids_peak: u64::MAX,
                pids_refused: u64::MAX,
                io_read_bytes: u64::MAX,
                io_write_bytes: u64::MAX,
            },
            disk_full: true,
            unsettled: true,
        }
    }

    #[test]
    fn the_longest_autopsy_fits_a_frame() {
        let all = vec![seen(&[0xff; NAME_MAX]); PROCESSES_MAX];
        let frame = FromShim::Ended(ended(), Some(autopsy(all)));
        let bytes = encode(&frame, FRAME_MAX).unwrap();
        assert_eq!(decode::<FromShim>(&bytes).unwrap(), frame);
        assert!(bytes.len() < FRAME_MAX / 2, "{}", bytes.len());
    }

    #[test]
    fn a_shim_that_says_too_much_is_cut() {
        let said = autopsy(vec![seen(&[b'x'; 1_000]); PROCESSES_MAX + 9]);
        let found = Autopsy::new(Some(ended()), Some(said));
        assert_eq!(found.processes.len(), PROCESSES_MAX);
        assert_eq!(found.processes[0].name.len(), NAME_MAX);
    }

    #[test]
    fn names_cannot_forge_lines_or_steer_a_terminal() {
        assert_eq!(plain(b"python3"), "python3");
        assert_eq!(plain("\u{e9}t\u{e9}".as_bytes()), "\u{e9}t\u{e9}");
        for hostile in [
            b"a\nERROR b".as_slice(),
            b"\x1b[31mred",
            b"\r\x00\x7f\xff\xfe",
            "\u{202e}txt".as_bytes(),
            b"\xe2\x80",
        ] {
            let name = plain(hostile);
            assert!(!name.contains(char::is_control), "{name:?}");
            assert!(!name.contains('\u{202e}') && name.len() <= 150, "{name:?}");
        }
    }

    #[test]
    fn of_a_dead_shim_there_is_what_the_launcher_read() {
        let found = Autopsy::new(Some(ended()), None);
        assert_eq!(
            (found.ended_by, found.cpu_us),
            (Some(EndedBy::Wall), u64::MAX)
        );
        assert_eq!(Autopsy::new(None, None), Autopsy::default());
    }
}
