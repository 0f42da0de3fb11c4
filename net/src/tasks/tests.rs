//! The executor by itself, its turns made by hand. Between them nothing is lent, as on another thread.

use std::future::{pending, poll_fn};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn turn(executor: &Rc<Executor>, now_ms: u64) {
    executor.enter(|| executor.turn(now_ms * 1000, false));
}

/// Polls once, and gives the future back.
fn polled<F: Future + Unpin>(executor: &Rc<Executor>, waker: &Waker, mut future: F) -> F {
    let mut context = Context::from_waker(waker);
    executor.enter(|| assert!(Pin::new(&mut future).poll(&mut context).is_pending()));
    future
}

// ------------------------------------------------------------------------------ elsewhere

#[test]
fn what_is_dropped_on_another_thread_leaves_nothing() {
    let executor = Executor::new();
    let sleeps = executor.enter(|| sleep(HOUR));
    let sleeps = polled(&executor, Waker::noop(), sleeps);
    let waits = polled(&executor, Waker::noop(), Box::pin(draining()));
    let census = executor.census();
    assert_eq!((census.timers, census.drain_waiters), (1, 1));
    std::thread::scope(|scope| {
        scope.spawn(move || drop((sleeps, waits)));
    });
    assert_eq!(executor.next_turn_ms(), Some(0), "it hears of it");
    turn(&executor, 0);
    assert_eq!(executor.census(), Census::default());
    assert_eq!(executor.next_turn_ms(), None);
}

#[test]
fn what_is_dropped_between_two_turns_leaves_nothing() {
    let executor = Executor::new();
    let sleeps = executor.enter(|| sleep(HOUR));
    drop(polled(&executor, Waker::noop(), sleeps));
    turn(&executor, 0);
    assert_eq!(executor.census(), Census::default());
}

#[test]
fn what_is_left_of_an_executor_that_is_gone_reaches_no_other() {
    let first = Executor::new();
    let sleeps = first.enter(|| sleep(HOUR));
    let sleeps = polled(&first, Waker::noop(), sleeps);
    let waits = polled(&first, Waker::noop(), Box::pin(draining()));
    let task = first.enter(|| spawn_local(pending::<()>()));
    let id = first.spawn(Kind::Beside, pending::<()>());
    first.clear();
    drop(first);

    let second = Executor::new();
    let polls = Rc::new(Cell::new(0));
    let counted = |polls: &Rc<Cell<u32>>| {
        let polls = Rc::clone(polls);
        poll_fn(move |_| {
            polls.set(polls.get() + 1);
            Poll::<()>::Pending
        })
    };
    second.spawn(Kind::Beside, counted(&polls));
    second.spawn(Kind::Beside, counted(&polls));
    let others = second.enter(|| sleep(HOUR));
    let others = polled(&second, Waker::noop(), others);
    let waits_too = polled(&second, Waker::noop(), Box::pin(draining()));
    turn(&second, 0);
    let before = second.census();
    assert_eq!((before.tasks, before.timers, before.drain_waiters), (2, 1, 1));

    second.enter(|| {
        task.cancel();
        drop((sleeps, waits));
        waker::<TaskWake>(id.to_bits()).wake();
    });
    waker::<TaskWake>(id.to_bits()).wake();
    turn(&second, 0);
    assert_eq!(second.census(), before);
    assert_eq!(polls.get(), 2, "nobody was woken");
    second.enter(|| drop((others, waits_too)));
}

#[test]
#[should_panic(expected = "a sleep stays with its own")]
fn a_sleep_of_an_executor_that_is_gone_is_refused_by_the_next() {
    let first = Executor::new();
    let sleeps = first.enter(|| sleep(HOUR));
    let sleeps = polled(&first, Waker::noop(), sleeps);
    drop(first);
    drop(polled(&Executor::new(), Waker::noop(), sleeps));
}
