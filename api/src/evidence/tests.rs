//! Each outcome names its limit, the counter that proves it, and a cause that can be read.

use runtime::{Clock, DiskFree, Measured, Outcome as Of, ProcessSeen};

use super::*;

fn limits() -> Limits {
    Limits {
        wall_ms: 2_000,
        cpu_ms: 500,
        cpu_millis: 1_000,
        memory_bytes: 256 << 20,
        pids: 64,
        disk_bytes: 64 << 20,
        inodes: 5_000,
        open_files: 64,
        output_bytes: 1_000,
    }
}

fn report(outcome: Of, ended_by: EndedBy) -> Report {
    let autopsy = Autopsy {
        ended_by: Some(ended_by),
        cpu_us: 500_100,
        pids_refused: 3,
        disk_free: Some(DiskFree {
            bytes: 4_096,
            inodes: 9,
        }),
        ..Autopsy::default()
    };
    Report {
        outcome,
        measured: Measured {
            cpu_us: 501_000,
            wall_us: 2_000_700,
            memory_peak_bytes: 256 << 20,
            throttled_us: 7,
            oom_kills: 2,
            pids_peak: 64,
            ..Measured::default()
        },
        autopsy: Some(autopsy),
        stdout: Captured::default(),
        stderr: Captured::default(),
        kept: None,
        started_us: 0,
        finished_us: 0,
    }
}

fn evidence(report: &Report) -> Evidence {
    let outcome = Outcome::from(&report.outcome);
    Evidence::of_report(&outcome, report, &limits()).unwrap()
}

#[test]
fn every_limit_is_named_with_value_peak_and_counter() {
    let wall = Of::TimedOut { clock: Clock::Wall };
    let cpu = Of::TimedOut { clock: Clock::Cpu };
    let (mib, finish) = (1 << 20, EndedBy::Finish);
    let flooded = {
        let mut report = report(Of::OutputLimit, finish);
        (report.stdout.total, report.stderr.total) = (5, 1_001);
        report
    };
    let no_inodes = {
        let mut report = report(Of::DiskFull, finish);
        let autopsy = report.autopsy.as_mut().unwrap();
        autopsy.disk_free.as_mut().unwrap().inodes = 0;
        report
    };
    let network = {
        let mut report = report(Of::OutOfMemory, EndedBy::Oom);
        report.measured.oom_kills = 0;
        report
    };
    let full = 64 * mib - 4_096;
    for (report, name, peak, counter, count) in [
        (
            report(wall, EndedBy::Wall),
            "wall_ms",
            2_000,
            "wall_us",
            2_000_700,
        ),
        (report(cpu, EndedBy::Cpu), "cpu_ms", 500, "cpu_us", 500_100),
        (
            report(Of::QuotaExhausted, EndedBy::Cpu),
            "cpu_ms",
            500,
            "cpu_us",
            500_100,
        ),
        (
            report(Of::OutOfMemory, EndedBy::Oom),
            "memory_bytes",
            256 * mib,
            "memory_oom_kill",
            2,
        ),
        (
            network,
            "memory_bytes",
            256 * mib,
            "memory_peak_bytes",
            256 * mib,
        ),
        (report(Of::ProcessLimit, finish), "pids", 64, "pids_max", 3),
        (
            report(Of::DiskFull, finish),
            "disk_bytes",
            full,
            "disk_free_bytes",
            4_096,
        ),
        (no_inodes, "inodes", 5_000, "disk_free_inodes", 0),
        (flooded, "output_bytes", 1_001, "stderr_bytes", 1_001),
    ] {
        let found = evidence(&report);
        let hit = found.limit.unwrap();
        assert_eq!((hit.name.as_str(), hit.value), (name, limits().get(name)));
        assert_eq!(hit.peak, Some(peak), "{name}");
        assert_eq!((hit.counter.as_str(), hit.count), (counter, count));
    }
}

#[test]
fn a_peak_that_the_kernel_does_not_tell_is_absent() {
    let mut report = report(Of::ProcessLimit, EndedBy::Finish);
    report.measured.pids_peak = 0;
    assert_eq!(evidence(&report).limit.unwrap().peak, None);
}

#[test]
fn a_success_has_none_and_every_failure_has_some() {
    let good = Outcome::from(&Of::Exited { code: 0 });
    assert_eq!(Evidence::of_outcome(&good), None);
    let ran = report(Of::Exited { code: 0 }, EndedBy::Finish);
    assert_eq!(Evidence::of_report(&good, &ran, &limits()), None);
    for bad in [
        Of::Exited { code: 3 },
        Of::Exited { code: 127 },
        Of::Signalled { signal: 11 },
        Of::Signalled { signal: 40 },
        Of::Cancelled,
        Of::Lost,
    ] {
        let found = evidence(&report(bad, EndedBy::Finish));
        assert_eq!(found.limit, None);
        assert_eq!(found.counters.unwrap().cpu_us, 500_100);
    }
}

#[test]
fn the_cause_is_one_line_that_says_limit_and_number() {
    let said = |outcome, by| evidence(&report(outcome, by)).cause;
    assert_eq!(
        said(Of::OutOfMemory, EndedBy::Oom),
        "the memory limit of 256 MiB was reached, and the kernel killed 2 of its processes"
    );
    let wall = Of::TimedOut { clock: Clock::Wall };
    assert_eq!(
        said(wall, EndedBy::Wall),
        "the limit on wall time of 2000 ms was used up"
    );
    assert_eq!(
        said(Of::QuotaExhausted, EndedBy::Wall),
        "the wall time of 2000 ms that a quota had left was used up"
    );
    assert_eq!(
        said(Of::ProcessLimit, EndedBy::Finish),
        "the limit of 64 processes and threads was reached: the kernel refused 3 more"
    );
    assert_eq!(
        said(Of::DiskFull, EndedBy::Finish),
        "the disk of 64 MiB was full"
    );
    assert!(said(Of::Signalled { signal: 11 }, EndedBy::Finish).contains("SIGSEGV"));
    // Also where only the ledger's entry is left to tell it from.
    for entry in [
        "timed_out:cpu",
        "out_of_memory",
        "lost",
        "disk_full",
        "exited:3",
    ] {
        let found = Evidence::of_outcome(&Outcome::from_entry(entry)).unwrap();
        assert!(
            !found.cause.contains("  ") && found.cause.len() > 10,
            "{}",
            found.cause
        );
    }
}

#[test]
fn processes_are_shown_as_the_runtime_tamed_them() {
    let mut report = report(Of::Cancelled, EndedBy::Finish);
    let autopsy = report.autopsy.as_mut().unwrap();
    autopsy.processes = vec![ProcessSeen {
        pid: 7,
        parent: None,
        name: "a\\nb".to_owned(),
        state: "running",
        cpu_us: 10_000,
    }];
    autopsy.processes_more = 99;
    let found = evidence(&report);
    assert_eq!((found.processes.len(), found.processes_more), (1, 99));
    assert_eq!(found.processes[0].name, "a\\nb");
}

#[test]
fn nobody_looked_where_the_shim_went_without_a_word() {
    let mut report = report(Of::Lost, EndedBy::ShimDied);
    report.autopsy = Some(Autopsy::default());
    assert_eq!(evidence(&report).counters, None);
}

#[test]
fn a_tail_begins_at_a_character() {
    let mut captured = Captured::default();
    captured.bytes = "\u{20ac}".repeat(2_000).into_bytes();
    let (text, encoding) = tail(&captured);
    assert_eq!((text.len(), encoding), (4_095, Encoding::Utf8));
    captured.bytes = vec![0xff; 5];
    assert_eq!(tail(&captured).1, Encoding::Base64);
}
