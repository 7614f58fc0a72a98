//! The program, run by a small interpreter over every call number, against the list.

use super::super::list::Who;
use super::super::{LIST, compile, list, numbers};
use super::*;

/// One entry into the kernel, as the filter sees it.
#[derive(Clone, Copy)]
struct Call {
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
}

/// Runs the program as the kernel would; panics where the kernel would refuse to load it.
fn run(program: &[Instruction], call: Call) -> u32 {
    let mut at = 0;
    let mut word = 0;
    loop {
        let Instruction {
            code,
            yes,
            no,
            value,
        } = program[at];
        at += 1;
        let jump = |condition| usize::from(if condition { yes } else { no });
        match code {
            LOAD => {
                word = match value {
                    OFFSET_NUMBER => call.number,
                    OFFSET_ARCHITECTURE => call.architecture,
                    _ => {
                        let offset = usize::try_from(value - OFFSET_ARGUMENTS).unwrap();
                        assert_eq!(offset % 8, 0);
                        u32::try_from(call.arguments[offset / 8] & 0xffff_ffff).unwrap()
                    }
                };
            }
            JUMP_EQUAL => at += jump(word == value),
            JUMP_AT_LEAST => at += jump(word >= value),
            JUMP_BITS => at += jump(word & value != 0),
            RETURN => return value,
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}

fn program() -> Vec<Instruction> {
    compile().unwrap().instructions
}

fn call(name: &str, arguments: &[u64]) -> u32 {
    let Some(numbers::Found::Here(number)) = numbers::find(name) else {
        panic!("no {name}")
    };
    number_call(number, arguments)
}

fn number_call(number: u32, given: &[u64]) -> u32 {
    let mut arguments = [0; 6];
    arguments[..given.len()].copy_from_slice(given);
    run(
        &program(),
        Call {
            architecture: ARCHITECTURE,
            number,
            arguments,
        },
    )
}

#[test]
fn every_number_gets_the_verdict_of_the_list_and_no_other() {
    let policy = list::parse(LIST, Who::Sandbox).unwrap();
    let program = program();
    for number in (0..2048).chain([0x3fff_ffff]) {
        let found = run(
            &program,
            Call {
                architecture: ARCHITECTURE,
                number,
                arguments: [0; 6],
            },
        );
        match policy.get(&number) {
            Some(Verdict::Allow) => assert_eq!(found, ALLOW, "{number}"),
            Some(Verdict::Absent) => assert_eq!(found, ENOSYS, "{number}"),
            Some(Verdict::When(_)) => assert!([ALLOW, EPERM].contains(&found), "{number}"),
            Some(Verdict::Refuse) | None if number <= NEWEST => {
                assert_eq!(found, EPERM, "{number}");
            }
            Some(Verdict::Refuse) | None => assert_eq!(found, ENOSYS, "{number}"),
        }
    }
}

#[test]
fn another_architecture_and_x32_are_killed() {
    let program = program();
    let arguments = [0; 6];
    for architecture in [0x4000_0003, 0x4000_0028, 0, ARCHITECTURE ^ 1] {
        assert_eq!(
            run(
                &program,
                Call {
                    architecture,
                    number: 0,
                    arguments
                }
            ),
            KILL
        );
    }
    for number in [X32_BIT, X32_BIT | 1, X32_BIT | 512, u32::MAX] {
        assert_eq!(
            run(
                &program,
                Call {
                    architecture: ARCHITECTURE,
                    number,
                    arguments
                }
            ),
            KILL
        );
    }
}

#[test]
fn clone_makes_threads_and_processes_but_no_namespace() {
    let thread = 0x003d_0f00;
    assert_eq!(call("clone", &[thread]), ALLOW);
    assert_eq!(call("clone", &[17]), ALLOW);
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        assert_eq!(call("clone", &[17 | 1 << bit]), EPERM, "bit {bit}");
    }
    assert_eq!(call("clone3", &[]), ENOSYS);
}

#[test]
fn no_filter_is_put_on_a_socket() {
    const SOL_SOCKET: u64 = 1;
    for option in 0..128 {
        let want = if [26, 50, 51, 52].contains(&option) {
            EPERM
        } else {
            ALLOW
        };
        assert_eq!(
            call("setsockopt", &[3, SOL_SOCKET, option]),
            want,
            "{option}"
        );
        let high = 1 << 32;
        let call_high = call("setsockopt", &[3, high | SOL_SOCKET, high | option]);
        assert_eq!(call_high, want, "{option} with high bits");
        assert_eq!(
            call("setsockopt", &[3, 6, option]),
            ALLOW,
            "{option} of TCP"
        );
    }
    assert_eq!(call("seccomp", &[1, 0]), EPERM);
}

#[test]
fn sockets_are_local_inet_or_for_routes() {
    for family in 0..64_u64 {
        let want = if [1, 2, 10, 16].contains(&family) {
            ALLOW
        } else {
            EPERM
        };
        assert_eq!(call("socket", &[family, 1, 0]), want, "family {family}");
        let want = if family == 1 { ALLOW } else { EPERM };
        assert_eq!(
            call("socketpair", &[family, 1, 0]),
            want,
            "pair of family {family}"
        );
    }
    for protocol in 1..32 {
        assert_eq!(
            call("socket", &[16, 3, protocol]),
            EPERM,
            "netlink protocol {protocol}"
        );
    }
    assert_eq!(call("socket", &[2, 1, 6]), ALLOW);
}

#[test]
fn limits_and_scheduling_of_others_cannot_be_set() {
    let on_self = [
        "prlimit64",
        "sched_setaffinity",
        "sched_setattr",
        "sched_setparam",
        "sched_setscheduler",
    ];
    for name in on_self {
        assert_eq!(call(name, &[0]), ALLOW, "{name}");
        assert_eq!(call(name, &[1]), EPERM, "{name}");
    }
    assert_eq!(call("setpriority", &[0, 0, 5]), ALLOW);
    assert_eq!(call("setpriority", &[0, 1, 5]), EPERM);
    assert_eq!(call("setpriority", &[2, 0, 5]), EPERM);
    assert_eq!(call("ioprio_set", &[1, 0, 0]), ALLOW);
    assert_eq!(call("ioprio_set", &[1, 1, 0]), EPERM);
    assert_eq!(call("ioprio_set", &[3, 0, 0]), EPERM);
}

#[test]
fn terminals_cannot_be_typed_into() {
    assert_eq!(call("ioctl", &[0, 0x5401]), ALLOW);
    assert_eq!(call("ioctl", &[0, 0x5412]), EPERM);
    assert_eq!(call("ioctl", &[0, 0x541c]), EPERM);
    let upper_half_is_ignored_by_the_kernel = 0xffff_ffff_0000_5412;
    assert_eq!(
        call("ioctl", &[0, upper_half_is_ignored_by_the_kernel]),
        EPERM
    );
}

#[test]
fn personality_turns_no_protection_off() {
    for allowed in [0, 8, 0x2_0000, 0xffff_ffff] {
        assert_eq!(call("personality", &[allowed]), ALLOW, "{allowed:#x}");
    }
    for refused in [0x4_0000, 0x10_0000, 0x40_0000, 1, 0x100_0000] {
        assert_eq!(call("personality", &[refused]), EPERM, "{refused:#x}");
    }
}

#[test]
fn prctl_does_what_programs_need() {
    for allowed in [15, 38, 0x5356_4d41] {
        assert_eq!(call("prctl", &[allowed]), ALLOW, "{allowed}");
    }
    let set_mm = 35;
    let core_scheduling = 62;
    let set_seccomp = 22;
    for refused in [set_mm, core_scheduling, set_seccomp, 0] {
        assert_eq!(call("prctl", &[refused]), EPERM, "{refused}");
    }
}

#[test]
fn what_attackers_want_is_refused() {
    let dangerous = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_mount_setattr,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_fanotify_init,
        libc::SYS_fanotify_mark,
        libc::SYS_quotactl,
        libc::SYS_vmsplice,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_mbind,
        libc::SYS_set_mempolicy,
        libc::SYS_move_pages,
        libc::SYS_migrate_pages,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_syslog,
        libc::SYS_chroot,
        libc::SYS_acct,
        libc::SYS_swapon,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_sync,
        libc::SYS_memfd_secret,
        libc::SYS_process_madvise,
        libc::SYS_process_mrelease,
    ];
    for number in dangerous {
        assert_eq!(
            number_call(u32::try_from(number).unwrap(), &[]),
            EPERM,
            "{number}"
        );
    }
}

/// A program lost an entry once it depends on it in production only; so each is written down a
/// second time.
#[test]
fn no_allowed_call_is_lost_or_added_unseen() {
    let listed: std::collections::BTreeSet<&str> = include_str!("allowed.txt").lines().collect();
    let policy = list::parse(LIST, Who::Sandbox).unwrap();
    for name in &listed {
        let Some(found) = numbers::find(name) else {
            panic!("{name} is unknown")
        };
        if let numbers::Found::Here(number) = found {
            let verdict = policy.get(&number);
            assert!(
                matches!(verdict, Some(Verdict::Allow | Verdict::When(_))),
                "{name} is lost: {verdict:?}"
            );
        }
    }
    let here = listed
        .iter()
        .filter(|name| matches!(numbers::find(name), Some(numbers::Found::Here(_))));
    let allowed = policy
        .values()
        .filter(|verdict| matches!(verdict, Verdict::Allow | Verdict::When(_)));
    assert_eq!(
        allowed.count(),
        here.count(),
        "a call was added: add it to allowed.txt too"
    );
}

#[test]
fn the_program_is_short() {
    let len = program().len();
    assert!(len <= LENGTH_MAX, "{len}");
}

/// Loads the filter in a child, which then asks the kernel itself.
#[test]
fn the_kernel_takes_the_program_and_keeps_to_it() {
    let filter = compile().unwrap();
    // SAFETY: the child only makes system calls, on memory that was there before, and ends by
    // _exit.
    match unsafe { libc::fork() } {
        0 => {
            let code = probe(&filter);
            // SAFETY: ends the child at once, without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child made above; `status` is writable.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child);
            assert!(libc::WIFEXITED(status), "{status:#x}");
            assert_eq!(
                libc::WEXITSTATUS(status),
                0,
                "the number of the failed probe"
            );
        }
    }
}

/// Zero, or the number of the first thing that was not as it must be.
fn probe(filter: &super::super::Program) -> i32 {
    let errno = || io::Error::last_os_error().raw_os_error();
    // SAFETY: sets a flag of the calling thread.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return 1;
    }
    if filter.load().is_err() {
        return 2;
    }
    // SAFETY: asks for the own process id.
    if unsafe { libc::getpid() } <= 0 {
        return 3;
    }
    // SAFETY: takes no pointers; expected to be refused.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0 || errno() != Some(libc::EPERM) {
        return 4;
    }
    // SAFETY: takes no pointers that it gets to read; expected to be refused.
    if unsafe { libc::syscall(libc::SYS_clone3, 0, 0) } == 0 || errno() != Some(libc::ENOSYS) {
        return 5;
    }
    // SAFETY: takes no pointers; expected to be refused (AF_ALG).
    if unsafe { libc::socket(38, libc::SOCK_SEQPACKET, 0) } >= 0 || errno() != Some(libc::EPERM) {
        return 6;
    }
    0
}
