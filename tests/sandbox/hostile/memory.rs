//! Programs that take memory in every way there is, and those that only seem to.

use super::{Control, PLAIN, Program, raised, tame};

const MIB: u64 = 1 << 20;

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "anonymous",
        threat: "takes the host's memory",
        code: r#"
            kept = []
            for _ in range(256):
                kept.append(b"x" * (4 << 20))
            tell("took", 1024)
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        ends: "out_of_memory",
        control: raised(
            |limits| limits.memory_bytes = 1280 * MIB,
            "exited 0",
            "took 1024",
        ),
        ..PLAIN
    },
    Program {
        name: "by_many_children",
        threat: "each child is small, all together are not; the parent outlives the kernel's kill",
        code: r#"
            for _ in range(20):
                if os.fork() == 0:
                    kept = b"x" * (16 << 20)
                    time.sleep(1000)
                time.sleep(0.02)
            time.sleep(1000)
        "#,
        limits: |limits| limits.memory_bytes = 96 * MIB,
        ends: "out_of_memory",
        control: tame(
            r#"
            for _ in range(3):
                if os.fork() == 0:
                    kept = b"x" * (4 << 20)
                    os._exit(0)
                os.wait()
            tell("done", 3)
            "#,
            "done 3",
        ),
        ..PLAIN
    },
    Program {
        name: "survivor_of_a_kill",
        threat: "the kernel kills one process and the rest goes on, half dead",
        code: r#"
            pid = os.fork()
            if pid == 0:
                kept = []
                while True: kept.append(b"x" * (4 << 20))
            os.waitpid(pid, 0)
            time.sleep(1000)
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        ends: "out_of_memory",
        control: tame(
            r#"
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            tell("child", os.WTERMSIG(os.waitpid(pid, 0)[1]))
            "#,
            "child 9",
        ),
        ..PLAIN
    },
    Program {
        name: "memfd",
        threat: "files without a name are memory outside of any address space",
        code: r#"
            file = os.memfd_create("x")
            for _ in range(512):
                os.write(file, b"x" * (1 << 20))
            tell("wrote", 512)
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        ends: "out_of_memory",
        // A file may be as long as the disk is large.
        control: tame(
            r#"
            file = os.memfd_create("x")
            tell("wrote", os.write(file, b"x" * (1 << 20)) >> 20)
            "#,
            "wrote 1",
        ),
        ..PLAIN
    },
    Program {
        name: "many_memfds",
        threat: "the same without a long file",
        code: r#"
            for _ in range(64):
                os.write(os.memfd_create("x"), b"x" * (8 << 20))
            tell("wrote", 512)
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        ends: "out_of_memory",
        control: raised(
            |limits| limits.memory_bytes = 768 * MIB,
            "exited 0",
            "wrote 512",
        ),
        ..PLAIN
    },
    Program {
        name: "system_v_segments",
        threat: "segments without a process are nobody's memory",
        code: r#"
            libc.shmat.restype = ctypes.c_void_p
            for key in range(64):
                segment = libc.shmget(key + 1, ctypes.c_size_t(8 << 20), 0o1666)
                place = libc.shmat(segment, None, 0)
                ctypes.memset(place, 1, 8 << 20)
                libc.shmdt(ctypes.c_void_p(place))
            tell("wrote", 512)
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        ends: "out_of_memory",
        control: raised(
            |limits| limits.memory_bytes = 768 * MIB,
            "exited 0",
            "wrote 512",
        ),
        ..PLAIN
    },
    Program {
        name: "dev_shm",
        threat: "a memory file system without a bound",
        code: r#"
            written = 0
            try:
                with open("/dev/shm/x", "wb", buffering=0) as file:
                    while True: written += file.write(b"x" * (1 << 20))
            except OSError as error:
                tell("error", errno.errorcode[error.errno])
            tell("mib", written >> 20)
            made = 0
            try:
                os.unlink("/dev/shm/x")
                while True:
                    os.mkdir(f"/dev/shm/{made}")
                    made += 1
            except OSError as error:
                tell("inodes", errno.errorcode[error.errno])
            tell("made", made)
        "#,
        prints: "error ENOSPC\nmib <=16\ninodes ENOSPC\nmade <=4096",
        control: tame(
            r#"
            with open("/workspace/x", "wb", buffering=0) as file:
                for _ in range(32): file.write(b"x" * (1 << 20))
            tell("mib", os.stat("/workspace/x").st_size >> 20)
            "#,
            "mib 32",
        ),
        ..PLAIN
    },
    Program {
        name: "page_tables",
        threat: "touching one page in every two MiB costs page tables, not pages",
        code: r#"
            import mmap
            place = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
            place.madvise(15)  # no huge pages
            for offset in range(0, 1 << 40, 1 << 21):
                place[offset]
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        ends: "out_of_memory",
        control: tame(
            r#"
            import mmap
            place = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
            tell("reserved", len(place) >> 40)
            "#,
            "reserved 1",
        ),
        ..PLAIN
    },
    Program {
        name: "directory_entries",
        threat: "looking for names that are not there fills the kernel's caches",
        code: r#"
            for number in range(300000):
                try:
                    os.stat(f"/workspace/{'x' * 200}{number}")
                except FileNotFoundError:
                    pass
            tell("looked", 300000)
        "#,
        limits: |limits| {
            limits.memory_bytes = 48 * MIB;
            limits.wall_ms = 120_000;
            limits.cpu_ms = 100_000;
        },
        // The kernel gives them back when the group is at its limit, but not always soon enough.
        ends: "exited 0|out_of_memory",
        prints: "? looked 300000",
        control: raised(|limits| limits.cpu_ms = 100, "timed_out cpu", ""),
        ..PLAIN
    },
    Program {
        name: "page_cache_is_no_hog",
        threat: "reading and writing more than memory is called out of memory, though nothing \
            is lost",
        code: r#"
            with open("/workspace/x", "wb", buffering=0) as file:
                for _ in range(200): file.write(b"x" * (1 << 20))
            total = 0
            for _ in range(2):
                with open("/workspace/x", "rb", buffering=0) as file:
                    while block := file.read(1 << 20): total += len(block)
            tell("mib", total >> 20)
        "#,
        limits: |limits| limits.memory_bytes = 48 * MIB,
        prints: "mib 400",
        // As much of it in memory that cannot be given back.
        control: Control::Inside {
            code: "kept = []\nwhile len(kept) < 400: kept.append(b'x' * (1 << 20))",
            limits: |_| {},
            ends: "out_of_memory",
            prints: "",
        },
        ..PLAIN
    },
    Program {
        name: "mapped_files_are_no_hog",
        threat: "the same by a shared mapping, whose dirty pages must be written back first",
        code: r#"
            import mmap
            file = os.open("/workspace/x", os.O_CREAT | os.O_RDWR)
            os.ftruncate(file, 160 << 20)
            place = mmap.mmap(file, 160 << 20)
            for offset in range(0, 160 << 20, 4096):
                place[offset] = 1
            tell("pages", sum(place[offset] for offset in range(0, 160 << 20, 4096)))
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        prints: "pages 40960",
        control: tame(r#"tell("pages", 1)"#, "pages 1"),
        ..PLAIN
    },
    Program {
        name: "deep_stacks",
        threat: "a stack without a bound",
        code: r#"
            import resource, threading
            attempt("stack", lambda: resource.setrlimit(resource.RLIMIT_STACK, (-1, -1)))
            threading.stack_size(512 << 20)
            sys.setrecursionlimit(1 << 30)
            def deeper(n):
                return [deeper(n + 1), n]
            thread = threading.Thread(target=deeper, args=(0,))
            thread.start()
            thread.join()
        "#,
        limits: |limits| limits.memory_bytes = 64 * MIB,
        ends: "out_of_memory|signalled 11",
        prints: "stack ok|EINVAL|EPERM",
        control: tame(
            r#"
            tell("stack", "ok")
            def deeper(n):
                return n if n == 500 else deeper(n + 1)
            deeper(0)
            "#,
            "stack ok",
        ),
        ..PLAIN
    },
];
