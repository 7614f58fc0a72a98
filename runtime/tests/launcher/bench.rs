//! What making and ending a sandbox costs. Not a test: figures go to the one who asks.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

use crate::support::{Bed, make};
use crate::wire::{ToShim, WireImage};

#[expect(clippy::disallowed_methods, reason = "it measures")]
pub(crate) fn run(arguments: &[String]) {
    let number = |index: usize, default: u16| {
        arguments
            .get(index)
            .map_or(default, |text| text.parse().unwrap())
    };
    let (rounds, gap_ms) = (number(0, 50), number(1, 0));
    let bed = Bed::start();
    let (mut ready, mut ended, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        poll(&mut [], PollTimeout::from(gap_ms)).unwrap();
        let mut request = make(1);
        request.sandbox[..2].copy_from_slice(&round.to_be_bytes());
        if number(2, 0) == 0 {
            request.image = WireImage::Empty;
        }
        let start = Instant::now();
        let live = bed.open(&request);
        ready.push(start.elapsed());
        live.go(10_000_000, 10_000_000);
        let start = Instant::now();
        live.finish();
        ended.push(start.elapsed());
        live.tell(ToShim::Settled);
        bed.expect_gone(live.id);
        gone.push(start.elapsed());
    }
    for (name, all) in [
        ("make..ready", ready),
        ("finish..ended", ended),
        ("finish..gone", gone),
    ] {
        println!("{name}: {}", summary(all));
    }
    bed.end();
}

fn summary(mut all: Vec<Duration>) -> String {
    all.sort();
    let at = |part: usize| all.get(all.len() * part / 100).copied().unwrap_or_default();
    format!("min {:?} p50 {:?} p95 {:?}", at(0), at(50), at(95))
}
