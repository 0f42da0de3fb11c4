//! How a stream fails, and what its error says.

use std::io::{Read, Write};
use std::net::Shutdown;

use slipring::failure::{Kind, Phase, Side, Transfer};
use slipring::{CloseReason, Error, Fault, Idempotency, Timeout, Timeouts};

use super::*;
use crate::support::{assert_kept, bounded, ms, read_bytes, reset};

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

#[test]
fn an_end_is_an_error_to_who_expects_more() {
    bounded(|| {
        let (address, upstream) = peer(|stream| {
            read_bytes(&stream, 5);
            drop(stream);
        });
        let (fresh, stale) = run(move || async move {
            let mut stream = connected(address).await;
            stream.send("hello").await.expect("open");
            assert!(stream.recv().await.expect("an end in order").is_none());
            let fresh = stream.recv_some().await.expect_err("nothing more comes");
            stream.begin_request(true);
            (fresh, stream.recv_some().await.expect_err("nothing more comes"))
        });
        upstream.join().expect("the peer");
        assert_eq!((fresh.label(), fresh.traffic().bytes_sent), ("eof_early", 5));
        assert_eq!((stale.label(), stale.traffic().bytes_sent), ("stale_reuse", 0));
        assert_eq!(stale.endpoint(), Some(address));
    });
}

#[test]
fn what_cannot_be_sent_says_why() {
    bounded(|| {
        let (address, upstream) = peer(|stream| stream);
        let errors = run(move || async move {
            let mut stream = connected(address).await;
            let large = vec![0; 64 << 20];
            let large = stream.send(large).await.expect_err("more than an outbox holds");
            stream.send("it is as it was").await.expect("open");
            stream.shutdown().await.expect("open");
            let behind = stream.send("late").await.expect_err("behind our own end");
            stream.abort();
            stream.closed().await;
            let aborted = stream.send("late").await.expect_err("aborted");
            [large, behind, aborted]
        });
        drop(upstream.join());
        assert_eq!(errors.each_ref().map(Error::label), ["too_large", "ended", "ended"]);
        let texts = errors.each_ref().map(beneath);
        assert!(texts[0].contains("cut them"), "{texts:?}");
        assert!(texts[1].contains("shutdown") && texts[2].contains("aborted"), "{texts:?}");
        for error in &errors {
            assert_eq!((error.phase(), error.side()), (Phase::Transfer, Side::Local));
            assert!(!error.counts_for_breaker());
        }
    });
}

#[test]
fn a_kept_connection_that_we_close_ourselves_is_stale_to_who_takes_it_now() {
    bounded(|| {
        let (address, upstream) = peer(|stream| stream);
        let errors = run(move || async move {
            let mut stream = connected(address).await;
            stream.begin_request(true);
            stream.close();
            let kept = stream.send("hello").await.expect_err("on its way out");
            stream.begin_request(false);
            [kept, stream.send("hello").await.expect_err("on its way out")]
        });
        drop(upstream.join());
        assert_eq!(errors.each_ref().map(Error::label), ["stale_reuse", "ended"]);
        assert!(errors[0].retry(Idempotency::ConnectOnly).is_allowed(), "nothing was sent");
    });
}

#[test]
fn what_was_cut_off_amidst_is_partial() {
    bounded(|| {
        let (address, upstream) = peer(|stream| stream);
        let (before, dropped, error) = run(move || async move {
            let mut stream = connected(address).await;
            stream.send("a whole one").await.expect("open");
            let before = stream.traffic();
            stream.begin_request(false);
            // The peer reads nothing: the outbox is full at some time.
            let much = vec![1; 64 << 20];
            let sending = slipring::timeout(ms(300), stream.send_all(&much)).await;
            assert!(sending.is_err(), "nobody takes so much");
            let dropped = stream.traffic();
            stream.abort();
            stream.closed().await;
            (before, dropped, stream.recv().await.expect_err("aborted"))
        });
        drop(upstream.join());
        assert!(!before.is_partial && before.bytes_sent == 11, "{before:?}");
        assert!(dropped.is_partial && dropped.bytes_sent > 0, "{dropped:?}");
        assert!(error.traffic().is_partial, "{error}");
        assert!(!error.retry(Idempotency::Idempotent).is_allowed());
    });
}

#[test]
fn a_stream_of_bytes_that_are_not_read_times_out_as_partial() {
    bounded(|| {
        let (address, upstream) = peer(|stream| stream);
        let error = run(move || async move {
            let mut stream = connected(address).await;
            stream.set_read_deadline(Timeout::After(ms(100)));
            // As much as there is room for, so that some waits.
            while stream.outbox_bytes() == 0 {
                let piece = vec![0; 64 << 10];
                let _ = slipring::timeout(ms(20), stream.send(piece)).await;
                slipring::sleep(ms(1)).await;
            }
            let error = stream.recv().await.expect_err("nothing comes");
            stream.abort();
            error
        });
        drop(upstream.join());
        assert_eq!(error.label(), "read_timeout");
        assert!(error.traffic().is_partial);
    });
}

#[test]
fn a_plain_stream_is_a_connection_again() {
    bounded(|| {
        let (address, upstream) = peer(|mut stream| {
            stream.write_all(b"hello").expect("sent");
            read_bytes(&stream, 3)
        });
        run(move || async move {
            let mut stream = connected(address).await;
            let came = stream.recv_some().await.expect("bytes");
            stream.unrecv(came);
            let mut conn = stream.into_conn().expect("it is plain");
            assert_eq!(conn.recv().await.as_deref(), Some(&b"hello"[..]));
            conn.send("bye").await.expect("open");
        });
        assert_eq!(upstream.join().expect("the peer"), b"bye");
    });
}

/// The error of a stream of a runtime with these timeouts, to a peer that does nothing.
fn after_silence<F: Future<Output = Error> + 'static>(
    timeouts: Timeouts,
    act: impl FnOnce(Stream) -> F + Send + 'static,
) -> Error {
    let (address, upstream) = peer(|stream| stream);
    let dialer = Dialer::built(one_reactor().max_dialed(4).timeouts(timeouts));
    let error = dialer.run(move || async move { act(connected(address).await).await });
    dialer.wait_until_left(0);
    dialer.end();
    drop(upstream.join());
    error
}

#[test]
fn timeouts_of_the_connection_are_told_apart() {
    bounded(|| {
        let idle = Timeouts { idle: Timeout::After(ms(200)), ..Timeouts::default() };
        let error = after_silence(idle, async |mut stream| {
            stream.send("hello").await.expect("open");
            stream.recv().await.expect_err("nothing moves")
        });
        assert_eq!((error.label(), error.side()), ("idle", Side::Local));
        assert!(!error.traffic().is_partial && !error.counts_for_breaker(), "{error}");

        let stall = Timeouts { write_stall: Timeout::After(ms(200)), ..Timeouts::default() };
        let error = after_silence(stall, async |mut stream| {
            let much = vec![1; 64 << 20];
            stream.send_all(&much).await.expect_err("nobody reads")
        });
        assert_eq!((error.label(), error.side()), ("write_stall", Side::Upstream));
        assert!(error.traffic().is_partial && error.counts_for_breaker(), "{error}");

        // What waits when it stalls was taken whole, and has not gone whole.
        let error = after_silence(stall, async |mut stream| {
            while stream.outbox_bytes() == 0 {
                stream.begin_request(false);
                stream.send(vec![0; 1 << 19]).await.expect("open");
                slipring::sleep(ms(5)).await;
            }
            stream.recv().await.expect_err("nobody reads")
        });
        assert_eq!((error.label(), error.traffic().bytes_sent), ("write_stall", 1 << 19));
        assert!(error.traffic().is_partial, "{error}");
    });
}
