//! Sandboxes made ahead: claimed once, held to what was asked for, out of nobody's way.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::{Limits, Outcome, PoolOptions, Report};

use crate::Test;
use crate::bed::{Bed, Run, children, limits, text};

pub(crate) const TESTS: &[Test] = &[
    ("a_sandbox_made_ahead_is_claimed_once", claimed_once),
    ("a_claim_brings_its_own_limits", own_limits),
    (
        "what_stands_ready_gives_way_to_what_is_asked_for",
        gives_way,
    ),
    ("a_dead_sandbox_is_claimed_by_nobody", dead),
    ("an_old_sandbox_is_replaced", old),
    ("nothing_stands_ready_while_memory_is_short", short),
];

pub(crate) const FOREVER_MS: u64 = 3_600_000;

/// A runtime that makes at most `max` ahead, of which as many stand ready as one request calls for.
pub(crate) fn pooled(bed: &mut Bed, max: usize, age_ms: u64) {
    bed.block_on(bed.runtime.drain());
    bed.restart_with(PoolOptions {
        max,
        age_ms,
        ..PoolOptions::default()
    });
    let first = bed.open(limits());
    assert!(!first.is_warm(), "nobody had asked before");
    bed.block_on(first.discard());
    let launcher = bed.launcher;
    let alone = |count| children(launcher).len() == count;
    // The first one's shim has something left to do.
    let is_so = bed.until(|runtime| runtime.ready() == max.min(2) && alone(max.min(2)));
    assert!(is_so, "{} are ready", bed.runtime.ready());
}

fn claimed_once(bed: &mut Bed) {
    pooled(bed, 2, FOREVER_MS);
    let [one, other] = [bed.open(limits()), bed.open(limits())];
    assert!(one.is_warm() && other.is_warm());
    assert_ne!(one.id(), other.id());
    let (one, other) = (one.id(), other.id());
    assert!(bed.until_ready(2), "they are replaced");
    let third = bed.open(limits());
    assert!(third.is_warm() && third.id() != one && third.id() != other);
    bed.block_on(third.discard());
    let marker = Run::shell("test ! -e /tmp/marker && touch /tmp/marker && ls /workspace");
    for _ in 0..3 {
        assert!(bed.until_ready(2));
        let report = bed.run(&marker);
        assert_eq!(report.outcome, Outcome::Exited { code: 0 }, "{report:?}");
        assert_eq!(text(&report.stdout), "");
    }
}

/// Runs it in a sandbox that was made ahead with the usual limits.
fn warm(bed: &mut Bed, limits: Limits, code: &str) -> Report {
    assert!(bed.until_ready(2));
    let run = Run {
        limits,
        ..Run::python(code)
    };
    bed.run(&run)
}

fn own_limits(bed: &mut Bed) {
    pooled(bed, 2, FOREVER_MS);
    let usual = limits();
    for memory_bytes in [64 << 20, 400 << 20] {
        let told = "import os; print(open('/proc/meminfo').readline().split()[1], os.cpu_count())";
        let report = warm(
            bed,
            Limits {
                memory_bytes,
                ..usual
            },
            told,
        );
        let expected = format!("{} 1\n", memory_bytes >> 10);
        assert_eq!(text(&report.stdout), expected, "{report:?}");
    }
    let eat = "kept = []\nfor _ in range(300): kept.append(bytearray(1 << 20))\nprint('all')";
    let report = warm(
        bed,
        Limits {
            memory_bytes: 64 << 20,
            ..usual
        },
        eat,
    );
    assert_eq!(
        report.outcome,
        Outcome::OutOfMemory,
        "less than it was made with"
    );
    let report = warm(
        bed,
        Limits {
            memory_bytes: 400 << 20,
            ..usual
        },
        eat,
    );
    assert_eq!(text(&report.stdout), "all\n", "more than it was made with");
    let fork = "import os, signal
for _ in range(20):
    if os.fork() == 0: signal.pause()";
    let report = warm(bed, Limits { pids: 8, ..usual }, fork);
    assert_eq!(report.outcome, Outcome::ProcessLimit, "{report:?}");
    let files = "import os, resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))";
    let report = warm(
        bed,
        Limits {
            open_files: 77,
            ..usual
        },
        files,
    );
    assert_eq!(text(&report.stdout), "(77, 77)\n");
    // Its own CPU time begins before it was claimed.
    let share = "import time
t, used = time.time(), time.process_time()
while time.process_time() - used < 0.1: pass
print(time.time() - t > 0.3)";
    let report = warm(
        bed,
        Limits {
            cpu_millis: 200,
            ..usual
        },
        share,
    );
    assert_eq!(text(&report.stdout), "True\n", "{report:?}");
}

/// The bed has four slots.
fn gives_way(bed: &mut Bed) {
    pooled(bed, 2, FOREVER_MS);
    let others = Limits {
        cpu_millis: 2_000,
        ..limits()
    };
    let live: Vec<_> = (0..4).map(|_| bed.open(others)).collect();
    assert_eq!(bed.runtime.ready(), 0);
    for sandbox in live {
        bed.block_on(sandbox.discard());
    }
}

fn dead(bed: &mut Bed) {
    pooled(bed, 2, FOREVER_MS);
    let shims = children(bed.launcher);
    for shim in &shims {
        kill(Pid::from_raw(*shim), Signal::SIGKILL).unwrap();
    }
    let launcher = bed.launcher;
    assert!(bed.until(|_| children(launcher).iter().all(|shim| !shims.contains(shim))));
    let report = bed.run(&Run::shell("echo runs"));
    assert_eq!(text(&report.stdout), "runs\n", "{report:?}");
}

fn old(bed: &mut Bed) {
    pooled(bed, 2, 1);
    let before = children(bed.launcher);
    let replaced = bed.until(|_| {
        let now = children(bed.launcher);
        before.iter().all(|shim| !now.contains(shim))
    });
    assert!(replaced);
}

fn short(bed: &mut Bed) {
    pooled(bed, 2, FOREVER_MS);
    bed.block_on(bed.runtime.drain());
    bed.restart_with(PoolOptions {
        max: 2,
        age_ms: FOREVER_MS,
        free_memory_bytes: u64::MAX,
        ..PoolOptions::default()
    });
    // Longer each than it takes to look for what is wanted.
    for _ in 0..3 {
        let sandbox = bed.open(limits());
        assert!(!sandbox.is_warm());
        bed.block_on(sandbox.discard());
        let report = bed.run(&Run::shell("sleep 0.7"));
        assert_eq!(report.outcome, Outcome::Exited { code: 0 }, "{report:?}");
        assert_eq!(bed.runtime.ready(), 0);
    }
}
