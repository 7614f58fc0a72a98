//! Programs that flood, and output that is no text.

use super::{Language, PLAIN, Program, tame};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "flood",
        threat: "output fills the server's memory, or blocks its reader",
        language: Language::Shell,
        code: "yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
        limits: |limits| {
            limits.wall_ms = 1_000;
            limits.output_bytes = 74;
        },
        ends: "timed_out wall",
        prints: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        within: 250,
        control: super::Control::Inside {
            code: "echo a\n",
            limits: |_| {},
            ends: "exited 0",
            prints: "a",
        },
    },
    Program {
        name: "flood_from_many_on_both_streams",
        threat: "the same on both streams and from many processes",
        code: r#"
            for _ in range(15): os.fork() if os.getppid() == 1 else None
            while True:
                os.write(1, b"\n" * 65536)
                os.write(2, b"\n" * 65536)
        "#,
        limits: |limits| {
            limits.wall_ms = 1_000;
            limits.cpu_millis = 2000;
        },
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            os.write(1, b"a\n")
            os.write(2, b"b\n")
            "#,
            "a",
        ),
        ..PLAIN
    },
    Program {
        name: "output_behind_a_full_pipe",
        threat: "a program that waits for its reader is held up for ever",
        code: r#"
            os.write(2, b"\n" * (4 << 20))
            os.write(1, b"\n" * (4 << 20))
            sys.exit(9)
        "#,
        ends: "exited 9",
        control: tame("sys.exit(0)", ""),
        ..PLAIN
    },
];
