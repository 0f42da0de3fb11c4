//! What handlers and peers know of one another: the ground truth that the simulation is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use slipring_core::{CloseReason, Key, Timeout};

use crate::kernel::FileId;
use crate::marks::{Mark, Marks};
use crate::trace::{Party, Peer};

/// The connection of a key.
pub(crate) fn party(reactor: usize, key: Key) -> Party {
    Party::of(reactor, key)
}

/// What became of a peer's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    #[default]
    Open,
    /// Never connected.
    Refused,
    /// It read the end of the stream.
    Ended,
    /// It was reset.
    Reset,
    /// It left by itself before any of that.
    Left,
}

/// A peer's side of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Talk {
    /// The number of the stream it talks on.
    pub(crate) stream: u64,
    /// Bytes it has sent, and whether its FIN behind them.
    pub(crate) sent: u64,
    pub(crate) fin: bool,
    pub(crate) received: u64,
    pub(crate) fate: Fate,
    /// Whose connection it talked to.
    pub(crate) party: Option<Party>,
    /// The number of the stream it read.
    pub(crate) heard: Option<u32>,
    /// It had to be served in full.
    pub(crate) probe: bool,
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fin = if self.fin { " and FIN" } else { "" };
        write!(f, "{:?}, sent {}{fin}, received {}", self.fate, self.sent, self.received)?;
        match self.party {
            Some(party) => write!(f, ", of {party}"),
            None => f.write_str(", of nobody's connection"),
        }
    }
}

/// An idle timeout that a handler set, and when.
#[derive(Clone, Copy, Debug)]
struct Idle {
    idle_ms: u64,
    set_ms: u64,
    /// The shortest of those that were in force in that millisecond: within a turn a deadline may have
    /// passed before.
    least_ms: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By stream number.
    pub(crate) talks: Vec<Talk>,
    /// Bytes handlers gave to each connection to send, as long as it took any.
    pub(crate) given: BTreeMap<Party, Vec<u8>>,
    /// Connections asked to send no more.
    pub(crate) asked_to_end: BTreeSet<Party>,
    /// Connections that may have refused bytes of those given.
    pub(crate) uncertain: BTreeSet<Party>,
    /// Those that are established, and since when, milliseconds.
    pub(crate) open: BTreeMap<Party, u64>,
    /// Idle timeouts that handlers set.
    idle: BTreeMap<Party, Idle>,
    pub(crate) reasons: BTreeMap<Party, CloseReason>,
    /// What went wrong.
    pub(crate) complaints: Vec<String>,
    /// Letters in the words that were said of ends: a part of what a run was.
    pub(crate) words: u64,
    /// Rare events met by handlers.
    pub(crate) marks: Marks,
    /// Peers behave from now on.
    pub(crate) healed: bool,
}

impl Book {
    /// A number for one more peer, and for the stream that it sends.
    pub(crate) fn add_talk(&mut self, on: FileId) -> u32 {
        self.talks.push(Talk { stream: on.number(), ..Talk::default() });
        self.talks.len() as u32 - 1
    }

    /// Who talked to whom, for a story.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let peer = |talk: &Talk| Peer { stream: talk.stream, party: talk.party };
        self.talks.iter().map(peer).collect()
    }

    pub(crate) fn talk(&mut self, id: u32) -> &mut Talk {
        &mut self.talks[id as usize]
    }

    pub(crate) fn complain(&mut self, what: impl Into<String>) {
        self.complaints.push(what.into());
    }

    /// A handler gave bytes to a connection.
    pub(crate) fn give(&mut self, to: Party, bytes: &[u8]) {
        if !self.asked_to_end.contains(&to) {
            self.given.entry(to).or_default().extend_from_slice(bytes);
        }
    }

    /// A handler was told that a connection is established.
    pub(crate) fn opened(&mut self, who: Party, now_ms: u64) {
        if self.open.insert(who, now_ms).is_some() {
            self.complain(format!("{who:?} was opened twice"));
        }
    }

    /// A handler sets an idle timeout.
    pub(crate) fn set_idle(&mut self, of: Party, now_ms: u64, idle_ms: u64) {
        let before = self.idle.get(&of).copied();
        let least_ms = match before {
            Some(before) if before.set_ms == now_ms => before.least_ms.min(idle_ms),
            Some(before) => before.idle_ms.min(idle_ms),
            None => idle_ms,
        };
        self.idle.insert(of, Idle { idle_ms, set_ms: now_ms, least_ms });
    }

    /// The shortest idle timeout that was in force in this millisecond, if a handler set one beside `usual`.
    pub(crate) fn idle(&self, of: Party, now_ms: u64, usual: Timeout) -> Timeout {
        let Some(idle) = self.idle.get(&of) else { return usual };
        let set = |ms| Timeout::After(Duration::from_millis(ms));
        match usual {
            Timeout::After(usual) if idle.set_ms == now_ms => {
                set(idle.least_ms.min(usual.as_millis() as u64))
            }
            _ if idle.set_ms == now_ms => set(idle.least_ms),
            _ => set(idle.idle_ms),
        }
    }

    /// A handler was told of an end.
    pub(crate) fn closed(&mut self, who: Party, reason: CloseReason) {
        self.open.remove(&who);
        self.idle.remove(&who);
        self.asked_to_end.insert(who);
        let mark = match reason {
            CloseReason::IdleTimeout => Some(Mark::IdleTimeout),
            CloseReason::HalfClosedTimeout => Some(Mark::HalfClosedTimeout),
            CloseReason::WriteStall => Some(Mark::WriteStall),
            CloseReason::OutboxOverflow => Some(Mark::OutboxOverflow),
            CloseReason::DialTimeout => Some(Mark::DialTimedOut),
            _ => None,
        };
        mark.into_iter().for_each(|mark| self.marks.meet(mark));
        self.words += reason.to_string().len() as u64;
        if self.reasons.insert(who, reason).is_some() {
            self.complain(format!("{who:?} was told twice of its end"));
        }
    }
}
