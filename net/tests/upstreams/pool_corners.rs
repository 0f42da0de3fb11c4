//! Pools in corners: several reactors that want at once, dials that hang, a drain that is over.

use std::future::{Future, pending};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::setting::{at_most, run, runtime, upstream};
use crate::support::{
    self, bounded, connect, drained, end, eventually, loopback, ms, one_reactor, serve,
    two_reactors,
};
use slipring::failure::{Checkout, Drain, Kind};
use slipring::policy::pool::{Mode, PoolLimits};
use slipring::pool::{Establish, Keep, Plain, Pool};
use slipring::{Conn, Error, Stir, now, sleep, spawn_local, timeout};

#[test]
fn who_would_not_wait_begins_no_dial() {
    bounded(|| {
        let (upstream, address) = upstream();
        run(move || async move {
            let pool = Pool::new(address, Plain, at_most(2)).expect("sound limits");
            assert!(pool.try_checkout().is_none());
            let snapshot = pool.snapshot();
            assert_eq!((snapshot.dialing, snapshot.waiting, pool.held()), (0, 0, 0));
        });
        assert_eq!(drained(upstream).accepted, 0);
    });
}

#[test]
fn as_many_as_another_reactor_wants_are_given_up_one_after_the_other_without_a_pause() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(two_reactors());
        let pool = Pool::new(address, Plain, at_most(6)).expect("sound limits");
        let of_task = pool.clone();
        let filled = spawner.spawn_on(0, move || async move {
            let mut all = Vec::new();
            for _ in 0..6 {
                all.push(of_task.checkout().await.expect("there is room"));
            }
        });
        filled.join().expect("all six are idle on reactor 0");
        let of_task = pool.clone();
        let took = spawner.spawn_on(1, move || async move {
            let begun = now();
            let waits: Vec<_> = (0..5).map(|_| spawn_local(of_task.checkout())).collect();
            let mut all = Vec::new();
            for wait in waits {
                all.push(wait.await.expect("it ends").expect("one is given up for each"));
            }
            now() - begun
        });
        let took = took.join().expect("it ends");
        assert!(took < ms(800), "{took:?}");
        drop(pool);
        end(serving);
        end(upstream);
    });
}

/// Establishes plain connections as long as it is not told to hang.
struct Hanging {
    hangs: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Establish for Hanging {
    type Connection = Conn;

    async fn establish(&self, endpoint: SocketAddr) -> Result<Conn, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        Plain.establish(endpoint).await
    }
}

/// Runs a task with a pool that can be told to hang.
fn with_hanging<T: Send + 'static, F: Future<Output = T> + 'static>(
    limits: PoolLimits,
    task: impl FnOnce(Pool<Hanging>, Arc<AtomicBool>, Arc<AtomicUsize>) -> F + Send + 'static,
) -> T {
    let (upstream, address) = upstream();
    let (serving, spawner) = runtime(one_reactor());
    let (hangs, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let how = Hanging { hangs: Arc::clone(&hangs), asked: Arc::clone(&asked) };
    let pool = Pool::new(address, how, limits).expect("sound limits");
    let result = spawner.spawn(move || task(pool, hangs, asked)).join().expect("it ends");
    end(serving);
    end(upstream);
    result
}

#[test]
fn one_dialed_for_a_caller_has_to_be_there_in_its_time() {
    bounded(|| {
        let limits =
            PoolLimits { checkout_timeout: Some(ms(200)), validate_timeout: ms(100), ..at_most(4) };
        with_hanging(limits, async |pool, hangs, _| {
            drop(pool.checkout().await.expect("one"));
            hangs.store(true, Ordering::SeqCst);
            let begun = now();
            let fresh = timeout(Duration::from_secs(3), pool.checkout_fresh()).await;
            let error = fresh.expect("it ends by itself").expect_err("nobody answers");
            assert!(matches!(error.kind(), Kind::Checkout(Checkout::Timeout { .. })), "{error}");
            assert!(now() - begun < ms(1000) && error.elapsed() >= ms(199));
            assert_eq!((pool.held(), pool.snapshot().dialing), (1, 0), "its place is free");
        });
    });
}

#[test]
fn a_pool_that_drains_gives_nothing_out_from_that_moment_on_and_never_dials_again() {
    bounded(|| {
        with_hanging(at_most(4), async |pool, _, asked| {
            drop(pool.checkout().await.expect("one"));
            pool.drain();
            assert!(pool.try_checkout().is_none(), "it drains");
            while pool.held() > 0 {
                sleep(ms(1)).await;
            }
            for _ in 0..3 {
                sleep(ms(5)).await;
                let error = pool.checkout().await.expect_err("it is drained");
                assert!(matches!(error.kind(), Kind::Drain(Drain::Refusing)), "{error}");
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1, "nothing was dialed");
        });
    });
}

#[test]
fn counts_of_a_pool_are_not_lost_when_it_is_asked_after_its_drain() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(one_reactor());
        let pool = Pool::new(address, Plain, at_most(2)).expect("sound limits");
        let of_task = pool.clone();
        let task = spawner.spawn(move || async move {
            drop(of_task.checkout().await.expect("one"));
            of_task.drain();
        });
        task.join().expect("it ends");
        eventually("it is drained", || pool.held() == 0);
        let of_task = pool.clone();
        let task = spawner.spawn(move || async move {
            sleep(ms(20)).await;
            assert!(of_task.checkout().await.is_err());
            sleep(ms(20)).await;
        });
        task.join().expect("it ends");
        assert_eq!((pool.counters().claimed, pool.counters().dials), (1, 1));
        drop(pool);
        end(serving);
        end(upstream);
    });
}

/// Panics as long as it is told to, in each of its parts.
struct Panicking {
    panics: Arc<AtomicBool>,
}

impl Establish for Panicking {
    type Connection = Conn;

    async fn establish(&self, endpoint: SocketAddr) -> Result<Conn, Error> {
        slipring::yield_now().await;
        assert!(!self.panics.load(Ordering::SeqCst), "as it is meant to");
        Plain.establish(endpoint).await
    }

    async fn is_alive(&self, _: &mut Conn) -> bool {
        slipring::yield_now().await;
        assert!(!self.panics.load(Ordering::SeqCst), "as it is meant to");
        true
    }
}

#[test]
fn code_that_panics_while_it_dials_or_looks_costs_the_pool_no_place() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(one_reactor());
        let panics = Arc::<AtomicBool>::default();
        let limits = PoolLimits { validate_after: Some(Duration::ZERO), ..at_most(2) };
        let how = Panicking { panics: Arc::clone(&panics) };
        let pool = Pool::new(address, how, limits).expect("sound limits");
        let task = spawner.spawn(move || async move {
            for _ in 0..4 {
                panics.store(false, Ordering::SeqCst);
                drop(pool.checkout().await.expect("one"));
                panics.store(true, Ordering::SeqCst);
                // The look at the one that is kept panics, and then the dial of another.
                let error = pool.checkout().await.expect_err("its dial panics");
                assert!(matches!(error.kind(), Kind::Dial(_)), "{error}");
                assert!(pool.try_checkout().is_none());
                while pool.held() > 0 {
                    sleep(ms(1)).await;
                }
            }
            let snapshot = pool.snapshot();
            assert_eq!((snapshot.dialing, snapshot.idle, snapshot.waiting), (0, 0, 0));
        });
        task.join().expect("it ends");
        assert!(drained(serving).handler_panics >= 8);
        end(upstream);
    });
}

/// A waker that is no task's own.
struct Angry;

impl Wake for Angry {
    fn wake(self: Arc<Self>) {
        panic!("as it is meant to");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_from_its_connection() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(one_reactor());
        let pool = Pool::new(address, Plain, at_most(1)).expect("sound limits");
        let task = spawner.spawn(move || async move {
            let held = pool.checkout().await.expect("one");
            let mut angry = Box::pin(pool.checkout());
            let waker = Waker::from(Arc::new(Angry));
            assert!(angry.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let next = spawn_local(pool.checkout());
            slipring::yield_now().await;
            drop(held);
            drop(angry);
            drop(next.await.expect("it ends").expect("its turn"));
            assert_eq!((pool.snapshot().idle, pool.held()), (1, 1));
        });
        task.join().expect("whoever gave one back is not whose waker it is");
        assert_eq!(drained(serving).handler_panics, 1);
        end(upstream);
    });
}

#[test]
fn a_drain_of_the_runtime_does_not_wait_for_dials_that_hang() {
    bounded(|| {
        let (upstream, address) = upstream();
        let hangs = Arc::new(AtomicBool::new(true));
        let how = Hanging { hangs, asked: Arc::default() };
        let pool = Pool::new(address, how, at_most(4)).expect("sound limits");
        let of_service = pool.clone();
        let serving = serve(one_reactor().listen(loopback()), move |mut client: Conn| {
            let pool = of_service.clone();
            async move {
                let _ = client.recv().await;
                let wait = spawn_local(pool.checkout());
                let _ = client.send(b"dialing".to_vec()).await;
                let _ = client.recv().await;
                drop(wait);
            }
        });
        let client = connect(serving.addresses()[0]);
        (&client).write_all(b"!").expect("open");
        assert_eq!(support::read_bytes(&client, 7), b"dialing");
        assert_eq!(pool.held(), 1);
        drop(client);
        end(serving);
        assert_eq!(pool.held(), 0, "its place came back");
        end(upstream);
    });
}

/// A connection that panics when it is looked at, as long as it is told to.
struct Touchy {
    conn: Conn,
    panics: Arc<AtomicBool>,
}

impl Keep for Touchy {
    fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        assert!(!self.panics.load(Ordering::SeqCst), "as it is meant to");
        self.conn.poll_stir(cx)
    }

    fn forget_stir(&mut self) {
        self.conn.forget_stir();
    }

    async fn close(self) {
        Keep::close(self.conn).await;
    }
}

/// Establishes them.
struct Touchily(Arc<AtomicBool>);

impl Establish for Touchily {
    type Connection = Touchy;

    async fn establish(&self, endpoint: SocketAddr) -> Result<Touchy, Error> {
        let conn = Plain.establish(endpoint).await?;
        Ok(Touchy { conn, panics: Arc::clone(&self.0) })
    }
}

#[test]
fn a_connection_that_panics_as_it_is_looked_at_costs_no_place_and_the_others_are_watched_on() {
    bounded(|| {
        let (listener, address) = support::listener();
        let (serving, spawner) = runtime(one_reactor());
        let panics = Arc::<AtomicBool>::default();
        let how = Touchily(Arc::clone(&panics));
        let pool = Pool::new(address, how, at_most(3)).expect("sound limits");
        let of_task = pool.clone();
        let filled = spawner.spawn(move || async move {
            let first = of_task.checkout().await.expect("one");
            let second = of_task.checkout().await.expect("another");
            drop((first, second));
        });
        let servers = [support::accept(&listener), support::accept(&listener)];
        filled.join().expect("both are idle");
        // The watcher looks at both, as one of them stirs.
        panics.store(true, Ordering::SeqCst);
        (&servers[0]).write_all(b"!").expect("open");
        eventually("both are closed", || pool.held() == 0);
        panics.store(false, Ordering::SeqCst);
        let (of_task, of_test) = (pool.clone(), Arc::clone(&panics));
        let filled = spawner.spawn(move || async move {
            let (kept, returned) = (of_task.checkout().await, of_task.checkout().await);
            let returned = returned.expect("another");
            of_test.store(true, Ordering::SeqCst);
            drop(returned);
            of_test.store(false, Ordering::SeqCst);
            drop(kept.expect("one"));
        });
        let servers = [support::accept(&listener), support::accept(&listener)];
        filled.join().expect("who gives one back is not whose code panics");
        eventually("only one is kept", || pool.held() == 1);
        drop(servers);
        eventually("it is watched still", || pool.held() == 0);
        drop(pool);
        assert_eq!(drained(serving).handler_panics, 3);
    });
}

#[test]
fn fewer_places_than_reactors_are_had_by_all_in_turn() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(two_reactors());
        let pool = Pool::new(address, Plain, at_most(1)).expect("sound limits");
        let is_over = Arc::<AtomicBool>::default();
        let busy = |reactor: usize| {
            let (pool, is_over) = (pool.clone(), Arc::clone(&is_over));
            spawner.spawn_on(reactor, move || async move {
                while !is_over.load(Ordering::Relaxed) {
                    let conn = pool.checkout().await.expect("in turn");
                    sleep(ms(1)).await;
                    drop(conn);
                }
            })
        };
        let tasks: Vec<_> = (0..4).map(|_| busy(0)).collect();
        eventually("it is taken", || pool.held() == 1);
        for _ in 0..3 {
            let other = pool.clone();
            let took = spawner.spawn_on(1, move || async move {
                let begun = now();
                drop(other.checkout().await.expect("its turn"));
                now() - begun
            });
            let took = took.join().expect("it ends");
            assert!(took < ms(2000), "{took:?}");
        }
        is_over.store(true, Ordering::Relaxed);
        tasks.into_iter().for_each(|task| task.join().expect("served"));
        drop(pool);
        end(serving);
        end(upstream);
    });
}

#[test]
fn an_upstream_that_turns_everybody_away_is_not_dialed_without_a_pause() {
    bounded(|| {
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let full = serve(one_reactor().listen(loopback()), move |conn: Conn| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { drop(conn) }
        });
        let (serving, spawner) = runtime(one_reactor());
        let limits = PoolLimits::of(Mode::Dynamic { min_idle: 2, max: 4 });
        let pool = Pool::new(full.addresses()[0], Plain, limits).expect("sound limits");
        let of_task = pool.clone();
        let waited = spawner.spawn(move || async move {
            assert!(of_task.try_checkout().is_none(), "it has just begun");
            sleep(ms(1000)).await;
        });
        waited.join().expect("it ends");
        let accepted = accepted.load(Ordering::SeqCst);
        assert!((4..=16).contains(&accepted), "{accepted} connections in a second");
        drop(pool);
        end(serving);
        end(full);
    });
}
