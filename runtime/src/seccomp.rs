//! The system call filter of every sandbox: compiled once from `rootfs/seccomp.toml`, loaded by
//! init.
//!
//! A linear filter over 300 calls costs 0.6 ms for each sandbox, since the kernel runs it once for
//! every call number when it is loaded; this one is a binary search over ranges of numbers. See
//! [`program`] for its form.

use std::io;

use crate::error::Error;

mod list;
mod numbers;
mod program;

use self::list::Who;

/// The list, as data.
const LIST: &str = include_str!("../../rootfs/seccomp.toml");

/// A filter ready to be loaded; compile it once and let forks inherit it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    instructions: Vec<program::Instruction>,
}

/// Compiles the list for the architecture that this binary runs on.
///
/// # Errors
/// The list names an unknown call, names one twice, or makes too long a program.
pub(crate) fn compile() -> Result<Program, Error> {
    compile_for(Who::Sandbox)
}

/// Compiles the list with what a template may do besides, on cgroup v1 or v2.
///
/// # Errors
/// As [`compile`].
pub(crate) fn compile_for_templates(is_v2: bool) -> Result<Program, Error> {
    compile_for(Who::Template { is_v2 })
}

fn compile_for(who: Who) -> Result<Program, Error> {
    let policy = list::parse(LIST, who).map_err(|reason| Error::Seccomp { reason })?;
    let instructions = program::assemble(&policy).map_err(|reason| Error::Seccomp { reason })?;
    Ok(Program { instructions })
}

impl Program {
    /// Puts the calling thread, and all that it will start, under the filter for good.
    ///
    /// # Errors
    /// What the kernel says; `EACCES` if no-new-privileges is not set.
    pub(crate) fn load(&self) -> io::Result<()> {
        program::load(&self.instructions)
    }

    /// The program as the kernel reads it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        program::to_bytes(&self.instructions)
    }
}
