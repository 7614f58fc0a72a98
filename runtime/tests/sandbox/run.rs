//! What a program that keeps to its limits gets: its files, streams, environment and place.

use std::sync::{Arc, Mutex};

use runtime::{Outcome, StartError, Stream};
use tokio::sync::oneshot;

use crate::Test;
use crate::bed::{Bed, Run, limits, text};

pub(crate) const TESTS: &[Test] = &[
    ("a_program_prints_and_is_measured", prints),
    ("files_are_there_and_can_be_written", files),
    ("exit_codes_and_signals_are_told", exits),
    ("standard_input_is_read_to_its_end", stdin),
    ("the_environment_is_the_image_and_the_request", environment),
    (
        "what_does_not_exist_is_127_and_what_cannot_run_126",
        missing,
    ),
    ("output_is_seen_as_it_comes", live_output),
    ("python_does_ordinary_work", ordinary),
    ("the_posture_is_right", posture),
    ("sandboxes_do_not_wait_for_each_other", parallel),
    ("unknown_images_and_greedy_limits_are_refused", refused),
];

const OK: Outcome = Outcome::Exited { code: 0 };

fn prints(bed: &mut Bed) {
    let report = bed.run(&Run::python("print(6 * 7)"));
    assert_eq!(report.outcome, OK, "{}", text(&report.stderr));
    assert_eq!(text(&report.stdout), "42\n");
    assert!(!report.stdout.truncated);
    let measured = report.measured;
    assert!(measured.cpu_us > 1_000, "{measured:?}");
    assert_eq!(
        measured.cpu_user_us + measured.cpu_system_us,
        measured.cpu_us
    );
    assert!(
        measured.wall_us >= 1_000 && measured.memory_peak_bytes > 1 << 20,
        "{measured:?}"
    );
    assert!(report.finished_us - report.started_us >= measured.wall_us);
}

fn files(bed: &mut Bed) {
    let mut run = Run::python(
        "import os\n\
         print(open('data/in.txt').read(), os.getcwd(), oct(os.stat('data/in.txt').st_mode))\n\
         open('out', 'w').write('x' * 100)\n\
         print(os.path.getsize('out'), os.getuid(), os.getgid(), os.getgroups())\n\
         print(open('/home/user/f', 'w').write('h'), open('/tmp/f', 'w').write('t'))\n\
         try: open('/etc/passwd', 'a')\n\
         except OSError as e: print(type(e).__name__)\n",
    );
    run.files.push(runtime::File {
        path: "data/in.txt".to_owned(),
        content: b"content".to_vec(),
        mode: 0o600,
    });
    let report = bed.run(&run);
    assert_eq!(
        text(&report.stdout),
        "content /workspace 0o100600\n100 1000 1000 [1000]\n1 1\nPermissionError\n",
        "{}",
        text(&report.stderr)
    );
}

fn exits(bed: &mut Bed) {
    assert_eq!(
        bed.run(&Run::shell("exit 3")).outcome,
        Outcome::Exited { code: 3 }
    );
    let report = bed.run(&Run::shell("kill -SEGV $$"));
    assert_eq!(
        report.outcome,
        Outcome::Signalled {
            signal: libc::SIGSEGV
        }
    );
    // The tenant's own SIGKILL is a signal too, and nobody else's.
    let report = bed.run(&Run::shell("kill -KILL $$"));
    assert_eq!(
        report.outcome,
        Outcome::Signalled {
            signal: libc::SIGKILL
        }
    );
}

fn stdin(bed: &mut Bed) {
    let mut run = Run::shell("wc -c; sleep 0");
    run.stdin = vec![b'x'; 300_000];
    assert_eq!(text(&bed.run(&run).stdout), "300000\n");
    let mut unread = Run::shell("echo done");
    unread.stdin = vec![b'x'; 300_000];
    let report = bed.run(&unread);
    assert_eq!(
        (report.outcome, text(&report.stdout).as_str()),
        (OK, "done\n")
    );
}

fn environment(bed: &mut Bed) {
    let mut run = Run::command(&["env"]);
    run.env = [("GREETING", "hello"), ("HOME", "/tmp")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    let report = bed.run(&run);
    let out = text(&report.stdout);
    assert!(
        out.contains("GREETING=hello\n") && out.contains("HOME=/tmp\n"),
        "{out}"
    );
    assert_eq!(out.matches("HOME=").count(), 1, "{out}");
    assert_eq!(out.lines().count(), bed.image.env.len() + 1, "{out}");
}

fn missing(bed: &mut Bed) {
    let report = bed.run(&Run::command(&["no-such-command"]));
    assert_eq!(report.outcome, Outcome::Exited { code: 127 });
    assert!(text(&report.stderr).contains("no-such-command: command not found"));
    let report = bed.run(&Run::command(&["/etc/passwd"]));
    assert_eq!(report.outcome, Outcome::Exited { code: 126 });
}

fn live_output(bed: &mut Bed) {
    let (cancel, cancelled) = oneshot::channel();
    let cancel = Mutex::new(Some(cancel));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let seen = Arc::clone(&seen);
        Box::new(move |stream, bytes: &[u8]| {
            seen.lock().unwrap().push((stream, bytes.to_vec()));
            // The program waits for longer than this test may: only output that is seen before its
            // end ends it.
            if let Some(cancel) = cancel.lock().unwrap().take() {
                cancel.send(()).unwrap();
            }
        })
    };
    let report = bed.run_with(
        &Run::shell("echo now >&2; exec sleep 1000"),
        Some(sink),
        cancelled,
    );
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert_eq!(*seen.lock().unwrap(), [(Stream::Stderr, b"now\n".to_vec())]);
}

fn ordinary(bed: &mut Bed) {
    let code = "\
import asyncio, multiprocessing, os, socket, sqlite3, subprocess, tempfile, threading, time, uuid
import numpy, pip
print(subprocess.run(['id', '-un'], capture_output=True, text=True).stdout.strip())
threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(8)]
[one.start() for one in threads]; [one.join() for one in threads]
async def child():
    process = await asyncio.create_subprocess_exec('echo', 'sub', stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]
print(asyncio.run(child()))
print(multiprocessing.Pool(2).map(abs, [-1, 2]))
db = sqlite3.connect('x.db'); db.execute('create table t (a)'); db.commit()
print(numpy.arange(4).sum(), len(os.urandom(8)), tempfile.NamedTemporaryFile().name[:5])
os.mkfifo('pipe'); os.symlink('pipe', 'link'); os.link('x.db', 'y.db'); os.nice(1)
print(sorted(os.listdir()))
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname()); client.sendall(b'loop')
print(server.accept()[0].recv(9))
";
    let report = bed.run(&Run::python(code));
    assert_eq!(
        text(&report.stdout),
        "user\nb'sub\\n'\n[1, 2]\n6 8 /tmp/\n\
         ['link', 'main.py', 'pipe', 'x.db', 'y.db']\nb'loop'\n",
        "{}",
        text(&report.stderr)
    );
}

fn posture(bed: &mut Bed) {
    bed.block_on(bed.runtime.check_posture()).unwrap();
}

/// The first of two waits for a line that the second's existence does not depend on; if making the
/// second waited for the first, both would time out.
fn parallel(bed: &mut Bed) {
    let (first, second) = (bed.spec(limits()), bed.spec(limits()));
    bed.block_on(async {
        let (one, two) = tokio::join!(bed.runtime.open(first), bed.runtime.open(second));
        let (one, two) = (one.unwrap(), two.unwrap());
        let ids = [one.id(), two.id()];
        let (cancel_one, cancelled_one) = oneshot::channel();
        let (_cancel_two, cancelled_two) = oneshot::channel();
        let long = bed.process(ids[0], &Run::shell("exec sleep 1000"));
        let short = bed.process(ids[1], &Run::shell("echo short"));
        let (long, ()) = tokio::join!(one.run(long, None, cancelled_one), async {
            let report = two.run(short, None, cancelled_two).await;
            assert_eq!(text(&report.stdout), "short\n");
            cancel_one.send(()).unwrap();
        });
        assert_eq!(long.outcome, Outcome::Cancelled);
        ids.iter().for_each(|id| bed.runtime.forget(*id));
    });
}

fn refused(bed: &mut Bed) {
    let mut unknown = bed.spec(limits());
    unknown.image = runtime::Digest([7; 32]);
    let mut greedy = bed.spec(limits());
    greedy.limits.memory_bytes = 1 << 40;
    let mut large = bed.spec(limits());
    large.limits.disk_bytes = 1 << 40;
    for spec in [unknown, greedy, large] {
        let error = bed.block_on(bed.runtime.open(spec)).unwrap_err();
        assert!(matches!(error, StartError::Refused { .. }), "{error:?}");
    }
    // Four slots: the fifth sandbox finds none, and one is free again once one has gone.
    let specs: Vec<_> = (0..5).map(|_| bed.spec(limits())).collect();
    bed.block_on(async {
        let mut open = Vec::new();
        for spec in &specs[..4] {
            open.push(bed.runtime.open(spec.clone()).await.unwrap());
        }
        let error = bed.runtime.open(specs[4].clone()).await.unwrap_err();
        assert!(matches!(error, StartError::Overloaded { .. }), "{error:?}");
        for sandbox in open {
            sandbox.discard().await;
        }
    });
}
