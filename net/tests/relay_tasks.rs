//! What only a relay of tasks can be asked: bytes received before it begins, dropping it, how it ended.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;

use slipring::{Builder, CloseReason, Conn, Relayed, dial, relay, sleep, spawn_local};

use support::{
    PATIENCE, bounded, connect, drained, end, expect_eof, expect_reset, given_up, hears_within, ms,
    one_reactor, read_bytes, reporting,
};

/// A relay's two ends: a client, and what it was relayed to.
fn ends(relay: SocketAddr, upstream: &std::net::TcpListener) -> (TcpStream, TcpStream) {
    let client = connect(relay);
    (client, support::accept(upstream))
}

fn relays(builder: Builder) -> Builder {
    builder.max_dialed(16)
}

/// Relays each client there and reports how that ended.
fn relay_to(
    upstream: SocketAddr,
) -> impl Fn(Conn, mpsc::Sender<Relayed>) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Clone {
    move |client, tell| {
        Box::pin(async move {
            let server = dial(upstream).await.expect("it listens");
            tell.send(relay(client, server).await).expect("the test waits");
        })
    }
}

#[test]
fn how_it_ended_is_told() {
    bounded(|| {
        let (listener, upstream) = support::listener();
        let (serving, told) = reporting(relays(one_reactor()), relay_to(upstream));
        let address = serving.addresses()[0];

        let (mut client, mut server) = ends(address, &listener);
        client.write_all(b"request").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(read_bytes(&server, 7), b"request");
        expect_eof(&server);
        server.write_all(b"reply").expect("the other direction lives on");
        assert_eq!(read_bytes(&client, 5), b"reply");
        drop(server);
        expect_eof(&client);
        let relayed = told.recv_timeout(PATIENCE).expect("told");
        assert!(relayed.is_orderly(), "{relayed:?}");
        assert_eq!(relayed.first, CloseReason::PeerClosed);

        let (mut client, server) = ends(address, &listener);
        client.write_all(b"x").expect("sent");
        read_bytes(&server, 1);
        support::reset(client);
        expect_reset(&server);
        let relayed = told.recv_timeout(PATIENCE).expect("told");
        assert!(!relayed.is_orderly(), "{relayed:?}");
        assert_eq!(relayed.first, CloseReason::Reset);
        end(serving);
    });
}

#[test]
fn what_came_before_goes_first_and_so_does_an_end() {
    bounded(|| {
        let (listener, upstream) = support::listener();
        let (serving, told) = reporting(
            relays(one_reactor()),
            move |mut client: Conn, tell: mpsc::Sender<_>| async move {
                let mut head = client.recv().await.expect("a header");
                let header = head.split_to(6);
                assert_eq!(&header[..], b"HEADER");
                client.unrecv(head);
                // The rest comes meanwhile, and the end.
                sleep(ms(100)).await;
                let server = dial(upstream).await.expect("it listens");
                tell.send(relay(client, server).await).expect("the test waits");
            },
        );
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"HEADERbody, ").expect("sent");
        assert!(!hears_within(&client, ms(30)));
        client.write_all(b"more of it, ").expect("sent");
        assert!(!hears_within(&client, ms(30)));
        client.write_all(b"and the end").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        let mut server = support::accept(&listener);
        let mut all = String::new();
        server.read_to_string(&mut all).expect("an end in order");
        assert_eq!(all, "body, more of it, and the end");
        drop(server);
        expect_eof(&client);
        assert!(told.recv_timeout(PATIENCE).expect("told").is_orderly());
        end(serving);
    });
}

#[test]
fn who_has_ended_before_it_begins_ends_the_other_likewise() {
    bounded(|| {
        let (listener, upstream) = support::listener();
        for resets in [false, true] {
            let (serving, told) = reporting(
                relays(one_reactor()),
                move |mut client: Conn, tell: mpsc::Sender<_>| async move {
                    let server = dial(upstream).await.expect("it listens");
                    if resets {
                        client.closed().await;
                    } else {
                        client.close();
                        client.closed().await;
                    }
                    tell.send(relay(client, server).await).expect("the test waits");
                },
            );
            let (mut client, server) = ends(serving.addresses()[0], &listener);
            if resets {
                client.write_all(b"cut off").expect("sent");
                support::reset(client);
                expect_reset(&server);
            } else {
                drop(client);
                expect_eof(&server);
                drop(server);
            }
            let relayed = told.recv_timeout(PATIENCE).expect("told");
            assert_eq!(relayed.is_orderly(), !resets, "{relayed:?}");
            end(serving);
        }
    });
}

#[test]
fn dropped_it_resets_both_and_unpolled_it_closes_both() {
    bounded(|| given_up(relay));
}

#[test]
fn a_task_that_is_cancelled_in_it_resets_both() {
    bounded(|| {
        let (listener, upstream) = support::listener();
        let (serving, told) = reporting(
            relays(one_reactor()),
            move |client: Conn, tell: mpsc::Sender<_>| async move {
                let server = dial(upstream).await.expect("it listens");
                let inner = spawn_local(async move { relay(client, server).await });
                sleep(ms(100)).await;
                inner.cancel();
                assert!(inner.await.is_err());
                tell.send(()).expect("the test waits");
            },
        );
        let (client, server) = ends(serving.addresses()[0], &listener);
        assert_eq!((expect_reset(&client), expect_reset(&server)), (0, 0));
        told.recv_timeout(PATIENCE).expect("told");
        end(serving);
    });
}

#[test]
fn a_drain_closes_it_once_nothing_moves() {
    bounded(|| {
        let (listener, upstream) = support::listener();
        let builder = relays(one_reactor()).drain_deadline(ms(20_000));
        let (serving, told) = reporting(builder, relay_to(upstream));
        let (mut client, server) = ends(serving.addresses()[0], &listener);
        client.write_all(b"x").expect("sent");
        read_bytes(&server, 1);
        assert!(!hears_within(&client, ms(50)));
        serving.handle().drain();
        expect_eof(&client);
        expect_eof(&server);
        drop((client, server));
        let relayed = told.recv_timeout(PATIENCE).expect("told");
        assert!(relayed.is_orderly(), "{relayed:?}");
        let counters = drained(serving);
        assert_eq!(counters.drain_aborted, 0);
    });
}
