//! The handlers under test: an echo, the production relay (in `net`), and one that does everything a handler
//! may do, in any order.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slipring_core::sys::memory::Memory;
use slipring_core::{
    CloseReason, Connections, Ctx, Handler, Key, Lease, Luggage, Origin, Outgoing, Timeout,
};

use super::book::{Book, party};
use super::pattern::Reader;
use super::states::Fragile;
use crate::dice::Dice;
use crate::marks::Mark;
use crate::trace::Party;

/// Sends everything back.
#[derive(Debug)]
pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }

    fn on_leave(&mut self, _: &mut Ctx<'_, ()>) -> Option<Luggage> {
        Some(Box::new(()))
    }
}

/// What goes along when an observed connection is moved: its name, and what its handler gives it.
struct Labelled(Party, Luggage);

/// A handler whose connections are written down as they open and close, and that asks about some of them; otherwise as
/// it is.
#[derive(Debug)]
pub(crate) struct Observed<H> {
    pub(crate) handler: H,
    pub(crate) reactor: usize,
    pub(crate) book: Rc<RefCell<Book>>,
}

/// Whether it is asked who the peer of this connection is, and how it goes.
fn is_asked(key: Key) -> bool {
    key.index().wrapping_add(key.generation()).is_multiple_of(3)
}

impl<H: Handler> Observed<H> {
    fn ask_as_it_opens(&self, ctx: &mut Ctx<'_, H::State>, origin: Origin) {
        if is_asked(ctx.key()) || origin == Origin::Dialed {
            let peer = ctx.peer();
            self.book.borrow_mut().told_address(party(self.reactor, ctx.key()), peer);
        }
    }

    fn ask_at_its_end(&self, ctx: &mut Ctx<'_, H::State>, reason: CloseReason) {
        // A dial that fails has an address and was never open, and of a ring that fails descriptors are open still.
        let may_be_known =
            ctx.origin(ctx.key()) == Some(Origin::Dialed) || reason == CloseReason::DriverFailed;
        let peer = ctx.peer();
        let me = party(self.reactor, ctx.key());
        self.book.borrow_mut().told_last_address(me, peer, may_be_known);
    }
}

impl<H: Handler> Handler for Observed<H> {
    type State = H::State;

    fn on_start(&mut self, connections: &mut Connections<Self::State>) {
        self.handler.on_start(connections);
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Self::State>, origin: Origin) {
        self.book.borrow_mut().opened(party(self.reactor, ctx.key()), origin, ctx.now_ms());
        self.ask_as_it_opens(ctx, origin);
        self.handler.on_open(ctx, origin);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, Self::State>, data: Lease) {
        if is_asked(ctx.key()) {
            // Behind direct descriptors these take an enter each.
            let _ = (ctx.local(), ctx.info());
        }
        self.handler.on_data(ctx, data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.handler.on_eof(ctx);
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.handler.on_writable(ctx);
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.handler.on_keep_alive(ctx);
    }

    fn on_leave(&mut self, ctx: &mut Ctx<'_, Self::State>) -> Option<Luggage> {
        let me = party(self.reactor, ctx.key());
        Some(Box::new(Labelled(me, self.handler.on_leave(ctx)?)))
    }

    fn on_arrive(&mut self, ctx: &mut Ctx<'_, Self::State>, luggage: Luggage) {
        let Labelled(from, luggage) = *luggage.downcast().expect("what was given along");
        self.book.borrow_mut().renamed(from, party(self.reactor, ctx.key()));
        self.handler.on_arrive(ctx, luggage);
    }

    fn on_turn(&mut self, connections: &mut Connections<Self::State>) {
        self.handler.on_turn(connections);
    }

    fn on_end(&mut self, connections: &mut Connections<Self::State>) {
        self.handler.on_end(connections);
    }

    fn next_turn_ms(&self) -> Option<u64> {
        self.handler.next_turn_ms()
    }

    fn is_busy(&self) -> bool {
        self.handler.is_busy()
    }

    fn is_idle(&self, state: &Self::State) -> bool {
        self.handler.is_idle(state)
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Self::State>, reason: CloseReason) {
        self.book.borrow_mut().closed(party(self.reactor, ctx.key()), reason);
        self.ask_at_its_end(ctx, reason);
        self.handler.on_close(ctx, reason);
    }
}

/// What [`Busy`] keeps of a connection.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    reader: Reader,
    _fragile: Fragile,
}

/// Does anything that the interface allows, whenever it is called.
#[derive(Debug)]
pub(crate) struct Busy {
    reactor: usize,
    book: Rc<RefCell<Book>>,
    dice: Dice,
    /// Chances in a thousand of a panic.
    panics: u32,
    panics_meant: Rc<Cell<u64>>,
    keys: Vec<Key>,
    kept: VecDeque<Lease>,
    upstreams: Vec<SocketAddr>,
    /// For phases, if it sets any.
    phases: Option<Dice>,
    dials_left: u32,
    /// Everything that comes goes to somebody else.
    forwards: bool,
    /// The latest time it was told.
    seen_ms: u64,
    /// Outboxes that are high, and who fed them since.
    fed: BTreeMap<Key, BTreeSet<Key>>,
}

/// Leases kept at the most: each keeps a buffer.
const KEPT_MAX: usize = 3;

impl Busy {
    pub(crate) fn new(
        reactor: usize,
        book: &Rc<RefCell<Book>>,
        mut dice: Dice,
        panics: (u32, &Rc<Cell<u64>>),
        upstreams: Vec<SocketAddr>,
        phases: Option<Dice>,
    ) -> Self {
        Self {
            reactor,
            book: Rc::clone(book),
            panics: panics.0,
            panics_meant: Rc::clone(panics.1),
            keys: Vec::new(),
            kept: VecDeque::new(),
            upstreams,
            phases,
            dials_left: 12,
            forwards: dice.permille(250),
            seen_ms: 0,
            fed: BTreeMap::new(),
            dice,
        }
    }

    fn may_panic_now(&mut self) -> bool {
        let now = !self.book.borrow().healed && self.dice.permille(self.panics);
        self.panics_meant.set(self.panics_meant.get() + u64::from(now));
        now
    }

    fn may_panic(&mut self) {
        if self.may_panic_now() {
            // As a panic, but for the message that the hook would print.
            std::panic::resume_unwind(Box::new("meant"));
        }
    }

    fn give(&mut self, connections: &mut Connections<Notes>, to: Key, data: Outgoing) {
        let bytes = match &data {
            Outgoing::Lease(lease) => lease.to_vec(),
            Outgoing::Owned(bytes) => bytes.clone(),
            Outgoing::Static(bytes) => bytes.to_vec(),
        };
        if data.is_empty() != bytes.is_empty() || data.len() != bytes.len() {
            self.book.borrow_mut().complain("what is to be sent has two lengths");
        }
        if connections.try_send_to(to, data).is_ok() {
            self.book.borrow_mut().give(party(self.reactor, to), &bytes);
        }
    }

    /// A connection is here no more. With the last one goes what was kept: nobody would give it back.
    fn forget(&mut self, key: Key) {
        self.keys.retain(|other| *other != key);
        if self.keys.is_empty() {
            self.kept.clear();
        }
    }

    fn end(&mut self, to: Key) {
        self.book.borrow_mut().asked_to_end.insert(party(self.reactor, to));
    }

    fn note_idle(&mut self, connections: &Connections<Notes>, of: Key, idle_ms: u64) {
        let of = party(self.reactor, of);
        self.book.borrow_mut().set_idle(of, connections.now_ms(), idle_ms);
    }

    fn somebody(&mut self) -> Option<Key> {
        if self.keys.is_empty() {
            return None;
        }
        let place = self.dice.below(self.keys.len() as u32) as usize;
        Some(self.keys[place])
    }

    /// What is told of every connection agrees with what handlers were told.
    fn look_around(&mut self, connections: &mut Connections<Notes>) {
        let now_ms = connections.now_ms();
        let backwards = now_ms < std::mem::replace(&mut self.seen_ms, now_ms);
        let counters = *connections.counters();
        let open = counters.open();
        let sums = open == u64::from(connections.len()) && connections.is_empty() == (open == 0);
        let Some(key) = self.somebody() else { return };
        let known = connections.state_of(key).is_some() && connections.origin(key).is_some();
        let high = connections.is_outbox_high(key) && connections.outbox_bytes(key) == 0;
        if backwards || !sums || !known || high {
            let who = party(self.reactor, key);
            self.book.borrow_mut().complain(format!(
                "{who:?}: time went back {backwards}, sums {sums}, known {known}, high and empty {high}"
            ));
        }
    }

    /// Something came from this one and was sent to that one.
    fn note_fed(&mut self, connections: &Connections<Notes>, from: Key, to: Key) {
        if connections.is_outbox_high(to) {
            self.fed.entry(to).or_default().insert(from);
        }
    }

    /// Nobody who fed an outbox that is high is read from.
    fn check_fed(&mut self, connections: &mut Connections<Notes>) {
        self.fed.retain(|to, _| connections.is_outbox_high(*to));
        for (to, feeders) in &self.fed {
            let free = |from: &&Key| {
                connections.state_of(**from).is_some() && !connections.is_held_back(**from)
            };
            if let Some(from) = feeders.iter().find(free) {
                let (from, to) = (party(self.reactor, *from), party(self.reactor, *to));
                let text = format!("{from:?}: feeds {to:?}, which is high, and is not held back");
                return self.book.borrow_mut().complain(text);
            }
        }
    }

    /// A phase begins or ends, of the connection that the handler was called for or of another.
    fn act_on_phase(&mut self, ctx: &mut Ctx<'_, Notes>) {
        let (healed, now_ms) = (self.book.borrow().healed, ctx.now_ms());
        let Some(dice) = self.phases.as_mut().filter(|_| !healed) else { return };
        if dice.permille(940) || self.keys.is_empty() {
            return;
        }
        let own = dice.permille(700);
        let other = self.keys[dice.below(self.keys.len() as u32) as usize];
        let key = if own { ctx.key() } else { other };
        let ms = dice.permille(750).then(|| dice.log_between(20, 20_000));
        self.book.borrow_mut().set_phase(party(self.reactor, key), now_ms, ms, false);
        match ms.map(Duration::from_millis) {
            Some(within) if own => ctx.set_phase_deadline(within.into()),
            Some(within) => ctx.set_phase_deadline_of(key, within.into()),
            None if own => ctx.end_phase(),
            None => ctx.end_phase_of(key),
        }
    }

    /// Something to the connection that the handler was called for.
    fn act_on_own(&mut self, ctx: &mut Ctx<'_, Notes>) {
        self.act(ctx);
        self.act_on_phase(ctx);
        if self.book.borrow().healed || self.dice.permille(850) {
            return;
        }
        let key = ctx.key();
        match self.dice.below(12) {
            0 => ctx.pause(),
            1..4 => ctx.resume(),
            4 => {
                let idle_ms = self.dice.log_between(50, 20_000);
                self.note_idle(ctx, key, idle_ms);
                ctx.set_idle_timeout(Duration::from_millis(idle_ms).into());
            }
            5 => {
                let quiet = Duration::from_millis(self.dice.log_between(50, 5_000));
                ctx.set_keep_alive(quiet.into());
            }
            6 => ctx.set_keep_alive(Timeout::Never),
            7 => {
                self.end(key);
                ctx.shutdown();
            }
            8 => {
                self.end(key);
                ctx.close();
            }
            9 if self.dice.permille(300) => {
                self.end(key);
                ctx.abort();
            }
            // Bytes of a store of their own are copied into the reactor's.
            10 => {
                let store = Memory::new(1, 64, 64);
                if let Ok(span) = store.adopt(b"from elsewhere".to_vec()) {
                    self.give(ctx, key, store.lease(span).into());
                }
            }
            _ => self.look_around(ctx),
        }
    }

    /// Something to any connection.
    fn act(&mut self, connections: &mut Connections<Notes>) {
        if self.book.borrow().healed || self.dice.permille(650) {
            return;
        }
        let Some(key) = self.somebody() else { return };
        match self.dice.below(22) {
            0..4 => {
                let count = self.dice.log_between(1, 4000) as usize;
                let fill = self.dice.word() as u8;
                self.give(connections, key, vec![fill; count].into());
            }
            4..6 => self.give(connections, key, b"constant bytes".into()),
            6..8 => connections.pause_of(key),
            8..12 => connections.resume_of(key),
            12 => {
                self.end(key);
                connections.shutdown_of(key);
            }
            13 => {
                self.end(key);
                connections.close_of(key);
            }
            14 if self.dice.permille(400) => {
                self.end(key);
                connections.abort_of(key);
            }
            15 => {
                let idle_ms = self.dice.log_between(1, 20_000);
                self.note_idle(connections, key, idle_ms);
                let idle = Duration::from_millis(idle_ms);
                connections.set_idle_timeout_of(key, Timeout::After(idle));
            }
            16 => {
                let quiet = Duration::from_millis(self.dice.log_between(1, 5_000));
                connections.set_keep_alive_of(key, Timeout::After(quiet));
            }
            17 => self.dial(connections),
            18 => drop(self.kept.pop_front()),
            19 => {
                if let Some(lease) = self.kept.pop_front() {
                    self.give(connections, key, Outgoing::Lease(lease));
                }
            }
            // More than it may hold: its end.
            20 if self.dice.permille(100) => {
                self.end(key);
                connections.send_to(key, vec![0; 2 << 20]);
            }
            _ => {}
        }
    }

    fn dial(&mut self, connections: &mut Connections<Notes>) {
        if self.upstreams.is_empty() || self.dials_left == 0 || connections.is_draining() {
            return;
        }
        self.dials_left -= 1;
        let place = self.dice.below(self.upstreams.len() as u32) as usize;
        let dialed = connections.dial(self.upstreams[place], Notes::default());
        if let Err(refused) = dialed {
            self.book.borrow_mut().words += refused.to_string().len() as u64;
        }
        if let Ok(key) = dialed {
            self.keys.push(key);
            if self.dice.coin() {
                self.give(connections, key, "said before it was connected".into());
            }
            if self.dice.permille(60) {
                self.end(key);
                connections.abort_of(key);
            }
        }
    }

    /// The bytes go somewhere.
    fn route(&mut self, ctx: &mut Ctx<'_, Notes>, mut data: Lease) {
        let from = ctx.key();
        // Some route everything to others, which is what fills their outboxes.
        let choice = if self.forwards { 4 } else { self.dice.below(10) };
        match choice {
            0..4 => self.give(ctx, from, Outgoing::Lease(data)),
            4..6 => {
                let to = self.somebody().unwrap_or(from);
                let target = party(self.reactor, to);
                // Whether it takes them is not told.
                self.book.borrow_mut().uncertain.insert(target);
                self.book.borrow_mut().give(target, &data);
                let before = ctx.outbox_bytes(to);
                ctx.forward(to, data);
                if ctx.outbox_bytes(to) > before {
                    self.note_fed(ctx, from, to);
                }
            }
            6 => {
                let at = self.dice.below(data.len() as u32 + 1) as usize;
                let front = data.split_to(at);
                self.give(ctx, from, Outgoing::Lease(front));
                self.give(ctx, from, Outgoing::Lease(data));
            }
            7 if self.kept.len() < KEPT_MAX => self.kept.push_back(data),
            8 => {
                let copy = data.to_vec();
                drop(data);
                self.give(ctx, from, Outgoing::Owned(copy));
            }
            _ => drop(data),
        }
    }
}

impl Handler for Busy {
    type State = Notes;

    fn on_start(&mut self, connections: &mut Connections<Notes>) {
        // That may panic, too.
        drop(Fragile::default());
        if self.dice.coin() {
            self.dial(connections);
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Notes>, origin: Origin) {
        let key = ctx.key();
        self.book.borrow_mut().opened(party(self.reactor, key), origin, ctx.now_ms());
        if matches!(origin, Origin::Accepted(_)) {
            self.keys.push(key);
        }
        self.may_panic();
        self.act_on_own(ctx);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, Notes>, data: Lease) {
        let me = party(self.reactor, ctx.key());
        if let Err(difference) = ctx.state().reader.take(&data) {
            self.book.borrow_mut().complain(format!("{me:?}: {difference}"));
        }
        if !self.book.borrow().open.contains_key(&me) {
            self.book.borrow_mut().complain(format!("{me:?}: bytes before it was opened"));
        }
        self.route(ctx, data);
        self.check_fed(ctx);
        self.may_panic();
        self.act_on_own(ctx);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Notes>) {
        self.may_panic();
        let healed = self.book.borrow().healed;
        if healed || self.dice.permille(600) {
            let key = ctx.key();
            self.end(key);
            ctx.close();
        }
        self.act_on_own(ctx);
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, Notes>) {
        self.fed.remove(&ctx.key());
        self.may_panic();
        self.act(ctx);
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, Notes>) {
        self.book.borrow_mut().marks.meet(Mark::KeepAlive);
        let key = ctx.key();
        if self.book.borrow().healed {
            ctx.set_keep_alive(Timeout::Never);
        } else {
            self.give(ctx, key, Outgoing::Static(b"still there"));
        }
        self.act(ctx);
    }

    fn on_leave(&mut self, ctx: &mut Ctx<'_, Notes>) -> Option<Luggage> {
        let key = ctx.key();
        self.may_panic();
        if self.dice.permille(100) {
            return None;
        }
        let reader = std::mem::take(&mut ctx.state().reader);
        self.forget(key);
        // It may do something to others, or to this one, which stays then.
        self.act(ctx);
        if self.dice.permille(100) {
            self.give(ctx, key, Outgoing::Static(b"left too early"));
        }
        Some(Box::new((party(self.reactor, key), reader)))
    }

    fn on_arrive(&mut self, ctx: &mut Ctx<'_, Notes>, luggage: Luggage) {
        let key = ctx.key();
        let (from, reader): (Party, Reader) = *luggage.downcast().expect("what was given along");
        let me = party(self.reactor, key);
        if from == me {
            self.book.borrow_mut().marks.meet(Mark::MoveTurnedBack);
        }
        self.book.borrow_mut().renamed(from, me);
        ctx.state().reader = reader;
        self.keys.push(key);
        self.may_panic();
        self.act_on_own(ctx);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Notes>, reason: CloseReason) {
        let key = ctx.key();
        self.forget(key);
        self.book.borrow_mut().closed(party(self.reactor, key), reason);
        self.act(ctx);
        if self.may_panic_now() {
            self.book.borrow_mut().marks.meet(Mark::PanickedAtEnd);
            std::panic::resume_unwind(Box::new("meant"));
        }
    }
}
