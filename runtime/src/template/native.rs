//! What a template does that Python cannot: waits for requests, and forks into sandboxes.
//!
//! A module of CPython's stable interface, for whichever Python an image has; `build.rs` compiles
//! it by itself, without the standard library, and a template loads it. It is the image's own
//! process that runs it, with no privilege but that of owning the user namespaces of its sandboxes.
//!
//! ```text
//! template    waits for a request; forks as vfork does, and is stopped until its child is gone
//!   guide     shares the template's memory: enters the sandbox's groups, if it was not born in
//!             them, and namespaces
//!     step    shares it too, but is in the sandbox's pid namespace
//!       fork  a copy of the template: an orphan once `step` is gone, and so init's child. Gives
//!             everything up, and goes on in Python where the template called
//! ```
//!
//! So the template's memory is copied once, by a process that is in the sandbox's groups already.

#![no_std]
#![allow(unsafe_code, reason = "nothing else is possible here")]

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::mem::zeroed;
use core::ptr::{null, null_mut};

use foreign::*;
use request::{BY_BIRTH, NAMESPACES, Request, VERSION};

mod foreign;
mod request;

/// Where requests come from.
const SOCKET: c_int = 0;
/// Descriptors of each request before those of groups.
const FIXED: usize = 3 + NAMESPACES.len();
/// Most groups that are entered: one for each hierarchy.
const GROUPS_MAX: usize = 8;
/// Most descriptors that come with one.
const DESCRIPTORS_MAX: usize = FIXED + GROUPS_MAX;

/// A request with its descriptors and the filter.
#[repr(C)]
struct Order {
    request: Request,
    descriptors: [c_int; DESCRIPTORS_MAX],
    count: usize,
    filter: Filter,
}

static mut METHODS: [Method; 2] = [
    Method {
        name: c"serve".as_ptr(),
        function: Some(serve),
        flags: 8,
        doc: null(),
    },
    Method {
        name: null(),
        function: None,
        flags: 0,
        doc: null(),
    },
];
static mut MODULE: Module = Module {
    head: Object {
        count: 1,
        kind: null_mut(),
    },
    init: null_mut(),
    index: 0,
    copy: null_mut(),
    name: c"farebox".as_ptr(),
    doc: null(),
    size: -1,
    methods: (&raw mut METHODS).cast(),
    slots: null_mut(),
    traverse: null_mut(),
    clear: null_mut(),
    free: null_mut(),
};

/// What Python calls when it loads the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit_farebox() -> *mut Object {
    // 3: the version of the stable interface.
    unsafe { PyModule_Create2(&raw mut MODULE, 3) }
}

/// `serve(filter)`: never returns in the template; in each fork, the fork's pid in its sandbox.
unsafe extern "C" fn serve(_module: *mut Object, filter: *mut Object) -> *mut Object {
    unsafe {
        let bytes = PyBytes_Size(filter);
        let instructions = PyBytes_AsString(filter);
        if instructions.is_null() || bytes % 8 != 0 || bytes / 8 > 4096 {
            _exit(2);
        }
        let mut order: Order = zeroed();
        order.filter = Filter {
            len: (bytes / 8) as u16,
            instructions: instructions.cast_const().cast(),
        };
        loop {
            if !receive(&mut order) {
                continue;
            }
            PyOS_BeforeFork();
            let guide = bear_guide(&order);
            if guide == 0 {
                PyOS_AfterFork_Child();
                become_tenant(&order);
                return PyLong_FromLong(getpid().into());
            }
            if guide > 0 {
                wait_for(guide as c_int);
            }
            PyOS_AfterFork_Parent();
            close_all(&order.descriptors[..order.count]);
        }
    }
}

/// Waits for a request; false if what came is none.
unsafe fn receive(order: &mut Order) -> bool {
    unsafe {
        let mut control: Control = zeroed();
        let mut part = Part {
            base: (&raw mut order.request).cast(),
            len: size_of::<Request>(),
        };
        let mut head: Head = zeroed();
        head.parts = &raw mut part;
        head.parts_len = 1;
        head.control = (&raw mut control).cast();
        head.control_len = size_of::<Control>();
        let len = recvmsg(SOCKET, &raw mut head, MSG_CMSG_CLOEXEC);
        if len < 0 && *__errno_location() == EINTR {
            return false;
        }
        if len <= 0 {
            _exit(0);
        }
        order.count = 0;
        if head.control_len >= 16 && control.level == SOL_SOCKET && control.kind == SCM_RIGHTS {
            order.count = ((control.len - 16) / size_of::<c_int>()).min(DESCRIPTORS_MAX);
            order.descriptors = control.descriptors;
        }
        let whole = len as usize == size_of::<Request>()
            && head.flags & (MSG_TRUNC | MSG_CTRUNC) == 0
            && order.request.version == VERSION
            && order.count > FIXED;
        if !whole {
            close_all(&order.descriptors[..order.count]);
        }
        whole
    }
}

unsafe fn close_all(descriptors: &[c_int]) {
    for descriptor in descriptors {
        unsafe { close(*descriptor) };
    }
}

unsafe fn wait_for(pid: c_int) {
    unsafe { while waitpid(pid, null_mut(), WALL) < 0 && *__errno_location() == EINTR {} }
}

/// Says on the process's standard error-to-be what cannot be done.
unsafe fn say(order: &Order, what: &[u8]) {
    unsafe { write(order.descriptors[2], what.as_ptr().cast(), what.len()) };
}

/// Says it, and ends.
unsafe fn fail(order: &Order, what: &[u8]) -> ! {
    unsafe {
        say(order, what);
        _exit(1)
    }
}

/// Forks the guide, where it can be in the sandbox's group from the start; answers as
/// `farebox_clone` does.
unsafe fn bear_guide(order: &Order) -> c_long {
    unsafe {
        if order.request.way != BY_BIRTH {
            return bear(guide, order);
        }
        let mut birth: Birth = zeroed();
        birth.flags = u64::from(CLONE_VM | CLONE_VFORK) | CLONE_INTO_CGROUP;
        birth.exit_signal = u64::from(SIGCHLD);
        birth.cgroup = order.descriptors[FIXED] as u64;
        let place = (&raw const birth).addr();
        let guide = farebox_clone(CALL_CLONE3, place, size_of::<Birth>(), guide, order);
        if guide < 0 {
            say(order, b"template: cannot fork into a group\n");
        }
        guide
    }
}

/// Forks, sharing memory, a process that calls `child`.
unsafe fn bear(child: unsafe extern "C" fn(*const Order) -> c_long, order: *const Order) -> c_long {
    let flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    unsafe { farebox_clone(call::CLONE, flags as usize, 0, child, order) }
}

/// The guide: into the groups, into the namespaces, then on.
unsafe extern "C" fn guide(order: *const Order) -> c_long {
    unsafe {
        let order = &*order;
        let groups = match order.request.way {
            BY_BIRTH => &[],
            _ => &order.descriptors[FIXED..order.count],
        };
        for group in groups {
            if write(*group, b"0".as_ptr().cast(), 1) != 1 {
                fail(order, b"template: cannot enter a group\n");
            }
        }
        for (at, _) in NAMESPACES.iter().enumerate() {
            if syscall(
                call::SETNS,
                order.descriptors[3 + at] as c_long,
                0 as c_long,
            ) != 0
            {
                fail(order, b"template: cannot enter a namespace\n");
            }
        }
        let step = bear(step, order);
        if step == 0 {
            return 0;
        }
        if step < 0 {
            fail(order, b"template: cannot step into the sandbox\n");
        }
        wait_for(step as c_int);
        _exit(0)
    }
}

/// The step: in the pid namespace, but still the template's memory.
unsafe extern "C" fn step(_order: *const Order) -> c_long {
    unsafe {
        match fork() {
            0 => 0,
            pid => _exit((pid < 0).into()),
        }
    }
}

/// Gives up everything that the sandbox's own processes do not have.
unsafe fn become_tenant(order: &Order) {
    unsafe {
        let must = |done: bool, what: &[u8]| {
            if !done {
                fail(order, what);
            }
        };
        register_cpu();
        must(begin_time(order), b"fork: cannot begin its time\n");
        for [number, value] in order.request.limits {
            let limit = Limit {
                soft: value,
                hard: value,
            };
            must(
                setrlimit(number as c_uint, &raw const limit) == 0,
                b"fork: cannot take a limit\n",
            );
        }
        let user = order.request.user;
        let ids = setgroups(1, &raw const user) == 0
            && setresgid(user, user, user) == 0
            && setresuid(user, user, user) == 0;
        must(ids, b"fork: cannot take its ids\n");
        must(drop_capabilities(), b"fork: cannot drop capabilities\n");
        must(
            prctl(
                PR_SET_NO_NEW_PRIVS,
                1 as c_ulong,
                0 as c_ulong,
                0 as c_ulong,
                0 as c_ulong,
            ) == 0,
            b"fork: cannot set no-new-privileges\n",
        );
        // A change of ids has taken it away; a tenant's processes may look at each other.
        prctl(PR_SET_DUMPABLE, 1 as c_ulong);
        setsid();
        for (number, descriptor) in (0..3).zip(order.descriptors) {
            must(
                dup2(descriptor, number) == number,
                b"fork: cannot take its pipes\n",
            );
        }
        must(
            syscall(
                call::CLOSE_RANGE,
                3 as c_long,
                -1 as c_long as c_uint as c_long,
                0 as c_long,
            ) == 0,
            b"fork: cannot close what it has inherited\n",
        );
        let loaded = syscall(
            call::SECCOMP,
            SECCOMP_SET_MODE_FILTER,
            0 as c_ulong,
            &raw const order.filter,
        );
        must(loaded == 0, b"fork: cannot load the filter\n");
    }
}

/// A time namespace of its own, in which the machine has just been started, as the shim makes one
/// for init: that one belongs to the shim, and cannot be entered.
unsafe fn begin_time(order: &Order) -> bool {
    unsafe {
        // Its own entries in /proc.
        prctl(PR_SET_DUMPABLE, 1 as c_ulong);
        if syscall(call::UNSHARE, CLONE_NEWTIME as c_long) != 0 {
            return false;
        }
        let file = open(c"/proc/self/timens_offsets".as_ptr(), O_WRONLY | O_CLOEXEC);
        let len = order.request.offsets_len as usize;
        if file < 0 || len > order.request.offsets.len() {
            return false;
        }
        let written = write(file, order.request.offsets.as_ptr().cast(), len);
        close(file);
        let link = c"/proc/self/ns/time_for_children";
        let own = open(link.as_ptr(), O_RDONLY | O_CLOEXEC);
        if written != len as isize || own < 0 {
            return false;
        }
        let entered = syscall(call::SETNS, own as c_long, CLONE_NEWTIME as c_long);
        close(own);
        entered == 0
    }
}

/// Has the kernel tell the C library again on which CPU this runs: it forgets to whom when memory
/// is shared. A C library without it has nothing to be told.
unsafe fn register_cpu() {
    /// What glibc registers with, so that it can take it back.
    const SIGNATURE: c_long = 0x5305_3053;
    unsafe {
        let offset = dlsym(null_mut(), c"__rseq_offset".as_ptr()).cast::<isize>();
        let size = dlsym(null_mut(), c"__rseq_size".as_ptr()).cast::<c_uint>();
        if offset.is_null() || size.is_null() || *size == 0 {
            return;
        }
        let place = thread_pointer().wrapping_add_signed(*offset);
        syscall(
            call::RSEQ,
            place as c_long,
            32 as c_long,
            0 as c_long,
            SIGNATURE,
        );
    }
}

fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: reads a register, or the word that the C library keeps at its thread's beginning.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("mov {}, fs:0", out(reg) pointer);
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer);
    }
    pointer
}

/// For good, those that could be had back included.
unsafe fn drop_capabilities() -> bool {
    unsafe {
        let none = 0 as c_ulong;
        for capability in 0..64 as c_ulong {
            if prctl(PR_CAPBSET_DROP, capability, none, none, none) != 0 {
                // The kernel has no more of them; the shim looks whether one is left.
                break;
            }
        }
        let head: [u32; 2] = [0x2008_0522, 0];
        let sets = [0_u32; 6];
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, none, none, none) == 0
            && syscall(call::CAPSET, head.as_ptr(), sets.as_ptr()) == 0
    }
}

/// Named by tables of code that can unwind; this one ends instead.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe { _exit(70) }
}
