//! Programs that will not end, or that leave something behind when they do.

use super::{Language, PLAIN, Program, tame};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "ignoring_every_signal",
        threat: "a polite end is refused",
        code: r#"
            for number in set(range(1, 65)) - {9, 19, 32, 33}:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            while True: time.sleep(1000)
        "#,
        limits: |limits| limits.wall_ms = 1_000,
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGTERM)
            tell("alive", 1)
            "#,
            "alive 1",
        ),
        ..PLAIN
    },
    Program {
        name: "daemon",
        threat: "setsid and a double fork leave the run's process group, and live on",
        code: r#"
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.chdir("/")
                    for number in 0, 1, 2: os.close(number)
                    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
                    while True: time.sleep(1000)
                os._exit(0)
            os.wait()
            tell("main", "ends")
        "#,
        prints: "main ends",
        within: 50,
        control: tame(r#"tell("main", "ends alone")"#, "main ends alone"),
        ..PLAIN
    },
    Program {
        name: "child_holds_the_output",
        threat: "the run waits for an end of file that never comes",
        language: Language::Shell,
        code: "sleep 1000 &\necho main ends\n",
        prints: "main ends",
        within: 50,
        control: super::Control::Inside {
            code: "sleep 0.01 &\nwait\necho main waits\n",
            limits: |_| {},
            ends: "exited 0",
            prints: "main waits",
        },
        ..PLAIN
    },
    Program {
        name: "output_closed_early",
        threat: "the end of the output is taken for the end of the run",
        code: r#"
            os.close(1)
            os.close(2)
            os.close(0)
            time.sleep(0.5)
            os._exit(7)
        "#,
        ends: "exited 7",
        control: tame("time.sleep(0.01)", ""),
        ..PLAIN
    },
    Program {
        name: "output_closed_and_never_ending",
        threat: "the same, and then no end at all",
        code: r#"
            for number in 0, 1, 2: os.close(number)
            while True: time.sleep(1000)
        "#,
        limits: |limits| limits.wall_ms = 1_000,
        ends: "timed_out wall",
        within: 250,
        control: tame("os.close(0)", ""),
        ..PLAIN
    },
    Program {
        name: "stopped",
        threat: "a stopped process neither ends nor runs; its children are stopped too",
        code: r#"
            for _ in range(8):
                if os.fork() == 0:
                    os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.1)
            os.kill(-1, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
        "#,
        limits: |limits| limits.wall_ms = 1_000,
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                os._exit(0)
            os.waitpid(pid, os.WUNTRACED)
            os.kill(pid, signal.SIGCONT)
            tell("ended", os.waitpid(pid, 0)[1])
            "#,
            "ended 0",
        ),
        ..PLAIN
    },
    Program {
        name: "waiting_for_a_vfork",
        threat: "a parent in vfork waits where signals do not reach it",
        code: r#"
            vfork = 0x4000 | signal.SIGCHLD
            pid = libc.syscall(NUMBERS["clone"][ARM], vfork, 0, 0, 0, 0)
            while pid == 0: time.sleep(1000)
            tell("returned", pid > 0)
        "#,
        limits: |limits| limits.wall_ms = 1_000,
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            vfork = 0x4000 | signal.SIGCHLD
            pid = libc.syscall(NUMBERS["clone"][ARM], vfork, 0, 0, 0, 0)
            if pid == 0: os._exit(0)
            tell("returned", pid > 0)
            "#,
            "returned True",
        ),
        ..PLAIN
    },
    Program {
        name: "zombies",
        threat: "the dead that nobody reaps fill the process table",
        code: r#"
            for _ in range(40):
                if os.fork() == 0: os._exit(0)
            tell("kept", 40)
        "#,
        prints: "kept 40",
        control: tame(
            r#"
            for _ in range(40):
                if os.fork() == 0: os._exit(0)
                os.wait()
            tell("reaped", 40)
            "#,
            "reaped 40",
        ),
        ..PLAIN
    },
    Program {
        name: "orphans_are_reaped",
        threat: "without a reaper, orphans use up the process limit",
        code: r#"
            made = 0
            for _ in range(500):
                if os.fork() == 0:
                    if os.fork() == 0: os._exit(0)
                    os._exit(0)
                os.wait()
                made += 1
            tell("orphans", made)
        "#,
        limits: |limits| {
            limits.wall_ms = 120_000;
            limits.cpu_ms = 100_000;
        },
        prints: "orphans 500",
        control: tame(
            r#"
            made = 0
            try:
                for _ in range(500):
                    if os.fork() == 0: os._exit(0)
                    made += 1
            except OSError:
                pass
            tell("orphans", made < 500)
            "#,
            "orphans True",
        ),
        ..PLAIN
    },
    Program {
        name: "killed_by_its_own_hand",
        threat: "a signal, an exit code and a limit are mixed up",
        code: "os.kill(os.getpid(), signal.SIGKILL)",
        ends: "signalled 9",
        control: tame("pass", ""),
        ..PLAIN
    },
    Program {
        name: "aborted",
        threat: "the same",
        code: "os.abort()",
        ends: "signalled 6",
        control: tame("pass", ""),
        ..PLAIN
    },
    Program {
        name: "code_that_looks_like_a_signal",
        threat: "137 is taken for a kill, as shells write it",
        code: "sys.exit(137)",
        ends: "exited 137",
        control: tame("pass", ""),
        ..PLAIN
    },
    Program {
        name: "killing_everyone_at_the_end",
        threat: "kill(-1) takes init or the shim with it",
        code: r#"
            for _ in range(5):
                if os.fork() == 0:
                    while True: time.sleep(1000)
            os.kill(-1, signal.SIGKILL)
            sys.exit(4)
        "#,
        ends: "exited 4",
        control: tame("pass", ""),
        ..PLAIN
    },
    Program {
        name: "main_that_is_killed_by_its_child",
        threat: "the main process dies of another's signal, and the other goes on",
        language: Language::Shell,
        code: "sh -c 'kill -KILL $PPID; while :; do :; done'\n",
        ends: "signalled 9",
        within: 50,
        control: super::Control::Inside {
            code: "true\n",
            limits: |_| {},
            ends: "exited 0",
            prints: "",
        },
        ..PLAIN
    },
    Program {
        name: "node_that_never_ends",
        threat: "timers, workers and handlers of a second runtime",
        language: Language::Node,
        code: r#"
            process.on('SIGTERM', () => {});
            const { Worker } = require('worker_threads');
            for (let i = 0; i < 3; i++) new Worker('for (;;) {}', { eval: true });
            setInterval(() => {}, 1000);
        "#,
        limits: |limits| {
            limits.wall_ms = 2_000;
            limits.cpu_millis = 2000;
            limits.memory_bytes = 512 << 20;
        },
        ends: "timed_out wall",
        within: 250,
        control: tame("console.log('done 1')", "done 1"),
        ..PLAIN
    },
];
