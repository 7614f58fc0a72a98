//! Programs that ask for the machine's size, and programs that change what they are told.

use super::{Control, Language, PLAIN, Program, Share, raised};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "size_of_the_machine",
        threat: "a program that takes the host for its own starts too many threads, fills too \
            large caches, and learns what the host is and how busy",
        code: r#"
            import subprocess
            tell("cpu_count", os.cpu_count())
            tell("online", os.sysconf("SC_NPROCESSORS_ONLN"))
            tell("affinity", len(os.sched_getaffinity(0)))
            tell("nproc", subprocess.run(["nproc"], capture_output=True, text=True).stdout.strip())
            def lines(name, start):
                return [line for line in open("/proc/" + name) if line.startswith(start)]
            tell("cpuinfo", len(lines("cpuinfo", "processor")))
            tell("stat", len(lines("stat", "cpu")) - 1)
            memory = {line.split()[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
            tell("memory", memory["MemTotal:"] // 1024)
            tell("available", memory["MemAvailable:"] // 1024)
            tell("swap", memory["SwapTotal:"])
            tell("load", open("/proc/loadavg").read())
            tell("uptime", open("/proc/uptime").read())
            since = int(lines("stat", "btime")[0].split()[1])
            began = since + int(open("/proc/self/stat").read().split()[21]) / os.sysconf("SC_CLK_TCK")
            system = (ctypes.c_long * 16)()
            libc.sysinfo(system)
            for name, age in (("since", time.time() - since), ("began", time.time() - began),
                              ("system", system[0]), ("monotonic", time.monotonic()),
                              ("boottime", time.clock_gettime(time.CLOCK_BOOTTIME))):
                tell(name, "now" if -2 < age < 100 else "long-ago")
        "#,
        prints: "cpu_count 1\nonline 1\naffinity 1\nnproc 1\ncpuinfo 1\nstat 1\nmemory 128
            available 128\nswap 0\nload 0.00 0.00 0.00 1/1 1\nuptime 0.00 0.00\nsince now
            began now\nsystem now\nmonotonic now\nboottime now",
        control: Control::Outside(
            Share::Nothing,
            "cpuinfo >=1\nstat >=1\nmemory >=200\nload *\nbegan now",
        ),
        ..PLAIN
    },
    Program {
        name: "size_of_the_machine_in_node",
        threat: "node sizes its heap and its pools by what it takes the machine for",
        language: Language::Node,
        code: r"
            const os = require('os');
            console.log('cpus', os.cpus().length);
            console.log('parallel', os.availableParallelism ? os.availableParallelism() : 1);
            console.log('memory', os.totalmem() / 1048576);
            console.log('free', os.freemem() / 1048576);
            console.log('load', os.loadavg().join(' '));
            console.log('model', os.cpus()[0].model.length > 0);
        ",
        prints: "cpus 1\nparallel 1\nmemory 128\nfree 128\nload 0 0 0\nmodel true",
        control: raised(
            |limits| limits.memory_bytes = 256 << 20,
            "exited 0",
            "cpus 1\nparallel 1\nmemory 256\nfree 256\nload 0 0 0\nmodel true",
        ),
        ..PLAIN
    },
    Program {
        name: "changing_what_is_told",
        threat: "what one program writes there, another believes; what is bound over the host's \
            files is taken away again",
        code: r#"
            names = "cpuinfo", "loadavg", "meminfo", "stat", "uptime"
            before = [open("/proc/" + name).read() for name in names]
            for name in names:
                path = "/proc/" + name
                tell(name, "open" if opens(path, os.O_WRONLY) == "ok" else "held")
                attempt(name + "-truncate", lambda: os.truncate(path, 0))
                attempt(name + "-chmod", lambda: os.chmod(path, 0o666))
                attempt(name + "-unlink", lambda: os.unlink(path))
                attempt(name + "-rename", lambda: os.rename("/workspace/main.py", path))
            probe("mount", b"/proc/version", b"/proc/meminfo", None, 4096, None)
            probe("umount2", b"/proc/meminfo", 2)
            probe("mount_setattr", -100, b"/proc/stat", 0, (ctypes.c_uint64 * 4)(0, 1), 32)
            after = [open("/proc/" + name).read() for name in names]
            tell("same", before == after)
        "#,
        prints: "cpuinfo held\ncpuinfo-truncate EACCES|EROFS\ncpuinfo-chmod EPERM|EROFS
            cpuinfo-unlink EACCES|EPERM|EBUSY\ncpuinfo-rename EXDEV
            loadavg held\nloadavg-truncate EACCES|EROFS\nloadavg-chmod EPERM|EROFS
            loadavg-unlink EACCES|EPERM|EBUSY\nloadavg-rename EXDEV
            meminfo held\nmeminfo-truncate EACCES|EROFS\nmeminfo-chmod EPERM|EROFS
            meminfo-unlink EACCES|EPERM|EBUSY\nmeminfo-rename EXDEV
            stat held\nstat-truncate EACCES|EROFS\nstat-chmod EPERM|EROFS
            stat-unlink EACCES|EPERM|EBUSY\nstat-rename EXDEV
            uptime held\nuptime-truncate EACCES|EROFS\nuptime-chmod EPERM|EROFS
            uptime-unlink EACCES|EPERM|EBUSY\nuptime-rename EXDEV
            mount EPERM\numount2 EPERM\nmount_setattr EPERM\nsame True",
        control: Control::Outside(Share::Nothing, "meminfo open\nmount ok\numount2 ok"),
        ..PLAIN
    },
];
