//! Programs that try what only the machine's administrator may: mounts, modules, clocks, names,
//! power.

use super::{Control, PLAIN, Program, Share};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "mounts",
        threat: "mounting shows or hides what the root was built to hide or show",
        code: r#"
            probe("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None)
            probe("mount", b"/", b"/tmp", None, 4096, None, label="bind")
            probe("mount", None, b"/", None, 0x100000, None, label="shared")
            probe("mount", None, b"/proc/sys", None, 32 | 4096, None, label="remount")
            probe("mount", b"cgroup", b"/tmp", b"cgroup", 0, b"memory", label="cgroup")
            probe("mount", b"proc", b"/tmp", b"proc", 0, None, label="proc")
            probe("umount2", b"/proc/kcore", 2)
            probe("pivot_root", b"/", b"/tmp")
            probe("chroot", b"/tmp/..")
            probe("open_tree", -100, b"/", 1)
            probe("move_mount", -100, b"/tmp", -100, b"/workspace", 0)
            probe("fsopen", b"tmpfs", 0)
            probe("mount_setattr", -100, b"/", 0, (ctypes.c_uint64 * 4)(), 32)
        "#,
        prints: "mount EPERM\nbind EPERM\nshared EPERM\nremount EPERM\ncgroup EPERM\nproc EPERM
            umount2 EPERM\npivot_root EPERM\nchroot EPERM\nopen_tree EPERM\nmove_mount EPERM
            fsopen EPERM\nmount_setattr EPERM",
        control: Control::Outside(Share::Nothing, "mount ok\nbind ok\nfsopen ok\nchroot ok"),
        ..PLAIN
    },
    Program {
        name: "modules_and_power",
        threat: "loads code into the kernel, or takes the machine down",
        code: r#"
            probe("init_module", 0, 0, b"")
            probe("finit_module", 0, b"", 0)
            probe("delete_module", b"farebox-none", 0x800)
            probe("kexec_load", 0, 0, 0, 1 << 60)
            probe("reboot", 1, 2, 3, 0)
            probe("swapon", b"/nonexistent", 0)
            probe("acct", b"/nonexistent")
            probe("iopl", 0)
            probe("syslog", 10, 0, 0)
            probe("quotactl", 0x800001 << 8, 0, 0, 0)
            probe("vhangup") if "OUTSIDE" not in os.environ else tell("vhangup", "ok")
        "#,
        prints: "init_module EPERM\nfinit_module EPERM\ndelete_module EPERM\nkexec_load EPERM
            reboot EPERM\nswapon EPERM\nacct EPERM\niopl EPERM|none\nsyslog EPERM\nquotactl EPERM
            vhangup EPERM",
        control: Control::Outside(Share::Nothing, "reboot EINVAL\nacct ENOENT\nsyslog ok"),
        ..PLAIN
    },
    Program {
        name: "clocks_and_names",
        threat: "moves the clock or changes the name of the machine",
        code: r#"
            probe("settimeofday", 0, 0)
            probe("clock_settime", 1, (ctypes.c_long * 2)(0, 0))
            timex = (ctypes.c_long * 26)(1)  # ADJ_OFFSET
            tell("adjtimex", call("adjtimex", timex) if "OUTSIDE" not in os.environ else "ok")
            probe("sethostname", b"owned", 5)
            probe("setdomainname", b"owned", 5)
            tell("hostname", os.uname().nodename)
        "#,
        prints: "settimeofday EPERM\nclock_settime EPERM\nadjtimex EPERM\nsethostname EPERM
            setdomainname EPERM\nhostname sandbox",
        control: Control::Outside(
            Share::Nothing,
            "settimeofday ok\nclock_settime EINVAL\nsethostname ok\nhostname owned",
        ),
        ..PLAIN
    },
    Program {
        name: "syncing_everything",
        threat: "sync(2) writes back the disks of all tenants, and waits for them",
        code: r#"probe("sync") if "OUTSIDE" not in os.environ else tell("sync", "ok")"#,
        prints: "sync EPERM",
        control: Control::Outside(Share::Nothing, "sync ok"),
        ..PLAIN
    },
    Program {
        name: "real_time_and_priority",
        threat: "a real-time task or a low nice value takes the CPU from everyone",
        code: r#"
            attempt("fifo", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
            attempt("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
            probe("ioprio_set", 1, 0, 1 << 13 | 4, label="io-real-time")
            import resource
            attempt("limit", lambda: resource.setrlimit(resource.RLIMIT_RTPRIO, (99, 99)))
        "#,
        prints: "fifo EPERM\nnice EACCES|EPERM\nio-real-time EPERM\nlimit EINVAL|EPERM",
        control: Control::Outside(Share::Nothing, "nice ok\nio-real-time ok"),
        ..PLAIN
    },
    Program {
        name: "raising_limits",
        threat: "limits on files, locked memory, queues and cores are only soft",
        code: r#"
            import resource
            for name in "NOFILE", "CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "SIGPENDING":
                kind = getattr(resource, "RLIMIT_" + name, None)
                kind = {"MSGQUEUE": 12, "SIGPENDING": 11}.get(name, kind)
                soft, hard = resource.getrlimit(kind)
                tell(name + "-bounded", 0 <= hard < 1 << 50)
                attempt(name, lambda: resource.setrlimit(kind, (hard, max(hard, 0) + 1)))
            libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
            memory = ctypes.create_string_buffer(1 << 20)
            tell("mlock", "ok" if libc.mlock(ctypes.addressof(memory), 1 << 20) == 0 else "refused")
        "#,
        prints: "NOFILE-bounded True\nNOFILE EINVAL\nCORE-bounded True\nCORE EINVAL
            FSIZE-bounded True\nFSIZE EINVAL\nMEMLOCK-bounded True\nMEMLOCK EINVAL
            MSGQUEUE-bounded True\nMSGQUEUE EINVAL\nSIGPENDING-bounded True\nSIGPENDING EINVAL
            mlock refused",
        control: Control::Outside(Share::Nothing, "FSIZE-bounded False\nmlock ok"),
        ..PLAIN
    },
];
