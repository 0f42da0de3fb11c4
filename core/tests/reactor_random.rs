//! The production reactor against a kernel that answers at random, within the contract: whatever the order,
//! bytes leave as they came, nothing is kept, and in the end everything is closed.
//!
//! A case is a list of steps, so that a failure shrinks. The driver checks each push (two sends, a close of
//! what is in use ...); here stand the sums: streams, handler calls, buffers, descriptors, permits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use proptest::prelude::*;
use slipring_core::driver::{Abilities, Driver as _};
use slipring_core::token::{Descriptor, Key, Op, Token};
use slipring_core::{CloseReason, Ctx, Fault, Handler, Lease, Limits, Origin, Timeout};
use slipring_sim::{Conditions, Stage, Submitted};

/// What was asked of and told about each connection.
#[derive(Debug, Default)]
struct Book {
    /// Bytes given to each to send, as long as it took any.
    given: BTreeMap<Key, Vec<u8>>,
    /// Those that were asked to send no more.
    ended: BTreeSet<Key>,
    open: BTreeSet<Key>,
    reasons: BTreeMap<Key, CloseReason>,
    /// Accepted ones, in order.
    keys: Vec<Key>,
}

impl Book {
    fn give(&mut self, to: Key, bytes: &[u8]) {
        if !self.ended.contains(&to) {
            self.given.entry(to).or_default().extend_from_slice(bytes);
        }
    }
}

/// Echoes, or forwards to the neighbour once there is one.
struct Busy {
    book: Rc<RefCell<Book>>,
    forwards: bool,
}

impl Handler for Busy {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, origin: Origin) {
        let mut book = self.book.borrow_mut();
        assert!(book.open.insert(ctx.key()), "opened twice");
        book.keys.push(ctx.key());
        if origin == Origin::Dialed {
            book.give(ctx.key(), b"hello");
            ctx.send("hello");
        }
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        let mut book = self.book.borrow_mut();
        assert!(book.open.contains(&ctx.key()), "bytes of a connection that is not open");
        let place = book.keys.iter().position(|key| *key == ctx.key()).expect("opened");
        let to = match book.keys.get(place ^ 1) {
            Some(&neighbour) if self.forwards => neighbour,
            _ => ctx.key(),
        };
        book.give(to, &data);
        ctx.forward(to, data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, ()>) {
        self.book.borrow_mut().ended.insert(ctx.key());
        ctx.close();
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, ()>, reason: CloseReason) {
        let mut book = self.book.borrow_mut();
        book.open.remove(&ctx.key());
        book.ended.insert(ctx.key());
        assert!(book.reasons.insert(ctx.key(), reason).is_none(), "ended twice");
    }
}

struct World {
    stage: Stage<Busy>,
    book: Rc<RefCell<Book>>,
    /// Which socket is whose; both of one life only, since numbers are not used again.
    keys: BTreeMap<Descriptor, Key>,
    taken: BTreeMap<Key, Vec<u8>>,
    cancelled: BTreeSet<u64>,
    dials: u32,
    filler: u8,
}

type Step = (u8, u16);

fn conditions(zero_copy: bool, receive_cap: bool) -> Conditions {
    let limits = Limits {
        accepted_max: 20,
        dialed_max: 3,
        buffers: 8,
        buffer_bytes: 64,
        submissions: 16,
        backlog: 8,
        outbox_high_bytes: 200,
        outbox_low_bytes: 50,
        outbox_pieces_high: 6,
        turn_bytes_max: 128,
        turn_receives_max: 2,
        zero_copy_min_bytes: Some(40),
        ..Limits::default()
    };
    let abilities = Abilities { receive_cap, zero_copy };
    let mut conditions = Conditions { limits, abilities, ..Conditions::default() };
    conditions.timeouts.idle = Timeout::seconds(20);
    conditions.drain_ms = 5_000;
    conditions
}

impl World {
    fn new(forwards: bool, zero_copy: bool, receive_cap: bool) -> Self {
        let book = Rc::new(RefCell::new(Book::default()));
        let handler = Busy { book: Rc::clone(&book), forwards };
        Self {
            stage: Stage::with(handler, &conditions(zero_copy, receive_cap)),
            book,
            keys: BTreeMap::new(),
            taken: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            dials: 0,
            filler: 0,
        }
    }

    fn step(&mut self, (kind, number): Step) {
        match kind {
            0..12 => self.kernel(number),
            12..22 => {
                self.stage.turn();
            }
            22..24 => self.stage.driver().advance_us(u64::from(number) * 20),
            24 => self.stage.driver().advance_us(u64::from(number) * 400),
            25 => self.stage.driver().set_stuck(number.is_multiple_of(4)),
            26 => self.stage.driver().refuse_sends(u32::from(number % 3)),
            27 => self.notify(number),
            28 => {
                if self.stage.reactor().connections().dial(somewhere(), ()).is_ok() {
                    self.dials += 1;
                }
            }
            _ => self.ask(kind, number),
        }
        self.look();
    }

    /// Something the user wants of some connection.
    fn ask(&mut self, kind: u8, number: u16) {
        let mut book = self.book.borrow_mut();
        let Some(&key) = book.keys.get(usize::from(number) % book.keys.len().max(1)) else {
            return;
        };
        if kind > 32 {
            book.ended.insert(key);
        }
        if kind == 32 {
            book.give(key, &[b'o'; 70]);
        }
        drop(book);
        let connections = self.stage.reactor().connections();
        match kind {
            29 => connections.pause_of(key),
            30 | 31 => connections.resume_of(key),
            32 => connections.send_to(key, vec![b'o'; 70]),
            33 => connections.shutdown_of(key),
            34 => connections.close_of(key),
            _ => connections.abort_of(key),
        }
    }

    /// Some operation in flight is answered, or goes on.
    fn kernel(&mut self, number: u16) {
        let driver = self.stage.driver();
        let count = driver.in_flight().count();
        let Some(operation) = driver.in_flight().nth(usize::from(number) % count.max(1)) else {
            return;
        };
        let (token, submitted) = (operation.token, operation.submitted.clone());
        let choice = number / 64;
        let was_cancelled = self.cancelled.contains(&token.to_bits());
        if was_cancelled && choice.is_multiple_of(2) {
            let zero_copy = matches!(submitted, Submitted::Send { .. });
            assert!(!zero_copy, "sends are not cancelled");
            return driver.complete(token, Err(Fault::Cancelled));
        }
        match submitted {
            Submitted::AcceptMany(listener) => match choice % 12 {
                0 => driver.complete(token, Err(Fault::DescriptorsOfProcess)),
                1 => driver.complete(token, Err(Fault::Reset)),
                2 => {
                    let client = driver.descriptor();
                    driver.complete(token, Ok(client.0));
                }
                _ => drop(driver.accept(listener)),
            },
            Submitted::WatchReadable(listener) => match choice % 8 {
                0 => driver.complete(token, Ok(1)),
                1 => {
                    driver.fail_accept_queued(Fault::DescriptorsOfProcess);
                    driver.accept(listener);
                }
                _ => drop(driver.accept(listener)),
            },
            Submitted::WatchWritable { many: false, .. } => {
                driver.complete(token, Ok((choice % 2).into()));
            }
            Submitted::WatchWritable { many: true, .. } => match choice % 8 {
                0 => driver.complete(token, Ok((choice / 8 % 2).into())),
                _ => driver.complete_with_more(token, Ok((choice / 8 % 2).into())),
            },
            Submitted::Receive { descriptor, .. } => self.bytes(token, descriptor, choice),
            Submitted::Send { bytes, zero_copy, .. } => {
                let length = bytes.len() as u32;
                let result = match choice % 10 {
                    0 => Err(Fault::WouldBlock),
                    1 if choice.is_multiple_of(7) => Err(Fault::Reset),
                    2 if zero_copy => Err(Fault::NoBuffers),
                    3..6 => Ok(1 + u32::from(choice) % length),
                    _ => Ok(length),
                };
                if zero_copy && result.is_ok() {
                    driver.complete_with_more(token, result);
                } else {
                    driver.complete(token, result);
                }
            }
            Submitted::Connect { .. } if choice.is_multiple_of(3) => {
                driver.complete(token, Err(Fault::Refused));
            }
            Submitted::Cancel(target) if choice.is_multiple_of(3) => {
                let waits = driver.in_flight().any(|operation| operation.token == target);
                if waits {
                    driver.complete(target, Err(Fault::Cancelled));
                }
                driver.complete(token, if waits { Ok(0) } else { Err(Fault::NotFound) });
            }
            Submitted::Wake => {}
            _ => driver.complete(token, Ok(0)),
        }
    }

    fn bytes(&mut self, token: Token, descriptor: Descriptor, choice: u16) {
        let driver = self.stage.driver();
        if driver.published() == 0 {
            return driver.complete(token, Err(Fault::NoBuffers));
        }
        match choice % 40 {
            0 => return driver.complete(token, Ok(0)),
            1 => return driver.complete(token, Err(Fault::Reset)),
            _ => {}
        }
        self.filler = self.filler.wrapping_add(1);
        let bytes: Vec<u8> =
            (0..choice % 64 + 1).map(|n| self.filler.wrapping_mul(31) ^ n as u8).collect();
        if choice.is_multiple_of(5) {
            driver.receive_last(descriptor, &bytes);
        } else {
            driver.receive(descriptor, &bytes);
        }
    }

    fn notify(&mut self, number: u16) {
        let tokens = self.stage.driver().awaiting_notification();
        if let Some(&token) = tokens.get(usize::from(number) % tokens.len().max(1)) {
            self.stage.driver().notify(token, number.is_multiple_of(5));
        }
    }

    /// Notes whose socket is whose, and what is cancelled; compares the streams.
    fn look(&mut self) {
        for operation in self.stage.driver().in_flight() {
            let (op, key, _) = operation.token.decode();
            if let Submitted::Cancel(target) = operation.submitted {
                self.cancelled.insert(target.to_bits());
            } else if matches!(op, Op::Receive | Op::Send | Op::Connect)
                && let Some(descriptor) = operation.submitted.descriptor()
            {
                let before = self.keys.insert(descriptor, key);
                assert!(before.is_none_or(|before| before == key), "{descriptor:?} has two owners");
            }
        }
        let book = self.book.borrow();
        for (&descriptor, &key) in &self.keys {
            let taken = self.stage.driver().take_sent(descriptor);
            if !taken.is_empty() {
                let stream = self.taken.entry(key).or_default();
                stream.extend_from_slice(&taken);
                let given = book.given.get(&key).map_or(&[][..], |given| given);
                assert!(
                    given.starts_with(stream),
                    "{key:?}: bytes were lost, twice or in disorder"
                );
            }
        }
    }

    /// The kernel is well again: whoever may be read is read, and clients are let in.
    fn heal(&mut self) {
        self.stage.driver().set_stuck(false);
        self.stage.driver().refuse_sends(0);
        let keys = self.book.borrow().keys.clone();
        for key in keys {
            self.stage.reactor().connections().resume_of(key);
        }
        // At any one moment some may be on their way out.
        let well = (0..100).any(|_| {
            self.answer();
            self.unread().is_none() && self.accepts()
        });
        assert!(well, "{:?} is not read, or nobody accepted, for ever", self.unread());
    }

    /// An open connection that was asked nothing and is not read all the same.
    fn unread(&mut self) -> Option<Key> {
        let book = self.book.borrow();
        let driver = self.stage.driver();
        let receives = driver.in_flight().filter(|operation| operation.op() == Op::Receive);
        let read: BTreeSet<Key> = receives.map(|operation| operation.token.decode().1).collect();
        book.open.difference(&book.ended).find(|key| !read.contains(key)).copied()
    }

    /// Whether clients are let in, if there is room for any.
    fn accepts(&mut self) -> bool {
        let accepts = |op| matches!(op, Op::AcceptMany | Op::WatchListener);
        let accepting = self.stage.driver().in_flight().any(|operation| accepts(operation.op()));
        accepting || self.stage.admission().open() == 20
    }

    /// The kernel answers all that can be answered; if that is nothing, time passes.
    fn answer(&mut self) {
        self.stage.rest();
        for token in self.stage.driver().awaiting_notification() {
            self.stage.driver().notify(token, false);
        }
        // Their cancels were answered first.
        let left: Vec<_> = self.stage.driver().in_flight().map(|o| o.token).collect();
        for token in left.into_iter().filter(|t| self.cancelled.contains(&t.to_bits())) {
            self.stage.driver().complete(token, Err(Fault::Cancelled));
        }
        self.look();
        if self.stage.driver().oblige() == 0 && self.stage.driver().held() == 0 {
            let watches: Vec<_> = self.stage.driver().in_flight().map(|o| o.token).collect();
            for token in watches.into_iter().filter(|token| token.decode().0 == Op::Watch) {
                self.stage.driver().complete(token, Ok(4));
            }
            self.stage.driver().advance_us(100_000);
        }
    }

    /// The process is to end.
    fn end(mut self) {
        self.stage.drain();
        for _ in 0..1000 {
            self.answer();
            if self.stage.is_drained() {
                break;
            }
        }
        self.look();
        let left: Vec<_> = self.stage.driver().in_flight().map(|o| o.submitted.clone()).collect();
        let connections = self.stage.reactor().connections().len();
        assert!(self.stage.is_drained(), "{connections} connections, in flight: {left:?}");
        let book = self.book.borrow();
        assert!(book.open.is_empty(), "never told of their end: {:?}", book.open);
        let counters = self.stage.counters();
        assert_eq!((counters.handler_panics, counters.stale_completions), (0, 0));
        assert_eq!(counters.closed, counters.accepted + counters.dialed);
        assert_eq!(counters.closed, book.reasons.len() as u64);
        assert_eq!(counters.dialed, u64::from(self.dials));
        let never_accepted = self.stage.driver().queued_clients();
        assert_eq!(self.stage.driver().open_descriptors(), never_accepted);
        assert_eq!(self.stage.admission().open(), 0);
        let memory = Rc::clone(self.stage.driver().memory());
        assert_eq!((memory.buffers_free(), memory.owned_bytes()), (memory.buffers(), 0));
        for (key, given) in &book.given {
            let orderly = matches!(
                book.reasons[key],
                CloseReason::PeerClosed | CloseReason::LocalClosed | CloseReason::Drained
            );
            let taken = self.taken.get(key).map_or(&[][..], |taken| taken);
            assert!(!orderly || taken == given, "{key:?} ended in order, {given:?} != {taken:?}");
        }
    }
}

fn somewhere() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 80))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_kernel_within_the_contract_is_survived(
        modes in any::<(bool, bool, bool)>(),
        steps in prop::collection::vec((0..36_u8, any::<u16>()), 1..500),
    ) {
        let (forwards, zero_copy, receive_cap) = modes;
        let mut world = World::new(forwards, zero_copy, receive_cap);
        for step in steps {
            world.step(step);
        }
        world.heal();
        world.end();
    }
}
