//! Connections held by async code, on the real kernel: bytes, ends, back-pressure, timeouts, dials, tasks.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use slipring::{
    CloseReason, DialError, End, Fault, SendError, Timeout, Timeouts, dial, draining, sleep,
    spawn_local, timeout,
};
use support::{
    Check, SLACK, bounded, connect, echo, echo_pattern, end, ms, one_reactor, reporting, serve,
    stuff,
};

#[test]
fn what_is_received_is_sent_back() {
    bounded(|| {
        let serving = serve(one_reactor(), echo);
        let address = serving.addresses()[0];
        for (seed, bytes) in [0, 1, 64, 65_536, 65_537, 8 << 20].into_iter().enumerate() {
            echo_pattern(&connect(address), seed as u64, bytes, 100_000);
        }
        let clients: Vec<_> = (0..4)
            .map(|seed| {
                support::spawn(move || echo_pattern(&connect(address), seed, 2 << 20, 50_000))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("its bytes came back"));
        end(serving);
    });
}

const PATIENCE: Duration = support::PATIENCE;

#[test]
fn what_is_not_taken_at_once_is_there_for_the_next_call() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            let mut head = [0; 3];
            assert_eq!(conn.recv_into(&mut []).await, 0, "no room is no end");
            assert_eq!(conn.recv_into(&mut head).await, 3);
            let mut rest = conn.recv().await.expect("there is more");
            let next = rest.split_to(2);
            conn.unrecv(rest);
            let rest = conn.recv().await.expect("what was put back");
            tell.send((head.to_vec(), next.to_vec(), rest.to_vec())).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"abcdefgh").expect("sent");
        let told = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(told, (b"abc".to_vec(), b"de".to_vec(), b"fgh".to_vec()));
        end(serving);
    });
}

#[test]
fn behind_the_peers_end_we_may_go_on_sending() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            let data = conn.recv().await.expect("bytes before the end");
            assert!(conn.recv().await.is_none());
            tell.send((conn.end(), conn.reason())).expect("the test waits");
            conn.send(data).await.expect("our direction is open");
            conn.shutdown();
            assert_eq!(conn.send("more").await, Err(SendError::ShutDown));
            tell.send((conn.end(), Some(conn.closed().await))).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"last words").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "last words");
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), (Some(End::Eof), None));
        let (_, reason) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(reason, Some(CloseReason::PeerClosed));
        end(serving);
    });
}

#[test]
fn what_came_before_a_reset_comes_before_its_end() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            // It lets the reset come first.
            let reason = conn.closed().await;
            let mut bytes = Vec::new();
            while let Some(data) = conn.recv().await {
                bytes.extend_from_slice(&data);
            }
            let sent = conn.send("too late").await;
            tell.send((bytes, conn.end(), reason, sent)).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"before").expect("sent");
        support::reset(client);
        let (bytes, end_, reason, sent) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(bytes, b"before");
        assert_eq!(reason, CloseReason::Reset);
        assert_eq!(end_, Some(End::Closed(CloseReason::Reset)));
        assert_eq!(sent, Err(SendError::Ended(CloseReason::Reset)));
        end(serving);
    });
}

/// Sends without end, and says after how many bytes it had to wait.
#[test]
fn a_send_waits_for_a_reader_that_does_not_read_and_for_nothing_else() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            let mut sent = 0_u64;
            loop {
                let send = conn.send(vec![7; 10_000]);
                match timeout(ms(200), send).await {
                    Ok(result) => result.expect("it is open"),
                    Err(_) => break,
                }
                sent += 10_000;
            }
            tell.send(sent).expect("the test waits");
            // What was dropped while it waited was not sent; nothing of it.
            conn.send("end").await.expect("the client reads again");
        });
        let mut client = connect(serving.addresses()[0]);
        let sent = told.recv_timeout(PATIENCE).expect("it waits");
        // The kernel's own buffers hold a few megabytes on loopback, the outbox 64 KiB and one message.
        assert!(sent < 16 << 20, "{sent} B were taken for a reader that does not read");
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes.len() as u64, sent + 3);
        assert!(bytes.ends_with(b"end") && bytes[..sent as usize].iter().all(|byte| *byte == 7));
        end(serving);
    });
}

#[test]
fn who_does_not_receive_holds_its_peer_back_and_nobody_else() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            let mut first = conn.recv().await.expect("a first byte");
            if first[0] == b'e' {
                conn.unrecv(first);
                return echo(conn).await.expect("an open connection");
            }
            first.advance(1);
            conn.unrecv(first);
            tell.send(None).expect("the test waits");
            sleep(ms(1_000)).await;
            let mut bytes = 0;
            let mut check = Check::new(1);
            while let Some(data) = conn.recv().await {
                check.next(&data);
                bytes += data.len() as u64;
            }
            tell.send(Some(bytes)).expect("the test waits");
        });
        let address = serving.addresses()[0];
        let mut slow = connect(address);
        slow.write_all(b"s").expect("sent");
        told.recv_timeout(PATIENCE).expect("told");
        let taken = stuff(&slow, 1);
        assert!(taken < 32 << 20, "{taken} B were taken for a task that receives nothing");
        let mut other = connect(address);
        other.write_all(b"e").expect("sent");
        assert_eq!(support::read_bytes(&other, 1), b"e");
        support::ping(&other, b"while the other is stuck");
        slow.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), Some(taken));
        drop(other);
        end(serving);
    });
}

/// Each wait ends after a millisecond and is begun again: what comes in between is not lost.
#[test]
fn a_recv_that_is_dropped_loses_nothing() {
    bounded(|| {
        let serving = serve(one_reactor(), |mut conn| async move {
            loop {
                match timeout(ms(1), conn.recv()).await {
                    Ok(Some(data)) => conn.send(data).await.expect("an open connection"),
                    Ok(None) => return,
                    Err(_) => {}
                }
            }
        });
        let client = connect(serving.addresses()[0]);
        for (seed, bytes) in [100, 30_000, 200_000].into_iter().enumerate() {
            std::thread::park_timeout(ms(10));
            let again = connect(serving.addresses()[0]);
            echo_pattern(&again, seed as u64, bytes, 1_000);
        }
        support::ping(&client, b"after many waits");
        drop(client);
        end(serving);
    });
}

#[test]
fn a_read_deadline_ends_one_wait_and_not_the_connection() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            conn.set_read_deadline(Timeout::After(ms(100)));
            let before = slipring::now();
            assert!(conn.recv().await.is_none());
            tell.send((conn.end(), slipring::now() - before)).expect("the test waits");
            // Each wait has its own: three of 60 ms are within it.
            for _ in 0..3 {
                let data = conn.recv().await.expect("in time");
                conn.send(data).await.expect("open");
            }
            assert_eq!(conn.end(), None);
            conn.set_read_deadline(Timeout::Never);
            assert!(conn.recv().await.is_none());
            tell.send((conn.end(), Duration::ZERO)).expect("the test waits");
        });
        let client = connect(serving.addresses()[0]);
        let (end_, took) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(end_, Some(End::ReadTimeout));
        assert!((ms(100)..ms(100) + SLACK).contains(&took), "{took:?}");
        for _ in 0..3 {
            std::thread::park_timeout(ms(60));
            support::ping(&client, b"ping");
        }
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(told.recv_timeout(PATIENCE).expect("told").0, Some(End::Eof));
        drop(client);
        end(serving);
    });
}

#[test]
fn timeouts_of_one_connection_end_it_with_their_reasons() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            match &*conn.recv().await.expect("what to wait for") {
                b"idle" => conn.set_idle_timeout(Timeout::After(ms(100))),
                _ => conn.set_phase_deadline(Timeout::After(ms(100))),
            }
            assert!(conn.recv().await.is_none());
            tell.send(conn.reason()).expect("the test waits");
        });
        for (what, reason) in
            [("idle", CloseReason::IdleTimeout), ("phase", CloseReason::PhaseTimeout)]
        {
            let mut client = connect(serving.addresses()[0]);
            client.write_all(what.as_bytes()).expect("sent");
            match reason {
                CloseReason::PhaseTimeout => drop(support::expect_reset(&client)),
                _ => support::expect_eof(&client),
            }
            drop(client);
            assert_eq!(told.recv_timeout(PATIENCE).expect("told"), Some(reason));
        }
        end(serving);
    });
}

#[test]
fn a_panic_resets_what_its_task_held_and_nothing_else() {
    bounded(|| {
        let serving = serve(one_reactor(), |mut conn| async move {
            while let Some(data) = conn.recv().await {
                assert!(&*data != b"panic", "a bug of the user's");
                conn.send(data).await.expect("open");
            }
        });
        let address = serving.addresses()[0];
        let (good, mut bad) = (connect(address), connect(address));
        support::ping(&good, b"before");
        bad.write_all(b"panic").expect("sent");
        support::expect_reset(&bad);
        support::ping(&good, b"after");
        drop(good);
        serving.handle().drain();
        let counters = serving.join().expect("a drain in order");
        assert_eq!(counters[0].handler_panics, 1);
    });
}

#[test]
fn what_was_sent_before_the_handle_is_dropped_arrives_before_the_end() {
    bounded(|| {
        let serving = serve(one_reactor(), |mut conn| async move {
            for _ in 0..6 {
                conn.try_send(vec![9; 100_000]).expect("room for six");
            }
        });
        let mut client = connect(serving.addresses()[0]);
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("an end in order");
        assert_eq!(bytes.len(), 600_000);
        end(serving);
    });
}

#[test]
fn halves_are_held_by_different_tasks() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |conn, tell| {
            let (mut read, mut write) = conn.split();
            let writer = spawn_local(async move {
                for number in 0..100_u8 {
                    write.send(vec![number]).await.expect("open");
                    sleep(ms(1)).await;
                }
                write
            });
            let mut came = 0;
            while let Some(data) = read.recv().await {
                came += data.len();
            }
            let write = writer.await.expect("it ends");
            let mut conn = read.reunite(write);
            conn.send("whole").await.expect("open");
            tell.send(came).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(&[1; 50_000]).expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("read");
        let expected: Vec<u8> = (0..100).chain(*b"whole").collect();
        assert_eq!(answer, expected);
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), 50_000);
        end(serving);
    });
}

#[test]
fn a_half_that_is_dropped_ends_its_direction_only() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |conn, tell| {
            let (mut read, mut write) = conn.split();
            if &*read.recv().await.expect("which") == b"r" {
                // Nobody receives any more: the peer may send on, and is read from.
                drop(read);
                sleep(ms(100)).await;
                write.send("heard nothing").await.expect("open");
                tell.send(Vec::new()).expect("the test waits");
            } else {
                drop(write);
                let mut rest = Vec::new();
                while let Some(data) = read.recv().await {
                    rest.extend_from_slice(&data);
                }
                tell.send(rest).expect("the test waits");
            }
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"w").expect("sent");
        support::expect_eof(&client);
        client.write_all(b"after its end").expect("the other direction is open");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), b"after its end");

        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"r").expect("sent");
        std::thread::park_timeout(ms(50));
        client.write_all(&vec![1; 1 << 20]).expect("it is read from");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an end in order");
        assert_eq!(answer, "heard nothing");
        told.recv_timeout(PATIENCE).expect("told");
        end(serving);
    });
}

#[test]
fn a_dial_says_how_it_ended() {
    bounded(|| {
        let (listener, echoes) = support::listener();
        let (refusing, refuses) = support::refusing();
        let hole = support::BlackHole::new();
        let silent = hole.address;
        let timeouts = Timeouts { dial: Timeout::After(ms(200)), ..Timeouts::default() };
        let builder = one_reactor().timeouts(timeouts).max_dialed(1);
        let serving = serve(builder, async |_conn| {});
        let outcomes = serving.spawner().spawn(move || async move {
            let mut first = dial(echoes).await.expect("somebody listens");
            let full = dial(echoes).await.err();
            first.send("hello").await.expect("open");
            let answer = first.recv().await.expect("an answer").to_vec();
            first.close();
            first.closed().await;
            let refused = dial(refuses).await.err();
            let timed_out = dial(silent).await.err();
            let given_up = timeout(ms(20), dial(silent)).await.is_err();
            // Its place is free again, if not at once.
            let again = loop {
                match dial(echoes).await {
                    Err(DialError::NotBegun(_)) => sleep(ms(5)).await,
                    other => break other.is_ok(),
                }
            };
            (answer, full, refused, timed_out, given_up, again)
        });
        let mut upstream = support::accept(&listener);
        let mut hello = [0; 5];
        upstream.read_exact(&mut hello).expect("it speaks first");
        upstream.write_all(&hello).expect("answered");
        support::expect_eof(&upstream);
        drop(upstream);
        let (answer, full, refused, timed_out, given_up, again) =
            outcomes.join().expect("it ended");
        assert_eq!(answer, b"hello");
        assert!(matches!(full, Some(DialError::NotBegun(_))), "{full:?}");
        assert_eq!(refused, Some(DialError::Failed(Fault::Refused)));
        assert_eq!(timed_out, Some(DialError::Timeout));
        assert!(given_up && again);
        drop(refusing);
        end(serving);
    });
}

#[test]
fn a_drain_waits_for_tasks_that_serve_and_tells_those_that_ask() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |conn, tell| {
            drop(conn);
            let before = slipring::now();
            draining().await;
            tell.send(slipring::now() - before).expect("the test waits");
            // Nobody is connected any more, and still there is something to be done.
            sleep(ms(200)).await;
            tell.send(Duration::ZERO).expect("the test waits");
        });
        let client = connect(serving.addresses()[0]);
        support::expect_eof(&client);
        drop(client);
        std::thread::park_timeout(ms(50));
        end(serving);
        let waited = told.recv_timeout(PATIENCE).expect("told of the drain");
        assert!(waited >= ms(20), "{waited:?}");
        told.recv_timeout(PATIENCE).expect("it was let finish");
    });
}

#[test]
fn a_connection_knows_its_ends_and_how_it_goes() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            let data = conn.recv().await.expect("something comes");
            let (ends, info) = ((conn.peer(), conn.local()), conn.info().expect("it is open"));
            tell.send((ends, info.received_bytes)).expect("the test waits");
            conn.send(data).await.expect("it is open");
            conn.close();
            conn.closed().await;
            assert_eq!((conn.peer(), conn.local(), conn.info()), (None, None, None));
            tell.send(((None, None), 0)).expect("the test waits");
        });
        let client = connect(serving.addresses()[0]);
        let ends = (client.local_addr().ok(), client.peer_addr().ok());
        support::ping(&client, b"hello");
        assert_eq!(told.recv_timeout(PATIENCE), Ok((ends, 5)));
        drop(client);
        assert_eq!(told.recv_timeout(PATIENCE), Ok(((None, None), 0)), "it has not panicked");
        end(serving);
    });
}
