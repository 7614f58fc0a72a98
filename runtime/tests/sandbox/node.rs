//! Node that waits in a sandbox made ahead: a program cannot tell, but by the time it takes and by
//! the last lines of a trace.

use runtime::{File, Interpreter};
use tokio::sync::oneshot;

use crate::Test;
use crate::bed::{Bed, Run, images, limits};
use crate::interpreter::shown;
use crate::warm::{FOREVER_MS, pooled};

pub(crate) const TESTS: &[Test] = &[
    ("a_program_runs_as_it_would_in_a_fresh_node", same),
    ("node_that_waits_has_the_heap_of_its_own_limit", heap),
];

/// So many that two of Node may stand ready.
const POOL: usize = 32;

/// What programs do at their start and at their end, each with what it shows.
fn programs() -> Vec<&'static str> {
    include_str!("node_programs.txt")
        .split("\n----\n")
        .collect()
}

fn node(code: &str) -> Run {
    let file = |path: &str, content: &str| File {
        path: path.to_owned(),
        content: content.as_bytes().to_vec(),
        mode: 0o644,
    };
    let mut run = Run::command(&["node", "main.js", "an argument", ""]);
    run.env = vec![
        ("ONE".to_owned(), "1".to_owned()),
        ("TZ".to_owned(), "XYZ-3".to_owned()),
    ];
    run.stdin = b"first\nsecond\n".to_vec();
    run.files = vec![
        file("main.js", code),
        file("helper.js", "exports.NAME = 'helper';"),
    ];
    if code.contains("ES module") {
        run.files
            .push(file("package.json", "{\"type\": \"module\"}"));
    }
    run
}

/// Without the lines of a trace that tell what has called the program.
fn comparable(
    (outcome, stdout, stderr): (runtime::Outcome, String, String),
) -> (runtime::Outcome, String, String) {
    let tells = [
        "executeUserEntryPoint",
        "run_main_module",
        "processImmediate",
    ];
    let lines = stderr.lines();
    let kept: Vec<&str> = lines
        .filter(|line| !tells.iter().any(|word| line.contains(word)))
        .collect();
    (outcome, stdout, kept.join("\n"))
}

fn same(bed: &mut Bed) {
    *bed = Bed::on(images(), "node");
    let fresh = |code: &&'static str| (*code, comparable(shown(&bed.run(&node(code)))));
    let programs = programs();
    let known: Vec<_> = programs.iter().map(fresh).collect();
    waits(bed);
    let mut others = Vec::new();
    for (code, fresh) in &known {
        assert!(bed.until_ready(2));
        let sandbox = bed.open(limits());
        assert!(sandbox.is_warm());
        let (_keep, cancel) = oneshot::channel();
        let warm = bed.run_in(sandbox, &node(code), (None, cancel));
        let warm = comparable(shown(&warm));
        if warm != *fresh {
            others.push((code, fresh, warm));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

/// A runtime of whose sandboxes two stand ready, with Node waiting in them.
fn waits(bed: &mut Bed) {
    let env = bed.env();
    bed.interpreter = Some(Interpreter::Node { env });
    pooled(bed, POOL, FOREVER_MS);
}

fn heap(bed: &mut Bed) {
    *bed = Bed::on(images(), "node");
    let limits_seen = |bed: &mut Bed| {
        [256, 3072].map(|mib| {
            let code = "console.log(require('v8').getHeapStatistics().heap_size_limit)";
            let mut run = node(code);
            run.limits.memory_bytes = mib << 20;
            shown(&bed.run(&run))
        })
    };
    let fresh = limits_seen(bed);
    assert_ne!(fresh[0], fresh[1]);
    waits(bed);
    assert_eq!(limits_seen(bed), fresh);
}
