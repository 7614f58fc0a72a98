//! Device control on cgroup v2: one small BPF program on the group above all sandboxes.
//!
//! On v2 there is no devices controller; the kernel asks programs instead, and it asks those of
//! every group above too. So the program is loaded and attached once, and costs a sandbox
//! nothing. It is freed by the kernel when the group is removed.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Major number and minor numbers of the character devices that may be read and written:
/// null, zero, full, random, urandom; tty, ptmx. Every minor number of 136 (pts) is allowed too.
const ALLOWED: [(i32, &[i32]); 2] = [(1, &[3, 5, 7, 8, 9]), (5, &[0, 2])];
const PTS_MAJOR: i32 = 136;

/// `BPF_DEVCG_ACC_MKNOD` and `BPF_DEVCG_DEV_CHAR` of the kernel's `linux/bpf.h`.
const ACCESS_MKNOD: i32 = 1;
const KIND_CHAR: i32 = 2;

/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE` of the kernel's `linux/bpf.h`.
const PROGRAM_TYPE: u32 = 15;
const ATTACH_TYPE: u32 = 6;
/// `BPF_PROG_LOAD` and `BPF_PROG_ATTACH`.
const COMMAND_LOAD: libc::c_int = 5;
const COMMAND_ATTACH: libc::c_int = 8;

/// One instruction, as the kernel lays it out (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination register in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// What `BPF_PROG_LOAD` reads of `union bpf_attr`.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// What `BPF_PROG_ATTACH` reads of `union bpf_attr`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Denies every process below `group` all devices but those that a sandbox needs.
///
/// # Errors
/// A kernel without `CONFIG_CGROUP_BPF`, or a caller without `CAP_BPF` or `CAP_SYS_ADMIN`.
pub(super) fn restrict(group: BorrowedFd<'_>) -> io::Result<()> {
    let program = load(&program()?)?;
    let attributes = AttachAttributes {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_TYPE,
        flags: 0,
    };
    bpf(COMMAND_ATTACH, &attributes).map(drop)
}

/// The program: 1 allows, 0 refuses. It is asked with r1 = {access << 16 | kind, major, minor}.
fn program() -> io::Result<Vec<Instruction>> {
    let mut body = Vec::new();
    for (major, minors) in ALLOWED {
        // Past this block, if it is another major number.
        let past = i16::try_from(minors.len() + 1).map_err(io::Error::other)?;
        body.push(jump_unless_equal(MAJOR, major, past));
        for minor in minors {
            body.push(jump_if_equal(MINOR, *minor, 0));
        }
        body.push(jump_always(0));
    }
    body.push(jump_if_equal(MAJOR, PTS_MAJOR, 0));
    let mut all = vec![
        load_word(ACCESS, 0),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
        copy(KIND, ACCESS),
        and(KIND, 0xffff),
        shift_right(ACCESS, 16),
        and(ACCESS, ACCESS_MKNOD),
        jump_unless_equal(KIND, KIND_CHAR, 0),
        jump_unless_equal(ACCESS, 0, 0),
    ];
    let head = all.len();
    all.extend(body);
    // Every jump that is still open goes to one of the two ends.
    let refuse = all.len();
    all.extend([set(ANSWER, 0), leave()]);
    let allow = all.len();
    all.extend([set(ANSWER, 1), leave()]);
    for (at, instruction) in all.iter_mut().enumerate().take(refuse) {
        let jumps = matches!(instruction.code, JUMP | JUMP_EQUAL | JUMP_NOT_EQUAL);
        if jumps && instruction.offset == 0 {
            let end = if at >= head && instruction.code == JUMP_EQUAL {
                allow
            } else {
                refuse
            };
            instruction.offset = i16::try_from(end - at - 1).map_err(io::Error::other)?;
        }
    }
    Ok(all)
}

const ANSWER: u8 = 0;
const ASKED: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Instruction codes (`linux/bpf_common.h`): class, operation and operand in one byte.
const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

fn load_word(into: u8, offset: i16) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        registers: (ASKED << 4) | into,
        offset,
        immediate: 0,
    }
}
fn copy(into: u8, from: u8) -> Instruction {
    Instruction {
        code: COPY,
        registers: (from << 4) | into,
        offset: 0,
        immediate: 0,
    }
}
fn set(into: u8, immediate: i32) -> Instruction {
    Instruction {
        code: SET,
        registers: into,
        offset: 0,
        immediate,
    }
}
fn and(into: u8, immediate: i32) -> Instruction {
    Instruction {
        code: AND,
        registers: into,
        offset: 0,
        immediate,
    }
}
fn shift_right(into: u8, immediate: i32) -> Instruction {
    Instruction {
        code: SHIFT_RIGHT,
        registers: into,
        offset: 0,
        immediate,
    }
}
fn jump_if_equal(left: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction {
        code: JUMP_EQUAL,
        registers: left,
        offset,
        immediate,
    }
}
fn jump_unless_equal(left: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction {
        code: JUMP_NOT_EQUAL,
        registers: left,
        offset,
        immediate,
    }
}
fn jump_always(offset: i16) -> Instruction {
    Instruction {
        code: JUMP,
        registers: 0,
        offset,
        immediate: 0,
    }
}
fn leave() -> Instruction {
    Instruction {
        code: EXIT,
        registers: 0,
        offset: 0,
        immediate: 0,
    }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: PROGRAM_TYPE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
    };
    let raw = bpf(COMMAND_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for this call; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Calls bpf(2) with a prefix of `union bpf_attr`; the kernel takes what is missing as zero.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is live and of the size given; the addresses in it, where there are any,
    // are those of a slice and a C string that outlive the call.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(returned).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with the program, for the instructions that it has.
    fn ask(access: u32, kind: u32, major: u32, minor: u32) -> u64 {
        let asked = [(access << 16) | kind, major, minor];
        let program = program().unwrap();
        let mut registers = [0_u64; 6];
        let mut at = 0_usize;
        for _ in 0..program.len() {
            let now = program[at];
            let into = usize::from(now.registers & 15);
            let immediate = u64::from(now.immediate.cast_unsigned());
            at += 1;
            let jump = at.checked_add_signed(isize::from(now.offset)).unwrap();
            match now.code {
                LOAD_WORD => {
                    registers[into] = u64::from(asked[usize::try_from(now.offset / 4).unwrap()]);
                }
                COPY => registers[into] = registers[usize::from(now.registers >> 4)],
                SET => registers[into] = immediate,
                AND => registers[into] &= immediate,
                SHIFT_RIGHT => registers[into] >>= immediate,
                JUMP => at = jump,
                JUMP_EQUAL if registers[into] == immediate => at = jump,
                JUMP_NOT_EQUAL if registers[into] != immediate => at = jump,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
        panic!("the program does not end");
    }

    const READ_WRITE: u32 = 6;
    const CHAR: u32 = 2;
    const BLOCK: u32 = 1;

    #[test]
    fn a_sandboxes_own_devices_may_be_read_and_written() {
        for (major, minor) in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 2),
            (136, 0),
            (136, 77),
        ] {
            assert_eq!(ask(READ_WRITE, CHAR, major, minor), 1, "{major}:{minor}");
        }
    }

    #[test]
    fn every_other_device_is_refused() {
        for (major, minor) in [
            (1, 1),
            (1, 2),
            (1, 4),
            (1, 11),
            (5, 1),
            (4, 64),
            (10, 237),
            (10, 229),
            (0, 0),
            (3, 3),
        ] {
            assert_eq!(ask(READ_WRITE, CHAR, major, minor), 0, "{major}:{minor}");
        }
    }

    #[test]
    fn block_devices_and_new_nodes_are_refused() {
        assert_eq!(ask(READ_WRITE, BLOCK, 1, 3), 0);
        assert_eq!(ask(READ_WRITE, BLOCK, 7, 0), 0);
        assert_eq!(ask(1, CHAR, 1, 3), 0);
        assert_eq!(ask(7, CHAR, 136, 0), 0);
    }
}
