//! Connections with TLS: how the handshake fails, and how the stream ends.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use slipring::CloseReason;
use slipring::connector::ConnectorError;
use slipring::failure::{Kind, Phase, Side, Tls, Transfer};
use slipring::proxy_protocol::Version;
use slipring::{Timeout, tls::TlsServer};

use super::*;
use crate::support::{self, assert_kept, bounded, ms, read_bytes, reset};

type Session = StreamOwned<ServerConnection, TcpStream>;

fn connector() -> Connector {
    with_tls(ConnectLimits::default())
}

fn with_tls(limits: ConnectLimits) -> Connector {
    let client = pki::client().build().expect("a client");
    Connector::builder().limits(limits).tls(client).build().expect("a connector")
}

/// A server by rustls alone, on the next connection.
fn session(stream: TcpStream) -> Session {
    let certificate = CertificateDer::from_pem_slice(pki::localhost().certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pki::localhost().key.as_bytes());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("one")], key.expect("one"))
        .expect("a pair");
    let server = ServerConnection::new(Arc::new(config)).expect("a server");
    StreamOwned::new(server, stream)
}

fn tls_peer<T: Send + 'static>(
    act: impl FnOnce(Session) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    peer(move |stream| act(session(stream)))
}

/// Reads so many bytes of plaintext.
fn hear(session: &mut Session, bytes: usize) -> Vec<u8> {
    let mut heard = vec![0; bytes];
    session.read_exact(&mut heard).expect("the bytes come");
    heard
}

async fn secured(to: SocketAddr) -> Stream {
    connector().connect(to, &About::default()).await.expect("a handshake")
}

#[test]
fn a_certificate_may_be_for_the_address_for_the_name_dialed_or_for_a_fixed_one() {
    bounded(|| {
        let client = pki::client().build().expect("a client");
        let builder = || Connector::builder().tls(client.clone());
        let plain = builder().build().expect("a connector");
        let fixed = builder().server_name("localhost").build().expect("a connector");
        for connector in [
            plain.clone(),
            plain.for_name("localhost").expect("a name"),
            fixed.clone(),
            fixed.for_name("example.org").expect("a name"),
        ] {
            let (address, upstream) = tls_peer(|mut session| {
                let heard = hear(&mut session, 5);
                session.write_all(b"world!").expect("sent");
                heard
            });
            run(move || async move {
                let about = About::default();
                let mut stream = connector.connect(address, &about).await.expect("a handshake");
                assert!(stream.agreed().is_some());
                stream.send("hello").await.expect("open");
                assert_eq!(*stream.recv_some().await.expect("a reply"), *b"world!");
                let traffic = stream.traffic();
                assert_eq!((traffic.bytes_sent, traffic.bytes_received), (5, 6), "of plaintext");
                assert!(stream.into_conn().is_err(), "there are bytes that only TLS can read");
            });
            assert_eq!(upstream.join().expect("the peer"), b"hello");
        }
    });
}

/// The error of a handshake with a peer that does this.
fn refused_by(connector: Connector, act: impl FnOnce(TcpStream) + Send + 'static) -> Error {
    let (address, upstream) = peer(act);
    let error = refused(connector, address);
    upstream.join().expect("the peer");
    assert_eq!(error.phase(), Phase::TlsHandshake, "{error}");
    error
}

/// A peer that means well.
fn shake(stream: TcpStream) {
    let mut session = session(stream);
    let _ = session.read(&mut [0]);
}

#[test]
fn who_is_not_who_was_asked_for_is_refused() {
    bounded(|| {
        let error = refused_by(connector().for_name("example.org").expect("a name"), shake);
        assert!(matches!(error.kind(), Kind::Tls(Tls::NameMismatch)), "{error}");
        assert_eq!(error.side(), Side::Upstream);
        assert!(beneath(&error).contains("example.org"), "{}", beneath(&error));

        let other = pki::Authority::new();
        let client = slipring::tls::TlsClient::builder().roots_pem(other.pem().as_bytes()).build();
        let builder = Connector::builder().tls(client.expect("a client"));
        let error = refused_by(builder.build().expect("a connector"), shake);
        assert!(matches!(error.kind(), Kind::Tls(Tls::PeerCert)), "{error}");
    });
}

#[test]
fn who_never_answers_is_reset_at_the_deadline() {
    bounded(|| {
        let silent = |stream: TcpStream| {
            support::expect_reset(&stream);
        };
        let limits = ConnectLimits { tls: ms(700), ..ConnectLimits::default() };
        let error = refused_by(with_tls(limits), silent);
        assert!(matches!(error.kind(), Kind::Tls(Tls::Timeout)), "{error}");
        assert_kept("the handshake", error.elapsed(), ms(700));
        assert!(beneath(&error).contains("handshake has 700ms"), "{}", beneath(&error));
        assert!(error.counts_for_breaker());

        let error = refused_by(with_tls(within(ms(200))), silent);
        assert!(matches!(error.kind(), Kind::Tls(Tls::Timeout)), "{error}");
        assert_kept("the whole", error.elapsed(), ms(200));
        assert!(beneath(&error).contains("together has 200ms"), "{}", beneath(&error));
    });
}

#[test]
fn who_speaks_no_tls_or_gives_up_is_told_apart() {
    bounded(|| {
        let error = refused_by(connector(), |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert!(matches!(error.kind(), Kind::Tls(Tls::Protocol)), "{error}");

        let error = refused_by(connector(), |stream| {
            read_bytes(&stream, 5);
            reset(stream);
        });
        assert!(matches!(error.kind(), Kind::Transfer(Transfer::ResetEarly)), "{error}");
        assert_eq!(error.side(), Side::Upstream);

        let error = refused_by(connector(), |stream| {
            // All of it, so that the close is no reset.
            let header = read_bytes(&stream, 5);
            let length = u16::from_be_bytes([header[3], header[4]]);
            read_bytes(&stream, length.into());
        });
        assert!(matches!(error.kind(), Kind::Tls(Tls::Truncated)), "{error}");

        let error = refused_by(connector(), |mut stream| {
            // handshake_failure
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert!(matches!(error.kind(), Kind::Tls(Tls::Alert)), "{error}");
    });
}

#[test]
fn a_header_stands_in_front_of_the_handshake() {
    bounded(|| {
        let (address, upstream) = peer(|stream| {
            let header = read_bytes(&stream, 15);
            let mut session = session(stream);
            (header, hear(&mut session, 5))
        });
        let client = pki::client().build().expect("a client");
        let builder = Connector::builder().tls(client).proxy_header(Version::V1);
        let connector = builder.build().expect("a connector");
        run(move || async move {
            let about = About::default();
            let mut stream = connector.connect(address, &about).await.expect("a handshake");
            stream.send("hello").await.expect("open");
        });
        let (header, heard) = upstream.join().expect("the peer");
        assert_eq!((&header[..], &heard[..]), (&b"PROXY UNKNOWN\r\n"[..], &b"hello"[..]));
    });
}

#[test]
fn names_that_no_certificate_can_be_for_are_refused_beforehand() {
    let error = connector().for_name("not a name").expect_err("spaces");
    assert!(error.to_string().contains("; give a DNS name"), "{error}");
    let nameless = Connector::builder().server_name("localhost").build();
    assert_eq!(nameless.expect_err("no TLS"), ConnectorError::NameWithoutTls);
    assert!(Connector::default().for_name("not a name").is_ok(), "nobody asks for it");
}

#[test]
fn a_future_that_is_dropped_amidst_the_handshake_leaves_no_connection() {
    bounded(|| {
        let (address, upstream) = peer(|stream| {
            read_bytes(&stream, 5);
            let _ = (&stream).read_to_end(&mut Vec::new());
        });
        let dialer = Dialer::new();
        dialer.run(move || async move {
            let (connector, about) = (with_tls(patient()), About::default());
            let connecting = connector.connect(address, &about);
            assert!(slipring::timeout(ms(200), connecting).await.is_err(), "nobody answers");
        });
        dialer.wait_until_left(0);
        upstream.join().expect("it is told of the end");
        dialer.end();
    });
}

// ----------------------------------------------------------------------------------------- streams

/// What a stream is told whose peer hears 5 bytes and does this.
fn after(
    is_reused: bool,
    act: impl FnOnce(Session) + Send + 'static,
) -> Result<Option<Vec<u8>>, Error> {
    let (address, upstream) = tls_peer(move |mut session| {
        hear(&mut session, 5);
        act(session);
    });
    let received = run(move || async move {
        let mut stream = secured(address).await;
        stream.begin_request(is_reused);
        stream.send("hello").await.expect("open");
        let received = stream.recv().await;
        received.map(|lease| lease.map(|lease| lease.to_vec()))
    });
    upstream.join().expect("the peer");
    if let Err(error) = &received {
        assert_eq!((error.phase(), error.endpoint()), (Phase::Transfer, Some(address)), "{error}");
        assert_eq!(error.traffic().bytes_sent, 5);
    }
    received
}

#[test]
fn ends_of_streams_are_told_apart() {
    bounded(|| {
        let closed = after(false, |mut session| {
            session.conn.send_close_notify();
            session.flush().expect("sent");
        });
        assert!(matches!(closed, Ok(None)), "{closed:?}");
        let cut_off = |session: Session| drop(session.sock);
        let error = after(false, cut_off).expect_err("not announced");
        assert_eq!(error.label(), "tls_truncated");
        let error = after(true, cut_off).expect_err("not announced");
        assert_eq!(error.label(), "stale_reuse", "as without TLS");
        for (is_reused, label) in [(false, "reset_early"), (true, "stale_reuse")] {
            let error = after(is_reused, |session| reset(session.sock)).expect_err("reset");
            assert_eq!(error.label(), label);
        }
        let garbage = |mut session: Session| {
            session.sock.write_all(&[23, 3, 3, 0, 3, 1, 2, 3]).expect("sent");
            let _ = session.sock.read_to_end(&mut Vec::new());
        };
        assert_eq!(after(false, garbage).expect_err("no record").label(), "tls_protocol");
    });
}

#[test]
fn a_read_deadline_and_what_cannot_be_sent() {
    bounded(|| {
        let (address, upstream) = tls_peer(|mut session| {
            hear(&mut session, 4);
            session.write_all(b"late").expect("sent");
            session
        });
        run(move || async move {
            let mut stream = secured(address).await;
            stream.set_read_deadline(Timeout::After(ms(150)));
            let error = stream.recv().await.expect_err("nothing comes");
            assert_eq!(error.label(), "read_timeout");
            assert_kept("the read deadline", error.elapsed(), ms(150));
            let large = stream.send(vec![0; 64 << 20]).await.expect_err("too large");
            assert_eq!((large.label(), large.traffic().bytes_sent), ("too_large", 0));
            stream.set_read_deadline(Timeout::Never);
            stream.send("more").await.expect("it is as it was");
            assert_eq!(*stream.recv_some().await.expect("open"), *b"late");
            stream.shutdown().await.expect("open");
            assert_eq!(stream.send("x").await.expect_err("behind our end").label(), "ended");
            stream.abort();
            assert_eq!(stream.closed().await, CloseReason::Aborted);
            assert_eq!(stream.reason(), Some(CloseReason::Aborted));
        });
        drop(upstream.join());
    });
}

#[test]
fn a_server_that_wants_a_certificate_says_so_after_the_handshake() {
    bounded(|| {
        let roots = pki::authority().pem();
        let builder = pki::server().client_certificates_of(roots.as_bytes(), true);
        let server: TlsServer = builder.build().expect("a server");
        let serving = serve(one_reactor(), move |conn: Conn| {
            let server = server.clone();
            async move {
                server.accept(conn).await.expect_err("it shows none");
            }
        });
        let address = serving.addresses()[0];
        let error = run(move || async move {
            secured(address).await.recv().await.expect_err("we are refused")
        });
        assert!(matches!(error.kind(), Kind::Tls(Tls::ClientCertRequired)), "{error}");
        assert_eq!(error.phase(), Phase::Transfer);
        end(serving);
    });
}

#[test]
fn tickets_leave_a_kept_stream_fit_and_data_does_not() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let (address, upstream) = tls_peer(move |mut session| {
            hear(&mut session, 5);
            session.write_all(b"hello").expect("sent, behind tickets");
            told.recv().expect("told");
            session.write_all(b"unasked").expect("sent");
            session
        });
        run(move || async move {
            let mut stream = secured(address).await;
            let waited = slipring::timeout(ms(100), poll_fn(|cx| stream.poll_unfit(cx))).await;
            assert!(waited.is_err(), "tickets, at most");
            stream.begin_request(false);
            stream.send("hello").await.expect("open");
            assert_eq!(*stream.recv_some().await.expect("a reply"), *b"hello");
            stream.set_read_deadline(Timeout::After(ms(20)));
            let waited = slipring::timeout(ms(100), poll_fn(|cx| stream.poll_unfit(cx))).await;
            assert!(waited.is_err(), "nothing has come");
            tell.send(()).expect("the peer waits");
            poll_fn(|cx| stream.poll_unfit(cx)).await;
            stream.set_read_deadline(Timeout::Never);
            assert_eq!(*stream.recv_some().await.expect("open"), *b"unasked", "it is not lost");
        });
        drop(upstream.join());
        // So does an end, announced or not.
        for announces in [true, false] {
            let (address, upstream) = tls_peer(move |mut session| {
                hear(&mut session, 1);
                if announces {
                    session.conn.send_close_notify();
                    session.flush().expect("sent");
                }
                session.sock.shutdown(std::net::Shutdown::Write).expect("half-closed");
                session
            });
            run(move || async move {
                let mut stream = secured(address).await;
                assert!(poll_once(poll_fn(|cx| stream.poll_unfit(cx))).await.is_none());
                stream.send("x").await.expect("open");
                poll_fn(|cx| stream.poll_unfit(cx)).await;
            });
            drop(upstream.join());
        }
    });
}
