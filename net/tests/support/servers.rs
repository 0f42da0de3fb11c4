//! Servers that are checked at their end, and the journal of what their handlers were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slipring::{
    Builder, CloseReason, Connections, Counters, Ctx, Handle, Handler, Key, Lease, Luggage, Origin,
    Running, Runtime,
};

use super::{PATIENCE, cores, eventually, now};

/// What a handler was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Open(Origin),
    Eof,
    Writable,
    KeepAlive,
    Close(CloseReason),
    /// Something of the test's own.
    Note(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) reactor: usize,
    pub(crate) key: Key,
    pub(crate) what: What,
}

/// What all handlers of a server were told, in order, and a way to wait for more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    shared: Arc<(Mutex<Vec<Entry>>, Condvar)>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, reactor: usize, key: Key, what: What) {
        self.lock().push(Entry { at: now(), reactor, key, what });
        self.shared.1.notify_all();
    }

    /// A connection was moved: what was noted of it was of the one that it is now.
    fn renamed(&self, from: (usize, Key), (reactor, key): (usize, Key)) {
        for entry in self.lock().iter_mut().filter(|entry| (entry.reactor, entry.key) == from) {
            (entry.reactor, entry.key) = (reactor, key);
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// Waits until the journal answers.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut find: impl FnMut(&[Entry]) -> Option<T>) -> T {
        let end = now() + PATIENCE;
        let mut entries = self.lock();
        loop {
            if let Some(found) = find(&entries) {
                return found;
            }
            let left = end.saturating_duration_since(now());
            assert!(!left.is_zero(), "never seen: {what}; seen: {:?}", Tail(&entries));
            let waited = self.shared.1.wait_timeout(entries, left);
            entries = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the `n`th entry, from zero, of a kind.
    #[track_caller]
    pub(crate) fn nth(&self, n: usize, wanted: impl Fn(What) -> bool, what: &str) -> Entry {
        self.wait(what, |entries| entries.iter().filter(|e| wanted(e.what)).nth(n).copied())
    }

    #[track_caller]
    pub(crate) fn nth_open(&self, n: usize) -> Entry {
        self.nth(n, |what| matches!(what, What::Open(_)), "another open connection")
    }

    /// Waits for the `n`th end, from zero; why it ended.
    #[track_caller]
    pub(crate) fn nth_close(&self, n: usize) -> (Entry, CloseReason) {
        let entry = self.nth(n, |what| matches!(what, What::Close(_)), "another end");
        let What::Close(reason) = entry.what else { unreachable!("just matched") };
        (entry, reason)
    }

    pub(crate) fn count(&self, wanted: impl Fn(What) -> bool) -> usize {
        self.lock().iter().filter(|entry| wanted(entry.what)).count()
    }

    /// Every connection that was opened ended exactly once, and after its opening.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        let mut lives: BTreeMap<(usize, Key), (usize, usize)> = BTreeMap::new();
        for entry in self.lock().iter() {
            let life = lives.entry((entry.reactor, entry.key)).or_default();
            assert_eq!(life.1, 0, "told of {:?} after its end", entry);
            match entry.what {
                What::Open(_) => life.0 += 1,
                What::Close(_) => life.1 += 1,
                _ => {}
            }
        }
        for (key, (opens, closes)) in lives {
            assert!(opens <= 1, "{key:?} was opened {opens} times");
            assert_eq!(closes, 1, "{key:?} ended {closes} times");
        }
    }
}

struct Tail<'a>(&'a [Entry]);

impl std::fmt::Debug for Tail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.0;
        let shown = entries.iter().rev().take(20).rev();
        f.debug_list().entries(shown.map(|e| (e.reactor, e.key, e.what))).finish()
    }
}

/// A handler whose calls are noted before it gets them.
#[derive(Debug)]
pub(crate) struct Logged<H> {
    pub(crate) handler: H,
    pub(crate) journal: Journal,
    pub(crate) reactor: usize,
}

impl<H: Handler> Handler for Logged<H> {
    type State = H::State;

    fn on_start(&mut self, connections: &mut Connections<H::State>) {
        self.handler.on_start(connections);
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, H::State>, origin: Origin) {
        self.journal.note(self.reactor, ctx.key(), What::Open(origin));
        self.handler.on_open(ctx, origin);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, H::State>, data: Lease) {
        assert!(!data.is_empty(), "data without a byte");
        self.handler.on_data(ctx, data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, H::State>) {
        self.journal.note(self.reactor, ctx.key(), What::Eof);
        self.handler.on_eof(ctx);
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, H::State>) {
        self.journal.note(self.reactor, ctx.key(), What::Writable);
        self.handler.on_writable(ctx);
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, H::State>) {
        self.journal.note(self.reactor, ctx.key(), What::KeepAlive);
        self.handler.on_keep_alive(ctx);
    }

    fn on_leave(&mut self, ctx: &mut Ctx<'_, H::State>) -> Option<Luggage> {
        let me = (self.reactor, ctx.key());
        Some(Box::new((me, self.handler.on_leave(ctx)?)))
    }

    fn on_arrive(&mut self, ctx: &mut Ctx<'_, H::State>, luggage: Luggage) {
        let (from, luggage): ((usize, Key), Luggage) = *luggage.downcast().expect("as it left");
        self.journal.renamed(from, (self.reactor, ctx.key()));
        self.handler.on_arrive(ctx, luggage);
    }

    fn on_turn(&mut self, connections: &mut Connections<H::State>) {
        self.handler.on_turn(connections);
    }

    fn next_turn_ms(&self) -> Option<u64> {
        self.handler.next_turn_ms()
    }

    fn is_busy(&self) -> bool {
        self.handler.is_busy()
    }

    fn is_idle(&self, state: &H::State) -> bool {
        self.handler.is_idle(state)
    }

    fn on_end(&mut self, connections: &mut Connections<H::State>) {
        self.handler.on_end(connections);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, H::State>, reason: CloseReason) {
        self.journal.note(self.reactor, ctx.key(), What::Close(reason));
        self.handler.on_close(ctx, reason);
    }
}

/// Sends every byte back.
#[derive(Debug)]
pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

/// An echo that stops, at a byte 0, until it is let go on.
#[derive(Clone)]
pub(crate) struct Halting {
    pub(crate) gate: Arc<Barrier>,
}

impl Handler for Halting {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        if *data == [0] {
            self.gate.wait();
            self.gate.wait();
        }
        ctx.send(data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, ()>) {
        ctx.close();
    }
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A runtime with one reactor and one listener, whose drain is short. Reactors of tests that run side by
/// side stand on different cores.
pub(crate) fn one_reactor() -> Builder {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cores = cores();
    let core = cores[NEXT.fetch_add(1, Ordering::Relaxed) % cores.len()];
    small(Runtime::builder().cores([core]))
}

/// The same with two reactors, on one core if there is only one.
pub(crate) fn two_reactors() -> Builder {
    let cores = cores();
    small(Runtime::builder().cores([cores[0], cores[1 % cores.len()]]))
}

/// Whether this kernel has what direct descriptors take.
pub(crate) fn can_be_direct() -> bool {
    let builder = Runtime::builder().listen(loopback()).max_connections(8).direct_descriptors(true);
    match builder.start(|_| Echo) {
        Ok(running) => {
            running.handle().drain();
            running.join().expect("nobody came");
            true
        }
        Err(slipring::SetupError::DirectDescriptors { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn small(builder: Builder) -> Builder {
    builder.listen(loopback()).max_connections(1024).drain_deadline(Duration::from_secs(2))
}

/// A running server, its journal, and its end.
#[derive(Debug)]
pub(crate) struct Server {
    running: Option<Running>,
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    pub(crate) journal: Journal,
}

impl Server {
    #[track_caller]
    pub(crate) fn start<H: Handler + 'static>(
        builder: Builder,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(builder, Journal::new(), make)
    }

    /// With a journal that the handlers know too.
    #[track_caller]
    pub(crate) fn start_with<H: Handler + 'static>(
        builder: Builder,
        journal: Journal,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Self {
        let log = journal.clone();
        let make = move |reactor| Logged { handler: make(reactor), journal: log.clone(), reactor };
        let running = builder.start(make).expect("the server starts");
        let address = running.addresses().first().copied().unwrap_or_else(loopback);
        Self { handle: running.handle(), address, running: Some(running), journal }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs until it is finished")
    }

    /// The counters of all reactors, summed, as of now or shortly before.
    pub(crate) fn counters(&self) -> Counters {
        sum(&self.handle.counters())
    }

    /// Waits until so many clients were accepted and all connections are over.
    #[track_caller]
    pub(crate) fn wait_until_over(&self, clients: u64) {
        let asked_at: Vec<u64> = self.handle.counters().iter().map(|one| one.turns).collect();
        eventually("all connections are over", || {
            let all = self.handle.counters();
            // A report from before the question tells nothing.
            let fresh = all.iter().zip(&asked_at).all(|(one, before)| one.turns > *before);
            let sum = sum(&all);
            fresh && sum.accepted >= clients && sum.accepted + sum.dialed == sum.closed
        });
    }

    /// Waits for the end of a drain that somebody ordered; what was counted.
    #[track_caller]
    pub(crate) fn join(mut self) -> Counters {
        let running = self.running.take().expect("it runs until it is finished");
        let counters = sum(&running.join().expect("no reactor fails"));
        assert_eq!(counters.accepted + counters.dialed, counters.closed, "a connection is lost");
        self.journal.assert_whole();
        counters
    }

    /// Drains it and waits; what was counted.
    #[track_caller]
    pub(crate) fn finish(self) -> Counters {
        self.handle.drain();
        self.join()
    }
}

impl Drop for Server {
    /// A failed test leaves no reactor behind that would disturb the next.
    fn drop(&mut self) {
        self.handle.abort();
    }
}

pub(crate) fn sum(counters: &[Counters]) -> Counters {
    let mut sum = Counters::default();
    for one in counters {
        sum.accepted += one.accepted;
        sum.dialed += one.dialed;
        sum.closed += one.closed;
        sum.bytes_received += one.bytes_received;
        sum.bytes_sent += one.bytes_sent;
        sum.stale_completions += one.stale_completions;
        sum.receives_parked += one.receives_parked;
        sum.handed_over += one.handed_over;
        sum.moved_in += one.moved_in;
        sum.moved_out += one.moved_out;
        sum.moves_given_up += one.moves_given_up;
        sum.stalls += one.stalls;
        sum.stood_in += one.stood_in;
        sum.refused_access += one.refused_access;
        sum.refused_source_full += one.refused_source_full;
        sum.refused_source_rate += one.refused_source_rate;
        sum.taken_over += one.taken_over;
        sum.completions_deferred += one.completions_deferred;
        sum.sends_blocked += one.sends_blocked;
        sum.buffers_spilled += one.buffers_spilled;
        sum.zero_copy_sends += one.zero_copy_sends;
        sum.zero_copy_copied += one.zero_copy_copied;
        sum.accept_errors += one.accept_errors;
        sum.accept_pauses += one.accept_pauses;
        sum.refused_full += one.refused_full;
        sum.evicted += one.evicted;
        sum.evicted_for_others += one.evicted_for_others;
        sum.accepts_paced += one.accepts_paced;
        sum.handler_panics += one.handler_panics;
        sum.phase_timeouts += one.phase_timeouts;
        sum.drain_aborted += one.drain_aborted;
        sum.turns += one.turns;
    }
    sum
}
