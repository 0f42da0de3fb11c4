//! What a peer of a simulation does, step by step: it talks to the handlers under test as a script
//! says.
//!
//! Is: the script ([`Script`]) and how a connection ended for a peer ([`End`]). `peer/player.rs`
//! plays it over the simulated kernel (its answers: `peer/player/answering.rs`), `peer/service.rs` is a listener of
//! scripts, `peer/cast.rs` all of them. Is not: random traffic; runs of seeds of slipring itself have peers of their
//! own ([`swarm`](crate::swarm)).
//!
//! A peer reads in the background, whatever its step is, unless it was told to stop: a script that
//! sends much and expects much does not depend on how much the sockets between hold.

mod cast;
mod player;
mod service;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

pub(crate) use cast::{Cast, Client, SharedCast};
pub(crate) use service::Service;

use crate::sim::story::Excerpt;

/// Names a peer of a [`Sim`](crate::Sim), in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub(crate) u32);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// How a connection ended, as its peer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The handler's side ended its stream in order (FIN), and everything before it was read.
    InOrder,
    /// The handler's side reset it.
    Reset,
    /// It was never connected: nobody listened.
    Refused,
    /// The peer left by itself: [`Script::close`] or [`Script::reset`].
    Left,
}

/// A step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    SendSlowly {
        bytes: Vec<u8>,
        every_us: u64,
    },
    Expect(Vec<u8>),
    Read(usize),
    ReadToEnd,
    ExpectEnd,
    ExpectReset,
    ExpectGone,
    ExpectRefused,
    ExpectSilence(u64),
    /// Once, or until the other side's stream ends.
    Answer {
        answers: Answers,
        to_end: bool,
    },
    Pause(u64),
    StopReading,
    Shutdown,
    Close,
    Reset,
}

/// What a test says to bytes that came: how many of them it takes, and what it sends.
pub(crate) type Answer = dyn FnMut(&[u8]) -> Option<(usize, Vec<u8>)>;

/// The same, as the clones of a script share it.
#[derive(Clone)]
pub(crate) struct Answers(Rc<RefCell<Answer>>);

impl Answers {
    pub(crate) fn ask(&self, unread: &[u8]) -> Option<(usize, Vec<u8>)> {
        (self.0.borrow_mut())(unread)
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Closures are equal to themselves.
impl PartialEq for Answers {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Answers {}

impl Step {
    /// Whether it waits for bytes, or for their end.
    pub(crate) fn reads(&self) -> bool {
        matches!(
            self,
            Self::Expect(_)
                | Self::Read(_)
                | Self::ReadToEnd
                | Self::ExpectEnd
                | Self::ExpectReset
                | Self::ExpectGone
                | Self::ExpectSilence(_)
                | Self::Answer { .. }
        )
    }

    /// Whether it means nothing to a connection that takes no more bytes.
    pub(crate) fn is_idle_once_broken(&self) -> bool {
        matches!(
            self,
            Self::Send(_)
                | Self::SendSlowly { .. }
                | Self::Pause(_)
                | Self::StopReading
                | Self::Shutdown
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: &u64| *us as f64 / 1000.0;
        match self {
            Self::Send(bytes) => write!(f, "send {}", Excerpt::of(bytes)),
            Self::SendSlowly { bytes, every_us } => {
                write!(f, "send {}, a byte each {} ms", Excerpt::of(bytes), ms(every_us))
            }
            Self::Expect(bytes) => write!(f, "expect {}", Excerpt::of(bytes)),
            Self::Read(count) => write!(f, "read {count} bytes"),
            Self::ReadToEnd => f.write_str("read to the end"),
            Self::ExpectEnd => f.write_str("expect the end of the stream"),
            Self::ExpectReset => f.write_str("expect a reset"),
            Self::ExpectGone => f.write_str("expect the end, or a reset"),
            Self::ExpectRefused => f.write_str("expect to be refused"),
            Self::ExpectSilence(us) => write!(f, "expect no byte for {} ms", ms(us)),
            Self::Answer { to_end: false, .. } => f.write_str("answer what comes"),
            Self::Answer { to_end: true, .. } => f.write_str("answer all that comes"),
            Self::Pause(us) => write!(f, "pause for {} ms", ms(us)),
            Self::StopReading => f.write_str("stop reading"),
            Self::Shutdown => f.write_str("shut down"),
            Self::Close => f.write_str("close"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// What a peer does, in order. It connects first; a script without steps is through once it has.
///
/// A step that can never be met fails the run, and says what was expected, what came, and when.
/// Times are virtual.
///
/// After its last step a peer stays, and reads, so that [`Sim::received`](crate::Sim::received)
/// shows whatever else comes; it leaves once the other side has ended. Bytes that no step asked for
/// are no failure, but to [`expect_end`](Self::expect_end) and
/// [`expect_silence`](Self::expect_silence).
///
/// ```
/// use std::time::Duration;
/// use slipring_sim::Script;
///
/// let script = Script::new()
///     .send(b"GET key\n")
///     .expect(b"value\n")
///     .pause(Duration::from_secs(2))
///     .send_slowly(b"QUIT\n", Duration::from_millis(50))
///     .shutdown()
///     .expect_end();
/// assert_eq!(script.len(), 6);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    steps: Vec<Step>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2)
}

impl Script {
    /// A script that only connects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many steps it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it only connects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    #[track_caller]
    fn then(mut self, step: Step) -> Self {
        let gone = matches!(self.steps.last(), Some(Step::Close | Step::Reset));
        assert!(!gone, "a script that goes on after its peer has left: {step}");
        let sends = matches!(
            step,
            Step::Send(_) | Step::SendSlowly { .. } | Step::Answer { .. } | Step::Shutdown
        );
        let shut = self.steps.contains(&Step::Shutdown);
        assert!(!(sends && shut), "a script that sends after its shutdown: {step}");
        self.steps.push(step);
        self
    }

    /// Sends these bytes: as fast as the connection takes them, and cut into whatever pieces the
    /// network makes of them. Fails if the connection breaks before it took them all, unless what
    /// follows expects an end.
    ///
    /// # Panics
    /// As all steps that send: after [`shutdown`](Self::shutdown). As all steps: after
    /// [`close`](Self::close) and [`reset`](Self::reset).
    #[must_use]
    #[track_caller]
    pub fn send(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Send(bytes.into()))
    }

    /// Sends these bytes one by one, with a pause of `every` between two.
    #[must_use]
    #[track_caller]
    pub fn send_slowly(self, bytes: impl Into<Vec<u8>>, every: Duration) -> Self {
        self.then(Step::SendSlowly { bytes: bytes.into(), every_us: micros(every) })
    }

    /// Waits for exactly these bytes. Fails at the first that differs, and when the connection ends
    /// before.
    #[must_use]
    #[track_caller]
    pub fn expect(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Expect(bytes.into()))
    }

    /// Waits for so many bytes, whatever they are: [`Sim::received`](crate::Sim::received) has
    /// them.
    #[must_use]
    #[track_caller]
    pub fn read(self, count: usize) -> Self {
        self.then(Step::Read(count))
    }

    /// Waits for the end of the stream, whatever comes before it. Fails on a reset.
    #[must_use]
    #[track_caller]
    pub fn read_to_end(self) -> Self {
        self.then(Step::ReadToEnd)
    }

    /// Waits for the end of the stream. Fails if a byte comes before it that no step asked for, and
    /// on a reset.
    #[must_use]
    #[track_caller]
    pub fn expect_end(self) -> Self {
        self.then(Step::ExpectEnd)
    }

    /// Waits for a reset, whatever comes before it. Fails if the stream ends in order.
    #[must_use]
    #[track_caller]
    pub fn expect_reset(self) -> Self {
        self.then(Step::ExpectReset)
    }

    /// Waits for the end of the stream or a reset, whatever comes before it. For ends that meet
    /// bytes under way: TCP answers those with a reset.
    #[must_use]
    #[track_caller]
    pub fn expect_gone(self) -> Self {
        self.then(Step::ExpectGone)
    }

    /// Waits for the dial to be refused, because nobody listens: the only step of its script. Fails
    /// once it is connected.
    ///
    /// # Panics
    /// After another step.
    #[must_use]
    #[track_caller]
    pub fn expect_refused(self) -> Self {
        assert!(self.is_empty(), "a script that expects to be refused after something else");
        self.then(Step::ExpectRefused)
    }

    /// Waits for so long, in which no byte comes that no step asked for; an end may.
    #[must_use]
    #[track_caller]
    pub fn expect_silence(self, span: Duration) -> Self {
        self.then(Step::ExpectSilence(micros(span)))
    }

    /// Answers what comes, once: for requests that no script can foresee.
    ///
    /// `answer` is asked whenever more has come, with all bytes that no step has asked for yet. `None`: it
    /// needs more. `Some((taken, reply))`: the first `taken` of them are dealt with, at least one, and
    /// `reply` is sent, as by [`send`](Self::send). What is not taken is left to the next step. Fails if
    /// the connection ends before there was an answer. Clones of a script share the closure.
    ///
    /// ```
    /// use slipring_sim::Script;
    ///
    /// // A client that is challenged: the sum of two digits lets it in.
    /// let script = Script::new()
    ///     .answer(|unread| match unread {
    ///         &[one, two, ..] => Some((2, vec![one - b'0' + two])),
    ///         _ => None,
    ///     })
    ///     .expect(b"welcome");
    /// ```
    #[must_use]
    #[track_caller]
    pub fn answer(self, answer: impl FnMut(&[u8]) -> Option<(usize, Vec<u8>)> + 'static) -> Self {
        self.then(Step::Answer { answers: Answers(Rc::new(RefCell::new(answer))), to_end: false })
    }

    /// Answers all that comes, each request as [`answer`](Self::answer) does, until the other side
    /// ends its stream. Fails if bytes are left that were not taken, and on a reset, unless the next step
    /// expects one.
    ///
    /// [`Sim::run`](crate::Sim::run) does not wait for a service that has answered all that came: handlers
    /// may keep it connected. When the simulation [finishes](crate::Sim::finish) it goes on answering, until
    /// its connections end in whatever way.
    ///
    /// ```
    /// use slipring_sim::Script;
    ///
    /// let shout = Script::new().answer_to_end(|unread| {
    ///     let line = unread.split_inclusive(|byte| *byte == b'\n').next()?;
    ///     line.ends_with(b"\n").then(|| (line.len(), line.to_ascii_uppercase()))
    /// });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn answer_to_end(
        self,
        answer: impl FnMut(&[u8]) -> Option<(usize, Vec<u8>)> + 'static,
    ) -> Self {
        self.then(Step::Answer { answers: Answers(Rc::new(RefCell::new(answer))), to_end: true })
    }

    /// Does nothing for so long, but reads on.
    #[must_use]
    #[track_caller]
    pub fn pause(self, span: Duration) -> Self {
        self.then(Step::Pause(micros(span)))
    }

    /// Reads no more, until a later step waits for bytes or for their end.
    #[must_use]
    #[track_caller]
    pub fn stop_reading(self) -> Self {
        self.then(Step::StopReading)
    }

    /// Ends its own stream (FIN); it can still read.
    #[must_use]
    #[track_caller]
    pub fn shutdown(self) -> Self {
        self.then(Step::Shutdown)
    }

    /// Leaves. As with any socket, the other side sees a reset instead of an end if bytes are left
    /// unread.
    #[must_use]
    #[track_caller]
    pub fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// Leaves with a reset. What it sent before may be lost with it.
    #[must_use]
    #[track_caller]
    pub fn reset(self) -> Self {
        self.then(Step::Reset)
    }
}
