//! The container library, named in this file only: makes namespaces, mounts, devices and init.
//!
//! It forks, changes this process's directory, dumpability and out-of-memory score, and expects one
//! thread; a shim is a process of its own for that. Its tenant exec is never used (it applies no
//! filter and leaves the user namespace), nor its delete (the shim removes what it made), nor
//! systemd. On v1 it sees no cgroup hierarchy: the shim stands in the sandbox's group while it
//! forks, which costs microseconds where a move of another process waits for every CPU.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::sys::prctl;
use nix::unistd::Pid;
use serde_json::Value;

use super::Host;
use crate::cgroup::{Group, Version};
use crate::init;
use crate::launcher::kernel;
use crate::launcher::root::LIBRARY;
use crate::launcher::step::{During, Failed};
use crate::seccomp::Program;

/// A container whose init waits to be let go.
pub(super) struct Created {
    container: Container,
    /// Kept until init has its own.
    _init: OwnedFd,
}

/// Makes the container in `group`, from the launcher's `platform`, with `init` as its socket.
pub(super) fn create(
    host: &Host<'_>,
    (group, platform): (&Group, &Group),
    config: &Value,
    init: OwnedFd,
) -> Result<Created, Failed> {
    let bundle = format!("{LIBRARY}/b");
    let state = format!("{LIBRARY}/s");
    for dir in [&bundle, &state] {
        std::fs::create_dir(dir).during("make the container library's directories")?;
    }
    std::fs::write(format!("{bundle}/config.json"), config.to_string())
        .during("write the OCI config")?;
    let executor = Init {
        socket: init.as_raw_fd(),
        filter: Rc::clone(host.filter),
    };
    let builder = ContainerBuilder::new("c".to_owned(), SyscallType::default())
        .with_root_path(state)
        .map_err(|error| library("use its state directory", &error))?
        .with_executor(executor)
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true);
    let stands_in = group.version() == Version::V1;
    if stands_in {
        group.enter().during("enter the sandbox's group")?;
    }
    let built = builder.build();
    if stands_in {
        platform.enter().during("return to the platform's group")?;
    }
    let container = built.map_err(|error| library("make the container", &error))?;
    Ok(Created {
        container,
        _init: init,
    })
}

impl Created {
    /// Init's pid.
    pub(super) fn init(&self) -> Result<Pid, Failed> {
        let pid = self.container.pid().map(|pid| Pid::from_raw(pid.as_raw()));
        pid.ok_or_else(|| Failed::because("start the container", "it tells no pid"))
    }

    /// Lets init go; answers its pid.
    pub(super) fn start(mut self) -> Result<Pid, Failed> {
        let pid = self.init()?;
        self.container
            .start()
            .map_err(|error| library("start the container", &error))?;
        Ok(pid)
    }
}

/// An error of the library with its whole chain of causes.
fn library(step: &str, error: &LibcontainerError) -> Failed {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    Failed::because(step, text)
}

/// What runs as pid 1: our own code, forked and never exec'd.
#[derive(Clone)]
struct Init {
    socket: RawFd,
    filter: Rc<Program>,
}

impl Executor for Init {
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.filter.load().map_err(|error| {
            let text = format!("cannot load the seccomp filter: {error}");
            ExecutorValidationError::ArgValidationError(text)
        })
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        // Only what the tenant sees in a list of processes.
        prctl::set_name(c"init")
            .map_err(|errno| ExecutorError::Other(format!("cannot take a name: {errno}")))?;
        let code = init::run(kernel::inherited(self.socket), init::Config::default());
        kernel::exit_now(u8::try_from(code).unwrap_or(1))
    }
}
