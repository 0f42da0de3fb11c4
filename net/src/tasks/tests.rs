//! The executor by itself, its turns made by hand. Between them nothing is lent, as on another thread.

use std::future::{pending, poll_fn};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

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

#[derive(Default)]
struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counting() -> (Arc<Counts>, Waker) {
    let counts = Arc::new(Counts::default());
    (Arc::clone(&counts), counts.into())
}

/// What a panic brings, and panics as it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped"));
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new(Grenade));
    }
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

// -------------------------------------------------------------------------------- panics

#[test]
fn a_waker_that_panics_takes_no_other_wake_along() {
    let executor = Executor::new();
    let panics = Waker::from(Arc::new(Panics));
    let (counts, counting) = counting();
    let at = Duration::from_millis(5);
    let sleeps = [&panics, &counting, &panics, &counting]
        .map(|waker| polled(&executor, waker, sleep_until(at)));
    let waits = [&panics, &counting].map(|waker| polled(&executor, waker, Box::pin(draining())));
    turn(&executor, 10);
    assert_eq!(counts.0.load(Ordering::Relaxed), 2, "both sleep no more");
    executor.enter(|| executor.turn(10_000, true));
    assert_eq!(counts.0.load(Ordering::Relaxed), 3, "it hears of the drain");
    assert_eq!(executor.take_panics(), 3);
    executor.enter(|| drop((sleeps, waits)));
}

fn explode() {
    resume_unwind(Box::new(Grenade))
}

#[test]
fn who_waits_for_a_task_does_not_end_it_with_a_waker_that_panics() {
    let executor = Executor::new();
    let panics = Waker::from(Arc::new(Panics));
    let spawner = Spawner::new(vec![Arc::clone(executor.remote())]);
    let handle = executor.enter(|| spawn_local(async { 7 }));
    let handle = polled(&executor, &panics, handle);
    let join = polled(&executor, &panics, spawner.spawn(|| async { 8 }));
    // Its panic takes what it holds apart, and that wakes.
    let dropped = executor.enter(|| spawn_local(async { explode() }));
    let dropped = polled(&executor, &panics, dropped);
    turn(&executor, 0);
    assert_eq!(join.join(), Ok(8));
    let (_, counting) = counting();
    let mut context = Context::from_waker(&counting);
    let (mut handle, mut dropped) = (handle, dropped);
    assert_eq!(Pin::new(&mut handle).poll(&mut context), Poll::Ready(Ok(7)));
    let panicked = Poll::Ready(Err(JoinError::Panicked));
    assert_eq!(Pin::new(&mut dropped).poll(&mut context), panicked);
    assert_eq!(executor.census(), Census::default());
}

#[test]
fn what_a_panic_brings_may_panic_as_it_is_dropped() {
    let executor = Executor::new();
    executor.serve(calling::Task::BESIDE, || -> std::future::Ready<()> {
        resume_unwind(Box::new(Grenade))
    });
    executor.spawn(Kind::Beside, async { resume_unwind(Box::new(Grenade)) });
    let bomb = Bomb;
    let cancelled = executor.spawn(Kind::Beside, async move {
        let _bomb = bomb;
        pending::<()>().await;
    });
    let done = Rc::new(Cell::new(false));
    let ran = Rc::clone(&done);
    executor.spawn(Kind::Beside, async move { ran.set(true) });
    turn(&executor, 0);
    executor.enter(|| executor.cancel(cancelled));
    assert!(done.get());
    assert_eq!(executor.take_panics(), 3);
    assert_eq!(executor.census(), Census::default());
}

/// Polls once by a waker that panics as it is dropped, and keeps nothing of it.
fn polled_by_a_bomb<F: Future + Unpin>(executor: &Rc<Executor>, future: F) -> F {
    polled(executor, &Waker::from(Arc::new(Bomb)), future)
}

#[test]
fn a_waker_that_panics_as_another_takes_its_place_ends_no_poll() {
    let executor = Executor::new();
    let spawner = Spawner::new(vec![Arc::clone(executor.remote())]);
    let mut scope = Scope::new();
    executor.enter(|| scope.spawn(pending::<()>()));
    let sleeps = polled_by_a_bomb(&executor, executor.enter(|| sleep(HOUR)));
    let mut sleeps = polled_by_a_bomb(&executor, sleeps);
    sleeps.reset(2 * HOUR);
    let sleeps = polled(&executor, Waker::noop(), sleeps);
    let waits = polled_by_a_bomb(&executor, Box::pin(draining()));
    let waits = polled(&executor, Waker::noop(), waits);
    let handle = polled_by_a_bomb(&executor, executor.enter(|| spawn_local(pending::<()>())));
    let handle = polled(&executor, Waker::noop(), handle);
    let join = polled_by_a_bomb(&executor, spawner.spawn(pending::<()>));
    let join = polled(&executor, Waker::noop(), join);
    let next = polled_by_a_bomb(&executor, Box::pin(scope.join_next()));
    let next = polled(&executor, Waker::noop(), next);
    assert_eq!(executor.take_panics(), 6);
    executor.enter(|| drop((sleeps, waits, handle, join, next)));
    assert_eq!(executor.take_panics(), 0);
}

/// Panics as it is dropped, with something that does too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new(Grenade));
    }
}

#[test]
fn tasks_that_panic_as_their_executor_ends_take_none_along() {
    let executor = Executor::new();
    let spawner = Spawner::new(vec![Arc::clone(executor.remote())]);
    let joins = [(); 3].map(|()| {
        let bomb = Bomb;
        spawner.spawn(move || async move { drop(bomb) })
    });
    let sleeps = polled(&executor, &Waker::from(Arc::new(Bomb)), sleep_until(HOUR));
    executor.clear();
    drop(executor);
    for join in joins {
        assert_eq!(join.join(), Err(JoinError::Panicked), "what it owned did");
    }
    drop(sleeps);
}

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {}
}

// -------------------------------------------------------------------------------- scopes

#[test]
fn a_wait_for_one_of_many_looks_at_one() {
    const TASKS: usize = 500;
    let executor = Executor::new();
    let (counts, counting) = counting();
    let before = Arc::strong_count(&counts);
    let mut scope = Scope::new();
    executor.enter(|| (0..TASKS).for_each(|_| scope.spawn(yield_now())));
    let mut next = Box::pin(scope.join_next());
    next = polled(&executor, &counting, next);
    assert!(Arc::strong_count(&counts) <= before + 1, "it waits in more than one place");
    turn(&executor, 0);
    assert_eq!(counts.0.load(Ordering::Relaxed), 1, "and is woken by the first");
    let mut context = Context::from_waker(&counting);
    assert_eq!(next.as_mut().poll(&mut context), Poll::Ready(Some(Ok(()))));
    drop(next);
    for _ in 1..TASKS {
        let next = std::pin::pin!(scope.join_next()).poll(&mut context);
        assert_eq!(next, Poll::Ready(Some(Ok(()))));
    }
    assert_eq!(std::pin::pin!(scope.join_next()).poll(&mut context), Poll::Ready(None));
}

#[test]
fn a_scope_that_is_cancelled_forgets_how_its_tasks_ended_and_goes_on() {
    let executor = Executor::new();
    let mut scope = Scope::new();
    executor.enter(|| {
        scope.spawn(async {});
        scope.spawn(pending::<()>());
        executor.turn(0, false);
        scope.cancel();
        assert_eq!(executor.census().tasks, 0);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(std::pin::pin!(scope.join_next()).poll(&mut context), Poll::Ready(None));
        scope.spawn(async { resume_unwind(Box::new("a bug")) });
        executor.turn(0, false);
        let next = std::pin::pin!(scope.join_next()).poll(&mut context);
        assert_eq!(next, Poll::Ready(Some(Err(JoinError::Panicked))));
    });
}
