# What every hostile program finds defined. Results are "ok" or the name of an error.
import ctypes, errno, os, signal, sys, time

ARM = os.uname().machine == "aarch64"
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = {  # x86_64, aarch64; None where there is none
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "capset": (126, 91), "chroot": (161, 51), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "delete_module": (176, 106), "fanotify_init": (300, 262),
    "finit_module": (313, 273), "fsopen": (430, 430), "init_module": (175, 105),
    "inotify_init1": (294, 26), "io_uring_setup": (425, 425), "io_setup": (206, 0), "ioctl": (16, 29),
    "iopl": (172, None),
    "ioprio_set": (251, 30), "kcmp": (312, 272), "kexec_load": (246, 104), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "mbind": (237, 235), "memfd_secret": (447, 447),
    "migrate_pages": (256, 238), "mknodat": (259, 33), "modify_ldt": (154, None), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434), "pivot_root": (155, 41), "prctl": (157, 167), "prlimit64": (302, 261),
    "process_madvise": (440, 440), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "quotactl": (179, 60), "reboot": (169, 142), "request_key": (249, 218),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "sched_setscheduler": (144, 119),
    "seccomp": (317, 277), "set_mempolicy": (238, 237), "setdomainname": (171, 162),
    "sethostname": (170, 161), "setns": (308, 268), "setpriority": (141, 140),
    "settimeofday": (164, 170), "socket": (41, 198), "statmount": (457, 457), "swapon": (167, 224),
    "sync": (162, 81), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vhangup": (153, 58), "vmsplice": (278, 75),
}


def call(name, *args):
    """One raw system call."""
    number = NUMBERS[name][ARM] if isinstance(name, str) else name
    if number is None:
        return "none"
    args = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), *args) >= 0:
        return "ok"
    return errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))


def tell(name, result):
    print(name, result, flush=True)


def probe(name, *args, label=None):
    """Makes a call and tells its result."""
    tell(label or name, call(name, *args))


def result_of(function, *args):
    try:
        function(*args)
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except ValueError:
        return "EINVAL"


def attempt(name, function, *args):
    """Calls a function and tells its result."""
    tell(name, result_of(function, *args))


def opens(path, flags=os.O_RDONLY):
    return result_of(lambda: os.close(os.open(path, flags)))


def child(function):
    """Runs a function in a child: "exit N" or "signal N"."""
    pid = os.fork()
    if pid == 0:
        function()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit {os.WEXITSTATUS(status)}"


