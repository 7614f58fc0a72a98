//! Programs that knock at the kernel's wider doors: namespaces, observers, exotic sockets, other
//! entries.

use super::{Control, PLAIN, Program, Share, tame};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "namespaces_by_unshare",
        threat: "a user namespace inside opens most of the kernel again",
        code: r#"
            flags = {"user": 0x10000000, "mnt": 0x20000, "pid": 0x20000000, "net": 0x40000000,
                     "ipc": 0x8000000, "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}
            for name, flag in flags.items():
                tell(name, child(lambda: os._exit(0 if call("unshare", flag) == "EPERM" else 7)))
            both = flags["user"] | flags["net"] | 1 << 40
            tell("high-bits", child(lambda: os._exit(0 if call("unshare", both) == "EPERM" else 7)))
        "#,
        prints: "user exit 0\nmnt exit 0\npid exit 0\nnet exit 0\nipc exit 0\nuts exit 0
            cgroup exit 0\ntime exit 0\nhigh-bits exit 0",
        control: Control::Outside(Share::Nothing, "user exit 7\nnet exit 7"),
        ..PLAIN
    },
    Program {
        name: "namespaces_by_clone",
        threat: "the same by clone, whose flags a filter must look at",
        code: r#"
            def made(flags):
                number = NUMBERS["clone"][ARM]
                pid = libc.syscall(number, ctypes.c_ulong(flags | signal.SIGCHLD), 0, 0, 0, 0)
                if pid == 0:
                    os._exit(0)
                if pid < 0:
                    return errno.errorcode[ctypes.get_errno()]
                os.waitpid(pid, 0)
                return "ok"
            for name, flag in {"none": 0, "user": 0x10000000, "mnt": 0x20000, "net": 0x40000000,
                               "pid": 0x20000000, "ipc": 0x8000000, "uts": 0x4000000,
                               "cgroup": 0x2000000}.items():
                tell(name, made(flag))
        "#,
        prints: "none ok\nuser EPERM\nmnt EPERM\nnet EPERM\npid EPERM\nipc EPERM\nuts EPERM
            cgroup EPERM",
        control: Control::Outside(Share::Nothing, "user ok\nnet ok"),
        ..PLAIN
    },
    Program {
        name: "namespaces_by_clone3",
        threat: "clone3 hides its flags from a filter: it must not be there at all",
        code: r#"
            flags = (ctypes.c_uint64 * 11)(0x10000000 | 0x40000000)
            flags[4] = signal.SIGCHLD
            number = NUMBERS["clone3"][ARM]
            pid = libc.syscall(number, flags, 88)
            if pid == 0:
                os._exit(0)
            tell("clone3", "ok" if pid > 0 else errno.errorcode[ctypes.get_errno()])
        "#,
        prints: "clone3 ENOSYS",
        control: Control::Outside(Share::Nothing, "clone3 ok"),
        ..PLAIN
    },
    Program {
        name: "joining_namespaces",
        threat: "setns into a namespace of someone else",
        code: r#"
            for name in "net", "uts", "mnt", "user":
                own = os.open("/proc/self/ns/" + name, os.O_RDONLY)
                probe("setns", own, 0, label=name)
            probe("setns", os.pidfd_open(os.getpid()), 0x40000000, label="pidfd")
        "#,
        prints: "net EPERM\nuts EPERM\nmnt EPERM\nuser EPERM\npidfd EPERM",
        control: Control::Outside(Share::Nothing, "net ok\nuts ok\npidfd ok"),
        ..PLAIN
    },
    Program {
        name: "keyrings",
        threat: "keys outlive their sandbox and are shared by user id",
        code: r#"
            probe("add_key", b"user", b"farebox", b"x", 1, -2)
            probe("request_key", b"user", b"farebox", None, 0)
            probe("keyctl", 0, -2, 1)
        "#,
        prints: "add_key EPERM\nrequest_key EPERM\nkeyctl EPERM",
        control: Control::Outside(Share::Nothing, "add_key ok\nkeyctl ok"),
        ..PLAIN
    },
    Program {
        name: "bpf_and_perf",
        threat: "programs and counters in the kernel observe everyone",
        code: r#"
            attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)
            probe("bpf", 0, attributes, 72)
            event = (ctypes.c_uint64 * 16)(1 | 112 << 32)
            probe("perf_event_open", event, 0, -1, -1, 0)
        "#,
        prints: "bpf EPERM\nperf_event_open EPERM",
        control: Control::Outside(Share::Nothing, "bpf ok\nperf_event_open ok"),
        ..PLAIN
    },
    Program {
        name: "userfaultfd_and_io_uring",
        threat: "both make kernel bugs exploitable, and io_uring passes the filter by",
        code: r#"
            probe("userfaultfd", 0)
            probe("io_uring_setup", 4, (ctypes.c_uint32 * 30)())
        "#,
        prints: "userfaultfd EPERM\nio_uring_setup EPERM",
        control: Control::Outside(Share::Nothing, "userfaultfd ok\nio_uring_setup ok"),
        ..PLAIN
    },
    Program {
        name: "looking_into_processes",
        threat: "ptrace and its relatives take over init or another program",
        code: r#"
            buffer = ctypes.create_string_buffer(8)
            part = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
            me = os.getpid()
            probe("ptrace", 0, 0, 0, 0, label="traceme")
            probe("ptrace", 0x4206, 1, 0, 0, label="seize-init")
            probe("process_vm_readv", me, part, 1, part, 1, 0)
            probe("process_vm_writev", me, part, 1, part, 1, 0)
            probe("kcmp", me, me, 0, 0, 0)
            probe("pidfd_getfd", os.pidfd_open(me), 1, 0)
            probe("process_madvise", os.pidfd_open(me), part, 1, 21, 0)
        "#,
        prints: "traceme EPERM\nseize-init EPERM\nprocess_vm_readv EPERM\nprocess_vm_writev EPERM
            kcmp EPERM\npidfd_getfd EPERM\nprocess_madvise EPERM",
        control: Control::Outside(
            Share::Nothing,
            "process_vm_readv ok\nkcmp ok\npidfd_getfd ok",
        ),
        ..PLAIN
    },
    Program {
        name: "exotic_sockets",
        threat: "AF_VSOCK talks to the hypervisor, AF_ALG and others are attack surface, raw \
            ones spoof",
        code: r#"
            def make(name, family, kind, protocol=0):
                probe("socket", family, kind, protocol, label=name)
            make("unix", 1, 1)
            make("inet", 2, 1)
            make("inet6", 10, 2)
            make("route", 16, 3)
            for name, family, kind in (("alg", 38, 5), ("vsock", 40, 1), ("packet", 17, 3),
                                       ("key", 15, 3), ("can", 29, 3), ("tipc", 30, 5),
                                       ("bluetooth", 31, 5), ("xdp", 44, 3), ("rds", 21, 5),
                                       ("high-bits", 40 | 1 << 32, 1)):
                make(name, family, kind)
            make("raw", 2, 3, 1)
            make("raw6", 10, 3, 58)
            make("old-packet", 2, 10, 0x300)
            make("uevent", 16, 3, 15)
            make("audit", 16, 3, 9)
            make("sock-diag", 16, 3, 4)
            make("route-high-bits", 16, 3, 4 | 1 << 32)
        "#,
        prints: "unix ok\ninet ok\ninet6 ok\nroute ok\nalg EPERM\nvsock EPERM\npacket EPERM
            key EPERM\ncan EPERM\ntipc EPERM\nbluetooth EPERM\nxdp EPERM\nrds EPERM
            high-bits EPERM\nraw EPERM\nraw6 EPERM\nold-packet EPERM\nuevent EPERM\naudit EPERM
            sock-diag EPERM\nroute-high-bits EPERM",
        control: Control::Outside(Share::Nothing, "raw ok\nraw6 ok\nuevent ok"),
        ..PLAIN
    },
    Program {
        name: "32_bit_entry",
        threat: "int 0x80 and x32 numbers mean other calls than the filter reads",
        code: r#"
            import mmap
            def old_entry():
                page = mmap.mmap(-1, 4096, prot=7)
                page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
                address = ctypes.addressof(ctypes.c_char.from_buffer(page))
                ctypes.CFUNCTYPE(ctypes.c_int)(address)()
            tell("int80", "signal 31" if ARM else child(old_entry))
            tell("x32", "signal 31" if ARM else child(lambda: call(0x40000000 | 39)))
        "#,
        prints: "int80 signal 31\nx32 signal 31",
        // Nothing to enter by on aarch64.
        control: Control::Outside(Share::Nothing, "int80 exit 0\nx32 exit 0"),
        ..PLAIN
    },
    Program {
        name: "personality",
        threat: "turns off address randomisation or execute protection for what it starts",
        code: r#"
            probe("personality", 0x0040000, label="no-randomize")
            probe("personality", 0x0400000, label="read-implies-exec")
            probe("personality", 0x0100000, label="mmap-page-zero")
            probe("personality", 0x8, label="linux32")
            probe("personality", 0xffffffff, label="query")
        "#,
        prints: "no-randomize EPERM\nread-implies-exec EPERM\nmmap-page-zero EPERM\nlinux32 ok
            query ok",
        control: Control::Outside(Share::Nothing, "no-randomize ok\nread-implies-exec ok"),
        ..PLAIN
    },
    Program {
        name: "handles_and_watches",
        threat: "open_by_handle_at leaves the root (CVE-2014-3519); watches spend a shared budget",
        code: r#"
            handle = (ctypes.c_uint32 * 34)(128)
            mount_id = ctypes.c_int()
            probe("name_to_handle_at", -100, b"/workspace", handle, ctypes.byref(mount_id), 0)
            probe("open_by_handle_at", -100, handle, 0)
            probe("fanotify_init", 0, 0)
            probe("inotify_init1", 0)
        "#,
        prints: "name_to_handle_at EPERM\nopen_by_handle_at EPERM\nfanotify_init EPERM
            inotify_init1 ENOSYS",
        control: Control::Outside(Share::Nothing, "fanotify_init ok\ninotify_init1 ok"),
        ..PLAIN
    },
    Program {
        name: "memory_policies",
        threat: "rarely used memory calls: attack surface, and moving pages of others",
        code: r#"
            ends = os.pipe()
            buffer = ctypes.create_string_buffer(8)
            part = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
            probe("mbind", 0, 4096, 0, 0, 0, 0)
            probe("set_mempolicy", 0, 0, 0)
            probe("migrate_pages", 0, 0, 0, 0)
            probe("move_pages", 0, 0, 0, 0, 0, 0)
            probe("vmsplice", ends[1], part, 1, 0)
            probe("modify_ldt", 0, buffer, 8)
            probe("memfd_secret", 0)
        "#,
        prints: "mbind EPERM\nset_mempolicy EPERM\nmigrate_pages EPERM\nmove_pages EPERM
            vmsplice EPERM\nmodify_ldt EPERM|none\nmemfd_secret EPERM",
        control: Control::Outside(Share::Nothing, "vmsplice ok"),
        ..PLAIN
    },
    Program {
        name: "typing_into_terminals",
        threat: "TIOCSTI types into the terminal of whoever looks at the output",
        code: r#"
            key = ctypes.create_string_buffer(b"x")
            probe("ioctl", 0, 0x5412, key, label="sti")
            probe("ioctl", 0, 0x5412 | 1 << 32, key, label="sti-high-bits")
            probe("ioctl", 0, 0x541c, key, label="linux")
        "#,
        prints: "sti EPERM\nsti-high-bits EPERM\nlinux EPERM",
        control: Control::Outside(Share::Nothing, "sti ENOTTY\nsti-high-bits ENOTTY"),
        ..PLAIN
    },
    Program {
        name: "loosening_the_filter",
        threat: "a second filter that allows everything, or a debugger's eye on the first",
        code: r#"
            allow = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\xff\x7f")  # return ALLOW
            program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(allow))
            libc.prctl(38, 1, 0, 0, 0)
            probe("seccomp", 1, 0, program, label="allow-all")
            probe("prctl", 22, 2, program, label="old-way")
            probe("keyctl", 0, -2, 1, label="after")
            probe("ptrace", 0x420c, os.getpid(), 0, 0, label="read-filter")
            lines = open("/proc/self/status").read().splitlines()
            modes = dict(line.split(":", 1) for line in lines)
            tell("mode", modes["Seccomp"].strip())
            tell("filters", modes["Seccomp_filters"].strip())
        "#,
        prints: "allow-all EPERM\nold-way EPERM\nafter EPERM\nread-filter EPERM\nmode 2\nfilters 1",
        control: Control::Outside(
            Share::Nothing,
            "allow-all ok\nold-way ok\nafter ok\nfilters 2",
        ),
        ..PLAIN
    },
    Program {
        name: "calls_of_the_future",
        threat: "a call that is newer than the list must not be allowed because nobody knew it",
        code: r#"
            tell("newer", sorted({call(number, 0) for number in range(480, 1024)}))
            tell("statmount", call("statmount", 0, 0, 0, 0))
        "#,
        prints: "newer ['ENOSYS']\nstatmount EPERM|ENOSYS",
        control: tame(
            r#"
            tell("newer", call(39 if not ARM else 172))
            tell("statmount", "EPERM")
            "#,
            "newer ok\nstatmount EPERM",
        ),
        ..PLAIN
    },
];
