//! Programs that fill their disk by bytes and by inodes, and that leave what is hard to remove.

use super::{Language, PLAIN, Program, raised, tame};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "by_bytes",
        threat: "fills the host's disk, the ledger's among it",
        code: r#"
            with open("/workspace/x", "wb", buffering=0) as file:
                while True: file.write(b"x" * (1 << 20))
        "#,
        ends: "disk_full",
        control: tame(
            r#"
            with open("/workspace/x", "wb", buffering=0) as file:
                for _ in range(200): file.write(b"x" * (1 << 20))
            tell("wrote", 200)
            "#,
            "wrote 200",
        ),
        ..PLAIN
    },
    Program {
        name: "its_size_is_what_was_asked",
        threat: "less disk than promised, or more",
        code: r#"
            written = 0
            try:
                for number in range(1000):
                    with open(f"/workspace/{number}", "wb", buffering=0) as file:
                        for _ in range(4): written += file.write(b"x" * (1 << 20))
            except OSError as error:
                tell("error", errno.errorcode[error.errno])
            tell("at-least", written >> 20)
            tell("at-most", written >> 20)
        "#,
        limits: |limits| limits.memory_bytes = 48 << 20,
        prints: "error ENOSPC\nat-least >=240\nat-most <=256",
        control: tame(
            r#"
            tell("error", "none")
            tell("at-least", 240)
            tell("at-most", 257)
            "#,
            "error none\nat-least 240\nat-most 257",
        ),
        ..PLAIN
    },
    Program {
        name: "by_inodes",
        threat: "empty files fill the host's inode tables",
        code: r#"
            made = 0
            try:
                while True:
                    os.close(os.open(f"/tmp/{made}", os.O_CREAT | os.O_WRONLY))
                    made += 1
            except OSError as error:
                tell("error", errno.errorcode[error.errno])
            tell("made", made)
            tell("enough", made >= 19000)
            os._exit(1)
        "#,
        limits: |limits| limits.wall_ms = 60_000,
        ends: "disk_full",
        // ext4 rounds the number up to whole tables.
        prints: "error ENOSPC\nmade <=20500\nenough True",
        control: tame(
            r#"
            for number in range(1000):
                os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))
            tell("made", len(os.listdir("/tmp")))
            "#,
            "made 1000",
        ),
        ..PLAIN
    },
    Program {
        name: "sparse_terabytes",
        threat: "files that are larger than the disk; whoever copies them fills another",
        code: r#"
            file = os.open("/workspace/x", os.O_CREAT | os.O_RDWR)
            attempt("terabyte", lambda: os.ftruncate(file, 1 << 40))
            attempt("seek", lambda: (os.lseek(file, 1 << 40, 0), os.write(file, b"x")))
            attempt("allocate", lambda: os.posix_fallocate(file, 0, 1 << 34))
            for number in range(100):
                one = os.open(f"/workspace/{number}", os.O_CREAT | os.O_RDWR)
                os.ftruncate(one, 200 << 20)
                os.close(one)
            tell("sparse", sum(os.stat(f"/workspace/{number}").st_blocks for number in range(100)))
        "#,
        prints: "terabyte EFBIG\nseek EFBIG\nallocate EFBIG|ENOSPC\nsparse <=1000",
        control: tame(
            r#"
            file = os.open("/workspace/x", os.O_CREAT | os.O_RDWR)
            attempt("terabyte", lambda: os.ftruncate(file, 1 << 20))
            "#,
            "terabyte ok",
        ),
        ..PLAIN
    },
    Program {
        name: "deleted_but_open",
        threat: "space that no name shows; it is free again when the program has ended",
        code: r#"
            file = os.open("/workspace/x", os.O_CREAT | os.O_WRONLY)
            os.unlink("/workspace/x")
            while True: os.write(file, b"x" * (1 << 20))
        "#,
        ends: "disk_full|exited 1",
        control: tame(
            r#"
            file = os.open("/workspace/x", os.O_CREAT | os.O_WRONLY)
            os.unlink("/workspace/x")
            tell("wrote", os.write(file, b"x"))
            "#,
            "wrote 1",
        ),
        ..PLAIN
    },
    Program {
        name: "full_disk_is_told_only_if_it_failed",
        threat: "a run that went well is called a failure",
        code: r#"
            try:
                with open("/workspace/x", "wb", buffering=0) as file:
                    while True: file.write(b"x" * (1 << 20))
            except OSError as error:
                tell("error", errno.errorcode[error.errno])
        "#,
        prints: "error ENOSPC",
        control: tame(r#"tell("error", "none")"#, "error none"),
        ..PLAIN
    },
    Program {
        name: "deep_tree",
        threat: "a clean-up that recurses or opens as it descends dies of 20,000 levels",
        code: r#"
            depth = 0
            try:
                while True:
                    os.mkdir("d")
                    os.chdir("d")
                    depth += 1
            except OSError as error:
                tell("error", errno.errorcode[error.errno])
            tell("depth", depth)
        "#,
        limits: |limits| {
            limits.wall_ms = 60_000;
            limits.cpu_ms = 50_000;
        },
        prints: "error ENOSPC\ndepth >=19000",
        control: tame(
            r#"
            for depth in range(100):
                os.mkdir("d")
                os.chdir("d")
            tell("depth", 100)
            "#,
            "depth 100",
        ),
        ..PLAIN
    },
    Program {
        name: "trees_without_permission",
        threat: "a clean-up that asks for permission leaves what is mode 000",
        code: r#"
            for number in range(50):
                os.makedirs(f"/workspace/{number}/a/b")
                open(f"/workspace/{number}/a/b/c", "w").close()
                os.chmod(f"/workspace/{number}/a/b/c", 0)
                for path in "a/b", "a", "":
                    os.chmod(f"/workspace/{number}/{path}", 0)
            os.chmod("/workspace", 0)
            attempt("list", lambda: os.listdir("/workspace"))
        "#,
        prints: "list EACCES",
        control: tame(
            r#"attempt("list", lambda: os.listdir("/workspace"))"#,
            "list ok",
        ),
        ..PLAIN
    },
    Program {
        name: "names_of_all_kinds",
        threat: "names with newlines, escapes or the longest length break whoever lists them",
        language: Language::Python,
        code: r#"
            names = [b"\n", b"\x1b[31m", b"-rf", b"\xff\xfe", b" ", b"x" * 255, b"a\\b", b"*"]
            for name in names:
                os.mkdir(b"/workspace/" + name)
                os.symlink(b"/" + b"y" * 4094, b"/workspace/" + name + b"/link")
                os.mkfifo(b"/workspace/" + name + b"/fifo")
            tell("made", len(os.listdir("/workspace")) - 1)
        "#,
        prints: "made 8",
        control: tame(
            r#"tell("made", len(os.listdir("/workspace")) - 1)"#,
            "made 0",
        ),
        ..PLAIN
    },
    Program {
        name: "disk_of_the_shell",
        threat: "the same bomb by the tools of the image, with the tail of an error that must \
            be kept",
        language: Language::Shell,
        code: "head -c 1G /dev/zero > /workspace/x\n",
        ends: "disk_full",
        control: super::Control::Inside {
            code: "head -c 1M /dev/zero > /workspace/x; echo wrote $(wc -c < /workspace/x)\n",
            limits: |_| {},
            ends: "exited 0",
            prints: "wrote 1048576",
        },
        ..PLAIN
    },
    Program {
        name: "many_links",
        threat: "directories and links without files, in loops",
        code: r#"
            open("/workspace/file", "w").close()
            made = 0
            try:
                while made < 70000:
                    os.link("/workspace/file", f"/workspace/{made}")
                    made += 1
            except OSError as error:
                tell("error", errno.errorcode[error.errno])
            os.symlink(".", "/workspace/loop")
            tell("bounded", made <= 65000)
        "#,
        limits: |limits| limits.wall_ms = 60_000,
        prints: "error EMLINK|EPERM|ENOSPC|EDQUOT\nbounded True",
        control: raised(|limits| limits.cpu_ms = 50, "timed_out cpu", ""),
        ..PLAIN
    },
];
