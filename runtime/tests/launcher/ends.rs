//! How sandboxes end, whoever ends them, and that nothing is left.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::support::{Bed, Live, is_alive, line, make, until};
use crate::wire::{EndedBy, FromLauncher, ToShim};

pub(crate) const TESTS: &[Test] = &[
    ("finish_answers_and_leaves_nothing", finish),
    (
        "fork_bomb_that_outlives_its_main_process_is_killed",
        fork_bomb,
    ),
    ("wall_deadline_holds_while_the_server_is_silent", wall),
    ("cpu_deadline_holds_while_the_server_is_silent", cpu),
    (
        "figures_that_no_server_took_are_in_the_final_file",
        unsettled,
    ),
    (
        "server_gone_ends_everything_and_leaves_the_final_file",
        server_gone,
    ),
    ("idle_sandbox_leaves_no_final_file", idle_server_gone),
    (
        "groups_go_though_a_process_of_the_platform_is_still_ending",
        slow_end,
    ),
    ("shim_killed_is_swept_and_told", shim_killed),
    (
        "launcher_killed_leaves_no_process_and_the_next_one_sweeps",
        launcher_killed,
    ),
];

/// Pids in the sandbox's groups.
fn members(bed: &Bed, live: &Live) -> Vec<i32> {
    let name = crate::support::hex(&live.id);
    let files = bed
        .groups()
        .into_iter()
        .map(|path| path.join("sandboxes").join(&name));
    let texts = files.map(|path| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default());
    texts
        .flat_map(|text| {
            text.lines()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn has_group(bed: &Bed, id: u8) -> bool {
    let name = crate::support::hex(&[id; 16]);
    bed.groups()
        .iter()
        .any(|path| path.join("sandboxes").join(&name).exists())
}

fn finish() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let (_, ended) = live.run(&["nothing"]);
    assert_eq!(ended.by, EndedBy::Finish);
    live.tell(ToShim::Settled);
    bed.expect_gone(live.id);
    assert!(!is_alive(live.pid));
    assert!(!has_group(&bed, 1));
    assert_eq!(bed.finals(), []);
    bed.end();
}

fn fork_bomb() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    live.go(600_000_000, 600_000_000);
    let mut output = live.start(&["bomb"]);
    let made = line(&mut output).rsplit(' ').next().unwrap().parse::<u32>();
    let (_, others_left) = live.exited();
    assert!(others_left);
    let pids = members(&bed, &live);
    assert!(pids.len() > 10, "{pids:?}");
    let ended = live.finish();
    assert!(made.is_ok_and(|made| made < make(1).limits.pids));
    assert!(
        ended.measured.pids_refused > 0 || ended.measured.pids_peak > 0,
        "{ended:?}"
    );
    let are_dead = || pids.iter().all(|pid| !is_alive(*pid));
    assert!(
        ended.unsettled || are_dead(),
        "an answer with proof comes after their death"
    );
    live.tell(ToShim::Settled);
    bed.expect_gone(live.id);
    assert!(are_dead());
    assert!(!has_group(&bed, 1));
    bed.end();
}

fn wall() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    live.go(1_000_000, 600_000_000);
    let _output = live.start(&["wait"]);
    let ended = live.ended();
    assert_eq!(ended.by, EndedBy::Wall);
    assert!(ended.measured.wall_us >= 1_000_000);
    let (id, pid) = (live.id, live.pid);
    drop(live);
    bed.expect_gone(id);
    assert!(!is_alive(pid));
    bed.end();
}

fn cpu() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    live.go(600_000_000, 200_000);
    let _output = live.start(&["burn"]);
    let ended = live.ended();
    assert_eq!(ended.by, EndedBy::Cpu);
    assert!(ended.measured.cpu_us >= 200_000, "{ended:?}");
    let (id, pid) = (live.id, live.pid);
    drop(live);
    bed.expect_gone(id);
    assert!(!is_alive(pid));
    bed.end();
}

/// The server dies between the shim's answer and its own settlement.
fn unsettled() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let (_, ended) = live.run(&["burn-for", "50000"]);
    let id = live.id;
    drop(live);
    bed.expect_gone(id);
    let finals = bed.finals();
    assert_eq!(finals.len(), 1);
    assert_eq!(
        (finals[0].sandbox, finals[0].execution),
        (id, Some([9; 16]))
    );
    assert_eq!(finals[0].ended, ended);
    bed.end();
}

fn server_gone() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    live.go(600_000_000, 600_000_000);
    let mut output = live.start(&["burn-for", "100000"]);
    line(&mut output);
    let (pid, id) = (live.pid, live.id);
    let groups = bed.groups();
    drop(live);
    let (dir, mut child, instance) = bed.leave();
    assert!(child.wait().unwrap().success());
    assert!(!is_alive(pid));
    assert!(groups.iter().all(|path| !path.exists()), "no group is left");
    let next = Bed::start_in(dir);
    assert_eq!(
        next.instance, instance,
        "the instance is its state directory's"
    );
    let finals = next.finals();
    assert_eq!(finals.len(), 1);
    assert_eq!(
        (finals[0].sandbox, finals[0].execution),
        (id, Some([9; 16]))
    );
    assert_eq!(finals[0].ended.by, EndedBy::ServerGone);
    assert!(finals[0].ended.measured.cpu_us >= 100_000, "{finals:?}");
    next.end();
}

fn idle_server_gone() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let (pid, id) = (live.pid, live.id);
    drop(live);
    bed.expect_gone(id);
    assert!(!is_alive(pid));
    assert_eq!(bed.finals(), []);
    bed.end();
}

/// A process that is ending can no more be moved to another group, and holds its own until all its
/// memory is given back.
fn slow_end() {
    let bed = Bed::start();
    let mut slow = Command::new("tail")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = slow.stdin.take().unwrap();
    let block = vec![0; 1 << 20];
    (0..800).for_each(|_| input.write_all(&block).unwrap());
    drop(input);
    // What tail writes, it writes once it holds everything.
    slow.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    for group in bed.groups() {
        fs::write(group.join("platform/cgroup.procs"), slow.id().to_string()).unwrap();
    }
    slow.kill().unwrap();
    bed.end();
    slow.wait().unwrap();
}

/// The parent of init, which is its shim.
fn shim_of(live: &Live) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", live.pid)).unwrap();
    stat.rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

fn shim_killed() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let other = bed.open(&make(2));
    live.go(600_000_000, 600_000_000);
    let mut output = live.start(&["burn-for", "50000"]);
    line(&mut output);
    kill(Pid::from_raw(shim_of(&live)), Signal::SIGKILL).unwrap();
    bed.expect_gone(live.id);
    assert!(!is_alive(live.pid));
    assert!(!has_group(&bed, 1));
    let finals = bed.finals();
    assert_eq!(finals.len(), 1);
    assert_eq!(
        (finals[0].sandbox, finals[0].ended.by),
        (live.id, EndedBy::ShimDied)
    );
    assert!(finals[0].ended.measured.cpu_us >= 50_000, "{finals:?}");
    assert!(is_alive(other.pid), "another sandbox lives on");
    other.run(&["nothing"]);
    drop((live, other));
    bed.end();
}

fn launcher_killed() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    live.go(600_000_000, 600_000_000);
    let mut output = live.start(&["burn"]);
    line(&mut output);
    let (pid, id) = (live.pid, live.id);
    kill(Pid::from_raw(bed.launcher()), Signal::SIGKILL).unwrap();
    until("init dies with its launcher", || !is_alive(pid));
    let (dir, mut child, _) = bed.leave();
    child.wait().unwrap();
    drop(live);
    let next = Bed::start_in(dir);
    assert!(!has_group(&next, 1), "the next launcher has swept");
    let finals = next.finals();
    assert_eq!(finals.len(), 1);
    assert_eq!(
        (finals[0].sandbox, finals[0].ended.by),
        (id, EndedBy::ShimDied)
    );
    // The sandbox's identity may be used again.
    let again = next.open(&make(1));
    again.run(&["nothing"]);
    again.tell(ToShim::Settled);
    assert_eq!(next.answer(), FromLauncher::Gone { sandbox: id });
    next.end();
}
