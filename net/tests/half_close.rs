//! Each direction of a connection ends by itself: the client's first with megabytes still due to it, ours
//! first with the client still sending; straight, and through a relay. No byte is lost either way.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use slipring::{CloseReason, Ctx, Handler, Lease, Limits, Origin, Relay};
use support::{
    Check, Echo, Journal, Pattern, Server, What, accept, bounded, connect, eventually, expect_eof,
    listener, ms, one_reactor, read_bytes, read_pattern, spawn, stuff, write_pattern,
};

const MEBIBYTES: usize = 8 << 20;

fn relay_to(upstream: SocketAddr) -> Server {
    Server::start(one_reactor().max_dialed(64), move |reactor| Relay::new([upstream], reactor))
}

#[test]
fn an_echo_still_sends_all_after_the_clients_end() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| Echo);
        let client = connect(server.address);
        let taken = stuff(&client, 1);
        assert!(taken > 1 << 20, "only {taken} bytes fit between the two");
        client.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(read_pattern(&client, 1).expect("all of it comes"), taken);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::PeerClosed);
        assert_eq!(server.finish().bytes_sent, taken);
    });
}

/// Answers a request's first byte with megabytes, all at once.
struct LargeReply;

impl Handler for LargeReply {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, _request: Lease) {
        let mut pattern = Pattern::new(2);
        for _ in 0..8 {
            ctx.send(pattern.take(MEBIBYTES / 8));
        }
    }
}

#[test]
fn a_reply_of_megabytes_outlives_the_clients_end() {
    bounded(|| {
        let limits = Limits { outbox_bytes_max: 16 << 20, accepted_max: 64, ..Limits::default() };
        let server = Server::start(one_reactor().limits(limits), |_| LargeReply);
        let mut client = connect(server.address);
        client.write_all(b"?").expect("the server takes it");
        client.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(read_pattern(&client, 2).expect("all of it comes"), MEBIBYTES as u64);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::PeerClosed);
        server.finish();
    });
}

/// A poll tells unasked, and as often as it is armed, that the peer's FIN is in.
#[test]
fn a_reader_that_stalls_after_its_end_costs_no_turns() {
    bounded(|| {
        let limits = Limits { outbox_bytes_max: 16 << 20, accepted_max: 64, ..Limits::default() };
        let server = Server::start(one_reactor().limits(limits), |_| LargeReply);
        let mut client = connect(server.address);
        client.write_all(b"?").expect("the server takes it");
        client.shutdown(Shutdown::Write).expect("an open socket");
        eventually("the socket is full", || server.counters().sends_blocked > 0);
        let before = server.counters().turns;
        // A client to whom nothing comes waits beside it.
        let mut quiet = connect(server.address);
        quiet.set_read_timeout(Some(ms(300))).expect("an open socket");
        quiet.read(&mut [0]).expect_err("nothing comes");
        let turns = server.counters().turns - before;
        assert!(turns < 100, "{turns} turns for a peer that does nothing");
        assert_eq!(read_pattern(&client, 2).expect("all of it comes"), MEBIBYTES as u64);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::PeerClosed);
        server.finish();
    });
}

/// Says a word, ends its own direction, and goes on comparing what comes.
struct TalksFirst {
    journal: Journal,
}

impl Handler for TalksFirst {
    type State = Option<Check>;

    fn on_open(&mut self, ctx: &mut Ctx<'_, Self::State>, _origin: Origin) {
        *ctx.state() = Some(Check::new(3));
        ctx.send("hello");
        ctx.shutdown();
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, Self::State>, data: Lease) {
        ctx.send("never heard: our direction is closed");
        ctx.state().as_mut().expect("made at the start").next(&data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        let bytes = ctx.state().as_ref().expect("made at the start").bytes;
        self.journal.note(0, ctx.key(), What::Note(bytes));
    }
}

#[test]
fn the_server_ends_first_and_still_receives_all() {
    bounded(|| {
        let journal = Journal::new();
        let note = journal.clone();
        let make = move |_| TalksFirst { journal: note.clone() };
        let server = Server::start_with(one_reactor(), journal, make);
        let client = connect(server.address);
        assert_eq!(read_bytes(&client, 5), b"hello");
        expect_eof(&client);
        write_pattern(&client, 3, MEBIBYTES as u64, 200_000).expect("the server still receives");
        client.shutdown(Shutdown::Write).expect("an open socket");
        let bytes = server.journal.nth(0, |what| matches!(what, What::Note(_)), "the client's end");
        assert_eq!(bytes.what, What::Note(MEBIBYTES as u64));
        assert_eq!(server.journal.nth_close(0).1, CloseReason::LocalClosed);
        let counters = server.finish();
        assert_eq!((counters.bytes_sent, counters.handler_panics), (5, 0));
    });
}

#[test]
fn both_end_at_the_same_time() {
    bounded(|| {
        let journal = Journal::new();
        let note = journal.clone();
        let make = move |_| TalksFirst { journal: note.clone() };
        let server = Server::start_with(one_reactor(), journal, make);
        for n in 0..100 {
            let client = connect(server.address);
            client.shutdown(Shutdown::Write).expect("an open socket");
            assert_eq!(read_bytes(&client, 5), b"hello");
            expect_eof(&client);
            server.journal.nth_close(n);
        }
        server.finish();
    });
}

#[test]
fn a_relay_passes_the_clients_end_on_and_the_reply_back() {
    bounded(|| {
        let (upstream, address) = listener();
        let server = relay_to(address);
        let client = connect(server.address);
        let upstream = spawn(move || {
            let stream = accept(&upstream);
            let request = read_pattern(&stream, 4).expect("the request comes");
            // Only now that the client's direction is over.
            write_pattern(&stream, 5, MEBIBYTES as u64, 200_000)
                .expect("the relay takes the reply");
            request
        });
        write_pattern(&client, 4, MEBIBYTES as u64, 200_000).expect("the relay takes the request");
        client.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(read_pattern(&client, 5).expect("the reply comes"), MEBIBYTES as u64);
        assert_eq!(upstream.join().expect("the upstream"), MEBIBYTES as u64);
        assert_orderly(&server);
        server.finish();
    });
}

#[test]
fn a_relay_passes_the_upstreams_end_on_and_the_request_through() {
    bounded(|| {
        let (upstream, address) = listener();
        let server = relay_to(address);
        let client = connect(server.address);
        let upstream = spawn(move || {
            let stream = accept(&upstream);
            write_pattern(&stream, 6, MEBIBYTES as u64, 200_000).expect("the relay takes it");
            stream.shutdown(Shutdown::Write).expect("an open socket");
            read_pattern(&stream, 7).expect("the client still sends")
        });
        assert_eq!(read_pattern(&client, 6).expect("the upstream's part"), MEBIBYTES as u64);
        write_pattern(&client, 7, MEBIBYTES as u64, 200_000).expect("the relay takes it");
        client.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(upstream.join().expect("the upstream"), MEBIBYTES as u64);
        assert_orderly(&server);
        server.finish();
    });
}

/// The client's end is there before its upstream is reached, with bytes before it.
#[test]
fn a_relay_keeps_what_came_before_the_dial_was_answered() {
    bounded(|| {
        let (upstream, address) = listener();
        let server = relay_to(address);
        for n in 0..50 {
            let client = connect(server.address);
            write_pattern(&client, n, 10_000, 10_000).expect("the kernel takes it");
            client.shutdown(Shutdown::Write).expect("an open socket");
            let stream = accept(&upstream);
            assert_eq!(read_pattern(&stream, n).expect("the request comes"), 10_000);
            drop(stream);
            expect_eof(&client);
        }
        server.wait_until_over(50);
        assert_eq!(server.finish().dialed, 50);
    });
}

#[track_caller]
fn assert_orderly(server: &Server) {
    for n in 0..2 {
        let (_, reason) = server.journal.nth_close(n);
        assert!(!reason.is_abortive(), "a leg ended with: {reason}");
    }
}
