//! The relay under load: long streams arrive byte for byte while others are reset at random, upstreams take
//! turns, those that refuse are skipped without a lost byte, and all that was used comes back.

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use slipring::{
    Builder, CloseReason, Conn, Ctx, DialError, Handler, Lease, Limits, Origin, Relay, Timeout,
    Timeouts, dial, relay, tasks,
};
use support::{
    BlackHole, Echo, Rng, Server, What, alone, assert_kept, bounded, connect, descriptors,
    echo_pattern, expect_eof, expect_reset, hears_within, ms, now, one_reactor, ping, read_bytes,
    refusing, reset, try_connect, two_reactors, write_pattern,
};

type RelayTo = fn(Builder, &[SocketAddr]) -> Server;

/// Runs a test with the handler that relays, and with tasks that do.
fn by_each(test: fn(RelayTo)) {
    for relay_to in [by_handler, by_tasks] {
        bounded(move || test(relay_to));
    }
}

fn by_handler(builder: Builder, upstreams: &[SocketAddr]) -> Server {
    let upstreams = upstreams.to_vec();
    Server::start(builder, move |reactor| Relay::new(upstreams.clone(), reactor))
}

fn by_tasks(builder: Builder, upstreams: &[SocketAddr]) -> Server {
    let upstreams: Arc<[SocketAddr]> = upstreams.into();
    Server::start(builder, move |reactor| {
        let (upstreams, mut next) = (Arc::clone(&upstreams), reactor);
        tasks(move |client| {
            next += 1;
            serve(client, Arc::clone(&upstreams), next - 1)
        })
    })
}

/// Dials upstreams in turn, each once, and relays to the first that is there.
async fn serve(mut client: Conn, upstreams: Arc<[SocketAddr]>, first: usize) {
    for turn in first..first + upstreams.len() {
        let upstream = loop {
            match dial(upstreams[turn % upstreams.len()]).await {
                Err(DialError::NotBegun(_)) => slipring::sleep(ms(20)).await,
                dialed => break dialed,
            }
        };
        if let Ok(upstream) = upstream {
            relay(client, upstream).await;
            return;
        }
    }
    client.abort();
}

/// Opens connections and resets them at random moments, some while their dial is under way.
fn reset_at_random(address: SocketAddr, seed: u64, count: u64) {
    let mut rng = Rng::new(seed);
    for n in 0..count {
        let client = connect(address);
        let bytes = rng.up_to(200_000) as u64;
        if !rng.one_in(4) {
            std::thread::scope(|scope| {
                // The echo may fill both directions: the writer then fails by the reset, not by us.
                scope.spawn(|| {
                    let _ = write_pattern(&client, n, bytes, 20_000);
                });
                if rng.one_in(2) {
                    read_bytes(&client, bytes as usize / 2 + 1);
                }
                if rng.one_in(3) {
                    let _ = client.shutdown(Shutdown::Write);
                }
                socket2::SockRef::from(&client)
                    .set_linger(Some(Duration::ZERO))
                    .expect("an open socket");
                // Ends the writer's wait; what follows is the reset.
                let _ = client.shutdown(Shutdown::Both);
            });
        }
        reset(client);
    }
}

fn stress(relay: &Server, streams: u64, bytes: u64, resets: u64) {
    std::thread::scope(|scope| {
        for n in 0..streams {
            scope.spawn(move || echo_pattern(&connect(relay.address), n, bytes, 300_000));
        }
        for n in 0..2 {
            scope.spawn(move || reset_at_random(relay.address, n, resets));
        }
    });
}

#[test]
fn long_streams_beside_random_resets() {
    by_each(|relay_to| {
        let _alone = alone();
        let before = descriptors();
        let upstream = Server::start(one_reactor(), |_| Echo);
        let relay = relay_to(two_reactors().max_dialed(1024), &[upstream.address]);
        stress(&relay, 4, 64 << 20, 100);
        relay.wait_until_over(204);
        upstream.wait_until_over(1);
        let counters = relay.finish();
        assert_eq!(counters.accepted, 204);
        assert_eq!(counters.dialed, 204);
        upstream.finish();
        assert_eq!(descriptors(), before, "a descriptor was left behind");
    });
}

/// Each of more than 200 resets would have to give its buffers back for this to come to an end.
#[test]
fn few_buffers_all_come_back() {
    by_each(|relay_to| {
        let _alone = alone();
        let limits = Limits { buffers: 16, buffer_bytes: 4096, ..Limits::default() };
        let limits = Limits { accepted_max: 256, dialed_max: 256, ..limits };
        let upstream = Server::start(one_reactor(), |_| Echo);
        let relay = relay_to(one_reactor().limits(limits), &[upstream.address]);
        stress(&relay, 4, 4 << 20, 120);
        relay.wait_until_over(244);
        // Nobody holds one now: sixteen messages of a buffer each are under way at once.
        let clients: Vec<_> = (0..16).map(|_| connect(relay.address)).collect();
        for _ in 0..20 {
            for mut client in &clients {
                client.write_all(&[1; 4096]).expect("the relay takes it");
            }
            for client in &clients {
                assert_eq!(read_bytes(client, 4096), [1; 4096]);
            }
        }
        drop(clients);
        relay.wait_until_over(260);
        relay.finish();
        upstream.finish();
    });
}

/// Says its name, then echoes.
struct Named(&'static str);

impl Handler for Named {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _origin: Origin) {
        ctx.send(self.0);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

fn named(name: &'static str) -> Server {
    Server::start(one_reactor(), move |_| Named(name))
}

#[test]
fn upstreams_take_turns() {
    by_each(|relay_to| {
        let _alone = alone();
        let upstreams = [named("a"), named("b"), named("c")];
        let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
        let relay = relay_to(one_reactor().max_dialed(64), &addresses);
        let mut order = String::new();
        for _ in 0..9 {
            let client = connect(relay.address);
            order.push(char::from(read_bytes(&client, 1)[0]));
        }
        assert_eq!(order, "abcabcabc");
        relay.finish();
        for upstream in upstreams {
            assert_eq!(upstream.finish().accepted, 3);
        }
    });
}

#[test]
fn an_upstream_that_refuses_is_skipped_without_a_lost_byte() {
    by_each(|relay_to| {
        let _alone = alone();
        let (_socket, refusing) = refusing();
        let upstream = Server::start(one_reactor(), |_| Echo);
        let relay = relay_to(one_reactor().max_dialed(64), &[refusing, refusing, upstream.address]);
        for n in 0..30 {
            echo_pattern(&connect(relay.address), n, 100_000, 100_000);
        }
        relay.wait_until_over(30);
        let refused = relay.journal.count(|what| {
            matches!(what, What::Close(CloseReason::DialFailed(slipring::Fault::Refused)))
        });
        assert_eq!(refused, 10 * (2 + 1), "each turn starts with the next");
        let counters = relay.finish();
        assert_eq!((counters.accepted, counters.dialed), (30, 60));
        assert_eq!(upstream.finish().accepted, 30);
    });
}

/// The limit of dialed connections is as tight as the command line makes it: one for each client.
#[test]
fn skipping_needs_no_second_place_among_the_dialed() {
    by_each(|relay_to| {
        let _alone = alone();
        let (_socket, refusing) = refusing();
        let upstream = Server::start(one_reactor(), |_| Echo);
        let relay = relay_to(
            one_reactor().max_connections(1).max_dialed(1),
            &[refusing, refusing, upstream.address],
        );
        for n in 0..5 {
            echo_pattern(&connect(relay.address), n, 10_000, 10_000);
        }
        relay.finish();
        upstream.finish();
    });
}

#[test]
fn all_refuse_and_the_client_is_reset() {
    by_each(|relay_to| {
        let _alone = alone();
        let (_socket, refusing) = refusing();
        // With places to spare, and with as few as there are clients.
        for dialed_max in [64, 1] {
            let relay = relay_to(one_reactor().max_dialed(dialed_max), &[refusing, refusing]);
            for _ in 0..5 {
                match try_connect(relay.address) {
                    Ok(client) => {
                        // The reset may be there before it.
                        let _ = (&client).write_all(b"are you there?");
                        assert_eq!(expect_reset(&client), 0);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
            relay.wait_until_over(5);
            let aborted = relay.journal.count(|what| what == What::Close(CloseReason::Aborted));
            assert_eq!(aborted, 5);
            assert_eq!(relay.finish().dialed, 10, "each upstream is tried once");
        }
    });
}

#[test]
fn an_upstream_that_does_not_answer_is_skipped_at_the_dial_deadline() {
    by_each(|relay_to| {
        let _alone = alone();
        let black_hole = BlackHole::new();
        let upstream = Server::start(one_reactor(), |_| Echo);
        let timeouts = Timeouts { dial: Timeout::After(ms(300)), ..Timeouts::default() };
        let relay = relay_to(
            one_reactor().max_dialed(64).timeouts(timeouts),
            &[black_hole.address, upstream.address],
        );
        let started = now();
        let client = connect(relay.address);
        ping(&client, b"some bytes that came before the upstream did");
        assert_kept("the second upstream", started.elapsed(), ms(300));
        drop(client);
        assert_eq!(relay.journal.nth_close(0).1, CloseReason::DialTimeout);
        relay.finish();
        upstream.finish();
    });
}

/// The client leaves while its upstream is being dialed, in order and by a reset.
#[test]
fn a_client_that_leaves_during_the_dial_leaves_nothing_behind() {
    by_each(|relay_to| {
        let _alone = alone();
        let black_hole = BlackHole::new();
        let timeouts = Timeouts { dial: Timeout::After(ms(300)), ..Timeouts::default() };
        let relay =
            relay_to(one_reactor().max_dialed(64).timeouts(timeouts), &[black_hole.address]);
        let ended = connect(relay.address);
        let reset_one = connect(relay.address);
        relay.journal.nth_open(1);
        drop(ended);
        reset(reset_one);
        relay.wait_until_over(2);
        assert_eq!(relay.finish().closed, 4);
    });
}

#[test]
fn a_client_beyond_the_limit_of_dials_waits_for_its_turn() {
    by_each(|relay_to| {
        let _alone = alone();
        let upstream = Server::start(one_reactor(), |_| Echo);
        let relay = relay_to(one_reactor().max_dialed(1), &[upstream.address]);
        let first = connect(relay.address);
        ping(&first, b"the one");
        let mut second = connect(relay.address);
        second.write_all(b"wait").expect("the kernel takes it");
        assert!(!hears_within(&second, ms(100)), "more were dialed than may be");
        ping(&first, b"still there");
        drop(first);
        assert_eq!(read_bytes(&second, 4), b"wait");
        drop(second);
        relay.wait_until_over(2);
        ping(&connect(relay.address), b"the next");
        assert_eq!(relay.finish().dialed, 3);
        upstream.finish();
    });
}

/// A client that does not read holds its upstream back, and the relay's memory stays small.
#[test]
fn a_client_that_does_not_read_holds_back_its_upstream_only() {
    by_each(|relay_to| {
        let _alone = alone();
        let upstream = Server::start(one_reactor(), |_| Echo);
        let relay = relay_to(one_reactor().max_dialed(64), &[upstream.address]);
        let lazy = connect(relay.address);
        let taken = support::stuff(&lazy, 1);
        let other = connect(relay.address);
        for _ in 0..100 {
            ping(&other, b"others go on");
        }
        assert!(!hears_within(&other, ms(10)));
        lazy.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(support::read_pattern(&lazy, 1).expect("all comes back"), taken);
        drop(lazy);
        other.shutdown(Shutdown::Write).expect("an open socket");
        expect_eof(&other);
        relay.wait_until_over(2);
        relay.finish();
        upstream.finish();
    });
}
