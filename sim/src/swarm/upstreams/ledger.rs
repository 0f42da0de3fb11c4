//! What requesters and servers have seen, and what they must not see: one for all of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slipring::upstream::UpstreamSnapshot;

use super::standing::Seen;

/// The run's ledger. Tasks cross into their reactors as closures, so it can be sent; all of a run is one thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Arc<Mutex<Pages>>);

/// A request, by its number: what goes over one connection at a time, or over several one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// How often a server may read it.
    most: u32,
    read: u32,
    /// Something of an answer has come, on whichever connection.
    pub(super) is_heard: bool,
    /// Something is being done for it on a connection, by an attempt that began then.
    pub(super) acts_since_us: Option<u64>,
}

/// What it holds.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) complaints: Vec<String>,
    pub(super) requests: Vec<Request>,
    /// Who waits for an answer of ours, and until when that has to be there.
    waits: BTreeMap<u64, (u64, String)>,
    next_wait: u64,
    /// None of them is due before.
    due_from_us: u64,
    /// By a connection's own address, the request that uses it.
    in_use: BTreeMap<SocketAddr, u64>,
    /// By a connection's own address, since when it is of no use to anybody, as its reactor can know.
    pub(super) unfit_us: BTreeMap<SocketAddr, u64>,
    /// The own addresses of connections that calls have had.
    served: BTreeSet<SocketAddr>,
    /// When requests began, and were repeated, by reactor.
    pub(super) firsts: Vec<(u64, usize)>,
    pub(super) repeats: Vec<(u64, usize)>,
    /// What calls came to, of those whose requesters know; how much there was that went well, of all requests; and
    /// whether there is anything new.
    pub(super) seen: Vec<Seen>,
    pub(super) well: u64,
    pub(super) has_news: bool,
    /// Connects and checkouts that have no connection yet; and those of the pool that is alone, by reactor.
    pub(super) pending: usize,
    pub(super) of_pool: BTreeMap<usize, usize>,
    pub(super) is_healed: bool,
    /// The breaker has opened, as far as anybody has looked.
    pub(super) has_opened: bool,
    pub(super) requesters: usize,
    pub(super) panics: u64,
    pub(super) snapshots: Vec<Option<UpstreamSnapshot>>,
    /// What came of requests, by what it was.
    pub(super) came_to: BTreeMap<String, u64>,
}

impl Ledger {
    pub(super) fn open(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has to have come to something by then; as long as what this gives is there.
    pub(super) fn due(&self, at_us: u64, who: impl Into<String>) -> Due {
        let mut pages = self.open();
        let number = pages.next_wait;
        pages.next_wait += 1;
        pages.waits.insert(number, (at_us, who.into()));
        pages.due_from_us = pages.due_from_us.min(at_us);
        Due { ledger: self.clone(), number }
    }

    /// A request goes over the connection of this address. `since_us` is when its attempt began.
    pub(super) fn begin(&self, number: u64, at: Option<SocketAddr>, since_us: u64) -> InUse {
        let mut pages = self.open();
        pages.requests[number as usize].acts_since_us = Some(since_us);
        if let Some(at) = at
            && let Some(other) = pages.in_use.insert(at, number)
        {
            pages.complain(format!(
                "the connection of {at} is used by requests {other} and {number} at a time"
            ));
        }
        InUse { ledger: self.clone(), number, at }
    }
}

/// Waits for a connection, as long as this is there: of the upstream, or of the pool on this reactor.
#[derive(Debug)]
pub(super) struct Waits {
    ledger: Ledger,
    of_pool: Option<usize>,
}

impl Ledger {
    pub(super) fn wait(&self, of_pool: Option<usize>) -> Waits {
        match of_pool {
            Some(reactor) => *self.open().of_pool.entry(reactor).or_default() += 1,
            None => self.open().pending += 1,
        }
        Waits { ledger: self.clone(), of_pool }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut pages = self.ledger.open();
        match self.of_pool {
            Some(reactor) => *pages.of_pool.entry(reactor).or_default() -= 1,
            None => pages.pending -= 1,
        }
    }
}

/// See [`Ledger::due`].
#[derive(Debug)]
pub(super) struct Due {
    ledger: Ledger,
    number: u64,
}

impl Drop for Due {
    fn drop(&mut self) {
        self.ledger.open().waits.remove(&self.number);
    }
}

/// See [`Ledger::begin`].
#[derive(Debug)]
pub(super) struct InUse {
    ledger: Ledger,
    number: u64,
    at: Option<SocketAddr>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut pages = self.ledger.open();
        pages.requests[self.number as usize].acts_since_us = None;
        if let Some(at) = self.at {
            pages.in_use.remove(&at);
        }
    }
}

impl Pages {
    pub(super) fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    /// Somebody who should have had an answer by now, and since when.
    pub(super) fn find_late(&mut self, now_us: u64) -> Option<(u64, String)> {
        if now_us <= self.due_from_us {
            return None;
        }
        let first = self.waits.values().min_by_key(|(due_us, _)| *due_us);
        self.due_from_us = first.map_or(u64::MAX, |(due_us, _)| *due_us);
        first.filter(|(due_us, _)| *due_us < now_us).cloned()
    }

    /// A request that servers may read so often.
    pub(super) fn add(&mut self, most: u32) -> u64 {
        self.requests.push(Request { most, read: 0, is_heard: false, acts_since_us: None });
        self.requests.len() as u64 - 1
    }

    /// A server has read a request, whole.
    pub(super) fn deliver(&mut self, number: u64) {
        let Some(request) = self.requests.get_mut(number as usize) else {
            return self.complain(format!("request {number} came, which nobody made"));
        };
        request.read += 1;
        let Request { most, read, .. } = *request;
        if read > most {
            self.complain(format!("request {number} came {read} times, and may {most} times"));
        }
    }

    /// A call has this connection; whether one has had it before.
    pub(super) fn note_use(&mut self, at: Option<SocketAddr>) -> bool {
        at.is_some_and(|at| !self.served.insert(at))
    }

    /// A call came to this.
    pub(super) fn see(&mut self, seen: Seen) {
        self.well += u64::from(seen.is_well);
        self.seen.push(seen);
        self.has_news = true;
    }

    /// From then on a connection is of no use.
    pub(super) fn note_unfit(&mut self, at: SocketAddr, now_us: u64) {
        self.unfit_us.entry(at).or_insert(now_us);
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        *self.came_to.entry(what.into()).or_default() += 1;
    }
}
