//! Programs that ask who they are, try to become someone else, and look for others.

use super::{Control, PLAIN, Program, Share};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "capabilities",
        threat: "one capability left in one set is a way back to root",
        code: r#"
            lines = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
            for name in "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
                tell(name, int(lines[name], 16))
            tell("NoNewPrivs", lines["NoNewPrivs"].strip())
            tell("Seccomp", lines["Seccomp"].strip())
            header = (ctypes.c_uint32 * 2)(0x20080522, 0)
            wanted = (ctypes.c_uint32 * 6)(1 << 21, 1 << 21, 1 << 21, 0, 0, 0)
            probe("capset", header, wanted)
            probe("prctl", 47, 2, 21, 0, 0, label="ambient")
            tell("no-new-privs-off", call("prctl", 38, 0, 0, 0, 0))
        "#,
        prints: "CapInh 0\nCapPrm 0\nCapEff 0\nCapBnd 0\nCapAmb 0\nNoNewPrivs 1\nSeccomp 2
            capset EPERM\nambient EPERM\nno-new-privs-off EINVAL",
        control: Control::Outside(
            Share::Nothing,
            "CapEff >=1\nNoNewPrivs 0\nSeccomp 0\ncapset ok",
        ),
        ..PLAIN
    },
    Program {
        name: "becoming_someone_else",
        threat: "another id of the range, or a group that was left, owns more",
        code: r#"
            tell("ids", os.getresuid() + os.getresgid())
            tell("groups", sorted(set(os.getgroups())))
            attempt("setgroups", lambda: os.setgroups([0]))
            attempt("setuid-0", lambda: os.setuid(0))
            attempt("setresuid", lambda: os.setresuid(-1, 65534, -1))
            attempt("setgid-0", lambda: os.setgid(0))
            fields = open("/proc/self/uid_map").read().split()
            tell("mapped", "range" if int(fields[1]) >= 1 << 28 and fields[2] == "65536" else fields)
        "#,
        prints: "ids (1000, 1000, 1000, 1000, 1000, 1000)\ngroups [1000]\nsetuid-0 EPERM
            setresuid EPERM\nsetgid-0 EPERM\nsetgroups EPERM\nmapped range",
        control: Control::Outside(Share::Nothing, "setuid-0 ok\nsetgroups ok"),
        ..PLAIN
    },
    Program {
        name: "seeing_others",
        threat: "processes of the host or of other tenants can be seen, and signalled",
        code: r#"
            seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            tell("parent", os.getppid())
            tell("strangers", len(set(seen) - {1, os.getpid()}))
            alive = [pid for pid in range(2, 40000) if pid != os.getpid()
                     and result_of(os.kill, pid, 0) != "ESRCH"]
            tell("reachable", len(alive))
            tell("load", open("/proc/loadavg").read().split()[3].split("/")[1].isdigit())
        "#,
        prints: "parent 1\nstrangers 0\nreachable 0\nload True",
        control: Control::Outside(Share::Processes, "strangers >=1\nreachable >=1"),
        ..PLAIN
    },
    Program {
        name: "crippling_init_by_signals",
        threat: "without init nobody reaps, reports or can be told to end",
        code: r#"
            for number in range(1, 65):
                result_of(os.kill, 1, number)
            tell("alive", result_of(os.kill, 1, 0))
            tell("thread", result_of(signal.pidfd_send_signal, os.pidfd_open(1), signal.SIGKILL))
            pid = os.fork()
            if pid == 0:
                if os.fork() == 0:
                    time.sleep(0.05)
                os._exit(0)
            os.waitpid(pid, 0)
            for _ in range(1000):
                left = [name for name in os.listdir("/proc") if name.isdigit()]
                if len(left) == 2:
                    break
                time.sleep(0.01)
            tell("reaps", len(left) == 2)
            result_of(os.kill, -1, signal.SIGSTOP)
            result_of(os.kill, -1, signal.SIGKILL)
            tell("still", result_of(os.kill, 1, 0))
        "#,
        prints: "alive ok\nthread ok\nreaps True\nstill ok",
        control: super::tame(
            r#"
            victim = os.fork()
            if victim == 0:
                while True: signal.pause()
            result_of(os.kill, victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            tell("alive", result_of(os.kill, victim, 0))
            "#,
            "alive ESRCH",
        ),
        ..PLAIN
    },
];
