//! What handlers and peers know of one another: the ground truth that the simulation is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use slipring_core::{CloseReason, Key, Origin, Timeout};

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

/// A phase of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    /// When it has to have ended; `u64::MAX`: it is over.
    until_ms: u64,
    /// When it began or ended.
    set_ms: u64,
    /// The nearest of the deadlines that were in force in that millisecond, as with the idle timeout.
    least_ms: u64,
    /// It is over with the first byte.
    pub(crate) until_first_byte: bool,
}

impl Phase {
    /// The nearest deadline that was in force in this millisecond, microseconds; `None`: there was none.
    pub(crate) fn least_us(&self, now_ms: u64) -> Option<u64> {
        let until_ms = if self.set_ms == now_ms { self.least_ms } else { self.until_ms };
        until_ms.checked_mul(1_000)
    }

    /// When it has to have ended and how long it was to take, microseconds; `None`: it is over.
    pub(crate) fn until_us(&self) -> Option<(u64, u64)> {
        let until_us = self.until_ms.checked_mul(1_000)?;
        Some((until_us, until_us - self.set_ms * 1_000))
    }
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
    /// Their peers, of those that were asked about.
    addresses: BTreeMap<Party, SocketAddr>,
    /// What those are called now that were moved.
    names: BTreeMap<Party, Party>,
    /// Idle timeouts that handlers set.
    idle: BTreeMap<Party, Idle>,
    /// Phases that connections are or were in.
    pub(crate) phases: BTreeMap<Party, Phase>,
    /// How long accepted connections have for their first byte, milliseconds.
    pub(crate) first_byte_ms: Option<u64>,
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
    pub(crate) fn opened(&mut self, who: Party, origin: Origin, now_ms: u64) {
        if let (Origin::Accepted(_), Some(first_byte_ms)) = (origin, self.first_byte_ms) {
            self.set_phase(who, now_ms, Some(first_byte_ms), true);
        }
        if self.open.insert(who, now_ms).is_some() {
            self.complain(format!("{who:?} was opened twice"));
        }
    }

    /// A handler was told who the peer of a connection is that has just been opened.
    pub(crate) fn told_address(&mut self, who: Party, peer: Option<SocketAddr>) {
        match peer {
            Some(peer) => drop(self.addresses.insert(who, peer)),
            None => self.complain(format!("{who:?} is open, and nobody is at its other end")),
        }
    }

    /// The same at its end: what it was told before, and nothing if it was told nothing, unless it may be known all
    /// the same.
    pub(crate) fn told_last_address(
        &mut self,
        who: Party,
        peer: Option<SocketAddr>,
        may_be_known: bool,
    ) {
        let before = self.addresses.remove(&who);
        if peer != before && !(before.is_none() && may_be_known) {
            self.complain(format!("{who:?}: its peer was {before:?}, and is {peer:?} at its end"));
        }
    }

    /// A connection is another reactor's from now on, under a name of its own.
    pub(crate) fn renamed(&mut self, from: Party, to: Party) {
        if !self.open.contains_key(&from) {
            self.complain(format!("{to:?} arrives, and {from:?} was not open"));
        }
        rename(&mut self.given, from, to);
        rename(&mut self.open, from, to);
        rename(&mut self.idle, from, to);
        rename(&mut self.addresses, from, to);
        rename(&mut self.phases, from, to);
        for set in [&mut self.asked_to_end, &mut self.uncertain] {
            if set.remove(&from) {
                set.insert(to);
            }
        }
        self.names.insert(from, to);
        for talk in &mut self.talks {
            talk.party = talk.party.map(|party| if party == from { to } else { party });
        }
    }

    /// What a connection is called that was called so when the kernel last heard of it.
    pub(crate) fn name_of(&self, mut who: Party) -> Party {
        while let Some(next) = self.names.get(&who).filter(|next| **next != who) {
            who = *next;
        }
        who
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

    /// A phase begins; or, without a time, the one that runs ends.
    pub(crate) fn set_phase(
        &mut self,
        of: Party,
        now_ms: u64,
        ms: Option<u64>,
        until_first_byte: bool,
    ) {
        let until_ms = ms.map_or(u64::MAX, |ms| now_ms + ms);
        let least_ms = match self.phases.get(&of) {
            Some(before) if before.set_ms == now_ms => before.least_ms.min(until_ms),
            Some(before) => before.until_ms.min(until_ms),
            None => until_ms,
        };
        self.phases.insert(of, Phase { until_ms, set_ms: now_ms, least_ms, until_first_byte });
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
        self.phases.remove(&who);
        self.asked_to_end.insert(who);
        let mark = match reason {
            CloseReason::IdleTimeout => Some(Mark::IdleTimeout),
            CloseReason::HalfClosedTimeout => Some(Mark::HalfClosedTimeout),
            CloseReason::WriteStall => Some(Mark::WriteStall),
            CloseReason::PhaseTimeout => Some(Mark::PhaseTimeout),
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

fn rename<T>(map: &mut BTreeMap<Party, T>, from: Party, to: Party) {
    if let Some(value) = map.remove(&from) {
        map.insert(to, value);
    }
}
