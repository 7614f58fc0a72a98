//! Commands taken from the queue some at a time: what deciding them needs is brought near for all
//! of them at once.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::mpsc::Receiver;
use std::thread;

use super::Command;
use crate::command::HoldRequest;
use crate::record::Run;
use crate::state::{AHEAD, Kind, Known, Located, Near, State};

/// A command that was taken, and is not decided yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) command: Command,
    /// Where a hold's run was counted before, if that is known.
    pub(super) located: Option<Located>,
}

/// At most [`AHEAD`] commands, in the order of the queue.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    waiting: VecDeque<Waiting>,
    /// The stored names of their runs.
    names: Vec<u8>,
}

impl Ahead {
    /// Waits for a command; false if none will come. `many` says that many callers are there.
    pub(super) fn wait(&mut self, commands: &Receiver<Command>, many: bool) -> bool {
        if self.waiting.is_empty() {
            let command = commands.try_recv().or_else(|_none| {
                if many {
                    // To sleep and be woken for each one of their commands, on the CPU of the
                    // thread that sends them, takes longer than deciding it.
                    thread::yield_now();
                }
                commands.recv()
            });
            command.into_iter().for_each(|command| self.add(command));
        }
        !self.waiting.is_empty()
    }

    /// The next command, if there is one.
    pub(super) fn next(
        &mut self,
        commands: &Receiver<Command>,
        state: &State,
        known: &Known,
    ) -> Option<Waiting> {
        // A first one that was waited for is alone.
        if self.waiting.len() <= 1 {
            self.fill(commands, state, known);
        }
        self.waiting.pop_front()
    }

    fn add(&mut self, command: Command) {
        let located = None;
        self.waiting.push_back(Waiting { command, located });
    }

    fn fill(&mut self, commands: &Receiver<Command>, state: &State, known: &Known) {
        while self.waiting.len() < AHEAD
            && let Ok(command) = commands.try_recv()
        {
            self.add(command);
        }
        if self.waiting.len() > 1 {
            self.bring_near(state, known);
        }
    }

    /// See [`State::bring_near`]; what the commands are made of comes first.
    fn bring_near(&mut self, state: &State, known: &Known) {
        let words = self.waiting.iter().map(|one| near(&one.command));
        black_box(words.fold(0, |all, word| all ^ word));
        let words = self.waiting.iter().map(|one| near_texts(&one.command));
        black_box(words.fold(0, |all, word| all ^ word));
        self.locate(known);
        let mut near: [Option<Near<'_>>; AHEAD] = [None; AHEAD];
        for (near, Waiting { command, located }) in near.iter_mut().zip(&self.waiting) {
            *near = match command {
                Command::Hold(holding, _) => {
                    let key = holding.request.key.as_bytes();
                    located.zip(Some(Kind::Hold(key)))
                }
                Command::Settle(settling, _) => {
                    let hold = settling.settlement.hold;
                    state.located(&hold).zip(Some(Kind::Settled(hold)))
                }
                _ => None,
            };
        }
        state.bring_near(&near);
    }

    /// Finds where the runs of holds were counted before.
    fn locate(&mut self, known: &Known) {
        self.names.clear();
        let mut ends = [0; AHEAD];
        for (end, Waiting { command, .. }) in ends.iter_mut().zip(&self.waiting) {
            if let Command::Hold(holding, _) = command {
                Run::of(&holding.request).append(&mut self.names);
            }
            *end = self.names.len();
        }
        let mut sought = [None; AHEAD];
        let mut start = 0;
        for (sought, end) in sought.iter_mut().zip(ends) {
            let names = self.names.get(start..end).filter(|names| !names.is_empty());
            *sought = names.map(|names| known.seek(names));
            start = end;
        }
        let words = sought
            .iter()
            .flatten()
            .map(|sought| known.near(sought.hash));
        black_box(words.fold(0, |all, word| all ^ word));
        for (one, sought) in self.waiting.iter_mut().zip(sought) {
            one.located = sought.and_then(|sought| known.found(sought));
        }
    }
}

/// Words of a command itself, and of where its answer goes.
fn near(command: &Command) -> u64 {
    match command {
        Command::Hold(holding, answer) => {
            let room = holding.room.capacity() ^ holding.request.tags.len();
            near_request(&holding.request) ^ u64::try_from(room).unwrap_or(0) ^ answer.near()
        }
        Command::Settle(settling, answer) => {
            let settlement = &settling.settlement;
            settlement.measured.cpu_us
                ^ u64::from(settlement.estimated)
                ^ u64::from(settling.room.total.0 == 0)
                ^ answer.near()
        }
        Command::Release(..) | Command::Act(..) | Command::Look | Command::Close => 0,
    }
}

fn near_request(request: &HoldRequest) -> u64 {
    let lengths = request.tenant.len() ^ request.image.len();
    u64::from(request.hold.0[0])
        ^ u64::from(request.idempotency.is_some())
        ^ u64::from(request.max_cost.is_some())
        ^ request.ceiling.cpu_ms
        ^ u64::try_from(lengths).unwrap_or(0)
}

/// Words of a command's texts.
fn near_texts(command: &Command) -> u64 {
    let first = |text: &str| u64::from(text.as_bytes().first().copied().unwrap_or(0));
    match command {
        Command::Hold(holding, _) => {
            let request = &holding.request;
            let texts = [
                &request.tenant,
                &request.project,
                &request.key,
                &request.image,
            ];
            let texts = texts.into_iter().chain(&request.function);
            let tags = request.tags.iter().map(|(key, _)| key);
            texts.chain(tags).fold(0, |all, text| all ^ first(text))
        }
        Command::Settle(settling, _) => first(&settling.settlement.outcome),
        Command::Release(..) | Command::Act(..) | Command::Look | Command::Close => 0,
    }
}
