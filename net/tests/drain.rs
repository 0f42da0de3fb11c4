//! A drain: nobody new comes in, who is idle is asked to go, who is busy may finish, the deadline ends the
//! rest, and when `join` returns everything has been closed by us.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use slipring::{CloseReason, Relay};
use support::{
    Echo, Halting, Server, What, accept, again, alone, assert_kept, bounded, connect, descriptors,
    eventually, expect_eof, expect_reset, listener, ms, now, one_reactor, ping, read_bytes, spawn,
    two_reactors, write_pattern,
};

fn echo(deadline: Duration) -> Server {
    Server::start(one_reactor().drain_deadline(deadline), |_| Echo)
}

#[test]
fn nobody_is_there() {
    bounded(|| {
        let _alone = alone();
        let before = descriptors();
        let started = now();
        Server::start(two_reactors(), |_| Echo).finish();
        assert!(started.elapsed() < ms(1000), "an empty drain takes {:?}", started.elapsed());
        eventually("every descriptor is closed", || descriptors() == before);
    });
}

#[test]
fn idle_connections_are_closed_in_order() {
    bounded(|| {
        let _alone = alone();
        let deadline = ms(1500);
        let server = Server::start(two_reactors().drain_deadline(deadline), |_| Echo);
        let clients: Vec<_> = (0..200).map(|_| connect(server.address)).collect();
        clients.iter().for_each(|client| ping(client, b"hello"));
        let address = server.address;
        let started = now();
        server.handle.drain();
        let reader = spawn(move || {
            clients.iter().for_each(expect_eof);
            clients
        });
        // Asked over the first half; the slack is for the last ones' way out.
        let clients = reader.join().expect("all end in order");
        let took = started.elapsed();
        assert!(took < deadline / 2 + support::SLACK, "the last was asked after {took:?}");
        drop(clients);
        let journal = server.journal.clone();
        let counters = server.join();
        assert_eq!((counters.accepted, counters.drain_aborted), (200, 0));
        let drained = |what| what == What::Close(CloseReason::Drained);
        assert_eq!(journal.count(drained), 200);
        let refused = TcpStream::connect(address).expect_err("nobody listens any more");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

/// Exchanges messages without a pause long enough to count as idle, for a while.
fn talk(mut stream: &TcpStream, time: Duration) -> std::io::Result<()> {
    let end = now() + time;
    while now() < end {
        stream.write_all(b"busy")?;
        let mut back = [0; 4];
        // The reply may take longer than the pause, on a machine that does much else.
        stream.set_read_timeout(Some(support::PATIENCE))?;
        stream.read_exact(&mut back)?;
        assert_eq!(&back, b"busy");
        stream.set_read_timeout(Some(ms(10)))?;
        // Waits 10 ms for a byte that does not come.
        match again(|| stream.read(&mut back[..1])) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => panic!("a byte nobody sent"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[test]
fn busy_connections_finish() {
    bounded(|| {
        let _alone = alone();
        let server = echo(ms(10_000));
        let client = connect(server.address);
        ping(&client, b"before");
        server.handle.drain();
        talk(&client, ms(600)).expect("a busy connection goes on in a drain");
        client.shutdown(Shutdown::Write).expect("an open socket");
        expect_eof(&client);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::PeerClosed);
        let started = now();
        assert_eq!(server.join().drain_aborted, 0);
        assert!(started.elapsed() < ms(500), "over only {:?} after the last", started.elapsed());
    });
}

#[test]
fn bytes_under_way_are_all_sent() {
    bounded(|| {
        let _alone = alone();
        let server = echo(ms(5000));
        let client = connect(server.address);
        let taken = support::stuff(&client, 1);
        server.handle.drain();
        client.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(support::read_pattern(&client, 1).expect("all comes back"), taken);
        assert_eq!(server.join().drain_aborted, 0);
    });
}

#[test]
fn the_deadline_aborts_the_rest() {
    bounded(|| {
        let _alone = alone();
        let deadline = ms(700);
        let server = echo(deadline);
        // One that would never be asked to go, since bytes wait for it.
        let stalled = connect(server.address);
        support::stuff(&stalled, 1);
        let client = connect(server.address);
        ping(&client, b"before");
        let started = now();
        server.handle.drain();
        let error = talk(&client, ms(5000)).expect_err("the deadline ends it");
        assert!(
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{error}"
        );
        assert_kept("the drain's deadline", started.elapsed(), deadline);
        expect_reset(&stalled);
        let journal = server.journal.clone();
        assert_eq!(server.join().drain_aborted, 2);
        for n in 0..2 {
            assert_eq!(journal.nth_close(n).1, CloseReason::DrainDeadline);
        }
    });
}

#[test]
fn a_second_order_aborts_at_once() {
    bounded(|| {
        let _alone = alone();
        let server = echo(ms(20_000));
        let client = connect(server.address);
        support::stuff(&client, 1);
        let started = now();
        server.handle.drain();
        server.handle.abort();
        expect_reset(&client);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::DrainDeadline);
        server.join();
        assert!(started.elapsed() < ms(1000), "an abort takes {:?}", started.elapsed());
    });
}

#[test]
fn an_abort_needs_no_drain_before_it() {
    bounded(|| {
        let _alone = alone();
        let server = Server::start(two_reactors(), |_| Echo);
        let clients: Vec<_> = (0..50).map(|_| connect(server.address)).collect();
        clients.iter().for_each(|client| ping(client, b"hello"));
        server.handle.abort();
        for client in &clients {
            expect_reset(client);
        }
        assert_eq!(server.join().drain_aborted, 50);
    });
}

/// The kernel has told them that they are connected, and the reactor has not looked yet.
#[test]
fn clients_that_queue_when_the_drain_begins_are_served() {
    bounded(|| {
        let _alone = alone();
        let gate = Arc::new(Barrier::new(2));
        let halting = Halting { gate: Arc::clone(&gate) };
        let server =
            Server::start(one_reactor().drain_deadline(ms(4000)), move |_| halting.clone());
        let mut first = connect(server.address);
        first.write_all(&[0]).expect("a connection");
        gate.wait();
        let queued: Vec<_> = (0..300).map(|_| connect(server.address)).collect();
        for mut client in &queued {
            client.write_all(b"served").expect("a connection, as far as the kernel says");
        }
        server.handle.drain();
        gate.wait();
        for client in &queued {
            assert_eq!(read_bytes(client, 6), b"served");
        }
        let reader = spawn(move || queued.iter().for_each(expect_eof));
        reader.join().expect("all end in order");
        drop(first);
        let counters = server.join();
        assert_eq!((counters.accepted, counters.drain_aborted), (301, 0));
    });
}

/// The handshake of a client at the cap was the kernel's: the drain ends that connection, whatever way.
#[test]
fn clients_in_the_backlog_are_let_go() {
    bounded(|| {
        let _alone = alone();
        let server =
            Server::start(one_reactor().max_connections(1).drain_deadline(ms(500)), |_| Echo);
        let inside = connect(server.address);
        ping(&inside, b"hello");
        let outside = connect(server.address);
        server.handle.drain();
        expect_eof(&inside);
        drop(inside);
        // Closed, or served and closed; not left hanging.
        let ended = again(|| (&outside).read(&mut [0]));
        assert!(
            matches!(&ended, Ok(0))
                || ended.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
            "{ended:?}"
        );
        server.join();
    });
}

#[test]
fn relayed_connections_drain_too() {
    bounded(|| {
        let _alone = alone();
        let (upstream, address) = listener();
        let builder = one_reactor().max_dialed(64).drain_deadline(ms(5000));
        let server = Server::start(builder, move |reactor| Relay::new([address], reactor));
        let idle = connect(server.address);
        let idle_upstream = accept(&upstream);
        let busy = connect(server.address);
        let busy_upstream = accept(&upstream);
        server.handle.drain();
        let talker = spawn(move || {
            for n in 0..30 {
                write_pattern(&busy, n, 10_000, 3000).expect("a busy connection goes on");
                let mut expected = support::Pattern::new(n);
                assert_eq!(read_bytes(&busy_upstream, 10_000), expected.take(10_000));
                let waited = support::hears_within(&busy_upstream, ms(10));
                assert!(!waited, "ended while it was busy");
            }
        });
        expect_eof(&idle);
        expect_eof(&idle_upstream);
        drop((idle, idle_upstream));
        talker.join().expect("the busy one");
        assert_eq!(server.join().drain_aborted, 0);
    });
}
