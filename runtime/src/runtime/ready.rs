//! The first words of a sandbox: ready, failed, refused, or none at all.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::channel::Channel;
use super::live::tame;
use super::shares::CpuFiles;
use crate::cgroup::CpuCounter;
use crate::error::StartError;
use crate::spec::Digest;
use crate::wire::{FromInit, FromShim, Handle, Refusal, WireError};

/// How long a refusal may follow the closing of the sockets that were handed over.
const REFUSAL: Duration = Duration::from_secs(1);

/// Waits until shim and init say that the sandbox is idle, or until it is refused; answers the
/// files of its part of the CPUs.
pub(super) async fn ready(
    shim: &Channel,
    init: &Channel,
    mut refused: oneshot::Receiver<Refusal>,
) -> Result<CpuFiles, StartError> {
    let gone = |reason: &str| StartError::Gone {
        reason: reason.to_owned(),
    };
    let first = tokio::select! {
        reason = &mut refused => return Err(refusal(reason.ok())),
        first = shim.recv::<FromShim>() => first,
    };
    let files = match first {
        Ok(Some((FromShim::Ready { handles }, descriptors)))
            if handles.len() == descriptors.len() =>
        {
            cpu_files(handles.into_iter().zip(descriptors))
        }
        Ok(Some((FromShim::Failed { step, reason }, _))) => {
            return Err(StartError::Failed {
                step: tame(&step),
                reason: tame(&reason),
            });
        }
        Ok(None) | Err(WireError::Socket { .. }) => {
            // Refused: the launcher has closed what it was handed, and its word is on the way.
            return match timeout(REFUSAL, refused).await {
                Ok(reason) => Err(refusal(reason.ok())),
                Err(_elapsed) => Err(gone("its shim ended")),
            };
        }
        Ok(Some(_)) | Err(_) => None,
    };
    let files = files.ok_or_else(|| gone("its shim broke the protocol"))?;
    match init.recv::<FromInit>().await {
        Ok(Some((FromInit::Hello, _))) => Ok(files),
        Ok(Some(_)) => Err(gone("its init broke the protocol")),
        Ok(None) | Err(_) => Err(gone("its init ended")),
    }
}

/// The files of a sandbox's part of the CPUs; none if one is missing.
fn cpu_files(all: impl Iterator<Item = (Handle, OwnedFd)>) -> Option<CpuFiles> {
    let (mut weight, mut idle, mut usage) = (None, None, None);
    for (handle, file) in all {
        match handle {
            Handle::CpuWeight => weight = Some(File::from(file)),
            Handle::CpuIdle => idle = Some(File::from(file)),
            Handle::CpuUsage => usage = Some(CpuCounter::new(File::from(file))),
            _ => {}
        }
    }
    Some(CpuFiles {
        weight: weight?,
        idle: idle?,
        usage: usage?,
    })
}

/// What the launcher's refusal means to the caller; `None` if the launcher went before it could
/// say.
fn refusal(reason: Option<Refusal>) -> StartError {
    let refused = |reason: String| StartError::Refused { reason };
    match reason {
        None => StartError::LauncherGone,
        Some(Refusal::NoSlot) => StartError::Overloaded {
            reason: "all slots are taken".to_owned(),
        },
        Some(Refusal::NoDisk) => StartError::Overloaded {
            reason: "all disk that may be given out is".to_owned(),
        },
        Some(Refusal::Duplicate) => refused("a sandbox of this id is live".to_owned()),
        Some(Refusal::UnknownImage) => refused("the image is not in the store".to_owned()),
        Some(Refusal::UnsafeImage { image, entry, why }) => StartError::UnsafeImage {
            image: Digest(image),
            entry: tame(&entry),
            why: tame(&why),
        },
        Some(Refusal::Limit { name }) => {
            refused(format!("{} passes the launcher's maximum", tame(&name)))
        }
        Some(Refusal::Host { reason }) => StartError::Overloaded {
            reason: tame(&reason),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::wire::{self, FRAME_MAX, INIT_FRAME_MAX};

    /// The server's ends, and those of shim and init.
    fn pairs() -> (Channel, Channel, OwnedFd, OwnedFd) {
        let (shim, shim_far) = Channel::pair(FRAME_MAX).unwrap();
        let (init, init_far) = Channel::pair(INIT_FRAME_MAX).unwrap();
        (shim, init, shim_far, init_far)
    }

    fn say<T: serde::Serialize>(far: &OwnedFd, frame: &T) {
        wire::send(far.as_fd(), frame, INIT_FRAME_MAX, &[]).unwrap();
    }

    /// What a shim says first, with the descriptors that are needed.
    fn announce(far: &OwnedFd) {
        let frame = FromShim::Ready {
            handles: vec![Handle::CpuWeight, Handle::CpuIdle, Handle::CpuUsage],
        };
        let file = tempfile::tempfile().unwrap();
        wire::send(far.as_fd(), &frame, FRAME_MAX, &[file.as_fd(); 3]).unwrap();
    }

    #[tokio::test]
    async fn a_sandbox_is_ready_once_both_have_said_so() {
        let (shim, init, shim_far, init_far) = pairs();
        let (_keep, refused) = oneshot::channel();
        announce(&shim_far);
        say(&init_far, &FromInit::Hello);
        ready(&shim, &init, refused).await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_counts_also_when_the_sockets_close_before_it_comes() {
        let (shim, init, shim_far, init_far) = pairs();
        let (refuse, refused) = oneshot::channel();
        drop((shim_far, init_far));
        let (found, ()) = tokio::join!(ready(&shim, &init, refused), async {
            tokio::task::yield_now().await;
            refuse.send(Refusal::NoSlot).unwrap();
        });
        assert!(
            matches!(found, Err(StartError::Overloaded { .. })),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn a_launcher_that_goes_is_told_apart_from_a_sandbox_that_goes() {
        let (shim, init, shim_far, _init_far) = pairs();
        let (refuse, refused) = oneshot::channel::<Refusal>();
        drop((shim_far, refuse));
        let found = ready(&shim, &init, refused).await;
        assert!(matches!(found, Err(StartError::LauncherGone)), "{found:?}");

        let (shim, init, shim_far, init_far) = pairs();
        let (_keep, refused) = oneshot::channel();
        announce(&shim_far);
        drop(init_far);
        let found = ready(&shim, &init, refused).await;
        assert!(matches!(found, Err(StartError::Gone { .. })), "{found:?}");
    }

    #[tokio::test]
    async fn what_is_no_word_of_readiness_is_no_sandbox() {
        let hostile = [
            FromShim::Ready {
                handles: Vec::new(),
            },
            FromShim::Ready {
                handles: vec![Handle::CpuWeight],
            },
            FromShim::Inspected {
                deviations: Vec::new(),
            },
            FromShim::Failed {
                step: "a\nb".to_owned(),
                reason: "c\u{1b}[2J".to_owned(),
            },
        ];
        for frame in hostile {
            let (shim, init, shim_far, init_far) = pairs();
            let (_keep, refused) = oneshot::channel();
            say(&shim_far, &frame);
            say(&init_far, &FromInit::Hello);
            let error = ready(&shim, &init, refused).await.unwrap_err().to_string();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        let (shim, init, shim_far, init_far) = pairs();
        let (_keep, refused) = oneshot::channel();
        announce(&shim_far);
        say(
            &init_far,
            &FromInit::Exited {
                status: 0,
                others_left: false,
            },
        );
        assert!(ready(&shim, &init, refused).await.is_err());
    }

    #[tokio::test]
    async fn bytes_that_are_no_frame_are_no_sandbox() {
        for bytes in [b"\x01".as_slice(), b"\xff\xff\xff", &[1; FRAME_MAX + 1]] {
            let (shim, init, shim_far, _init_far) = pairs();
            let (_keep, refused) = oneshot::channel();
            wire::send_bytes(shim_far.as_fd(), bytes, &[]).unwrap();
            let found = timeout(2 * REFUSAL, ready(&shim, &init, refused))
                .await
                .unwrap();
            assert!(matches!(found, Err(StartError::Gone { .. })), "{found:?}");
        }
    }
}
