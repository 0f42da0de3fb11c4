//! The line and its threads, each test with a crew of its own.
#![expect(clippy::disallowed_methods, reason = "these tests are about threads")]

use std::pin::pin;
use std::sync::mpsc;
use std::task::Wake;
use std::thread::{Thread, ThreadId};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn crew(threads_max: usize, idle: Duration) -> &'static Crew {
    Box::leak(Box::new(Crew::new(BlockingLimits { threads_max, idle })))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() {
        if is_so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("never so: {what}");
}

/// Work that says when it begins, and ends when it is let go.
fn gated(crew: &'static Crew) -> (Place<()>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (tell, begun) = mpsc::channel();
    let (gate, at_gate) = mpsc::channel::<()>();
    let place = crew.enter(move || {
        tell.send(()).expect("the test waits");
        // Open, or gone with its test.
        let _ = at_gate.recv_timeout(PATIENCE);
    });
    (place, begun, gate)
}

fn begun(begun: &mpsc::Receiver<()>) {
    begun.recv_timeout(PATIENCE).expect("it begins");
}

/// Says on which thread it is dropped.
struct Dropped(mpsc::Sender<ThreadId>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().id());
    }
}

#[test]
fn there_are_no_more_threads_than_may_be_and_none_before_there_is_work() {
    let crew = crew(3, PATIENCE);
    assert_eq!(crew.snapshot(), BlockingSnapshot { threads: 0, idle: 0, waiting: 0 });
    let held: Vec<_> = (0..3).map(|_| gated(crew)).collect();
    held.iter().for_each(|(_, is_begun, _)| begun(is_begun));
    let waiting: Vec<_> = (0..100).map(|n| crew.enter(move || n)).collect();
    assert_eq!(crew.snapshot(), BlockingSnapshot { threads: 3, idle: 0, waiting: 100 });
    for (place, _, gate) in held {
        gate.send(()).expect("it waits");
        assert_eq!(wait(place), Ok(()));
    }
    for (n, place) in waiting.into_iter().enumerate() {
        assert_eq!(wait(place), Ok(n));
    }
    assert!(crew.snapshot().threads <= 3);
}

#[test]
fn one_thread_that_is_enough_stays_the_only_one() {
    let crew = crew(8, PATIENCE);
    for n in 0..50 {
        assert_eq!(wait(crew.enter(move || n)), Ok(n));
        eventually("it waits for more", || crew.snapshot().idle == 1);
    }
    assert_eq!(crew.snapshot().threads, 1);
}

#[test]
fn who_came_first_is_served_first() {
    let crew = crew(1, PATIENCE);
    let (held, is_begun, gate) = gated(crew);
    begun(&is_begun);
    let (tell, told) = mpsc::channel();
    let enter = |n| {
        let tell = tell.clone();
        crew.enter(move || tell.send(n).expect("the test waits"))
    };
    let mut places: Vec<_> = (0..10).map(enter).collect();
    // Who leaves is not missed.
    drop(places.remove(4));
    gate.send(()).expect("it waits");
    wait(held).expect("done");
    places.into_iter().for_each(|place| wait(place).expect("done"));
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
}

#[test]
fn dropped_before_it_began_it_never_does_and_is_dropped_there() {
    let crew = crew(1, PATIENCE);
    let (held, is_begun, gate) = gated(crew);
    begun(&is_begun);
    let (tell, told) = mpsc::channel();
    let guard = Dropped(tell);
    let mut place = Box::pin(crew.enter(move || {
        drop(guard);
        panic!("it ran");
    }));
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(place.as_mut().poll(&mut context).is_pending());
    assert_eq!(crew.snapshot().waiting, 1);
    drop(place);
    assert_eq!(told.try_recv(), Ok(std::thread::current().id()));
    assert_eq!(crew.snapshot().waiting, 0);
    gate.send(()).expect("it waits");
    wait(held).expect("done");
}

#[test]
fn dropped_once_it_runs_it_ends_and_its_result_is_dropped_by_its_thread() {
    let crew = crew(1, PATIENCE);
    let ((tell, told), (tell_begun, is_begun)) = (mpsc::channel(), mpsc::channel());
    let (gate, at_gate) = mpsc::channel();
    let place = crew.enter(move || {
        tell_begun.send(()).expect("the test waits");
        at_gate.recv_timeout(PATIENCE).expect("let go");
        (std::thread::current().id(), Dropped(tell))
    });
    begun(&is_begun);
    drop(place);
    assert!(told.try_recv().is_err(), "its result is not there yet");
    gate.send(()).expect("it runs on");
    let thread = told.recv_timeout(PATIENCE).expect("dropped");
    assert_eq!(wait(crew.enter(|| std::thread::current().id())), Ok(thread));
}

#[test]
fn a_panic_is_told_and_costs_no_thread() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("on purpose, when it is dropped");
        }
    }
    let crew = crew(1, PATIENCE);
    let panicked = crew.enter(|| -> u32 { panic!("on purpose") });
    assert_eq!(wait(panicked), Err(JoinError::Panicked));
    // A result that nobody takes, whose drop panics; and a panic whose value does.
    let (tell, is_begun) = mpsc::channel();
    let (gate, at_gate) = mpsc::channel::<()>();
    let place = crew.enter(move || {
        tell.send(()).expect("the test waits");
        at_gate.recv_timeout(PATIENCE).expect("let go");
        Bad
    });
    begun(&is_begun);
    drop(place);
    gate.send(()).expect("it runs on");
    let bad = crew.enter(|| std::panic::panic_any(Bad));
    assert_eq!(wait(bad), Err(JoinError::Panicked));
    assert_eq!(wait(crew.enter(|| 7)), Ok(7));
    assert_eq!(crew.snapshot().threads, 1);
}

#[test]
fn a_thread_that_is_not_needed_ends_though_others_have_work() {
    let crew = crew(4, Duration::from_millis(100));
    let held: Vec<_> = (0..4).map(|_| gated(crew)).collect();
    held.iter().for_each(|(_, is_begun, _)| begun(is_begun));
    assert_eq!(crew.snapshot().threads, 4);
    held.into_iter().for_each(|(place, _, gate)| {
        gate.send(()).expect("it waits");
        wait(place).expect("done");
    });
    // One at a time, and never a tenth of a second without any: one thread does them all.
    eventually("three have gone", || {
        wait(crew.enter(|| ())).expect("done");
        crew.snapshot().threads == 1
    });
    eventually("the last has gone", || crew.snapshot().threads == 0);
    assert_eq!(wait(crew.enter(|| 7)), Ok(7), "and there is one again when it is needed");
}

#[test]
fn limits_are_set_before_the_first_work_or_not_at_all() {
    let crew = crew(1, PATIENCE);
    let limits = BlockingLimits { threads_max: 2, ..BlockingLimits::default() };
    let none = BlockingLimits { threads_max: 0, ..limits };
    assert_eq!(crew.limit(none), Err(BlockingLimitsError::Threads { threads_max: 0 }));
    let many = BlockingLimits { threads_max: THREADS_MAX + 1, ..limits };
    assert!(crew.limit(many).is_err());
    assert_eq!(crew.limit(limits), Ok(()));
    assert_eq!(crew.limit(limits), Ok(()), "nothing has run yet");
    wait(crew.enter(|| ())).expect("done");
    let error = crew.limit(limits).expect_err("too late");
    assert_eq!(error, BlockingLimitsError::InUse);
    assert!(error.to_string().contains("before the first `unblock`"), "{error}");
    assert_eq!(crew.lock().limits.threads_max, 2);
}

#[test]
fn without_a_thread_work_is_refused_and_dropped() {
    let (tell, told) = mpsc::channel();
    let guard = Dropped(tell);
    let mut crew = Crew::new(BlockingLimits::default());
    // More than an address space has.
    crew.stack_bytes = 1 << 52;
    let crew: &'static Crew = Box::leak(Box::new(crew));
    let place = crew.enter(move || drop(guard));
    assert_eq!(wait(place), Err(JoinError::NoThread));
    assert_eq!(told.try_recv(), Ok(std::thread::current().id()));
    assert_eq!(crew.snapshot(), BlockingSnapshot { threads: 0, idle: 0, waiting: 0 });
}

#[test]
fn a_pinned_thread_neither_pins_those_it_starts_nor_counts_as_all_cores() {
    let all = cores().expect("its cores");
    let limits = BlockingLimits::default();
    let pinned = std::thread::spawn(move || {
        let first = core_affinity::get_core_ids().expect("cores")[0];
        assert!(core_affinity::set_for_current(first));
        let own = || sched_getaffinity(None).expect("its cores");
        assert_eq!(own().count(), 1);
        assert_eq!(BlockingLimits::default(), limits);
        wait(crew(1, PATIENCE).enter(own))
    });
    assert_eq!(pinned.join().expect("no panic"), Ok(all));
}

#[test]
fn many_threads_bring_work_at_once_and_each_gets_its_own_result() {
    let crew = crew(3, Duration::from_millis(1));
    let callers: Vec<_> = (0..8_u64)
        .map(|caller| {
            std::thread::spawn(move || {
                for n in 0..200 {
                    let place = crew.enter(move || caller * 1000 + n);
                    if n % 7 == 0 {
                        drop(place);
                    } else {
                        assert_eq!(wait(place), Ok(caller * 1000 + n));
                    }
                    assert!(crew.snapshot().threads <= 3);
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
    eventually("nothing is left", || {
        crew.snapshot() == BlockingSnapshot { threads: 0, idle: 0, waiting: 0 }
    });
}
