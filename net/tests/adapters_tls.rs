//! TLS connections as byte streams of other libraries, on the real kernel.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use slipring::tls::{Identity, TlsServer};
use slipring::{Conn, Serve, Serving};
use support::{PATIENCE, bounded, end, one_reactor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Client = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// A server, and what a client connects to it with.
fn serve<F>(
    mut service: impl FnMut(Conn, TlsServer) -> F + Clone + Send + 'static,
) -> (Serving, Arc<rustls::ClientConfig>)
where
    F: Future + 'static,
{
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("a pair");
    let server = TlsServer::builder().identity(identity).build().expect("a server");
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes());
    roots.add(certificate.expect("a certificate")).expect("one of its own");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("both")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let serving = one_reactor().listen(address).serve(move |conn| service(conn, server.clone()));
    (serving.expect("it starts"), Arc::new(client))
}

fn connect(serving: &Serving, config: &Arc<rustls::ClientConfig>) -> Client {
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = rustls::ClientConnection::new(Arc::clone(config), name).expect("a client");
    rustls::StreamOwned::new(tls, support::connect(serving.addresses()[0]))
}

#[test]
fn what_is_read_is_written_back_whatever_the_pieces() {
    bounded(|| {
        let (serving, config) = serve(async |conn, tls| {
            let mut stream = tls.accept(conn).await.expect("a handshake");
            let mut buffer = vec![0; 5_000];
            loop {
                let count = stream.read(&mut buffer).await.expect("a stream in order");
                if count == 0 {
                    break stream.shutdown().await.expect("nothing in the way");
                }
                stream.write_all(&buffer[..count]).await.expect("it is read");
                stream.flush().await.expect("it is read");
            }
        });
        let mut client = connect(&serving, &config);
        for size in [1, 100, 5_000, 16_384, 16_385, 100_000] {
            let message: Vec<u8> = (0..size).map(|place| (place % 251) as u8).collect();
            client.write_all(&message).expect("sent");
            let mut back = vec![0; size];
            client.read_exact(&mut back).expect("it comes back");
            assert!(back == message, "{size} B");
        }
        client.conn.send_close_notify();
        client.flush().expect("sent");
        assert_eq!(client.read_to_end(&mut Vec::new()).expect("a close_notify of its own"), 0);
        drop(client);
        end(serving);
    });
}

#[test]
fn slices_go_out_as_one_and_a_cut_stream_is_no_end() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let (serving, config) = serve(move |conn, tls: TlsServer| {
            let tell = tell.clone();
            async move {
                let mut stream = tls.accept(conn).await.expect("a handshake");
                let parts = [&b"head"[..], b"", &[7; 20_000], b"tail"].map(std::io::IoSlice::new);
                let count = stream.write_vectored(&parts).await.expect("room");
                let error = stream.read(&mut [0; 16]).await.expect_err("it was cut off");
                tell.send((count, error.kind())).expect("the test waits");
            }
        });
        let mut client = connect(&serving, &config);
        let mut head = vec![0; 16_384];
        client.read_exact(&mut head).expect("one record");
        assert!(head.starts_with(b"head\x07") && head.ends_with(&[7]));
        // No close_notify.
        client.sock.shutdown(std::net::Shutdown::Write).expect("a FIN");
        let (count, kind) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!((count, kind), (16_384, std::io::ErrorKind::UnexpectedEof));
        drop(client);
        end(serving);
    });
}

#[test]
fn a_reset_is_told_to_who_flushes_and_to_who_shuts_down() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let (serving, config) = serve(move |conn, tls: TlsServer| {
            let tell = tell.clone();
            async move {
                let mut stream = tls.accept(conn).await.expect("a handshake");
                stream.write_all(b"hello").await.expect("room");
                stream.closed().await;
                let flushed = stream.flush().await.map_err(|error| error.kind());
                let shut_down = AsyncWriteExt::shutdown(&mut stream).await;
                let shut_down = shut_down.map_err(|error| error.kind());
                tell.send((flushed, shut_down)).expect("the test waits");
            }
        });
        let mut client = connect(&serving, &config);
        client.read_exact(&mut [0; 5]).expect("a handshake, and bytes behind it");
        support::reset(client.sock);
        let told = told.recv_timeout(PATIENCE).expect("told");
        let reset = Err(std::io::ErrorKind::ConnectionReset);
        assert_eq!(told, (reset, reset));
        end(serving);
    });
}
