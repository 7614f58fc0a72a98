//! Hostile programs that need more than a table: exact bytes, two sandboxes at once, figures.

use runtime::{File, Outcome, Stream};
use tokio::sync::oneshot;

use super::{init, kept, order, seen, verdict};
use crate::bed::{Bed, Language, Order};
use crate::harness::Test;
use crate::world::say;

pub(super) type Case = (&'static str, fn(&Bed));

const CASES: [Case; 16] = [
    ("looking_sees_a_live_sandbox", looking_sees_a_live_sandbox),
    (
        "a_second_sandbox_finds_no_leftovers",
        a_second_sandbox_finds_no_leftovers,
    ),
    ("ranges_of_ids_do_not_meet", ranges_of_ids_do_not_meet),
    (
        "binary_output_arrives_byte_for_byte",
        binary_output_arrives_byte_for_byte,
    ),
    (
        "one_huge_line_is_cut_and_counted",
        one_huge_line_is_cut_and_counted,
    ),
    (
        "too_much_output_ends_the_run_if_asked",
        too_much_output_ends_the_run_if_asked,
    ),
    ("cancel_ends_what_ignores_it", cancel_ends_what_ignores_it),
    (
        "cpu_beyond_its_limit_stays_small",
        cpu_beyond_its_limit_stays_small,
    ),
    (
        "cpu_share_holds_for_all_processes_together",
        cpu_share_holds_for_all_processes_together,
    ),
    (
        "programs_count_the_cpus_of_their_share",
        programs_count_the_cpus_of_their_share,
    ),
    ("sandboxes_have_cpus_apart", sandboxes_have_cpus_apart),
    (
        "taking_more_cpus_brings_no_larger_share",
        taking_more_cpus_brings_no_larger_share,
    ),
    ("unread_input_holds_nobody_up", unread_input_holds_nobody_up),
    (
        "the_environment_is_what_was_given",
        the_environment_is_what_was_given,
    ),
    (
        "paths_out_of_the_workspace_are_refused",
        paths_out_of_the_workspace_are_refused,
    ),
    (
        "a_neighbour_under_bombs_is_served_right",
        a_neighbour_under_bombs_is_served_right,
    ),
];

pub(super) fn tests() -> Vec<Test> {
    let test = |name: &str, run: Box<dyn Fn()>| Test {
        name: format!("hostile::{name}"),
        run,
    };
    let mut tests = vec![test("the_judge_objects", Box::new(verdict::objects))];
    for (name, case) in CASES.into_iter().chain(kept::CASES) {
        let run = Box::new(move || {
            let Some(bed) = Bed::enter(name) else { return };
            let before = bed.baseline(&python(""));
            case(&bed);
            let (left, _) = bed.left_since(&before);
            assert!(
                left.is_none(),
                "left behind: before {before:#?}, now {left:#?}"
            );
        });
        tests.push(test(name, run));
    }
    tests
}

fn python(code: &str) -> Order {
    order(Language::Python, code, |_| {})
}

/// Everything that is looked for after a run is found while it runs: so its absence means
/// something.
fn looking_sees_a_live_sandbox(bed: &Bed) {
    let before = bed.look();
    let sleeper = python("time.sleep(1000)");
    let sandbox = bed.open(&sleeper);
    let during = bed.look();
    bed.executor.block_on(sandbox.discard());
    assert!(
        before.processes.is_empty() && !during.processes.is_empty(),
        "{during:?}"
    );
    assert!(
        before.groups.is_empty() && !during.groups.is_empty(),
        "{during:?}"
    );
    assert!(
        before.shims.is_empty() && !during.shims.is_empty(),
        "{during:?}"
    );
    assert!(
        before.loops.is_empty() && during.loops.len() == 1,
        "{during:?}"
    );
    assert!(during.own_files > before.own_files, "{during:?}");
}

fn a_second_sandbox_finds_no_leftovers(bed: &Bed) {
    let program = init::PROGRAMS
        .iter()
        .find(|one| one.name == "leftovers_of_ipc")
        .unwrap();
    let order = order(program.language, program.code, program.limits);
    let first = bed.open(&order);
    let second = bed.open(&order);
    for sandbox in [first, second] {
        let (_keep, cancel) = oneshot::channel();
        let ran = bed.finish(&order, sandbox, None, cancel);
        let faults = verdict::faults_of(program.ends, program.prints, &seen(&ran));
        assert!(faults.is_empty(), "{faults:?}");
    }
}

fn ranges_of_ids_do_not_meet(bed: &Bed) {
    let order = python("print(open('/proc/self/uid_map').read().split()[1])");
    let sandboxes = [bed.open(&order), bed.open(&order), bed.open(&order)];
    let firsts = sandboxes.map(|sandbox| {
        let (_keep, cancel) = oneshot::channel();
        seen(&bed.finish(&order, sandbox, None, cancel))
            .1
            .trim()
            .parse::<u32>()
            .unwrap()
    });
    for (at, first) in firsts.iter().enumerate() {
        let others = firsts.iter().skip(at + 1);
        assert!(
            others.clone().all(|other| first.abs_diff(*other) >= 65_536),
            "{firsts:?}"
        );
        assert!(*first >= 1 << 28, "{firsts:?}");
    }
}

fn binary_output_arrives_byte_for_byte(bed: &Bed) {
    let every: Vec<u8> = (0..=255).collect();
    let ran = bed.run(&python(
        "os.write(1, bytes(range(256)) * 100)\nos.write(2, b'\\xff\\0\\x1b[2J')",
    ));
    assert_eq!(ran.report.outcome, Outcome::Exited { code: 0 });
    assert_eq!(ran.report.stdout.bytes, every.repeat(100));
    assert_eq!(ran.report.stderr.bytes, b"\xff\0\x1b[2J");
    assert!(!ran.report.stdout.truncated);
}

fn one_huge_line_is_cut_and_counted(bed: &Bed) {
    let order = order(
        Language::Python,
        "os.write(1, b'x' * (32 << 20))",
        |limits| {
            limits.output_bytes = 1000;
        },
    );
    let ran = bed.run(&order);
    assert_eq!(ran.report.outcome, Outcome::Exited { code: 0 });
    assert_eq!(ran.report.stdout.bytes, b"x".repeat(1000));
    assert_eq!(ran.report.stdout.total, 32 << 20);
    assert!(ran.report.stdout.truncated);
    let order = python("os.write(1, b'x' * 1000)");
    assert!(!bed.run(&order).report.stdout.truncated);
}

fn too_much_output_ends_the_run_if_asked(bed: &Bed) {
    let code = "while True: os.write(1, b'\\0' * 65536)";
    let mut flood = order(Language::Python, code, |limits| limits.output_bytes = 1000);
    flood.kill_on_output_limit = true;
    let ran = bed.run(&flood);
    assert_eq!(ran.report.outcome, Outcome::OutputLimit);
    assert_eq!(ran.report.stdout.bytes.len(), 1000);
    let mut exact = order(Language::Python, "os.write(1, b'\\0' * 1000)", |limits| {
        limits.output_bytes = 1000;
    });
    exact.kill_on_output_limit = true;
    assert_eq!(bed.run(&exact).report.outcome, Outcome::Exited { code: 0 });
}

fn cancel_ends_what_ignores_it(bed: &Bed) {
    let code = "for number in set(range(1, 65)) - {9, 19, 32, 33}:\n    \
                signal.signal(number, signal.SIG_IGN)\n\
                os.fork()\nos.write(1, b'up')\nwhile True: time.sleep(1000)";
    let order = order(Language::Python, code, |limits| limits.wall_ms = 60_000);
    let sandbox = bed.open(&order);
    let (cancel, cancelled) = oneshot::channel();
    let mut cancel = Some(cancel);
    // Cancelled once it is known to run.
    let sink = Box::new(move |stream, _: &[u8]| {
        if stream == Stream::Stdout
            && let Some(cancel) = cancel.take()
        {
            cancel.send(()).unwrap();
        }
    });
    let ran = bed.finish(&order, sandbox, Some(sink), cancelled);
    assert_eq!(ran.report.outcome, Outcome::Cancelled);
    assert!(ran.took.as_millis() < 30_000, "{:?}", ran.took);
    say(&format!("cancelled after {:?}", ran.took));
}

fn cpu_beyond_its_limit_stays_small(bed: &Bed) {
    let code = "for _ in range(3):\n    if os.fork() == 0: break\nwhile True: pass";
    let order = order(Language::Python, code, |limits| {
        limits.cpu_ms = 500;
        limits.cpu_millis = 2000;
    });
    let ran = bed.run(&order);
    let used_ms = ran.report.measured.cpu_us / 1000;
    say(&format!("cpu limit 500 ms: used {used_ms} ms"));
    assert_eq!(seen(&ran).0, "timed_out cpu");
    assert!((500..750).contains(&used_ms), "{used_ms} ms of 500");
}

fn cpu_share_holds_for_all_processes_together(bed: &Bed) {
    let code = "for _ in range(3):\n    if os.fork() == 0: break\nwhile True: pass";
    let order = order(Language::Python, code, |limits| {
        limits.wall_ms = 3_000;
        limits.cpu_millis = 200;
    });
    let measured = bed.run(&order).report.measured;
    let percent = measured.cpu_us * 100 / measured.wall_us;
    say(&format!("share of 20 percent: used {percent} percent"));
    assert!(percent <= 30, "{percent} percent of a CPU, 20 are allowed");
    assert!(measured.throttled_us > 0);
}

/// CPUs that this process may run on: no sandbox has more.
fn cpus_here() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed:"));
    let digits = mask.unwrap().chars().filter_map(|digit| digit.to_digit(16));
    digits.map(u32::count_ones).sum()
}

fn programs_count_the_cpus_of_their_share(bed: &Bed) {
    let code = "tell('cpus', f'{os.cpu_count()} {len(os.sched_getaffinity(0))}')";
    for (cpu_millis, rounded_up) in [(500, 1), (1000, 1), (1001, 2), (1500, 2), (4000, 4)] {
        let order = order(Language::Python, code, |limits| {
            limits.cpu_millis = cpu_millis
        });
        let cpus = cpus_here().min(rounded_up);
        let expected = format!("cpus {cpus} {cpus}\n");
        assert_eq!(seen(&bed.run(&order)).1, expected, "{cpu_millis}");
    }
}

/// As long as there is a CPU for each, and afterwards again.
fn sandboxes_have_cpus_apart(bed: &Bed) {
    let order = python("print(min(os.sched_getaffinity(0)))");
    for _ in 0..3 {
        let open: Vec<_> = (0..cpus_here().min(4)).map(|_| bed.open(&order)).collect();
        let count = open.len();
        let cpus = open.into_iter().map(|sandbox| {
            let (_keep, cancel) = oneshot::channel();
            seen(&bed.finish(&order, sandbox, None, cancel)).1
        });
        let apart: std::collections::BTreeSet<String> = cpus.collect();
        assert_eq!(apart.len(), count, "{apart:?}");
    }
}

fn taking_more_cpus_brings_no_larger_share(bed: &Bed) {
    // All four burn as much, however long it takes them.
    let code = "os.sched_setaffinity(0, range(1024))\n\
                children = 0\n\
                for _ in range(3):\n    \
                    if os.fork() == 0:\n        children = 0\n        break\n    \
                    children += 1\n\
                tell('cpus', len(os.sched_getaffinity(0)))\n\
                used = time.process_time()\n\
                while time.process_time() - used < 0.1: pass\n\
                for _ in range(children): os.wait()";
    let order = order(Language::Python, code, |limits| {
        limits.wall_ms = 60_000;
        // So little that a busy machine has it to give as well.
        limits.cpu_millis = 100;
    });
    let ran = bed.run(&order);
    let measured = &ran.report.measured;
    let percent = measured.cpu_us * 100 / measured.wall_us;
    say(&format!("share of 10 percent: used {percent} percent"));
    assert!(percent <= 20, "{percent} percent of a CPU, 10 are allowed");
    // The control: it did get them, and would have used them.
    let wide = format!("cpus {}\n", cpus_here());
    assert!(seen(&ran).1.contains(&wide), "{:?}", seen(&ran));
    assert!(measured.throttled_us > 0 || cpus_here() == 1);
}

fn unread_input_holds_nobody_up(bed: &Bed) {
    for code in [
        "os._exit(5)",
        "os.close(0); os._exit(5)",
        "os.read(0, 10); os._exit(5)",
    ] {
        let mut order = python(code);
        order.stdin = vec![b'x'; 8 << 20];
        assert_eq!(
            bed.run(&order).report.outcome,
            Outcome::Exited { code: 5 },
            "{code}"
        );
    }
    let mut order = python("tell('read', len(sys.stdin.buffer.read()))");
    order.stdin = vec![b'x'; 8 << 20];
    assert_eq!(seen(&bed.run(&order)).1, "read 8388608\n");
}

fn the_environment_is_what_was_given(bed: &Bed) {
    let mut order = order(Language::Shell, "", |_| {});
    order.argv = Some(vec!["/usr/bin/env".to_owned()]);
    order.env = vec![("A".to_owned(), "b=c\nd".to_owned())];
    let given: Vec<_> = bed.process(&order).env;
    let text = seen(&bed.run(&order)).1;
    let mut expected: Vec<String> = given
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut found: Vec<String> = text
        .replace("\nd\n", "\u{1}d\n")
        .lines()
        .map(str::to_owned)
        .collect();
    for line in &mut found {
        *line = line.replace('\u{1}', "\n");
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

fn paths_out_of_the_workspace_are_refused(bed: &Bed) {
    let long = "x".repeat(300);
    let deep = "d/".repeat(600) + "x";
    let bad = [
        "../x",
        "a/../../x",
        "/etc/x",
        "",
        ".",
        "a//b",
        "a\0b",
        "a/./b",
        &long,
        &deep,
    ];
    for path in bad {
        let mut sandbox = bed.open(&python(""));
        let file = File {
            path: path.to_owned(),
            content: b"x".to_vec(),
            mode: 0o644,
        };
        let put = bed.executor.block_on(sandbox.put(&[file]));
        assert!(put.is_err(), "{path:?} was laid");
        bed.executor.block_on(sandbox.discard());
    }
    let order = python("print(open('a/b/c').read(), oct(os.stat('a/b/c').st_mode & 0o7777))");
    let mut sandbox = bed.open(&order);
    let file = File {
        path: "a/b/c".to_owned(),
        content: b"x".to_vec(),
        mode: 0o600,
    };
    bed.executor.block_on(sandbox.put(&[file])).unwrap();
    let (_keep, cancel) = oneshot::channel();
    assert_eq!(
        seen(&bed.finish(&order, sandbox, None, cancel)).1,
        "x 0o600\n"
    );
}

/// Right, not fast: how much slower a neighbour becomes is a benchmark's question.
fn a_neighbour_under_bombs_is_served_right(bed: &Bed) {
    let bombs = [
        "while True:\n    try: os.fork()\n    except OSError: pass",
        "kept = []\nwhile True:\n    try: kept.append(b'x' * (1 << 20))\n    except \
            MemoryError: pass",
        "while True: os.write(1, b'x' * 65536)",
        "n = 0\nwhile True:\n    open(f'/workspace/{n}', 'w').write('x' * 4096); n += 1",
    ];
    for code in bombs {
        let bomb = order(Language::Python, code, |limits| {
            limits.wall_ms = 3_000;
            limits.memory_bytes = 64 << 20;
        });
        let sandbox = bed.open(&bomb);
        let (process, id) = (bed.process(&bomb), sandbox.id());
        let (_keep, cancel) = oneshot::channel();
        let running = bed.executor.spawn(sandbox.run(process, None, cancel));
        let mut served = Vec::new();
        while !running.is_finished() || served.is_empty() {
            let ran = bed.run(&python("print(6 * 7)"));
            assert_eq!(
                seen(&ran),
                ("exited 0".to_owned(), "42\n".to_owned()),
                "under {code}"
            );
            served.push(ran.took.as_millis());
        }
        let report = bed.executor.block_on(running).unwrap();
        bed.runtime.forget(id);
        assert_ne!(report.outcome, Outcome::Exited { code: 0 }, "{code}");
        say(&format!(
            "beside {:?}, ms for each run: {served:?}",
            report.outcome
        ));
    }
}
