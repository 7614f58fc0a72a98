//! `farebox serve`: the server, once root has been given up.

use api::{Config, ServeError};

use super::arguments::ServeArgs;
use super::exit::Exit;
use super::fault::Fault;
use super::place::configuration;
use super::start::start;

/// Serves until SIGTERM or SIGINT has drained it.
pub(crate) fn serve(args: &ServeArgs) -> Result<(), Fault> {
    let mut flags = Vec::new();
    if let Some(listen) = &args.listen {
        flags.push(("server.listen".to_owned(), listen.clone()));
    }
    let config = configuration(&args.place, flags)?;
    api::start_log(&config.log);
    let launcher = start(&config)?;
    let place = Place::of(&config);
    api::serve(config, launcher).map_err(|error| place.fault(&error))
}

/// What faults name, once the configuration has gone into the server.
struct Place {
    dir: String,
    listen: String,
}

impl Place {
    fn of(config: &Config) -> Self {
        let dir = config.server.data_dir.display().to_string();
        Self {
            dir,
            listen: config.server.listen.to_string(),
        }
    }

    fn fault(&self, error: &ServeError) -> Fault {
        let (what, listen) = (format!("cannot serve {}", self.dir), &self.listen);
        let fault = |exit| Fault::new(exit, what).caused_by(error);
        match error {
            ServeError::Posture(_) | ServeError::Runtime(_) | ServeError::LauncherGone => {
                fault(Exit::Host).cure("mend what is named above; farebox doctor tells more")
            }
            ServeError::JournalNotWritable => fault(Exit::Journal).cure(
                "make room, or mend the disk; then start again: nothing acknowledged is lost",
            ),
            ServeError::Ledger(_) => fault(Exit::Failed)
                .cure("stop the other server on this directory; or: farebox ledger verify"),
            ServeError::Io { .. } => fault(Exit::Failed).cure(format!(
                "check that {} is writable and {listen} is free",
                self.dir
            )),
            _ => fault(Exit::Failed).cure("the log above tells more"),
        }
    }
}
