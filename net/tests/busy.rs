//! Something is under way on a connection though no byte moves: a drain waits for it, as far as its deadline goes.

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use slipring::{CloseReason, Conn, Serve};
use support::{assert_kept, bounded, connect, expect_eof, expect_reset, ms, now, one_reactor};

/// Answers each message after so long; a drain begins meanwhile. What the client reads to the end of the stream.
fn answer_in_a_drain(is_busy: bool, takes: Duration) -> (String, Duration) {
    let (tell, told) = std::sync::mpsc::channel();
    let serving = one_reactor().serve(move |mut conn: Conn| {
        let tell = tell.clone();
        async move {
            let busy = conn.busy_flag();
            while conn.recv().await.is_some() {
                busy.set(is_busy);
                tell.send(()).expect("the test waits");
                // It listens meanwhile, as a library does for the peer's end.
                let _ = slipring::timeout(takes, conn.recv()).await;
                let _ = conn.send("the answer").await;
                busy.set(false);
            }
        }
    });
    let serving = serving.expect("it starts");
    let mut client = connect(serving.addresses()[0]);
    client.write_all(b"a question").expect("sent");
    told.recv_timeout(support::PATIENCE).expect("it came");
    let started = now();
    serving.handle().drain();
    let mut read = String::new();
    client.read_to_string(&mut read).expect("an end in order");
    drop(client);
    serving.join().expect("a drain in order");
    (read, started.elapsed())
}

#[test]
fn a_drain_waits_for_what_is_under_way() {
    bounded(|| {
        let (read, took) = answer_in_a_drain(true, ms(1200));
        assert_eq!(read, "the answer");
        assert!(took >= ms(1200), "{took:?}");
        // And not for longer: the flag is down again. A drain of 2 s asks everybody quiet within its first half.
        assert!(took < ms(1800), "{took:?}");
    });
}

/// What the flag is for: without it, who listens and moves nothing is quiet.
#[test]
fn nobody_knows_of_it_without_the_flag() {
    bounded(|| {
        let (read, _) = answer_in_a_drain(false, ms(1600));
        assert_eq!(read, "");
    });
}

#[test]
fn the_deadline_holds_all_the_same() {
    bounded(|| {
        let (tell, told) = std::sync::mpsc::channel();
        let serving = one_reactor().serve(move |mut conn: Conn| {
            let tell = tell.clone();
            async move {
                conn.busy_flag().set(true);
                tell.send(None).expect("the test waits");
                tell.send(Some(conn.closed().await)).expect("the test waits");
            }
        });
        let serving = serving.expect("it starts");
        let client = connect(serving.addresses()[0]);
        assert_eq!(told.recv_timeout(support::PATIENCE), Ok(None));
        let started = now();
        serving.handle().drain();
        assert_eq!(expect_reset(&client), 0);
        assert_kept("the drain", started.elapsed(), ms(2000));
        let reason = told.recv_timeout(support::PATIENCE);
        assert_eq!(reason, Ok(Some(CloseReason::DrainDeadline)));
        serving.join().expect("it ends");
    });
}

/// The flag outlives its connection, and says nothing to the one that has its place.
#[test]
fn a_flag_of_a_connection_that_is_gone_says_nothing() {
    bounded(|| {
        let flags = std::sync::Arc::new(std::sync::Mutex::new(0));
        let serving = one_reactor().max_connections(1).serve(move |mut conn: Conn| {
            let flags = std::sync::Arc::clone(&flags);
            async move {
                let number = {
                    let mut flags = flags.lock().expect("unpoisoned");
                    *flags += 1;
                    *flags
                };
                if number == 1 {
                    let busy = conn.busy_flag();
                    drop(slipring::spawn_local(async move {
                        loop {
                            busy.set(true);
                            slipring::sleep(ms(5)).await;
                        }
                    }));
                }
                while let Some(data) = conn.recv().await {
                    let _ = conn.send(data).await;
                }
            }
        });
        let serving = serving.expect("it starts");
        let address = serving.addresses()[0];
        let first = connect(address);
        support::ping(&first, b"first");
        drop(first);
        let second = connect(address);
        support::ping(&second, b"second");
        let started = now();
        serving.handle().drain();
        expect_eof(&second);
        assert!(started.elapsed() < ms(1800), "{:?}", started.elapsed());
        drop(second);
        serving.join().expect("a drain in order");
    });
}
