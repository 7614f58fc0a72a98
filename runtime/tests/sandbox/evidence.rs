//! What is seen of a run that fails: its processes, its counters, the end of its output.

use runtime::{Autopsy, EndedBy, Outcome, Report};
use tokio::sync::oneshot;

use crate::Test;
use crate::bed::{Bed, Run};

pub(crate) const TESTS: &[Test] = &[
    ("a_bad_end_tells_the_processes_that_were_there", listed),
    ("a_success_leaves_nothing_to_look_at", success),
    ("a_name_of_a_process_is_escaped", hostile_name),
    (
        "of_a_crowd_at_most_32_are_listed_and_the_rest_counted",
        crowd,
    ),
    ("a_tail_outlives_the_cut", tail),
    ("what_is_left_behind_by_a_failure_is_listed", left_behind),
    ("counters_of_the_kernel_prove_the_limit", counters),
];

fn autopsy(report: &Report) -> &Autopsy {
    report.autopsy.as_ref().unwrap()
}

/// Runs until the first output, then cancels: whatever the program has made by then is there.
fn until_output(bed: &mut Bed, run: &Run) -> Report {
    let (send, cancelled) = oneshot::channel();
    let mut send = Some(send);
    let sink = Box::new(move |_, _: &[u8]| {
        if let Some(send) = send.take() {
            send.send(()).unwrap();
        }
    });
    let report = bed.run_with(run, Some(sink), cancelled);
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:?}");
    report
}

fn listed(bed: &mut Bed) {
    let script = "\
is() { until [ \"$(cut -d ' ' -f 2,3 /proc/$2/stat)\" = \"$1\" ]; do :; done; }
sleep 1000 & is '(sleep) S' $!
sleep 1000 & is '(sleep) S' $!
cat /dev/zero > /dev/null & is '(cat) R' $!
echo up
wait
";
    let report = until_output(bed, &Run::shell(script));
    let found = autopsy(&report);
    assert_eq!(found.ended_by, Some(EndedBy::Finish));
    let names = found.processes.iter().map(|one| one.name.as_str());
    let names: Vec<&str> = names.collect();
    // The oldest first, numbered as inside: the shell is init's child, the others are the shell's.
    let all = ["bash", "sleep", "sleep", "cat"];
    // A slow machine has no time for all of them.
    let more = usize::try_from(found.processes_more).unwrap();
    assert!(
        !names.is_empty() && names.len() + more == all.len(),
        "{found:?}"
    );
    assert_eq!(names, all[..names.len()], "{found:?}");
    let shell = &found.processes[0];
    assert_eq!(shell.parent, Some(1));
    for one in &found.processes[1..] {
        assert_eq!(one.parent, Some(shell.pid), "{found:?}");
        assert!(one.pid > shell.pid, "{found:?}");
        let expected = if one.name == "cat" {
            "running"
        } else {
            "sleeping"
        };
        assert_eq!(one.state, expected, "{found:?}");
    }
}

fn success(bed: &mut Bed) {
    assert_eq!(bed.run(&Run::shell("sleep 1000 & exit 0")).autopsy, None);
    assert_eq!(bed.run(&Run::shell("true")).autopsy, None);
}

fn hostile_name(bed: &mut Bed) {
    let code = "\
import ctypes, time
ctypes.CDLL(None).prctl(15, b') R 1\\n\\x1b[31m\\xff', 0, 0, 0)
print('up', flush=True)
time.sleep(1000)
";
    let report = until_output(bed, &Run::python(code));
    let seen = &autopsy(&report).processes[0];
    assert_eq!(seen.name, ") R 1\\n\\u{1b}[31m\u{fffd}");
    assert_eq!(seen.parent, Some(1));
}

/// How many are listed depends on the machine as well: the time to look at them is bounded.
fn crowd(bed: &mut Bed) {
    let code = "\
import os, time
for _ in range(240):
    if os.fork() == 0: time.sleep(1000)
print('up', flush=True)
time.sleep(1000)
";
    let mut run = Run::python(code);
    run.limits.pids = 256;
    run.limits.memory_bytes = 512 << 20;
    let report = until_output(bed, &run);
    let found = autopsy(&report);
    let listed = found.processes.len();
    assert!((1..=32).contains(&listed), "{found:?}");
    let more = usize::try_from(found.processes_more).unwrap();
    assert_eq!(listed + more, 241, "{found:?}");
    let first = &found.processes[0];
    let mut others = found.processes[1..].iter();
    assert!(others.all(|one| one.parent == Some(first.pid)), "{found:?}");
}

fn tail(bed: &mut Bed) {
    let script = "head -c 300000 /dev/zero | tr '\\0' x; printf 'the end'; echo no >&2; exit 3";
    let report = bed.run(&Run::shell(script));
    assert_eq!(report.outcome, Outcome::Exited { code: 3 });
    assert_eq!(report.stdout.bytes.len(), 64 << 10);
    let tail = report.stdout.tail();
    assert_eq!(tail.len(), 4096);
    assert!(tail.ends_with(b"xxxthe end"));
    assert_eq!(report.stderr.tail(), b"no\n");
}

fn left_behind(bed: &mut Bed) {
    let report = bed.run(&Run::shell("sleep 1000 & exit 3"));
    let found = autopsy(&report);
    let names: Vec<&str> = found
        .processes
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["sleep"], "{found:?}");
    let alone = bed.run(&Run::shell("exit 3"));
    assert_eq!(autopsy(&alone).processes, []);
}

fn counters(bed: &mut Bed) {
    let mut run = Run::python("while True: pass\n");
    run.limits.cpu_ms = 300;
    let report = bed.run(&run);
    let found = autopsy(&report);
    assert_eq!(found.ended_by, Some(EndedBy::Cpu));
    assert!(found.cpu_us >= 300_000, "{found:?}");
    assert!(found.cpu_us <= report.measured.cpu_us, "{report:?}");
    let burner = &found.processes[0];
    assert_eq!(burner.name, "python3", "{found:?}");
    // In ticks, and not all of the group's time is its own.
    assert!(burner.cpu_us > 100_000, "{found:?}");
    assert!(burner.cpu_us <= found.cpu_us + 20_000, "{found:?}");

    let code = "\
import os, time
while True:
    if os.fork() == 0: time.sleep(1000)
";
    let mut run = Run::python(code);
    run.limits.pids = 6;
    let report = bed.run(&run);
    assert_eq!(report.outcome, Outcome::ProcessLimit);
    assert!(autopsy(&report).pids_refused > 0, "{report:?}");

    let code = "for n in range(20000): open(str(n), 'w').close()";
    let mut run = Run::python(code);
    (run.limits.wall_ms, run.limits.cpu_ms) = (100_000, 100_000);
    let report = bed.run(&run);
    assert_eq!(report.outcome, Outcome::DiskFull);
    let free = autopsy(&report).disk_free.unwrap();
    assert_eq!(free.inodes, 0, "{free:?}");
    assert!(free.bytes > 32 << 20 && free.bytes <= 65 << 20, "{free:?}");
}
