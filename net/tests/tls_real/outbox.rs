//! An outbox without room, and memory that is not there.

use super::*;

const OUTBOX_BYTES: usize = 16 << 10;

/// Runs a service on connections with small outboxes; what its client received, and how that ended.
fn with_small_outbox<F: Future<Output = ()> + 'static>(
    service: impl Fn(TlsConn) -> F + Clone + Send + 'static,
) -> (usize, std::io::Result<usize>) {
    let limits = Limits {
        outbox_bytes_max: OUTBOX_BYTES as u32,
        outbox_high_bytes: 8 << 10,
        outbox_low_bytes: 4 << 10,
        accepted_max: 64,
        ..Limits::default()
    };
    let server = server();
    let serving = one_reactor().limits(limits).serve(move |conn| {
        let (server, service) = (server.clone(), service.clone());
        async move { service(server.accept(conn).await.expect("a client")).await }
    });
    let serving = serving.expect("it starts");
    let mut client = stranger(serving.addresses()[0]);
    let mut received = Vec::new();
    let outcome = client.read_to_end(&mut received);
    end(serving);
    (received.len(), outcome)
}

#[test]
fn there_is_room_for_the_end_s_announcement() {
    bounded(|| {
        let (received, outcome) = with_small_outbox(async |mut conn| {
            conn.send(vec![1; 1000]).await.expect("established");
            let left = OUTBOX_BYTES - conn.outbox_bytes() as usize;
            // As much as there is room for.
            conn.send(vec![2; left - 34]).await.expect("established");
        });
        assert!(outcome.is_ok(), "{outcome:?} after {received} bytes");
        assert!(received > 12 << 10, "{received} bytes");
    });
}

#[test]
fn an_end_that_cuts_something_off_is_no_orderly_one() {
    bounded(|| {
        for closes in [false, true] {
            let (received, outcome) = with_small_outbox(move |mut conn| async move {
                for _ in 0..2 {
                    conn.try_send(&[3; 10 << 10]).expect("established");
                }
                if closes {
                    conn.close();
                    conn.closed().await;
                }
            });
            let error = outcome.expect_err("the second ten were lost");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "after {received} bytes");
        }
    });
}

#[test]
fn what_was_sent_arrives_though_there_is_no_room_for_the_end_s_announcement() {
    bounded(|| {
        let (received, outcome) = with_small_outbox(async |mut conn| {
            let left = OUTBOX_BYTES - conn.outbox_bytes() as usize;
            // Five bytes of header, one for the type, sixteen of a seal.
            conn.try_send(&vec![3; left - 22]).expect("established");
        });
        let error = outcome.expect_err("nobody said that it was all");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "after {received} bytes");
        assert!(received > 12 << 10, "{received} bytes");
    });
}

#[test]
fn a_record_for_which_there_never_is_memory_is_refused_and_pieces_are_not() {
    bounded(|| {
        let limits = Limits { accepted_max: 64, owned_bytes_max: 8 << 10, ..Limits::default() };
        let builder = one_reactor().limits(limits);
        let (serving, told) = reporting(builder, server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            let waited = slipring::timeout(PATIENCE / 2, conn.send(vec![1; 10_000])).await;
            tell.send((waited.ok(), conn.try_send(&[1; 10_000]))).expect("the test waits");
            conn.send_all(&pattern(3, 100_000)).await.expect("in pieces");
            conn.shutdown().await.expect("nothing in the way");
        });
        let mut client = stranger(serving.addresses()[0]);
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("announced");
        let (sent, tried) = told.recv_timeout(PATIENCE).expect("told");
        for outcome in [sent.expect("nothing to wait for"), tried] {
            assert!(
                matches!(outcome, Err(TlsError::TooManyOwned { bytes: 10_000, most: 8_192 })),
                "{outcome:?}"
            );
        }
        assert!(received == pattern(3, 100_000), "{} bytes", received.len());
        end(serving);
    });
}
