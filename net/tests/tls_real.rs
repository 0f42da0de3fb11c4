//! TLS on the real kernel: connections of `async` code against rustls on blocking sockets, and against each other.

mod support;

#[path = "tls/pki.rs"]
mod pki;

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

#[test]
fn what_is_received_is_sent_back() {
    bounded(|| {
        let serving = serve_echo(one_reactor(), server());
        let address = serving.addresses()[0];
        for (seed, (bytes, piece)) in
            [(1, 1), (1000, 7), (100_000, 1000), (4 << 20, 100_000), (1 << 20, 16_384)]
                .into_iter()
                .enumerate()
        {
            exchange(&mut stranger(address), &pattern(seed as u8, bytes), piece);
        }
        let clients: Vec<_> = (0..8)
            .map(|seed| {
                spawn(move || exchange(&mut stranger(address), &pattern(seed, 1 << 20), 50_000))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("its bytes came back"));
        end(serving);
    });
}

#[test]
fn what_is_received_lies_in_the_buffers_of_the_ring() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            let first = conn.recv().await.expect("no error").expect("bytes");
            let place = first.as_ptr().addr();
            // Bytes of plain memory beside it, for comparison.
            let own = first.adopt_beside(first.to_vec()).expect("room");
            let kept = conn.recv().await.expect("no error").expect("bytes");
            let distance = |to: usize| to.abs_diff(place);
            let (near, far) = (distance(kept.as_ptr().addr()), distance(own.as_ptr().addr()));
            tell.send((near, far)).expect("the test waits");
        });
        let mut client = stranger(serving.addresses()[0]);
        client.write_all(&[7; 1000]).expect("sent");
        client.write_all(&[8; 1000]).expect("sent");
        let (near, far) = told.recv_timeout(PATIENCE).expect("told");
        let ring = 1 << 26; // more than one_reactor's buffers take, and less than to the heap
        assert!(near < ring, "{near} bytes apart, {far} to the heap");
        assert!(far > near);
        end(serving);
    });
}

#[test]
fn our_client_speaks_to_a_server_of_another_kind() {
    bounded(|| {
        let (listener, address) = support::listener();
        let stranger = spawn(move || {
            let pair = pki::localhost();
            let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
            let ring = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(ring)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(chain.collect::<Result<_, _>>().expect("one"), key)
                .expect("a pair");
            let connection = ServerConnection::new(Arc::new(config)).expect("a server");
            let mut stream = StreamOwned::new(connection, support::accept(&listener));
            let mut bytes = vec![0; 200_000];
            stream.read_exact(&mut bytes).expect("all of it");
            stream.write_all(&bytes).expect("sent");
            assert_eq!(stream.read(&mut bytes).expect("announced"), 0);
            stream.conn.send_close_notify();
            stream.flush().expect("sent");
        });
        let client = pki::client().build().expect("a client");
        let serving = one_reactor().max_dialed(4).serve(async |_conn| {});
        let serving = serving.expect("it starts");
        let (tell, told) = mpsc::channel();
        let _running = serving.spawner().spawn(move || async move {
            let conn = slipring::dial(address).await.expect("somebody listens");
            let mut conn = client.connect(conn, "localhost").await.expect("both keep to it");
            let sent = pattern(9, 200_000);
            conn.send_all(&sent).await.expect("established");
            conn.shutdown().await.expect("established");
            let mut back = Vec::new();
            while let Some(data) = conn.recv().await.expect("announced") {
                back.extend_from_slice(&data);
            }
            tell.send(back == sent).expect("the test waits");
        });
        assert!(told.recv_timeout(PATIENCE).expect("told"), "other bytes came back");
        stranger.join().expect("it was content");
        end(serving);
    });
}

#[test]
fn sessions_are_resumed_on_every_reactor() {
    bounded(|| {
        let builder = support::two_reactors();
        let (serving, told) = reporting(builder, server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            tell.send(conn.agreed().resumed).expect("the test waits");
            let data = conn.recv().await.expect("no error").expect("bytes");
            conn.send(data).await.expect("established");
            conn.shutdown().await.expect("established");
        });
        let shared = client_config();
        for round in 0..8 {
            let mut client =
                StreamOwned::new(connection_of(&shared), connect(serving.addresses()[0]));
            client.write_all(b"x").expect("sent");
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("announced");
            let resumed = told.recv_timeout(PATIENCE).expect("told");
            assert_eq!(resumed, round > 0, "client {round}");
        }
        end(serving);
    });
}

// ---------------------------------------------------------------------------------------- ends

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

// ------------------------------------------------------------------------------ a full outbox

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

// ------------------------------------------------------------------------------ deadlines, floods

#[test]
fn a_hello_that_trickles_is_cut_off_at_the_deadline() {
    bounded(|| {
        let server = pki::server().handshake_timeout(ms(500)).build().expect("a server");
        let (serving, told) = reporting(one_reactor(), server, async |conn, server, tell| {
            let error = server.accept(conn).await.expect_err("it never gets there");
            tell.send(error).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        let begun = now();
        for byte in hello() {
            if client.write_all(&[byte]).is_err() || hears_within(&client, ms(20)) {
                break;
            }
        }
        let took = begun.elapsed();
        support::assert_kept("the handshake's deadline", took, ms(500));
        let error = told.recv_timeout(PATIENCE).expect("told");
        assert!(matches!(error, TlsError::Timeout), "{error:?}");
        end(serving);
    });
}

/// Clients that connect and say nothing, those that say half, and those that say all and fall silent.
#[test]
fn a_thousand_half_handshakes_keep_nobody_out() {
    bounded_by(Duration::from_secs(60), || {
        let server = pki::server().handshake_timeout(Duration::from_secs(4)).handshakes_max(16);
        let builder = one_reactor().max_connections(2000);
        let serving = serve_echo(builder, server.build().expect("a server"));
        let address = serving.addresses()[0];
        let mut established = stranger(address);
        exchange(&mut established, b"hello", 5);

        let hello = hello();
        let half: Vec<TcpStream> = (0..1000)
            .map(|number| {
                let mut client = connect(address);
                let length = [0, 1, hello.len() / 2, hello.len()][number % 4];
                client.write_all(&hello[..length]).expect("sent");
                client
            })
            .collect();
        let begun = now();
        exchange(&mut established, &pattern(1, 100_000), 10_000);
        // 250 have said all: a place is free within a second or so, however many are silent.
        exchange(&mut established, &pattern(2, 100_000), 10_000);
        assert!(begun.elapsed() < Duration::from_secs(2), "established ones wait");
        for mut client in &half {
            // An end or a reset; a silent one is not waited for longer than a read may take.
            match client.read_to_end(&mut Vec::new()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("left open"),
                _ => {}
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "the deadline is 4 s");
        exchange(&mut stranger(address), b"hello", 5);
        exchange(&mut established, b"still here", 10);
        drop(established);
        let handle = serving.handle();
        eventually("all are gone", || {
            let counters = support::sum(&handle.counters());
            counters.accepted >= 1002 && counters.accepted == counters.closed
        });
        end(serving);
    });
}

#[test]
fn who_comes_while_others_are_silent_gets_in() {
    bounded_by(Duration::from_secs(30), || {
        let server = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(4);
        let serving = serve_echo(one_reactor(), server.build().expect("a server"));
        let address = serving.addresses()[0];
        let hello = hello();
        let silent: Vec<TcpStream> = (0..8)
            .map(|_| {
                let mut client = connect(address);
                client.write_all(&hello).expect("sent");
                client
            })
            .collect();
        let begun = now();
        exchange(&mut stranger(address), b"hello", 5);
        // Two rounds of four have their second each; the deadline would be 20 s.
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        drop(silent);
        end(serving);
    });
}

#[test]
fn a_server_that_is_full_keeps_nobody_from_another() {
    bounded_by(Duration::from_secs(30), || {
        let small = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(1);
        let small = small.build().expect("a server");
        let clients = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (serving, told) = reporting(one_reactor(), server(), move |conn, large, tell| {
            let number = clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let server = if number < 3 { small.clone() } else { large };
            async move {
                let Err(error) = echo(conn, server).await else { return };
                // Who comes last is not waited for.
                let _ = tell.send(error);
            }
        });
        let address = serving.addresses()[0];
        let hello = hello();
        let silent: Vec<TcpStream> = (0..3)
            .map(|_| {
                let mut client = connect(address);
                client.write_all(&hello).expect("sent");
                client
            })
            .collect();
        let mut client = stranger(address);
        exchange(&mut client, b"hello", 5);
        assert!(told.try_recv().is_err(), "it waited for a place of the other");
        let first = told.recv_timeout(PATIENCE).expect("told");
        assert!(matches!(first, TlsError::HandshakeCap { cap: 1 }), "{first:?}");
        client.conn.send_close_notify();
        client.flush().expect("sent");
        assert_eq!(client.read(&mut [0]).expect("announced"), 0);
        drop((silent, told));
        end(serving);
    });
}

/// What they are to be sent never finds room: no more than those who are silent do they keep their places.
#[test]
fn who_waits_for_room_in_a_handshake_keeps_nobody_out() {
    bounded(|| {
        let server = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(1);
        let server = server.build().expect("a server");
        let limits = Limits { accepted_max: 64, owned_bytes_max: 256, ..Limits::default() };
        let builder = one_reactor().limits(limits);
        let (serving, told) = reporting(builder, server, async |conn, server, tell| {
            let error = server.accept(conn).await.expect_err("no room for a certificate");
            // Who comes last is not waited for.
            let _ = tell.send(error);
        });
        let hello = hello();
        let clients: Vec<TcpStream> = (0..3)
            .map(|_| {
                let mut client = connect(serving.addresses()[0]);
                client.write_all(&hello).expect("sent");
                client
            })
            .collect();
        for _ in 0..2 {
            let error = told.recv_timeout(PATIENCE).expect("told");
            assert!(matches!(error, TlsError::HandshakeCap { cap: 1 }), "{error:?}");
        }
        drop((clients, told));
        end(serving);
    });
}

/// The ClientHello in two records: the first one with four bytes of it, which make nobody sign anything.
fn hello_in_two_records() -> (Vec<u8>, Vec<u8>) {
    let whole = hello();
    let record = |bytes: &[u8]| {
        let length = (bytes.len() as u16).to_be_bytes();
        [&whole[..3], &length, bytes].concat()
    };
    (record(&whole[5..9]), record(&whole[9..]))
}

#[test]
fn a_place_is_for_a_whole_hello_and_not_for_a_first_record() {
    bounded_by(Duration::from_secs(30), || {
        let server = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(2);
        let serving = serve_echo(one_reactor(), server.build().expect("a server"));
        let address = serving.addresses()[0];
        let (begins, goes_on) = hello_in_two_records();
        let mut slow: Vec<TcpStream> = (0..4)
            .map(|_| {
                let mut client = connect(address);
                client.write_all(&begins).expect("sent");
                client
            })
            .collect();
        exchange(&mut stranger(address), b"hello", 5);
        for client in &mut slow {
            client.write_all(&goes_on).expect("sent");
            let mut first = [0];
            client.read_exact(&mut first).expect("nobody gave it up");
            assert_eq!(first, [22], "a ServerHello");
        }
        drop(slow);
        end(serving);
    });
}

/// So many clients send the rest of their handshakes, then one who is established a ping, and all of that comes in one
/// turn. When each handshake was done, how many before the ping came, and the counters.
fn handshakes_that_go_on_together(
    builder: Builder,
    count: usize,
) -> (Vec<Duration>, usize, Counters) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let (serving, told) = reporting(builder, server(), move |conn, server, tell| {
        let wait = Arc::clone(&wait);
        async move {
            let mut conn = server.accept(conn).await.expect("a client");
            tell.send((false, slipring::now())).expect("the test waits");
            while let Ok(Some(data)) = conn.recv().await {
                tell.send((true, slipring::now())).expect("the test waits");
                if &data[..] == b"block" {
                    // The reactor, on purpose.
                    let wait = wait.lock().expect("nobody panics");
                    wait.recv_timeout(PATIENCE).expect("the test goes on");
                }
            }
        }
    });
    let address = serving.addresses()[0];
    let mut blocker = stranger(address);
    blocker.conn.complete_io(&mut blocker.sock).expect("a handshake");
    told.recv_timeout(PATIENCE).expect("told");
    let mut clients: Vec<Stranger> = (0..count).map(|_| stranger(address)).collect();
    for client in &mut clients {
        client.conn.write_tls(&mut client.sock).expect("sent");
    }
    for client in &mut clients {
        while client.conn.is_handshaking() {
            client.conn.read_tls(&mut client.sock).expect("received");
            client.conn.process_new_packets().expect("an honest server");
        }
    }
    blocker.write_all(b"block").expect("sent");
    told.recv_timeout(PATIENCE).expect("told");
    for client in &mut clients {
        while client.conn.wants_write() {
            client.conn.write_tls(&mut client.sock).expect("sent");
        }
    }
    blocker.write_all(b"ping").expect("sent");
    go.send(()).expect("the reactor waits");
    let all: Vec<(bool, Duration)> =
        (0..=count).map(|_| told.recv_timeout(PATIENCE).expect("told")).collect();
    let before = all.iter().position(|(is_ping, _)| *is_ping).expect("it comes");
    let done = all.iter().filter(|(is_ping, _)| !is_ping).map(|(_, at)| *at).collect();
    drop((blocker, clients, told));
    (done, before, end(serving))
}

/// What it costs is spread over several turns.
#[test]
fn few_handshakes_go_on_in_a_turn() {
    bounded(|| {
        let (times, ..) = handshakes_that_go_on_together(one_reactor(), 32);
        for turn in times.chunk_by(|one, next| one == next) {
            assert!(turn.len() <= 4, "{} in one turn", turn.len());
        }
    });
}

#[test]
fn what_waits_until_its_handshake_may_go_on_keeps_no_buffer() {
    bounded(|| {
        let limits =
            Limits { accepted_max: 256, buffers: 64, buffer_bytes: 4096, ..Limits::default() };
        let builder = one_reactor().limits(limits);
        let (times, before, counters) = handshakes_that_go_on_together(builder, 200);
        assert!(counters.receives_parked > 0, "64 buffers were never too few");
        assert!(before <= 80, "a ping waits for {before} of {} handshakes", times.len());
    });
}

// ----------------------------------------------------------------------------- dropped futures

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
