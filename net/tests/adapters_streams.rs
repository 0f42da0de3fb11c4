//! Connections as the byte streams of `futures` and tokio, on the real kernel: the same promises under both names.

mod support;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Context;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _, SinkExt, StreamExt};
use slipring::{CloseReason, Conn, Limits, Timeout, Timeouts};
use support::{
    Check, PATIENCE, Pattern, Rng, bounded, connect, connect_narrow, echo_pattern, end, expect_eof,
    ms, one_reactor, read_pattern, reporting, reset, serve, spawn, stuff, write_pattern,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// What an error of a stream says: its kind, and the reason that stands in it.
fn told_by(error: &std::io::Error) -> (ErrorKind, Option<CloseReason>) {
    let reason = error.get_ref().and_then(|source| source.downcast_ref::<CloseReason>());
    (error.kind(), reason.copied())
}

// ------------------------------------------------------------------------------------------- bytes

async fn tokio_echo(conn: Conn) {
    let (mut read, mut write) = conn.split();
    let copied = tokio::io::copy(&mut read, &mut write).await;
    copied.expect("the peer ends in order");
    tokio::io::AsyncWriteExt::shutdown(&mut write).await.expect("it is open");
}

async fn tokio_split_echo(conn: Conn) {
    let (mut read, mut write) = tokio::io::split(conn);
    tokio::io::copy(&mut read, &mut write).await.expect("the peer ends in order");
    tokio::io::AsyncWriteExt::shutdown(&mut write).await.expect("it is open");
}

async fn futures_echo(conn: Conn) {
    let (read, mut write) = conn.split();
    futures_util::io::copy(read, &mut write).await.expect("the peer ends in order");
    write.close().await.expect("it is open");
}

async fn futures_split_echo(conn: Conn) {
    let (read, mut write) = futures_util::AsyncReadExt::split(conn);
    futures_util::io::copy(read, &mut write).await.expect("the peer ends in order");
    write.close().await.expect("it is open");
}

fn echoes<F: Future + 'static>(service: fn(Conn) -> F) {
    bounded(move || {
        let serving = serve(one_reactor(), service);
        let address = serving.addresses()[0];
        for (seed, bytes) in [0, 1, 64, 65_536, 65_537, 4 << 20].into_iter().enumerate() {
            echo_pattern(&connect(address), seed as u64, bytes, 100_000);
        }
        let clients: Vec<_> = (0..4)
            .map(|seed| spawn(move || echo_pattern(&connect(address), seed, 1 << 20, 5_000)))
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("its bytes came back"));
        end(serving);
    });
}

#[test]
fn copied_by_tokio_all_bytes_come_back() {
    echoes(tokio_echo);
}

#[test]
fn copied_between_the_halves_of_tokio_all_bytes_come_back() {
    echoes(tokio_split_echo);
}

#[test]
fn copied_by_futures_all_bytes_come_back() {
    echoes(futures_echo);
}

#[test]
fn copied_between_the_halves_of_futures_all_bytes_come_back() {
    echoes(futures_split_echo);
}

/// Two tasks poll the two directions: neither takes the other's wake-ups.
#[test]
fn the_halves_are_woken_in_their_own_tasks() {
    bounded(|| {
        let serving = serve(one_reactor(), async |conn: Conn| {
            let (mut read, mut write) = conn.split();
            let (send, mut receive) = tokio::sync::mpsc::channel::<Vec<u8>>(2);
            let writing = slipring::spawn_local(async move {
                while let Some(bytes) = receive.recv().await {
                    tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.expect("open");
                }
            });
            let mut buffer = vec![0; 10_000];
            loop {
                let read = tokio::io::AsyncReadExt::read(&mut read, &mut buffer).await;
                match read.expect("no error") {
                    0 => break,
                    count => send.send(buffer[..count].to_vec()).await.expect("it writes"),
                }
            }
            drop(send);
            writing.await.expect("it ends");
        });
        let address = serving.addresses()[0];
        echo_pattern(&connect(address), 7, 8 << 20, 50_000);
        end(serving);
    });
}

/// Cuts a pattern into slices of random number and length, empty ones among them.
fn cut<'a>(rng: &mut Rng, mut bytes: &'a [u8]) -> Vec<IoSlice<'a>> {
    let mut slices = vec![IoSlice::new(&[])];
    let most = if rng.one_in(2) { 3 } else { 3000 };
    while !bytes.is_empty() && slices.len() < 2000 {
        let (slice, rest) = bytes.split_at(rng.up_to(most).min(bytes.len()));
        slices.push(IoSlice::new(slice));
        bytes = rest;
    }
    slices
}

#[test]
fn slices_however_cut_are_read_and_written_in_their_order() {
    const BYTES: usize = 3 << 20;
    bounded(|| {
        for tokio in [true, false] {
            let (serving, told) = reporting(
                one_reactor(),
                move |mut conn: Conn, tell: mpsc::Sender<()>| async move {
                    let (mut rng, mut check) = (Rng::new(3), Check::new(1));
                    let (mut a, mut b) = (vec![0; 1], vec![0; 70_000]);
                    while check.bytes < BYTES as u64 {
                        let split = rng.up_to(5_000);
                        let c = &mut b[..split];
                        let mut slices =
                            [IoSliceMut::new(&mut a), IoSliceMut::new(&mut []), IoSliceMut::new(c)];
                        let read = conn.read_vectored(&mut slices).await.expect("no error");
                        assert!(read > 0 && read <= 1 + split);
                        check.next(&a);
                        check.next(&b[..read - 1]);
                    }
                    assert_eq!(
                        conn.read_vectored(&mut [IoSliceMut::new(&mut a)]).await.ok(),
                        Some(0)
                    );
                    let bytes = Pattern::new(2).take(BYTES);
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let slices = cut(&mut rng, rest);
                        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
                        let written = if tokio {
                            tokio::io::AsyncWriteExt::write_vectored(&mut conn, &slices).await
                        } else {
                            futures_util::AsyncWriteExt::write_vectored(&mut conn, &slices).await
                        };
                        let written = written.expect("no error");
                        assert!(written > 0 && written <= offered.min(64 << 10), "{written}");
                        rest = &rest[written..];
                    }
                    tell.send(()).expect("the test waits");
                },
            );
            let client = connect(serving.addresses()[0]);
            write_pattern(&client, 1, BYTES as u64, 30_000).expect("taken");
            client.shutdown(Shutdown::Write).expect("open");
            assert_eq!(read_pattern(&client, 2).expect("read"), BYTES as u64);
            told.recv_timeout(PATIENCE).expect("told");
            end(serving);
        }
    });
}

#[test]
fn frames_of_a_codec_come_whole_and_in_order() {
    bounded(|| {
        let serving = serve(one_reactor(), async |conn: Conn| {
            let mut framed = Framed::new(conn, LengthDelimitedCodec::new());
            while let Some(frame) = framed.next().await {
                framed.send(frame.expect("a whole frame").freeze()).await.expect("open");
            }
        });
        let mut client = connect(serving.addresses()[0]);
        let mut rng = Rng::new(11);
        let frames: Vec<Vec<u8>> =
            (0..500).map(|seed| Pattern::new(seed).take(rng.up_to(20_000) - 1)).collect();
        let mut bytes = BytesMut::new();
        for frame in &frames {
            bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        let bytes: Bytes = bytes.freeze();
        let mut writing = client.try_clone().expect("a descriptor");
        let sent = bytes.clone();
        let writer = spawn(move || {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let piece = rng.up_to(9_000).min(rest.len());
                writing.write_all(&rest[..piece]).expect("taken");
                rest = &rest[piece..];
            }
            writing.shutdown(Shutdown::Write).expect("open");
        });
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("read");
        assert!(back == bytes, "{} bytes of {}", back.len(), bytes.len());
        writer.join().expect("the writer");
        end(serving);
    });
}

// -------------------------------------------------------------------------------------------- ends

#[test]
fn reading_ends_at_the_peers_end_and_writing_goes_on() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn: Conn, tell| {
            let mut text = String::new();
            conn.read_to_string(&mut text).await.expect("an end in order");
            assert_eq!(conn.read(&mut [0; 8]).await.expect("still the end"), 0);
            conn.write_all(text.to_uppercase().as_bytes()).await.expect("our direction is open");
            conn.flush().await.expect("nothing is lost");
            futures_util::AsyncWriteExt::close(&mut conn).await.expect("open");
            let behind = conn.write(b"more").await.expect_err("behind our end");
            assert_eq!(behind.kind(), ErrorKind::BrokenPipe, "{behind}");
            let reason = conn.closed().await;
            assert_eq!(conn.read(&mut [0; 8]).await.expect("the end, as before"), 0);
            let after = conn.write(b"more").await.expect_err("behind it all");
            conn.flush().await.expect("nothing was lost");
            tell.send((text, reason, told_by(&after))).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"last words").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "LAST WORDS");
        let reason = CloseReason::PeerClosed;
        let expected = ("last words".to_owned(), reason, (ErrorKind::BrokenPipe, Some(reason)));
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), expected);
        end(serving);
    });
}

#[test]
fn reading_goes_on_behind_our_own_end() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn: Conn, tell| {
            conn.write_all(b"ask").await.expect("open");
            tokio::io::AsyncWriteExt::shutdown(&mut conn).await.expect("open");
            let mut answer = Vec::new();
            conn.read_to_end(&mut answer).await.expect("an end in order");
            tell.send(answer).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        let mut asked = String::new();
        client.read_to_string(&mut asked).expect("read");
        assert_eq!(asked, "ask");
        // Both at once: the end of the stream, and of the connection.
        client.write_all(b"the answer").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), b"the answer");
        end(serving);
    });
}

#[test]
fn what_came_before_a_reset_is_read_before_its_error() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn: Conn, tell| {
            // It lets the reset come first.
            conn.closed().await;
            let mut bytes = Vec::new();
            let read = conn.read_to_end(&mut bytes).await.expect_err("a reset is no end");
            let written = conn.write(b"too late").await.expect_err("it is gone");
            let flushed = conn.flush().await.expect_err("it is gone");
            let told = [told_by(&read), told_by(&written), told_by(&flushed)];
            tell.send((bytes, told)).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"before").expect("sent");
        reset(client);
        let expected = (ErrorKind::ConnectionReset, Some(CloseReason::Reset));
        let told = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(told, (b"before".to_vec(), [expected; 3]));
        end(serving);
    });
}

/// How a read ends with these timeouts and a client that does nothing.
fn read_of_the_silent(
    timeouts: Timeouts,
    prepare: fn(&mut Conn),
) -> (ErrorKind, Option<CloseReason>) {
    let (serving, told) = reporting(
        one_reactor().timeouts(timeouts),
        move |mut conn: Conn, tell: mpsc::Sender<_>| async move {
            prepare(&mut conn);
            let error = conn.read(&mut [0; 8]).await.expect_err("no end was sent");
            tell.send(told_by(&error)).expect("the test waits");
        },
    );
    let client = connect(serving.addresses()[0]);
    let told = told.recv_timeout(PATIENCE).expect("told");
    drop(client);
    end(serving);
    told
}

#[test]
fn timeouts_are_timeouts() {
    bounded(|| {
        let idle = Timeouts { idle: Timeout::After(ms(50)), ..Timeouts::default() };
        let told = read_of_the_silent(idle, |_| {});
        assert_eq!(told, (ErrorKind::TimedOut, Some(CloseReason::IdleTimeout)));
        let told = read_of_the_silent(Timeouts::default(), |conn| {
            conn.set_phase_deadline(Timeout::After(ms(50)));
        });
        assert_eq!(told, (ErrorKind::TimedOut, Some(CloseReason::PhaseTimeout)));
        let told = read_of_the_silent(Timeouts::default(), |conn| {
            conn.set_read_deadline(Timeout::After(ms(50)));
        });
        assert_eq!(told, (ErrorKind::TimedOut, None));
    });
}

#[test]
fn a_write_to_who_never_reads_times_out() {
    bounded(|| {
        let stall = Timeouts { write_stall: Timeout::After(ms(300)), ..Timeouts::default() };
        let (serving, told) =
            reporting(one_reactor().timeouts(stall), async |mut conn: Conn, tell| {
                let piece = vec![7; 64 << 10];
                let error = loop {
                    if let Err(error) = conn.write_all(&piece).await {
                        break error;
                    }
                };
                tell.send(told_by(&error)).expect("the test waits");
            });
        let client = connect_narrow(serving.addresses()[0]);
        let told = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(told, (ErrorKind::TimedOut, Some(CloseReason::WriteStall)));
        drop(client);
        end(serving);
    });
}

#[test]
fn our_own_abort_is_no_end_of_the_stream() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn: Conn, tell| {
            conn.abort();
            let error = conn.read(&mut [0; 8]).await.expect_err("no end was sent");
            tell.send(told_by(&error)).expect("the test waits");
        });
        // The reset may come before the connect returns.
        let client = support::try_connect(serving.addresses()[0]);
        let told = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(told, (ErrorKind::ConnectionAborted, Some(CloseReason::Aborted)));
        drop(client);
        end(serving);
    });
}

#[test]
fn what_was_written_goes_out_though_the_connection_is_dropped_at_once() {
    const BYTES: usize = 16 << 20;
    bounded(|| {
        let serving = serve(one_reactor(), async |mut conn: Conn| {
            conn.write_all(&Pattern::new(5).take(BYTES)).await.expect("taken");
        });
        let client = connect(serving.addresses()[0]);
        assert_eq!(read_pattern(&client, 5).expect("an end in order"), BYTES as u64);
        expect_eof(&client);
        end(serving);
    });
}

// ----------------------------------------------------------------------------------- back-pressure

#[test]
fn nothing_to_read_into_or_to_write_is_no_wait_and_no_end() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn: Conn, tell| {
            assert_eq!(conn.read(&mut []).await.expect("no room"), 0);
            assert_eq!(conn.read_vectored(&mut []).await.expect("no room"), 0);
            assert_eq!(tokio::io::AsyncReadExt::read(&mut conn, &mut []).await.expect("none"), 0);
            assert_eq!(conn.write(&[]).await.expect("no bytes"), 0);
            assert_eq!(conn.write_vectored(&[IoSlice::new(&[])]).await.expect("none"), 0);
            tell.send(()).expect("the test waits");
        });
        let client = connect(serving.addresses()[0]);
        told.recv_timeout(PATIENCE).expect("told");
        drop(client);
        end(serving);
    });
}

/// A writer waits for a client that does not read, with no more than an outbox's worth taken, and is woken when it
/// does.
#[test]
fn a_slow_reader_holds_its_writer_back() {
    const BYTES: u64 = 32 << 20;
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn: Conn, tell| {
            let mut pattern = Pattern::new(9);
            let (mut left, mut most) = (BYTES, 0);
            while left > 0 {
                let piece = pattern.take(left.min(200_000) as usize);
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let written = conn.write(rest).await.expect("no error");
                    most = most.max(conn.outbox_bytes());
                    rest = &rest[written..];
                }
                left -= piece.len() as u64;
                if left <= BYTES / 2 && left + 200_000 > BYTES / 2 {
                    conn.flush().await.expect("a flush does not wait");
                }
            }
            tell.send(most).expect("the test waits");
        });
        let client = connect(serving.addresses()[0]);
        told.recv_timeout(ms(300)).expect_err("it is held back");
        assert_eq!(read_pattern(&client, 9).expect("an end in order"), BYTES);
        let most = told.recv_timeout(PATIENCE).expect("told");
        assert!(most <= 2 * (64 << 10), "{most} bytes in an outbox of 64 KiB");
        end(serving);
    });
}

/// What a task does not read stays with its client.
#[test]
fn who_does_not_read_holds_its_client_back() {
    bounded(|| {
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let gone = std::sync::Arc::new(std::sync::Mutex::new(Some(gone)));
        let serving = serve(one_reactor(), move |mut conn: Conn| {
            let gone = gone.lock().expect("unpoisoned").take();
            async move {
                if let Some(gone) = gone {
                    let _ = gone.await;
                }
                let mut check = Check::new(4);
                let mut buffer = vec![0; 3_000];
                loop {
                    match conn.read(&mut buffer).await.expect("no error") {
                        0 => break,
                        read => check.next(&buffer[..read]),
                    }
                }
                conn.write_all(&check.bytes.to_be_bytes()).await.expect("open");
            }
        });
        let mut client = connect(serving.addresses()[0]);
        let taken = stuff(&client, 4);
        assert!(taken < 64 << 20, "{taken} bytes were taken by nobody");
        go.send(()).expect("it waits");
        client.shutdown(Shutdown::Write).expect("open");
        let mut count = [0; 8];
        client.read_exact(&mut count).expect("its count");
        assert_eq!(u64::from_be_bytes(count), taken);
        end(serving);
    });
}

/// The memory of a reactor for bytes of its handlers is gone: that is a wait, not an error.
#[test]
fn short_memory_is_back_pressure() {
    const CLIENTS: usize = 8;
    const BYTES: u64 = 2 << 20;
    bounded(|| {
        // Room for one of their outboxes and a bit.
        let limits = Limits { owned_bytes_max: 160 << 10, accepted_max: 64, ..Limits::default() };
        let (serving, told) =
            reporting(one_reactor().limits(limits), async |mut conn: Conn, tell| {
                tell.send(()).expect("the test waits");
                let bytes = Pattern::new(6).take(BYTES as usize);
                conn.write_all(&bytes).await.expect("no error for want of room");
            });
        let address = serving.addresses()[0];
        let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(address)).collect();
        for _ in 0..CLIENTS {
            told.recv_timeout(PATIENCE).expect("all are served");
        }
        // All at once: what one leaves unread is room that the others wait for.
        let readers: Vec<_> = (clients.into_iter())
            .map(|client| spawn(move || read_pattern(&client, 6).expect("an end in order")))
            .collect();
        for reader in readers {
            assert_eq!(reader.join().expect("a reader"), BYTES);
        }
        end(serving);
    });
}

/// Polled by hand: a write that found no room takes nothing, whatever it is given.
#[test]
fn what_is_pending_has_taken_nothing() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn: Conn, tell| {
            let mut written = 0_u64;
            let mut pattern = Pattern::new(8);
            let mut piece = pattern.take(50_000);
            let full = std::future::poll_fn(|cx: &mut Context<'_>| {
                loop {
                    let polled = tokio::io::AsyncWrite::poll_write(Pin::new(&mut conn), cx, &piece);
                    let std::task::Poll::Ready(count) = polled else {
                        return std::task::Poll::Ready(conn.outbox_bytes());
                    };
                    let count = count.expect("no error");
                    written += count as u64;
                    let mut next = piece.split_off(count);
                    next.extend(pattern.take(count));
                    piece = next;
                }
            })
            .await;
            assert_eq!(u64::from(full), written, "what was taken is in the outbox");
            tell.send(written).expect("the test waits");
        });
        let client = connect(serving.addresses()[0]);
        let read = read_pattern(&client, 8).expect("an end in order");
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).expect("told"), read);
        end(serving);
    });
}
