//! Init in a forked process: what it lays, starts, reaps and says.
#![expect(unsafe_code, reason = "forks a process to be init")]

use std::fs;
use std::io::{PipeReader, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::wire::CHUNK_MAX;

/// Init in a child process; killed and reaped with the value.
struct Child {
    socket: OwnedFd,
    pid: libc::pid_t,
    workspace: tempfile::TempDir,
}

impl Child {
    fn new() -> Child {
        let workspace = tempfile::tempdir().unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let config = Config {
            workspace: workspace.path().to_owned(),
        };
        // SAFETY: the child becomes init, whose code needs no lock of another thread, and ends by
        // _exit.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let code = run(theirs, config);
            crate::launcher::kernel::exit_now(u8::try_from(code).unwrap_or(1))
        }
        let child = Child {
            socket,
            pid,
            workspace,
        };
        assert_eq!(child.answer(), FromInit::Hello);
        child
    }

    fn answer(&self) -> FromInit {
        let frame = wire::recv::<FromInit>(self.socket.as_fd(), INIT_FRAME_MAX).unwrap();
        frame.unwrap().0
    }

    fn send(&self, frame: &ToInit, descriptors: &[BorrowedFd<'_>]) {
        wire::send(self.socket.as_fd(), frame, INIT_FRAME_MAX, descriptors).unwrap();
    }

    fn put(&self, path: &str, content: &[u8]) -> FromInit {
        let size = u64::try_from(content.len()).unwrap();
        self.send(
            &ToInit::File {
                path: path.to_owned(),
                mode: 0o640,
                size,
            },
            &[],
        );
        for chunk in content.chunks(CHUNK_MAX) {
            self.send(&ToInit::Chunk(chunk.to_vec()), &[]);
        }
        self.answer()
    }

    /// Starts a command; answers where its output comes.
    fn start(&self, argv: &[&str], cwd: &str) -> (PipeReader, PipeReader) {
        let ((_, stdin), (stdout, out), (stderr, err)) =
            (input(), pipe().unwrap(), pipe().unwrap());
        let start = Start {
            argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
            env: [
                ("PATH", "/nowhere"),
                ("PATH", "/usr/bin:/bin"),
                ("GREETING", "hello"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
            cwd: cwd.to_owned(),
            open_files: 64,
        };
        self.send(
            &ToInit::Start(start),
            &[stdin.as_fd(), out.as_fd(), err.as_fd()],
        );
        (stdout, stderr)
    }

    /// Runs a shell script to its end: status, output, errors.
    fn shell(&self, script: &str) -> (i32, String, String) {
        self.run(&["sh", "-c", script], "/")
    }

    fn run(&self, argv: &[&str], cwd: &str) -> (i32, String, String) {
        let (mut stdout, mut stderr) = self.start(argv, cwd);
        assert_eq!(self.answer(), FromInit::Started);
        let (mut out, mut err) = (String::new(), String::new());
        stdout.read_to_string(&mut out).unwrap();
        stderr.read_to_string(&mut err).unwrap();
        let FromInit::Exited { status, .. } = self.answer() else {
            panic!("no exit")
        };
        (status, out, err)
    }
}

/// An input that ends at once, and its other end.
fn input() -> (std::io::PipeWriter, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    (writer, reader)
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: signals and reaps the child made above, once.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // SAFETY: as above; no status is asked for.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

#[test]
fn files_are_laid_with_their_parents_and_replaced() {
    let child = Child::new();
    let large: Vec<u8> = (0..3 * CHUNK_MAX + 1)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    assert_eq!(child.put("a/b/large", &large), FromInit::Done);
    assert_eq!(child.put("empty", b""), FromInit::Done);
    let path = child.workspace.path().join("a/b/large");
    assert_eq!(fs::read(&path).unwrap(), large);
    assert_eq!(child.put("a/b/large", b"small"), FromInit::Done);
    assert_eq!(fs::read(&path).unwrap(), b"small");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn no_file_is_written_outside_the_workspace_or_through_a_link() {
    let child = Child::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), child.workspace.path().join("link")).unwrap();
    fs::write(outside.path().join("target"), "old").unwrap();
    symlink(
        outside.path().join("target"),
        child.workspace.path().join("file"),
    )
    .unwrap();
    for path in ["link/x", "file", "../x", "/tmp/x", "a/../../x", ""] {
        let answer = child.put(path, b"new");
        assert!(
            matches!(answer, FromInit::Refused { .. }),
            "{path:?}: {answer:?}"
        );
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(outside.path().join("target")).unwrap(), b"old");
}

#[test]
fn a_pipe_or_directory_in_the_place_of_a_file_is_refused_without_waiting() {
    let child = Child::new();
    nix::unistd::mkfifo(
        &child.workspace.path().join("pipe"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    fs::create_dir(child.workspace.path().join("dir")).unwrap();
    for path in ["pipe", "dir", "pipe/x"] {
        let answer = child.put(path, b"new");
        assert!(
            matches!(answer, FromInit::Refused { .. }),
            "{path:?}: {answer:?}"
        );
    }
    assert_eq!(
        child.put("next", b"new"),
        FromInit::Done,
        "init still works"
    );
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let child = Child::new();
    child.send(
        &ToInit::File {
            path: "x".to_owned(),
            mode: 0o600,
            size: 3,
        },
        &[],
    );
    child.send(&ToInit::Chunk(b"four".to_vec()), &[]);
    let errno = libc::EFBIG;
    assert_eq!(
        child.answer(),
        FromInit::Refused {
            errno,
            path: "x".to_owned()
        }
    );
}

#[test]
fn a_command_runs_with_its_environment_and_reports_its_end() {
    let child = Child::new();
    let (status, out, err) = child.shell("echo $GREETING; echo oops >&2; exit 7");
    assert_eq!(
        (libc::WEXITSTATUS(status), out.as_str(), err.as_str()),
        (7, "hello\n", "oops\n")
    );
    let (status, ..) = child.shell("kill -SEGV $$");
    assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
}

#[test]
fn a_command_sees_nothing_of_init() {
    let child = Child::new();
    let (_, out, _) = child
        .shell("for n in 0 1 2 3 4 5 6 7 8 9 10 100; do [ -e /proc/$$/fd/$n ] && echo $n; done");
    assert_eq!(out, "0\n1\n2\n");
    let (_, out, _) =
        child.shell("ulimit -n; ulimit -Hc; grep -E '^Sig(Blk|Ign):' /proc/self/status");
    let none = "0000000000000000";
    assert_eq!(out, format!("64\n0\nSigBlk:\t{none}\nSigIgn:\t{none}\n"));
    let (_, out, _) = child.shell("grep -c . /proc/self/maps");
    assert_ne!(out, "0\n", "its own /proc is readable: it is dumpable");
}

#[test]
fn missing_and_unusable_commands_say_so_as_a_shell_does() {
    let child = Child::new();
    let (status, _, err) = child.run(&["no-such-command"], "/");
    assert_eq!(libc::WEXITSTATUS(status), 127);
    assert_eq!(err, "farebox: no-such-command: command not found\n");
    let (status, _, err) = child.run(&["/etc/passwd"], "/");
    assert_eq!(libc::WEXITSTATUS(status), 126, "{err}");
    let (status, _, err) = child.run(&["true"], "/no/such/dir");
    assert_eq!(libc::WEXITSTATUS(status), 126);
    assert!(err.contains("cannot enter"), "{err}");
}

#[test]
fn a_script_without_interpreter_line_is_run_by_the_shell() {
    let child = Child::new();
    child.put("script", b"echo script $1");
    let path = child.workspace.path().join("script");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (_, out, _) = child.run(
        &["./script", "ran"],
        child.workspace.path().to_str().unwrap(),
    );
    assert_eq!(out, "script ran\n");
}

#[test]
fn a_second_main_process_is_refused_while_the_first_runs() {
    let child = Child::new();
    let (mut reader, _) = child.start(&["sh", "-c", "echo up; read line"], "/");
    assert_eq!(child.answer(), FromInit::Started);
    // Standard input has ended, so read fails and the shell goes; only its end is waited for.
    let mut out = String::new();
    reader.read_to_string(&mut out).unwrap();
    assert!(matches!(child.answer(), FromInit::Exited { .. }));

    let _held = child.start(&["sleep", "1000"], "/");
    assert_eq!(child.answer(), FromInit::Started);
    let _refused = child.start(&["true"], "/");
    let errno = libc::EBUSY;
    assert_eq!(
        child.answer(),
        FromInit::Refused {
            errno,
            path: "true".to_owned()
        }
    );
}

#[test]
fn nothing_inherited_stays_open_in_init() {
    let child = Child::new();
    let dir = Path::new("/proc").join(child.pid.to_string()).join("fd");
    let mut open = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let number: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        open.push((number, fs::read_link(path).unwrap().display().to_string()));
    }
    open.sort();
    let numbers: Vec<i32> = open.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, kernel::SOCKET, 4], "{open:?}");
    assert!(
        open[..3].iter().all(|(_, target)| target == "/dev/null"),
        "{open:?}"
    );
    assert_eq!(open[4].1, "anon_inode:[signalfd]");
}

#[test]
fn init_outlives_its_server() {
    let mut child = Child::new();
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .unwrap();
    // A process that holds the pipe ends when init kills nobody and the test says so.
    let (mut out, _err) = child.start(&["sh", "-c", "sleep 0.2; echo still there"], "/");
    assert_eq!(child.answer(), FromInit::Started);
    drop(theirs);
    drop(std::mem::replace(&mut child.socket, ours));
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still there\n");
    // SAFETY: asks whether the child is there.
    assert_eq!(unsafe { libc::kill(child.pid, 0) }, 0);
    // SAFETY: asks, without waiting, whether the child has ended.
    let ended = unsafe { libc::waitpid(child.pid, std::ptr::null_mut(), libc::WNOHANG) };
    assert_eq!(ended, 0, "init has ended");
}
