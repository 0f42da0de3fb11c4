//! Blocking work beside reactors: they go on meanwhile, and end without it.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use slipring::{
    BlockingLimits, BlockingLimitsError, Conn, JoinError, blocking_snapshot, set_blocking_limits,
    timeout, unblock,
};
use support::{PATIENCE, alone, bounded, connect, end, ms, one_reactor, serve, two_reactors};

fn ask(mut client: &TcpStream, number: u64) -> u64 {
    client.write_all(&number.to_be_bytes()).expect("sent");
    let mut answer = [0; 8];
    client.read_exact(&mut answer).expect("an answer");
    u64::from_be_bytes(answer)
}

#[test]
fn many_callers_of_two_reactors_get_each_their_own() {
    bounded(|| {
        let _alone = alone();
        static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
        static AT_ONCE_MAX: AtomicUsize = AtomicUsize::new(0);
        let serving = serve(two_reactors(), async |mut conn: Conn| {
            let reactor = std::thread::current().id();
            let mut number = [0; 8];
            while conn.recv_into(&mut number).await == 8 {
                let asked = u64::from_be_bytes(number);
                let (answer, thread) = unblock(move || {
                    let at_once = AT_ONCE.fetch_add(1, Ordering::SeqCst) + 1;
                    AT_ONCE_MAX.fetch_max(at_once, Ordering::SeqCst);
                    std::thread::yield_now();
                    AT_ONCE.fetch_sub(1, Ordering::SeqCst);
                    (asked * 3, std::thread::current().id())
                })
                .await
                .expect("done");
                assert_ne!(thread, reactor);
                conn.send(answer.to_be_bytes().to_vec()).await.expect("sent");
            }
        });
        let address = serving.addresses()[0];
        let clients: Vec<_> = (0..24)
            .map(|seed| {
                support::spawn(move || {
                    let client = connect(address);
                    for number in seed * 1000..seed * 1000 + 50 {
                        assert_eq!(ask(&client, number), number * 3);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("its answers"));
        end(serving);
        let most = BlockingLimits::default().threads_max;
        let seen = AT_ONCE_MAX.load(Ordering::SeqCst);
        assert!((1..=most).contains(&seen), "{seen} at once, {most} may be");
        assert!(blocking_snapshot().threads <= most);
        let late = set_blocking_limits(BlockingLimits::default());
        assert_eq!(late, Err(BlockingLimitsError::InUse));
    });
}

/// A service that answers each byte, or, to `b`, blocks until the test lets it.
fn blocking(
    tell: mpsc::Sender<&'static str>,
    gate: std::sync::Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
) -> impl AsyncFn(Conn) + Clone + Send + 'static {
    async move |mut conn: Conn| {
        while let Some(data) = conn.recv().await {
            if &data[..] == b"b" {
                let (tell, gate) = (tell.clone(), std::sync::Arc::clone(&gate));
                let work = unblock(move || {
                    tell.send("begun").expect("the test waits");
                    gate.lock().expect("no panic").recv_timeout(PATIENCE).expect("let go");
                    tell.send("ended").expect("the test waits");
                });
                work.await.expect("done");
            }
            conn.send(data).await.expect("sent");
        }
    }
}

#[test]
fn a_reactor_goes_on_while_work_blocks() {
    bounded(|| {
        let _alone = alone();
        let ((tell, told), (gate, at_gate)) = (mpsc::channel(), mpsc::channel());
        let at_gate = std::sync::Arc::new(std::sync::Mutex::new(at_gate));
        let service = blocking(tell, at_gate);
        let serving = serve(one_reactor(), move |conn| {
            let service = service.clone();
            async move { service(conn).await }
        });
        let (mut held, other) = (connect(serving.addresses()[0]), connect(serving.addresses()[0]));
        held.write_all(b"b").expect("sent");
        assert_eq!(told.recv_timeout(PATIENCE), Ok("begun"));
        support::ping(&other, b"meanwhile");
        gate.send(()).expect("it waits");
        let mut answer = [0];
        held.read_exact(&mut answer).expect("an answer");
        assert_eq!(told.recv_timeout(PATIENCE), Ok("ended"));
        drop((held, other));
        end(serving);
    });
}

#[test]
fn a_runtime_ends_at_its_drain_deadline_whatever_work_does() {
    bounded(|| {
        let _alone = alone();
        let ((tell, told), (gate, at_gate)) = (mpsc::channel(), mpsc::channel());
        let at_gate = std::sync::Arc::new(std::sync::Mutex::new(at_gate));
        let service = blocking(tell, at_gate);
        let serving = serve(one_reactor().drain_deadline(ms(300)), move |conn| {
            let service = service.clone();
            async move { service(conn).await }
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"b").expect("sent");
        assert_eq!(told.recv_timeout(PATIENCE), Ok("begun"));
        let started = support::now();
        end(serving);
        support::assert_kept("the end of the runtime", started.elapsed(), ms(300));
        // The work runs on, and wakes nobody.
        gate.send(()).expect("it waits");
        assert_eq!(told.recv_timeout(PATIENCE), Ok("ended"));
    });
}

#[test]
fn what_is_given_up_in_the_line_is_never_begun() {
    bounded(|| {
        let _alone = alone();
        let most = BlockingLimits::default().threads_max;
        let ((tell, told), (done, is_done)) = (mpsc::channel(), mpsc::channel());
        let serving = serve(one_reactor(), async |_| {});
        let spawner = serving.spawner();
        let held: Vec<_> = (0..most)
            .map(|_| {
                let tell = tell.clone();
                let (gate, at_gate) = mpsc::channel::<()>();
                let work = spawner.spawn(move || {
                    unblock(move || {
                        tell.send(()).expect("the test waits");
                        at_gate.recv_timeout(PATIENCE).expect("let go");
                    })
                });
                (work, gate)
            })
            .collect();
        held.iter().for_each(|_| told.recv_timeout(PATIENCE).expect("begun"));
        let given_up = spawner.spawn(move || async move {
            timeout(ms(20), unblock(move || done.send(()).expect("told"))).await.is_err()
        });
        assert_eq!(given_up.join(), Ok(true));
        assert_eq!(blocking_snapshot().waiting, 0);
        for (work, gate) in held {
            gate.send(()).expect("it waits");
            assert_eq!(work.join(), Ok(Ok(())));
        }
        assert_eq!(is_done.try_recv(), Err(mpsc::TryRecvError::Disconnected), "it was dropped");
        end(serving);
    });
}

#[test]
fn a_panic_of_work_ends_neither_its_task_nor_its_connection() {
    bounded(|| {
        let _alone = alone();
        let serving = serve(one_reactor(), async |mut conn: Conn| {
            while let Some(data) = conn.recv().await {
                let panicked = unblock(|| -> u32 { panic!("on purpose") }).await;
                assert_eq!(panicked, Err(JoinError::Panicked));
                conn.send(data).await.expect("sent");
            }
        });
        let client = connect(serving.addresses()[0]);
        support::ping(&client, b"one");
        support::ping(&client, b"two");
        drop(client);
        serving.handle().drain();
        let panics: u64 =
            serving.join().expect("in order").iter().map(|counters| counters.handler_panics).sum();
        assert_eq!(panics, 0);
    });
}

#[test]
fn inline_it_runs_on_the_reactor_as_another_thread_would() {
    bounded(|| {
        let _alone = alone();
        let ((tell, told), before) = (mpsc::channel(), blocking_snapshot().threads);
        let tell = std::sync::Mutex::new(tell);
        let running = one_reactor()
            .start(move |_| {
                let tell = tell.lock().expect("no panic").clone();
                slipring::tasks(move |_conn| {
                    let tell = tell.clone();
                    async move {
                        let began = slipring::now();
                        let thread = unblock(|| std::thread::current().id()).await;
                        let outside = unblock(slipring::now).await;
                        let took = slipring::now() - began;
                        let is_here = thread == Ok(std::thread::current().id());
                        tell.send((is_here, outside, took)).expect("the test waits");
                    }
                })
                .with_inline_blocking(ms(30))
            })
            .expect("it starts");
        let client = connect(running.addresses()[0]);
        let (is_here, outside, took) = told.recv_timeout(PATIENCE).expect("told");
        assert!(is_here);
        assert_eq!(
            outside,
            Err(JoinError::Panicked),
            "there is no reactor on a thread of the crew"
        );
        assert!(took >= ms(60), "two that take 30 ms each took {took:?}");
        assert!(blocking_snapshot().threads <= before, "no thread was started");
        drop(client);
        running.handle().drain();
        running.join().expect("a drain in order");
    });
}
