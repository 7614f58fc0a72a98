//! Callers in a closed loop, all played by one thread: each holds, waits until the hold is durable,
//! settles, waits until the settlement is durable, and begins again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Instant;

use ledger::{Failed, Held, Ledger, Receipt, Rejection, Ticket};

use super::load::{MonthClock, Names, hold, settlement};

/// What a caller waits for.
enum Waits {
    Hold(Ticket<Result<Held, Rejection>>),
    Settle(Ticket<Result<Receipt, Rejection>>),
}

struct Caller {
    number: u64,
    waits: Waits,
    since: Instant,
    waker: Waker,
}

/// Tells the driver that a caller's answer is there. A channel, as a list behind a lock would make
/// the ledger's writer and the driver wait for each other.
struct CallerWaker {
    caller: usize,
    ready: Sender<usize>,
}

impl Wake for CallerWaker {
    fn wake(self: Arc<Self>) {
        self.ready.send(self.caller).unwrap();
    }
}

/// Waiting times of all holds and settlements, in microseconds.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) holds: Vec<u32>,
    pub(crate) settles: Vec<u32>,
    /// The number of the next run.
    pub(crate) next: u64,
}

struct Driver<'a> {
    ledger: &'a Ledger,
    names: Names,
    clock: &'a MonthClock,
    woken: Sender<usize>,
    ready: Receiver<usize>,
    callers: Vec<Caller>,
    next: u64,
    done: Done,
}

/// Lets `callers` settle runs numbered from `first` on for as long as `go_on`, which is told how
/// many are settled, says so; returns when the last one has been settled.
pub(crate) fn drive(
    ledger: &Ledger,
    clock: &MonthClock,
    callers: usize,
    first: u64,
    go_on: impl Fn(usize) -> bool,
) -> Done {
    let (woken, ready) = mpsc::channel();
    let mut driver = Driver {
        ledger,
        names: Names::new(),
        clock,
        woken,
        ready,
        callers: Vec::new(),
        next: first,
        done: Done::default(),
    };
    (0..callers).for_each(|caller| driver.begin(caller));
    driver.drive(go_on);
    driver.done.next = driver.next;
    driver.done
}

impl Driver<'_> {
    fn begin(&mut self, caller: usize) {
        let ready = self.woken.clone();
        let waker = Waker::from(Arc::new(CallerWaker { caller, ready }));
        self.callers.push(Caller {
            number: self.next,
            waits: Waits::Hold(self.ledger.hold(hold(&self.names, self.next)).unwrap()),
            since: Instant::now(),
            waker,
        });
        self.next += 1;
        self.turn(caller, true);
    }

    fn drive(&mut self, go_on: impl Fn(usize) -> bool) {
        let mut open = self.callers.len();
        while open > 0 {
            let caller = self.woken();
            let go_on = go_on(self.done.settles.len());
            open -= usize::from(!self.turn(caller, go_on));
        }
    }

    /// The next caller whose answer is there.
    fn woken(&self) -> usize {
        if let Ok(caller) = self.ready.try_recv() {
            return caller;
        }
        // The ledger answers batch by batch: whoever slept after each answer would be woken for
        // each, which costs more than all the rest.
        thread::yield_now();
        self.ready.recv().unwrap()
    }

    /// Takes a caller as far as it goes without waiting; false once it has ended.
    fn turn(&mut self, index: usize, go_on: bool) -> bool {
        loop {
            let caller = &mut self.callers[index];
            let mut cx = Context::from_waker(&caller.waker);
            let next = match &mut caller.waits {
                Waits::Hold(ticket) => {
                    let Some(_held) = poll(ticket, &mut cx) else {
                        return true;
                    };
                    self.done.holds.push(micros(caller.since));
                    Waits::Settle(self.ledger.settle(settlement(caller.number)).unwrap())
                }
                Waits::Settle(ticket) => {
                    let Some(_receipt) = poll(ticket, &mut cx) else {
                        return true;
                    };
                    self.done.settles.push(micros(caller.since));
                    self.clock.step();
                    if !go_on {
                        return false;
                    }
                    caller.number = self.next;
                    self.next += 1;
                    Waits::Hold(self.ledger.hold(hold(&self.names, caller.number)).unwrap())
                }
            };
            caller.waits = next;
            caller.since = Instant::now();
        }
    }
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn poll<T>(ticket: &mut Ticket<Result<T, Rejection>>, cx: &mut Context<'_>) -> Option<T> {
    let answer: Poll<Result<Result<T, Rejection>, Failed>> = Pin::new(ticket).poll(cx);
    match answer {
        Poll::Pending => None,
        Poll::Ready(answer) => Some(answer.unwrap().unwrap()),
    }
}
