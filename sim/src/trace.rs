//! What happened, as a hash always and as records when somebody wants to read it.
//!
//! The hash is over everything the kernel and the reactors exchange, with its time: two runs of a seed that
//! differ anywhere differ here. Records cost memory; a run that failed is run again to get them.
//! `trace/words.rs` puts a record in words, `trace/story.rs` chooses those that are worth reading.

mod story;
mod words;

use std::collections::VecDeque;
use std::fmt;

use slipring_core::token::Key;

pub(crate) use story::{Peer, tell};
pub(crate) use words::duration;

/// Records that are kept of a run: the last ones.
const RECORDS_MAX: usize = 200_000;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) at_us: u64,
    /// The reactor whose ring it is about, or `NO_RING`.
    pub(crate) ring: u16,
    pub(crate) what: What,
    /// The token's bits, or the file's number.
    pub(crate) subject: u64,
    pub(crate) number: i64,
    /// Of a push: the number of the file it is on, or `NO_FILE`. It adds nothing to the hash.
    pub(crate) file: u64,
}

pub(crate) const NO_RING: u16 = u16::MAX;
pub(crate) const NO_FILE: u64 = 0;

/// What a token says of its connection: slot and generation.
const KEY_BITS: u64 = (1 << 52) - 1;

/// A connection of some reactor. Its name in a failure is what makes the story one of that connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Party {
    ring: u16,
    /// Slot and generation, as a token has them.
    key: u64,
}

impl Party {
    /// The one of a token's bits, or of its key's.
    pub(crate) fn new(ring: u16, bits: u64) -> Self {
        Self { ring, key: bits & KEY_BITS }
    }

    /// The one of a key.
    pub(crate) fn of(reactor: usize, key: Key) -> Self {
        Self::new(reactor as u16, u64::from(key.index()) << 32 | u64::from(key.generation()))
    }

    pub(crate) fn ring(self) -> u16 {
        self.ring
    }

    /// Slot and generation, as a token has them.
    pub(crate) fn key_bits(self) -> u64 {
        self.key
    }

    /// The key.
    pub(crate) fn key(self) -> Key {
        Key::new(self.index(), self.generation())
    }

    fn index(self) -> u32 {
        (self.key >> 32) as u32
    }

    fn generation(self) -> u32 {
        self.key as u32
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reactor {} slot {}/{}", self.ring, self.index(), self.generation())
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Kinds of things that happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    /// A submission was pushed; the number is its descriptor.
    Pushed,
    /// A completion was reaped; the number is its result.
    Reaped,
    /// The same, and more will follow.
    ReapedMore,
    /// The same, a notification.
    ReapedNotification,
    /// An enter: submissions taken.
    Entered,
    /// A client came to a listener.
    Queued,
    /// A socket is connected.
    Connected,
    /// Bytes arrived at a socket.
    Arrived,
    /// A FIN arrived at a socket.
    FinArrived,
    /// A reset arrived at a socket.
    ResetArrived,
    /// A socket is gone.
    Released,
    /// A turn of a reactor began.
    Turn,
    /// A handler was told something; the number says what.
    Told,
    /// The run is over; the subject is how many letters it took to say why its connections ended.
    Said,
    /// A peer begins on a stream; the number is the peer's.
    PeerBegins,
    /// A peer leaves a stream; the number is the peer's.
    PeerEnds,
}

/// The hash, and the records if they are wanted.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    records: Option<VecDeque<Record>>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: 0, events: 0, records: keep.then(VecDeque::new) }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Things that happened so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn note(&mut self, record: Record) {
        self.events += 1;
        let head = u64::from(record.ring) << 8 | record.what as u64;
        for word in [head, record.at_us, record.subject, record.number as u64] {
            self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        if let Some(records) = &mut self.records {
            if records.len() == RECORDS_MAX {
                records.pop_front();
            }
            records.push_back(record);
        }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().flatten()
    }
}
