//! Has interpreters forked from an image's template instead of started: what the server knows of
//! templates, and how it asks for a fork.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::live::{Live, tame};
use super::open::Made;
use super::pool::Recipe;
use super::warm::new_id;
use crate::error::StartError;
use crate::runner::{Interpreter, Waiting};
use crate::sandbox::pump::Pipes;
use crate::wire::{FromInit, FromShim, Make, ToInit, ToLauncher, ToShim, WireImage};

/// How long a fork may take, the template's own start included; the most, whatever
/// [`start_ms`](super::Options::start_ms) says.
const LIMIT: Duration = Duration::from_secs(5);
/// How long nothing is forked from an image's template after one did not do what it should, in us.
const OFF_US: u64 = 60_000_000;
/// Longest environment of a template, in bytes: it must fit a frame.
const ENV_MAX: usize = 2048;
/// Most images whose templates are known.
const IMAGES_MAX: usize = 256;

/// What is known of the images' templates.
#[derive(Debug)]
pub(super) struct Forks {
    /// Whether the launcher has any.
    any: bool,
    known: Mutex<HashMap<[u8; 32], Known>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is being found out whether it forks.
    Tried,
    /// It has forked.
    Works,
    /// It has not when it should; not before then again, in us.
    Off(u64),
}

impl Forks {
    pub(super) fn new(any: bool) -> Forks {
        Forks {
            any,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fork may be asked for.
    fn may(&self, image: [u8; 32], now_us: u64) -> bool {
        let is_off = |known: &Known| matches!(known, Known::Off(until) if *until > now_us);
        self.any && !self.known().get(&image).is_some_and(is_off)
    }

    /// Whether one has been answered, so that it will not take as long as a start.
    fn works(&self, image: [u8; 32]) -> bool {
        self.known().get(&image) == Some(&Known::Works)
    }

    /// Whether somebody must find out whether it forks, who says so by this.
    fn is_to_be_tried(&self, image: [u8; 32], now_us: u64) -> bool {
        let is_known = matches!(self.known().get(&image), Some(Known::Tried | Known::Works));
        let is_to_be = !is_known && self.may(image, now_us);
        if is_to_be {
            self.note(image, Known::Tried);
        }
        is_to_be
    }

    /// Nothing was found out.
    fn untried(&self, image: [u8; 32]) {
        let mut known = self.known();
        if known.get(&image) == Some(&Known::Tried) {
            known.remove(&image);
        }
    }

    fn note(&self, image: [u8; 32], found: Known) {
        let mut known = self.known();
        if known.len() >= IMAGES_MAX && !known.contains_key(&image) {
            known.clear();
        }
        known.insert(image, found);
    }
}

impl Live {
    /// The environment of the template that an interpreter is to be forked from; none if it is to
    /// be started. Whoever waits for it forks only where that is sure to be faster.
    pub(super) fn template_for(
        &self,
        image: WireImage,
        interpreter: Option<&Interpreter>,
        is_waited_for: bool,
    ) -> Option<Vec<(String, String)>> {
        let (WireImage::Digest(image), Some(Interpreter::Python { env, fork: true })) =
            (image, interpreter)
        else {
            return None;
        };
        let bytes: usize = env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let may = bytes + env.len() <= ENV_MAX
            && self.forks.may(image, self.clock.now_us())
            && (!is_waited_for || self.forks.works(image));
        may.then(|| env.clone())
    }

    /// Makes a sandbox that somebody waits for, with a fork in it if that is faster. If it cannot
    /// be forked, another one is made, with an id of its own.
    pub(super) async fn make_with_fork(
        self: &Arc<Live>,
        make: Make,
        interpreter: Option<&Interpreter>,
    ) -> Result<Made, StartError> {
        let template = self.template_for(make.image, interpreter, true);
        if template.is_none() {
            self.try_template(&make, interpreter);
            return self.make(make).await;
        }
        let (image, open_files) = (make.image, make.limits.open_files);
        let forking = Make {
            template,
            ..make.clone()
        };
        let made = self.make(forking).await?;
        match self.fork(&made, image, open_files).await {
            Ok(waiting) => Ok(Made {
                waiting: Some(waiting),
                ..made
            }),
            Err(StartError::LauncherGone) => Err(StartError::LauncherGone),
            Err(_logged) => {
                let sandbox = new_id()?;
                self.make(Make { sandbox, ..make }).await
            }
        }
    }

    /// Finds out beside the others whether the image's template forks, where nothing is made ahead
    /// that would tell.
    fn try_template(self: &Arc<Live>, make: &Make, interpreter: Option<&Interpreter>) {
        let WireImage::Digest(image) = make.image else {
            return;
        };
        if self.options.pool.max > 0
            || self.template_for(make.image, interpreter, false).is_none()
            || !self.forks.is_to_be_tried(image, self.clock.now_us())
        {
            return;
        }
        let recipe = Recipe {
            limits: make.limits,
            interpreter: interpreter.cloned(),
        };
        let (live, disk_class) = (Arc::clone(self), make.disk_class);
        tokio::spawn(async move {
            match live.make_one_ahead(image, disk_class, &recipe).await {
                Ok(made) => live.end_idle(made).await,
                // What a template itself has done wrong is noted; a full machine is no fault.
                Err(error) => tracing::debug!(%error, "a template could not be tried"),
            }
            live.forks.untried(image);
        });
    }

    /// Has the template fork into a sandbox that was made for it. After an error the sandbox must
    /// not be used.
    pub(super) async fn fork(
        &self,
        made: &Made,
        image: WireImage,
        open_files: u32,
    ) -> Result<Waiting, StartError> {
        let limit = LIMIT.min(Duration::from_millis(self.options.start_ms));
        let forked = timeout(limit, fork(made, open_files)).await;
        let forked = forked.unwrap_or_else(|_elapsed| Err("it does not answer".to_owned()));
        let WireImage::Digest(image) = image else {
            return forked.map_err(|reason| StartError::Gone { reason });
        };
        match forked {
            Ok(waiting) => {
                if !self.forks.works(image) {
                    self.forks.note(image, Known::Works);
                }
                Ok(waiting)
            }
            Err(reason) => {
                let until_us = self.clock.now_us() + OFF_US;
                self.forks.note(image, Known::Off(until_us));
                tracing::warn!(%reason, "a template has not forked: interpreters are started");
                let renew = ToLauncher::Renew(image);
                let sent = self.launcher.send(&renew, &[]).await;
                sent.map_err(|_gone| StartError::LauncherGone)?;
                let reason = format!("its template has not forked: {reason}");
                Err(StartError::Gone { reason })
            }
        }
    }
}

/// Asks for a fork, has it looked at, and makes it the sandbox's main process.
async fn fork(made: &Made, open_files: u32) -> Result<Waiting, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (pipes, ends) = Pipes::new().map_err(|error| text(&error))?;
    let descriptors = [ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()];
    let sent = made.shim.send(&ToShim::Fork, &descriptors).await;
    sent.map_err(|error| text(&error))?;
    drop(ends);
    let (waiting, pid) = Waiting::forked(pipes, open_files)
        .await
        .map_err(|said| format!("nothing was forked: {}", tame(&said)))?;
    let inspect = made.shim.send(&ToShim::InspectFork(pid), &[]).await;
    inspect.map_err(|error| text(&error))?;
    let Ok(Some((FromShim::Inspected { deviations }, _))) = made.shim.recv::<FromShim>().await
    else {
        return Err("its shim does not look at it".to_owned());
    };
    if let Some(one) = deviations.first() {
        return Err(format!("{}: {}", tame(&one.what), tame(&one.found)));
    }
    // Only now: those who have helped to fork it are gone, so that it is init's child.
    let adopt = made.init.send(&ToInit::Adopt(pid), &[]).await;
    adopt.map_err(|error| text(&error))?;
    match made.init.recv::<FromInit>().await {
        Ok(Some((FromInit::Started, _))) => Ok(waiting),
        _ => Err("its init does not know it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_fails_is_left_alone_for_a_while() {
        assert!(!Forks::new(false).may([1; 32], 0));
        let forks = Forks::new(true);
        let image = [1; 32];
        assert!(forks.may(image, 0));
        assert!(!forks.works(image));
        forks.note(image, Known::Works);
        assert!(forks.works(image));
        forks.note(image, Known::Off(10));
        assert!(!forks.may(image, 9) && !forks.works(image));
        assert!(forks.may(image, 10));
    }

    #[test]
    fn a_template_is_tried_by_one_at_a_time_until_it_is_known() {
        let forks = Forks::new(true);
        let image = [1; 32];
        assert!(forks.is_to_be_tried(image, 0));
        assert!(!forks.is_to_be_tried(image, 0) && !forks.works(image));
        forks.untried(image);
        assert!(forks.is_to_be_tried(image, 0));
        forks.note(image, Known::Works);
        forks.untried(image);
        assert!(forks.works(image) && !forks.is_to_be_tried(image, 0));
        forks.note(image, Known::Off(10));
        assert!(!forks.is_to_be_tried(image, 9) && forks.is_to_be_tried(image, 10));
    }

    #[test]
    fn no_more_images_are_known_than_there_is_a_bound_for() {
        let forks = Forks::new(true);
        for image in 0..=IMAGES_MAX {
            let [low, high, ..] = image.to_le_bytes();
            let mut digest = [0; 32];
            [digest[0], digest[1]] = [low, high];
            forks.note(digest, Known::Works);
        }
        assert!(forks.known().len() <= IMAGES_MAX);
    }
}
