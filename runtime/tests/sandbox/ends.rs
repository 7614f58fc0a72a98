//! How a run ends that passes a limit, or that somebody ends.

use runtime::{Clock, Outcome};
use tokio::sync::oneshot;

use crate::Test;
use crate::bed::{Bed, Run, text};

pub(crate) const TESTS: &[Test] = &[
    ("wall_time_ends_a_run_and_is_no_cpu_time", wall),
    ("cpu_time_ends_a_run_however_many_processes_use_it", cpu),
    ("a_timeout_of_reduced_limits_is_a_used_up_quota", reduced),
    ("too_much_memory_is_out_of_memory", memory),
    ("a_full_disk_is_told_by_bytes_and_by_inodes", disk),
    ("too_many_processes_are_told", processes),
    ("large_output_is_cut_and_counted", output),
    ("output_ends_the_run_if_the_caller_says_so", output_kills),
    (
        "a_child_that_holds_the_output_does_not_hold_the_answer",
        held_output,
    ),
    ("a_detached_grandchild_ends_with_the_run", detached),
    ("a_cancel_ends_a_run_and_keeps_its_output", cancel),
    ("a_dropped_cancel_is_no_cancel", dropped_cancel),
];

const OK: Outcome = Outcome::Exited { code: 0 };

fn wall(bed: &mut Bed) {
    let mut run = Run::shell("echo before; exec sleep 1000");
    run.limits.wall_ms = 400;
    let report = bed.run(&run);
    assert_eq!(report.outcome, Outcome::TimedOut { clock: Clock::Wall });
    assert_eq!(text(&report.stdout), "before\n");
    assert!(report.measured.wall_us >= 400_000, "{:?}", report.measured);
    assert!(report.measured.cpu_us < 300_000, "{:?}", report.measured);
}

fn cpu(bed: &mut Bed) {
    let mut run = Run::python("import os\nos.fork()\nos.fork()\nwhile True: pass\n");
    run.limits.cpu_ms = 300;
    let report = bed.run(&run);
    assert_eq!(report.outcome, Outcome::TimedOut { clock: Clock::Cpu });
    assert!(report.measured.cpu_us >= 300_000, "{:?}", report.measured);
}

fn reduced(bed: &mut Bed) {
    let mut run = Run::shell("exec sleep 1000");
    run.limits.wall_ms = 200;
    run.reduced = true;
    assert_eq!(bed.run(&run).outcome, Outcome::QuotaExhausted);
    let mut fits = Run::shell("exit 0");
    fits.reduced = true;
    assert_eq!(bed.run(&fits).outcome, OK);
}

fn memory(bed: &mut Bed) {
    let mut run = Run::python("x = [bytearray(1 << 20) for _ in range(500)]");
    run.limits.memory_bytes = 64 << 20;
    let report = bed.run(&run);
    assert_eq!(report.outcome, Outcome::OutOfMemory, "{report:?}");
    assert!(report.measured.oom_kills > 0, "{:?}", report.measured);
    assert!(
        report.measured.memory_peak_bytes <= 64 << 20,
        "{:?}",
        report.measured
    );
}

fn disk(bed: &mut Bed) {
    let code = "\
piece = bytes(1 << 20)
with open('big', 'wb') as f:
    for _ in range(200): f.write(piece); f.flush()
";
    let report = bed.run(&Run::python(code));
    assert_eq!(
        report.outcome,
        Outcome::DiskFull,
        "{}",
        text(&report.stderr)
    );
    assert!(text(&report.stderr).contains("No space left on device"));
    let report = bed.run(&Run::python(
        "for n in range(20000): open(str(n), 'w').close()",
    ));
    assert_eq!(
        report.outcome,
        Outcome::DiskFull,
        "{}",
        text(&report.stderr)
    );
}

fn processes(bed: &mut Bed) {
    let mut run = Run::python(
        "import os, time\n\
         while True:\n    if os.fork() == 0: time.sleep(1000)\n",
    );
    run.limits.pids = 16;
    let report = bed.run(&run);
    assert_eq!(
        report.outcome,
        Outcome::ProcessLimit,
        "{}",
        text(&report.stderr)
    );
    assert!(report.measured.pids_peak <= 16, "{:?}", report.measured);
}

fn output(bed: &mut Bed) {
    let report = bed.run(&Run::shell("head -c 3000000 /dev/zero; echo last >&2"));
    assert_eq!(report.outcome, OK);
    assert_eq!(report.stdout.bytes.len(), 64 << 10);
    assert_eq!(
        (report.stdout.truncated, report.stdout.total),
        (true, 3_000_000)
    );
    assert_eq!(
        (text(&report.stderr).as_str(), report.stderr.truncated),
        ("last\n", false)
    );
}

fn output_kills(bed: &mut Bed) {
    let mut run = Run::shell("exec cat /dev/zero");
    run.kill_on_output_limit = true;
    let report = bed.run(&run);
    assert_eq!(report.outcome, Outcome::OutputLimit);
    assert_eq!(report.stdout.bytes.len(), 64 << 10);
}

fn held_output(bed: &mut Bed) {
    let report = bed.run(&Run::shell("sleep 1000 & echo main"));
    assert_eq!(
        (report.outcome, text(&report.stdout).as_str()),
        (OK, "main\n")
    );
}

fn detached(bed: &mut Bed) {
    let code = "\
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
os.wait()
print('main', flush=True)
";
    let report = bed.run(&Run::python(code));
    assert_eq!(
        (report.outcome, text(&report.stdout).as_str()),
        (OK, "main\n")
    );
}

fn cancel(bed: &mut Bed) {
    let (send, cancelled) = oneshot::channel();
    let mut send = Some(send);
    let sink = Box::new(move |_, _: &[u8]| {
        if let Some(send) = send.take() {
            send.send(()).unwrap();
        }
    });
    let run = Run::shell("trap '' TERM INT; echo up; while true; do sleep 100; done");
    let report = bed.run_with(&run, Some(sink), cancelled);
    assert_eq!(
        (report.outcome, text(&report.stdout).as_str()),
        (Outcome::Cancelled, "up\n")
    );
    assert!(report.measured.cpu_us > 0);
}

fn dropped_cancel(bed: &mut Bed) {
    let (send, cancelled) = oneshot::channel();
    drop(send);
    assert_eq!(
        bed.run_with(&Run::shell("exit 4"), None, cancelled).outcome,
        Outcome::Exited { code: 4 }
    );
}
