//! Tasks of a reactor: their time, their ends, and other threads.

mod support;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use slipring::{
    JoinError, Scope, Serve, Serving, Spawner, now, sleep, sleep_until, spawn_local, timeout,
    yield_now,
};
use support::{PATIENCE, SLACK, bounded, eventually, ms, one_reactor, two_reactors};

/// A runtime that nobody connects to.
fn idle(builder: slipring::Builder) -> (Serving, Spawner) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let serving = builder.listen(address).serve(async |_| {}).expect("it starts");
    let spawner = serving.spawner();
    (serving, spawner)
}

fn end(serving: Serving) -> u64 {
    serving.handle().drain();
    let counters = serving.join().expect("a drain in order");
    counters.iter().map(|counters| counters.handler_panics).sum()
}

/// Runs one task on a reactor to its end.
fn run<T, F>(task: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (serving, spawner) = idle(one_reactor());
    let result = spawner.spawn(task).join().expect("it ends");
    end(serving);
    result
}

/// Tells when it is dropped.
struct Dropped(Rc<Cell<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_sleep_is_never_short_and_hardly_long() {
    bounded(|| {
        let slept = run(|| async {
            let mut slept = Vec::new();
            for span in [0, 1, 2, 7, 31, 32, 33, 63, 64, 100, 333, 1000] {
                let before = now();
                sleep(ms(span)).await;
                slept.push((ms(span), now() - before));
            }
            let at = now() + ms(50);
            sleep_until(at).await;
            slept.push((Duration::ZERO, now() - at));
            slept
        });
        for (span, took) in slept {
            assert!(took >= span, "{span:?} took {took:?}");
            // On a machine with other work; the wheel alone would be late by an eighth of it.
            assert!(took < span + ms(60), "{span:?} took {took:?}");
        }
    });
}

#[test]
fn what_is_done_within_its_time_is_done_and_what_is_not_is_dropped() {
    bounded(|| {
        run(|| async {
            assert_eq!(timeout(ms(1000), async { 7 }).await, Ok(7));
            let dropped = Rc::new(Cell::new(0));
            let guard = Dropped(Rc::clone(&dropped));
            let endless = async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            };
            let before = now();
            let elapsed = timeout(ms(50), endless).await.expect_err("it never ends");
            assert_eq!(elapsed.within, ms(50));
            assert!((ms(50)..ms(50) + SLACK).contains(&(now() - before)));
            assert_eq!(dropped.get(), 1);
        });
    });
}

#[test]
fn a_task_is_waited_for_cancelled_or_left_alone() {
    bounded(|| {
        run(|| async {
            assert_eq!(spawn_local(async { 1 + 1 }).await, Ok(2));

            let dropped = Rc::new(Cell::new(0));
            let guard = Dropped(Rc::clone(&dropped));
            let endless = spawn_local(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            yield_now().await;
            assert!(!endless.is_finished());
            endless.cancel();
            assert_eq!(dropped.get(), 1, "it is dropped at once");
            assert_eq!(endless.await, Err(JoinError::Cancelled));

            // One that cancels itself ends with that poll.
            let own = Rc::new(Cell::new(None));
            let (place, guard) = (Rc::clone(&own), Dropped(Rc::clone(&dropped)));
            let handle = Rc::new(spawn_local(async move {
                let _guard = guard;
                let handle: Rc<slipring::JoinHandle<()>> = place.take().expect("set before");
                handle.cancel();
                std::future::pending::<()>().await;
            }));
            own.set(Some(Rc::clone(&handle)));
            eventually_async(|| dropped.get() == 2).await;
            assert!(handle.is_finished());

            let left = Rc::new(Cell::new(false));
            let flag = Rc::clone(&left);
            drop(spawn_local(async move {
                sleep(ms(20)).await;
                flag.set(true);
            }));
            eventually_async(|| left.get()).await;
        });
    });
}

async fn eventually_async(is_so: impl Fn() -> bool) {
    let until = now() + PATIENCE;
    while !is_so() {
        assert!(now() < until, "never so");
        sleep(ms(1)).await;
    }
}

#[test]
fn a_panic_is_told_to_who_waits_and_counted() {
    bounded(|| {
        let (serving, spawner) = idle(one_reactor());
        let told = spawner.spawn(|| async {
            let task = spawn_local(async {
                yield_now().await;
                panic!("a bug of the user's");
            });
            task.await
        });
        assert_eq!(told.join(), Ok(Err(JoinError::Panicked)));
        let panicked = spawner.spawn(|| async { panic!("another") }).join();
        assert_eq!(panicked, Err::<(), _>(JoinError::Panicked));
        let in_drop = spawner.spawn(|| async {
            struct Fragile;
            impl Drop for Fragile {
                fn drop(&mut self) {
                    panic!("as it is dropped");
                }
            }
            let task = spawn_local(async {
                let _fragile = Fragile;
                std::future::pending::<()>().await;
            });
            yield_now().await;
            task.cancel();
            7
        });
        assert_eq!(in_drop.join(), Ok(7));
        assert_eq!(end(serving), 3);
    });
}

#[test]
fn a_scope_ends_its_tasks_with_itself() {
    bounded(|| {
        run(|| async {
            let dropped = Rc::new(Cell::new(0));
            let mut scope = Scope::new();
            for number in 0..10 {
                let guard = Dropped(Rc::clone(&dropped));
                scope.spawn(async move {
                    let _guard = guard;
                    sleep(ms(if number == 3 { 5 } else { 60_000 })).await;
                });
            }
            assert_eq!(scope.join_next().await, Some(Ok(())));
            assert_eq!(dropped.get(), 1);
            drop(scope);
            assert_eq!(dropped.get(), 10);

            let mut scope = Scope::new();
            scope.spawn(async {});
            scope.spawn(async { panic!("one of three") });
            scope.spawn(async {});
            assert_eq!(scope.join_all().await, Err(JoinError::Panicked));
            // However many were begun since, and whether anybody asked.
            let mut scope = Scope::new();
            scope.spawn(async { panic!("the first of many") });
            for _ in 0..50 {
                yield_now().await;
                scope.spawn(async {});
            }
            let mut ends = Vec::new();
            while let Some(end) = scope.join_next().await {
                ends.push(end);
            }
            assert_eq!(ends.len(), 51);
            assert_eq!(ends.iter().filter(|end| end.is_err()).count(), 1);
            assert_eq!(Scope::new().join_next().await, None);
        });
    });
}

#[test]
fn another_thread_wakes_a_task() {
    bounded(|| {
        let (serving, spawner) = idle(one_reactor());
        let shared: Arc<(AtomicBool, Mutex<Option<Waker>>)> = Arc::default();
        let (polls, seen) = (Arc::new(AtomicU32::new(0)), Arc::clone(&shared));
        let count = Arc::clone(&polls);
        let woken = spawner.spawn(move || {
            std::future::poll_fn(move |cx| {
                count.fetch_add(1, Ordering::Relaxed);
                *seen.1.lock().expect("no panic") = Some(cx.waker().clone());
                if seen.0.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
            })
        });
        let waker = || shared.1.lock().expect("no panic").clone();
        eventually("its first poll", || waker().is_some());
        // The reactor sleeps; and again, many times for one poll at least.
        for _ in 0..100 {
            waker().expect("polled").wake_by_ref();
        }
        eventually("a poll for it", || polls.load(Ordering::Relaxed) > 1);
        shared.0.store(true, Ordering::Release);
        waker().expect("polled").wake();
        assert_eq!(woken.join(), Ok(()));
        // It has outlived its task.
        waker().expect("polled").wake();
        end(serving);
        waker().expect("polled").wake();
    });
}

#[test]
fn tasks_come_to_every_reactor_and_from_everywhere() {
    bounded(|| {
        let (serving, spawner) = idle(two_reactors());
        assert_eq!(spawner.reactors(), 2);
        let name = || async { std::thread::current().name().map(str::to_owned) };
        for reactor in 0..2 {
            let told = spawner.spawn_on(reactor, name).join().expect("it ends");
            assert_eq!(told, Some(format!("slipring-{reactor}")));
        }
        // From a reactor to the other, and back.
        let both = spawner.clone();
        let told = spawner.spawn_on(0, move || async move { both.spawn_on(1, name).await });
        assert_eq!(told.join(), Ok(Ok(Some("slipring-1".to_owned()))));
        // Many at once.
        let (tell, told) = mpsc::channel();
        for number in 0..1000_u32 {
            let tell = tell.clone();
            drop(spawner.spawn(move || async move { tell.send(number) }));
        }
        let mut numbers: Vec<u32> =
            (0..1000).map(|_| told.recv_timeout(PATIENCE).expect("all run")).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1000));
        end(serving);
        assert_eq!(spawner.spawn(name).join(), Err(JoinError::Cancelled), "it has ended");
    });
}

#[test]
fn tasks_that_wake_each_other_without_end_keep_nobody_out() {
    bounded(|| {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let serving = one_reactor().listen(address).serve(async |mut conn| {
            while let Some(data) = conn.recv().await {
                if conn.send(data).await.is_err() {
                    return;
                }
            }
        });
        let serving = serving.expect("it starts");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let busy = serving.spawner().spawn(move || async move {
            let mut scope = Scope::new();
            for _ in 0..100 {
                let stopped = Arc::clone(&stopped);
                scope.spawn(async move {
                    while !stopped.load(Ordering::Relaxed) {
                        yield_now().await;
                    }
                });
            }
            scope.join_all().await
        });
        let client = support::connect(serving.addresses()[0]);
        let before = support::now();
        for _ in 0..20 {
            support::ping(&client, b"between them");
        }
        assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(busy.join(), Ok(Ok(())));
        drop(client);
        end(serving);
    });
}

#[test]
fn a_drain_ends_what_nobody_waits_for() {
    bounded(|| {
        let (serving, spawner) = idle(one_reactor());
        let (tell, told) = mpsc::channel::<()>();
        let started = spawner.spawn(move || async move {
            drop(spawn_local(async move {
                let _tell = tell;
                std::future::pending::<()>().await;
            }));
        });
        started.join().expect("it ends");
        end(serving);
        assert_eq!(told.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    });
}

#[test]
fn outside_of_a_reactor_there_is_nothing_to_call() {
    let panicked = std::panic::catch_unwind(|| drop(spawn_local(async {})));
    let payload = panicked.expect_err("there is no reactor");
    let text = payload.downcast_ref::<&str>().expect("a message");
    assert!(text.contains("`serve`, `spawn_local` or `Spawner::spawn`"), "{text}");
}

/// An executor of somebody's own, as far as its waker goes: the last one to be dropped drops what it ran.
struct Own {
    held: Mutex<Option<Held>>,
}

/// Held by a waker, which has to be `Send`; the test stays on one thread.
struct Held(Box<dyn Fn() + Send>);

impl Drop for Held {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl std::task::Wake for Own {
    fn wake(self: Arc<Self>) {
        drop(self.held.lock().expect("no panic").take());
    }
}

#[test]
fn what_falls_with_a_waker_falls_in_order() {
    thread_local! {
        static CONN: std::cell::RefCell<Option<slipring::Conn>> = const { std::cell::RefCell::new(None) };
    }
    bounded(|| {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        // Two clients: the first one's handle falls with a waker that waits for bytes of the second's.
        let serving = one_reactor().listen(address).serve(async |conn: slipring::Conn| {
            let first = CONN.with(|place| place.borrow_mut().take());
            let Some(first) = first else {
                CONN.with(|place| *place.borrow_mut() = Some(conn));
                return;
            };
            let mut second = conn;
            CONN.with(|place| *place.borrow_mut() = Some(first));
            let fall = || drop(CONN.with(|place| place.borrow_mut().take()));
            let own = Arc::new(Own { held: Mutex::new(Some(Held(Box::new(fall)))) });
            let waker = Waker::from(own);
            let polled = second.poll_recv(&mut std::task::Context::from_waker(&waker));
            assert!(polled.is_pending());
            drop(waker);
            // Replaced by this task's own waker, or woken with the first bytes: either drops it.
            while let Some(data) = second.recv().await {
                second.send(data).await.expect("open");
            }
        });
        let serving = serving.expect("it starts");
        let first = support::connect(serving.addresses()[0]);
        eventually("the first is served", || serving.handle().snapshots()[0].connections == 1);
        std::thread::park_timeout(ms(100));
        let second = support::connect(serving.addresses()[0]);
        support::expect_eof(&first);
        support::ping(&second, b"all is well");
        drop((first, second));
        end(serving);
    });
}
