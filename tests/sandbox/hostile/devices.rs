//! Programs that look for devices, for the host's file systems, and for control files of the
//! kernel.

use super::{Control, PLAIN, Program, Share};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "making_device_nodes",
        threat: "a node of one's own reaches the memory or the disks of the host",
        code: r#"
            import stat
            def node(kind, major, minor):
                return os.mknod(f"/workspace/{major}-{minor}", 0o666 | kind, os.makedev(major, minor))
            attempt("mem", lambda: node(stat.S_IFCHR, 1, 1))
            attempt("kmsg", lambda: node(stat.S_IFCHR, 1, 11))
            attempt("loop", lambda: node(stat.S_IFBLK, 7, 0))
            attempt("disk", lambda: node(stat.S_IFBLK, 254, 0))
            attempt("tun", lambda: node(stat.S_IFCHR, 10, 200))
            attempt("shm-null", lambda: os.mknod("/dev/shm/n", 0o666 | stat.S_IFCHR, os.makedev(1, 3)))
            attempt("fifo", lambda: os.mkfifo("/workspace/fifo"))
        "#,
        prints: "mem EPERM\nkmsg EPERM\nloop EPERM\ndisk EPERM\ntun EPERM\nshm-null EPERM\nfifo ok",
        control: Control::Outside(Share::Nothing, "mem ok\nloop ok\nshm-null ok"),
        ..PLAIN
    },
    Program {
        name: "devices_that_are_there",
        threat: "a device of the host is in /dev, or one that is there can be replaced",
        code: r#"
            known = "fd full kcore null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
            tell("others", [name for name in sorted(os.listdir("/dev")) if name not in known])
            for name in "mem", "kmsg", "loop-control", "fuse", "kvm", "vsock", "net/tun", "console":
                tell(name, opens("/dev/" + name))
            tell("tty", opens("/dev/tty", os.O_RDWR))
            core = "/dev/kcore"
            tell("kcore", "held" if not os.path.exists(core) or not open(core, "rb").read(1) else "read")
            attempt("unlink-null", lambda: os.unlink("/dev/null"))
            attempt("chmod-null", lambda: os.chmod("/dev/null", 0))
            attempt("chown-null", lambda: os.chown("/dev/null", 1000, 1000))
            attempt("make", lambda: os.close(os.open("/dev/new", os.O_CREAT | os.O_WRONLY)))
            tell("null", open("/dev/null").read() == "" and open("/dev/zero", "rb").read(2) == b"\0\0")
        "#,
        prints: "others []\nmem ENOENT\nkmsg ENOENT\nloop-control ENOENT\nfuse ENOENT\nkvm ENOENT
            vsock ENOENT\nnet/tun ENOENT\nconsole ENOENT\ntty ENXIO
kcore held
            unlink-null EACCES|EPERM|EBUSY\nchmod-null EPERM|EROFS\nchown-null EPERM|EROFS
            make EACCES|EROFS\nnull True",
        control: Control::Outside(Share::Nothing, "others ['kmsg', 'mem']\nmake ok"),
        ..PLAIN
    },
    Program {
        name: "no_sys_and_no_cgroups",
        threat: "own limits are files: release_agent, memory.limit_in_bytes (CVE-2022-0492)",
        code: r#"
            tell("sys", len(os.listdir("/sys")) if os.path.isdir("/sys") else 0)
            mounts = [line.split() for line in open("/proc/self/mountinfo")]
            kinds = {mount[mount.index("-") + 1] for mount in mounts}
            tell("kinds", " ".join(sorted(kinds - {"devtmpfs"})))
            groups = {line.rstrip("\n").split(":", 2)[2] for line in open("/proc/self/cgroup")}
            tell("groups", sorted(groups))
            options = {mount[4]: mount[5] for mount in mounts}
            loose = [at for at, how in options.items()
                     if "nosuid" not in how and how.split(",")[0] != "ro"]
            tell("not-nosuid", loose)
        "#,
        prints: "sys 0\nkinds overlay proc tmpfs\ngroups ['/']\nnot-nosuid []",
        control: Control::Outside(Share::Nothing, "sys >=5\nkinds overlay proc sysfs tmpfs"),
        ..PLAIN
    },
    Program {
        name: "names_of_the_host",
        threat: "paths of the host in mountinfo help to attack it, and tell of other tenants",
        code: r#"
            text = open("/proc/self/mountinfo").read() + open("/proc/mounts").read()
            words = "farebox", "sha256", "/var/lib", "/home/", "images", "rootfs", "/tmp"
            for word in words:
                tell(word, word in text)
            arguments = open("/proc/1/cmdline").read() + open("/proc/1/comm").read()
            tell("init", [word for word in ("/", "farebox-bed", "images") if word in arguments])
        "#,
        prints: "farebox False\nsha256 False\n/var/lib False\n/home/ False\nimages False
            rootfs False\n/tmp False\ninit []",
        control: Control::Outside(Share::Nothing, "sha256 True\nrootfs True"),
        ..PLAIN
    },
    Program {
        name: "ioctls_on_the_disk",
        threat: "freezes, shuts down, trims or resizes the file system that its files are on",
        code: r#"
            file = os.open("/workspace/file", os.O_CREAT | os.O_RDWR)
            root = os.open("/", os.O_RDONLY)
            attempt("overlay", lambda: os.setxattr(file, "trusted.overlay.opaque", b"y"))
            attempt("trusted", lambda: os.setxattr(file, "trusted.other", b"y"))
            attempt("capability", lambda: os.setxattr(file, "security.capability",
                    b"\x01\0\0\x02\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\0\0\0\0"))
            calls = {"freeze": 0xC0045877, "thaw": 0xC0045878, "trim": 0xC0185879,
                     "shutdown": 0x8004587D, "resize": 0x40086610, "immutable": 0x40086602}
            for name, number in calls.items():
                value = ctypes.c_long(0x10)
                results = {call("ioctl", one, number, ctypes.byref(value)) for one in (file, root)}
                tell(name, "held" if results <= {"EPERM", "ENOTTY", "EOPNOTSUPP", "EACCES"} else results)
        "#,
        prints: "freeze held\nthaw held\ntrim held\nshutdown held\nresize held\nimmutable held
            overlay EPERM
trusted EPERM\ncapability EPERM",
        control: Control::Outside(Share::Nothing, "trusted ok\ncapability ok"),
        ..PLAIN
    },
];
