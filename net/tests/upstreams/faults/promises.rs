//! What a relay with faults still promises, and what it holds.

use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc;

use slipring::{CloseReason, Conn, Counters, dial};

use super::{Proxy, faults, took};
use crate::support::{
    PATIENCE, alone, bounded, connect, echo_pattern, end, eventually, expect_eof, expect_reset,
    given_up, hears_within, ms, one_reactor, read_bytes, read_pattern, reporting, reset, spawn,
    stuff, sum, write_pattern,
};

#[test]
fn every_byte_comes_in_its_order_through_a_chain() {
    bounded(|| {
        let rules =
            "io share=100% latency=3ms jitter=9ms; io slice=1KiB..40KiB; io bandwidth=64MiB/s";
        let proxy = Proxy::of(rules);
        let (client, server) = proxy.ends();
        let echo = spawn(move || {
            let mut back = server.try_clone().expect("an open socket");
            std::io::copy(&mut &server, &mut back).expect("all of it");
            back.shutdown(Shutdown::Write).expect("half-closed");
        });
        echo_pattern(&client, 77, 1 << 20, 30_000);
        echo.join().expect("the echo");
        drop(client);
        let relayed = proxy.relayed();
        assert!(relayed.is_orderly(), "{relayed:?}");
        assert_eq!(relayed.first, CloseReason::PeerClosed);
        proxy.end();
    });
}

#[test]
fn without_a_rule_that_matches_it_is_a_relay() {
    bounded(|| {
        let faults =
            faults("io upstream=other reset; io share=0% reset; accept fail; connect refuse");
        let proxy = Proxy::start(&faults);
        let (mut client, server) = proxy.ends();
        client.write_all(b"there").expect("sent");
        assert_eq!(read_bytes(&server, 5), b"there");
        reset(client);
        assert_eq!(expect_reset(&server), 0);
        assert_eq!(proxy.relayed().first, CloseReason::Reset);
        assert_eq!(faults.hits(), [0; 4]);

        // Set anew, for those who come; and off.
        faults.set_rules("io reset=50ms".parse().expect("rules")).expect("sound");
        let (client, server) = proxy.ends();
        assert_eq!((expect_reset(&client), expect_reset(&server)), (0, 0));
        assert_eq!(faults.hits(), [1]);
        faults.turn_off();
        let (mut client, server) = proxy.ends();
        client.write_all(b"there").expect("sent");
        assert_eq!(read_bytes(&server, 5), b"there");
        drop((client, server));
        proxy.end();
    });
}

/// Nothing that its peers see tells it from one that does the same in a task.
#[test]
fn without_a_rule_that_matches_nothing_stands_between() {
    bounded(|| {
        let (_listener, upstream) = super::support::listener();
        let faults = faults("io upstream=slow latency=1ms; connect refuse");
        let (serving, told) =
            reporting(one_reactor().max_dialed(16), move |_client: Conn, tell: mpsc::Sender<_>| {
                let faults = faults.clone();
                async move {
                    for name in ["web", "slow"] {
                        let (one, other) = (dial(upstream).await, dial(upstream).await);
                        let [one, other] = [one, other].map(|conn| conn.expect("it listens"));
                        let relaying = faults.relay(one, other, "front", name);
                        tell.send(format!("{relaying:?}").contains("Plain")).expect("a test");
                    }
                }
            });
        let client = connect(serving.addresses()[0]);
        assert_eq!([(); 2].map(|()| told.recv_timeout(PATIENCE)), [Ok(true), Ok(false)]);
        drop(client);
        end(serving);
    });
}

#[test]
fn one_direction_lives_on_behind_the_end_of_the_other() {
    bounded(|| {
        let proxy = Proxy::of("io latency=20ms");
        let (mut client, mut server) = proxy.ends();
        client.write_all(b"request").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(read_bytes(&server, 7), b"request");
        expect_eof(&server);
        server.write_all(b"reply").expect("the other direction lives on");
        assert_eq!(read_bytes(&client, 5), b"reply");
        drop(server);
        expect_eof(&client);
        let relayed = proxy.relayed();
        assert!(relayed.is_orderly(), "{relayed:?}");
        proxy.end();
    });
}

/// Both FINs are in before any has passed: the connection of the first has ended by then.
#[test]
fn what_was_sent_before_an_end_passes_behind_it() {
    bounded(|| {
        let proxy = Proxy::of("io direction=to latency=300ms");
        let (mut client, server) = proxy.ends();
        client.write_all(b"last words").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        server.shutdown(Shutdown::Write).expect("half-closed");
        expect_eof(&client);
        drop(client);
        let (read, time) = took(|| read_bytes(&server, 10));
        assert_eq!(read, b"last words");
        assert!(time > ms(100), "it was held: {time:?}");
        expect_eof(&server);
        drop(server);
        let relayed = proxy.relayed();
        assert!(relayed.is_orderly(), "{relayed:?}");
        proxy.end();
    });
}

#[test]
fn a_reset_passes_on_at_once_past_what_is_held() {
    bounded(|| {
        let proxy = Proxy::of("io stall; io latency=1h");
        for is_client in [true, false] {
            let (mut client, mut server) = proxy.ends();
            client.write_all(b"held").expect("sent");
            server.write_all(b"held").expect("sent");
            assert!(!hears_within(&client, ms(50)));
            let (resets, other) = if is_client { (client, server) } else { (server, client) };
            reset(resets);
            let (before, time) = took(|| expect_reset(&other));
            assert_eq!(before, 0);
            assert!(time < ms(500), "{time:?}");
            assert!(!proxy.relayed().is_orderly());
        }
        proxy.end();
    });
}

/// A report from before the question tells nothing.
fn counters(proxy: &Proxy) -> Counters {
    let ask = || sum(&proxy.serving.handle().counters());
    let turns = ask().turns;
    eventually("it reports", || ask().turns > turns);
    ask()
}

/// What the reactor has received, and holds somewhere.
#[test]
fn no_more_is_received_than_is_held_for_a_fault() {
    bounded(|| {
        let _alone = alone();
        // What a turn leaves in the inbox, one piece more than is wanted, and what passes meanwhile.
        const BESIDES: u64 = (128 << 10) + (64 << 10) + (64 << 10);
        for (rules, held) in [
            ("io direction=to bandwidth=8KiB/s", 64 << 10),
            ("io stall", 64 << 10),
            ("io latency=1h", 1 << 20),
        ] {
            let proxy = Proxy::of(rules);
            let (client, server) = proxy.ends();
            let taken = stuff(&client, 9);
            let received = counters(&proxy).bytes_received;
            assert!(received < held + BESIDES, "{received} of {taken} through `{rules}`");
            assert!(received >= held && taken > received + (256 << 10), "{received} of {taken}");
            // Though nothing is received from it.
            reset(client);
            let (_, time) = took(|| expect_reset(&server));
            assert!(time < ms(600), "{time:?}");
            assert!(!proxy.relayed().is_orderly());
            proxy.end();
        }
    });
}

/// To who reads nothing at all, no more is sent than the outbox and the kernel hold.
#[test]
fn a_reader_that_does_not_read_holds_back_through_a_fault() {
    bounded(|| {
        let _alone = alone();
        let proxy = Proxy::of("io latency=1ms");
        let (client, server) = proxy.ends();
        let taken = stuff(&client, 9);
        let counters = counters(&proxy);
        let held = counters.bytes_received - counters.bytes_sent;
        assert!(held < (1 << 20) + (64 << 10) + (256 << 10), "{held} of {taken}");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(read_pattern(&server, 9).expect("all of it"), taken);
        drop((client, server));
        proxy.end();
    });
}

#[test]
fn a_reset_behind_a_fin_is_noticed_too() {
    bounded(|| {
        let proxy = Proxy::of("io latency=1ms");
        let (client, server) = proxy.ends();
        client.shutdown(Shutdown::Write).expect("half-closed");
        expect_eof(&server);
        reset(client);
        // The server is told by its next call only.
        let (relayed, time) = took(|| proxy.relayed());
        assert!(time < ms(600) && !relayed.is_orderly(), "{time:?}, {relayed:?}");
        drop(server);
        proxy.end();
    });
}

#[test]
fn what_was_held_back_comes_whole() {
    bounded(|| {
        let proxy = Proxy::of("io direction=to stall=100B for=500ms");
        let (client, server) = proxy.ends();
        let writer = spawn(move || {
            write_pattern(&client, 5, 8 << 20, 100_000).expect("all of it");
            client.shutdown(Shutdown::Write).expect("half-closed");
            client
        });
        assert_eq!(read_pattern(&server, 5).expect("all of it"), 8 << 20);
        drop((server, writer.join().expect("it wrote")));
        assert!(proxy.relayed().is_orderly());
        proxy.end();
    });
}

#[test]
fn dropped_it_resets_both_and_unpolled_it_closes_both() {
    bounded(|| {
        let faults = faults("io latency=5ms");
        given_up(move |client, server| faults.clone().relay(client, server, "front", "web"));
    });
}

#[test]
fn a_drain_waits_for_what_is_held_and_closes_what_is_idle() {
    bounded(|| {
        let proxy = Proxy::of("io direction=to latency=700ms");
        let (idle, idle_server) = proxy.ends();
        let (mut client, server) = proxy.ends();
        client.write_all(b"under way").expect("sent");
        assert!(!hears_within(&client, ms(50)));
        proxy.serving.handle().drain();
        expect_eof(&idle);
        drop((idle, idle_server));
        assert_eq!(read_bytes(&server, 9), b"under way");
        expect_eof(&server);
        drop((client, server));
        proxy.end();
    });
}
