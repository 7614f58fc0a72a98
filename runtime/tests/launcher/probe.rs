//! What runs inside the sandboxes: one small misbehaviour each.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

use nix::poll::{PollTimeout, poll};
use nix::unistd::{ForkResult, fork};

use crate::support::{self, say};
use crate::wire::{FRAME_MAX, FromLauncher, FromShim, Handle, ToLauncher, ToShim, send};

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    match arguments.first().map(String::as_str) {
        Some("nothing") => {}
        Some("wait") => wait(),
        Some("burn") => burn(),
        Some("burn-for") => burn_for(arguments[1].parse().unwrap()),
        Some("bomb") => bomb(),
        Some("eat") => eat(),
        Some("fill") => fill(),
        Some("litter") => litter(),
        Some("look") => look(),
        Some("serve") => serve(&arguments[1]),
        Some(other) => panic!("no such probe: {other}"),
        None => panic!("no probe named"),
    }
    ExitCode::SUCCESS
}

fn wait() {
    say("waiting");
    while poll(&mut [], PollTimeout::NONE).is_err() {}
}

fn burn() {
    say("burning");
    spin();
}

fn spin() {
    let mut value = 1_u64;
    while std::hint::black_box(value) != 0 {
        value = value.wrapping_mul(31).max(1);
    }
}

/// Uses so many microseconds of CPU time, by its own count.
fn burn_for(us: u64) {
    let used = || -> u64 {
        let times =
            nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
        [times.user_time(), times.system_time()]
            .iter()
            .map(|time| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap())
            .sum()
    };
    while used() < us {}
    say(&used().to_string());
}

#[expect(unsafe_code, reason = "fork")]
fn bomb() {
    let mut made = 0;
    loop {
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => spin(),
            Ok(ForkResult::Parent { .. }) => made += 1,
            // The main process leaves them behind.
            Err(_) => return say(&format!("made {made}")),
        }
    }
}

fn eat() {
    say("eating");
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&all);
    }
}

/// Writes until there is no room; tells how much there was.
fn fill() {
    let mut file = File::create("/tmp/large").unwrap();
    let mut written = 0_u64;
    while let Ok(more) = file.write(&[7; 4096]) {
        written += u64::try_from(more).unwrap();
    }
    say(&written.to_string());
}

/// Makes files until there is no room; tells how many.
fn litter() {
    let mut made = 0;
    while File::create(format!("/tmp/{made}")).is_ok() {
        made += 1;
    }
    say(&made.to_string());
}

/// Tells what it sees of itself, one `name=value` a line.
fn look() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or("absent")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    for name in ["Uid", "Groups", "CapBnd", "NoNewPrivs", "Seccomp", "NSpid"] {
        say(&format!("{name}={}", of(&format!("{name}:"))));
    }
    let owner = |path: &str| fs::metadata(path).map_or(u32::MAX, |found| found.uid());
    say(&format!("owner of /probe={}", owner("/probe")));
    say(&format!("owner of /owned={}", owner("/owned")));
    say(&format!("owner of /proc/1={}", owner("/proc/1")));
    say(&format!(
        "may change /owned={}",
        fs::write("/owned", "sandbox").is_ok()
    ));
    say(&format!(
        "may change /probe={}",
        fs::write("/probe", "sandbox").is_ok()
    ));
    say(&format!(
        "may read /proc/1/exe={}",
        fs::read_link("/proc/1/exe").is_ok()
    ));
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let total = memory.lines().next().unwrap_or_default();
    say(&total.split_whitespace().collect::<Vec<_>>().join(" "));
    for name in ["cpuinfo", "loadavg", "meminfo", "stat", "uptime"] {
        let path = format!("/proc/{name}");
        say(&format!(
            "{path}: {}, may change={}",
            fs::metadata(&path).is_ok_and(|found| found.size() > 0),
            File::options().write(true).open(&path).is_ok()
        ));
    }
    say(&format!("/sys={}", fs::exists("/sys/kernel").unwrap()));
    say(&format!(
        "cgroup={}",
        fs::read_to_string("/proc/self/cgroup")
            .unwrap()
            .contains("farebox")
    ));
    let loopback = TcpListener::bind("127.0.0.1:0").and_then(|listener| {
        let _client = TcpStream::connect(listener.local_addr()?)?;
        listener.accept().map(drop)
    });
    say(&format!("loopback={}", loopback.is_ok()));
    say(&format!(
        "outside={:?}",
        TcpStream::connect("192.0.2.1:80").map_err(|error| error.kind())
    ));
    let mut open: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    open.sort();
    // The last is the directory that is being read.
    say(&format!("descriptors={}", open.len() - 1));
}

/// What `farebox serve` does, outside of any sandbox: starts the launcher as root, gives up its
/// privileges, and makes and steers a sandbox without any.
fn serve(dir: &str) {
    let config = support::config(Path::new(dir));
    let (launcher, _child) = runtime::spawn(&config).unwrap().into_parts();
    let user = runtime::server_user(&support::SERVER.to_string()).unwrap();
    runtime::drop_privileges(user).unwrap();
    for line in fs::read_to_string("/proc/self/status").unwrap().lines() {
        if ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs"]
            .iter()
            .any(|name| line.starts_with(name))
        {
            say(&line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    say(&format!(
        "root again={}",
        nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_ok()
    ));
    let up = support::receive::<FromLauncher>(&launcher);
    assert!(matches!(up, Some((FromLauncher::Up { .. }, _))), "{up:?}");
    let (near, far) = support::pair();
    let (_init, init_far) = support::pair();
    let frame = ToLauncher::Make(support::make(1));
    let sockets = [far.as_fd(), init_far.as_fd()];
    send(launcher.as_fd(), &frame, FRAME_MAX, &sockets).unwrap();
    let Some((FromShim::Ready { handles }, descriptors)) = support::receive(&near) else {
        panic!("the sandbox is not ready");
    };
    for (handle, descriptor) in handles.iter().zip(descriptors) {
        let mut file = File::from(descriptor);
        let worked = match handle {
            Handle::MemoryLimit => file.write_all(b"67108864").is_ok(),
            Handle::CpuQuota => file.write_all(b"50000").is_ok(),
            Handle::CpuWeight => file.write_all(b"500").is_ok(),
            Handle::CpuIdle => ["1", "0"]
                .iter()
                .all(|value| file.write_at(value.as_bytes(), 0).is_ok()),
            Handle::PidsMax => file.write_all(b"16").is_ok(),
            Handle::CpuUsage | Handle::MemoryPeak => {
                file.read(&mut [0; 64]).is_ok_and(|len| len > 0)
            }
            Handle::Init => true,
        };
        say(&format!("{handle:?}={worked}"));
    }
    send(
        near.as_fd(),
        &ToShim::Finish { failed: false },
        FRAME_MAX,
        &[],
    )
    .unwrap();
    let ended = support::receive::<FromShim>(&near);
    assert!(matches!(ended, Some((FromShim::Ended(..), _))), "{ended:?}");
}
