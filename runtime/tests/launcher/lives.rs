//! Live sandboxes: what they are from outside and from inside, and what their limits hold.

use std::fs;
use std::thread;

use crate::Test;
use crate::support::{Bed, LARGE, SMALL_DISK, make, receive};
use crate::wire::{EndedBy, FromShim, ToShim, WireImage, WireLimits};

pub(crate) const TESTS: &[Test] = &[
    ("empty_root_has_the_whole_posture", empty_posture),
    ("image_has_the_whole_posture", image_posture),
    ("init_holds_no_descriptor_of_the_host", descriptors),
    ("program_sees_a_sandbox_and_cannot_change_the_image", inside),
    ("sandboxes_start_side_by_side", side_by_side),
    ("cpu_is_measured_as_the_program_counts_it", cpu),
    ("disk_holds_what_its_class_says_and_no_more", disk_bytes),
    ("disk_holds_the_inodes_that_its_class_says", disk_inodes),
    ("program_that_eats_all_memory_is_told_as_such", memory),
    ("claim_is_in_force_and_leaves_the_posture_whole", claimed),
    ("claim_that_may_not_be_ends_the_sandbox", claim_refused),
];

fn deviations(image: WireImage) -> Vec<String> {
    let bed = Bed::start();
    let mut request = make(1);
    request.image = image;
    let live = bed.open(&request);
    live.tell(ToShim::Inspect);
    let found = match receive::<FromShim>(&live.shim) {
        Some((FromShim::Inspected { deviations }, _)) => deviations,
        other => panic!("not inspected: {other:?}"),
    };
    drop(live);
    bed.end();
    found
        .into_iter()
        .map(|found| format!("{}: {}", found.what, found.found))
        .collect()
}

fn claimed() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let limits = WireLimits {
        memory_bytes: 64 << 20,
        pids: 16,
        open_files: 100,
        ..make(1).limits
    };
    live.tell(ToShim::Claim(limits));
    let answer = receive::<FromShim>(&live.shim);
    assert!(matches!(answer, Some((FromShim::Claimed, _))), "{answer:?}");
    let name = crate::support::hex(&live.id);
    let read = |file: &str| {
        let groups = bed.groups().into_iter();
        let paths = groups.map(|group| group.join("sandboxes").join(&name).join(file));
        let texts: Vec<String> = paths
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect();
        texts.concat().trim().to_owned()
    };
    assert_eq!(read("pids.max"), "16");
    let memory = [read("memory.limit_in_bytes"), read("memory.max")].concat();
    assert_eq!(memory, (64 << 20).to_string());
    live.tell(ToShim::Inspect);
    match receive::<FromShim>(&live.shim) {
        Some((FromShim::Inspected { deviations }, _)) => assert_eq!(deviations, []),
        other => panic!("not inspected: {other:?}"),
    }
    drop(live);
    bed.end();
}

fn claim_refused() {
    let bed = Bed::start();
    let made = make(1).limits;
    let wrong: [fn(&mut WireLimits); 6] = [
        |limits| limits.memory_bytes = 2 << 30,
        |limits| limits.memory_bytes = 0,
        |limits| limits.pids = 257,
        |limits| limits.open_files = 257,
        |limits| limits.cpu_millis = 1000,
        |limits| limits.cpu_millis = 3000,
    ];
    for change in wrong {
        let live = bed.open(&make(1));
        let mut limits = made;
        change(&mut limits);
        live.tell(ToShim::Claim(limits));
        let answer = receive::<FromShim>(&live.shim);
        assert!(
            matches!(answer, Some((FromShim::Failed { .. }, _))),
            "{answer:?}"
        );
        let id = live.id;
        drop(live);
        bed.expect_gone(id);
    }
    bed.end();
}

fn empty_posture() {
    assert_eq!(deviations(WireImage::Empty), [""; 0]);
}

fn image_posture() {
    assert_eq!(deviations(make(1).image), [""; 0]);
}

/// Init is forked and never exec'd, so nothing closes what it inherits but init itself; one of
/// those descriptors is the host's procfs.
fn descriptors() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let mut targets: Vec<String> = fs::read_dir(format!("/proc/{}/fd", live.pid))
        .unwrap()
        .map(|entry| {
            fs::read_link(entry.unwrap().path())
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .map(|target| target.split(':').next().unwrap().to_owned())
        .collect();
    targets.sort();
    assert_eq!(
        targets,
        [
            "/dev/null",
            "/dev/null",
            "/dev/null",
            "anon_inode",
            "socket"
        ]
    );
    drop(live);
    bed.end();
}

fn inside() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let (text, _) = live.run(&["look"]);
    let golden = "\
Uid=1000 1000 1000 1000
Groups=1000
CapBnd=0000000000000000
NoNewPrivs=1
Seccomp=2
NSpid=2
owner of /probe=0
owner of /owned=1000
owner of /proc/1=1000
may change /owned=true
may change /probe=false
may read /proc/1/exe=false
MemTotal: 131072 kB
/proc/cpuinfo: true, may change=false
/proc/loadavg: true, may change=false
/proc/meminfo: true, may change=false
/proc/stat: true, may change=false
/proc/uptime: true, may change=false
/sys=false
cgroup=false
loopback=true
outside=Err(NetworkUnreachable)
descriptors=3
";
    assert_eq!(text, golden);
    let image = bed
        .dir
        .path()
        .join(format!("images/sha256/{}/rootfs/owned", "a5".repeat(32)));
    assert_eq!(fs::read_to_string(image).unwrap(), "image");
    drop(live);
    bed.end();
}

fn side_by_side() {
    let bed = Bed::start();
    let asked: Vec<_> = (1..=4).map(|id| (id, bed.ask(&make(id)))).collect();
    // The last is waited for first: none needs another to be taken.
    let lives: Vec<_> = asked
        .into_iter()
        .rev()
        .map(|(id, (shim, init))| crate::support::Live::await_ready([id; 16], shim, init))
        .collect();
    let outputs: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = lives
            .iter()
            .map(|live| scope.spawn(|| live.run(&["look"]).0))
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(outputs.windows(2).all(|two| two[0] == two[1]));
    drop(lives);
    bed.end();
}

fn cpu() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let (text, ended) = live.run(&["burn-for", "300000"]);
    let counted: u64 = text.trim().parse().unwrap();
    let measured = ended.measured;
    assert_eq!(ended.by, EndedBy::Finish);
    // The group has exec and exit besides; the program has nothing that the group has not.
    assert!(measured.cpu_us >= counted, "{measured:?} {counted}");
    assert!(
        measured.cpu_us < counted + counted / 2,
        "{measured:?} {counted}"
    );
    assert!(measured.wall_us >= measured.cpu_us / 2, "{measured:?}");
    assert_eq!(
        measured.cpu_user_us + measured.cpu_system_us,
        measured.cpu_us
    );
    assert!(measured.memory_peak_bytes > 0, "{measured:?}");
    drop(live);
    bed.end();
}

fn disk_bytes() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let (text, ended) = live.run(&["fill"]);
    let written: u64 = text.trim().parse().unwrap();
    assert!(written >= SMALL_DISK.0, "{written}");
    assert!(written < SMALL_DISK.0 + SMALL_DISK.0 / 4, "{written}");
    assert!(ended.disk_full);
    drop(live);
    bed.end();
}

fn disk_inodes() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    let (text, ended) = live.run(&["litter"]);
    let made: u64 = text.trim().parse().unwrap();
    assert!(made >= SMALL_DISK.1, "{made}");
    assert!(made < SMALL_DISK.1 * 2, "{made}");
    assert!(ended.disk_full);
    let mut request = make(2);
    request.disk_class = LARGE;
    let other = bed.open(&request);
    assert!(!other.finish().disk_full, "the next disk is empty");
    drop((live, other));
    bed.end();
}

fn memory() {
    let bed = Bed::start();
    let live = bed.open(&make(1));
    live.go(600_000_000, 600_000_000);
    let _output = live.start(&["eat"]);
    let ended = live.ended();
    assert_eq!(ended.by, EndedBy::Oom);
    assert!(ended.measured.memory_peak_bytes > 100 << 20, "{ended:?}");
    drop(live);
    bed.end();
}
