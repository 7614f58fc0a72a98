//! Programs that try to cripple init, which runs as the same user, or to spend budgets that are
//! shared.

use super::{Control, PLAIN, Program, Share, tame};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "limits_and_priority_of_init",
        threat: "the kernel lets a user lower limits, CPUs and priority of its own processes: \
            init too",
        code: r#"
            files = (ctypes.c_uint64 * 2)(1, 1)
            cpus = (ctypes.c_uint64 * 16)(1)
            param = (ctypes.c_int * 1)(0)
            attributes = (ctypes.c_uint32 * 12)(48, 5)
            target = 1 if "OUTSIDE" not in os.environ else os.getppid()
            for name, pid in ("", target), ("-high-bits", target | 1 << 32):
                probe("prlimit64", pid, 7, files, 0, label="nofile" + name)
                probe("prlimit64", pid, 0, (ctypes.c_uint64 * 2)(1, 1), 0, label="cpu" + name)
                probe("sched_setaffinity", pid, 8, cpus, label="affinity" + name)
                probe("sched_setscheduler", pid, 5, param, label="idle" + name)
                probe("sched_setattr", pid, attributes, 0, label="attr" + name)
                probe("setpriority", 0, pid, 19, label="nice" + name)
            probe("setpriority", 2, os.getuid(), 19, label="nice-user")
            probe("setpriority", 1, target, 19, label="nice-group")
            probe("ioprio_set", 1, target, 3 << 13, label="io")
            probe("ioprio_set", 3, os.getuid(), 3 << 13, label="io-user")
        "#,
        prints: "nofile EPERM\ncpu EPERM\naffinity EPERM\nidle EPERM\nattr EPERM\nnice EPERM
            nofile-high-bits EPERM\ncpu-high-bits EPERM\naffinity-high-bits EPERM
            idle-high-bits EPERM\nattr-high-bits EPERM\nnice-high-bits EPERM\nnice-user EPERM
            nice-group EPERM\nio EPERM\nio-user EPERM",
        control: Control::Outside(Share::Nothing, "nofile ok\naffinity ok\nidle ok\nnice ok"),
        ..PLAIN
    },
    Program {
        name: "own_limits_can_be_lowered",
        threat: "refusing these calls on oneself would break ordinary programs",
        code: r#"
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            os.nice(5)
            tell("lowered", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        "#,
        prints: "lowered 64",
        control: tame(
            r#"
            import resource
            tell("lowered", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            "#,
            "lowered 1024",
        ),
        ..PLAIN
    },
    Program {
        name: "idle_main_still_ends",
        threat: "a main process of the lowest priority that burns beside others must still be \
            ended",
        code: r#"
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            for _ in range(20):
                if os.fork() == 0:
                    break
            while True: pass
        "#,
        limits: |limits| {
            limits.wall_ms = 2_000;
            limits.cpu_millis = 50;
        },
        ends: "timed_out wall",
        within: 250,
        control: tame(
            r#"
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            tell("done", 1)
            "#,
            "done 1",
        ),
        ..PLAIN
    },
    Program {
        name: "pipe_buffers",
        threat: "pipes hold kernel memory, and their budget is one for all of a user",
        code: r#"
            import fcntl
            kept = []
            while True:
                reader, writer = os.pipe()
                kept.append((reader, writer))
                os.set_blocking(writer, False)
                result_of(fcntl.fcntl, writer, 1031, 1 << 20)
                try:
                    while True: os.write(writer, b"x" * 65536)
                except BlockingIOError:
                    pass
        "#,
        limits: |limits| limits.memory_bytes = 32 << 20,
        ends: "out_of_memory",
        control: tame(
            r#"
            reader, writer = os.pipe()
            os.write(writer, b"x" * 4096)
            tell("read", len(os.read(reader, 8192)))
            "#,
            "read 4096",
        ),
        ..PLAIN
    },
    Program {
        name: "socket_buffers",
        threat: "sockets hold kernel memory that belongs to nobody",
        code: r#"
            import socket
            kept = []
            while True:
                pair = socket.socketpair()
                kept.append(pair)
                pair[0].setblocking(False)
                pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                try:
                    while True: pair[0].send(b"x" * 65536)
                except BlockingIOError:
                    pass
        "#,
        limits: |limits| limits.memory_bytes = 32 << 20,
        ends: "out_of_memory",
        control: tame(
            r#"
            import socket
            pair = socket.socketpair()
            pair[0].send(b"x" * 4096)
            tell("read", len(pair[1].recv(8192)))
            "#,
            "read 4096",
        ),
        ..PLAIN
    },
    Program {
        name: "tcp_buffers",
        threat: "what lies in TCP sockets unread is kernel memory, bounded once for all",
        code: r#"
            import socket
            server = socket.create_server(("127.0.0.1", 0), backlog=1024)
            kept, total = [], 0
            for _ in range(60):
                one = socket.create_connection(server.getsockname())
                other = server.accept()[0]
                kept += one, other
                one.setblocking(False)
                try:
                    while True: total += one.send(b"x" * (1 << 20))
                except BlockingIOError:
                    pass
            tell("mib", total >> 20)
        "#,
        limits: |limits| limits.memory_bytes = 64 << 20,
        // On v2 sockets count in the memory limit itself.
        ends: "exited 0|out_of_memory",
        prints: "? mib <=16",
        control: Control::Outside(Share::Nothing, "mib >=100"),
        ..PLAIN
    },
    Program {
        name: "udp_buffers",
        threat: "the same in datagrams that nobody receives",
        code: r#"
            import socket
            kept, total = [], 0
            for _ in range(300):
                one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                one.bind(("127.0.0.1", 0))
                one.setblocking(False)
                kept.append(one)
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for one in kept:
                for _ in range(12):
                    result_of(sender.sendto, b"x" * 32000, one.getsockname())
            for one in kept:
                try:
                    while True: total += len(one.recv(65536))
                except BlockingIOError:
                    pass
            tell("mib", total >> 20)
        "#,
        limits: |limits| limits.memory_bytes = 64 << 20,
        // On v2 sockets count in the memory limit itself.
        ends: "exited 0|out_of_memory",
        prints: "? mib <=16",
        control: Control::Outside(Share::Nothing, "mib >=50"),
        ..PLAIN
    },
    Program {
        name: "asynchronous_io",
        threat: "contexts of the old asynchronous I/O come from one budget for the whole machine",
        code: r#"
            made = 0
            context = ctypes.c_ulong()
            result = "ok"
            while result == "ok" and made < 4:
                context.value = 0
                result = call("io_setup", 8, ctypes.byref(context))
                made += result == "ok"
            tell("io_setup", result)
            tell("made", made)
        "#,
        prints: "io_setup ENOSYS\nmade 0",
        control: Control::Outside(Share::Nothing, "made 4"),
        ..PLAIN
    },
    // Only ever one at a time: thousands of them, freed at once, deadlock a kernel of version
    // 6.18 for good, which is how this was found.
    Program {
        name: "filters_on_sockets",
        threat: "compiled filters come from one budget: when it is spent, nothing starts",
        code: r#"
            import socket, struct
            buffer = ctypes.create_string_buffer(b"\x06\0\0\0\xff\xff\xff\xff")
            program = struct.pack("HxxxxxxP", 1, ctypes.addressof(buffer))
            number = 54 if not ARM else 208
            def attach(level, option, value=program):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                    return call(number, one.fileno(), level, option, value, len(value))
            tell("classic", attach(1, 26))
            tell("high-bits", attach(1 | 1 << 32, 26 | 1 << 32))
            tell("reuseport", attach(1, 51))
            tell("bpf", attach(1, 50, struct.pack("i", -1)))
            tell("reuseport-bpf", attach(1, 52, struct.pack("i", -1)))
            tell("another-option", attach(1, 8, struct.pack("i", 4096)))
            tell("another-level", attach(41, 26, struct.pack("i", 1)))
        "#,
        prints: "classic EPERM\nhigh-bits EPERM\nreuseport EPERM\nbpf EPERM\nreuseport-bpf EPERM
            another-option ok\nanother-level EOPNOTSUPP|ENOPROTOOPT|ok",
        control: Control::Outside(
            Share::Nothing,
            "classic ok\nhigh-bits ok\nanother-option ok",
        ),
        ..PLAIN
    },
    Program {
        name: "timers_and_signals",
        threat: "queued signals and timers are kernel memory by user",
        code: r#"
            libc.timer_create.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
            made = 0
            timer = ctypes.c_void_p()
            while made < 100000 and libc.timer_create(1, None, ctypes.byref(timer)) == 0:
                made += 1
            tell("bounded", made < 1000)
        "#,
        prints: "bounded True",
        control: tame(r#"tell("bounded", 100000 < 1000)"#, "bounded False"),
        ..PLAIN
    },
    Program {
        name: "descriptors",
        threat: "open files are kernel memory of all",
        code: r#"
            kept = []
            try:
                while True: kept.append(os.open("/dev/null", os.O_RDONLY))
            except OSError as error:
                tell("error", errno.errorcode[error.errno])
            tell("opened", len(kept))
            children = 0
            for _ in range(8):
                if os.fork() == 0:
                    for _ in kept: os.dup2(kept[0], kept[-1])
                    os._exit(0)
            while children < 8:
                os.wait()
                children += 1
            tell("children", children)
        "#,
        limits: |limits| limits.open_files = 256,
        prints: "error EMFILE\nopened <=256\nchildren 8",
        control: super::raised(
            |limits| limits.open_files = 1024,
            "exited 0",
            "error EMFILE\nopened >=1000\nchildren 8",
        ),
        ..PLAIN
    },
    Program {
        name: "leftovers_of_ipc",
        threat: "shared memory, queues and semaphores outlive their makers and carry messages",
        code: r#"
            size = ctypes.c_size_t(1 << 20)
            shm = libc.shmget(0x46617265, size, 0o1666)
            tell("shm", shm >= 0)
            tell("sem", libc.semget(0x46617265, 4, 0o1666) >= 0)
            tell("msg", libc.msgget(0x46617265, 0o1666) >= 0)
            libc.mq_open.restype = ctypes.c_int
            tell("mq", libc.mq_open(b"/farebox", os.O_CREAT | os.O_RDWR, 0o666, None) >= 0)
            open("/dev/shm/farebox", "w").close()
            counts = [len(open("/proc/sysvipc/" + name).readlines()) - 1 for name in ("shm", "sem", "msg")]
            tell("there", counts)
        "#,
        prints: "shm True\nsem True\nmsg True\nmq True\nthere [1, 1, 1]",
        // That a second sandbox starts with none is what the first line above tells there.
        control: tame(
            r#"
            for key in 1, 0x46617265:
                libc.shmget(key, ctypes.c_size_t(4096), 0o1666)
            tell("there", len(open("/proc/sysvipc/shm").readlines()) - 1)
            "#,
            "there 2",
        ),
        ..PLAIN
    },
];
