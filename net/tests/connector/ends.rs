//! How a stream fails, and what its error says.

use std::io::{Read, Write};
use std::net::Shutdown;

use slipring::failure::{Kind, Phase, Side, Transfer};
use slipring::{CloseReason, Error, Fault, Idempotency, Timeout};

use super::*;
use support::{assert_kept, bounded, ms, read_bytes, reset};

#[test]
fn bytes_go_both_ways_and_are_counted() {
    bounded(|| {
        let (address, upstream) = peer(|mut stream| {
            assert_eq!(read_bytes(&stream, 5), b"hello");
            stream.write_all(b"world!").expect("sent");
            stream.shutdown(Shutdown::Write).expect("half-closed");
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("to the end");
            rest.len()
        });
        run(move || async move {
            let mut stream = connected(address).await;
            assert_eq!(stream.peer(), address);
            assert_eq!(stream.local().map(|local| local.ip()), Some(address.ip()));
            stream.send("hello").await.expect("open");
            assert_eq!(stream.traffic().bytes_sent, 5);
            let mut came = stream.recv_some().await.expect("a reply");
            assert_eq!(*came, *b"world!");
            assert_eq!(stream.traffic().bytes_received, 6);
            // What is put back has come, and comes once.
            came.advance(2);
            stream.unrecv(came);
            assert_eq!(stream.traffic().bytes_received, 6);
            let again = stream.recv().await.expect("open").expect("what was put back");
            assert_eq!(*again, *b"rld!");
            assert_eq!(stream.traffic().bytes_received, 6);
            assert!(stream.recv().await.expect("an end in order").is_none());
            stream.send_all(&[7; 100_000]).await.expect("open");
            assert_eq!(stream.traffic().bytes_sent, 100_005);
            stream.shutdown().await.expect("open");
            assert_eq!(stream.closed().await, CloseReason::PeerClosed);
            assert_eq!(stream.reason(), Some(CloseReason::PeerClosed));
        });
        assert_eq!(upstream.join().expect("the peer"), 100_000);
    });
}

/// The error of a stream whose peer reads 5 bytes, says `says`, and resets.
fn after_a_reset(is_reused: bool, says: &'static [u8]) -> Error {
    let (address, upstream) = peer(move |mut stream| {
        read_bytes(&stream, 5);
        stream.write_all(says).expect("sent");
        reset(stream);
    });
    let error = run(move || async move {
        let mut stream = connected(address).await;
        stream.begin_request(is_reused);
        stream.send("hello").await.expect("open");
        loop {
            match stream.recv_some().await {
                Ok(_) => {}
                Err(error) => return (error, stream.peer()),
            }
        }
    });
    upstream.join().expect("the peer");
    assert_eq!(error.0.endpoint(), Some(error.1));
    assert_eq!((error.0.phase(), error.0.side()), (Phase::Transfer, Side::Upstream));
    assert_eq!(error.0.fault(), Some(Fault::Reset));
    error.0
}

#[test]
fn a_reset_is_what_the_bytes_before_it_make_of_it() {
    bounded(|| {
        let early = after_a_reset(false, b"");
        assert_eq!((early.label(), early.traffic().bytes_sent), ("reset_early", 5));
        assert!(early.retry(Idempotency::Idempotent).is_allowed());
        let stale = after_a_reset(true, b"");
        assert_eq!(stale.label(), "stale_reuse");
        assert!(!stale.counts_for_breaker());
        for is_reused in [false, true] {
            let amidst = after_a_reset(is_reused, b"abc");
            assert_eq!((amidst.label(), amidst.traffic().bytes_received), ("reset", 3));
            assert!(!amidst.retry(Idempotency::Idempotent).is_allowed());
        }
    });
}

#[test]
fn a_read_deadline_ends_the_wait_and_not_the_connection() {
    bounded(|| {
        let (address, upstream) = peer(|mut stream| {
            read_bytes(&stream, 1);
            stream.write_all(b"late").expect("sent");
            stream
        });
        run(move || async move {
            let mut stream = connected(address).await;
            stream.set_read_deadline(Timeout::After(ms(150)));
            let error = stream.recv().await.expect_err("nothing comes");
            assert!(matches!(error.kind(), Kind::Transfer(Transfer::ReadTimeout)), "{error}");
            assert_kept("the read deadline", error.elapsed(), ms(150));
            stream.set_read_deadline(Timeout::Never);
            stream.send("x").await.expect("open");
            assert_eq!(*stream.recv_some().await.expect("open"), *b"late");
        });
        drop(upstream.join());
    });
}
