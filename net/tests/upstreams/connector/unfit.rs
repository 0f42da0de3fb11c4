//! What makes a kept connection unfit: anything at all that happens on it.

use std::future::poll_fn;
use std::io::Write;
use std::net::Shutdown;
use std::sync::{Arc, Barrier};

use slipring::Timeout;

use super::*;
use crate::support::{self, bounded, ms, read_bytes, reset};

/// A peer that does something when it is told to, and stays.
fn on_call(
    act: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (SocketAddr, Arc<Barrier>, JoinHandle<TcpStream>) {
    let gate = Arc::new(Barrier::new(2));
    let at_peer = Arc::clone(&gate);
    let (address, upstream) = peer(move |mut stream| {
        at_peer.wait();
        act(&mut stream);
        stream
    });
    (address, gate, upstream)
}

/// Whether a stream becomes unfit as the peer does this; what it receives then.
fn after(act: impl FnOnce(&mut TcpStream) + Send + 'static) -> Result<Option<Vec<u8>>, String> {
    let (address, gate, upstream) = on_call(act);
    let received = run(move || async move {
        let mut stream = connected(address).await;
        stream.begin_request(true);
        // What was set for replies does not count.
        stream.set_read_deadline(Timeout::After(ms(20)));
        assert!(poll_once(poll_fn(|cx| stream.poll_unfit(cx))).await.is_none());
        let waited = slipring::timeout(ms(100), poll_fn(|cx| stream.poll_unfit(cx))).await;
        assert!(waited.is_err(), "nothing has happened");
        // Behind that poll, so that it is woken.
        slipring::unblock(move || {
            gate.wait();
        })
        .await
        .expect("no panic");
        poll_fn(|cx| stream.poll_unfit(cx)).await;
        assert!(poll_once(poll_fn(|cx| stream.poll_unfit(cx))).await.is_some(), "for good");
        stream.set_read_deadline(Timeout::Never);
        match stream.recv().await {
            Ok(lease) => Ok(lease.map(|lease| lease.to_vec())),
            Err(error) => Err(error.label().to_owned()),
        }
    });
    drop(upstream.join());
    received
}

#[test]
fn bytes_an_end_and_a_reset_make_it_unfit_and_bytes_are_not_lost() {
    bounded(|| {
        let came = after(|stream| stream.write_all(b"unasked").expect("sent"));
        assert_eq!(came, Ok(Some(b"unasked".to_vec())));
        let ended = after(|stream| stream.shutdown(Shutdown::Write).expect("half-closed"));
        assert_eq!(ended, Ok(None));
        let was_reset = after(|stream| {
            // Another takes its place, so that it can be dropped.
            let (_listener, address) = support::listener();
            reset(std::mem::replace(stream, support::connect(address)));
        });
        assert_eq!(was_reset, Err("stale_reuse".to_owned()));
    });
}

#[test]
fn who_waits_for_it_is_woken_by_what_happens_later() {
    bounded(|| {
        let (address, gate, upstream) = on_call(|stream| stream.write_all(b"x").expect("sent"));
        let gate = support::spawn(move || {
            std::thread::park_timeout(ms(150));
            gate.wait();
        });
        run(move || async move {
            let mut stream = connected(address).await;
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                stream.poll_unfit(cx)
            })
            .await;
            assert!(polls >= 2, "the byte was there before");
        });
        gate.join().expect("the gate");
        drop(upstream.join());
    });
}

#[test]
fn one_that_is_being_closed_is_unfit_before_it_has_ended() {
    bounded(|| {
        let (address, upstream) = peer(|stream| stream);
        run(move || async move {
            let mut stream = connected(address).await;
            assert!(poll_once(poll_fn(|cx| stream.poll_unfit(cx))).await.is_none());
            stream.close();
            assert!(stream.reason().is_none(), "the peer's end is waited for");
            assert!(poll_once(poll_fn(|cx| stream.poll_unfit(cx))).await.is_some());
        });
        drop(upstream.join());
    });
}

#[test]
fn a_request_on_a_kept_connection_is_as_on_a_fresh_one() {
    bounded(|| {
        let (address, upstream) = peer(|mut stream| {
            for _ in 0..2 {
                let bytes = read_bytes(&stream, 5);
                stream.write_all(&bytes).expect("sent");
            }
        });
        run(move || async move {
            let mut stream = connected(address).await;
            for is_reused in [false, true] {
                stream.begin_request(is_reused);
                stream.send("hello").await.expect("open");
                let reply = stream.recv_some().await.expect("a reply");
                assert_eq!(*reply, *b"hello");
                let traffic = stream.traffic();
                assert_eq!((traffic.bytes_sent, traffic.bytes_received), (5, 5));
                assert_eq!((traffic.is_reused, traffic.is_partial), (is_reused, false));
                if !is_reused {
                    let waited = poll_once(poll_fn(|cx| stream.poll_unfit(cx))).await;
                    assert!(waited.is_none(), "the reply was whole");
                }
            }
        });
        upstream.join().expect("the peer");
    });
}
