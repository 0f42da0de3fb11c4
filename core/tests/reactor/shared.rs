//! Two reactors under one cap: who holds the room back that another needs is called upon to give it up, the
//! cap is never passed, and no client waits while there is room.

use std::sync::{Arc, Mutex};

use slipring_core::admission::Admission;
use slipring_core::control::Control;
use slipring_core::driver::Abilities;
use slipring_core::reactor::Reactor;
use slipring_core::token::{Descriptor, Op};
use slipring_core::{
    CloseReason, Ctx, Fault, Handler, Lease, Limits, Listen, OnFull, Origin, Placement, Poll, Team,
    Timeouts,
};
use slipring_sim::{Conditions, Scripted, Submitted};

use crate::support::{ignore, limited, stage};

const BACKLOG: u32 = 8;

/// Counts who is there.
#[derive(Default)]
struct Count {
    open: u32,
}

impl Handler for Count {
    type State = ();

    fn on_open(&mut self, _: &mut Ctx<'_, ()>, _: Origin) {
        self.open += 1;
    }

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {}

    fn on_close(&mut self, _: &mut Ctx<'_, ()>, _: CloseReason) {
        self.open -= 1;
    }
}

struct Pair {
    reactors: Vec<Reactor<Scripted, Count>>,
    listeners: Vec<Descriptor>,
    admission: Arc<Admission>,
    control: Arc<Control>,
    rung: Arc<Mutex<Vec<usize>>>,
    cap: u32,
}

impl Pair {
    fn new(cap: u32) -> Self {
        Self::with(cap, None)
    }

    /// With a cap for their listener, of which each has one.
    fn with(cap: u32, listener_max: Option<u32>) -> Self {
        Self::with_on_full(cap, listener_max, OnFull::Backlog)
    }

    /// And what that does when it is full.
    fn with_on_full(cap: u32, listener_max: Option<u32>, on_full: OnFull) -> Self {
        let limits = Limits { accepted_max: cap, backlog: BACKLOG, ..Conditions::default().limits };
        // Each has descriptors of its own here: no client can go to the other.
        let mut how = Listen::new().placement(Placement::Kernel).on_full(on_full);
        how.max_connections = listener_max;
        let team = Team::new((2, &[how]), limits, Timeouts::default(), Poll::Off, 1000);
        let (admission, control) = (Arc::clone(team.admission()), Arc::clone(team.control()));
        let rung = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&rung);
        admission.connect(move |reactor| note.lock().expect("no panic").push(reactor));
        let mut listeners = Vec::new();
        let make = |number| {
            let mut driver = Scripted::new(&limits, Abilities::default());
            let listener = driver.descriptor();
            listeners.push(listener);
            Reactor::new(driver, Count::default(), team.setup(number, vec![listener]))
        };
        let reactors: Vec<_> = (0..2).map(make).collect();
        // They have no other listener.
        let cap = listener_max.map_or(cap, |max| max.min(cap));
        let mut pair = Self { reactors, listeners, admission, control, rung, cap };
        for number in 0..2 {
            pair.reactors[number].start();
            pair.turn(number);
        }
        pair
    }

    /// One pass of one, after which the bells that rang are heard.
    fn turn(&mut self, number: usize) {
        self.reactors[number].turn().expect("the driver does not fail");
        for rung in std::mem::take(&mut *self.rung.lock().expect("no panic")) {
            self.reactors[rung].driver().ring();
        }
        let open: u32 = self.reactors.iter_mut().map(|reactor| reactor.handler().open).sum();
        assert!(open <= self.admission.open(), "served without a permit");
        assert!(self.admission.open() <= self.cap, "the cap was passed");
    }

    fn turn_both(&mut self, times: u32) {
        for _ in 0..times {
            self.turn(0);
            self.turn(1);
        }
    }

    fn has(&mut self, op: Op, number: usize) -> bool {
        let listener = self.listeners[number];
        self.reactors[number].driver().find(op, listener).is_some()
    }

    /// Clients come, and nobody is told yet.
    fn queue(&mut self, clients: [usize; 2]) {
        for (number, clients) in clients.into_iter().enumerate() {
            for _ in 0..clients {
                let listener = self.listeners[number];
                self.reactors[number].driver().queue_client(listener);
            }
        }
    }

    /// Clients that the kernel keeps for each.
    fn queued(&mut self) -> [usize; 2] {
        [0, 1].map(|number| self.reactors[number].driver().queued_clients())
    }

    /// The kernel lets one queued client in, or tells of it, as it was asked to; whether anything happened.
    fn let_in(&mut self, number: usize) -> bool {
        let asked = self.has(Op::AcceptMany, number) || self.has(Op::WatchListener, number);
        let lets_in = asked && self.queued()[number] > 0;
        if lets_in {
            let listener = self.listeners[number];
            self.reactors[number].driver().accept(listener);
        }
        lets_in
    }

    fn clients(&mut self, number: usize) -> Vec<Descriptor> {
        let descriptor = |submitted: &Submitted| match *submitted {
            Submitted::Receive { descriptor, .. } => Some(descriptor),
            _ => None,
        };
        let in_flight = self.reactors[number].driver().in_flight();
        in_flight.filter_map(|operation| descriptor(&operation.submitted)).collect()
    }

    /// Time passes for both, and they settle a few times meanwhile.
    fn pass_ms(&mut self, ms: u64) {
        const STEP_MS: u64 = 50;
        for _ in 0..ms / STEP_MS {
            self.settle();
            for reactor in &mut self.reactors {
                reactor.driver().advance_us(STEP_MS * 1000);
            }
        }
        self.settle();
    }

    /// The peers of all that we have closed end their streams too.
    fn answer_fins(&mut self) {
        for number in 0..2 {
            for client in self.clients(number) {
                let driver = self.reactors[number].driver();
                if driver.is_shut(client) {
                    driver.complete(driver.expect(Op::Receive, client), Ok(0));
                }
            }
        }
        self.settle();
    }

    fn evicted(&self) -> [(u64, u64); 2] {
        [0, 1].map(|number| {
            let counters = self.reactors[number].counters();
            (counters.evicted, counters.evicted_for_others)
        })
    }

    fn leave(&mut self, number: usize, client: Descriptor) {
        let driver = self.reactors[number].driver();
        driver.complete(driver.expect(Op::Receive, client), Err(Fault::Reset));
    }

    /// Until nothing moves.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.turn_both(3);
            let obliged: usize = self.reactors.iter_mut().map(|r| r.driver().oblige()).sum();
            let let_in = (0..2).filter(|&number| self.let_in(number)).count();
            if obliged + let_in == 0 {
                return;
            }
        }
        panic!("the reactors do not come to rest");
    }
}

#[test]
fn a_reactor_gives_up_what_another_needs_until_its_own_next_client() {
    let mut pair = Pair::new(10);
    assert!(pair.has(Op::AcceptMany, 0) && pair.has(Op::WatchListener, 1), "9 and 1 fit 10");
    pair.queue([0, 1]);
    pair.settle();
    assert!(pair.has(Op::AcceptMany, 0) || pair.has(Op::WatchListener, 0));
    // More room than one: the first holds it without using it.
    for open in 2..=4 {
        pair.queue([0, 1]);
        pair.settle();
        assert_eq!((pair.admission.open(), pair.queued()), (open, [0, 0]));
    }
    assert!(!pair.has(Op::AcceptMany, 0), "recalled");
    assert!(pair.has(Op::WatchListener, 0), "and accepting on, one by one");
    for client in pair.clients(1) {
        pair.leave(1, client);
    }
    pair.settle();
    pair.queue([1, 0]);
    pair.settle();
    assert!(pair.has(Op::AcceptMany, 0), "1 + 9 fit again");
    pair.queue([9, 9]);
    pair.settle();
    assert_eq!((pair.admission.open(), pair.queued().iter().sum::<usize>()), (10, 9));
}

#[test]
fn a_listener_gives_up_what_another_of_its_reactor_needs() {
    // A multishot reserves its listener's backlog, and one more: 17.
    let conditions = limited(|limits| limits.accepted_max = 18);
    let mut stage = stage(&Conditions { listeners: 2, ..conditions }, ignore);
    let first = stage.listener();
    assert!(stage.driver().find(Op::AcceptMany, first).is_some());
    let second = stage.driver().in_flight().find(|o| o.op() == Op::WatchListener);
    let second = second.and_then(|watch| watch.submitted.descriptor()).expect("one watches");
    for open in 1..=4 {
        stage.driver().accept(second);
        stage.settle();
        assert_eq!(stage.admission().open(), open);
    }
}

#[test]
fn a_place_that_comes_free_goes_to_the_reactor_that_waits() {
    let mut pair = Pair::new(4);
    pair.queue([4, 1]);
    for _ in 0..20 {
        // Only the first is quick.
        pair.let_in(0);
        pair.turn(0);
    }
    pair.settle();
    assert_eq!((pair.admission.open(), pair.queued()), (4, [0, 1]));
    let client = pair.clients(0)[0];
    pair.leave(0, client);
    pair.settle();
    assert_eq!((pair.admission.open(), pair.queued()), (4, [0, 0]));
    assert_eq!(pair.reactors[1].handler().open, 1);
}

#[test]
fn a_client_gets_the_place_of_one_who_is_idle_on_another_reactor() {
    let mut pair = Pair::with_on_full(2, None, OnFull::EvictIdle);
    pair.queue([2, 0]);
    pair.settle();
    assert_eq!(pair.admission.open(), 2);
    pair.pass_ms(2000);
    pair.queue([0, 1]);
    pair.settle();
    assert_eq!(pair.evicted(), [(1, 1), (0, 0)], "one client costs one connection");
    // Its own reactor waits for the place that is being made, however often it looks.
    pair.pass_ms(500);
    assert_eq!(pair.evicted(), [(1, 1), (0, 0)]);
    pair.answer_fins();
    assert_eq!((pair.admission.open(), pair.queued()), (2, [0, 0]));
    assert_eq!([0, 1].map(|number| pair.reactors[number].handler().open), [1, 1]);
    // And the next one that of its own reactor, or of the other.
    pair.pass_ms(2000);
    pair.queue([0, 1]);
    pair.settle();
    assert_eq!(pair.evicted(), [(1, 1), (1, 0)], "its own first");
    pair.answer_fins();
    assert_eq!((pair.admission.open(), pair.queued()), (2, [0, 0]));
}

#[test]
fn who_becomes_idle_on_another_reactor_makes_room_too() {
    let mut pair = Pair::with_on_full(1, None, OnFull::EvictIdle);
    pair.queue([1, 0]);
    pair.settle();
    pair.queue([0, 1]);
    pair.pass_ms(500);
    assert_eq!((pair.evicted(), pair.queued()), ([(0, 0), (0, 0)], [0, 1]), "nobody is idle yet");
    pair.pass_ms(2000);
    pair.answer_fins();
    assert_eq!((pair.evicted(), pair.queued()), ([(1, 1), (0, 0)], [0, 0]));
}

#[test]
fn who_has_just_said_something_is_not_idle_although_the_ring_came_first() {
    let mut pair = Pair::with_on_full(1, None, OnFull::EvictIdle);
    pair.queue([1, 0]);
    pair.pass_ms(2000);
    pair.queue([0, 1]);
    pair.let_in(1);
    // It asks, and the other is rung; what its client has sent comes together with that.
    pair.turn(1);
    pair.turn(1);
    let client = pair.clients(0)[0];
    pair.reactors[0].driver().receive(client, b"I am here");
    pair.turn(0);
    pair.turn(0);
    assert_eq!(pair.evicted(), [(0, 0), (0, 0)]);
    pair.pass_ms(3000);
    assert_eq!(pair.evicted(), [(1, 1), (0, 0)], "idle by now");
}

#[test]
fn a_place_that_is_had_in_another_way_is_not_made() {
    let mut pair = Pair::with_on_full(1, None, OnFull::EvictIdle);
    pair.queue([1, 0]);
    pair.settle();
    pair.queue([0, 1]);
    pair.settle();
    let client = pair.clients(0)[0];
    pair.leave(0, client);
    pair.settle();
    assert_eq!((pair.admission.open(), pair.queued()), (1, [0, 0]));
    pair.pass_ms(3000);
    assert_eq!(pair.evicted(), [(0, 0), (0, 0)], "it was asked for, and is not any more");
}

#[test]
fn at_its_own_cap_a_listener_takes_of_its_own_on_another_reactor() {
    let mut pair = Pair::with_on_full(40, Some(1), OnFull::EvictIdle);
    pair.queue([1, 0]);
    pair.pass_ms(2000);
    pair.queue([0, 1]);
    pair.settle();
    pair.answer_fins();
    assert_eq!((pair.evicted(), pair.queued()), ([(1, 1), (0, 0)], [0, 0]));
}

#[test]
fn a_reactor_that_stops_asks_for_nothing() {
    let mut pair = Pair::with_on_full(1, None, OnFull::EvictIdle);
    pair.queue([1, 0]);
    pair.settle();
    pair.queue([0, 1]);
    pair.settle();
    // Only the one that asks hears of it.
    pair.control.order_drain();
    pair.reactors[1].driver().ring();
    pair.turn(1);
    pair.pass_ms(3000);
    assert_eq!(pair.evicted(), [(0, 0), (0, 0)]);
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn step(pair: &mut Pair, dice: &mut Dice) {
    let number = dice.below(2);
    match dice.below(12) {
        0..3 if pair.queued()[number] <= BACKLOG as usize => {
            let listener = pair.listeners[number];
            pair.reactors[number].driver().queue_client(listener);
        }
        0..3 => {}
        3..6 => drop(pair.let_in(number)),
        6..9 => pair.turn(number),
        9 => {
            // The cancel's answer before its target's end, or the other way round: as they were pushed.
            pair.reactors[number].driver().oblige();
        }
        10 => {
            let clients = pair.clients(number);
            if !clients.is_empty() {
                let client = clients[dice.below(clients.len())];
                pair.leave(number, client);
            }
        }
        _ => {
            // A client that left before it was let in, or never was.
            let listener = pair.listeners[number];
            let driver = pair.reactors[number].driver();
            if let Some(watch) = driver.find(Op::WatchListener, listener) {
                driver.complete(watch, Ok(1));
            } else if let Some(many) = driver.find(Op::AcceptMany, listener) {
                driver.complete(many, Err(Fault::Reset));
            }
        }
    }
}

#[test]
fn the_cap_is_never_passed_and_no_client_waits_while_there_is_room() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let (cap, listener_max) = (1 + dice.below(30) as u32, 1 + dice.below(30) as u32);
        let mut pair = Pair::with(cap, (seed % 2 == 0).then_some(listener_max));
        for _ in 0..400 {
            step(&mut pair, &mut dice);
        }
        pair.settle();
        let (open, cap) = (pair.admission.open(), pair.cap);
        let waiting = pair.queued().iter().sum::<usize>() as u32;
        assert!(
            open == cap || waiting == 0,
            "seed {seed}: {waiting} wait, {open} of {cap} are open"
        );
        // All go, and all that wait come in.
        for number in 0..2 {
            for client in pair.clients(number) {
                pair.leave(number, client);
            }
        }
        pair.settle();
        assert_eq!(pair.admission.open(), waiting.min(cap), "seed {seed}");
    }
}
