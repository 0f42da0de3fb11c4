//! TLS on the real kernel: connections of `async` code against rustls on blocking sockets, and against each other.
//!
//! One topic a file, in `tls_real/`; here is what they share.

mod support;

#[path = "tls/pki.rs"]
mod pki;

#[path = "tls_real/dropped.rs"]
mod dropped;
#[path = "tls_real/ends.rs"]
mod ends;
#[path = "tls_real/floods.rs"]
mod floods;
#[path = "tls_real/outbox.rs"]
mod outbox;
#[path = "tls_real/streams.rs"]
mod streams;
#[path = "tls_real/turns.rs"]
mod turns;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls::{StreamOwned, pki_types::pem::PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use slipring::tls::{TlsConn, TlsError, TlsServer};
use slipring::{Builder, CloseReason, Conn, Counters, Limits, Serve, Serving, Timeout};
use support::{PATIENCE, bounded, bounded_by, connect, eventually, hears_within};
use support::{ms, now, one_reactor, spawn};

type Stranger = StreamOwned<ClientConnection, TcpStream>;

/// A client by rustls alone.
fn stranger(address: SocketAddr) -> Stranger {
    StreamOwned::new(client_connection(), connect(address))
}

fn client_connection() -> ClientConnection {
    connection_of(&client_config())
}

fn connection_of(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = "localhost".try_into().expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("a client")
}

fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(pki::authority().pem().as_bytes()).expect("one");
    roots.add(root).expect("a root");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Clients that say this and fall silent.
fn silent(count: usize, address: SocketAddr, says: &[u8]) -> Vec<TcpStream> {
    let clients = (0..count).map(|_| {
        let mut client = connect(address);
        client.write_all(says).expect("sent");
        client
    });
    clients.collect()
}

/// What a client says first.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    client_connection().write_tls(&mut bytes).expect("memory takes all");
    bytes
}

fn server() -> TlsServer {
    pki::server().build().expect("a server")
}

async fn echo(conn: Conn, server: TlsServer) -> Result<(), TlsError> {
    let mut conn = server.accept(conn).await?;
    while let Some(data) = conn.recv().await? {
        conn.send(data).await?;
    }
    conn.shutdown().await
}

fn serve_echo(builder: Builder, server: TlsServer) -> Serving {
    builder.serve(move |conn| echo(conn, server.clone())).expect("it starts")
}

/// Runs a service that reports to the test.
fn reporting<T, S, F>(
    builder: Builder,
    server: TlsServer,
    service: S,
) -> (Serving, mpsc::Receiver<T>)
where
    T: Send + 'static,
    S: Fn(Conn, TlsServer, mpsc::Sender<T>) -> F + Clone + Send + 'static,
    F: Future + 'static,
{
    let (tell, told) = mpsc::channel();
    let serving = builder.serve(move |conn| service(conn, server.clone(), tell.clone()));
    (serving.expect("it starts"), told)
}

fn end(serving: Serving) -> Counters {
    serving.handle().drain();
    let counters = support::sum(&serving.join().expect("a drain in order"));
    assert_eq!(counters.accepted + counters.dialed, counters.closed, "a connection is lost");
    counters
}

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|place| (place / 251) as u8 ^ (place % 251) as u8 ^ seed).collect()
}

/// Sends and receives at the same time, in pieces; what comes back has to be the same.
fn exchange(client: &mut (impl Read + Write), bytes: &[u8], piece: usize) {
    let mut back = vec![0; piece];
    for part in bytes.chunks(piece) {
        client.write_all(part).expect("sent");
        client.flush().expect("sent");
        client.read_exact(&mut back[..part.len()]).expect("received");
        assert!(back[..part.len()] == *part, "other bytes came back");
    }
}
