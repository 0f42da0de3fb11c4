//! The connections of one reactor, as handlers see them: who there is, what each may be asked.
//!
//! No driver here: asking for something changes machines and marks them *dirty*; the reactor polls the dirty ones for
//! their actions once the turn's completions are dealt with. So a handler can act on any connection, from
//! any callback, and all that it asked for in a turn becomes one submission each.
//!
//! Back-pressure stands here, since it is between connections: `connections/feeders.rs`. In an echo a connection
//! feeds itself. `connections/sending.rs` has what fills outboxes. `connections/stalled.rs` is about readers that do
//! not read, `connections/share.rs` about those whose peers send without end, `connections/tasks.rs` has what handlers
//! need that run tasks, `connections/addresses.rs` what can be asked about the sockets.

mod addresses;
mod feeders;
mod moving;
mod sending;
mod share;
mod stalled;
mod tasks;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::Admission;
use crate::calling::Calling;
use crate::canary::{Canary, sings};
use crate::config::{Dial, Timeout};
use crate::connection::{Connection, Event, Input, Pause, Rules, State, Surroundings};
use crate::counters::Counters;
use crate::error::CloseReason;
use crate::handler::{Origin, Outgoing};
use crate::outbox::Pieces;
use crate::slab::Slab;
use crate::span::Span;
use crate::sys::memory::Memory;
use crate::token::{Descriptor, Key, Op};

pub(crate) use addresses::{ADDRESSES_BYTES, Addresses};
pub(crate) use feeders::Feeders;
pub(crate) use share::Received;
pub(crate) use stalled::forget_the_dead;
pub use tasks::Doorbell;

/// Why a dial was not even begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialRefused {
    /// The process has as many dialed connections as it may.
    #[error("no slot is free for a dialed connection (limit {limit})")]
    Full {
        /// The process's `dialed_max`.
        limit: u32,
    },
    /// All connections of the reactor are being aborted: a new one would only prolong its end.
    #[error("the reactor is ending")]
    Ending,
    /// The address to come from is of another family than the one to go to.
    #[error(
        "cannot dial {to} from {from}: one is IPv4, the other IPv6; choose a source address of its family"
    )]
    Families {
        /// Where it was to go.
        to: SocketAddr,
        /// Where it was to come from.
        from: IpAddr,
    },
}

/// Why bytes were not taken; they come back.
#[derive(Debug)]
pub enum SendRefused {
    /// The connection has ended, or was asked to.
    Ended(Outgoing),
    /// Its outbox may not hold so much, or the reactor not so many owned bytes.
    Full(Outgoing),
}

/// A place of the slab.
#[derive(Debug)]
pub(crate) struct Slot<S> {
    pub(crate) connection: Connection,
    pub(crate) state: S,
    /// Outboxes that this one is held back for.
    pub(crate) held_by: u32,
    pub(crate) origin: Placed,
    /// Bytes and completions of the turn in `share_turn`.
    pub(crate) share_bytes: u32,
    share_receives: u16,
    /// It had much to move lately: counts down with each time that it has little.
    pub(crate) much: u8,
    pub(crate) dirty: bool,
    /// It is dirty, and stands on the list of those with much to move instead of that of the dirty.
    pub(crate) is_large: bool,
    /// Others are held back for its outbox.
    holds_others: bool,
    /// Its later completions of this turn have to wait for its earlier ones.
    pub(crate) deferred: bool,
    /// It stands in the list of the stalled.
    pub(crate) listed: bool,
    share_turn: u32,
}

/// Where a connection came from, compactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    Accepted(u16),
    Dialed,
}

/// Bytes of a slot whose handler keeps an `S`.
pub(crate) fn slot_bytes<S>() -> usize {
    size_of::<Slot<S>>() + size_of::<usize>()
}

/// All connections of one reactor.
#[derive(Debug)]
pub struct Connections<S> {
    pub(crate) slots: Slab<Slot<S>>,
    pub(crate) pieces: Pieces,
    pub(crate) memory: Rc<Memory>,
    pub(crate) rules: Rules,
    /// Connections that may want something.
    pub(crate) dirty: Vec<Key>,
    /// Dials to begin.
    pub(crate) dials: VecDeque<(Key, SocketAddr, Option<IpAddr>)>,
    /// Connections that were blocked at some time since they were last looked at.
    pub(crate) stalled: VecDeque<Key>,
    pub(crate) feeders: Feeders,
    pub(crate) addresses: Addresses,
    pub(crate) counters: Counters,
    now_us: u64,
    now_ms: u64,
    dial_ms: u32,
    admission: Arc<Admission>,
    reactor: usize,
    turn_bytes_max: u32,
    turn_receives_max: u16,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    /// All connections are being aborted.
    pub(crate) ending: bool,
    /// Which callback the reactor is in.
    pub(crate) calling: Arc<Calling>,
}

/// What [`Connections`] is made with beside the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) reactor: usize,
    pub(crate) slots: u32,
    pub(crate) first_generation: u32,
    pub(crate) dial_ms: u32,
    pub(crate) turn_bytes_max: u32,
    pub(crate) turn_receives_max: u32,
}

impl<S: Default + 'static> Connections<S> {
    pub(crate) fn new(
        sizes: Sizes,
        rules: Rules,
        (memory, addresses): (Rc<Memory>, Addresses),
        admission: Arc<Admission>,
    ) -> Self {
        Self {
            slots: Slab::starting_at(sizes.first_generation, sizes.slots),
            pieces: Pieces::new(),
            memory,
            rules,
            dirty: Vec::with_capacity(256),
            dials: VecDeque::new(),
            stalled: VecDeque::new(),
            feeders: Feeders::new(),
            addresses,
            counters: Counters::default(),
            now_us: 0,
            now_ms: 0,
            dial_ms: sizes.dial_ms,
            admission,
            reactor: sizes.reactor,
            turn_bytes_max: sizes.turn_bytes_max,
            turn_receives_max: u16::try_from(sizes.turn_receives_max).unwrap_or(u16::MAX),
            ready: true,
            draining: false,
            ending: false,
            calling: Arc::default(),
        }
    }

    fn slot(connection: Connection, state: S, origin: Placed) -> Slot<S> {
        Slot {
            connection,
            state,
            held_by: 0,
            origin,
            share_bytes: 0,
            share_receives: 0,
            much: 0,
            dirty: false,
            is_large: false,
            holds_others: false,
            deferred: false,
            listed: false,
            share_turn: 0,
        }
    }

    /// Takes an accepted connection in, with `state` as its own; `None` when every slot is taken.
    pub(crate) fn accept(
        &mut self,
        descriptor: Descriptor,
        listener: u16,
        state: S,
    ) -> Option<Key> {
        let now_ms = self.now_ms();
        let rules = &self.rules;
        let key = self.slots.insert_with(|_| {
            let connection = Connection::accepted(descriptor, rules, now_ms);
            Self::slot(connection, state, Placed::Accepted(listener))
        })?;
        self.counters.accepted += 1;
        self.mark_dirty(key);
        Some(key)
    }

    /// Dials `address`, with `state` as the connection's own. The outcome is told by
    /// [`on_open`](crate::Handler::on_open), or by [`on_close`](crate::Handler::on_close) with
    /// [`CloseReason::DialFailed`] or [`CloseReason::DialTimeout`]. Bytes sent before the outcome wait for
    /// it.
    ///
    /// # Errors
    /// [`DialRefused`] when the process has as many dialed connections as it may, or at the very end of a
    /// drain; `state` is dropped.
    pub fn dial(&mut self, address: SocketAddr, state: S) -> Result<Key, DialRefused> {
        self.dial_with(Dial::to(address), state)
    }

    /// [`dial`](Self::dial), from a local address or with a timeout of its own.
    ///
    /// # Errors
    /// [`DialRefused`], also if the addresses of the two ends are of different families; `state` is dropped.
    pub fn dial_with(&mut self, dial: Dial, state: S) -> Result<Key, DialRefused> {
        let Dial { to, from, timeout } = dial;
        if self.ending {
            return Err(DialRefused::Ending);
        }
        if let Some(from) = from.filter(|from| from.is_ipv4() != to.is_ipv4()) {
            return Err(DialRefused::Families { to, from });
        }
        if !self.admission.dial() {
            return Err(DialRefused::Full { limit: self.admission.dialed_cap() });
        }
        let now_ms = self.now_ms();
        let deadline_ms = match timeout.map_or(self.dial_ms, Timeout::to_ms) {
            0 => u64::MAX,
            dial_ms => now_ms + u64::from(dial_ms),
        };
        let rules = &self.rules;
        let make = |_| {
            let connection = Connection::dialing(deadline_ms, rules, now_ms);
            Self::slot(connection, state, Placed::Dialed)
        };
        let key = self.slots.insert_with(make).expect("a slot for every dial the process may make");
        self.counters.dialed += 1;
        self.dials.push_back((key, to, from));
        self.addresses.remember_dialed(key, to);
        self.mark_dirty(key);
        self.list_stalled(key);
        Ok(key)
    }

    /// How long a dial takes at most that says nothing of it: [`Timeouts::dial`](crate::Timeouts::dial).
    #[must_use]
    pub fn dial_timeout(&self) -> Timeout {
        match self.dial_ms {
            0 => Timeout::Never,
            ms => Timeout::After(Duration::from_millis(u64::from(ms))),
        }
    }

    /// Ends the life of a slot.
    pub(crate) fn free(&mut self, key: Key) -> Option<Slot<S>> {
        let slot = self.slots.remove(key)?;
        self.addresses.forget(key);
        if slot.origin == Placed::Dialed && !sings(Canary::DialPlaceLeaked) {
            self.admission.end_dial();
        }
        self.counters.closed += 1;
        Some(slot)
    }
}

impl<S> Connections<S> {
    /// Milliseconds on the reactor's clock, as of this turn.
    #[inline]
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Microseconds on the reactor's clock, as of this turn.
    #[inline]
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// A turn begins.
    pub(crate) fn set_now_us(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.now_ms = now_us / 1000;
    }

    /// Connections there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What the reactor has counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether new clients should come, for handlers that are asked for it. False from the order of a drain on; it may
    /// go on accepting for a while then ([`Builder::not_ready`](crate::Builder::not_ready)).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the runtime is draining: nothing new should be begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// What the handler keeps of a connection; `None` once it is over.
    #[inline]
    pub fn state_of(&mut self, key: Key) -> Option<&mut S> {
        Some(&mut self.slots.get_mut(key)?.state)
    }

    /// Where a connection came from; `None` once it is over.
    #[must_use]
    pub fn origin(&self, key: Key) -> Option<Origin> {
        Some(match self.slots.get(key)?.origin {
            Placed::Accepted(listener) => Origin::Accepted(usize::from(listener)),
            Placed::Dialed => Origin::Dialed,
        })
    }

    /// Bytes that wait in a connection's outbox; zero once it is over.
    #[must_use]
    pub fn outbox_bytes(&self, key: Key) -> u32 {
        self.slots.get(key).map_or(0, |slot| slot.connection.outbox.bytes())
    }

    /// Whether a connection's outbox is above its high watermark: what sends more should wait for
    /// [`on_writable`](crate::Handler::on_writable). False once it ends at once: there is nothing to wait for.
    #[must_use]
    pub fn is_outbox_high(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|slot| {
            let ending = matches!(slot.connection.state(), State::Closing { .. });
            slot.connection.is_high() && !ending
        })
    }

    /// Whether a connection is not read from because an outbox is high that it fed, its own or another's.
    #[must_use]
    pub fn is_held_back(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.held_by > 0)
    }

    /// Whether a connection is not read from because its handler [asked for that](Self::pause_of).
    #[must_use]
    pub fn is_paused(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.connection.is_paused(Pause::Handler))
    }

    /// Closes in order: what waits is sent, our FIN follows, the peer's is waited for (1 s by default),
    /// then the descriptor is closed. No byte is received any more.
    pub fn close_of(&mut self, key: Key) {
        self.ask(key, Input::Close(CloseReason::LocalClosed));
    }

    /// Half-closes: what waits is sent, our FIN follows; receiving goes on.
    pub fn shutdown_of(&mut self, key: Key) {
        self.ask(key, Input::Shutdown);
    }

    /// Ends at once: the peer sees a reset, what waits is dropped.
    pub fn abort_of(&mut self, key: Key) {
        self.ask(key, Input::Abort(CloseReason::Aborted));
    }

    /// Holds the reading of a connection back: see [`Ctx::pause`](crate::Ctx::pause).
    pub fn pause_of(&mut self, key: Key) {
        self.pause_for(key, Pause::Handler);
    }

    pub(crate) fn pause_for(&mut self, key: Key, why: Pause) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.pause(why);
            self.mark_dirty(key);
        }
    }

    /// Lets the reading of a connection go on.
    pub fn resume_of(&mut self, key: Key) {
        self.resume_for(key, Pause::Handler);
    }

    pub(crate) fn resume_for(&mut self, key: Key, why: Pause) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.resume(why);
            self.mark_dirty(key);
        }
    }

    /// Sets the idle timeout of one connection.
    pub fn set_idle_timeout_of(&mut self, key: Key, idle: Timeout) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.set_idle_ms(idle.to_ms());
            self.mark_dirty(key);
        }
    }

    /// Asks for keep-alive calls for one connection.
    pub fn set_keep_alive_of(&mut self, key: Key, quiet: Timeout) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.set_keep_alive_ms(quiet.to_ms());
            self.mark_dirty(key);
        }
    }

    /// A phase of one connection begins, which has to end within this time: see
    /// [`Ctx::set_phase_deadline`](crate::Ctx::set_phase_deadline).
    pub fn set_phase_deadline_of(&mut self, key: Key, within: Timeout) {
        let now_ms = self.now_ms();
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.set_phase_ms(within.to_ms(), now_ms);
            self.mark_dirty(key);
        }
    }

    /// The phase of one connection is over, if one runs.
    pub fn end_phase_of(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.end_phase();
        }
    }

    /// Passes a wish of the owner to a machine.
    pub(crate) fn ask(&mut self, key: Key, input: Input) {
        self.handle(key, input);
    }

    /// Passes an input to a machine and marks it dirty; what the owner has to know of it. Releasing held
    /// back readers is seen to here.
    pub(crate) fn handle(&mut self, key: Key, input: Input) -> Event {
        self.handle_if(key, input, |_| true).unwrap_or(Event::None)
    }

    /// [`handle`](Self::handle) for what an activation of an operation ended with; `None` if that is not
    /// awaited.
    #[inline(always)]
    pub(crate) fn handle_end(
        &mut self,
        (op, key, activation): (Op, Key, u8),
        input: Input,
    ) -> Option<Event> {
        self.handle_if(key, input, |connection| connection.expects(op, activation))
    }

    #[inline(always)]
    fn handle_if(
        &mut self,
        key: Key,
        input: Input,
        is_expected: impl FnOnce(&Connection) -> bool,
    ) -> Option<Event> {
        let now_ms = self.now_ms();
        let slot = self.slots.get_mut(key)?;
        if !is_expected(&slot.connection) {
            return None;
        }
        let around = Surroundings {
            pieces: &mut self.pieces,
            release: |span: Span| self.memory.release(span),
            rules: &self.rules,
            now_ms,
        };
        let event = slot.connection.handle(input, around);
        if slot.dirty {
            // What it had to move is of no interest now.
            let ends = matches!(slot.connection.state(), State::Closing { .. });
            if slot.is_large && ends {
                slot.is_large = false;
                self.dirty.push(key);
            }
        } else if !slot.connection.is_settled() {
            slot.dirty = true;
            self.dirty.push(key);
        }
        if slot.holds_others {
            let ended = matches!(slot.connection.state(), State::Closing { .. })
                && !sings(Canary::FeederForgotten);
            if ended || event == Event::Writable {
                self.let_go(key);
            }
        }
        Some(event)
    }

    /// A panic came in the middle of asking the dirty: those before it were asked or put on another list, and who was
    /// put off stands on this one twice.
    #[cold]
    pub(crate) fn forget_the_asked(&mut self) {
        let Self { dirty, slots, .. } = self;
        let mut kept = BTreeSet::new();
        let waits = |key: &Key| slots.get(*key).is_some_and(|slot| slot.dirty && !slot.is_large);
        dirty.retain(|key| waits(key) && kept.insert(*key));
    }

    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key)
            && !slot.dirty
        {
            slot.dirty = true;
            self.dirty.push(key);
        }
    }
}
