//! The pipes of one execution: input in, output out, head and tail of it kept, none of it ever
//! waited for.

use std::io::{self, PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::{Sleep, sleep, timeout};

use crate::output::{Captured, OutputSink, Stream};

/// How much is read at once: what a pipe holds.
const BUFFER: usize = 64 * 1024;

/// How much input is written at once, whole, for certain: a pipe that nothing was written to has
/// room for so much.
const AT_ONCE: usize = 4096;

/// How long the next read of a stream waits once it has passed the limit. What is dropped costs the
/// platform's time and not the program's, and a crowd that only writes would take all of it: so it
/// gets 32 MB/s of it.
const PAUSE: Duration = Duration::from_millis(2);

/// The process's ends of its pipes.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: PipeReader,
    pub(crate) stdout: PipeWriter,
    pub(crate) stderr: PipeWriter,
}

impl Pipes {
    /// Makes three; must be called within a tokio runtime.
    pub(crate) fn new() -> io::Result<(Pipes, Ends)> {
        let (stdin, near_stdin) = pipe()?;
        let (near_stdout, stdout) = pipe()?;
        let (near_stderr, stderr) = pipe()?;
        // They are the server's own, but what is named /dev/stdin and so on inside is opened again.
        fchmod(stdin.as_raw_fd(), Mode::from_bits_truncate(0o644))?;
        for end in [&stdout, &stderr] {
            fchmod(end.as_raw_fd(), Mode::from_bits_truncate(0o622))?;
        }
        let pipes = Pipes {
            stdin: near_stdin,
            stdout: Receiver::from_owned_fd(OwnedFd::from(near_stdout))?,
            stderr: Receiver::from_owned_fd(OwnedFd::from(near_stderr))?,
        };
        let ends = Ends {
            stdin,
            stdout,
            stderr,
        };
        Ok((pipes, ends))
    }

    /// Writes a byte to the standard input, which has room: little has been written to it yet.
    pub(crate) fn say(&self, byte: u8) -> io::Result<()> {
        (&self.stdin).write_all(&[byte])
    }

    /// The next byte of the standard output, if it is there.
    pub(crate) fn byte_there(&self) -> Option<u8> {
        let mut byte = [0];
        matches!(self.stdout.try_read(&mut byte), Ok(1)).then_some(byte[0])
    }

    /// What has been written to the standard error, and not been read: at most 256 bytes.
    pub(crate) fn complaint(&self) -> String {
        let mut bytes = [0; 256];
        let len = self.stderr.try_read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned()
    }

    /// The next byte of the standard output; none at its end.
    pub(crate) async fn first_byte(&self) -> Option<u8> {
        let mut byte = [0];
        loop {
            self.stdout.readable().await.ok()?;
            match self.stdout.try_read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => return Some(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }
}

/// The server's ends of pipes that are not used yet.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdin: PipeWriter,
    stdout: Receiver,
    stderr: Receiver,
}

/// The server's ends.
pub(super) struct Pump {
    /// Takes all of a short input at the beginning.
    short: Option<PipeWriter>,
    /// Takes a longer one as it is read.
    stdin: Option<Sender>,
    input: Vec<u8>,
    written: usize,
    stdout: Output,
    stderr: Output,
    sink: Option<OutputSink>,
    output_bytes: u64,
    /// Nobody writes any more.
    is_ending: bool,
    buffer: Vec<u8>,
}

struct Output {
    /// `None` after its end.
    pipe: Option<Receiver>,
    captured: Captured,
    /// Until when nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pump {
    /// Moves `input` in, and out what comes; must be called within a tokio runtime.
    pub(super) fn new(
        pipes: Pipes,
        input: Vec<u8>,
        output_bytes: u64,
        sink: Option<OutputSink>,
    ) -> io::Result<Pump> {
        let output = |pipe| Output {
            pipe: Some(pipe),
            captured: Captured::default(),
            pause: None,
        };
        let (short, stdin) = if input.len() <= AT_ONCE {
            fcntl(
                pipes.stdin.as_raw_fd(),
                FcntlArg::F_SETFL(OFlag::O_NONBLOCK),
            )?;
            (Some(pipes.stdin), None)
        } else {
            let near = OwnedFd::from(pipes.stdin);
            (None, Some(Sender::from_owned_fd(near)?))
        };
        Ok(Pump {
            short,
            stdin,
            input,
            written: 0,
            stdout: output(pipes.stdout),
            stderr: output(pipes.stderr),
            sink,
            output_bytes,
            is_ending: false,
            buffer: vec![0; BUFFER],
        })
    }

    /// Gives a short input. The process may begin.
    pub(super) fn begin(&mut self) {
        if let Some(mut near) = self.short.take() {
            // If nobody reads it, that is the process's own business.
            drop(near.write_all(&self.input));
        }
    }

    /// Whether there is anything left to read or write.
    pub(super) fn is_open(&self) -> bool {
        self.stdin.is_some() || self.is_reading()
    }

    fn is_reading(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// Waits for one pipe and moves what it takes or gives; says whether a stream has passed the
    /// limit. Dropping the future loses nothing. Waits forever if nothing is open.
    pub(super) async fn turn(&mut self) -> bool {
        let stream = tokio::select! {
            () = self.stdout.readable() => Some(Stream::Stdout),
            () = self.stderr.readable() => Some(Stream::Stderr),
            () = writable(self.stdin.as_ref()) => None,
        };
        match stream {
            Some(stream) => self.read(stream),
            None => self.write(),
        }
        self.stdout.captured.truncated || self.stderr.captured.truncated
    }

    fn read(&mut self, stream: Stream) {
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(pipe) = &output.pipe else { return };
        match pipe.try_read(&mut self.buffer) {
            Ok(0) => output.pipe = None,
            Ok(len) => {
                let chunk = &self.buffer[..len];
                if let Some(sink) = &mut self.sink {
                    sink(stream, chunk);
                }
                if output.captured.add(chunk, self.output_bytes) && !self.is_ending {
                    output.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => output.pipe = None,
        }
    }

    fn write(&mut self) {
        let Some(pipe) = &self.stdin else { return };
        match pipe.try_write(self.input.get(self.written..).unwrap_or_default()) {
            Ok(len) => self.written += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Nobody reads it: that is the process's own business.
            Err(_) => self.written = self.input.len(),
        }
        if self.written >= self.input.len() {
            self.stdin = None;
        }
    }

    /// Reads what is still in the pipes, until their end or for as long as `limit` after the last
    /// byte.
    pub(super) async fn rest(&mut self, limit: Duration) {
        self.short = None;
        self.stdin = None;
        self.is_ending = true;
        // Nobody writes any more, so that there is at most what two pipes hold; more comes from
        // someone who should not be there.
        let most = self.stdout.captured.total + self.stderr.captured.total + (4 << 20);
        while self.is_reading() && self.stdout.captured.total + self.stderr.captured.total < most {
            if timeout(limit, self.turn()).await.is_err() {
                return;
            }
        }
    }

    pub(super) fn into_captured(self) -> (Captured, Captured) {
        (self.stdout.captured, self.stderr.captured)
    }
}

impl Output {
    async fn readable(&mut self) {
        if let Some(pause) = &mut self.pause {
            pause.await;
            self.pause = None;
        }
        match &self.pipe {
            // An error shows at the read.
            Some(pipe) => drop(pipe.readable().await),
            None => std::future::pending().await,
        }
    }
}

async fn writable(pipe: Option<&Sender>) {
    match pipe {
        Some(pipe) => drop(pipe.writable().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn pump(stdin: &[u8], sink: Option<OutputSink>) -> (Pump, Ends) {
        let (pipes, ends) = Pipes::new().unwrap();
        let mut pump = Pump::new(pipes, stdin.to_vec(), 10, sink).unwrap();
        pump.begin();
        (pump, ends)
    }

    #[tokio::test]
    async fn output_past_the_limit_is_read_counted_and_seen_but_not_kept() {
        let seen = Arc::new(Mutex::new(0));
        let sink: OutputSink = {
            let seen = Arc::clone(&seen);
            Box::new(move |_, bytes| *seen.lock().unwrap() += bytes.len())
        };
        let (mut pump, mut ends) = pump(b"", Some(sink));
        let writer = std::thread::spawn(move || {
            ends.stderr.write_all(b"short").unwrap();
            ends.stdout.write_all(&vec![b'x'; 1_000_000]).unwrap();
        });
        while pump.is_open() {
            pump.turn().await;
        }
        writer.join().unwrap();
        let (stdout, stderr) = pump.into_captured();
        assert_eq!(stdout.bytes, b"xxxxxxxxxx");
        assert_eq!((stdout.truncated, stdout.total), (true, 1_000_000));
        assert_eq!(
            (stderr.bytes.as_slice(), stderr.truncated),
            (b"short".as_slice(), false)
        );
        assert_eq!(*seen.lock().unwrap(), 1_000_005);
    }

    /// Without the pauses the reads would come one after the other.
    #[tokio::test]
    async fn output_past_the_limit_is_read_slowly() {
        let (mut pump, mut ends) = pump(b"", None);
        let clock = crate::clock::Monotonic::start();
        for _ in 0..10 {
            ends.stdout.write_all(&[b'x'; 100]).unwrap();
            pump.turn().await;
        }
        assert_eq!(pump.stdout.captured.total, 1_000);
        assert!(u128::from(clock.now_us()) >= 9 * PAUSE.as_micros());
        pump.is_ending = true;
        ends.stdout.write_all(b"x").unwrap();
        pump.turn().await;
        assert!(pump.stdout.pause.is_none());
    }

    #[tokio::test]
    async fn input_larger_than_a_pipe_is_fed_as_it_is_read() {
        let input: Vec<u8> = (0..500_000)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        let (mut pump, ends) = pump(&input, None);
        let Ends {
            mut stdin,
            stdout,
            stderr,
        } = ends;
        drop((stdout, stderr));
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            stdin.read_to_end(&mut all).unwrap();
            all
        });
        while pump.is_open() {
            pump.turn().await;
        }
        assert_eq!(reader.join().unwrap(), input);
    }

    #[tokio::test]
    async fn a_process_that_reads_no_input_is_not_waited_for() {
        let (mut pump, ends) = pump(&vec![0; 500_000], None);
        drop(ends);
        while pump.is_open() {
            pump.turn().await;
        }
        assert_eq!(pump.into_captured().0.total, 0);
    }

    #[tokio::test]
    async fn a_pipe_that_someone_holds_open_is_given_up_after_the_limit() {
        let (mut pump, mut ends) = pump(b"", None);
        ends.stdout.write_all(b"last").unwrap();
        pump.rest(Duration::from_millis(50)).await;
        assert!(pump.is_open());
        assert_eq!(pump.into_captured().0.bytes, b"last");
        drop(ends);
    }
}
