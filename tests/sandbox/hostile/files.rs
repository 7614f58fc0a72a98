//! Programs that read or write what is not theirs: /proc, the image, paths out of the root, set-id
//! files.

use super::{Control, PLAIN, Program, Share, tame};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "writing_to_proc",
        threat: "core_pattern, modprobe, sysrq and the like run commands as root of the host",
        code: r#"
            for path in ("sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/hostname",
                         "sys/vm/drop_caches", "sys/vm/panic_on_oom", "sys/fs/suid_dumpable",
                         "sys/net/ipv4/ip_forward", "sys/user/max_user_namespaces",
                         "sysrq-trigger", "irq/default_smp_affinity", "self/uid_map",
                         "self/setgroups", "1/oom_score_adj", "1/comm", "self/attr/exec",
                         "sys/fs/binfmt_misc/register", "sys/kernel/ns_last_pid"):
                tell(path, "open" if opens("/proc/" + path, os.O_WRONLY) == "ok" else "held")
            def write(path, text):
                with open(path, "w") as file:
                    file.write(text)
            attempt("lower-oom", lambda: write("/proc/self/oom_score_adj", "-1000"))
            attempt("map", lambda: write("/proc/self/uid_map", "0 0 1"))
        "#,
        prints: "sys/kernel/core_pattern held\nsys/kernel/modprobe held\nsys/kernel/hostname held
            sys/vm/drop_caches held\nsys/vm/panic_on_oom held\nsys/fs/suid_dumpable held
            sys/net/ipv4/ip_forward held\nsys/user/max_user_namespaces held\nsysrq-trigger held
            irq/default_smp_affinity held\nself/uid_map *\nself/setgroups held
            1/oom_score_adj held\n1/comm held\nself/attr/exec *\nsys/fs/binfmt_misc/register held
            sys/kernel/ns_last_pid held\nlower-oom EACCES\nmap EPERM|EACCES",
        control: Control::Outside(
            Share::Nothing,
            "sys/kernel/core_pattern open\nsys/vm/drop_caches open",
        ),
        ..PLAIN
    },
    Program {
        name: "reading_the_kernel",
        threat: "kernel memory, log and addresses",
        code: r#"
            def read(path):
                try:
                    with open("/proc/" + path, "rb") as file:
                        return "held" if not file.read(4096).strip(b"\0") else "read"
                except OSError:
                    return "held"
            for path in ("kcore", "keys", "kmsg", "timer_list", "interrupts", "vmallocinfo",
                         "slabinfo", "sched_debug", "kpagecount", "1/mem", "1/environ", "1/maps",
                         "1/stack", "1/auxv"):
                tell(path, read(path))
            addresses = {line.split()[0].strip("0") for line in open("/proc/kallsyms")}
            tell("addresses", "shown" if addresses - {""} else "held")
            ranges = {line.split("-")[0].strip(" 0") for line in open("/proc/iomem")}
            tell("iomem", "shown" if ranges - {""} else "held")
        "#,
        prints: "kcore held\nkeys held\nkmsg held\ntimer_list held\ninterrupts held
            vmallocinfo held\nslabinfo held\nsched_debug held\nkpagecount held\n1/mem held
            1/environ held\n1/maps held\n1/stack held\n1/auxv held\naddresses held\niomem held",
        control: Control::Outside(
            Share::Nothing,
            "interrupts read\nvmallocinfo read\n1/environ read\n1/maps read\naddresses shown",
        ),
        ..PLAIN
    },
    Program {
        name: "through_init",
        threat: "init's root, directory, descriptors and binary lead to the host (CVE-2024-21626)",
        code: r#"
            for name in "root", "cwd", "exe", "fd", "fdinfo", "ns/mnt", "ns/net", "map_files":
                path = "/proc/1/" + name
                try:
                    os.readlink(path) if os.path.islink(path) else os.listdir(path)
                    tell(name, "open")
                except OSError as error:
                    tell(name, errno.errorcode[error.errno])
            attempt("chdir", lambda: os.chdir("/proc/1/root"))
        "#,
        prints: "root EACCES|EPERM\ncwd EACCES|EPERM\nexe EACCES|EPERM\nfd EACCES|EPERM
            fdinfo EACCES|EPERM\nns/mnt EACCES|EPERM\nns/net EACCES|EPERM
            map_files EACCES|EPERM\nchdir EACCES|EPERM",
        control: Control::Outside(Share::Nothing, "root open\nfd open\nexe open\nchdir ok"),
        ..PLAIN
    },
    Program {
        name: "inherited_descriptors",
        threat: "a descriptor that was left open is a door (CVE-2024-21626, Leaky Vessels)",
        code: r#"
            found = {}
            for number in range(0, 4096):
                try:
                    found[number] = os.readlink(f"/proc/self/fd/{number}").split(":")[0]
                except OSError:
                    pass
            tell("open", sorted(found))
            tell("nine", 9 in found)
            tell("kinds", sorted(set(found.values())))
            tell("secrets", sorted(set(os.environ) & {"OUTSIDE", "FAREBOX_PORT", "CARGO", "SSH_AUTH_SOCK"}))
        "#,
        prints: "open [0, 1, 2]\nnine False\nkinds ['pipe']\nsecrets []",
        control: Control::Outside(Share::Nothing, "nine True"),
        ..PLAIN
    },
    Program {
        name: "out_of_the_root",
        threat: "dots, links and magic links that end outside of the root",
        code: r#"
            def read(path):
                try:
                    return open(path).read().split()[0]
                except OSError as error:
                    return errno.errorcode[error.errno]
            os.symlink("/" + "../" * 40 + "etc/hostname", "/workspace/up")
            os.symlink("/proc/self/root/../../../etc/hostname", "/workspace/magic")
            os.symlink("/proc/1/root/etc/hostname", "/workspace/init")
            tell("plain", read("/etc/hostname"))
            tell("up", read("/workspace/up"))
            tell("magic", read("/workspace/magic"))
            tell("init", read("/workspace/init"))
            tell("root", os.readlink("/proc/self/root"))
            top = os.stat("/")
            tell("same", os.path.samestat(top, os.stat("/..")))
            tell("shadow", read("/etc/shadow"))
        "#,
        prints: "plain sandbox\nup sandbox\nmagic sandbox\ninit EACCES|EPERM\nroot /\nsame True
            shadow ENOENT|EACCES",
        control: Control::Outside(Share::Nothing, "init *\nsame True"),
        ..PLAIN
    },
    Program {
        name: "changing_the_image",
        threat: "what one tenant writes into the image, the next one runs",
        code: r#"
            def write(path):
                with open(path, "a") as file:
                    file.write('owned')
            for path in "/usr/bin/python3", "/etc/passwd", "/usr/lib/python3.11/os.py", "/bin/sh":
                attempt(path, lambda: write(path))
            attempt("mkdir", lambda: os.mkdir("/new"))
            attempt("rename", lambda: os.rename("/usr", "/workspace/usr"))
            attempt("unlink", lambda: os.unlink("/etc/hosts"))
            attempt("chmod", lambda: os.chmod("/etc/passwd", 0o666))
            attempt("chown", lambda: os.chown("/workspace/main.py", 0, 0))
        "#,
        prints: "/usr/bin/python3 EACCES\n/etc/passwd EACCES\n/usr/lib/python3.11/os.py EACCES
            /bin/sh EACCES\nmkdir EACCES\nrename EACCES|EXDEV\nunlink EACCES\nchmod \
                EPERM\nchown EPERM",
        control: Control::Outside(
            Share::Nothing,
            "/etc/passwd ok\nmkdir ok\nunlink ok\nchmod ok",
        ),
        ..PLAIN
    },
    Program {
        name: "set_id_files",
        threat: "a set-id file makes its caller its owner",
        code: r#"
            import shutil, subprocess
            shutil.copy("/usr/bin/python3", "/workspace/tool")
            os.chmod("/workspace/tool", 0o6755)
            found = subprocess.run("find / -xdev -perm /6000 -type f ! -path '/workspace/*' 2>/dev/null",
                                   shell=True, capture_output=True, text=True).stdout.split()
            tell("in-image", found)
            become = (lambda: (os.setgid(1000), os.setuid(1000))) if os.geteuid() == 0 else None
            done = subprocess.run(["/workspace/tool", "-c", "import os; print(os.geteuid())"],
                                  capture_output=True, text=True, preexec_fn=become)
            tell("runs-as", done.stdout.strip())
        "#,
        prints: "in-image []\nruns-as 1000",
        control: Control::Outside(Share::Nothing, "in-image []\nruns-as 0"),
        ..PLAIN
    },
    Program {
        name: "cores",
        threat: "a core file fills the disk, or is piped to a program of the host",
        code: r#"
            import resource
            attempt("unlimited", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30)))
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), signal.SIGSEGV)
            status = os.waitpid(pid, 0)[1]
            tell("signal", os.WTERMSIG(status))
            tell("dumped", os.WCOREDUMP(status))
            tell("files", sorted(set(os.listdir("/workspace")) - {"main.py"}))
        "#,
        prints: "unlimited EINVAL\nsignal 11\ndumped False\nfiles []",
        control: Control::Outside(Share::Nothing, "unlimited ok\nsignal 11\ndumped True"),
        ..PLAIN
    },
    Program {
        name: "running_from_shared_memory",
        threat: "files on /dev/shm are executed or owned by another",
        code: r#"
            import shutil
            shutil.copy("/bin/true", "/dev/shm/tool")
            os.chmod("/dev/shm/tool", 0o755)
            attempt("execute", lambda: os.execv("/dev/shm/tool", ["tool"]))
        "#,
        prints: "execute EACCES",
        control: tame(
            r#"
            import shutil
            shutil.copy("/bin/true", "/workspace/tool")
            os.chmod("/workspace/tool", 0o755)
            attempt("execute", lambda: os.execv("/workspace/tool", ["tool"]))
            "#,
            "",
        ),
        ..PLAIN
    },
];
