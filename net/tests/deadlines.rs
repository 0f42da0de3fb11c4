//! Every deadline ends what it is for, with its own reason, not before its time and not long after; activity
//! moves those that are about silence.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use slipring::{
    Builder, CloseReason, Connections, Ctx, Fault, Handler, Lease, Limits, Origin, Poll, Timeout,
    Timeouts,
};
use support::{
    BlackHole, Echo, Journal, Server, What, accept, again, assert_kept, bounded, connect,
    expect_eof, expect_reset, hears_within, listener, ms, now, one_reactor, ping, read_bytes,
    refusing,
};

/// Every deadline far away but those that a test sets.
const FAR: Timeouts = Timeouts {
    idle: Timeout::seconds(100),
    write_stall: Timeout::seconds(100),
    half_closed: Timeout::seconds(100),
    dial: Timeout::seconds(100),
    linger: Timeout::seconds(100),
    first_byte: Timeout::Never,
};

fn with(timeouts: Timeouts) -> Builder {
    let limits =
        Limits { outbox_bytes_max: 16 << 20, accepted_max: 64, dialed_max: 8, ..Limits::default() };
    one_reactor().limits(limits).timeouts(timeouts)
}

fn after(milliseconds: u64) -> Timeout {
    Timeout::After(ms(milliseconds))
}

/// The first connection to end did so for this reason, so long after `since`.
#[track_caller]
fn assert_ended(server: &Server, reason: CloseReason, since: Instant, timeout_ms: u64) {
    let (entry, seen) = server.journal.nth_close(0);
    assert_eq!(seen, reason);
    assert_kept("its end", entry.at.duration_since(since), ms(timeout_ms));
}

/// A client that says nothing is told of its end when the idle timeout has passed.
fn silence_ends(poll: Poll, idle_ms: u64) {
    let builder = with(Timeouts { idle: after(idle_ms), ..FAR }).poll(poll);
    let server = Server::start(builder, |_| Echo);
    let silent = connect(server.address);
    let opened = server.journal.nth_open(0).at;
    expect_eof(&silent);
    assert_ended(&server, CloseReason::IdleTimeout, opened, idle_ms);
    server.finish();
}

#[test]
fn idle() {
    bounded(|| silence_ends(Poll::Off, 300));
}

/// The time for which the queue is watched is part of the wait, not before it.
#[test]
fn idle_of_a_reactor_that_polls() {
    bounded(|| {
        for poll in [Poll::Adaptive, Poll::Always] {
            silence_ends(poll, 1000);
        }
    });
}

#[test]
fn idle_is_moved_by_bytes() {
    bounded(|| {
        let server = Server::start(with(Timeouts { idle: after(300), ..FAR }), |_| Echo);
        let client = connect(server.address);
        let started = now();
        while started.elapsed() < ms(900) {
            ping(&client, b"alive");
            assert!(!hears_within(&client, ms(50)), "ended while it was busy");
        }
        let last = now();
        ping(&client, b"the last");
        expect_eof(&client);
        assert_ended(&server, CloseReason::IdleTimeout, last, 300);
        server.finish();
    });
}

/// Sets the idle timeout a client asks for: `n` for never, otherwise a short one.
struct SetsIdle;

impl Handler for SetsIdle {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.set_idle_timeout(match &*data {
            b"n" => Timeout::Never,
            _ => after(300),
        });
        ctx.send(data);
    }
}

#[test]
fn idle_of_one_connection() {
    bounded(|| {
        let server = Server::start(with(Timeouts { idle: after(600), ..FAR }), |_| SetsIdle);
        let never = connect(server.address);
        ping(&never, b"n");
        let short = connect(server.address);
        let asked = now();
        ping(&short, b"s");
        expect_eof(&short);
        assert_ended(&server, CloseReason::IdleTimeout, asked, 300);
        assert!(!hears_within(&never, ms(600)), "never is longer than that");
        ping(&never, b"n");
        drop(never);
        assert_eq!(server.journal.nth_close(1).1, CloseReason::PeerClosed);
        server.finish();
    });
}

/// Sends megabytes at the first byte, and notes when.
struct Floods {
    journal: Journal,
}

impl Handler for Floods {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, _data: Lease) {
        ctx.send(vec![5; 15 << 20]);
        self.journal.note(0, ctx.key(), What::Note(0));
    }
}

fn floods(timeouts: Timeouts) -> Server {
    let journal = Journal::new();
    let notes = journal.clone();
    Server::start_with(with(timeouts), journal, move |_| Floods { journal: notes.clone() })
}

#[test]
fn write_stall() {
    bounded(|| {
        let server = floods(Timeouts { write_stall: after(400), ..FAR });
        let mut client = support::connect_narrow(server.address);
        client.write_all(b"?").expect("the server takes it");
        let sent = server.journal.nth(0, |what| what == What::Note(0), "the flood").at;
        assert_ended(&server, CloseReason::WriteStall, sent, 400);
        assert!(expect_reset(&client) < 15 << 20);
        server.finish();
    });
}

#[test]
fn write_stall_of_an_echo() {
    bounded(|| {
        let server = Server::start(with(Timeouts { write_stall: after(700), ..FAR }), |_| Echo);
        let mut client = connect(server.address);
        let started = now();
        let block = vec![1; 64 << 10];
        let mut sent = 0;
        // Until the reset: more than fits between the two is never taken.
        while let Ok(bytes) = again(|| client.write(&block)) {
            sent += bytes;
        }
        let (entry, reason) = server.journal.nth_close(0);
        assert_eq!(reason, CloseReason::WriteStall);
        assert!(sent > 1 << 20, "only {sent} B were taken");
        // When everything between the two was full is not known, but it does not take long.
        assert!(entry.at.duration_since(started) >= ms(700));
        assert_kept("its end", entry.at.duration_since(started), ms(700));
        server.finish();
    });
}

/// A slow reader is not a stalled one. The bytes it takes are far fewer than fit the server's socket.
#[test]
fn write_stall_is_moved_by_progress() {
    bounded(|| {
        let server = floods(Timeouts { write_stall: after(500), ..FAR });
        let mut client = support::connect_narrow(server.address);
        client.write_all(b"?").expect("the server takes it");
        // Four times as long as a stall may last, but something moves all the time.
        let started = now();
        let mut buffer = vec![0; 64 << 10];
        while started.elapsed() < ms(2000) {
            let bytes = again(|| client.read(&mut buffer)).expect("slow is not stalled");
            assert!(bytes > 0, "the flood is not over");
            std::thread::park_timeout(ms(10));
        }
        assert_eq!(server.journal.count(|what| matches!(what, What::Close(_))), 0);
        // And a reader that has been slow is stalled once it stops.
        assert_eq!(server.journal.nth_close(0).1, CloseReason::WriteStall);
        drop(client);
        server.finish();
    });
}

/// Keeps its own direction open after the client's end; or ends its own first, at a `!`.
struct StaysOpen;

impl Handler for StaysOpen {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        match &*data {
            b"!" => ctx.shutdown(),
            _ => ctx.send(data),
        }
    }

    fn on_eof(&mut self, _ctx: &mut Ctx<'_, ()>) {}
}

#[test]
fn half_closed_by_the_client() {
    bounded(|| {
        let server =
            Server::start(with(Timeouts { half_closed: after(300), ..FAR }), |_| StaysOpen);
        let client = connect(server.address);
        ping(&client, b"hello");
        let ended = now();
        client.shutdown(Shutdown::Write).expect("an open socket");
        expect_reset(&client);
        assert_ended(&server, CloseReason::HalfClosedTimeout, ended, 300);
        server.finish();
    });
}

#[test]
fn half_closed_by_us() {
    bounded(|| {
        let server =
            Server::start(with(Timeouts { half_closed: after(300), ..FAR }), |_| StaysOpen);
        let mut client = connect(server.address);
        let asked = now();
        client.write_all(b"!").expect("the server takes it");
        expect_eof(&client);
        assert!(asked.elapsed() < ms(250), "our end came late");
        // Bytes move it.
        let mut last = now();
        while asked.elapsed() < ms(700) {
            last = now();
            client.write_all(b"alive").expect("still open");
            std::thread::park_timeout(ms(50));
        }
        assert_ended(&server, CloseReason::HalfClosedTimeout, last, 300);
        server.finish();
    });
}

/// Dials at the start, and again nowhere.
struct Dials {
    to: SocketAddr,
}

impl Handler for Dials {
    type State = ();

    fn on_start(&mut self, connections: &mut Connections<()>) {
        let key = connections.dial(self.to, ()).expect("a dial is allowed");
        // Waits for the outcome.
        connections.send_to(key, "hello");
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

#[test]
fn dial_to_a_black_hole() {
    bounded(|| {
        let black_hole = BlackHole::new();
        let to = black_hole.address;
        let started = now();
        let server =
            Server::start(with(Timeouts { dial: after(300), ..FAR }), move |_| Dials { to });
        assert_ended(&server, CloseReason::DialTimeout, started, 300);
        assert_eq!(server.journal.count(|what| matches!(what, What::Open(_))), 0);
        assert_eq!(server.finish().dialed, 1);
    });
}

#[test]
fn dial_to_nobody() {
    bounded(|| {
        let (_socket, to) = refusing();
        let started = now();
        let server = Server::start(with(FAR), move |_| Dials { to });
        assert_ended(&server, CloseReason::DialFailed(Fault::Refused), started, 0);
        server.finish();
    });
}

#[test]
fn the_dial_deadline_is_over_once_connected() {
    bounded(|| {
        let (upstream, to) = listener();
        let timeouts = Timeouts { dial: after(200), ..FAR };
        let server = Server::start(with(timeouts), move |_| Dials { to });
        let stream = accept(&upstream);
        assert_eq!(read_bytes(&stream, 5), b"hello");
        assert_eq!(server.journal.nth_open(0).what, What::Open(Origin::Dialed));
        assert!(!hears_within(&stream, ms(500)), "ended though it was connected");
        ping(&stream, b"still there");
        drop(stream);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::PeerClosed);
        server.finish();
    });
}

/// Answers and closes.
struct Closes;

impl Handler for Closes {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
        ctx.close();
    }
}

#[test]
fn linger_for_a_client_that_does_not_end() {
    bounded(|| {
        let server = Server::start(with(Timeouts { linger: after(300), ..FAR }), |_| Closes);
        let client = connect(server.address);
        let asked = now();
        ping(&client, b"bye");
        expect_eof(&client);
        assert!(asked.elapsed() < ms(250), "our end waited for the client's");
        assert_ended(&server, CloseReason::LocalClosed, asked, 300);
        server.finish();
    });
}

#[test]
fn linger_is_cut_short_by_the_clients_end() {
    bounded(|| {
        let server = Server::start(with(FAR), |_| Closes);
        let client = connect(server.address);
        let asked = now();
        ping(&client, b"bye");
        expect_eof(&client);
        drop(client);
        assert_ended(&server, CloseReason::LocalClosed, asked, 0);
        server.finish();
    });
}

/// A client that goes on sending is not read for ever: 64 KiB are dropped, no more.
#[test]
fn linger_is_cut_short_by_a_client_that_sends_on() {
    bounded(|| {
        let server = Server::start(with(FAR), |_| Closes);
        let mut client = connect(server.address);
        ping(&client, b"bye");
        expect_eof(&client);
        let block = [1; 16 << 10];
        let mut sent = 0;
        while client.write_all(&block).is_ok() {
            sent += block.len();
            assert!(sent < 64 << 20, "nobody stops it");
        }
        assert_eq!(server.journal.nth_close(0).1, CloseReason::LocalClosed);
        let counters = server.finish();
        assert!(counters.bytes_received < 1 << 20, "{} B were read", counters.bytes_received);
    });
}

/// Pings a silent peer.
struct KeepsAlive;

impl Handler for KeepsAlive {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _origin: Origin) {
        ctx.set_keep_alive(after(200));
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

#[test]
fn keep_alive_comes_in_silence_only() {
    bounded(|| {
        let server = Server::start(with(Timeouts { idle: after(1000), ..FAR }), |_| KeepsAlive);
        let client = connect(server.address);
        let started = now();
        while started.elapsed() < ms(600) {
            ping(&client, b"alive");
            assert!(!hears_within(&client, ms(40)), "ended");
        }
        assert_eq!(server.journal.count(|what| what == What::KeepAlive), 0);
        let mut last = now();
        ping(&client, b"the last");
        for n in 0..3 {
            let called = server.journal.nth(n, |what| what == What::KeepAlive, "a keep-alive").at;
            assert_kept("a keep-alive", called.duration_since(last), ms(200));
            last = called;
        }
        // It is no activity by itself: a callback that does nothing keeps nothing alive.
        expect_eof(&client);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::IdleTimeout);
        server.finish();
    });
}

#[test]
fn first_byte() {
    bounded(|| {
        let server = Server::start(with(Timeouts { first_byte: after(300), ..FAR }), |_| Echo);
        let speaks = connect(server.address);
        ping(&speaks, b"hello");
        let silent = connect(server.address);
        let opened = server.journal.nth_open(1).at;
        assert_eq!(expect_reset(&silent), 0);
        assert_ended(&server, CloseReason::PhaseTimeout, opened, 300);
        // Who has spoken may be silent for as long as it likes.
        assert!(!hears_within(&speaks, ms(400)), "it has spoken");
        ping(&speaks, b"still there");
        drop(speaks);
        assert_eq!(server.journal.nth_close(1).1, CloseReason::PeerClosed);
        assert_eq!(server.finish().phase_timeouts, 1);
    });
}

/// The handshake is over with a `!`, and has to be within 200 ms. Every byte is answered.
struct Shakes;

impl Handler for Shakes {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _origin: Origin) {
        ctx.set_phase_deadline(after(200));
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        if data.ends_with(b"!") {
            ctx.end_phase();
        }
        ctx.send(data);
    }
}

/// A byte now and then, in both directions, keeps nothing alive, and the timeout for the first byte is the
/// handler's to replace.
#[test]
fn a_phase_is_not_moved_by_bytes() {
    bounded(|| {
        let timeouts = Timeouts { first_byte: after(50), ..FAR };
        let server = Server::start(with(timeouts), |_| Shakes);
        let done = connect(server.address);
        ping(&done, b"!");
        let mut slow = connect(server.address);
        let opened = server.journal.nth_open(1).at;
        let mut sent = 0;
        while again(|| slow.write(b"?")).is_ok() {
            sent += 1;
            assert!(sent < 500, "nobody stops it");
            std::thread::park_timeout(ms(20));
        }
        assert!(sent >= 4, "it was a trickle: {sent}");
        assert_ended(&server, CloseReason::PhaseTimeout, opened, 200);
        assert!(!hears_within(&done, ms(300)), "its phase is over");
        ping(&done, b"still there");
        drop((done, slow));
        assert_eq!(server.finish().phase_timeouts, 1);
    });
}
