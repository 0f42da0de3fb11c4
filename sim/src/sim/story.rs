//! What handlers were told and what peers did, in words, between what the kernel and the reactors
//! exchanged.
//!
//! Kept as values, the last of them only, and put into words when somebody wants to read them: a
//! run that goes well pays for a few copies.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use slipring_core::{CloseReason, Key, Origin};

use crate::kernel::Kernel;
use crate::peer::{End, PeerId};
use crate::trace::{NO_RING, Party, Record, What};

/// Lines that are kept.
const LINES_MAX: usize = 256;
/// Bytes of an excerpt.
const EXCERPT_MAX: usize = 32;

/// The first of some bytes, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excerpt {
    head: [u8; EXCERPT_MAX],
    length: usize,
}

impl Excerpt {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut head = [0; EXCERPT_MAX];
        let shown = bytes.len().min(EXCERPT_MAX);
        head[..shown].copy_from_slice(&bytes[..shown]);
        Self { head, length: bytes.len() }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.length.min(EXCERPT_MAX);
        let cut = if shown < self.length { "..." } else { "" };
        match self.length {
            0 => f.write_str("nothing"),
            1 => write!(f, "1 byte \"{}\"", self.head[..1].escape_ascii()),
            length => write!(f, "{length} bytes \"{}\"{cut}", self.head[..shown].escape_ascii()),
        }
    }
}

/// What a peer did, or a handler was told.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Dials(SocketAddr),
    Sends(Excerpt),
    Reads(Excerpt),
    ShutsDown,
    Ends(End),
    Started,
    Open(Origin),
    Data(Excerpt),
    Eof,
    Writable,
    KeepAlive,
    Closed(CloseReason),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dials(to) => write!(f, "dials {to}"),
            Self::Sends(bytes) => write!(f, "sends {bytes}"),
            Self::Reads(bytes) => write!(f, "reads {bytes}"),
            Self::ShutsDown => f.write_str("shuts down"),
            Self::Ends(End::InOrder) => f.write_str("reads the end of its stream"),
            Self::Ends(End::Reset) => f.write_str("is reset"),
            Self::Ends(End::Refused) => f.write_str("is refused"),
            Self::Ends(End::Left) => f.write_str("leaves"),
            Self::Started => f.write_str("on_start"),
            Self::Open(origin) => write!(f, "on_open, {origin:?}"),
            Self::Data(bytes) => write!(f, "on_data, {bytes}"),
            Self::Eof => f.write_str("on_eof"),
            Self::Writable => f.write_str("on_writable"),
            Self::KeepAlive => f.write_str("on_keep_alive"),
            Self::Closed(reason) => write!(f, "on_close: {reason}"),
        }
    }
}

impl Said {
    /// For the trace's hash.
    fn number(&self) -> i64 {
        match self {
            Self::Started => 1,
            Self::Open(_) => 2,
            Self::Eof => 3,
            Self::Writable => 4,
            Self::KeepAlive => 5,
            Self::Closed(_) => 6,
            Self::Data(bytes) => 16 + bytes.length as i64,
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Peer(PeerId),
    Handler { reactor: usize, key: Option<Key> },
}

#[derive(Debug)]
struct Line {
    at_us: u64,
    /// Things that had happened in the trace before.
    event: u64,
    who: Who,
    said: Said,
}

impl Line {
    fn words(&self) -> String {
        let who = match self.who {
            Who::Peer(id) => id.to_string(),
            Who::Handler { reactor, key: None } => format!("reactor {reactor}"),
            Who::Handler { reactor, key: Some(key) } => Party::of(reactor, key).to_string(),
        };
        line(self.at_us, &who, &self.said.to_string())
    }
}

/// A line of a report.
fn line(at_us: u64, who: &str, deed: &str) -> String {
    format!("{:>12.3} ms  {who:<20}  {deed}", at_us as f64 / 1000.0)
}

fn words(record: &Record) -> String {
    let name = |file: u64| format!("socket {file}");
    line(record.at_us, &record.who(name), &record.deed(name))
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Story {
    lines: VecDeque<Line>,
    /// Whose clock it has; once there is one.
    kernel: Option<Rc<RefCell<Kernel>>>,
    /// Panics of handlers, in words.
    panics: Vec<String>,
}

/// The story, as everybody has it who adds to it.
pub(crate) type SharedStory = Rc<RefCell<Story>>;

impl Story {
    pub(crate) fn set_kernel(&mut self, kernel: &Rc<RefCell<Kernel>>) {
        self.kernel = Some(Rc::clone(kernel));
    }

    fn add(&mut self, line: Line) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn add_peer(&mut self, at_us: u64, event: u64, peer: PeerId, said: Said) {
        self.add(Line { at_us, event, who: Who::Peer(peer), said });
    }

    /// A handler is told something.
    pub(crate) fn add_told(&mut self, reactor: usize, key: Option<Key>, said: Said) {
        let (mut at_us, mut event) = (0, 0);
        if let Some(kernel) = &self.kernel {
            let mut kernel = kernel.borrow_mut();
            let subject = key
                .map_or(u64::MAX, |key| u64::from(key.generation()) << 32 | u64::from(key.index()));
            kernel.note(What::Told, subject, said.number());
            (at_us, event) = (kernel.now_us, kernel.trace.events());
        }
        self.add(Line { at_us, event, who: Who::Handler { reactor, key }, said });
    }

    /// A handler panicked, in the call that was told last.
    pub(crate) fn add_panic(&mut self, reactor: usize, message: &str) {
        let call = self.lines.back().map_or_else(String::new, |line| line.said.to_string());
        self.panics.push(format!("the handler of reactor {reactor} panicked in {call}: {message}"));
    }

    /// The last panic of a handler.
    pub(crate) fn panic(&self) -> Option<&str> {
        self.panics.last().map(String::as_str)
    }

    /// The last `count` of all that happened, a line each.
    pub(crate) fn last(&self, count: usize) -> Vec<String> {
        let Some(kernel) = &self.kernel else { return Vec::new() };
        let kernel = kernel.borrow();
        // What goes on in the network has numbers that mean nothing to others; its ends are said
        // anyway.
        let telling = |record: &Record| record.ring != NO_RING && record.what != What::Entered;
        let kept = kernel.trace.records().count() as u64;
        let first = kernel.trace.events() - kept;
        let records = kernel.trace.records().zip(first..);
        let told: Vec<_> = records.filter(|(record, _)| telling(record)).collect();
        let tail = &told[told.len().saturating_sub(count)..];
        // Said after so many events: before the record of that number, as a stable sort leaves it.
        let said = self.lines.iter().map(|line| (line.event, line.words()));
        let mut lines: Vec<(u64, String)> =
            said.chain(tail.iter().map(|(record, event)| (*event, words(record)))).collect();
        lines.sort_by_key(|(event, _)| *event);
        let skipped = lines.len().saturating_sub(count);
        lines.into_iter().skip(skipped).map(|(_, line)| line).collect()
    }
}
