//! A PostgreSQL server of the bench's own: a new data directory, a socket and no port, run by a
//! user without privilege, ended by its process id.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use super::cpu;

const START_MAX: Duration = Duration::from_secs(30);

/// Durability is as PostgreSQL has it by default, and read back after the start. Memory and room
/// for the log are what one gives a server that does nothing else: no checkpoint comes meanwhile.
const SETTINGS: [&str; 6] = [
    "listen_addresses=",
    "shared_buffers=1GB",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "timezone=UTC",
    "max_connections=100",
];

/// Ended, and its directory removed, when it is dropped.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: tempfile::TempDir,
    user: User,
    server: Child,
}

/// What pgbench says of one run of a script, and what it cost the server.
pub(crate) struct Told {
    pub(crate) per_s: f64,
    pub(crate) transactions: u64,
    pub(crate) cpu_us: u64,
}

impl Postgres {
    /// Makes a database below `dir` and starts its server.
    pub(crate) fn start(dir: &Path) -> Self {
        let bin = programs();
        // The server refuses to run as root. `nobody` owns nothing else, on every system.
        let user = match geteuid().is_root() {
            true => User::from_name("nobody").unwrap().unwrap(),
            false => User::from_uid(geteuid()).unwrap().unwrap(),
        };
        let dir = tempfile::tempdir_in(dir).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let data = dir.path().join("data");
        let mut initdb = command(&bin, "initdb", &user, dir.path());
        let local = ["--auth=trust", "--username=bench", "--encoding=UTF8"];
        initdb.arg("-D").arg(&data).args(local).arg("--locale=C");
        said(initdb);
        let mut postgres = command(&bin, "postgres", &user, dir.path());
        postgres.arg("-D").arg(&data).arg("-k").arg(dir.path());
        for setting in SETTINGS {
            postgres.args(["-c", setting]);
        }
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let server = postgres.stderr(log).spawn().unwrap();
        let started = Self {
            bin,
            dir,
            user,
            server,
        };
        started.wait();
        for (setting, value) in [("fsync", "on"), ("synchronous_commit", "on")] {
            assert_eq!(started.sql(&format!("SHOW {setting}")), value, "{setting}");
        }
        started
    }

    fn wait(&self) {
        let begun = Instant::now();
        while !self.client("pg_isready").output().unwrap().status.success() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(begun.elapsed() < START_MAX, "PostgreSQL: {}", log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Its version, as it says itself.
    pub(crate) fn version(&self) -> String {
        self.sql("SHOW server_version")
    }

    /// The one value that a statement answers.
    pub(crate) fn sql(&self, statement: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c"]);
        psql.arg(statement);
        said(psql).trim().to_owned()
    }

    /// Runs a script of statements.
    pub(crate) fn load(&self, script: &str) {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]);
        said({
            psql.arg(self.file("load.sql", script));
            psql
        });
    }

    /// Lets so many clients run a script of pgbench's in a loop, with prepared statements. The
    /// script is told the clients and the `turn`, which differs from run to run.
    pub(crate) fn bench(&self, script: &str, clients: usize, seconds: u64, turn: usize) -> Told {
        let threads = thread::available_parallelism().unwrap().get().min(clients);
        let mut pgbench = self.client("pgbench");
        pgbench.args(["-n", "-M", "prepared", "-D", "n=0"]);
        for variable in [format!("turn={turn}"), format!("clients={clients}")] {
            pgbench.args(["-D", &variable]);
        }
        for (flag, number) in [("-c", clients), ("-j", threads)] {
            pgbench.args([flag, &number.to_string()]);
        }
        pgbench.args(["-T", &seconds.to_string(), "-f"]);
        pgbench.arg(self.file("bench.sql", script));
        let before = self.cpu_us();
        let told = said(pgbench);
        let after = |words: &str| {
            let rest = told.split(words).nth(1).unwrap_or_else(|| panic!("{told}"));
            rest.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(after("number of failed transactions: "), "0", "{told}");
        Told {
            per_s: after("tps = ").parse().unwrap(),
            transactions: after("actually processed: ").parse().unwrap(),
            cpu_us: self.cpu_us() - before,
        }
    }

    /// CPU time of the server once its sessions have ended, theirs included. What writes the log
    /// and the tables beside them is not in it, nor are the clients.
    fn cpu_us(&self) -> u64 {
        let begun = Instant::now();
        let sessions =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        while self.sql(sessions) != "1" {
            assert!(
                begun.elapsed() < START_MAX,
                "sessions of pgbench do not end"
            );
        }
        cpu::stat_us(&self.server.id().to_string(), 4)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn client(&self, program: &str) -> Command {
        let mut client = command(&self.bin, program, &self.user, self.dir.path());
        client.arg("-h").arg(self.dir.path());
        client.args(["-U", "bench", "-d", "postgres"]);
        client
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let id = i32::try_from(self.server.id()).unwrap();
        // It ends its sessions and itself, and writes down what it has.
        kill(Pid::from_raw(id), Signal::SIGINT).unwrap();
        self.server.wait().unwrap();
    }
}

/// Where the newest PostgreSQL of this machine keeps its programs; Debian has each version apart.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let path = version.unwrap().path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            let bin = path.join("bin");
            bin.join("initdb").exists().then_some((number, bin))
        })
        .collect();
    found.sort();
    let (_, newest) = found.pop().expect(
        "no PostgreSQL in /usr/lib/postgresql: sh scripts/bench-postgres.sh installs it (Debian)",
    );
    newest
}

fn command(bin: &Path, program: &str, user: &User, dir: &Path) -> Command {
    let mut command = Command::new(bin.join(program));
    command.env_clear().current_dir(dir);
    if geteuid().is_root() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}
