//! How an execution ended, and the one table that decides it from the evidence.

use crate::wire;

/// Which of the two clocks ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clock {
    /// Time on the wall since go.
    Wall,
    /// CPU time of all processes.
    Cpu,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The main process ended by itself.
    Exited {
        /// Its exit code, 0 to 255; 127 is command not found, 126 not executable.
        code: i32,
    },
    /// The main process was ended by a signal that was not the platform's.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// A time limit ran out.
    TimedOut {
        /// Which one.
        clock: Clock,
    },
    /// The kernel killed for want of memory and the run did not end well.
    OutOfMemory,
    /// The run failed with no space or no inode left on the sandbox's disk.
    DiskFull,
    /// The run failed after the kernel had refused it a process.
    ProcessLimit,
    /// A stream passed the output limit, and the caller had asked that this ends the run.
    OutputLimit,
    /// The caller ended it.
    Cancelled,
    /// A time limit ran out that had been lowered to what a quota left.
    QuotaExhausted,
    /// The platform could not start it.
    StartFailed {
        /// What went wrong, for the log and the caller.
        reason: String,
    },
    /// The sandbox went away without a word, or what it left cannot tell how it ended.
    Lost,
}

/// What ended the sandbox, as its shim saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The server asked for it: the main process had ended, or cancel, or the output limit.
    Finish,
    /// The wall clock ran out.
    Wall,
    /// The CPU time ran out.
    Cpu,
    /// The kernel ran out of the sandbox's memory.
    Oom,
    /// Init went away by itself.
    InitDied,
    /// The server went away.
    ServerGone,
    /// The shim went away; the figures are the launcher's, from the sandbox's making on.
    ShimDied,
}

impl From<wire::EndedBy> for EndedBy {
    fn from(by: wire::EndedBy) -> EndedBy {
        match by {
            wire::EndedBy::Finish => EndedBy::Finish,
            wire::EndedBy::Wall => EndedBy::Wall,
            wire::EndedBy::Cpu => EndedBy::Cpu,
            wire::EndedBy::Oom => EndedBy::Oom,
            wire::EndedBy::InitDied => EndedBy::InitDied,
            wire::EndedBy::ServerGone => EndedBy::ServerGone,
            wire::EndedBy::ShimDied => EndedBy::ShimDied,
        }
    }
}

/// Everything that the table looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// What the shim says; `None` when it went without a word.
    pub(crate) ended_by: Option<EndedBy>,
    /// The main process's wait status, if init reported it.
    pub(crate) wait_status: Option<i32>,
    /// Kills by the kernel for want of memory.
    pub(crate) oom_kills: u64,
    /// Forks that the kernel refused at the process limit.
    pub(crate) pids_events: u64,
    /// No space or no inodes were left at the end.
    pub(crate) disk_full: bool,
    /// The server ended the run because of a cancel.
    pub(crate) cancelled: bool,
    /// The server ended the run because of its output.
    pub(crate) output_limit: bool,
    /// The time limits had been lowered by a quota.
    pub(crate) reduced: bool,
}

/// Decides the outcome. Limits that the shim enforced come first, for they are the kernel's and the
/// clock's word; then what the server did; then what the process said.
pub(crate) fn decide(evidence: &Evidence) -> Outcome {
    let Some(ended_by) = evidence.ended_by else {
        return Outcome::Lost;
    };
    let clock = match ended_by {
        EndedBy::Wall => Some(Clock::Wall),
        EndedBy::Cpu => Some(Clock::Cpu),
        EndedBy::Oom => return Outcome::OutOfMemory,
        EndedBy::Finish | EndedBy::InitDied | EndedBy::ServerGone | EndedBy::ShimDied => None,
    };
    match clock {
        Some(_) if evidence.reduced => return Outcome::QuotaExhausted,
        Some(clock) => return Outcome::TimedOut { clock },
        None => {}
    }
    if evidence.cancelled {
        return Outcome::Cancelled;
    }
    if evidence.output_limit {
        return Outcome::OutputLimit;
    }
    ended_by_itself(evidence)
}

/// The part of the table in which nothing but the processes themselves ended the run.
fn ended_by_itself(evidence: &Evidence) -> Outcome {
    let plain = match evidence.wait_status {
        Some(status) if libc::WIFEXITED(status) => Outcome::Exited {
            code: libc::WEXITSTATUS(status),
        },
        Some(status) if libc::WIFSIGNALED(status) => Outcome::Signalled {
            signal: libc::WTERMSIG(status),
        },
        _ => Outcome::Lost,
    };
    if plain == (Outcome::Exited { code: 0 }) {
        plain
    } else if evidence.oom_kills > 0 {
        Outcome::OutOfMemory
    } else if plain == Outcome::Lost {
        plain
    } else if evidence.disk_full {
        Outcome::DiskFull
    } else if evidence.pids_events > 0 {
        Outcome::ProcessLimit
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT_0: i32 = 0;
    const EXIT_3: i32 = 3 << 8;
    const SEGV: i32 = 11;

    fn exited(status: i32) -> Evidence {
        Evidence {
            ended_by: Some(EndedBy::Finish),
            wait_status: Some(status),
            oom_kills: 0,
            pids_events: 0,
            disk_full: false,
            cancelled: false,
            output_limit: false,
            reduced: false,
        }
    }

    #[test]
    fn a_process_that_ends_by_itself_gives_its_status() {
        assert_eq!(decide(&exited(EXIT_0)), Outcome::Exited { code: 0 });
        assert_eq!(decide(&exited(EXIT_3)), Outcome::Exited { code: 3 });
        assert_eq!(decide(&exited(SEGV)), Outcome::Signalled { signal: 11 });
    }

    #[test]
    fn a_core_dump_flag_does_not_change_the_signal() {
        assert_eq!(
            decide(&exited(SEGV | 0x80)),
            Outcome::Signalled { signal: 11 }
        );
    }

    #[test]
    fn exhausted_resources_explain_a_failure_but_not_a_success() {
        let strained = |status| Evidence {
            oom_kills: 1,
            pids_events: 2,
            disk_full: true,
            ..exited(status)
        };
        assert_eq!(decide(&strained(EXIT_0)), Outcome::Exited { code: 0 });
        assert_eq!(decide(&strained(EXIT_3)), Outcome::OutOfMemory);
        let evidence = Evidence {
            oom_kills: 0,
            ..strained(EXIT_3)
        };
        assert_eq!(decide(&evidence), Outcome::DiskFull);
        let evidence = Evidence {
            disk_full: false,
            ..evidence
        };
        assert_eq!(decide(&evidence), Outcome::ProcessLimit);
    }

    #[test]
    fn the_kernel_killing_init_for_memory_is_out_of_memory() {
        let evidence = Evidence {
            wait_status: None,
            oom_kills: 1,
            ..exited(EXIT_0)
        };
        let evidence = Evidence {
            ended_by: Some(EndedBy::InitDied),
            ..evidence
        };
        assert_eq!(decide(&evidence), Outcome::OutOfMemory);
        assert_eq!(
            decide(&Evidence {
                oom_kills: 0,
                ..evidence
            }),
            Outcome::Lost
        );
    }

    #[test]
    fn a_clock_that_ran_out_wins_over_everything_but_names_the_quota_if_reduced() {
        for (by, clock) in [(EndedBy::Wall, Clock::Wall), (EndedBy::Cpu, Clock::Cpu)] {
            let evidence = Evidence {
                ended_by: Some(by),
                cancelled: true,
                output_limit: true,
                oom_kills: 1,
                ..exited(EXIT_0)
            };
            assert_eq!(decide(&evidence), Outcome::TimedOut { clock });
            let reduced = Evidence {
                reduced: true,
                ..evidence
            };
            assert_eq!(decide(&reduced), Outcome::QuotaExhausted);
        }
    }

    #[test]
    fn what_the_server_ended_says_why() {
        let killed = Evidence {
            wait_status: Some(9),
            ..exited(EXIT_0)
        };
        let cancelled = Evidence {
            cancelled: true,
            ..killed
        };
        assert_eq!(decide(&cancelled), Outcome::Cancelled);
        let flooded = Evidence {
            output_limit: true,
            ..killed
        };
        assert_eq!(decide(&flooded), Outcome::OutputLimit);
        assert_eq!(
            decide(&Evidence {
                reduced: true,
                ..cancelled
            }),
            Outcome::Cancelled
        );
    }

    #[test]
    fn a_silent_end_or_a_senseless_status_is_lost() {
        assert_eq!(
            decide(&Evidence {
                ended_by: None,
                ..exited(EXIT_0)
            }),
            Outcome::Lost
        );
        let stopped = 0x137f;
        assert_eq!(decide(&exited(stopped)), Outcome::Lost);
        assert_eq!(
            decide(&Evidence {
                wait_status: None,
                ..exited(0)
            }),
            Outcome::Lost
        );
    }
}
