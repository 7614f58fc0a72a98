//! Every frame that passes between server, launcher, shim and init, and the files of the same form.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Sandbox or execution identity: 16 bytes.
pub(crate) type Id = [u8; 16];

/// Most processes that an [`Autopsy`] lists: as many as are read in a moment and fit a frame.
pub(crate) const PROCESSES_MAX: usize = 32;

/// Longest name of a process, in bytes: the kernel's bound without its NUL.
pub(crate) const NAME_MAX: usize = 15;

/// What the launcher is told once, as JSON on its descriptor 0, by `serve` while it is still root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LauncherConfig {
    /// Image store; images are looked up at `sha256/HEX/rootfs` under it.
    pub images_dir: PathBuf,
    /// Lock, instance, final files and disks.
    pub state_dir: PathBuf,
    /// The ids that the server takes: owner of the final files.
    pub server_uid: u32,
    /// As `server_uid`.
    pub server_gid: u32,
    /// First host uid and gid of the first slot's range.
    pub uid_base: u32,
    /// Most sandboxes at one time; each has a slot, and a slot has a uid range.
    pub sandboxes_max: u32,
    /// No sandbox may ask for more than this.
    pub maxima: WireLimits,
    /// Disk sizes on offer, smallest first.
    pub disk_classes: Vec<DiskClass>,
    /// Bound on the sum of the disks of all live sandboxes, in bytes.
    pub disk_commit_bytes: u64,
    /// Most disks that stand ready for sandboxes that are made later; 0: none.
    pub disks_ahead: usize,
    /// After how many forks a template of interpreters is replaced; at least 1.
    pub template_forks: u32,
    /// Longest that the files of a failed run may be kept, in s; their slot and disk stay taken.
    pub keep_s_max: u32,
}

/// One size of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskClass {
    /// Size in bytes; the usable space is a little less.
    pub bytes: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// What the cgroup of a sandbox holds it to, and its process limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireLimits {
    /// CPU share in thousandths of one CPU.
    pub cpu_millis: u32,
    /// Memory with swap, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads, init among them.
    pub pids: u32,
    /// Open files per process.
    pub open_files: u32,
}

/// From server to launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToLauncher {
    /// Make a sandbox; with two descriptors: the shim's socket, init's socket.
    Make(Make),
    /// End the image's template, which does not do what it should; the next [`Make`] that wants one
    /// starts another.
    Renew([u8; 32]),
}

/// The closed description of a sandbox: no path, no mount, no uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Make {
    /// Whose sandbox this is; must not be live.
    pub(crate) sandbox: Id,
    /// Its root.
    pub(crate) image: WireImage,
    /// Index into [`LauncherConfig::disk_classes`].
    pub(crate) disk_class: u8,
    /// Must not pass [`LauncherConfig::maxima`].
    pub(crate) limits: WireLimits,
    /// CPU weight while it is made, from 2 to [`WEIGHT`](crate::cgroup::WEIGHT).
    pub(crate) weight: u32,
    /// Whether all others that are not behind have the CPUs before it while it is made.
    pub(crate) behind: bool,
    /// Whether nobody waits for it.
    pub(crate) ahead: bool,
    /// What it may reach.
    pub(crate) network: WireNetwork,
    /// The environment of the image's template, if [`ToShim::Fork`] is to follow.
    pub(crate) template: Option<Vec<(String, String)>>,
}

/// The root of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireImage {
    /// Nothing but mount points: enough for the posture check, since init is forked.
    Empty,
    /// The image with this SHA-256.
    Digest([u8; 32]),
}

/// What a sandbox may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireNetwork {
    /// Its own loopback.
    None,
}

/// From launcher to server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromLauncher {
    /// First frame: the launcher is up, swept and ready; with two descriptors, to read: the
    /// counters of the CPU time of all sandboxes and of all templates.
    Up {
        /// Name of this state directory's groups: 12 hex digits.
        instance: String,
    },
    /// First and only frame: the launcher cannot work, and ends.
    Unable {
        /// What it was doing.
        step: String,
        /// What went wrong.
        reason: String,
    },
    /// No sandbox was made, nothing is left of it.
    Refused {
        /// As asked.
        sandbox: Id,
        /// Why.
        reason: Refusal,
    },
    /// The sandbox is gone whole: processes, groups, disk; its slot is free.
    Gone {
        /// Which.
        sandbox: Id,
    },
}

/// Why the launcher makes no sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// All slots are taken.
    NoSlot,
    /// The disk would pass `disk_commit_bytes`.
    NoDisk,
    /// A sandbox of this identity is live.
    Duplicate,
    /// The image is not in the store.
    UnknownImage,
    /// The image may not be used as a root.
    UnsafeImage {
        /// Its digest.
        image: [u8; 32],
        /// The entry at fault.
        entry: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A limit is zero or passes its maximum.
    Limit {
        /// Which.
        name: String,
    },
    /// The host said no (fork, descriptors).
    Host {
        /// What was tried and what came.
        reason: String,
    },
}

/// From shim to server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromShim {
    /// The sandbox is made and idle; with one descriptor for each handle.
    Ready {
        /// What the descriptors are, in order.
        handles: Vec<Handle>,
    },
    /// The limits of [`ToShim::Claim`] are in force, and the sandbox is told of them.
    Claimed,
    /// The sandbox could not be made or claimed; it is being taken down.
    Failed {
        /// What the shim was doing.
        step: String,
        /// What went wrong, clipped.
        reason: String,
    },
    /// What is wrong with the sandbox's posture; empty when it is as it must be.
    Inspected {
        /// As many as fit one frame.
        deviations: Vec<Deviation>,
    },
    /// The sandbox holds no process any more; these are its last figures, and what was seen of it
    /// before a bad end.
    Ended(Ended, Option<Autopsy>),
    /// Follows [`FromShim::Ended`] of a run that failed and whose [`Go::keep_s`] is not 0.
    Kept {
        /// For how long its files stay from now on, in s, with one descriptor: the reader's
        /// socket. 0, without one: they could not be kept.
        for_s: u32,
    },
}

/// What was seen of a sandbox from outside just before it was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Autopsy {
    /// CPU time used until then since go, in us.
    pub(crate) cpu_us: u64,
    /// Bytes and inodes left on the disk, once nothing ran any more.
    pub(crate) disk_free: Option<(u64, u64)>,
    /// At most [`PROCESSES_MAX`], the oldest first; init is not among them.
    pub(crate) processes: Vec<Seen>,
    /// How many there were besides.
    pub(crate) more: u32,
}

/// One process of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Its id, as inside the sandbox.
    pub(crate) pid: u32,
    /// Its parent's; 0 when that was not looked at.
    pub(crate) parent: u32,
    /// What it calls itself: any bytes but NUL, at most [`NAME_MAX`].
    #[serde(with = "bytes")]
    pub(crate) name: Vec<u8>,
    /// As in `/proc/PID/stat`.
    pub(crate) state: u8,
    /// CPU time that it has used itself, in us.
    pub(crate) cpu_us: u64,
}

/// One thing about a live sandbox that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deviation {
    /// What was looked at.
    pub(crate) what: String,
    /// What was found, and what must be.
    pub(crate) found: String,
    /// What to do about it.
    pub(crate) cure: String,
}

/// What a descriptor that comes with [`FromShim::Ready`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Handle {
    /// Write: memory limit in bytes.
    MemoryLimit,
    /// Write: v1 quota in us per 100 ms period; v2 `QUOTA 100000`.
    CpuQuota,
    /// Write: CPU weight among the sandboxes, from 2 to [`WEIGHT`](crate::cgroup::WEIGHT).
    CpuWeight,
    /// Write: 1 puts it behind all sandboxes that are not, 0 takes that back and resets the weight.
    CpuIdle,
    /// Write: most processes.
    PidsMax,
    /// Read: v1 `cpuacct.usage` in ns; v2 `cpu.stat`.
    CpuUsage,
    /// Read: memory peak in bytes.
    MemoryPeak,
    /// Poll: pidfd of init.
    Init,
}

/// From server to shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToShim {
    /// The execution begins: baseline and deadlines are taken now. Once per sandbox.
    Go(Go),
    /// Hold the sandbox, in which nothing has run yet, to these limits instead of those it was made
    /// with; answered by [`FromShim::Claimed`] or [`FromShim::Failed`]. The CPUs stay as many, open
    /// files must not be more. Not once [`ToShim::Go`] was sent.
    Claim(WireLimits),
    /// Look at the sandbox from outside, as root; answered by [`FromShim::Inspected`]. Not once
    /// [`ToShim::Go`] was sent.
    Inspect,
    /// Have the image's template fork into the sandbox, in which nothing has run yet; with three
    /// descriptors: stdin, stdout, stderr. Once. What is forked says so on its stdout; if that
    /// ends, nothing was.
    Fork,
    /// Look at what was forked: the process of this id, as inside, and the only one beside init;
    /// answered by [`FromShim::Inspected`]. Not once [`ToShim::Go`] was sent.
    InspectFork(u32),
    /// End everything, read, answer.
    Finish {
        /// The run did not end well: look at what there is before it goes.
        failed: bool,
    },
    /// What [`FromShim::Ended`] told is safe: leave no final file. Without this frame the shim
    /// takes the end of the socket for the server's death, and writes [`FinalRecord`]. Files that
    /// are kept stay until their time is over or the socket ends.
    Settled,
}

/// What an execution may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Go {
    /// Whose execution this is: written to the final file if the server is gone.
    pub(crate) execution: Id,
    /// Wall time, in us.
    pub(crate) wall_us: u64,
    /// CPU time, in us.
    pub(crate) cpu_us: u64,
    /// CPU share in force, in thousandths of one CPU: bounds how fast `cpu_us` can be used up.
    pub(crate) cpu_millis: u32,
    /// For how long the sandbox's files stay if the run fails, in s; 0: they go with it. The
    /// launcher's own maximum bounds it.
    pub(crate) keep_s: u32,
}

/// How a sandbox ended and what it used since [`ToShim::Go`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// What ended it.
    pub(crate) by: EndedBy,
    /// Counters.
    pub(crate) measured: WireMeasured,
    /// The disk had no block or no inode left.
    pub(crate) disk_full: bool,
    /// The group was not proven empty within the time allowed: figures may miss a little.
    pub(crate) unsettled: bool,
}

/// What ended a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndedBy {
    /// The server asked.
    Finish,
    /// The wall time was used up.
    Wall,
    /// The CPU time was used up.
    Cpu,
    /// The kernel killed for memory.
    Oom,
    /// Init ended without being told.
    InitDied,
    /// The server is gone.
    ServerGone,
    /// The shim died: figures are those that the launcher read from the groups, from their
    /// creation.
    ShimDied,
}

/// Counters of an execution, from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireMeasured {
    /// CPU time, in us.
    pub(crate) cpu_us: u64,
    /// Part of it in user mode, in us.
    pub(crate) cpu_user_us: u64,
    /// Part of it in the kernel, in us.
    pub(crate) cpu_system_us: u64,
    /// From go to the end, in us.
    pub(crate) wall_us: u64,
    /// Highest charge of the memory group, page cache included, in bytes.
    pub(crate) memory_peak_bytes: u64,
    /// Time that the CPU quota held it back, in us.
    pub(crate) throttled_us: u64,
    /// Processes killed for memory.
    pub(crate) oom_kills: u64,
    /// Most processes at one time; 0 where the kernel does not tell.
    pub(crate) pids_peak: u64,
    /// Forks refused by the process limit.
    pub(crate) pids_refused: u64,
    /// Read from block devices, in bytes; 0 where the hierarchy is absent.
    pub(crate) io_read_bytes: u64,
    /// Written to block devices, in bytes; 0 where the hierarchy is absent.
    pub(crate) io_write_bytes: u64,
}

/// What a shim, or the launcher for it, leaves in `final/SANDBOX.json` when the server is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinalRecord {
    /// Which sandbox.
    pub(crate) sandbox: Id,
    /// Which execution had begun in it; `None` when it was idle, or when its shim died.
    pub(crate) execution: Option<Id>,
    /// How it ended and what it used.
    pub(crate) ended: Ended,
}

/// From server to init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// A file follows in chunks; init answers [`FromInit::Done`] or [`FromInit::Refused`] after the
    /// last.
    File {
        /// Where, relative to `/workspace`, or absolute.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Sum of the chunks that follow, in bytes.
        size: u64,
    },
    /// At most [`CHUNK_MAX`] bytes of the file.
    Chunk(#[serde(with = "bytes")] Vec<u8>),
    /// Start the main process; with three descriptors: stdin, stdout, stderr.
    Start(Start),
    /// The main process is this child, which init has not started: answered as a start is.
    Adopt(u32),
}

/// The main process of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Command and arguments.
    pub(crate) argv: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Working directory.
    pub(crate) cwd: String,
    /// Open files per process.
    pub(crate) open_files: u32,
}

/// From init to server. Hostile: it comes from inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// Init is in its loop.
    Hello,
    /// The file is written.
    Done,
    /// The file or the start was refused.
    Refused {
        /// Why.
        errno: i32,
        /// What for, clipped.
        path: String,
    },
    /// The main process runs.
    Started,
    /// The main process ended.
    Exited {
        /// As `wait` gives it.
        status: i32,
        /// Other processes are still there.
        others_left: bool,
    },
}

/// Bytes as one run: postcard copies them whole rather than one by one.
pub(super) mod bytes {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    #[expect(clippy::ptr_arg, reason = "serde hands the field over by its own type")]
    pub(in crate::wire) fn serialize<S: Serializer>(
        bytes: &Vec<u8>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Run;
        impl Visitor<'_> for Run {
            type Value = Vec<u8>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Run)
    }
}
