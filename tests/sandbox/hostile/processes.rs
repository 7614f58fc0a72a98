//! Programs that multiply, and programs that burn more CPU than they may.

use super::{Language, PLAIN, Program, raised, tame};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "fork_bomb",
        threat: "takes every process id, and everyone else's chance to start one",
        code: r#"
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
        "#,
        limits: |limits| {
            limits.wall_ms = 1_000;
            limits.memory_bytes = 1 << 30;
            limits.cpu_millis = 2000;
        },
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            for _ in range(8):
                if os.fork() == 0: os._exit(0)
                os.wait()
            tell("made", 8)
            "#,
            "made 8",
        ),
        ..PLAIN
    },
    Program {
        name: "shell_fork_bomb",
        threat: "the classic one; its first process ends at once and leaves the rest",
        language: Language::Shell,
        code: "bomb() { bomb | bomb & }\nbomb\nsleep 0.3\n",
        limits: |limits| limits.wall_ms = 5_000,
        ends: "exited 0|exited 2|exited 254|process_limit|timed_out wall|timed_out cpu",
        prints: "",
        within: 150,
        control: super::Control::Inside {
            code: "none() { true | true & }\nnone\nwait\necho done\n",
            limits: |_| {},
            ends: "exited 0",
            prints: "done",
        },
    },
    Program {
        name: "process_limit_is_told",
        threat: "an unexplained failure instead of the limit that caused it",
        code: r#"
            for _ in range(100):
                if os.fork() == 0:
                    time.sleep(1000)
        "#,
        limits: |limits| limits.pids = 16,
        ends: "process_limit",
        control: raised(
            |limits| {
                limits.pids = 1024;
                limits.memory_bytes = 2 << 30;
            },
            "exited 0",
            "",
        ),
        ..PLAIN
    },
    Program {
        name: "thread_bomb",
        threat: "threads are processes to the kernel's tables",
        code: r#"
            import threading
            made = 0
            try:
                while True:
                    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
                    made += 1
            except RuntimeError:
                tell("made", made)
                sys.stdout.flush()
                os._exit(3)
        "#,
        ends: "process_limit",
        prints: "made <=63",
        control: tame(
            r#"
            import threading
            threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(200)]
            made = 0
            for thread in threads:
                thread.start()
                thread.join()
                made += 1
            tell("made", made)
            "#,
            "made 200",
        ),
        ..PLAIN
    },
    Program {
        name: "fork_hopper",
        threat: "always gone before it is found: each process forks once and ends",
        code: r#"
            if os.fork() == 0:
                os.setsid()
                while True:
                    try:
                        if os.fork() != 0: os._exit(0)
                    except OSError:
                        pass
            while True: time.sleep(1000)
        "#,
        limits: |limits| limits.wall_ms = 1_000,
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            if os.fork() == 0: os._exit(0)
            tell("child", os.wait()[1])
            "#,
            "child 0",
        ),
        ..PLAIN
    },
    Program {
        name: "hopper_after_the_end",
        threat: "hops on after the run is over, at the platform's cost",
        code: r#"
            for _ in range(8):
                if os.fork() == 0:
                    while True:
                        try:
                            if os.fork() != 0: os._exit(0)
                        except OSError:
                            pass
            time.sleep(0.2)
            tell("main", "ends")
        "#,
        prints: "main ends",
        control: tame(r#"tell("main", "ends alone")"#, "main ends alone"),
        ..PLAIN
    },
    Program {
        name: "burning_with_several",
        threat: "CPU time is counted in one process only",
        code: r#"
            for _ in range(3):
                if os.fork() == 0: break
            while True: pass
        "#,
        limits: |limits| {
            limits.cpu_ms = 500;
            limits.cpu_millis = 2000;
        },
        ends: "timed_out cpu",
        control: tame(
            r#"
            end = time.process_time() + 0.1
            while time.process_time() < end: pass
            tell("burnt", 100)
            "#,
            "burnt 100",
        ),
        ..PLAIN
    },
    Program {
        name: "burning_in_short_lives",
        threat: "processes that end before they are looked at burn for nothing",
        code: r#"
            while True:
                if os.fork() == 0:
                    end = time.process_time() + 0.01
                    while time.process_time() < end: pass
                    os._exit(0)
                os.wait()
        "#,
        limits: |limits| limits.cpu_ms = 400,
        ends: "timed_out cpu",
        control: tame(
            r#"
            for _ in range(5):
                if os.fork() == 0: os._exit(0)
                os.wait()
            tell("burnt", 0)
            "#,
            "burnt 0",
        ),
        ..PLAIN
    },
    Program {
        name: "burning_in_the_kernel",
        threat: "system time is free",
        code: r#"
            zero = os.open("/dev/zero", os.O_RDONLY)
            buffer = bytearray(8 << 20)
            while True: os.readv(zero, [buffer])
        "#,
        limits: |limits| limits.cpu_ms = 400,
        ends: "timed_out cpu",
        control: tame(
            r#"
            zero = os.open("/dev/zero", os.O_RDONLY)
            tell("read", os.readv(zero, [bytearray(8)]))
            "#,
            "read 8",
        ),
        ..PLAIN
    },
    Program {
        name: "storm_of_syncs",
        threat: "fsync after every byte keeps the host's disk busy, and the end waiting",
        code: r#"
            file = os.open("/workspace/x", os.O_CREAT | os.O_WRONLY)
            while True:
                os.write(file, b"x" * 4096)
                os.fsync(file)
        "#,
        limits: |limits| limits.wall_ms = 1_000,
        ends: "timed_out wall|disk_full",
        within: 300,
        control: tame(
            r#"
            file = os.open("/workspace/x", os.O_CREAT | os.O_WRONLY)
            for _ in range(4):
                os.write(file, b"x" * 4096)
                os.fsync(file)
            tell("size", os.fstat(file).st_size)
            "#,
            "size 16384",
        ),
        ..PLAIN
    },
    Program {
        name: "throttled_crowd",
        threat: "a crowd at one percent of a CPU takes minutes to die, each of its processes in \
            turn",
        code: r#"
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            for _ in range(60):
                if os.fork() == 0:
                    kept = b"x" * (1 << 20)
                    while True: pass
            while True: pass
        "#,
        limits: |limits| {
            limits.wall_ms = 2_000;
            limits.cpu_millis = 20;
        },
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            for _ in range(4):
                if os.fork() == 0: os._exit(0)
                os.wait()
            tell("done", 4)
            "#,
            "done 4",
        ),
        ..PLAIN
    },
];
