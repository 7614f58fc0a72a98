//! The filter as classic BPF: a binary search over ranges of call numbers with the same verdict.
//!
//! ```text
//! load architecture; not ours -> kill the process
//! load number; the 32-bit pointers' bit set -> kill the process        (x86_64)
//! number >= middle ? right half : left half                            (and so on)
//! leaf: load argument, compare
//! allow | EPERM | ENOSYS                                               (shared by all leaves)
//! ```

#![expect(unsafe_code, reason = "the filter is loaded by a raw system call")]

use std::io;

use super::list::{Check, Policy, Test, Verdict};
use super::numbers::NEWEST;

/// Longest program: each instruction costs at every system call and, many times over, when it is
/// loaded.
const LENGTH_MAX: usize = 250;

/// `AUDIT_ARCH_*` of this binary.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Set in the number of a call with 32-bit pointers on `x86_64`; never set elsewhere.
const X32_BIT: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`; arguments are 64 bits each, the lower half first on both
// machines.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

// Classic BPF: load a word, compare with a constant, return a constant.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

pub(super) const KILL: u32 = 0x8000_0000;
pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const EPERM: u32 = 0x0005_0001;
pub(super) const ENOSYS: u32 = 0x0005_0026;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) yes: u8,
    pub(super) no: u8,
    pub(super) value: u32,
}

/// A place in the program that jumps lead to.
type Label = usize;

/// An instruction before its jumps are resolved.
#[derive(Debug, Clone, Copy)]
enum Step {
    Load(u32),
    Jump {
        code: u16,
        value: u32,
        yes: Label,
        no: Label,
    },
    Return(u32),
    Here(Label),
}

/// Numbers from `first` to the next range's first, all with one verdict.
#[derive(Debug)]
struct Range<'a> {
    first: u32,
    verdict: &'a Verdict,
}

/// Makes the program of `policy`.
pub(super) fn assemble(policy: &Policy) -> Result<Vec<Instruction>, String> {
    let mut assembler = Assembler::default();
    let number = assembler.label();
    let kill = assembler.label();
    let search = assembler.label();
    assembler.steps.extend([
        Step::Load(OFFSET_ARCHITECTURE),
        Step::Jump {
            code: JUMP_EQUAL,
            value: ARCHITECTURE,
            yes: number,
            no: kill,
        },
        Step::Here(number),
        Step::Load(OFFSET_NUMBER),
        Step::Jump {
            code: JUMP_BITS,
            value: X32_BIT,
            yes: kill,
            no: search,
        },
        Step::Here(kill),
        Step::Return(KILL),
        Step::Here(search),
    ]);
    assembler.search(&ranges(policy));
    for (value, label) in std::mem::take(&mut assembler.returns) {
        assembler
            .steps
            .extend([Step::Here(label), Step::Return(value)]);
    }
    let program = assembler.resolve()?;
    if program.len() > LENGTH_MAX {
        return Err(format!(
            "program of {} instructions is longer than {LENGTH_MAX}",
            program.len()
        ));
    }
    Ok(program)
}

/// Cuts all numbers into ranges, the first of which begins at 0.
fn ranges(policy: &Policy) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = Vec::new();
    let mut add = |first, verdict| match ranges.last() {
        Some(last) if last.verdict == verdict => {}
        _ => ranges.push(Range { first, verdict }),
    };
    for number in 0..=NEWEST {
        add(number, policy.get(&number).unwrap_or(&Verdict::Refuse));
    }
    add(NEWEST + 1, &Verdict::Absent);
    ranges
}

#[derive(Debug, Default)]
struct Assembler {
    steps: Vec<Step>,
    labels: usize,
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    fn label(&mut self) -> Label {
        self.labels += 1;
        self.labels - 1
    }

    /// Finds the range of the number that is loaded.
    fn search(&mut self, ranges: &[Range<'_>]) {
        if let [only] = ranges {
            return self.leaf(only.verdict);
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let Some(middle) = right.first() else { return };
        let (no, yes) = (self.target(left), self.target(right));
        self.steps.push(Step::Jump {
            code: JUMP_AT_LEAST,
            value: middle.first,
            yes,
            no,
        });
        for (half, label) in [(left, no), (right, yes)] {
            if self.returns.iter().all(|(_, shared)| *shared != label) {
                self.steps.push(Step::Here(label));
                self.search(half);
            }
        }
    }

    /// Where the search goes on: a shared return if nothing is left to be asked.
    fn target(&mut self, ranges: &[Range<'_>]) -> Label {
        match ranges {
            [
                Range {
                    verdict: Verdict::Allow,
                    ..
                },
            ] => self.shared(ALLOW),
            [
                Range {
                    verdict: Verdict::Absent,
                    ..
                },
            ] => self.shared(ENOSYS),
            [
                Range {
                    verdict: Verdict::Refuse,
                    ..
                },
            ] => self.shared(EPERM),
            _ => self.label(),
        }
    }

    /// The one return of `value`, which stands at the end of the program.
    fn shared(&mut self, value: u32) -> Label {
        if let Some((_, label)) = self.returns.iter().find(|(known, _)| *known == value) {
            return *label;
        }
        let label = self.label();
        self.returns.push((value, label));
        label
    }

    fn leaf(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Allow => self.steps.push(Step::Return(ALLOW)),
            Verdict::Absent => self.steps.push(Step::Return(ENOSYS)),
            Verdict::Refuse => self.steps.push(Step::Return(EPERM)),
            Verdict::When(alternatives) => {
                for (index, all) in alternatives.iter().enumerate() {
                    let last = index + 1 == alternatives.len();
                    let next = if last {
                        self.shared(EPERM)
                    } else {
                        self.label()
                    };
                    let allow = self.shared(ALLOW);
                    self.all(all, allow, next);
                    if !last {
                        self.steps.push(Step::Here(next));
                    }
                }
            }
        }
    }

    /// Goes to `pass` if all checks hold, else to `fail`.
    fn all(&mut self, checks: &[Check], pass: Label, fail: Label) {
        for (index, check) in checks.iter().enumerate() {
            let last = index + 1 == checks.len();
            let held = if last { pass } else { self.label() };
            self.check(check, held, fail);
            if !last {
                self.steps.push(Step::Here(held));
            }
        }
    }

    fn check(&mut self, check: &Check, pass: Label, fail: Label) {
        self.steps
            .push(Step::Load(OFFSET_ARGUMENTS + 8 * u32::from(check.arg)));
        let (code, values, on_match, at_end) = match &check.test {
            Test::OneOf(values) => (JUMP_EQUAL, values.as_slice(), pass, fail),
            Test::NoneOf(values) => (JUMP_EQUAL, values.as_slice(), fail, pass),
            Test::NoBits(bits) => (JUMP_BITS, std::slice::from_ref(bits), fail, pass),
        };
        for (index, &value) in values.iter().enumerate() {
            let last = index + 1 == values.len();
            let no = if last { at_end } else { self.label() };
            self.steps.push(Step::Jump {
                code,
                value,
                yes: on_match,
                no,
            });
            if !last {
                self.steps.push(Step::Here(no));
            }
        }
    }

    /// Turns labels into distances; all jumps of classic BPF lead forward.
    fn resolve(self) -> Result<Vec<Instruction>, String> {
        let mut places = vec![0_usize; self.labels];
        let mut at = 0;
        for step in &self.steps {
            match *step {
                Step::Here(label) => places[label] = at,
                Step::Load(_) | Step::Jump { .. } | Step::Return(_) => at += 1,
            }
        }
        let mut program = Vec::with_capacity(at);
        for step in &self.steps {
            let behind = program.len() + 1;
            let distance = |label: Label| {
                let steps = places[label].checked_sub(behind);
                steps
                    .and_then(|steps| u8::try_from(steps).ok())
                    .ok_or_else(|| "a jump is too far".to_owned())
            };
            program.push(match *step {
                Step::Here(_) => continue,
                Step::Load(value) => Instruction {
                    code: LOAD,
                    yes: 0,
                    no: 0,
                    value,
                },
                Step::Return(value) => Instruction {
                    code: RETURN,
                    yes: 0,
                    no: 0,
                    value,
                },
                Step::Jump {
                    code,
                    value,
                    yes,
                    no,
                } => Instruction {
                    code,
                    yes: distance(yes)?,
                    no: distance(no)?,
                    value,
                },
            });
        }
        Ok(program)
    }
}

/// The instructions one behind the other, each as `struct sock_filter` is in memory.
pub(super) fn to_bytes(program: &[Instruction]) -> Vec<u8> {
    let one = |instruction: &Instruction| {
        let [a, b] = instruction.code.to_ne_bytes();
        let [c, d, e, f] = instruction.value.to_ne_bytes();
        [a, b, instruction.yes, instruction.no, c, d, e, f]
    };
    program.iter().flat_map(one).collect()
}

/// Loads a program into the calling thread.
pub(super) fn load(program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    // The kernel's `struct sock_fprog`; it only reads the instructions.
    let head = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `head` and the `len` instructions that it points at live until the call returns, and
    // `Instruction` has the layout of `sock_filter`; the kernel copies them and checks the program
    // itself.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const head,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests;
