//! The interpreter of the fake's script language.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::autopsy::{Autopsy, DiskFree, ProcessSeen};
use crate::measured::Measured;
use crate::outcome::{Clock, EndedBy, Outcome};
use crate::output::{Captured, OutputSink, Stream};
use crate::sandbox::Report;
use crate::spec::{Process, SandboxSpec};
use crate::wire::{PROCESSES_MAX, Seen};

/// Memory that even an empty script is said to have used, in bytes.
const MEMORY_FLOOR: u64 = 1 << 20;

/// What a run has come to so far.
struct Machine<'a> {
    spec: &'a SandboxSpec,
    files: &'a BTreeMap<String, Vec<u8>>,
    process: &'a Process,
    sink: Option<OutputSink>,
    measured: Measured,
    stdout: Captured,
    stderr: Captured,
    disk_bytes: u64,
    autopsy: Autopsy,
    written: BTreeMap<String, Vec<u8>>,
}

/// Runs the script that `process` names to its end; answers with it the files that it has written.
pub(super) async fn run(
    spec: &SandboxSpec,
    files: &BTreeMap<String, Vec<u8>>,
    process: &Process,
    sink: Option<OutputSink>,
    mut cancel: oneshot::Receiver<()>,
) -> (Report, BTreeMap<String, Vec<u8>>) {
    let measured = Measured {
        memory_peak_bytes: MEMORY_FLOOR,
        pids_peak: 1,
        ..Measured::default()
    };
    let mut machine = Machine {
        spec,
        files,
        process,
        sink,
        measured,
        stdout: Captured::default(),
        stderr: Captured::default(),
        disk_bytes: 0,
        autopsy: Autopsy {
            ended_by: Some(EndedBy::Finish),
            ..Autopsy::default()
        },
        written: BTreeMap::new(),
    };
    let mut outcome = Outcome::Exited { code: 0 };
    for line in script(files, process).lines() {
        if cancel.try_recv().is_ok() {
            outcome = Outcome::Cancelled;
            break;
        }
        let end = match line.trim() {
            "" => None,
            "wait" => Some(machine.wait(&mut cancel).await),
            line if line.starts_with('#') => None,
            line => machine.step(line),
        };
        if let Some(end) = end {
            outcome = end;
            break;
        }
    }
    let never_began = matches!(outcome, Outcome::StartFailed { .. });
    let is_bad = outcome != Outcome::Exited { code: 0 } && !never_began;
    let autopsy = is_bad.then(|| machine.last_look());
    let Machine {
        measured,
        stdout,
        stderr,
        written,
        ..
    } = machine;
    let report = Report {
        outcome,
        measured,
        autopsy,
        stdout,
        stderr,
        kept: None,
        started_us: 0,
        finished_us: measured.wall_us,
    };
    (report, written)
}

/// The text to be interpreted.
fn script(files: &BTreeMap<String, Vec<u8>>, process: &Process) -> String {
    let named = process.argv.iter().find_map(|arg| {
        let name = arg.strip_prefix("/workspace/").unwrap_or(arg);
        files.get(name)
    });
    if let Some(content) = named {
        return String::from_utf8_lossy(content).into_owned();
    }
    let mut args = process.argv.iter();
    if args.any(|arg| arg == "-c") {
        return args.next().cloned().unwrap_or_default();
    }
    process.argv.join(" ")
}

impl Machine<'_> {
    /// Runs one line; says how the run ends if it ends here.
    fn step(&mut self, line: &str) -> Option<Outcome> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = rest.trim().parse::<u64>().unwrap_or(0);
        match word {
            "print" => self.write(Stream::Stdout, format!("{rest}\n").as_bytes()),
            "eprint" => self.write(Stream::Stderr, format!("{rest}\n").as_bytes()),
            "exit" => Some(Outcome::Exited {
                code: i32::try_from(number & 0xff).unwrap_or(0),
            }),
            "signal" => Some(Outcome::Signalled {
                signal: i32::try_from(number).unwrap_or(9),
            }),
            "cpu_us" => self.burn(number),
            "sleep_ms" => self.pass(number.saturating_mul(1000)),
            "flood" => self.flood(number),
            "memory" => {
                let limit = self.spec.limits.memory_bytes;
                let peak = &mut self.measured.memory_peak_bytes;
                *peak = (*peak).max(number.min(limit));
                (number > limit).then(|| {
                    self.measured.oom_kills = 1;
                    self.autopsy.ended_by = Some(EndedBy::Oom);
                    Outcome::OutOfMemory
                })
            }
            "disk" => {
                self.disk_bytes = self.disk_bytes.saturating_add(number);
                (self.disk_bytes > self.spec.limits.disk_bytes).then_some(Outcome::DiskFull)
            }
            "fork" => {
                let most = u64::from(self.spec.limits.pids);
                self.measured.pids_peak = self.measured.pids_peak.max(number.min(most));
                self.autopsy.pids_refused += number.saturating_sub(most);
                (number > most).then_some(Outcome::ProcessLimit)
            }
            "write" => {
                let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let content = format!("{text}\n").into_bytes();
                self.written.insert(path.to_owned(), content);
                None
            }
            "process" => self.appear(rest),
            "others" => {
                self.autopsy.processes_more = number;
                None
            }
            "cat" => self.write(Stream::Stdout, &self.process.stdin),
            "env" => {
                let found = self.process.env.iter().rev().find(|(name, _)| name == rest);
                let value = found.map_or("", |(_, value)| value.as_str());
                self.write(Stream::Stdout, format!("{value}\n").as_bytes())
            }
            "read" => match self.files.get(rest) {
                Some(content) => self.write(Stream::Stdout, content),
                None => self
                    .write(Stream::Stderr, format!("{rest}: no such file\n").as_bytes())
                    .or(Some(Outcome::Exited { code: 1 })),
            },
            "fail" => Some(Outcome::StartFailed {
                reason: "the script said so".to_owned(),
            }),
            "lost" => Some(Outcome::Lost),
            _ => self.call(line, word),
        }
    }

    /// A process that is there to be seen; the same bounds and escapes as for a real one.
    fn appear(&mut self, words: &str) -> Option<Outcome> {
        let mut words = words.splitn(5, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (pid, parent) = (number().unwrap_or(0), number().unwrap_or(0));
        let state = words.next().and_then(|word| word.bytes().next());
        let cpu_us = words.next().and_then(|word| word.parse().ok());
        let seen = Seen {
            pid: u32::try_from(pid).unwrap_or(0),
            parent: u32::try_from(parent).unwrap_or(0),
            name: words.next().unwrap_or("").as_bytes().to_vec(),
            state: state.unwrap_or(b'S'),
            cpu_us: cpu_us.unwrap_or(0),
        };
        if self.autopsy.processes.len() < PROCESSES_MAX {
            self.autopsy.processes.push(ProcessSeen::from(seen));
        } else {
            self.autopsy.processes_more += 1;
        }
        None
    }

    /// What a shim would have seen at the end.
    fn last_look(&self) -> Autopsy {
        let limits = &self.spec.limits;
        Autopsy {
            cpu_us: self.measured.cpu_us,
            disk_free: Some(DiskFree {
                bytes: limits.disk_bytes.saturating_sub(self.disk_bytes),
                inodes: limits.inodes,
            }),
            ..self.autopsy.clone()
        }
    }

    /// `print(TEXT)`, or a command not found.
    fn call(&mut self, line: &str, word: &str) -> Option<Outcome> {
        if let Some(text) = line
            .strip_prefix("print(")
            .and_then(|rest| rest.strip_suffix(')'))
        {
            let text = text.trim_matches(['"', '\'']);
            return self.write(Stream::Stdout, format!("{text}\n").as_bytes());
        }
        self.write(
            Stream::Stderr,
            format!("farebox: {word}: command not found\n").as_bytes(),
        )
        .or(Some(Outcome::Exited { code: 127 }))
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) -> Option<Outcome> {
        if let Some(sink) = &mut self.sink {
            sink(stream, bytes);
        }
        let captured = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let over = captured.add(bytes, self.process.output_bytes);
        (over && self.process.kill_on_output_limit).then_some(Outcome::OutputLimit)
    }

    fn flood(&mut self, mut bytes: u64) -> Option<Outcome> {
        let piece = [b'x'; 4096];
        while bytes > 0 {
            let len = usize::try_from(bytes)
                .unwrap_or(piece.len())
                .min(piece.len());
            let end = self.write(Stream::Stdout, &piece[..len]);
            if end.is_some() {
                return end;
            }
            bytes = bytes.saturating_sub(4096);
        }
        None
    }

    /// Uses CPU, at the rate of the CPU share, until it is done or a limit stops it.
    fn burn(&mut self, us: u64) -> Option<Outcome> {
        let left = self
            .process
            .cpu_ms
            .saturating_mul(1000)
            .saturating_sub(self.measured.cpu_us);
        let used = us.min(left);
        let millis = u64::from(self.spec.limits.cpu_millis.clamp(1, 1000));
        let wall = used.saturating_mul(1000) / millis;
        let wall_left = self.wall_left_us();
        if wall > wall_left {
            self.measured.cpu_us += wall_left.saturating_mul(millis) / 1000;
            self.measured.cpu_user_us = self.measured.cpu_us;
            return self.pass(wall);
        }
        self.measured.cpu_us += used;
        self.measured.cpu_user_us = self.measured.cpu_us;
        self.measured.wall_us += wall;
        (us > left).then(|| self.timed_out(Clock::Cpu))
    }

    /// Lets wall time pass until it is over or the limit stops it.
    fn pass(&mut self, us: u64) -> Option<Outcome> {
        let left = self.wall_left_us();
        self.measured.wall_us += us.min(left);
        (us > left).then(|| self.timed_out(Clock::Wall))
    }

    async fn wait(&mut self, cancel: &mut oneshot::Receiver<()>) -> Outcome {
        let left = self.wall_left_us();
        let cancelled = async {
            // A dropped sender is no cancel: then only the wall limit ends the run.
            if cancel.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        if tokio::time::timeout(Duration::from_micros(left), cancelled)
            .await
            .is_ok()
        {
            return Outcome::Cancelled;
        }
        self.measured.wall_us += left;
        self.timed_out(Clock::Wall)
    }

    fn wall_left_us(&self) -> u64 {
        self.process
            .wall_ms
            .saturating_mul(1000)
            .saturating_sub(self.measured.wall_us)
    }

    fn timed_out(&mut self, clock: Clock) -> Outcome {
        self.autopsy.ended_by = Some(match clock {
            Clock::Wall => EndedBy::Wall,
            Clock::Cpu => EndedBy::Cpu,
        });
        if self.process.reduced {
            Outcome::QuotaExhausted
        } else {
            Outcome::TimedOut { clock }
        }
    }
}
