//! The reader in a forked process, over a directory that a hostile program could have left.
#![expect(unsafe_code, reason = "forks a process to be a reader")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

/// A reader in a child process, which ends with this.
struct Child {
    socket: Option<OwnedFd>,
    pid: libc::pid_t,
    root: tempfile::TempDir,
}

impl Child {
    fn over(lay: impl Fn(&Path)) -> Child {
        let root = tempfile::tempdir().unwrap();
        lay(root.path());
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let near = socket.as_raw_fd();
        // SAFETY: the child needs no lock of another thread, and ends by _exit.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: the child's copy of a descriptor that it does not use; the kernel copies the
            // path.
            unsafe { libc::close(near) };
            let code = match nix::unistd::chdir(root.path()) {
                Ok(()) => run(&theirs),
                Err(_) => 9,
            };
            kernel::exit_now(code);
        }
        drop(theirs);
        let child = Child {
            socket: Some(socket),
            pid,
            root,
        };
        assert_eq!(child.hear().answer, Answer::Ready);
        child
    }

    fn socket(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_ref().unwrap().as_fd()
    }

    fn hear(&self) -> FromReader {
        let frame = wire::recv::<FromReader>(self.socket(), INIT_FRAME_MAX).unwrap();
        frame.unwrap().0
    }

    fn ask(&self, ask: Ask) -> Answer {
        let frame = ToReader { seq: 7, ask };
        wire::send(self.socket(), &frame, INIT_FRAME_MAX, &[]).unwrap();
        let heard = self.hear();
        assert_eq!(heard.seq, 7);
        heard.answer
    }

    fn read(&self, path: &[u8], offset: u64, len: u32) -> Answer {
        let path = path.to_vec();
        self.ask(Ask::Read { path, offset, len })
    }

    fn list(&self, path: &[u8], from: u64, most: u32) -> (Vec<Entry>, bool) {
        let path = path.to_vec();
        match self.ask(Ask::List { path, from, most }) {
            Answer::Listed { entries, more } => (entries, more),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.socket.take());
        // SAFETY: waits for a child of this process; no memory is passed.
        let code = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        assert_eq!(code, self.pid);
    }
}

fn refused(errno: i32) -> Answer {
    Answer::Refused { errno }
}

fn piece(size: u64, bytes: &[u8]) -> Answer {
    Answer::Piece {
        size,
        bytes: bytes.to_vec(),
    }
}

#[test]
fn files_are_read_in_pieces_of_any_length() {
    let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let child = Child::over(|root| fs::write(root.join("a"), &content).unwrap());
    assert_eq!(child.read(b"/a", 5, 3), piece(200_000, &content[5..8]));
    assert_eq!(
        child.read(b"/a", 100_000, u32::MAX),
        piece(200_000, &content[100_000..100_000 + CHUNK_MAX])
    );
    assert_eq!(
        child.read(b"/a", 199_999, 9),
        piece(200_000, &content[199_999..])
    );
    assert_eq!(child.read(b"/a", u64::MAX >> 1, 9), piece(200_000, b""));
    assert_eq!(child.read(b"/a", u64::MAX, 9), piece(200_000, b""));
    assert_eq!(child.read(b"/b", 0, 9), refused(libc::ENOENT));
    assert_eq!(child.read(b"/a/b", 0, 9), refused(libc::ENOTDIR));
    assert_eq!(child.read(b"/", 0, 9), refused(libc::EISDIR));
    let long = vec![b'x'; PATH_MAX + 1];
    assert_eq!(child.read(&long, 0, 9), refused(libc::ENAMETOOLONG));
}

#[test]
fn links_lead_nowhere_but_within_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "host").unwrap();
    let child = Child::over(|root| {
        fs::write(root.join("inside"), "in").unwrap();
        symlink("/inside", root.join("absolute")).unwrap();
        symlink(&secret, root.join("out")).unwrap();
        symlink("../../../../../../etc/passwd", root.join("up")).unwrap();
        symlink("/proc/self/root/etc/passwd", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/", root.join("top")).unwrap();
    });
    assert_eq!(child.read(b"/absolute", 0, 9), piece(2, b"in"));
    assert_eq!(child.read(b"/top/../../inside", 0, 9), piece(2, b"in"));
    for path in ["/out", "/up", "/magic", "/../../../../etc/passwd"] {
        assert_eq!(
            child.read(path.as_bytes(), 0, 9),
            refused(libc::ENOENT),
            "{path}"
        );
    }
    assert_eq!(child.read(b"/loop", 0, 9), refused(libc::ELOOP));
}

#[test]
fn only_regular_files_are_opened() {
    let child = Child::over(|root| {
        mkfifo(&root.join("pipe"), Mode::from_bits_truncate(0o666)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
        symlink("pipe", root.join("to-pipe")).unwrap();
    });
    for path in ["/pipe", "/socket", "/to-pipe"] {
        assert_eq!(
            child.read(path.as_bytes(), 0, 9),
            refused(libc::ENXIO),
            "{path}"
        );
    }
    let path = b"/pipe".to_vec();
    let list = Ask::List {
        path,
        from: 0,
        most: 9,
    };
    assert_eq!(child.ask(list), refused(libc::ENOTDIR));
}

#[test]
fn directories_are_listed_in_parts_with_any_names() {
    let hostile: [&[u8]; 4] = [b"a\nb", b"\xff\xfe", b"\x1b[31m", &[b'x'; 255]];
    let child = Child::over(|root| {
        for name in hostile {
            fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
        }
        fs::create_dir(root.join("many")).unwrap();
        for n in 0..3_000 {
            fs::write(root.join(format!("many/a-somewhat-longer-name-{n}")), "").unwrap();
        }
    });
    let (found, more) = child.list(b"/", 0, 100);
    let mut names: Vec<&[u8]> = found.iter().map(|one| one.name.as_slice()).collect();
    names.sort_unstable();
    let mut expected: Vec<&[u8]> = hostile.to_vec();
    expected.push(b"many");
    expected.sort_unstable();
    assert_eq!((names, more), (expected, false));
    for name in hostile {
        let size = u64::try_from(name.len()).unwrap();
        let path = [b"/", name].concat();
        assert_eq!(child.read(&path, 0, 999), piece(size, name));
    }
    let (mut from, mut all) = (0, std::collections::BTreeSet::new());
    loop {
        let (part, more) = child.list(b"/many", from, 2_000);
        from += u64::try_from(part.len()).unwrap();
        assert!(!part.is_empty() && part.len() <= 2_000);
        all.extend(part.into_iter().map(|one| one.name));
        if !more {
            break;
        }
    }
    assert_eq!((all.len(), from), (3_000, 3_000));
    assert_eq!(child.list(b"/many", u64::MAX, 9), (Vec::new(), false));
    assert_eq!(child.list(b"/many", 0, 0), (Vec::new(), true));
}

#[test]
fn what_is_no_question_ends_it() {
    for bytes in [b"\x01".as_slice(), b"\xff\xff", &[1; 90_000]] {
        let child = Child::over(|_| ());
        wire::send_bytes(child.socket(), bytes, &[]).unwrap();
        let heard = wire::recv::<FromReader>(child.socket(), INIT_FRAME_MAX);
        assert!(matches!(heard, Ok(None)), "{heard:?}");
    }
    let child = Child::over(|root| {
        let dir = root.join("dir");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    });
    assert!(child.root.path().exists());
    let frame = ToReader {
        seq: 1,
        ask: Ask::List {
            path: b"/".to_vec(),
            from: 0,
            most: 1,
        },
    };
    let extra = tempfile::tempfile().unwrap();
    wire::send(child.socket(), &frame, INIT_FRAME_MAX, &[extra.as_fd()]).unwrap();
    let heard = wire::recv::<FromReader>(child.socket(), INIT_FRAME_MAX);
    assert!(matches!(heard, Ok(None)), "{heard:?}");
}
