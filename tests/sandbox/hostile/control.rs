//! Programs outside of any sandbox: the very code of a hostile program, as root and without a
//! filter.
//!
//! The namespaces that it gets only keep it from this machine: none of them is what the sandbox is
//! tested for, unless the program says that it shares less.

use std::fs;
use std::process::{Command, Stdio};

use runtime::image::Store;

use super::source;
use crate::bed::{Bed, Language};

/// What a control shares with this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Namespaces of its own of every kind but user.
    Nothing,
    /// The network; for programs that only connect.
    Network,
    /// The process table; for programs that only look.
    Processes,
}

/// Builds a throw-away root over the image and runs the program in it.
const SCRIPT: &str = r#"
set -e
root=$1 work=$2 file=$3 interpreter=$4
mount -t tmpfs tmpfs "$work"
mkdir "$work/u" "$work/w" "$work/m"
mount -t overlay -o "lowerdir=$root,upperdir=$work/u,workdir=$work/w" overlay "$work/m"
cd "$work/m"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs dev
mkdir dev/shm
mount -t tmpfs tmpfs dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/urandom c 1 9
mknod -m 600 dev/mem c 1 1
mknod -m 600 dev/kmsg c 1 11
cat > "workspace/$file"
mkdir old
pivot_root . old
# In a root that was merely changed to, the kernel makes no user namespace; the image has no umount.
/usr/bin/python3 -c 'import ctypes; ctypes.CDLL(None).umount2(b"/old", 2)'
cd /workspace
# The loopback of a namespace of its own is down; whose it is otherwise is up already.
/usr/bin/python3 -c 'import fcntl, socket, struct
if fcntl.ioctl(socket.socket(), 0x8913, request := bytearray(struct.pack("16sh14x", b"lo", 0))) == 0:
    if not request[16] & 1:
        fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))'
# Tells apart what was inherited.
exec 9</dev/null
set +e
env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin OUTSIDE=1 "FAREBOX_PORT=$FAREBOX_PORT" \
    "FAREBOX_NAME=$FAREBOX_NAME" timeout -s KILL 60 "$interpreter" "$file" </dev/null
echo "ended $?" >&2
"#;

/// How it ended and what it printed, in the form of [`super::seen`].
pub(super) fn outside(bed: &Bed, language: Language, code: &str, share: Share) -> (String, String) {
    let (image, file, interpreter) = language.parts();
    let store = Store::open(&bed.world.images);
    let digest = store.resolve(image).unwrap().digest;
    let root = store.dir().join("sha256").join(digest.hex()).join("rootfs");
    let work = tempfile::tempdir_in(bed.dir.path()).unwrap();
    let input = bed.dir.path().join("control");
    fs::write(&input, source(language, code)).unwrap();
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--ipc",
        "--uts",
        "--cgroup",
        "--propagation",
        "private",
    ]);
    if share != Share::Network {
        command.arg("--net");
    }
    if share != Share::Processes {
        command.args(["--pid", "--fork", "--kill-child"]);
    }
    command.args(["sh", "-c", SCRIPT, "control"]);
    command
        .arg(&root)
        .arg(work.path())
        .arg(file)
        .arg(interpreter);
    command.env("FAREBOX_PORT", super::network::port(bed).to_string());
    command.env("FAREBOX_NAME", super::network::abstract_name());
    command.stdin(Stdio::from(fs::File::open(&input).unwrap()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = errors
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("ended "));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in errors.lines().rev().take(4) {
        text.push_str(&format!("stderr: {}\n", line.escape_debug()));
    }
    (format!("exited {}", code.unwrap_or("?")), text)
}
