//! A runtime under test, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::image::{Image, Store};
use runtime::{
    DiskClass, File, Interpreter, LauncherConfig, Limits, Network, Options, OutputSink,
    PoolOptions, Process, Report, Runtime, Sandbox, SandboxId, SandboxSpec, WireLimits,
};
use tokio::sync::oneshot;

use crate::ahead::is_disk_maker;
use crate::templates::is_template;

/// Where the images are that tests run in.
pub(crate) fn images() -> PathBuf {
    std::env::var_os("FAREBOX_TEST_IMAGES").map_or_else(PathBuf::new, PathBuf::from)
}

/// What this machine or call lacks for running any of these tests.
pub(crate) fn lacks() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let found = Store::open(&images()).resolve("python");
    found
        .err()
        .map(|error| format!("FAREBOX_TEST_IMAGES: {error}"))
}

pub(crate) struct Bed {
    dir: tempfile::TempDir,
    images: PathBuf,
    tokio: tokio::runtime::Runtime,
    pub(crate) runtime: Runtime,
    pub(crate) image: Image,
    pub(crate) launcher: i32,
    made: u8,
    /// What waits in sandboxes made ahead.
    pub(crate) interpreter: Option<Interpreter>,
}

/// What a run may use unless a test says otherwise: enough for anything that ends by itself.
pub(crate) fn limits() -> Limits {
    Limits {
        wall_ms: 20_000,
        cpu_ms: 10_000,
        cpu_millis: 1_000,
        memory_bytes: 256 << 20,
        pids: 64,
        disk_bytes: 64 << 20,
        inodes: 5_000,
        open_files: 256,
        output_bytes: 64 << 10,
    }
}

/// One execution: what tests change about it.
pub(crate) struct Run {
    pub(crate) argv: Vec<String>,
    pub(crate) files: Vec<File>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) limits: Limits,
    pub(crate) kill_on_output_limit: bool,
    pub(crate) reduced: bool,
    pub(crate) keep_s: u32,
}

impl Run {
    pub(crate) fn command(argv: &[&str]) -> Run {
        Run {
            argv: argv.iter().map(|&one| one.to_owned()).collect(),
            files: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            limits: limits(),
            kill_on_output_limit: false,
            reduced: false,
            keep_s: 0,
        }
    }

    pub(crate) fn python(code: &str) -> Run {
        let mut run = Run::command(&["python3", "main.py"]);
        run.files.push(File {
            path: "main.py".to_owned(),
            content: code.as_bytes().to_vec(),
            mode: 0o644,
        });
        run
    }

    pub(crate) fn shell(script: &str) -> Run {
        Run::command(&["bash", "-c", script])
    }
}

fn start(images_dir: &Path, state_dir: &Path) -> (runtime::LauncherHandle, Options) {
    let disk_classes = vec![DiskClass {
        bytes: 64 << 20,
        inodes: 5_000,
    }];
    let config = LauncherConfig {
        images_dir: images_dir.to_owned(),
        state_dir: state_dir.to_owned(),
        server_uid: 65530,
        server_gid: 65530,
        uid_base: 0x4000_0000,
        sandboxes_max: 4,
        maxima: WireLimits {
            cpu_millis: 2_000,
            memory_bytes: 4 << 30,
            pids: 256,
            open_files: 1_024,
        },
        disk_classes: disk_classes.clone(),
        disk_commit_bytes: 1 << 30,
        disks_ahead: 4,
        template_forks: 10_000,
        keep_s_max: 60,
    };
    let handle = runtime::spawn(&config).unwrap();
    let state_dir = state_dir.to_owned();
    let options = Options {
        state_dir,
        disk_classes,
        start_ms: 20_000,
        put_ms: 20_000,
        end_ms: 10_000,
        pool: PoolOptions::default(),
        templates: true,
    };
    (handle, options)
}

impl Bed {
    pub(crate) fn new() -> Bed {
        Bed::on(images(), "python")
    }

    /// A runtime on the store at `images`, whose sandboxes have the image `name`.
    pub(crate) fn on(images: PathBuf, name: &str) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let (handle, options) = start(&images, &dir.path().join("run"));
        let launcher = launcher();
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let runtime = tokio.block_on(Runtime::connect(handle, options)).unwrap();
        let image = Store::open(&images).resolve(name).unwrap();
        Bed {
            dir,
            images,
            tokio,
            runtime,
            image,
            launcher,
            made: 0,
            interpreter: None,
        }
    }

    /// Starts another launcher on the same state, as a restarted server does.
    pub(crate) fn restart(&mut self) {
        self.restart_with(PoolOptions::default());
    }

    /// The same, with sandboxes made ahead.
    pub(crate) fn restart_with(&mut self, pool: PoolOptions) {
        let (handle, options) = start(&self.images, &self.dir.path().join("run"));
        let options = Options { pool, ..options };
        self.launcher = launcher();
        self.runtime = self
            .tokio
            .block_on(Runtime::connect(handle, options))
            .unwrap();
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(future)
    }

    /// Has Python waiting, perhaps a fork of a template.
    pub(crate) fn python_waits(&mut self, fork: bool) {
        let env = self.env();
        self.interpreter = Some(Interpreter::Python { env, fork });
    }

    /// The image's environment.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        self.image.env.clone().into_iter().collect()
    }

    pub(crate) fn spec(&mut self, limits: Limits) -> SandboxSpec {
        self.made += 1;
        let id = SandboxId([self.made; 16]);
        SandboxSpec {
            owner: "owner".to_owned(),
            id,
            image: self.image.digest,
            limits,
            network: Network::None,
            interpreter: self.interpreter.clone(),
        }
    }

    pub(crate) fn process(&self, id: SandboxId, run: &Run) -> Process {
        let mut env = self.env();
        env.extend(run.env.iter().cloned());
        Process {
            execution: id.0,
            argv: run.argv.clone(),
            env,
            cwd: "/workspace".to_owned(),
            stdin: run.stdin.clone(),
            wall_ms: run.limits.wall_ms,
            cpu_ms: run.limits.cpu_ms,
            output_bytes: run.limits.output_bytes,
            kill_on_output_limit: run.kill_on_output_limit,
            reduced: run.reduced,
            keep_s: run.keep_s,
        }
    }

    pub(crate) fn run(&mut self, run: &Run) -> Report {
        let (_keep, cancel) = oneshot::channel();
        self.run_with(run, None, cancel)
    }

    pub(crate) fn run_with(
        &mut self,
        run: &Run,
        sink: Option<OutputSink>,
        cancel: oneshot::Receiver<()>,
    ) -> Report {
        let sandbox = self.open(run.limits);
        self.run_in(sandbox, run, (sink, cancel))
    }

    /// Runs in a sandbox that was opened.
    pub(crate) fn run_in(
        &mut self,
        sandbox: Sandbox,
        run: &Run,
        (sink, cancel): (Option<OutputSink>, oneshot::Receiver<()>),
    ) -> Report {
        let id = sandbox.id();
        let process = self.process(id, run);
        self.tokio.block_on(async {
            let mut sandbox = sandbox;
            sandbox.put(&run.files).await.unwrap();
            let report = sandbox.run(process, sink, cancel).await;
            self.runtime.forget(id);
            report
        })
    }

    /// Opens a sandbox of a new id.
    pub(crate) fn open(&mut self, limits: Limits) -> Sandbox {
        let spec = self.spec(limits);
        self.block_on(self.runtime.open(spec)).unwrap()
    }

    /// Waits until so many that were made ahead stand ready; false if that takes too long.
    pub(crate) fn until_ready(&self, count: usize) -> bool {
        self.until(|runtime| runtime.ready() == count)
    }

    /// Waits until something is so; false if that takes too long.
    pub(crate) fn until(&self, is_so: impl Fn(&Runtime) -> bool) -> bool {
        self.block_on(async {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            for _ in 0..4_000 {
                if is_so(&self.runtime) {
                    return true;
                }
                ticks.tick().await;
            }
            false
        })
    }

    /// Ends the runtime; nothing may be left of it.
    pub(crate) fn end(self) {
        self.tokio.block_on(self.runtime.drain());
        assert!(!self.runtime.healthy());
        assert_eq!(self.runtime.left_behind(), []);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(path), "a mount is left under {path}");
        assert!(!Path::new("/proc").join(self.launcher.to_string()).exists());
    }
}

/// A stream as text.
pub(crate) fn text(captured: &runtime::Captured) -> String {
    String::from_utf8_lossy(&captured.bytes).into_owned()
}

/// The launcher that this process has started last: its only child that has not been waited for.
fn launcher() -> i32 {
    let own = i32::try_from(std::process::id()).unwrap();
    *children(own).last().unwrap()
}

/// Children of a process's first thread.
pub(crate) fn all_children(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.split_whitespace();
    all.map(|child| child.parse().unwrap()).collect()
}

/// The same, without what is no sandbox's.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let all = all_children(pid).into_iter();
    // The launcher's disk maker and templates are no sandbox's.
    all.filter(|child: &i32| !is_disk_maker(child) && !is_template(child))
        .collect()
}
