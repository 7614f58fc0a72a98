//! Each word of the script language does what its table says, and the same every time.

use super::*;
use crate::outcome::{Clock, Outcome};
use crate::output::Captured;
use crate::runtime::Runtime;
use crate::spec::{Limits, Network};

fn spec(n: u8) -> SandboxSpec {
    let limits = Limits {
        wall_ms: 1_000,
        cpu_ms: 100,
        cpu_millis: 500,
        memory_bytes: 64 << 20,
        pids: 8,
        disk_bytes: 1 << 20,
        inodes: 100,
        open_files: 64,
        output_bytes: 8,
    };
    SandboxSpec {
        id: SandboxId([n; 16]),
        owner: "owner".to_owned(),
        image: Digest([0; 32]),
        limits,
        network: Network::None,
        interpreter: None,
    }
}

fn process(script: &str) -> Process {
    Process {
        execution: [1; 16],
        argv: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
        env: vec![("K".to_owned(), "v".to_owned())],
        cwd: "/workspace".to_owned(),
        stdin: b"in".to_vec(),
        wall_ms: 1_000,
        cpu_ms: 100,
        output_bytes: 8,
        kill_on_output_limit: false,
        reduced: false,
        keep_s: 0,
    }
}

async fn run(process: Process) -> Report {
    let runtime = Runtime::fake(FakeOptions::default());
    let sandbox = runtime.open(spec(1)).await.unwrap();
    let (_keep, cancel) = oneshot::channel();
    sandbox.run(process, None, cancel).await
}

#[tokio::test]
async fn the_same_script_gives_the_same_report() {
    let script = "print hello\ncpu_us 40000\nsleep_ms 7\nexit 3";
    let report = run(process(script)).await;
    let again = run(process(script)).await;
    assert_eq!(report.outcome, again.outcome);
    assert_eq!(report.measured, again.measured);
    assert_eq!(
        (&report.stdout, &report.stderr),
        (&again.stdout, &again.stderr)
    );
    assert_eq!(report.autopsy, again.autopsy);
    assert_eq!(report.outcome, Outcome::Exited { code: 3 });
    assert_eq!(
        (report.measured.cpu_us, report.measured.wall_us),
        (40_000, 87_000)
    );
    let mut stdout = Captured::default();
    stdout.add(b"hello\n", 8);
    assert_eq!(report.stdout, stdout);
}

#[tokio::test]
async fn files_arguments_and_calls_are_scripts_too() {
    let runtime = Runtime::fake(FakeOptions::default());
    let mut sandbox = runtime.open(spec(1)).await.unwrap();
    let content = b"print(1)\nread in.txt\nenv K\ncat".to_vec();
    let file = |path: &str, content| File {
        path: path.to_owned(),
        content,
        mode: 0o644,
    };
    sandbox
        .put(&[file("main.py", content), file("in.txt", b"x".to_vec())])
        .await
        .unwrap();
    let mut named = process("");
    named.argv = vec!["python3".to_owned(), "main.py".to_owned()];
    let (_keep, cancel) = oneshot::channel();
    let report = sandbox.run(named, None, cancel).await;
    assert_eq!(report.stdout.bytes, b"1\nxv\nin");

    let mut direct = process("");
    direct.argv = vec!["exit".to_owned(), "4".to_owned()];
    assert_eq!(run(direct).await.outcome, Outcome::Exited { code: 4 });
    let report = run(process("no-such-thing")).await;
    assert_eq!(report.outcome, Outcome::Exited { code: 127 });
}

#[tokio::test]
async fn limits_end_a_script_at_the_limit() {
    let report = run(process("cpu_us 100001")).await;
    assert_eq!(report.outcome, Outcome::TimedOut { clock: Clock::Cpu });
    assert_eq!(report.measured.cpu_us, 100_000);
    let report = run(process("sleep_ms 2000")).await;
    assert_eq!(report.outcome, Outcome::TimedOut { clock: Clock::Wall });
    assert_eq!(report.measured.wall_us, 1_000_000);
    let reduced = Process {
        reduced: true,
        ..process("sleep_ms 2000")
    };
    assert_eq!(run(reduced).await.outcome, Outcome::QuotaExhausted);
    assert_eq!(
        run(process("memory 999999999")).await.outcome,
        Outcome::OutOfMemory
    );
    assert_eq!(
        run(process("disk 1000000\ndisk 1000000")).await.outcome,
        Outcome::DiskFull
    );
    assert_eq!(run(process("fork 9")).await.outcome, Outcome::ProcessLimit);
    let report = run(process("flood 100")).await;
    assert_eq!((report.stdout.bytes.len(), report.stdout.total), (8, 100));
    let kills = Process {
        kill_on_output_limit: true,
        ..process("flood 100\nexit 1")
    };
    assert_eq!(run(kills).await.outcome, Outcome::OutputLimit);
}

#[tokio::test]
async fn what_is_seen_at_a_bad_end_can_be_scripted() {
    let script = "process 7 1 R 1500 sh\x1b\nothers 5\nfork 9";
    let report = run(process(script)).await;
    let autopsy = report.autopsy.unwrap();
    assert_eq!((autopsy.pids_refused, autopsy.processes_more), (1, 5));
    let seen = &autopsy.processes[0];
    assert_eq!((seen.pid, seen.parent, seen.cpu_us), (7, Some(1), 1500));
    assert_eq!((seen.name.as_str(), seen.state), ("sh\\u{1b}", "running"));
    let wall = run(process("sleep_ms 2000")).await.autopsy.unwrap();
    assert_eq!(wall.ended_by, Some(crate::outcome::EndedBy::Wall));
    assert_eq!(run(process("process 7 1 R 1 sh")).await.autopsy, None);
}

#[tokio::test]
async fn waiting_ends_by_cancel() {
    let runtime = Runtime::fake(FakeOptions::default());
    let sandbox = runtime.open(spec(1)).await.unwrap();
    let (send, cancel) = oneshot::channel();
    send.send(()).unwrap();
    let report = sandbox.run(process("wait"), None, cancel).await;
    assert_eq!(report.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn capacity_health_and_drain_are_as_with_the_real_one() {
    let runtime = Runtime::fake(FakeOptions {
        capacity: 1,
        ..FakeOptions::default()
    });
    let first = runtime.open(spec(1)).await.unwrap();
    let full = runtime.open(spec(2)).await.unwrap_err();
    assert!(matches!(full, StartError::Overloaded { .. }), "{full:?}");
    first.discard().await;
    let second = runtime.open(spec(2)).await.unwrap();
    tokio::join!(runtime.drain(), async { drop(second) });
    assert!(!runtime.healthy());
    let gone = runtime.open(spec(3)).await.unwrap_err();
    assert!(matches!(gone, StartError::LauncherGone), "{gone:?}");
}
