//! A runtime on a launcher of its own, programs to be run in it, and what can be seen of them from
//! outside.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::image::Store;
use runtime::{
    DiskClass, File, LauncherConfig, Limits, Network, Options, OutputSink, PoolOptions, Process,
    Report, Runtime, SandboxId, SandboxSpec, StartError, WireLimits,
};
use tokio::sync::oneshot;

use crate::ahead;
use crate::templates;
use crate::world::{World, wait_until};

/// Longest that anything which must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ids in one sandbox's range.
const RANGE: u32 = 65_536;
/// Sandboxes at one time.
const SANDBOXES: u32 = 4;

/// What a program is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
    Shell,
}

impl Language {
    /// The image that has it, the file that the program is laid into, and the interpreter.
    pub(crate) fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Python => ("python", "main.py", "/usr/bin/python3"),
            Self::Node => ("node", "main.js", "/usr/bin/node"),
            Self::Shell => ("python", "main.sh", "/bin/sh"),
        }
    }
}

/// A program to be run once.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) language: Language,
    pub(crate) code: String,
    pub(crate) limits: Limits,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) kill_on_output_limit: bool,
    /// For how long its files stay if it fails, in seconds.
    pub(crate) keep_s: u32,
    /// Run instead of the interpreter and the file.
    pub(crate) argv: Option<Vec<String>>,
}

/// How a run went, seen from the server.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) report: Report,
    /// From the call to the answer, making of the sandbox not counted.
    pub(crate) took: Duration,
}

/// The limits that a program has unless it names others.
pub(crate) const LIMITS: Limits = Limits {
    wall_ms: 20_000,
    cpu_ms: 10_000,
    cpu_millis: 1000,
    memory_bytes: 128 << 20,
    pids: 64,
    disk_bytes: 256 << 20,
    inodes: 20_000,
    open_files: 1024,
    output_bytes: 64 << 10,
};

/// A runtime under test. Dropping it ends the launcher, and fails if anything is left.
pub(crate) struct Bed {
    pub(crate) world: World,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) executor: tokio::runtime::Runtime,
    pub(crate) runtime: Runtime,
    /// The launcher's process id.
    pub(crate) launcher: u32,
    uid_base: u32,
    next: Cell<u8>,
    /// The binding and the loop device of every disk that was ever seen.
    disks: RefCell<BTreeSet<(String, String)>>,
}

impl Bed {
    /// Enters a private world and starts a launcher in it; `None`, said aloud, where that cannot
    /// be.
    pub(crate) fn enter(test: &str) -> Option<Self> {
        let world = World::enter(test)?;
        let dir = tempfile::Builder::new()
            .prefix("farebox-bed-")
            .tempdir()
            .unwrap();
        let disk_classes = vec![DiskClass {
            bytes: LIMITS.disk_bytes,
            inodes: LIMITS.inodes,
        }];
        // Tests run beside each other: their ranges must not meet, or they would see each other's.
        let uid_base = 0x5000_0000 + std::process::id() % 4096 * SANDBOXES * RANGE;
        let config = LauncherConfig {
            images_dir: world.images.clone(),
            state_dir: dir.path().join("run"),
            server_uid: 0,
            server_gid: 0,
            uid_base,
            sandboxes_max: SANDBOXES,
            maxima: WireLimits {
                cpu_millis: 4000,
                memory_bytes: 2 << 30,
                pids: 1024,
                open_files: 4096,
            },
            disk_classes: disk_classes.clone(),
            disk_commit_bytes: 4 << 30,
            // It is taken by each run, and there again when nothing is under way.
            disks_ahead: 1,
            template_forks: 10_000,
            keep_s_max: 600,
        };
        let handle = runtime::spawn(&config).unwrap();
        let launcher = *children(std::process::id()).first().unwrap();
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let options = Options {
            state_dir: config.state_dir,
            disk_classes,
            start_ms: 30_000,
            put_ms: 30_000,
            end_ms: 30_000,
            pool: PoolOptions::default(),
            templates: true,
        };
        let runtime = executor
            .block_on(Runtime::connect(handle, options))
            .unwrap();
        let (next, disks) = (Cell::new(0), RefCell::default());
        Some(Self {
            world,
            dir,
            executor,
            runtime,
            launcher,
            uid_base,
            next,
            disks,
        })
    }

    /// A sandbox that `order` could run in, with its files laid.
    pub(crate) fn open(&self, order: &Order) -> runtime::Sandbox {
        let (image, file, _) = order.language.parts();
        let image = Store::open(&self.world.images).resolve(image).unwrap();
        let number = self.next.get() + 1;
        self.next.set(number);
        let spec = SandboxSpec {
            id: SandboxId([number; 16]),
            owner: "owner".to_owned(),
            image: image.digest,
            limits: order.limits,
            network: Network::None,
            interpreter: None,
        };
        let content = order.code.clone().into_bytes();
        let main = File {
            path: file.to_owned(),
            content,
            mode: 0o644,
        };
        self.executor.block_on(async {
            let mut sandbox = self.open_with_patience(spec).await;
            sandbox.put(&[main]).await.unwrap();
            // Its disk is remembered, so that it is looked for when the sandbox is gone.
            self.look();
            sandbox
        })
    }

    /// A sandbox; the slots of earlier ones are free only when their disks are gone.
    async fn open_with_patience(&self, spec: SandboxSpec) -> runtime::Sandbox {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.runtime.open(spec.clone()).await {
                Err(StartError::Overloaded { .. }) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return opened.unwrap(),
            }
        }
    }

    /// The process that `order` stands for.
    pub(crate) fn process(&self, order: &Order) -> Process {
        let (image, file, interpreter) = order.language.parts();
        let image = Store::open(&self.world.images).resolve(image).unwrap();
        let mut env: Vec<_> = image.env.into_iter().collect();
        env.extend(order.env.iter().cloned());
        let argv = [interpreter, file].map(str::to_owned).to_vec();
        Process {
            execution: [self.next.get(); 16],
            argv: order.argv.clone().unwrap_or(argv),
            env,
            cwd: "/workspace".to_owned(),
            stdin: order.stdin.clone(),
            wall_ms: order.limits.wall_ms,
            cpu_ms: order.limits.cpu_ms,
            output_bytes: order.limits.output_bytes,
            kill_on_output_limit: order.kill_on_output_limit,
            reduced: false,
            keep_s: order.keep_s,
        }
    }

    /// Runs `order` to its end.
    pub(crate) fn run(&self, order: &Order) -> Ran {
        let sandbox = self.open(order);
        let (_keep, cancel) = oneshot::channel();
        self.finish(order, sandbox, None, cancel)
    }

    /// Runs `order` in an open sandbox.
    pub(crate) fn finish(
        &self,
        order: &Order,
        sandbox: runtime::Sandbox,
        sink: Option<OutputSink>,
        cancel: oneshot::Receiver<()>,
    ) -> Ran {
        let process = self.process(order);
        let id = sandbox.id();
        let start = Instant::now();
        let report = self.executor.block_on(sandbox.run(process, sink, cancel));
        let took = start.elapsed();
        // Nothing is charged here; without this the shim would wait for the settlement.
        self.runtime.forget(id);
        Ran { report, took }
    }

    /// Waits until the launcher has no sandbox and answers what there is then.
    ///
    /// Runs one first: what the launcher makes for the first one, it keeps.
    pub(crate) fn baseline(&self, first: &Order) -> Traces {
        self.run(first);
        let quiet = wait_until(PATIENCE, || {
            let now = self.look();
            let quiet = now.shims.is_empty() && now.groups.is_empty() && now.loops.is_empty();
            let quiet = quiet && !ahead::disks(self.launcher).is_empty();
            quiet.then_some(now)
        });
        quiet.unwrap()
    }

    /// What there is outside of this launcher's sandboxes now.
    pub(crate) fn look(&self) -> Traces {
        let ours = self.uid_base..self.uid_base + SANDBOXES * RANGE;
        let mut shims = children(self.launcher);
        shims.retain(|pid| !ahead::is_disk_maker(pid) && !templates::is_template(pid));
        let mounted = shims.iter().flat_map(|shim| loops_of(*shim));
        self.disks
            .borrow_mut()
            .extend(mounted.filter_map(|name| Some((binding(&name)?, name))));
        let disks = self.disks.borrow();
        let bound = disks
            .iter()
            .filter(|(which, name)| binding(name).as_ref() == Some(which));
        Traces {
            processes: processes_of(|uid| ours.contains(&uid)),
            loops: bound.map(|(_, name)| name.clone()).collect(),
            shims: shims.into_iter().collect(),
            groups: groups(self.dir.path()),
            launcher_files: files_of(self.launcher),
            own_files: files_of(std::process::id()),
            launcher_mounts: lines_of(&format!("/proc/{}/mountinfo", self.launcher)),
            own_mounts: lines_of("/proc/self/mountinfo"),
            host: host(),
        }
    }

    /// Waits until things are as they were `before`; answers what is still there, and how long that
    /// took.
    pub(crate) fn left_since(&self, before: &Traces) -> (Option<Traces>, Duration) {
        let start = Instant::now();
        let mut now = self.look();
        let gone = wait_until(PATIENCE, || {
            now = self.look();
            (now == *before).then_some(())
        });
        (gone.is_none().then_some(now), start.elapsed())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.executor.block_on(self.runtime.drain());
        if std::thread::panicking() {
            return;
        }
        self.world.assert_host_dev();
        let name = instance(self.dir.path());
        let gone = wait_until(PATIENCE, || top_groups(&name).is_empty().then_some(()));
        assert!(gone.is_some(), "groups are left: {:?}", top_groups(&name));
    }
}

/// What can be seen of sandboxes from outside; equal before and after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Processes whose user is one of the sandboxes'.
    pub(crate) processes: BTreeSet<u32>,
    /// Children of the launcher.
    pub(crate) shims: BTreeSet<u32>,
    pub(crate) groups: BTreeSet<String>,
    /// Loop devices on disks of sandboxes.
    pub(crate) loops: BTreeSet<String>,
    pub(crate) launcher_files: usize,
    pub(crate) own_files: usize,
    pub(crate) launcher_mounts: usize,
    pub(crate) own_mounts: usize,
    /// Settings of the host that programs try to change.
    pub(crate) host: BTreeMap<&'static str, String>,
}

fn numbers_in(dir: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    numbers_in("/proc").filter(is_child).collect()
}

fn processes_of(ours: impl Fn(u32) -> bool) -> BTreeSet<u32> {
    let has = |pid: &u32| {
        let owner = fs::metadata(format!("/proc/{pid}"));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap_or_default();
        let uid = ids
            .split_whitespace()
            .nth(1)
            .and_then(|uid| uid.parse().ok());
        uid.is_some_and(&ours) || owner.is_ok_and(|owner| ours(owner.uid()))
    };
    numbers_in("/proc").filter(has).collect()
}

/// Open descriptors, but for user namespaces: the launcher keeps one for each slot.
fn files_of(pid: u32) -> usize {
    let dir = format!("/proc/{pid}/fd");
    let is_namespace = |number: &u32| {
        let target = fs::read_link(format!("{dir}/{number}")).unwrap_or_default();
        target.to_string_lossy().starts_with("user:")
    };
    numbers_in(&dir)
        .filter(|number| !is_namespace(number))
        .count()
}

fn lines_of(path: &str) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// Loop devices that are mounted in the namespace of a process.
fn loops_of(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let sources = text
        .lines()
        .filter_map(|line| line.split(" - ").nth(1)?.split(' ').nth(1));
    sources
        .filter_map(|source| source.strip_prefix("/dev/loop"))
        .map(str::to_owned)
        .collect()
}

/// Which binding of a loop device this is, while it is bound: no two have the same number.
fn binding(name: &str) -> Option<String> {
    let dir = format!("/sys/block/loop{name}");
    fs::read_to_string(format!("{dir}/loop/backing_file")).ok()?;
    fs::read_to_string(format!("{dir}/diskseq")).ok()
}

fn instance(dir: &Path) -> String {
    fs::read_to_string(dir.join("run/instance"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// This launcher's own directories in every hierarchy.
fn top_groups(instance: &str) -> BTreeSet<String> {
    let root = Path::new("/sys/fs/cgroup");
    let tops = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    tops.chain([root.to_path_buf()])
        .map(|top| top.join("farebox").join(instance))
        .filter(|path| !instance.is_empty() && path.is_dir())
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn groups(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for top in top_groups(&instance(dir)) {
        let entries = fs::read_dir(format!("{top}/sandboxes"))
            .into_iter()
            .flatten()
            .flatten();
        let dirs = entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir());
        found.extend(dirs.map(|path| path.to_string_lossy().into_owned()));
    }
    found
}

fn host() -> BTreeMap<&'static str, String> {
    [
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sysvipc/shm",
        "/proc/sysvipc/msg",
        "/proc/sysvipc/sem",
        "/proc/1/oom_score_adj",
    ]
    .map(|path| (path, fs::read_to_string(path).unwrap_or_default()))
    .into_iter()
    .collect()
}
