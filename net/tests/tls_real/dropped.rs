//! Futures that are dropped, deadlines that pass, tasks that panic: what becomes of the bytes.

use super::*;

/// Polls a future once, and drops it.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn a_recv_that_is_dropped_loses_nothing() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            let mut dropped = 0;
            loop {
                let Some(received) = poll_once(conn.recv()).await else {
                    dropped += 1;
                    slipring::sleep(ms(1)).await;
                    continue;
                };
                let received = received.expect("announced");
                let Some(mut data) = received else { break };
                let half = data.split_to(data.len().div_ceil(2));
                conn.unrecv(data);
                conn.send(half).await.expect("established");
            }
            tell.send(dropped).expect("the test waits");
        });
        let mut client = stranger(serving.addresses()[0]);
        exchange(&mut client, &pattern(5, 400_000), 30_000);
        client.conn.send_close_notify();
        client.flush().expect("sent");
        assert!(told.recv_timeout(PATIENCE).expect("told") > 0, "nothing was ever dropped");
        end(serving);
    });
}

/// As over TCP: see `under_way.rs`.
#[test]
fn a_drain_waits_for_an_answer_in_the_making() {
    bounded(|| {
        let builder = one_reactor().drain_deadline(ms(4000));
        let (serving, told) = reporting(builder, server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            let data = conn.recv().await.expect("no error").expect("bytes");
            // Waits that were given up are none.
            let given_up = slipring::timeout(ms(5), conn.recv()).await;
            assert!(given_up.is_err() && slipring::timeout(ms(5), conn.closed()).await.is_err());
            tell.send(()).expect("the test waits");
            slipring::sleep(ms(600)).await;
            conn.send(data).await.expect("nobody closed it");
            conn.shutdown().await.expect("nobody closed it");
        });
        let mut client = stranger(serving.addresses()[0]);
        client.write_all(b"slow").expect("sent");
        told.recv_timeout(PATIENCE).expect("begun");
        serving.handle().drain();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("its answer, and an end in order");
        assert_eq!(answer, b"slow");
        drop(client);
        assert_eq!(end(serving).drain_aborted, 0);
    });
}

#[test]
fn a_send_that_is_dropped_takes_nothing() {
    bounded(|| {
        let sent = pattern(6, 24 << 20);
        let (serving, told) = reporting(one_reactor(), server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            let mut dropped = 0;
            for piece in pattern(6, 24 << 20).chunks(50_000) {
                // All or nothing: after a drop it has to be sent again.
                while poll_once(conn.send(piece.to_vec())).await.is_none() {
                    dropped += 1;
                    if dropped == 1 {
                        tell.send(()).expect("the test waits");
                    }
                    slipring::sleep(ms(1)).await;
                }
            }
            conn.shutdown().await.expect("established");
        });
        let mut client = stranger(serving.addresses()[0]);
        client.conn.complete_io(&mut client.sock).expect("a handshake");
        told.recv_timeout(PATIENCE).expect("the outbox is full at last");
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("announced");
        assert!(received == sent, "{} of {} bytes came", received.len(), sent.len());
        end(serving);
    });
}

#[test]
fn a_read_deadline_passes_and_the_connection_goes_on() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), server(), async |conn, server, tell| {
            let mut conn: TlsConn = server.accept(conn).await.expect("a client");
            conn.set_read_deadline(Timeout::After(ms(30)));
            let first = conn.recv().await.map(|data| data.is_some());
            tell.send(first).expect("the test waits");
            conn.set_read_deadline(Timeout::Never);
            let second = conn.recv().await.map(|data| data.is_some());
            tell.send(second).expect("the test waits");
        });
        let mut client = stranger(serving.addresses()[0]);
        client.conn.complete_io(&mut client.sock).expect("a handshake");
        let first = told.recv_timeout(PATIENCE).expect("told");
        assert!(matches!(first, Err(TlsError::ReadTimeout)), "{first:?}");
        client.write_all(b"later").expect("sent");
        assert!(matches!(told.recv_timeout(PATIENCE).expect("told"), Ok(true)));
        end(serving);
    });
}

#[test]
fn a_record_that_trickles_does_not_put_off_a_read_deadline() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), server(), async |conn, server, tell| {
            let mut conn: TlsConn = server.accept(conn).await.expect("a client");
            conn.set_read_deadline(Timeout::After(ms(200)));
            let first = conn.recv().await.map(|data| data.map(|data| data.to_vec()));
            tell.send(first).expect("the test waits");
            conn.set_read_deadline(Timeout::Never);
            let second = conn.recv().await.map(|data| data.map(|data| data.to_vec()));
            tell.send(second).expect("the test waits");
        });
        let mut client = stranger(serving.addresses()[0]);
        client.conn.complete_io(&mut client.sock).expect("a handshake");
        client.conn.writer().write_all(&[7; 50]).expect("sealed");
        let mut record = Vec::new();
        client.conn.write_tls(&mut record).expect("memory takes all");
        let mut first = None;
        let (last, others) = record.split_last().expect("a record");
        for byte in others {
            client.sock.write_all(&[*byte]).expect("sent");
            first = first.or_else(|| told.recv_timeout(ms(20)).ok());
        }
        assert!(matches!(first, Some(Err(TlsError::ReadTimeout))), "{first:?}");
        client.sock.write_all(&[*last]).expect("sent");
        let second = told.recv_timeout(PATIENCE).expect("told").expect("as it was");
        assert_eq!(second, Some(vec![7; 50]), "nothing was lost");
        drop(client);
        end(serving);
    });
}

#[test]
fn a_task_that_panics_announces_nothing() {
    bounded(|| {
        let server = server();
        let serving = one_reactor().serve(move |conn| {
            let server = server.clone();
            async move {
                let mut conn = server.accept(conn).await.expect("a client");
                let _ = conn.recv().await;
                panic!("on purpose");
            }
        });
        let serving = serving.expect("it starts");
        let mut client = stranger(serving.addresses()[0]);
        client.write_all(b"go").expect("sent");
        let error = client.read(&mut [0]).expect_err("a torn stream is not taken for whole");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        end(serving);
    });
}
