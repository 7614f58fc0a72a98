//! The server's life: ledger, recovery, posture, listener; then drain, and everything closed in
//! order.
//!
//! ```text
//! start: ledger -> runtime -> open holds -> rates, tier -> posture -> listener -> DIR/address
//! stop:  new work refused -> running work ends, or is cancelled -> listener -> last checkpoint
//!        -> runtime -> records -> ledger
//! ```

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::KeepAlive;
use actix_web::{App as Actix, HttpServer, web};
use ledger::Ledger;
use runtime::image::Store;
use runtime::{LauncherHandle, Runtime};
use tokio::sync::Semaphore;

use crate::app::App;
use crate::books::Books;
use crate::budgets::{self, Watch};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::ApiError;
use crate::execute::ahead::Granted;
use crate::gate::Gate;
use crate::images::{ImageSource, KnownImages};
use crate::kept::KeptFiles;
use crate::keys::{self, Keys};
use crate::live::Live;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::proof::{self, Proof};
use crate::records::{Records, RecordsError};
use crate::registry::{self, Registry};
use crate::scope::Role;
use crate::tasks::Tasks;
use crate::token::{self, Mint, Remembered};
use crate::turns::Turns;
use crate::{recover, routes, telemetry};

/// What runs the code, and where its images are.
#[derive(Debug)]
pub enum Backend {
    /// Real sandboxes, made by this launcher, from the configured image store.
    Launcher(LauncherHandle),
    /// Whatever this is; for tests.
    Given(Runtime, Arc<dyn ImageSource>),
}

/// Why the server does not serve, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger cannot be opened.
    #[error("cannot open the ledger")]
    Ledger(#[source] ledger::OpenError),
    /// The ledger could not be closed in order; what was acknowledged is durable all the same.
    #[error("cannot close the ledger")]
    Close(#[source] ledger::Error),
    /// The signing keys cannot be used.
    #[error("cannot use the signing keys")]
    Keys(#[source] keys::KeysError),
    /// The signing key or the files of checkpoints cannot be used.
    #[error("cannot prepare checkpoints of the ledger: {reason}")]
    Proof {
        /// Why not.
        reason: String,
    },
    /// The execution records cannot be used.
    #[error("cannot use the execution records")]
    Records(#[source] RecordsError),
    /// The launcher cannot be reached.
    #[error("cannot reach the launcher")]
    Runtime(#[source] runtime::Error),
    /// A live sandbox is not as it must be: nothing is served.
    #[error("sandboxes on this host would not be safe")]
    Posture(#[source] runtime::PostureError),
    /// A file, thread or socket of the server's own.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// What an earlier server left, or the configuration, cannot be brought into the ledger.
    #[error("cannot {what}: {reason}")]
    Recover {
        /// What was tried.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The journal could not be written: the server has ended itself rather than lose an entry.
    #[error("the journal cannot be written any more")]
    JournalNotWritable,
    /// The launcher has gone.
    #[error("the launcher is gone")]
    LauncherGone,
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServeError {
    let what = what.into();
    move |source| ServeError::Io { what, source }
}

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    app: Arc<App>,
    address: SocketAddr,
    walk: tokio::runtime::Runtime,
    signing: tokio::task::JoinHandle<()>,
    http: ServerHandle,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

/// Serves until SIGTERM or SIGINT, then drains; blocks for all that time.
///
/// Call it once privileges are dropped. The data directory must be there and be this user's.
///
/// # Errors
/// Why the server could not start, or had to end.
pub fn serve(config: Config, launcher: LauncherHandle) -> Result<(), ServeError> {
    let running = Running::start(config, Backend::Launcher(launcher))?;
    tracing::info!(address = %running.address, "serving");
    let why = running.walk.block_on(until_stopped(&running.app))?;
    // Without journal or launcher nothing that runs can be brought to a good end: no grace.
    let (grace, verdict) = match why {
        Stop::Signal => return running.stop(),
        Stop::Journal => (Duration::ZERO, ServeError::JournalNotWritable),
        Stop::Launcher => (Duration::ZERO, ServeError::LauncherGone),
    };
    if let Err(error) = running.end(grace) {
        tracing::error!(
            error = crate::config::chain(&error),
            "the end was not in order"
        );
    }
    Err(verdict)
}

/// What ends a server.
enum Stop {
    Signal,
    Journal,
    Launcher,
}

/// How often the server looks whether it can still do its work.
const WATCH: Duration = Duration::from_millis(100);

async fn until_stopped(app: &App) -> Result<Stop, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(io("listen for SIGTERM"))?;
    let mut int = signal(SignalKind::interrupt()).map_err(io("listen for SIGINT"))?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(Stop::Signal),
            _ = int.recv() => return Ok(Stop::Signal),
            () = tokio::time::sleep(WATCH) => {}
        }
        if !app.ledger.health().writable {
            return Ok(Stop::Journal);
        }
        if !app.runtime.healthy() {
            return Ok(Stop::Launcher);
        }
    }
}

impl Running {
    /// Starts a server; it serves once this returns, and its address is in `DIR/address`.
    ///
    /// # Errors
    /// Why it could not; nothing is left running then but the launcher.
    pub fn start(config: Config, backend: Backend) -> Result<Running, ServeError> {
        telemetry::recorder();
        let address_file = config.server.data_dir.join("address");
        remove_if_there(&address_file)?;
        let walk = walk_runtime(&config)?;
        let app = walk.block_on(assemble(config, backend, walk.handle().clone()))?;
        walk.block_on(prepare(&app))?;
        walk.block_on(app.runtime.check_posture())
            .map_err(ServeError::Posture)?;
        app.posture_ok.store(true, Ordering::SeqCst);
        let used_us = app.runtime.used_cpu_us().map_err(ServeError::Runtime)?;
        let making_us = app.runtime.making_cpu_us();
        app.books.begin(app.clock.wall_us(), used_us, making_us);
        let listener = TcpListener::bind(app.config.server.listen)
            .map_err(io(format!("listen on {}", app.config.server.listen)))?;
        let address = listener
            .local_addr()
            .map_err(io("read the listener's address"))?;
        let (http, thread) = listen(&app, listener)?;
        budgets::start(&app);
        write_address(&address_file, address)?;
        app.proof.start().map_err(io("start a thread"))?;
        let signing = walk.spawn(proof::run(Arc::clone(&app)));
        Ok(Running {
            app,
            address,
            walk,
            signing,
            http,
            thread,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drains and ends the server: new requests are refused, running executions get the grace
    /// period, then are cancelled and settled, and the ledger is closed.
    ///
    /// # Errors
    /// The ledger could not be closed in order.
    pub fn stop(self) -> Result<(), ServeError> {
        let grace = Duration::from_millis(self.app.config.server.drain_grace_ms);
        self.end(grace)
    }

    fn end(self, grace: Duration) -> Result<(), ServeError> {
        let Running {
            app,
            address: _,
            walk,
            signing,
            http,
            thread,
        } = self;
        app.draining.store(true, Ordering::SeqCst);
        let cancel = Duration::from_millis(app.config.server.drain_cancel_ms);
        walk.block_on(async {
            if tokio::time::timeout(grace, app.tasks.idle()).await.is_err() {
                tracing::warn!(executions = app.live.count(), "cancelling what still runs");
                app.live.cancel_all();
                if tokio::time::timeout(cancel, app.tasks.idle())
                    .await
                    .is_err()
                {
                    tracing::error!("executions did not end: the next start settles them");
                }
            }
            // Whoever still reads would hold the listener up.
            app.kept.clear();
            http.stop(true).await;
        });
        app.proof.stop(&app.ledger);
        if walk.block_on(signing).is_err() {
            tracing::error!("the task that signs checkpoints has failed");
        }
        if thread.join().is_err() {
            tracing::error!("the listener has failed");
        }
        remove_if_there(&app.config.server.data_dir.join("address"))?;
        let closed = walk.block_on(close(&app));
        // Not longer: what is still being sent to a webhook is sent again by the next server.
        walk.shutdown_timeout(Duration::from_secs(2));
        closed
    }
}

/// Ends everything that an app holds, the ledger last.
pub(crate) async fn close(app: &Arc<App>) -> Result<(), ServeError> {
    app.kept.clear();
    app.runtime.drain().await;
    let shared = Arc::clone(app);
    let closed = tokio::task::spawn_blocking(move || {
        shared.records.close();
        shared.outbox.close();
        shared.ledger.clone().close()
    });
    match closed.await {
        Ok(closed) => closed.map_err(ServeError::Close),
        Err(panic) => Err(recovery("close")(ApiError::internal(panic))),
    }
}

fn recovery(what: &'static str) -> impl FnOnce(ApiError) -> ServeError {
    move |error| ServeError::Recover {
        what,
        reason: error.to_log(),
    }
}

/// The threads that carry executions.
pub(crate) fn walk_runtime(config: &Config) -> Result<tokio::runtime::Runtime, ServeError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.server.walk_threads > 0 {
        builder.worker_threads(config.server.walk_threads);
    }
    builder
        .thread_name("walk")
        .enable_all()
        .build()
        .map_err(io("start threads"))
}

/// Opens everything that requests can reach.
pub(crate) async fn assemble(
    config: Config,
    backend: Backend,
    walk: tokio::runtime::Handle,
) -> Result<Arc<App>, ServeError> {
    let clock = Clock::system();
    let dir = &config.server.data_dir;
    std::fs::create_dir_all(dir).map_err(io(format!("create {}", dir.display())))?;
    let ledger =
        Ledger::open(config.ledger.clone(), Arc::new(clock)).map_err(ServeError::Ledger)?;
    let keys = Keys::open(dir, &clock).map_err(ServeError::Keys)?;
    let proof = Proof::open(&config, &ledger, clock).map_err(|error| ServeError::Proof {
        reason: crate::config::chain(&error),
    })?;
    let records = Records::open(&dir.join("records"), config.records.clone(), clock)
        .map_err(ServeError::Records)?;
    let (runtime, images): (Runtime, Arc<dyn ImageSource>) = match backend {
        Backend::Given(runtime, images) => (runtime, images),
        Backend::Launcher(launcher) => {
            let runtime = Runtime::connect(launcher, config.runtime_options());
            let images = KnownImages::new(Store::open(&config.images_dir()));
            (
                runtime.await.map_err(ServeError::Runtime)?,
                Arc::new(images),
            )
        }
    };
    let options = registry::Options {
        tier: config.tier.clone(),
        tokens: config.tokens.clone(),
        webhooks_max: config.webhooks.per_tenant_max,
    };
    let machine = &config.machine;
    let queue = Duration::from_millis(machine.queue_ms);
    let registry = Registry::open(ledger.clone(), clock, options);
    let outbox = Outbox::open(&config, &registry.webhook_secrets(), clock);
    Ok(Arc::new(App {
        registry,
        outbox: Arc::new(outbox.map_err(io("open the outbox in DIR/outbox"))?),
        watch: Watch::default(),
        machine: Machine::new(machine.slots, machine.queue_max, queue),
        turns: Turns::new(machine.async_queue_per_tenant, machine.async_queue_max),
        reports: Gate::new(
            config.server.reports_max,
            config.server.reports_per_tenant_max,
        ),
        event_streams: Arc::new(Semaphore::new(config.server.event_streams_max)),
        clock,
        ledger,
        runtime,
        granted: Granted::default(),
        images,
        keys,
        remembered: Remembered::default(),
        proof,
        books: Books::new(),
        records,
        live: Live::default(),
        kept: Arc::new(KeptFiles::new(config.sandbox.keep_per_tenant_max)),
        tasks: Tasks::new(),
        walk,
        posture_ok: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        requests: AtomicUsize::new(0),
        config,
    }))
}

/// Brings the ledger up to what was left behind and to the configuration.
pub(crate) async fn prepare(app: &App) -> Result<(), ServeError> {
    let holds = recover::end_open_holds(app)
        .await
        .map_err(recovery("settle what was running"))?;
    if holds > 0 {
        tracing::warn!(holds, "settled what an earlier server left running");
    }
    recover::record_rates(app)
        .await
        .map_err(recovery("record the rate card"))?;
    app.registry
        .apply_tier()
        .await
        .map_err(recovery("apply the tier"))?;
    app.registry
        .forget_expired()
        .await
        .map_err(recovery("forget expired tokens"))?;
    admin_token(app)
}

/// Leaves a good operator's token in `DIR/admin.token`.
fn admin_token(app: &App) -> Result<(), ServeError> {
    let path = app.config.server.data_dir.join("admin.token");
    let options = &app.config.tokens;
    let good = std::fs::read_to_string(&path).is_ok_and(|text| {
        token::check(&app.keys, options, app.clock.wall_s(), text.trim())
            .is_ok_and(|checked| !app.registry.is_revoked(&checked.claims.jti))
    });
    if good {
        return Ok(());
    }
    let mint = Mint {
        subject: "admin.token".to_owned(),
        tenant: None,
        project: None,
        scopes: Role::Admin.scopes(),
        expires_s: options.admin_expires_s,
    };
    let (text, _) =
        token::mint(&app.keys, options, &app.clock, mint).map_err(|error| ServeError::Recover {
            what: "mint the operator's token",
            reason: error.to_string(),
        })?;
    keys::write_secret(&path, &text).map_err(io(format!("write {}", path.display())))?;
    keys::give_to_owner_of(&app.config.server.data_dir, &path);
    tracing::info!(path = %path.display(), "wrote a new operator's token");
    Ok(())
}

/// Starts actix on a thread of its own.
fn listen(
    app: &Arc<App>,
    listener: TcpListener,
) -> Result<(ServerHandle, std::thread::JoinHandle<std::io::Result<()>>), ServeError> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let app = Arc::clone(app);
    let thread = std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = http_server(&app, listener)?;
                // Nobody listens any more only if the start was given up.
                drop(sender.send(server.handle()));
                server.await
            })
        })
        .map_err(io("start the listener's thread"))?;
    match receiver.recv() {
        Ok(handle) => Ok((handle, thread)),
        Err(_) => match thread.join() {
            Ok(Err(source)) => Err(ServeError::Io {
                what: "start the listener".into(),
                source,
            }),
            Ok(Ok(())) | Err(_) => Err(ServeError::Io {
                what: "start the listener".into(),
                source: std::io::Error::other("its thread has ended"),
            }),
        },
    }
}

fn http_server(app: &Arc<App>, listener: TcpListener) -> std::io::Result<actix_web::dev::Server> {
    let server = &app.config.server;
    let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let workers = if server.workers > 0 {
        server.workers
    } else {
        cpus
    };
    let timeout = Duration::from_millis(server.head_timeout_ms);
    let data = web::Data::from(Arc::clone(app));
    let http = HttpServer::new(move || {
        Actix::new()
            .app_data(data.clone())
            .configure(routes::configure)
            .default_service(web::to(routes::unknown_path))
    });
    let http = http
        .workers(workers)
        .max_connections(server.connections_max.div_ceil(workers))
        .backlog(server.backlog)
        .keep_alive(KeepAlive::Timeout(Duration::from_millis(
            server.keep_alive_ms,
        )))
        .client_request_timeout(timeout)
        .client_disconnect_timeout(Duration::from_secs(5))
        .shutdown_timeout(5)
        .disable_signals()
        .listen(listener)?;
    Ok(http.run())
}

fn write_address(path: &Path, address: SocketAddr) -> Result<(), ServeError> {
    let draft: PathBuf = path.with_extension("new");
    let what = || format!("write {}", path.display());
    std::fs::write(&draft, format!("{address}\n")).map_err(io(what()))?;
    std::fs::rename(&draft, path).map_err(io(what()))
}

fn remove_if_there(path: &Path) -> Result<(), ServeError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(io(format!("remove {}", path.display()))(source))
        }
        _ => Ok(()),
    }
}
