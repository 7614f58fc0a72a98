//! Python that waits in a sandbox made ahead: a program cannot tell, but by the time it takes.

use runtime::{File, Limits, Outcome, Report};

use crate::Test;
use crate::bed::{Bed, Run, limits, text};
use crate::warm::{FOREVER_MS, pooled};

pub(crate) const TESTS: &[Test] = &[
    ("a_program_runs_as_it_would_in_a_fresh_interpreter", same),
    ("interpreters_that_wait_share_no_randomness", randomness),
    (
        "an_interpreter_that_waits_is_held_to_the_claims_limits",
        held,
    ),
    ("what_ran_before_go_is_nobodys", warming),
];

/// What programs do at their start and at their end, each with what it shows.
pub(crate) fn programs() -> Vec<&'static str> {
    include_str!("programs.txt").split("\n----\n").collect()
}

/// The execution with everything that a program may look at.
pub(crate) fn program(code: &str) -> Run {
    let file = |path: &str, content: &str| File {
        path: path.to_owned(),
        content: content.as_bytes().to_vec(),
        mode: 0o644,
    };
    let mut run = Run::python(code);
    run.argv.extend(["an argument", ""].map(str::to_owned));
    run.env = vec![
        ("ONE".to_owned(), "1".to_owned()),
        ("TZ".to_owned(), "XYZ-3".to_owned()),
    ];
    run.stdin = b"first\nsecond\n".to_vec();
    run.files.push(file("helper.py", "NAME = 'helper'"));
    if code.contains("json.NAME") {
        run.files.push(file("json.py", "NAME = 'the own one'"));
    }
    run
}

pub(crate) fn shown(report: &Report) -> (Outcome, String, String) {
    let outcome = report.outcome.clone();
    (outcome, text(&report.stdout), text(&report.stderr))
}

/// Whether every interpreter that waits has loaded the module of that name, a shared object.
fn loaded(launcher: i32, module: &str) -> bool {
    // An earlier one may be ending.
    let children = |pid: &String| -> Vec<String> {
        let found = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let found = found.unwrap_or_default();
        found.split_whitespace().map(str::to_owned).collect()
    };
    let shims = children(&launcher.to_string());
    let inits = shims.iter().flat_map(children);
    let waiting: Vec<_> = inits.flat_map(|init| children(&init)).collect();
    let has = |pid: &String| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
        maps.is_ok_and(|maps| maps.contains(&format!("/{module}.")))
    };
    waiting.len() == 2 && waiting.iter().all(has)
}

/// At once when they are ready, and when they have stood for a while: while they load more, or when
/// the last is loaded.
fn same(bed: &mut Bed) {
    let programs = programs();
    let fresh = |code: &&'static str| (*code, shown(&bed.run(&program(code))));
    let known: Vec<_> = programs.iter().map(fresh).collect();
    bed.python_waits(false);
    pooled(bed, 2, FOREVER_MS);
    let mut others = Vec::new();
    let modules = ["_json", "resource"].into_iter().cycle();
    for (two, module) in known.chunks(2).zip(modules) {
        for has_stood in [false, true] {
            let is_so =
                !has_stood || bed.until_ready(2) && bed.until(|_| loaded(bed.launcher, module));
            assert!(is_so, "{module} is not loaded");
            for (code, fresh) in two {
                assert!(has_stood || bed.until_ready(2));
                let warm = shown(&bed.run(&program(code)));
                if warm != *fresh {
                    others.push((code, has_stood, fresh, warm));
                }
            }
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

fn randomness(bed: &mut Bed) {
    bed.python_waits(false);
    pooled(bed, 2, FOREVER_MS);
    let code = "import random, uuid
print(random.random(), hash('a'), uuid.uuid4(), id(object()))";
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        assert!(bed.until_ready(2));
        let report = bed.run(&Run::python(code));
        for word in text(&report.stdout).split_whitespace() {
            assert!(seen.insert(word.to_owned()), "{word} came twice");
        }
    }
    assert_eq!(seen.len(), 12);
}

fn held(bed: &mut Bed) {
    bed.python_waits(false);
    pooled(bed, 2, FOREVER_MS);
    let usual = limits();
    let eat = "kept = []\nfor _ in range(300): kept.append(bytearray(1 << 20))\nprint('all')";
    for (limits, code, outcome) in [
        (
            Limits {
                memory_bytes: 64 << 20,
                ..usual
            },
            eat,
            Outcome::OutOfMemory,
        ),
        (
            Limits {
                memory_bytes: 400 << 20,
                ..usual
            },
            eat,
            Outcome::Exited { code: 0 },
        ),
        (
            Limits {
                wall_ms: 300,
                ..usual
            },
            "import time; time.sleep(60)",
            Outcome::TimedOut {
                clock: runtime::Clock::Wall,
            },
        ),
        (
            Limits {
                cpu_ms: 100,
                ..usual
            },
            "while True: pass",
            Outcome::TimedOut {
                clock: runtime::Clock::Cpu,
            },
        ),
    ] {
        assert!(bed.until_ready(2));
        let run = Run {
            limits,
            ..Run::python(code)
        };
        let report = bed.run(&run);
        assert_eq!(report.outcome, outcome, "{report:?}");
    }
}

/// Starting an interpreter takes far more than a program that does nothing.
fn warming(bed: &mut Bed) {
    let fresh = bed.run(&Run::python("pass")).measured.cpu_us;
    bed.python_waits(false);
    pooled(bed, 2, FOREVER_MS);
    let warm = bed.run(&Run::python("pass")).measured.cpu_us;
    assert!(warm * 2 < fresh, "{warm} us after {fresh} us");
}
