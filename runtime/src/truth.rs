//! What a sandbox is told of its CPUs and its memory: five files over those of its `/proc`.
//!
//! The kernel's own tell of the whole host. These are made from the sandbox's share, on a tmpfs of
//! their own, which belongs to the shim, and bound read only by the container library. They say how
//! things are at the sandbox's start and do not count on; the shim can write them anew in place.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions, read_to_string};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// The entries of `/proc` that are replaced.
pub(crate) const FILES: [&str; 5] = ["cpuinfo", "loadavg", "meminfo", "stat", "uptime"];

/// Most that is told of one CPU, in bytes: whole lines of the host's first one.
const CPU_MAX: usize = 4096;

/// What a sandbox has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// CPUs that it may run on.
    pub(crate) cpus: usize,
    /// Its memory limit.
    pub(crate) memory_bytes: u64,
    /// When it was started, in seconds since the epoch.
    pub(crate) since_s: u64,
}

/// What the host's `/proc/cpuinfo` says of its first CPU.
#[derive(Clone, Debug)]
pub(crate) struct Cpu(String);

impl Cpu {
    /// Reads it; on some kernels that asks every CPU for its clock rate, so not once a sandbox.
    pub(crate) fn read() -> io::Result<Cpu> {
        read_to_string("/proc/cpuinfo").map(|text| Cpu::first(&text))
    }

    /// The first block of a cpuinfo, whatever the architecture puts into one.
    fn first(cpuinfo: &str) -> Cpu {
        let mut told = String::new();
        for line in cpuinfo.lines().take_while(|line| !line.trim().is_empty()) {
            if told.len() + line.len() < CPU_MAX {
                told.push_str(line);
                told.push('\n');
            }
        }
        if !told.lines().any(|line| key(line) == "processor") {
            told.insert_str(0, "processor\t: 0\n");
        }
        Cpu(told)
    }

    /// One block for each CPU, numbered anew, all of them cores of one package.
    fn info(&self, cpus: usize) -> String {
        let mut text = String::new();
        for cpu in 0..cpus {
            for line in self.0.lines() {
                let number = match key(line) {
                    "processor" | "core id" | "apicid" | "initial apicid" => Some(cpu),
                    "physical id" => Some(0),
                    "siblings" | "cpu cores" => Some(cpus),
                    _ => None,
                };
                match (number, line.split_once(':')) {
                    (Some(number), Some((name, _))) => text.push_str(&format!("{name}: {number}")),
                    _ => text.push_str(line),
                }
                text.push('\n');
            }
            text.push('\n');
        }
        text
    }
}

/// The name of a line of a cpuinfo.
fn key(line: &str) -> &str {
    line.split(':').next().unwrap_or_default().trim()
}

/// What each of [`FILES`] says, in their order.
fn texts(cpu: &Cpu, share: Share) -> [String; FILES.len()] {
    [
        cpu.info(share.cpus),
        "0.00 0.00 0.00 1/1 1\n".to_owned(),
        meminfo(share.memory_bytes),
        stat(share),
        "0.00 0.00\n".to_owned(),
    ]
}

/// All of the memory is free, as far as the sandbox has any: what is used is not known here.
fn meminfo(bytes: u64) -> String {
    const NOTHING: [&str; 22] = [
        "Buffers",
        "Cached",
        "SwapCached",
        "Active",
        "Inactive",
        "Unevictable",
        "Mlocked",
        "SwapTotal",
        "SwapFree",
        "Dirty",
        "Writeback",
        "AnonPages",
        "Mapped",
        "Shmem",
        "KReclaimable",
        "Slab",
        "SReclaimable",
        "SUnreclaim",
        "KernelStack",
        "PageTables",
        "Committed_AS",
        "AnonHugePages",
    ];
    let kib = bytes / 1024;
    let mut text = String::new();
    let all = ["MemTotal", "MemFree", "MemAvailable"].map(|name| (name, kib));
    for (name, kib) in all
        .into_iter()
        .chain(NOTHING.map(|name| (name, 0)))
        .chain([("CommitLimit", kib)])
    {
        line(
            &mut text,
            format_args!("{:<16}{kib:>8} kB", format!("{name}:")),
        );
    }
    for name in ["Total", "Free", "Rsvd", "Surp"] {
        line(&mut text, format_args!("HugePages_{name}: {:>7}", 0));
    }
    text
}

/// No CPU has done anything yet.
fn stat(share: Share) -> String {
    const TIMES: &str = "0 0 0 0 0 0 0 0 0 0";
    let mut text = format!("cpu  {TIMES}\n");
    for cpu in 0..share.cpus {
        line(&mut text, format_args!("cpu{cpu} {TIMES}"));
    }
    let since = share.since_s;
    line(
        &mut text,
        format_args!(
            "intr 0\nctxt 0\nbtime {since}\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n\
            softirq 0 {TIMES}"
        ),
    );
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    let written = writeln!(text, "{content}");
    debug_assert!(written.is_ok(), "writing to a string");
}

/// The files of one sandbox, open.
#[derive(Debug)]
pub(crate) struct Files(Vec<File>);

impl Files {
    /// Makes them, empty, in a directory that nobody else can write.
    pub(crate) fn make(dir: &str) -> io::Result<Files> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o444);
        let made = FILES.map(|name| options.open(format!("{dir}/{name}")));
        made.into_iter().collect::<io::Result<_>>().map(Files)
    }

    /// Every descriptor that is held.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd)
    }

    /// Writes what a sandbox of this share is told, in place of what stands there: whoever has the
    /// files bound somewhere sees it.
    pub(crate) fn write(&self, cpu: &Cpu, share: Share) -> io::Result<()> {
        for (file, text) in self.0.iter().zip(texts(cpu, share)) {
            file.set_len(0)?;
            file.write_all_at(text.as_bytes(), 0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share {
        cpus: 2,
        memory_bytes: 256 << 20,
        since_s: 1_700_000_000,
    };

    const X86: &str = "\
processor\t: 3
model name\t: Some CPU: fast
physical id\t: 1
siblings\t: 64
core id\t\t: 7
cpu cores\t: 32
apicid\t\t: 9
initial apicid\t: 9
flags\t\t: fpu avx2
power management:

processor\t: 4
model name\t: another
";

    /// Values of a name, in the order of the lines.
    fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        let lines = text.lines().filter(|line| key(line) == name);
        lines
            .map(|line| line.split_once(':').map_or("", |(_, value)| value.trim()))
            .collect()
    }

    #[test]
    fn cpuinfo_has_a_block_for_each_cpu_of_the_first_ones_model() {
        let text = Cpu::first(X86).info(2);
        assert_eq!(text.split_terminator("\n\n").count(), 2);
        for (name, expected) in [
            ("processor", ["0", "1"]),
            ("model name", ["Some CPU: fast"; 2]),
            ("physical id", ["0", "0"]),
            ("siblings", ["2", "2"]),
            ("core id", ["0", "1"]),
            ("cpu cores", ["2", "2"]),
            ("apicid", ["0", "1"]),
            ("initial apicid", ["0", "1"]),
            ("flags", ["fpu avx2"; 2]),
            ("power management", [""; 2]),
        ] {
            assert_eq!(values(&text, name), expected, "{name}");
        }
    }

    #[test]
    fn cpuinfo_of_other_architectures_keeps_its_own_keys() {
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n\
            CPU implementer\t: 0x41\n\nprocessor\t: 1\n\nHardware\t: board\n";
        let text = Cpu::first(arm).info(3);
        assert_eq!(values(&text, "processor"), ["0", "1", "2"]);
        assert_eq!(values(&text, "Features"), ["fp asimd"; 3]);
        assert_eq!(values(&text, "Hardware"), [""; 0]);
        let unnumbered = Cpu::first("cpu : POWER\n").info(2);
        assert_eq!(values(&unnumbered, "processor"), ["0", "1"]);
        assert_eq!(values(&Cpu::first("").info(1), "processor"), ["0"]);
    }

    #[test]
    fn cpuinfo_is_bounded_at_whole_lines() {
        let long = format!("processor: 0\nflags: {}\nlast: 1\n", "x ".repeat(CPU_MAX));
        let text = Cpu::first(&long).info(1);
        assert!(text.len() <= CPU_MAX + 2, "{}", text.len());
        assert_eq!(values(&text, "flags"), [""; 0]);
        assert_eq!(values(&text, "last"), ["1"]);
    }

    #[test]
    fn meminfo_tells_the_limit_and_no_swap() {
        let text = meminfo(SHARE.memory_bytes);
        for name in ["MemTotal", "MemFree", "MemAvailable", "CommitLimit"] {
            assert_eq!(values(&text, name), ["262144 kB"], "{name}");
        }
        for name in [
            "SwapTotal",
            "SwapFree",
            "Buffers",
            "Cached",
            "SReclaimable",
            "Shmem",
        ] {
            assert_eq!(values(&text, name), ["0 kB"], "{name}");
        }
        assert!(text.starts_with("MemTotal:         262144 kB\n"), "{text}");
        assert_eq!(values(&text, "HugePages_Total"), ["0"]);
    }

    #[test]
    fn stat_has_a_line_for_each_cpu_and_the_start() {
        let text = stat(SHARE);
        let cpus: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("cpu"))
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(cpus, ["cpu", "cpu0", "cpu1"]);
        assert!(text.contains("\nbtime 1700000000\n"), "{text}");
    }

    /// A warm sandbox is told of its share when it is claimed: through what is bound already.
    #[test]
    fn files_are_written_anew_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let files = Files::make(path).unwrap();
        let cpu = Cpu::first(X86);
        let bound = FILES.map(|name| File::open(dir.path().join(name)).unwrap());
        for share in [
            SHARE,
            Share {
                cpus: 1,
                memory_bytes: 1 << 20,
                ..SHARE
            },
            Share { cpus: 9, ..SHARE },
        ] {
            files.write(&cpu, share).unwrap();
            for (file, expected) in bound.iter().zip(texts(&cpu, share)) {
                let mut found = vec![0; expected.len() + 1];
                let read = file.read_at(&mut found, 0).unwrap();
                assert_eq!(String::from_utf8_lossy(&found[..read]), expected);
            }
        }
        assert!(Files::make(path).is_err(), "they are never another's");
    }
}
