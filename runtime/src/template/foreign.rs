//! What the module that templates load names of others: Python's stable interface, the C library,
//! and system calls that no library has.

use core::arch::global_asm;
use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};

use super::{DESCRIPTORS_MAX, Order};

pub(crate) const CLONE_VM: c_ulong = 0x100;
pub(crate) const CLONE_VFORK: c_ulong = 0x4000;
pub(crate) const CLONE_NEWTIME: c_int = 0x80;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub(crate) const SIGCHLD: c_ulong = 17;
pub(crate) const WALL: c_int = 0x4000_0000;
pub(crate) const EINTR: c_int = 4;
pub(crate) const SOL_SOCKET: c_int = 1;
pub(crate) const SCM_RIGHTS: c_int = 1;
pub(crate) const MSG_CTRUNC: c_int = 0x8;
pub(crate) const MSG_TRUNC: c_int = 0x20;
pub(crate) const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
pub(crate) const O_RDONLY: c_int = 0;
pub(crate) const O_WRONLY: c_int = 1;
pub(crate) const O_CLOEXEC: c_int = 0o2_000_000;
pub(crate) const PR_SET_DUMPABLE: c_int = 4;
pub(crate) const PR_CAPBSET_DROP: c_int = 24;
pub(crate) const PR_SET_NO_NEW_PRIVS: c_int = 38;
pub(crate) const PR_CAP_AMBIENT: c_int = 47;
pub(crate) const PR_CAP_AMBIENT_CLEAR_ALL: c_ulong = 4;
pub(crate) const SECCOMP_SET_MODE_FILTER: c_ulong = 1;

#[cfg(target_arch = "x86_64")]
pub(crate) mod call {
    use core::ffi::c_long;
    pub(crate) const CLONE: c_long = 56;
    pub(crate) const CAPSET: c_long = 126;
    pub(crate) const UNSHARE: c_long = 272;
    pub(crate) const SETNS: c_long = 308;
    pub(crate) const SECCOMP: c_long = 317;
    pub(crate) const RSEQ: c_long = 334;
    pub(crate) const CLOSE_RANGE: c_long = 436;
}
#[cfg(target_arch = "aarch64")]
pub(crate) mod call {
    use core::ffi::c_long;
    pub(crate) const CLONE: c_long = 220;
    pub(crate) const CAPSET: c_long = 91;
    pub(crate) const UNSHARE: c_long = 97;
    pub(crate) const SETNS: c_long = 268;
    pub(crate) const SECCOMP: c_long = 277;
    pub(crate) const RSEQ: c_long = 293;
    pub(crate) const CLOSE_RANGE: c_long = 436;
}

/// The same for both.
pub(crate) const CALL_CLONE3: c_long = 435;

/// `struct clone_args`.
#[repr(C)]
pub(crate) struct Birth {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// `struct rlimit`.
#[repr(C)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// `struct iovec`.
#[repr(C)]
pub(crate) struct Part {
    pub(crate) base: *mut c_void,
    pub(crate) len: usize,
}

/// `struct msghdr`, as the kernel has it.
#[repr(C)]
pub(crate) struct Head {
    pub(crate) name: *mut c_void,
    pub(crate) name_len: c_uint,
    pub(crate) parts: *mut Part,
    pub(crate) parts_len: usize,
    pub(crate) control: *mut c_void,
    pub(crate) control_len: usize,
    pub(crate) flags: c_int,
}

/// `struct cmsghdr` with its data.
#[repr(C)]
pub(crate) struct Control {
    pub(crate) len: usize,
    pub(crate) level: c_int,
    pub(crate) kind: c_int,
    pub(crate) descriptors: [c_int; DESCRIPTORS_MAX],
}

/// `struct sock_fprog`.
#[repr(C)]
pub(crate) struct Filter {
    pub(crate) len: u16,
    pub(crate) instructions: *const c_void,
}

/// `PyObject`, of which nothing is looked at.
#[repr(C)]
pub(crate) struct Object {
    pub(crate) count: isize,
    pub(crate) kind: *mut c_void,
}

/// `PyMethodDef`.
#[repr(C)]
pub(crate) struct Method {
    pub(crate) name: *const c_char,
    pub(crate) function: Option<unsafe extern "C" fn(*mut Object, *mut Object) -> *mut Object>,
    pub(crate) flags: c_int,
    pub(crate) doc: *const c_char,
}

/// `PyModuleDef`.
#[repr(C)]
pub(crate) struct Module {
    pub(crate) head: Object,
    pub(crate) init: *mut c_void,
    pub(crate) index: isize,
    pub(crate) copy: *mut c_void,
    pub(crate) name: *const c_char,
    pub(crate) doc: *const c_char,
    pub(crate) size: isize,
    pub(crate) methods: *mut Method,
    pub(crate) slots: *mut c_void,
    pub(crate) traverse: *mut c_void,
    pub(crate) clear: *mut c_void,
    pub(crate) free: *mut c_void,
}

unsafe extern "C" {
    // Python's.
    pub(crate) fn PyModule_Create2(module: *mut Module, version: c_int) -> *mut Object;
    pub(crate) fn PyLong_FromLong(number: c_long) -> *mut Object;
    pub(crate) fn PyBytes_AsString(bytes: *mut Object) -> *mut c_char;
    pub(crate) fn PyBytes_Size(bytes: *mut Object) -> isize;
    pub(crate) fn PyOS_BeforeFork();
    pub(crate) fn PyOS_AfterFork_Parent();
    pub(crate) fn PyOS_AfterFork_Child();

    // The C library's.
    pub(crate) fn __errno_location() -> *mut c_int;
    pub(crate) fn _exit(code: c_int) -> !;
    pub(crate) fn close(fd: c_int) -> c_int;
    pub(crate) fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    pub(crate) fn dup2(from: c_int, to: c_int) -> c_int;
    pub(crate) fn fork() -> c_int;
    pub(crate) fn getpid() -> c_int;
    pub(crate) fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    pub(crate) fn prctl(option: c_int, ...) -> c_int;
    pub(crate) fn recvmsg(socket: c_int, head: *mut Head, flags: c_int) -> isize;
    pub(crate) fn setgroups(count: usize, groups: *const c_uint) -> c_int;
    pub(crate) fn setresgid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    pub(crate) fn setresuid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    pub(crate) fn setrlimit(resource: c_uint, limit: *const Limit) -> c_int;
    pub(crate) fn setsid() -> c_int;
    pub(crate) fn syscall(number: c_long, ...) -> c_long;
    pub(crate) fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    pub(crate) fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize;

    /// Below: forks by the system call `number`, on this very stack. The child calls `child`, and
    /// if that returns, in a copy of the child, answers what it does; the parent is answered the
    /// child's pid.
    pub(crate) fn farebox_clone(
        number: c_long,
        first: usize,
        second: usize,
        child: unsafe extern "C" fn(*const Order) -> c_long,
        order: *const Order,
    ) -> c_long;
}

// As with vfork, the parent must be stopped until the child is gone (CLONE_VFORK), and the child
// must not return while it shares the stack: what it pushes lies below all that the parent needs.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".hidden farebox_clone",
    ".globl farebox_clone",
    ".type farebox_clone, @function",
    "farebox_clone:",
    "push rbx",
    "push r12",
    "push r13",
    "mov r12, rcx",
    "mov r13, r8",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "test rax, rax",
    "jnz 2f",
    "mov rdi, r13",
    "call r12",
    "2:",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".hidden farebox_clone",
    ".globl farebox_clone",
    ".type farebox_clone, %function",
    "farebox_clone:",
    "stp x29, x30, [sp, #-32]!",
    "stp x19, x20, [sp, #16]",
    "mov x19, x3",
    "mov x20, x4",
    "mov x8, x0",
    "mov x0, x1",
    "mov x1, x2",
    "mov x2, xzr",
    "mov x3, xzr",
    "mov x4, xzr",
    "svc #0",
    "cbnz x0, 2f",
    "mov x0, x20",
    "blr x19",
    "2:",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #32",
    "ret",
);
