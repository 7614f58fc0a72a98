//! Python forked from a template: a program cannot tell, and what it is forked from can do nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::Outcome;

use crate::Test;
use crate::bed::{Bed, Run, all_children, children, text};
use crate::interpreter::{program, programs, shown};
use crate::templates::is_template;
use crate::warm::{FOREVER_MS, pooled};

pub(crate) const TESTS: &[Test] = &[
    ("a_program_runs_in_a_fork_as_in_a_fresh_interpreter", same),
    ("a_template_can_do_nothing_to_the_host", powerless),
    ("a_fork_is_what_init_would_have_started", like_others),
    ("forks_share_a_hash_secret_and_no_randomness", randomness),
    (
        "without_its_template_an_interpreter_is_started",
        without_template,
    ),
    ("who_waits_is_forked_for_once_a_template_works", waited_for),
    ("a_network_that_was_made_ahead_is_used_once", networks),
];

/// A runtime of whose sandboxes two stand ready, each with a fork in it.
fn forked(bed: &mut Bed) {
    bed.python_waits(true);
    pooled(bed, 2, FOREVER_MS);
}

fn is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The one template.
fn template(bed: &Bed) -> i32 {
    let templates = all_children(bed.launcher);
    let templates: Vec<_> = templates
        .into_iter()
        .filter(|pid| is_template(pid))
        .collect();
    let [one] = templates.as_slice() else {
        panic!("{templates:?}")
    };
    *one
}

/// The processes that wait in sandboxes.
fn waiting(bed: &Bed) -> Vec<i32> {
    let inits = children(bed.launcher).into_iter().flat_map(children);
    inits.flat_map(children).collect()
}

/// The value of a line of `/proc/PID/status`.
fn status(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .to_owned()
}

fn same(bed: &mut Bed) {
    let programs = programs();
    let fresh = |code: &&'static str| (*code, shown(&bed.run(&program(code))));
    let known: Vec<_> = programs.iter().map(fresh).collect();
    forked(bed);
    let mut others = Vec::new();
    for (code, fresh) in &known {
        assert!(bed.until_ready(2));
        let forked = shown(&bed.run(&program(code)));
        if forked != *fresh {
            others.push((code, fresh, forked));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

fn powerless(bed: &mut Bed) {
    forked(bed);
    let template = template(bed);
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(template, name), "0000000000000000", "{name}");
    }
    assert_eq!(status(template, "NoNewPrivs"), "1");
    assert_eq!(status(template, "Seccomp"), "2");
    assert_eq!(status(template, "Groups"), "");
    let uid: u32 = status(template, "Uid")
        .split('\t')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((0x3fff_0000..0x4000_0000).contains(&uid), "{uid}");
    // On v2 nobody forks into a group outside their cgroup namespace, and there is no other.
    let kinds = ["mnt", "net", "ipc", "uts", "cgroup"];
    for kind in &kinds[..kinds.len() - usize::from(is_v2())] {
        let link = |pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(link(template), link(bed.launcher), "{kind}");
    }
    let entries = fs::read_dir(format!("/proc/{template}/fd")).unwrap();
    let open: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(open, ["0", "1", "2"].map(str::to_owned).into());
    let mounts = fs::read_to_string(format!("/proc/{template}/mountinfo")).unwrap();
    let points: Vec<_> = mounts
        .lines()
        .map(|line| line.split(' ').nth(4).unwrap())
        .collect();
    assert_eq!(points, ["/", "/run"], "{mounts}");
    assert!(mounts.lines().all(|line| line.contains(" ro,")), "{mounts}");
    if is_v2() {
        lent_for_one_fork(bed);
    }
}

/// Nobody but root may enter what is below this instance's group.
fn lent_for_one_fork(bed: &Bed) {
    for pid in waiting(bed) {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let group = text.trim().strip_prefix("0::").unwrap();
        let procs = format!("/sys/fs/cgroup{group}/cgroup.procs");
        let found = fs::metadata(&procs).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o644), "{procs}");
    }
}

fn like_others(bed: &mut Bed) {
    bed.python_waits(false);
    pooled(bed, 2, FOREVER_MS);
    let code = "import os, resource, sys, time, signal, stat
print(os.getpid() > 1, os.getppid(), os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd())
print(len(os.sched_getaffinity(0)), os.cpu_count(), os.getpriority(os.PRIO_PROCESS, 0), os.umask(0))
print([resource.getrlimit(one) for one in range(16)], os.getsid(0) == os.getpid())
print(sorted(os.listdir('/proc/self/ns')), sorted(os.listdir('/proc/self/fd')))
print([signal.getsignal(one) for one in (1, 2, 13, 15, 17)], signal.pthread_sigmask(0, []))
print([stat.S_IFMT(os.fstat(one).st_mode) for one in range(3)], sys.stdout.seekable())
print(open('/proc/self/oom_score_adj').read(), open('/proc/self/cgroup').read().count('sandboxes'))
print(open('/proc/self/comm').read(), open('/proc/self/uid_map').read().split()[::2], sys.executable, sys.path)
print(time.clock_gettime(time.CLOCK_BOOTTIME) < 3600, float(open('/proc/uptime').read().split()[0]) < 3600)
for call in (lambda: os.setuid(0), lambda: os.unshare(1) if hasattr(os, 'unshare') else 1/0,
             lambda: open('/proc/1/mem'), lambda: os.kill(1, 0), lambda: os.chroot('/')):
    try: print(call())
    except Exception as error: print(type(error).__name__)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number, argument in ((272, 0x10000000), (272, 0x80), (308, 0), (165, 0), (56, 0x10000000)):
    print(libc.syscall(number, argument, 0, 0, 0, 0), ctypes.get_errno())
for line in open('/proc/self/status'):
    if line.startswith(('Cap', 'NoNew', 'Seccomp:', 'Uid', 'Gid', 'Groups', 'Threads', 'Shd', 'Sig')):
        print(line.strip())";
    assert!(bed.until_ready(2));
    let started = shown(&bed.run(&Run::python(code)));
    assert_eq!(started.0, Outcome::Exited { code: 0 }, "{started:?}");
    assert!(bed.until_ready(2));
    let filters: Vec<_> = waiting(bed)
        .iter()
        .map(|pid| status(*pid, "Seccomp_filters"))
        .collect();
    assert_eq!(filters, ["1", "1"]);
    forked(bed);
    assert!(bed.until_ready(2));
    let filters: Vec<_> = waiting(bed)
        .iter()
        .map(|pid| status(*pid, "Seccomp_filters"))
        .collect();
    assert_eq!(filters, ["2", "2"]);
    let fork = shown(&bed.run(&Run::python(code)));
    assert_eq!(fork, started);
}

fn randomness(bed: &mut Bed) {
    forked(bed);
    let code = "import random, uuid, secrets, ssl
print(hash('a'))
print(random.random(), uuid.uuid4(), secrets.token_hex(), ssl.RAND_bytes(8))";
    let mut hashes = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        assert!(bed.until_ready(2));
        let report = bed.run(&Run::python(code));
        let stdout = text(&report.stdout);
        let (hash, others) = stdout.split_once('\n').unwrap();
        hashes.insert(hash.to_owned());
        for word in others.split_whitespace() {
            assert!(seen.insert(word.to_owned()), "{word} came twice");
        }
    }
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    assert!(seen.len() >= 12, "{seen:?}");
}

fn without_template(bed: &mut Bed) {
    forked(bed);
    let first = template(bed);
    // One that is gone is replaced, and what it has forked goes on.
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    for _ in 0..4 {
        assert!(bed.until_ready(2));
        let report = bed.run(&Run::python("print(1)"));
        assert_eq!(report.outcome, Outcome::Exited { code: 0 }, "{report:?}");
    }
    assert!(bed.until_ready(2));
    let second = template(bed);
    assert_ne!(first, second);
    // One that is silent is ended, and interpreters are started.
    kill(Pid::from_raw(second), Signal::SIGSTOP).unwrap();
    for _ in 0..4 {
        let report = bed.run(&Run::python("print(1)"));
        assert_eq!(report.outcome, Outcome::Exited { code: 0 }, "{report:?}");
    }
    let is_so = bed.until(|_| !std::path::Path::new(&format!("/proc/{second}")).exists());
    assert!(is_so, "a silent template lives");
    assert!(bed.until_ready(2), "interpreters are started");
}

fn waited_for(bed: &mut Bed) {
    bed.python_waits(true);
    let code = "print('template.so' in open('/proc/self/maps').read())";
    let mut is_fork = || {
        let report = bed.run(&Run::python(code));
        assert_eq!(report.outcome, Outcome::Exited { code: 0 }, "{report:?}");
        text(&report.stdout) == "True\n"
    };
    assert!(!is_fork(), "nobody waits for a template");
    assert!((0..100).any(|_| is_fork()), "nothing is forked");
    assert!(is_fork());
}

fn networks(bed: &mut Bed) {
    bed.python_waits(true);
    let code = "import os, socket
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
client.send(b'heard')
print(socket.if_nameindex(), server.accept()[0].recv(5))
print(os.readlink('/proc/self/ns/net'))";
    let (mut seen, mut held, mut used) = (BTreeSet::new(), Vec::new(), 0);
    let is_done = (0..100).any(|_| {
        let ready = networks_ready(bed);
        let report = bed.run(&Run::python(code));
        let stdout = text(&report.stdout);
        let (heard, network) = stdout.trim().split_once('\n').unwrap();
        assert_eq!(heard, "[(1, 'lo')] b'heard'", "{report:?}");
        assert!(!seen.contains(network), "{network} is used again");
        let of_it = ready.into_iter().find(|(name, _)| name == network);
        used += usize::from(of_it.is_some());
        seen.extend(of_it.iter().map(|(name, _)| name.clone()));
        // While it is open, no other one gets its number.
        held.extend(of_it);
        used == 3
    });
    assert!(is_done, "{used} that were made ahead were used");
}

/// The network namespaces that the launcher has ready, held open.
fn networks_ready(bed: &Bed) -> Vec<(String, fs::File)> {
    let entries = fs::read_dir(format!("/proc/{}/fd", bed.launcher)).unwrap();
    let network = |entry: fs::DirEntry| {
        let name = fs::read_link(entry.path()).ok()?.into_os_string();
        let name = name.into_string().ok()?;
        let is_one = name.starts_with("net:");
        Some((name, fs::File::open(entry.path()).ok().filter(|_| is_one)?))
    };
    entries.flatten().filter_map(network).collect()
}
