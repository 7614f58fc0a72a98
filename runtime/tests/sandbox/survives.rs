//! What becomes of sandboxes when the processes around them die.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::{EndedBy, Outcome, StartError};
use tokio::sync::oneshot;

use crate::Test;
use crate::bed::{Bed, Run, children, limits, text};

pub(crate) const TESTS: &[Test] = &[
    ("figures_that_nobody_settled_are_written_down", unsettled),
    ("a_run_that_is_dropped_is_ended_and_written_down", dropped),
    ("a_shim_that_dies_takes_its_sandbox_along", shim_dies),
    ("a_launcher_that_dies_is_noticed", launcher_dies),
];

/// A server that ends between the answer and the settlement finds the figures at its next start.
fn unsettled(bed: &mut Bed) {
    let spec = bed.spec(limits());
    let id = spec.id;
    let process = bed.process(id, &Run::shell("exit 0"));
    let report = bed.block_on(async {
        let sandbox = bed.runtime.open(spec).await.unwrap();
        let (_keep, cancel) = oneshot::channel();
        sandbox.run(process, None, cancel).await
    });
    assert_eq!(report.outcome, Outcome::Exited { code: 0 });
    bed.block_on(bed.runtime.drain());
    bed.restart();
    let left = bed.runtime.left_behind();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((left[0].sandbox, left[0].execution), (id, Some(id.0)));
    assert_eq!(left[0].ended_by, EndedBy::Finish);
    assert_eq!(left[0].measured, report.measured);
    bed.runtime.forget(id);
    assert_eq!(bed.runtime.left_behind(), []);
}

fn dropped(bed: &mut Bed) {
    let spec = bed.spec(limits());
    let id = spec.id;
    let process = bed.process(id, &Run::shell("echo up; exec sleep 1000"));
    bed.block_on(async {
        let sandbox = bed.runtime.open(spec).await.unwrap();
        let (send, up) = oneshot::channel();
        let mut send = Some(send);
        let sink = Box::new(move |_, _: &[u8]| {
            if let Some(send) = send.take() {
                send.send(()).unwrap();
            }
        });
        let (_keep, cancel) = oneshot::channel();
        tokio::select! {
            report = sandbox.run(process, Some(sink), cancel) => panic!("{report:?}"),
            up = up => up.unwrap(),
        }
    });
    bed.block_on(bed.runtime.drain());
    bed.restart();
    let left = bed.runtime.left_behind();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        (left[0].execution, left[0].ended_by),
        (Some(id.0), EndedBy::ServerGone)
    );
    assert!(left[0].measured.cpu_us > 0, "{left:?}");
    bed.runtime.forget(id);
}

fn shim_dies(bed: &mut Bed) {
    let spec = bed.spec(limits());
    let id = spec.id;
    let process = bed.process(id, &Run::shell("echo up; exec sleep 1000"));
    let launcher = bed.launcher;
    let report = bed.block_on(async {
        let sandbox = bed.runtime.open(spec).await.unwrap();
        let sink = Box::new(move |_, _: &[u8]| {
            for shim in children(launcher) {
                kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
            }
        });
        let (_keep, cancel) = oneshot::channel();
        sandbox.run(process, Some(sink), cancel).await
    });
    assert_eq!(
        (report.outcome, text(&report.stdout).as_str()),
        (Outcome::Lost, "up\n")
    );
    assert!(report.measured.cpu_us > 0, "{:?}", report.measured);
    bed.runtime.forget(id);
    assert_eq!(
        bed.run(&Run::shell("exit 5")).outcome,
        Outcome::Exited { code: 5 }
    );
}

fn launcher_dies(bed: &mut Bed) {
    assert!(bed.runtime.healthy());
    kill(Pid::from_raw(bed.launcher), Signal::SIGKILL).unwrap();
    let spec = bed.spec(limits());
    let error = bed.block_on(bed.runtime.open(spec)).unwrap_err();
    assert!(matches!(error, StartError::LauncherGone), "{error:?}");
    assert!(!bed.runtime.healthy());
    // The next launcher takes over what this one has left.
    bed.restart();
    assert_eq!(
        bed.run(&Run::shell("exit 6")).outcome,
        Outcome::Exited { code: 6 }
    );
}
