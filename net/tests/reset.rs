//! A reset ends one connection at once, is told as what it is, and is seen as a reset on the other side:
//! the client's, ours, and both ways through a relay. Others go on.

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use slipring::{CloseReason, Ctx, Handler, Lease, Limits, Relay};
use support::{
    Echo, Server, accept, bounded, connect, echo_pattern, expect_reset, listener, one_reactor,
    ping, read_bytes, read_pattern, reset, spawn, stuff, write_pattern,
};

#[test]
fn a_client_resets_in_the_middle_and_others_go_on() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| Echo);
        let address = server.address;
        let other = spawn(move || echo_pattern(&connect(address), 1, 32 << 20, 200_000));
        for n in 0..50 {
            let client = connect(address);
            write_pattern(&client, n, 50_000, 50_000).expect("the server takes it");
            read_bytes(&client, 1000);
            reset(client);
        }
        other.join().expect("the one that goes on");
        for n in 0..51 {
            let reason = server.journal.nth_close(n).1;
            assert!(matches!(reason, CloseReason::Reset | CloseReason::PeerClosed), "{reason}");
        }
        let resets = |what| what == support::What::Close(CloseReason::Reset);
        assert_eq!(server.journal.count(resets), 50);
        assert_eq!(server.finish().accepted, 51);
    });
}

#[test]
fn a_reset_of_a_client_that_does_not_read() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| Echo);
        let client = connect(server.address);
        assert!(stuff(&client, 2) > 1 << 20);
        // The server has its outbox full and its reading held back: it learns of it by its watch.
        reset(client);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::Reset);
        ping(&connect(server.address), b"all buffers are back");
        server.finish();
    });
}

#[test]
fn a_reset_after_the_clients_end() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| Echo);
        let client = connect(server.address);
        stuff(&client, 3);
        client.shutdown(Shutdown::Write).expect("an open socket");
        reset(client);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::Reset);
        server.finish();
    });
}

/// Aborts at an `!`; sends megabytes before that at a `?`.
struct Aborts;

impl Handler for Aborts {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        if data.starts_with(b"?") {
            ctx.send(vec![7; 8 << 20]);
        }
        if data.ends_with(b"!") {
            ctx.abort();
            ctx.send("never heard");
        } else {
            ctx.send(data);
        }
    }
}

fn aborts() -> Server {
    let limits = Limits { outbox_bytes_max: 16 << 20, accepted_max: 64, ..Limits::default() };
    Server::start(one_reactor().limits(limits), |_| Aborts)
}

#[test]
fn an_abort_is_a_reset_to_the_client() {
    bounded(|| {
        let server = aborts();
        let other = connect(server.address);
        ping(&other, b"before");
        let mut client = connect(server.address);
        client.write_all(b"!").expect("the server takes it");
        assert_eq!(expect_reset(&client), 0);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::Aborted);
        ping(&other, b"after");
        drop(other);
        server.finish();
    });
}

#[test]
fn an_abort_drops_what_waits() {
    bounded(|| {
        let server = aborts();
        let mut client = connect(server.address);
        client.write_all(b"?").expect("the server takes it");
        read_bytes(&client, 1000);
        client.write_all(b"!").expect("the server takes it");
        let before = expect_reset(&client);
        assert!(before < 8 << 20, "all came before the reset");
        assert_eq!(server.journal.nth_close(0).1, CloseReason::Aborted);
        server.finish();
    });
}

/// A relay with one connection through it.
fn relayed() -> (Server, TcpStream, TcpStream) {
    let (upstream, address) = listener();
    let server =
        Server::start(one_reactor().max_dialed(64), move |reactor| Relay::new([address], reactor));
    let client = connect(server.address);
    let stream = accept(&upstream);
    write_pattern(&client, 9, 1000, 1000).expect("the relay takes it");
    read_bytes(&stream, 1000);
    (server, client, stream)
}

#[test]
fn a_relay_passes_the_clients_reset_on() {
    bounded(|| {
        let (server, client, upstream) = relayed();
        reset(client);
        expect_reset(&upstream);
        server.wait_until_over(1);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::Reset);
        assert_eq!(server.journal.nth_close(1).1, CloseReason::Aborted);
        server.finish();
    });
}

#[test]
fn a_relay_passes_the_upstreams_reset_on() {
    bounded(|| {
        let (server, client, upstream) = relayed();
        reset(upstream);
        expect_reset(&client);
        server.wait_until_over(1);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::Reset);
        assert_eq!(server.journal.nth_close(1).1, CloseReason::Aborted);
        server.finish();
    });
}

/// The upstream does not read: what the client sent stands in the relay, and the client's reset is only
/// noticed by whoever still looks at its socket.
#[test]
fn a_relay_passes_a_reset_on_while_its_outbox_is_full() {
    bounded(|| {
        let (server, client, upstream) = relayed();
        assert!(stuff(&client, 10) > 1 << 20);
        reset(upstream);
        expect_reset(&client);
        server.wait_until_over(1);
        server.finish();

        let (server, client, upstream) = relayed();
        assert!(stuff(&upstream, 10) > 1 << 20);
        reset(client);
        expect_reset(&upstream);
        server.wait_until_over(1);
        server.finish();
    });
}

/// A torn stream must not look like a whole one: the client has ended its own direction, then resets.
#[test]
fn a_relay_passes_a_reset_on_after_an_end() {
    bounded(|| {
        let (server, client, upstream) = relayed();
        upstream.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(read_pattern(&client, 0).expect("an orderly end"), 0);
        reset(client);
        expect_reset(&upstream);
        server.wait_until_over(1);
        server.finish();
    });
}

#[test]
fn a_relay_carries_others_while_some_are_reset() {
    bounded(|| {
        let upstream = Server::start(one_reactor(), |_| Echo);
        let to = upstream.address;
        let relay =
            Server::start(one_reactor().max_dialed(1024), move |reactor| Relay::new([to], reactor));
        let address = relay.address;
        let other = spawn(move || echo_pattern(&connect(address), 1, 16 << 20, 200_000));
        for n in 0..30 {
            let client = connect(address);
            write_pattern(&client, n, 30_000, 30_000).expect("the relay takes it");
            if n % 3 == 0 {
                read_bytes(&client, 1000);
            }
            reset(client);
        }
        other.join().expect("the one that goes on");
        relay.wait_until_over(31);
        upstream.wait_until_over(1);
        // Every reset was passed on: a client that was relayed at all left no upstream behind.
        let counters = relay.finish();
        assert_eq!(counters.accepted, 31);
        assert_eq!(counters.dialed, 31);
        upstream.finish();
    });
}
