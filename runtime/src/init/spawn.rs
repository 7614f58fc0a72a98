//! Starts the main process: everything is prepared before, so that the child, which borrows init's
//! memory, only makes system calls.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};

use super::kernel;
use crate::wire::Start;

/// Exit code of a child whose command does not exist.
const NOT_FOUND: i32 = 127;

/// Exit code of a child whose command exists and cannot be executed, or that cannot be set up.
const NOT_EXECUTABLE: i32 = 126;

/// Where commands are looked up if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Everything that the child needs, in the form that the kernel takes.
#[derive(Debug)]
struct Plan {
    name: String,
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    open_files: u64,
    stdio: [OwnedFd; 3],
}

/// Starts a child that executes; answers its pid, or the errno of what could not be prepared.
///
/// A command that is not found or cannot be executed is the child's affair: it says so on its
/// standard error and exits with 127 or 126, as a shell's would.
pub(super) fn spawn(start: &Start, stdio: [OwnedFd; 3]) -> Result<libc::pid_t, i32> {
    let plan = Plan::new(start, stdio).ok_or(libc::EINVAL)?;
    kernel::start(|| plan.execute()).map_err(|errno| errno as i32)
}

/// Becomes the command in this very process; answers its exit code if it cannot, `None` if there
/// is no command or a text has a NUL in it.
pub(super) fn become_program(start: &Start, stdio: [OwnedFd; 3]) -> Option<i32> {
    Some(Plan::new(start, stdio)?.execute())
}

impl Plan {
    /// `None` if there is no command or a text has a NUL in it.
    fn new(start: &Start, stdio: [OwnedFd; 3]) -> Option<Plan> {
        let text = |text: &str| CString::new(text).ok();
        let name = start.argv.first().filter(|name| !name.is_empty())?;
        let path = start.env.iter().rev().find(|(key, _)| key == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str());
        let mut env: Vec<CString> = Vec::with_capacity(start.env.len());
        for (index, (key, value)) in start.env.iter().enumerate() {
            let replaced = start.env[index + 1..].iter().any(|(later, _)| later == key);
            if !replaced {
                env.push(text(&format!("{key}={value}"))?);
            }
        }
        Some(Plan {
            name: name.clone(),
            candidates: candidates(name, path)
                .iter()
                .map(|one| text(one))
                .collect::<Option<_>>()?,
            argv: start
                .argv
                .iter()
                .map(|one| text(one))
                .collect::<Option<_>>()?,
            env,
            cwd: text(&start.cwd)?,
            open_files: u64::from(start.open_files),
            stdio,
        })
    }

    /// The child: becomes the command, or says why not and answers its exit code.
    fn execute(&self) -> i32 {
        for (fd, number) in self.stdio.iter().zip(0..) {
            // Numbers below 3 are taken in init, so none of these overwrites one that is still to
            // be moved.
            if nix::unistd::dup2(fd.as_raw_fd(), number).is_err() {
                return NOT_EXECUTABLE;
            }
        }
        if let Err(what) = self.set_up() {
            return complain(&what, NOT_EXECUTABLE);
        }
        let errno = self.exec();
        let (reason, code) = match errno {
            Errno::ENOENT | Errno::ENOTDIR if self.name.contains('/') => {
                ("no such file or directory", NOT_FOUND)
            }
            Errno::ENOENT | Errno::ENOTDIR => ("command not found", NOT_FOUND),
            other => (other.desc(), NOT_EXECUTABLE),
        };
        complain(&format!("{}: {reason}", self.name), code)
    }

    /// Everything between start and exec but the descriptors 0, 1 and 2.
    fn set_up(&self) -> Result<(), String> {
        let failed = |what: &'static str| move |errno: Errno| format!("{what}: {}", errno.desc());
        kernel::close_range(3, i32::MAX).map_err(|error| format!("cannot close files: {error}"))?;
        nix::unistd::setsid().map_err(failed("cannot start a session"))?;
        setrlimit(Resource::RLIMIT_NOFILE, self.open_files, self.open_files)
            .map_err(failed("cannot limit open files"))?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("cannot limit core files"))?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        nix::unistd::chdir(self.cwd.as_c_str())
            .map_err(|errno| format!("cannot enter {:?}: {}", self.cwd, errno.desc()))?;
        // Last: from here on a signal can end the child.
        kernel::default_signals().map_err(failed("cannot unblock signals"))
    }

    /// Tries each candidate as `execvp` would; answers the errno that tells most.
    fn exec(&self) -> Errno {
        let mut found = Errno::ENOENT;
        for path in &self.candidates {
            match self.exec_one(path) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => found = Errno::EACCES,
                other => return other,
            }
        }
        found
    }

    fn exec_one(&self, path: &CStr) -> Errno {
        let Err(errno) = nix::unistd::execve(path, &self.argv, &self.env);
        if errno != Errno::ENOEXEC {
            return errno;
        }
        // A text file without `#!` is a shell script.
        let mut argv = vec![c"sh".to_owned(), path.to_owned()];
        argv.extend(self.argv.iter().skip(1).cloned());
        let Err(errno) = nix::unistd::execve(c"/bin/sh", &argv, &self.env);
        errno
    }
}

/// The files that `name` may stand for.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| format!("{dir}/{name}"))
        .collect()
}

/// Writes to standard error what a shell would; answers `code`.
fn complain(what: &str, code: i32) -> i32 {
    let text = format!("farebox: {what}\n");
    match nix::unistd::write(std::io::stderr(), text.as_bytes()) {
        // If nobody reads it, the code has to do.
        Ok(_) | Err(_) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_path_and_paths_are_not() {
        assert_eq!(candidates("ls", "/a::/b"), ["/a/ls", "/b/ls"]);
        assert_eq!(candidates("./ls", "/a"), ["./ls"]);
    }
}
