//! Direct descriptors: the same bytes, ends, resets, deadlines and drains as without, and no descriptor for a client.
//! On a kernel that does not have what they take, a start with them is refused, and there is nothing else to test.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use slipring::{
    Builder, CloseReason, Ctx, Handler, Lease, Limits, Origin, Placement, Relay, SourceLimits,
    Timeout, Timeouts,
};
use support::{
    Echo, Server, What, again, alone, bounded, can_be_direct, connect, descriptors, echo_pattern,
    eventually, expect_eof, expect_reset, listener, ms, now, one_reactor, ping, read_bytes,
    read_pattern, reset, spawn, stuff, two_reactors, write_pattern,
};

/// Runs a test with nobody else who opens descriptors, if the kernel has what it takes.
fn directly(test: impl FnOnce() + Send + 'static) {
    bounded(|| {
        let _alone = alone();
        if can_be_direct() {
            test();
        }
    });
}

fn one() -> Builder {
    one_reactor().direct_descriptors(true)
}

#[test]
fn clients_have_no_descriptor() {
    directly(|| {
        let builder = two_reactors().direct_descriptors(true).placement(Placement::RoundRobin);
        let server = Server::start(builder, |_| Echo);
        let before = descriptors();
        let clients: Vec<TcpStream> = (0..200).map(|_| connect(server.address)).collect();
        clients.iter().for_each(|client| ping(client, b"hello"));
        // The other ends are this process's too.
        let taken = descriptors() - before;
        assert!(taken < 210, "{taken} descriptors for 200 connections to itself");
        eventually("some are handed over", || server.counters().handed_over > 0);
        // Who is asked to go is closed in order, and none is left behind.
        let handle = server.running().handle();
        handle.drain();
        clients.iter().for_each(expect_eof);
        drop(clients);
        assert_eq!(server.join().accepted, 200);
    });
}

#[test]
fn bytes_and_ends_are_as_ever() {
    directly(|| {
        let server = Server::start(two_reactors().direct_descriptors(true), |_| Echo);
        let address = server.address;
        let many: Vec<_> = (0..8)
            .map(|seed| spawn(move || echo_pattern(&connect(address), seed, 4 << 20, 100_000)))
            .collect();
        many.into_iter().for_each(|one| one.join().expect("no panic"));
        // Places are used again, by far more clients than there are at once.
        for n in 0..500_u64 {
            ping(&connect(address), &n.to_ne_bytes());
        }
        server.wait_until_over(508);
        assert_eq!(server.finish().accepted, 508);
    });
}

#[test]
fn a_client_that_resets() {
    directly(|| {
        let server = Server::start(one(), |_| Echo);
        for n in 0..20 {
            let client = connect(server.address);
            write_pattern(&client, n, 50_000, 50_000).expect("the server takes it");
            read_bytes(&client, 1000);
            reset(client);
        }
        let full = connect(server.address);
        assert!(stuff(&full, 2) > 1 << 20);
        reset(full);
        ping(&connect(server.address), b"all buffers are back");
        server.wait_until_over(22);
        server.finish();
    });
}

/// Aborts at an `!`, else floods.
struct Floods;

impl Handler for Floods {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _origin: Origin) {
        ctx.send("?");
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        match &*data {
            b"!" => ctx.abort(),
            _ => ctx.send(vec![7; 8 << 20]),
        }
    }
}

fn floods(timeouts: Timeouts) -> Server {
    let limits = Limits { outbox_bytes_max: 16 << 20, accepted_max: 64, ..Limits::default() };
    Server::start(one().limits(limits).timeouts(timeouts), |_| Floods)
}

#[test]
fn an_abort_is_a_reset() {
    directly(|| {
        let server = floods(Timeouts::default());
        let others: Vec<_> = (0..8).map(|_| connect(server.address)).collect();
        others.iter().for_each(|other| assert_eq!(read_bytes(other, 1), b"?"));
        for client in &others {
            let mut aborted = connect(server.address);
            aborted.write_all(b"!").expect("the server takes it");
            expect_reset(&aborted);
            let mut client = client;
            client.write_all(b"more").expect("the server takes it");
            read_bytes(client, 8 << 20);
        }
        drop(others);
        server.finish();
    });
}

/// How much is unsent is asked through the ring: a slow reader is told from one that stalls.
#[test]
fn a_slow_reader_is_not_a_stalled_one() {
    directly(|| {
        let write_stall = Timeout::After(ms(500));
        let server = floods(Timeouts { write_stall, ..Timeouts::default() });
        let mut client = support::connect_narrow(server.address);
        client.write_all(b"more").expect("the server takes it");
        let started = now();
        let mut buffer = vec![0; 64 << 10];
        while started.elapsed() < ms(2000) {
            let bytes = again(|| client.read(&mut buffer)).expect("slow is not stalled");
            assert!(bytes > 0, "the flood is not over");
            std::thread::park_timeout(ms(10));
        }
        assert_eq!(server.journal.count(|what| matches!(what, What::Close(_))), 0);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::WriteStall);
        drop(client);
        server.finish();
    });
}

/// Near the cap clients are accepted by calls, and beyond it they wait.
#[test]
fn the_cap_is_exact() {
    directly(|| {
        let server = Server::start(one().max_connections(3), |_| Echo);
        let mut clients: Vec<_> = (0..3).map(|_| connect(server.address)).collect();
        clients.iter().for_each(|client| ping(client, b"in"));
        for _ in 0..50 {
            let mut waits = connect(server.address);
            waits.write_all(b"out").expect("the kernel takes it");
            drop(clients.swap_remove(0));
            assert_eq!(read_bytes(&waits, 3), b"out");
            clients.push(waits);
        }
        drop(clients);
        server.wait_until_over(53);
        server.finish();
    });
}

/// The door asks for the address of a client before it has a place.
#[test]
fn the_door_is_kept() {
    directly(|| {
        let limits = SourceLimits { connections_max: Some(2), ..SourceLimits::default() };
        let server = Server::start(one().per_source(limits), |_| Echo);
        let two = [connect(server.address), connect(server.address)];
        two.iter().for_each(|client| ping(client, b"in"));
        let third = support::try_connect(server.address);
        if let Ok(third) = third {
            expect_reset(&third);
        }
        drop(two);
        eventually("both are over", || server.counters().closed == 2);
        let again = connect(server.address);
        ping(&again, b"in");
        drop(again);
        server.finish();
    });
}

/// Dialed connections are descriptors beside clients that are not.
#[test]
fn a_relay_between_both_kinds() {
    directly(|| {
        let (upstream, to) = listener();
        let limits = Limits { accepted_max: 16, dialed_max: 16, ..Limits::default() };
        let server = Server::start(one().limits(limits), move |reactor| Relay::new([to], reactor));
        let client = connect(server.address);
        let served = support::accept(&upstream);
        let bytes = 8 << 20;
        let writer = spawn(move || {
            write_pattern(&client, 5, bytes, 100_000).expect("it is relayed");
            client.shutdown(Shutdown::Write).expect("an open socket");
            read_pattern(&client, 6).expect("it is relayed")
        });
        assert_eq!(read_pattern(&served, 5).expect("it is relayed"), bytes);
        write_pattern(&served, 6, bytes, 100_000).expect("it is relayed");
        drop(served);
        assert_eq!(writer.join().expect("no panic"), bytes);
        server.wait_until_over(1);
        server.finish();
    });
}

/// Each of two reactors with every placement; who is aborted at the deadline is reset.
#[test]
fn a_drain_that_is_an_abort() {
    directly(|| {
        for placement in [Placement::LeastLoaded, Placement::RoundRobin, Placement::Kernel] {
            let builder = two_reactors().direct_descriptors(true).placement(placement);
            let server = Server::start(builder, |_| Echo);
            let clients: Vec<_> = (0..50).map(|_| connect(server.address)).collect();
            clients.iter().for_each(|client| ping(client, b"hello"));
            server.handle.abort();
            for client in &clients {
                expect_reset(client);
            }
            assert_eq!(server.join().drain_aborted, 50);
        }
    });
}
