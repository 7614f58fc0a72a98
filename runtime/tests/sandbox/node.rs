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
const PROGRAMS: &[&str] = &[
    "console.log(Object.getOwnPropertyNames(globalThis).sort().join(), typeof fs, typeof module);
console.log(process.argv, process.execArgv, process.argv0, process.title, process.exitCode);
console.log(require.main === module, module.id, module.parent, module.paths, module.children);
console.log(Object.keys(process).join(), Object.keys(require.cache), process.mainModule === module);
console.log(__filename, __dirname, this === module.exports, process.cwd(), process.env);",
    "console.log(process.eventNames(), process.listenerCount('exit'), process._eval);
console.log(process._getActiveHandles().length, process.getActiveResourcesInfo());
console.log(process.stdin.constructor.name, process.stdout._type, process.stdout.isTTY);
console.log(require('fs').readdirSync('.'), new Date(0).getHours(), module.loaded);
process.stdout.write('no newline'); console.error('and an error');",
    "process.stdin.on('data', (some) => console.log('got', String(some))).on('end', () => console.log('end'));",
    "console.log(require('fs').readFileSync(0, 'utf8'), require('fs').readFileSync('/dev/stdin', 'utf8'));",
    "console.log(require('./helper').NAME); import('./helper.js').then((one) => console.log(one.default));",
    "function fails() { throw new TypeError('bad'); }\nfails();",
    "(async () => { await null; throw new Error('later'); })();",
    "process.on('uncaughtException', (one) => console.log('caught', one.message)); throw new Error('x');",
    "process.on('exit', (code) => console.log('bye', code)); process.exitCode = 3; setTimeout(() => console.log('after'), 5);",
    "process.on('exit', () => process.reallyExit(7)); process.exit(4);",
    "let a = ;",
    "#!/usr/bin/env node\nconsole.log('a line for the shell');",
    "process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 5000);",
    "process.on('SIGTERM', () => { console.log('told'); process.exit(5); });
setTimeout(() => {}, 5000); process.kill(process.pid, 'SIGTERM');",
    "const { Worker, isMainThread, parentPort } = require('worker_threads');
if (isMainThread) new Worker(__filename).on('message', (one) => console.log(one)).on('exit', (code) => console.log('exit', code));
else parentPort.postMessage([process.argv.slice(1), process.execArgv, typeof fs]);",
    "const { fork } = require('child_process');
if (process.argv[2] === 'child') { process.send([process.execArgv, process.env.ONE]); process.disconnect(); }
else fork(__filename, ['child']).on('message', (one) => console.log(one)).on('exit', (code) => console.log(code));",
    "try { require('./nothing'); } catch (error) { console.log(error.code, error.requireStack, error.message); }
require('vm').runInThisContext('throw new RangeError(1)');",
    "setTimeout(() => console.log('timer'), 1); Promise.resolve().then(() => console.log('promise'));
process.nextTick(() => console.log('tick')); console.log('main');",
    "// An ES module.\nimport fs from 'fs'; console.log(import.meta.url, process.argv, typeof require, typeof fs.readFileSync);
await 1; console.log(this === undefined);",
];

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
    let known: Vec<_> = PROGRAMS.iter().map(fresh).collect();
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
    let mut limits_seen = |bed: &mut Bed| {
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
