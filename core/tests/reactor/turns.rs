//! The handler's own part of a turn: once in each, when it asks for one, and a drain that waits for it.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use slipring_core::calling::{Call, Callback};
use slipring_core::driver::Wait;
use slipring_core::front::Front;
use slipring_core::{Connections, Ctx, Handler, Lease};
use slipring_sim::{Conditions, Stage};

/// What the test decides, and what it has seen.
#[derive(Default)]
struct Seen {
    turns: Cell<u32>,
    next_ms: Cell<Option<u64>>,
    is_busy: Cell<bool>,
    panics: Cell<bool>,
}

struct Turning(Rc<Seen>);

impl Handler for Turning {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }

    fn on_turn(&mut self, _: &mut Connections<()>) {
        self.0.turns.set(self.0.turns.get() + 1);
        assert!(!self.0.panics.get(), "a bug of the user's");
    }

    fn next_turn_ms(&self) -> Option<u64> {
        self.0.next_ms.get()
    }

    fn is_busy(&self) -> bool {
        self.0.is_busy.get()
    }
}

fn turning() -> (Stage<Turning>, Rc<Seen>) {
    let seen = Rc::new(Seen::default());
    let mut stage = Stage::with(Turning(Rc::clone(&seen)), &Conditions::default());
    stage.rest();
    (stage, seen)
}

#[test]
fn it_comes_once_in_every_turn() {
    let (mut stage, seen) = turning();
    let before = (stage.counters().turns, seen.turns.get());
    let client = stage.accept();
    stage.receive(client, b"hello");
    let turns = stage.counters().turns - before.0;
    assert_eq!(u64::from(seen.turns.get() - before.1), turns);
    assert!(turns > 0);
}

#[test]
fn the_wait_before_it_is_as_long_as_it_says() {
    let (mut stage, seen) = turning();
    assert_eq!(stage.reactor().plan_wait().sleep_us, None, "nothing is due");
    let now_ms = stage.reactor().connections().now_ms();
    seen.next_ms.set(Some(now_ms + 7));
    let left_us = (now_ms + 7) * 1000 - stage.reactor().connections().now_us();
    assert_eq!(stage.reactor().plan_wait().sleep_us, Some(left_us));
    seen.next_ms.set(Some(now_ms));
    assert_eq!(stage.reactor().plan_wait(), Wait::NOT);
    // The nearer of the two counts.
    seen.next_ms.set(None);
    stage.accept();
    seen.next_ms.set(Some(u64::MAX / 1000));
    let by_timer = stage.reactor().plan_wait().sleep_us;
    seen.next_ms.set(None);
    assert_eq!(stage.reactor().plan_wait().sleep_us, by_timer);
}

#[test]
fn a_panic_in_it_costs_the_turn_nothing_and_is_not_repeated_in_it() {
    let (mut stage, seen) = turning();
    let client = stage.accept();
    let before = (stage.counters(), seen.turns.get());
    seen.panics.set(true);
    stage.receive(client, b"hello");
    seen.panics.set(false);
    let turns = stage.counters().turns - before.0.turns;
    assert_eq!(stage.sent(client), b"hello");
    assert_eq!(u64::from(seen.turns.get() - before.1), turns);
    assert_eq!(stage.counters().handler_panics, turns);
    assert!(!stage.driver().is_closed(client));
}

#[test]
fn who_looks_meanwhile_sees_it_named() {
    struct Looking(Rc<Cell<Option<Call>>>, Rc<OnceCell<Arc<Front>>>);
    impl Handler for Looking {
        type State = ();
        fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {}
        fn on_turn(&mut self, _: &mut Connections<()>) {
            self.0.set(self.1.get().and_then(|front| front.loads().calling(0).get()));
        }
    }
    let (seen, front) = (Rc::new(Cell::new(None)), Rc::new(OnceCell::new()));
    let mut stage = Stage::new(Looking(Rc::clone(&seen), Rc::clone(&front)));
    front.set(Arc::clone(stage.front())).expect("set once");
    stage.turn();
    assert_eq!(seen.get(), Some(Call { callback: Callback::OnTurn, key: None, task: None }));
    assert_eq!(stage.front().loads().calling(0).get(), None);
}

#[test]
fn a_drain_waits_for_what_it_has_under_way() {
    let (mut stage, seen) = turning();
    seen.is_busy.set(true);
    stage.drain();
    stage.settle();
    assert!(!stage.is_drained(), "it is busy");
    seen.is_busy.set(false);
    assert!(stage.is_drained());
}

#[test]
fn a_drain_does_not_wait_beyond_its_deadline() {
    let (mut stage, seen) = turning();
    seen.is_busy.set(true);
    stage.drain();
    stage.pass_ms(29_000);
    assert!(!stage.is_drained(), "it has a second left");
    stage.pass_ms(1_500);
    assert!(stage.is_drained());
}

#[test]
fn what_waited_for_connections_hears_of_their_end_at_the_deadline() {
    let (mut stage, seen) = turning();
    seen.is_busy.set(true);
    stage.drain();
    stage.pass_ms(29_000);
    // It wants turns at once, and for ever: it has some, and then it is over.
    seen.next_ms.set(Some(0));
    let deadline = stage.reactor().connections().now_ms() + 1_500;
    let mut turns = 0;
    stage.driver().advance_us(1_500_000);
    while !stage.is_drained() {
        turns += 1;
        assert!(turns < 100, "it never ends");
        stage.turn();
    }
    assert!(stage.reactor().connections().now_ms() >= deadline);
    assert!(turns > 2, "only {turns} turns");
}
