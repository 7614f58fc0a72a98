//! What the launcher makes of frames that are not right, and of requests that ask too much.

use std::fs;
use std::os::fd::AsFd;
use std::process::Command;

use crate::Test;
use crate::support::{Bed, IMAGE, make, make_image, pair};
use crate::wire::{
    FRAME_MAX, FromLauncher, Refusal, ToLauncher, WireImage, encode, send, send_bytes,
};

pub(crate) const TESTS: &[Test] = &[
    (
        "hostile_frames_are_refused_and_the_launcher_lives",
        hostile_frames,
    ),
    ("greedy_descriptors_are_closed_again", greedy_descriptors),
    ("request_without_its_sockets_is_refused", missing_sockets),
    ("request_beyond_the_maxima_is_refused", beyond_the_maxima),
    ("unknown_image_is_refused", unknown_image),
    (
        "more_sandboxes_than_slots_are_refused_until_one_is_free",
        slots,
    ),
    ("launcher_has_nothing_of_its_servers", bare_launcher),
    ("server_serves_without_any_privilege", bare_server),
    ("doctor_misses_nothing_where_sandboxes_run", doctor),
];

fn refusal(bed: &Bed) -> Refusal {
    match bed.answer() {
        FromLauncher::Refused { reason, .. } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// Asserts that the launcher still makes sandboxes, and ends it.
fn still_serves(bed: Bed) {
    let live = bed.open(&make(200));
    live.finish();
    drop(live);
    bed.expect_gone([200; 16]);
    bed.end();
}

fn hostile_frames() {
    let bed = Bed::start();
    let good = encode(&ToLauncher::Make(make(1)), FRAME_MAX).unwrap();
    let mut version = good.clone();
    version[0] = 77;
    let mut variant = good.clone();
    variant[1] = 99;
    let mut trailing = good.clone();
    trailing.push(0);
    let cut = good[..good.len() - 1].to_vec();
    let huge = vec![0xff; FRAME_MAX + 1];
    for bytes in [
        version,
        variant,
        trailing,
        cut,
        huge,
        vec![0],
        vec![1, 0xff, 0xff, 0xff],
    ] {
        send_bytes(bed.socket().as_fd(), &bytes, &[]).unwrap();
    }
    still_serves(bed);
}

fn greedy_descriptors() {
    let bed = Bed::start();
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", bed.launcher()))
            .unwrap()
            .count()
    };
    let null = fs::File::open("/dev/null").unwrap();
    let many = vec![null.as_fd(); 250];
    // One that is refused tells that it was read; so the last is waited for.
    let frame = encode(&ToLauncher::Make(make(1)), FRAME_MAX).unwrap();
    let before = open();
    for _ in 0..40 {
        send_bytes(bed.socket().as_fd(), &frame, &many).unwrap();
        assert!(matches!(refusal(&bed), Refusal::Host { .. }));
    }
    send_bytes(bed.socket().as_fd(), &vec![1; FRAME_MAX + 9], &many).unwrap();
    send_bytes(bed.socket().as_fd(), &frame, &[]).unwrap();
    assert!(matches!(refusal(&bed), Refusal::Host { .. }));
    assert_eq!(open(), before);
    still_serves(bed);
}

fn missing_sockets() {
    let bed = Bed::start();
    let frame = ToLauncher::Make(make(1));
    let null = fs::File::open("/dev/null").unwrap();
    let (one, _other) = pair();
    for descriptors in [vec![], vec![one.as_fd()], vec![one.as_fd(), null.as_fd()]] {
        send(bed.socket().as_fd(), &frame, FRAME_MAX, &descriptors).unwrap();
        assert!(matches!(refusal(&bed), Refusal::Host { .. }));
    }
    still_serves(bed);
}

fn beyond_the_maxima() {
    let bed = Bed::start();
    let mut requests = Vec::new();
    let mut change = |name: &str, change: fn(&mut crate::wire::Make)| {
        let mut request = make(1);
        change(&mut request);
        requests.push((name.to_owned(), request));
    };
    change("pids", |make| make.limits.pids = 257);
    change("pids", |make| make.limits.pids = 0);
    change("memory_bytes", |make| make.limits.memory_bytes = u64::MAX);
    change("cpu_millis", |make| make.limits.cpu_millis = 2001);
    change("open_files", |make| make.limits.open_files = u32::MAX);
    change("disk_class", |make| make.disk_class = 2);
    for (name, request) in requests {
        bed.ask(&request);
        assert_eq!(refusal(&bed), Refusal::Limit { name });
    }
    still_serves(bed);
}

fn unknown_image() {
    let bed = Bed::start();
    let mut request = make(1);
    request.image = WireImage::Digest([0x11; 32]);
    bed.ask(&request);
    assert_eq!(refusal(&bed), Refusal::UnknownImage);
    let rootfs = format!("images/sha256/{}/rootfs", "a5".repeat(32));
    let rootfs = bed.dir.path().join(rootfs);
    for name in ["dev", "proc", "sys", "etc", "tmp", "run", "workspace"] {
        let (path, aside) = (rootfs.join(name), rootfs.join("aside"));
        fs::rename(&path, &aside).unwrap();
        unsafe_image(&bed, name, "is missing");
        std::os::unix::fs::symlink("/", &path).unwrap();
        unsafe_image(&bed, name, "is not a plain directory");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    still_serves(bed);
}

/// The test image is refused for its entry `name`, told with the image and the reason.
fn unsafe_image(bed: &Bed, name: &str, reason: &str) {
    bed.ask(&make(1));
    match refusal(bed) {
        Refusal::UnsafeImage { image, entry, why } => {
            assert_eq!((image, entry), (IMAGE, format!("/{name}")));
            assert!(why.starts_with(reason), "{why}");
        }
        other => panic!("refused otherwise: {other:?}"),
    }
}

fn slots() {
    let bed = Bed::start();
    let lives: Vec<_> = (1..=4).map(|id| bed.open(&make(id))).collect();
    bed.ask(&make(1));
    assert_eq!(refusal(&bed), Refusal::Duplicate);
    bed.ask(&make(5));
    assert_eq!(refusal(&bed), Refusal::NoSlot);
    drop(lives);
    let mut gone: Vec<_> = (1..=4).map(|_| bed.answer()).collect();
    gone.sort_by_key(|frame| format!("{frame:?}"));
    let all: Vec<_> = (1..=4)
        .map(|id| FromLauncher::Gone { sandbox: [id; 16] })
        .collect();
    assert_eq!(gone, all);
    still_serves(bed);
}

/// No environment, no descriptor, no group, no terminal, and a binary that nobody can write.
fn bare_launcher() {
    let bed = Bed::start();
    let proc = format!("/proc/{}", bed.launcher());
    assert_eq!(fs::read(format!("{proc}/environ")).unwrap(), b"");
    let exe = fs::read_link(format!("{proc}/exe")).unwrap();
    assert!(
        exe.to_string_lossy().starts_with("/memfd:farebox"),
        "{exe:?}"
    );
    assert!(
        fs::File::options()
            .write(true)
            .open(format!("{proc}/exe"))
            .is_err()
    );
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    let groups = status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap();
    assert_eq!(groups.trim(), "");
    let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, bed.launcher().to_string());
    let mounts = fs::read_to_string(format!("{proc}/mountinfo")).unwrap();
    let points = mounts.lines().map(|line| line.split(' ').nth(4).unwrap());
    let allowed = [
        "/",
        "/proc",
        "/dev",
        "/sys/fs/cgroup",
        "/images",
        "/run",
        "/bdi",
    ];
    assert!(
        points.into_iter().all(|point| allowed.contains(&point)),
        "{mounts}"
    );
    bed.end();
}

/// A process of its own, since there is no way back from this.
fn bare_server() {
    let dir = tempfile::tempdir().unwrap();
    make_image(&dir.path().join("images"));
    let arguments = ["probe", "serve", dir.path().to_str().unwrap()];
    let output = Command::new("/proc/self/exe")
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let golden = "\
Uid: 65530 65530 65530 65530
Gid: 65530 65530 65530 65530
Groups:
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
root again=false
MemoryLimit=true
CpuQuota=true
CpuWeight=true
CpuIdle=true
PidsMax=true
CpuUsage=true
MemoryPeak=true
Init=true
";
    assert_eq!(text, golden, "{errors}");
    assert!(output.status.success(), "{errors}");
    // Its launcher ends after it; the directory is free again when it has.
    Bed::start_in(dir).end();
}

fn doctor() {
    let dir = tempfile::tempdir().unwrap();
    let checks = runtime::doctor(&runtime::Needs {
        images_dir: &dir.path().join("images/not/made/yet"),
        data_dir: &dir.path().join("nor/this"),
        disk_bytes: 1 << 20,
        sandboxes: 4,
        uid_base: 0x4000_0000,
    });
    // Images are built elsewhere, and how much memory there is, is not the kernel's affair.
    let needed = [
        "root",
        "kernel",
        "user_namespaces",
        "idmapped_mounts",
        "loop_devices",
        "cgroups",
        "seccomp",
        "free_disk",
    ];
    for name in needed {
        let check = checks.iter().find(|check| check.name == name).unwrap();
        let is_well = check.verdict == runtime::Verdict::Ok;
        assert!(is_well && check.cure.is_empty(), "{check:?}");
    }
    let told = checks.iter().all(|check| {
        let is_told = !check.cure.is_empty() && !check.lost.is_empty();
        is_told == (check.verdict != runtime::Verdict::Ok)
    });
    assert!(told, "what is wrong has a cure and a loss: {checks:?}");
}
