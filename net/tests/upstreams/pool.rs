//! Pools on the real kernel: what is kept, what is given out, who waits, what ends them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::setting::{at_most, run, runtime, soon, upstream};
use crate::support::{
    accept, assert_kept, bounded, connect, drained, end, eventually, expect_eof, hears_within,
    listener, loopback, ms, one_reactor, ping, read_bytes, refusing, reset, serve, two_reactors,
};
use slipring::failure::{Checkout, Dial, Drain, Kind};
use slipring::policy::pool::{Cause, Mode, PoolLimits};
use slipring::pool::{Establish, Plain, Pool, Pooled};
use slipring::{Conn, Error, now, sleep, spawn_local, yield_now};

/// Runs a task with a pool for this endpoint on one reactor, which has nothing left of it afterwards.
fn with_pool<T, F>(
    endpoint: SocketAddr,
    limits: PoolLimits,
    task: impl FnOnce(Pool<Plain>) -> F + Send + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let pool = Pool::new(endpoint, Plain, limits).expect("sound limits");
    run(move || task(pool))
}

async fn ask(conn: &mut Conn, text: &str) -> Option<Vec<u8>> {
    conn.send(text.as_bytes().to_vec()).await.ok()?;
    let mut answer = Vec::new();
    while answer.len() < text.len() {
        answer.extend_from_slice(&conn.recv().await?);
    }
    Some(answer)
}

/// Whether a future is ready when it is polled once.
async fn is_ready<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

#[test]
fn a_connection_that_comes_back_serves_the_next() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, PoolLimits::default(), async |pool| {
            for round in 0..5 {
                let mut conn = pool.checkout().await.expect("one is dialed");
                assert_eq!((conn.is_reused(), conn.served()), (round > 0, round));
                assert_eq!(ask(&mut conn, "hello").await.as_deref(), Some(&b"hello"[..]));
            }
            let snapshot = pool.snapshot();
            assert_eq!((snapshot.idle, snapshot.checked_out, pool.held()), (1, 0, 1));
        });
        assert_eq!(drained(upstream).accepted, 1, "all went over one connection");
    });
}

#[test]
fn the_one_used_last_is_given_out_first() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, PoolLimits::default(), async |pool| {
            let first = pool.checkout().await.expect("one");
            let second = pool.checkout().await.expect("another");
            let (one, two) = (first.local(), second.local());
            drop(second);
            drop(first);
            let again = pool.try_checkout().expect("idle");
            assert_eq!(again.local(), one);
            assert_eq!(pool.try_checkout().expect("idle").local(), two);
            assert!(pool.try_checkout().is_some(), "back again");
        });
        end(upstream);
    });
}

#[test]
fn never_more_than_may_be_on_two_reactors_and_all_are_served() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(two_reactors());
        let pool = Pool::new(address, Plain, at_most(3)).expect("sound limits");
        let (out, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..40)
            .map(|task| {
                let (pool, out, most) = (pool.clone(), Arc::clone(&out), Arc::clone(&most));
                spawner.spawn_on(task % 2, move || async move {
                    for _ in 0..20 {
                        let mut conn = pool.checkout().await.expect("one comes back");
                        most.fetch_max(out.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        assert!(ask(&mut conn, "ping").await.is_some());
                        out.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().expect("served"));
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert!(pool.held() <= 3);
        drop(pool);
        end(serving);
        end(upstream);
    });
}

#[test]
fn who_waits_is_served_in_turn() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, at_most(1), async |pool| {
            let first = pool.checkout().await.expect("one");
            let order = Rc::new(RefCell::new(Vec::new()));
            let waiters: Vec<_> = (0..5)
                .map(|number| {
                    let (checkout, order) = (pool.checkout(), Rc::clone(&order));
                    spawn_local(async move {
                        let conn = checkout.await.expect("in turn");
                        order.borrow_mut().push(number);
                        yield_now().await;
                        drop(conn);
                    })
                })
                .collect();
            soon("all wait", || pool.snapshot().waiting == 5).await;
            drop(first);
            for waiter in waiters {
                waiter.await.expect("served");
            }
            assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
        });
        end(upstream);
    });
}

#[test]
fn a_wait_ends_after_five_seconds_and_says_why() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (took, error) = with_pool(address, PoolLimits::default(), async |pool| {
            let mut slow = Vec::new();
            for _ in 0..10 {
                slow.push(pool.checkout().await.expect("up to ten"));
            }
            let started = now();
            let error = pool.checkout().await.expect_err("all are in use");
            (now() - started, error)
        });
        assert_kept("the wait", took, Duration::from_secs(5));
        let Kind::Checkout(Checkout::Timeout { snapshot, last_dial_error: None }) = error.kind()
        else {
            panic!("{error:?}")
        };
        assert_eq!((snapshot.checked_out, snapshot.max, snapshot.waiting), (10, 10, 1));
        assert!(snapshot.oldest_waiter >= Duration::from_millis(4_999));
        let text = error.to_string();
        for part in ["10 of 10 in use", "pool.rs:", "1 waiting", &address.to_string()] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        assert!(error.elapsed() >= Duration::from_millis(4_999));
        end(upstream);
    });
}

#[test]
fn more_than_may_wait_are_refused_at_once() {
    bounded(|| {
        let (upstream, address) = upstream();
        let limits = PoolLimits { waiters_max: 2, ..at_most(1) };
        with_pool(address, limits, async |pool| {
            let _first = pool.checkout().await.expect("one");
            let waiters = [spawn_local(pool.checkout()), spawn_local(pool.checkout())];
            soon("both wait", || pool.snapshot().waiting == 2).await;
            let error = pool.checkout().await.expect_err("as many wait as may");
            assert!(matches!(error.kind(), Kind::Checkout(Checkout::Saturated(_))), "{error}");
            waiters.iter().for_each(slipring::JoinHandle::cancel);
            assert_eq!(pool.snapshot().waiting, 0, "who is dropped waits no more");
        });
        end(upstream);
    });
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing_and_its_dial_goes_on_for_others() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, at_most(4), async |pool| {
            {
                let mut wait = std::pin::pin!(pool.checkout());
                assert!(!is_ready(wait.as_mut()).await);
                assert_eq!((pool.snapshot().waiting, pool.snapshot().dialing), (1, 1));
            }
            assert_eq!(pool.snapshot().waiting, 0);
            soon("the dial is done", || pool.snapshot().idle == 1).await;
            // One that was given, and dropped before it came for it.
            let held = pool.checkout().await.expect("that one");
            let wait = Box::pin(pool.checkout_within(Duration::from_secs(5)));
            drop(held);
            drop(wait);
            assert_eq!((pool.snapshot().idle, pool.snapshot().checked_out), (1, 0));
        });
        end(upstream);
    });
}

#[test]
fn one_that_ended_while_it_was_kept_is_given_to_nobody() {
    bounded(|| {
        let (listener, address) = listener();
        let (serving, spawner) = runtime(one_reactor());
        let pool = Pool::new(address, Plain, PoolLimits::default()).expect("sound limits");
        let take = |text: &'static str| {
            let pool = pool.clone();
            spawner.spawn(move || async move {
                let mut conn = pool.checkout().await.expect("there is one");
                let is_reused = conn.is_reused();
                assert!(ask(&mut conn, text).await.is_some());
                is_reused
            })
        };
        for end in [|peer| drop::<std::net::TcpStream>(peer), reset] {
            let asked = take("one");
            let peer = accept(&listener);
            assert_eq!(read_bytes(&peer, 3), b"one");
            (&peer).write_all(b"one").expect("open");
            assert!(!asked.join().expect("answered"));
            end(peer);
            let asked = take("two");
            let peer = accept(&listener);
            assert_eq!(read_bytes(&peer, 3), b"two", "on a new connection");
            (&peer).write_all(b"two").expect("open");
            assert!(!asked.join().expect("answered"), "not on the one that had ended");
            // A byte that nobody asked for: what it belongs to nobody knows.
            (&peer).write_all(b"!").expect("open");
            expect_eof(&peer);
        }
        drop(pool);
        end(serving);
    });
}

#[test]
fn a_greeting_is_there_for_the_first_who_comes() {
    bounded(|| {
        let (listener, address) = listener();
        let (serving, spawner) = runtime(one_reactor());
        let pool = Pool::new(address, Plain, PoolLimits::default()).expect("sound limits");
        let task = {
            let pool = pool.clone();
            spawner.spawn(move || async move {
                let wait = pool.checkout();
                drop(wait); // never polled: nothing is dialed
                {
                    let mut wait = std::pin::pin!(pool.checkout());
                    assert!(!is_ready(wait.as_mut()).await);
                }
                soon("it was dialed for nobody", || pool.snapshot().idle == 1).await;
                sleep(ms(50)).await;
                let mut conn = pool.checkout().await.expect("the one that was dialed");
                (conn.recv().await.map(|lease| lease.to_vec()), conn.is_reused())
            })
        };
        let peer = accept(&listener);
        (&peer).write_all(b"220 ready").expect("open");
        assert_eq!(task.join().expect("it ends"), (Some(b"220 ready".to_vec()), false));
        drop(pool);
        end(serving);
    });
}

#[test]
fn a_dial_that_fails_is_told_to_who_waits() {
    bounded(|| {
        let (_bound, address) = refusing();
        let error = with_pool(address, PoolLimits::default(), async |pool| {
            let error = pool.checkout().await.expect_err("nobody listens");
            assert!(pool.last_dial_error().is_none() || pool.snapshot().dialing == 0);
            error
        });
        assert!(matches!(error.kind(), Kind::Dial(Dial::Refused)), "{error}");
        assert_eq!(error.endpoint(), Some(address));
    });
}

#[test]
fn what_comes_back_unclean_is_closed() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, PoolLimits::default(), async |pool| {
            let counters = || pool.counters();
            let mut conn = pool.checkout().await.expect("one");
            conn.mark_unclean();
            drop(conn);
            pool.checkout().await.expect("another").discard();
            let mut conn = pool.checkout().await.expect("a third");
            // Asked, and the answer not received.
            conn.send(b"x".to_vec()).await.expect("open");
            sleep(ms(50)).await;
            drop(conn);
            let mut conn = pool.checkout().await.expect("a fourth");
            conn.send(b"y".to_vec()).await.expect("open");
            drop(conn); // the answer comes while it is idle
            soon("that is seen", || pool.snapshot().idle == 0).await;
            soon("it is told", || counters().closed(Cause::Ended) == 1).await;
            let counters = counters();
            assert_eq!(
                (counters.closed(Cause::Unclean), counters.closed(Cause::Discarded)),
                (2, 1)
            );
            assert_eq!(counters.dials, 4);
        });
        end(upstream);
    });
}

#[test]
fn who_panics_with_a_connection_gives_none_back() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(one_reactor());
        let pool = Pool::new(address, Plain, at_most(1)).expect("sound limits");
        let of_task = pool.clone();
        let panics = spawner.spawn(move || async move {
            let _conn = of_task.checkout().await.expect("one");
            panic!("as it is meant to");
        });
        assert!(panics.join().is_err());
        let of_task = pool.clone();
        let served = spawner
            .spawn(move || async move { of_task.checkout().await.expect("another").served() });
        assert_eq!(served.join().expect("it ends"), 0);
        drop(pool);
        assert_eq!(drained(serving).handler_panics, 1);
        end(upstream);
    });
}

#[test]
fn a_connection_idle_on_one_reactor_makes_place_for_another() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(two_reactors());
        let pool = Pool::new(address, Plain, at_most(1)).expect("sound limits");
        for round in 0..6 {
            let of_task = pool.clone();
            let task = spawner.spawn_on(round % 2, move || async move {
                let mut conn = of_task.checkout_within(ms(2000)).await?;
                assert!(ask(&mut conn, "ping").await.is_some());
                Ok::<_, Error>(())
            });
            task.join().expect("it ends").expect("the other gives its own up");
        }
        drop(pool);
        end(serving);
        end(upstream);
    });
}

#[test]
fn a_reactor_that_is_always_busy_keeps_no_other_from_its_share() {
    bounded(|| {
        let (upstream, address) = upstream();
        let (serving, spawner) = runtime(two_reactors());
        let pool = Pool::new(address, Plain, at_most(2)).expect("sound limits");
        let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let busy: Vec<_> = (0..8)
            .map(|_| {
                let (pool, is_over) = (pool.clone(), Arc::clone(&is_over));
                spawner.spawn_on(0, move || async move {
                    while !is_over.load(Ordering::Relaxed) {
                        let mut conn = pool.checkout().await.expect("in turn");
                        assert!(ask(&mut conn, "ping").await.is_some());
                    }
                })
            })
            .collect();
        eventually("all places are taken", || pool.held() == 2);
        let other = pool.clone();
        let took = spawner.spawn_on(1, move || async move {
            let started = now();
            let conn = other.checkout().await.expect("its share");
            let took = now() - started;
            sleep(ms(20)).await;
            drop(conn);
            took
        });
        let took = took.join().expect("it ends");
        is_over.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|task| task.join().expect("served"));
        assert!(took < ms(2000), "{took:?}");
        drop(pool);
        end(serving);
        end(upstream);
    });
}

#[test]
fn a_drain_tells_who_waits_and_closes_what_is_idle() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, at_most(2), async |pool| {
            let held = pool.checkout().await.expect("one");
            drop(pool.checkout().await.expect("another"));
            let _in_use = pool.checkout().await.expect("that one");
            let waiter = spawn_local(pool.checkout());
            soon("it waits", || pool.snapshot().waiting == 1).await;
            pool.drain();
            let error = waiter.await.expect("it ends").expect_err("it drains");
            assert!(matches!(error.kind(), Kind::Drain(Drain::Refusing)), "{error}");
            let error = pool.checkout().await.expect_err("it drains");
            assert!(matches!(error.kind(), Kind::Drain(Drain::Refusing)), "{error}");
            assert_eq!(pool.held(), 2, "those in use stay");
            drop((held, _in_use));
            soon("all are closed", || pool.held() == 0).await;
        });
        end(upstream);
    });
}

#[test]
fn with_its_last_handle_a_pool_closes_what_it_kept() {
    bounded(|| {
        let (listener, address) = listener();
        let (serving, spawner) = runtime(one_reactor());
        let pool = Pool::new(address, Plain, PoolLimits::default()).expect("sound limits");
        let task = spawner.spawn(move || async move {
            drop(pool.checkout().await.expect("one"));
        });
        let peer = accept(&listener);
        task.join().expect("it ends");
        expect_eof(&peer);
        drop(peer);
        end(serving);
    });
}

#[test]
fn what_is_idle_for_too_long_is_closed_but_for_those_to_be_kept() {
    bounded(|| {
        let (upstream, address) = upstream();
        let limits = PoolLimits {
            idle_timeout: Some(Duration::from_secs(1)),
            ..PoolLimits::of(Mode::Dynamic { min_idle: 1, max: 4 })
        };
        let kept = with_pool(address, limits, async |pool| {
            let all = [pool.checkout().await, pool.checkout().await, pool.checkout().await];
            assert!(all.iter().all(Result::is_ok));
            drop(all);
            let before = pool.snapshot().idle;
            sleep(ms(1600)).await;
            (before, pool.snapshot().idle, pool.held())
        });
        assert_eq!(kept.1, 1);
        assert!(kept.0 >= 3 && kept.2 == 1, "{kept:?}");
        end(upstream);
    });
}

/// Establishes plain connections, and says of each what it is told to.
struct Doubted {
    is_alive: bool,
    looks: Arc<AtomicUsize>,
}

impl Establish for Doubted {
    type Connection = Conn;

    async fn establish(&self, endpoint: SocketAddr) -> Result<Conn, Error> {
        Plain.establish(endpoint).await
    }

    async fn is_alive(&self, _: &mut Conn) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.is_alive
    }
}

#[test]
fn one_that_does_not_pass_a_look_is_replaced() {
    bounded(|| {
        for is_alive in [true, false] {
            let (upstream, address) = upstream();
            let (serving, spawner) = runtime(one_reactor());
            let looks = Arc::new(AtomicUsize::new(0));
            let limits =
                PoolLimits { validate_after: Some(Duration::ZERO), ..PoolLimits::default() };
            let how = Doubted { is_alive, looks: Arc::clone(&looks) };
            let pool = Pool::new(address, how, limits).expect("sound limits");
            let of_task = pool.clone();
            let task = spawner.spawn(move || async move {
                drop(of_task.checkout().await.expect("one"));
                let conn: Pooled<Doubted> = of_task.checkout().await.expect("that, or another");
                conn.is_reused()
            });
            assert_eq!(task.join().expect("it ends"), is_alive);
            assert_eq!(looks.load(Ordering::SeqCst), 1);
            drop(pool);
            end(serving);
            end(upstream);
        }
    });
}

#[test]
fn one_that_was_not_kept_is_dialed_for_who_asks_for_it() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, at_most(2), async |pool| {
            drop(pool.checkout().await.expect("one"));
            let fresh = pool.checkout_fresh().await.expect("another");
            assert!(!fresh.is_reused());
            assert_eq!((pool.snapshot().idle, pool.held()), (1, 2), "the kept one stays");
            drop(fresh);
            // No room for a third: those that were quiet all the time are closed for it.
            let fresh = pool.checkout_fresh().await.expect("in place of them");
            assert!(!fresh.is_reused());
        });
        end(upstream);
    });
}

#[test]
fn one_that_is_taken_out_is_its_holder_s_for_good() {
    bounded(|| {
        let (upstream, address) = upstream();
        with_pool(address, at_most(1), async |pool| {
            let mut conn = pool.checkout().await.expect("one").take();
            assert_eq!(pool.held(), 0);
            let _other = pool.checkout().await.expect("its place is free");
            assert!(ask(&mut conn, "still here").await.is_some());
        });
        end(upstream);
    });
}

#[test]
fn a_connection_held_for_too_long_is_counted() {
    bounded(|| {
        let (upstream, address) = upstream();
        let limits =
            PoolLimits { leak_after: Some(Duration::from_secs(1)), ..PoolLimits::default() };
        let leaks = with_pool(address, limits, async |pool| {
            let _held = pool.checkout().await.expect("one");
            sleep(ms(1300)).await;
            pool.counters().leaks
        });
        assert_eq!(leaks, 1);
        end(upstream);
    });
}

#[test]
fn a_runtime_drains_beside_idle_connections_and_clients() {
    bounded(|| {
        let (upstream, address) = upstream();
        let limits = PoolLimits::of(Mode::Dynamic { min_idle: 2, max: 4 });
        let pool = Pool::new(address, Plain, limits).expect("sound limits");
        let of_service = pool.clone();
        let serving =
            serve(one_reactor().listen(loopback()).max_dialed(16), move |client: Conn| {
                let pool = of_service.clone();
                async move {
                    let mut client = client;
                    while let Some(data) = client.recv().await {
                        let mut conn = pool.checkout().await.expect("one");
                        let answer =
                            ask(&mut conn, std::str::from_utf8(&data).expect("text")).await;
                        client.send(answer.expect("an echo")).await.expect("open");
                    }
                }
            });
        let client = connect(serving.addresses()[0]);
        ping(&client, b"hello");
        eventually("some are kept idle", || pool.held() >= 2);
        assert!(!hears_within(&client, ms(20)));
        end(serving);
        assert_eq!(pool.held(), 0);
        end(upstream);
    });
}
