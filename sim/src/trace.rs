//! What happened, as a hash always and as records when somebody wants to read it.
//!
//! The hash is over everything the kernel and the reactors exchange, with its time: two runs of a seed that
//! differ anywhere differ here. Records cost memory; a run that failed is run again to get them.

use std::collections::VecDeque;
use std::fmt;

use slipring_core::token::Token;

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
}

pub(crate) const NO_RING: u16 = u16::MAX;

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

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_us, ring, what, subject, number } = *self;
        write!(f, "{:>12.3} ms  ", at_us as f64 / 1000.0)?;
        if ring != NO_RING {
            write!(f, "reactor {ring}  ")?;
        }
        match what {
            What::Pushed | What::Reaped | What::ReapedMore | What::ReapedNotification => {
                let Some(token) = Token::from_bits(subject) else {
                    return write!(f, "{what:?} of a foreign token {subject:#x}: {number}");
                };
                let (op, key, activation) = token.decode();
                let (index, life) = (key.index(), key.generation());
                match what {
                    What::Pushed => write!(f, "slot {index}/{life}: {op:?} #{activation} pushed")?,
                    What::Reaped => write!(f, "slot {index}/{life}: {op:?} #{activation} ended")?,
                    What::ReapedMore => {
                        write!(f, "slot {index}/{life}: {op:?} #{activation} goes on")?;
                    }
                    _ => write!(f, "slot {index}/{life}: {op:?} #{activation} notified of")?,
                }
                write!(f, ": {number}")
            }
            what => write!(f, "{what:?} {subject}: {number}"),
        }
    }
}
