//! How a connection ends, and who is told.

use super::*;

/// The outcome of receiving to the end, as the service sees it.
async fn receive_all(conn: Conn, server: TlsServer, tell: mpsc::Sender<(usize, Option<TlsError>)>) {
    let mut conn = server.accept(conn).await.expect("a client");
    let mut bytes = 0;
    let error = loop {
        match conn.recv().await {
            Ok(Some(data)) => bytes += data.len(),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    tell.send((bytes, error)).expect("the test waits");
}

#[test]
fn an_end_that_is_announced_is_told_from_one_that_is_not() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), server(), receive_all);
        let address = serving.addresses()[0];

        let mut client = stranger(address);
        client.write_all(b"hello").expect("sent");
        client.conn.send_close_notify();
        client.flush().expect("sent");
        let (bytes, error) = told.recv_timeout(PATIENCE).expect("told");
        assert!(bytes == 5 && error.is_none(), "{error:?}");
        assert_eq!(client.read(&mut [0]).expect("our service announces its own"), 0);

        let mut client = stranger(address);
        client.write_all(b"hello").expect("sent");
        client.sock.shutdown(std::net::Shutdown::Write).expect("half-closed");
        let (bytes, error) = told.recv_timeout(PATIENCE).expect("told");
        assert!(bytes == 5 && matches!(error, Some(TlsError::Truncated)), "{error:?}");

        let mut client = stranger(address);
        client.write_all(b"hello").expect("sent");
        support::reset(client.sock);
        let (_, error) = told.recv_timeout(PATIENCE).expect("told");
        assert!(matches!(error, Some(TlsError::Ended(CloseReason::Reset))), "{error:?}");
        end(serving);
    });
}

#[test]
fn a_direction_goes_on_after_the_other_has_ended() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            let mut bytes = 0;
            while let Some(data) = conn.recv().await.expect("announced") {
                bytes += data.len();
            }
            conn.send_all(&pattern(3, 300_000)).await.expect("our direction is open");
            conn.shutdown().await.expect("our direction is open");
            let late = conn.send("late").await;
            tell.send((bytes, late)).expect("the test waits");
        });
        let mut client = stranger(serving.addresses()[0]);
        client.write_all(b"all I have").expect("sent");
        client.conn.send_close_notify();
        client.flush().expect("sent");
        client.sock.shutdown(std::net::Shutdown::Write).expect("half-closed");
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("announced");
        assert!(back == pattern(3, 300_000));
        let (bytes, late) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(bytes, 10);
        assert!(matches!(late, Err(TlsError::SentClose)), "{late:?}");
        end(serving);
    });
}

#[test]
fn a_client_that_is_refused_is_told_why() {
    bounded(|| {
        let required =
            pki::server().client_certificates_of(pki::authority().pem().as_bytes(), true);
        let required = required.build().expect("a server");
        let (serving, told) = reporting(one_reactor(), required, async |conn, server, tell| {
            let error = server.accept(conn).await.expect_err("it shows no certificate");
            tell.send(error).expect("the test waits");
        });
        let mut client = stranger(serving.addresses()[0]);
        let error = client.read(&mut [0]).expect_err("refused");
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
        let told = told.recv_timeout(PATIENCE).expect("told");
        assert!(matches!(told, TlsError::ClientCertRequired), "{told:?}");

        let mut plain = connect(serving.addresses()[0]);
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).expect("an end in order");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 10], "an alert, and no reset");
        end(serving);
    });
}
