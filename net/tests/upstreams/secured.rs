//! Connections with TLS that are kept: what may come while they rest, what may not, and what a failure may repeat.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use slipring::connector::{ConnectLimits, Connector};
use slipring::failure::{Kind, Phase, Tls};
use slipring::health::Check;
use slipring::policy::balancer::Availability;
use slipring::policy::health::HealthLimits;
use slipring::policy::pool::{Mode, PoolLimits};
use slipring::proxy_protocol::Version;
use slipring::resolve::{Fixed, ResolveLimits};
use slipring::upstream::{Request, Upstream, UpstreamBuilder, UpstreamLimits};
use slipring::{Conn, Error, Idempotency, sleep};

use crate::connector::pki;
use crate::setting::{ask, run, soon};
use crate::support::{
    accept, bounded, end, listener, ms, one_reactor, read_bytes, reset, serve, spawn,
};

type Session = StreamOwned<ServerConnection, TcpStream>;

/// What all servers here are made of, so that each resumes the sessions of the others.
fn config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let certificate = CertificateDer::from_pem_slice(pki::localhost().certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(pki::localhost().key.as_bytes());
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("one")], key.expect("one"))
            .expect("a pair");
        config.alpn_protocols = vec![b"echo".to_vec()];
        Arc::new(config)
    };
    Arc::clone(CONFIG.get_or_init(make))
}

fn session(stream: TcpStream) -> Session {
    StreamOwned::new(ServerConnection::new(config()).expect("a server"), stream)
}

/// Hears five bytes; nothing if the peer has ended.
fn hear(session: &mut Session) -> Option<Vec<u8>> {
    let mut heard = vec![0; 5];
    session.read_exact(&mut heard).ok().map(|()| heard)
}

/// Hears five bytes, and says them again.
fn answer(session: &mut Session) -> bool {
    match hear(session) {
        Some(heard) => session.write_all(&heard).is_ok(),
        None => false,
    }
}

/// As TLS sends it, for a peer that sends it otherwise.
fn sealed(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    session.conn.writer().write_all(plain).expect("there is room");
    let mut bytes = Vec::new();
    while session.conn.wants_write() {
        session.conn.write_tls(&mut bytes).expect("memory takes all");
    }
    bytes
}

/// A server's thread: it does this with all that connect, one after the other, until it is told.
fn server<T: Send + 'static>(
    act: impl FnOnce(&TcpListener) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let (listener, address) = listener();
    (address, spawn(move || act(&listener)))
}

fn connector() -> Connector {
    Connector::builder().tls(pki::client().build().expect("a client")).build().expect("sound")
}

fn builder(endpoints: &[SocketAddr], limits: UpstreamLimits) -> UpstreamBuilder {
    let builder = Upstream::builder("secured").limits(limits).connector(connector()).seed(7);
    endpoints.iter().fold(builder, |builder, at| builder.endpoint(*at))
}

fn made(endpoints: &[SocketAddr], limits: UpstreamLimits) -> Upstream {
    builder(endpoints, limits).build().expect("sound")
}

/// Asks once, of which nothing that was sent may be repeated.
async fn once(upstream: &Upstream) -> Result<(), Error> {
    ask(upstream, &Request::default(), Idempotency::ConnectOnly).await
}

#[test]
fn tickets_and_changes_of_keys_leave_a_kept_connection_kept() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let (address, server) = server(move |listener| {
            let mut session = session(accept(listener));
            for _ in 0..3 {
                assert!(answer(&mut session), "on the same connection");
                // Asked for while it rests, with our own keys to be changed too.
                session.conn.refresh_traffic_keys().expect("TLS 1.3 can");
                session.flush().expect("open");
                tell.send(()).expect("it is waited for");
            }
            session
        });
        let upstream = made(&[address], UpstreamLimits::default());
        run(move || async move {
            for _ in 0..3 {
                once(&upstream).await.expect("an answer");
                slipring::unblock({
                    let told = told.recv();
                    move || told.expect("the keys are changed")
                })
                .await
                .expect("no panic");
                sleep(ms(20)).await;
            }
            assert_eq!(upstream.snapshot().connections.0, 1);
        });
        drop(server.join().expect("the server"));
    });
}

/// What a server does to a connection that rests, and that nobody gets it who would take harm.
fn rests_while(act: impl FnOnce(&mut Session) + Send + 'static) {
    let (address, server) = server(move |listener| {
        let mut first = session(accept(listener));
        assert!(answer(&mut first));
        act(&mut first);
        let mut second = session(accept(listener));
        assert!(answer(&mut second), "on a new connection");
        (first, second)
    });
    let upstream = made(&[address], UpstreamLimits::default());
    run(move || async move {
        once(&upstream).await.expect("an answer");
        sleep(ms(100)).await;
        once(&upstream).await.expect("an answer of its own");
        assert_eq!(upstream.counters().retries, 0);
    });
    drop(server.join().expect("the server"));
}

#[test]
fn what_has_ended_or_spoken_while_it_rested_is_given_to_nobody() {
    bounded(|| {
        rests_while(|session| {
            session.conn.send_close_notify();
            session.flush().expect("sent");
        });
        rests_while(|session| session.sock.shutdown(Shutdown::Write).expect("half-closed"));
        rests_while(|session| session.write_all(b"more!").expect("sent"));
        // An alert that means the end.
        rests_while(|session| session.sock.write_all(&[21, 3, 3, 0, 2, 2, 40]).expect("sent"));
    });
}

#[test]
fn half_a_record_is_somebody_s_and_the_connection_is_given_to_nobody() {
    bounded(|| {
        rests_while(|session| {
            let record = sealed(session, b"more!");
            session.sock.write_all(&record[..record.len() / 2]).expect("sent");
        });
    });
}

#[test]
fn an_answer_of_which_half_was_read_is_not_the_next_one_s() {
    bounded(|| {
        let (address, server) = server(|listener| {
            let mut first = session(accept(listener));
            assert!(hear(&mut first).is_some());
            let mut answer = sealed(&mut first, b"half ");
            answer.extend(sealed(&mut first, b"whole"));
            let cut = answer.len() - 3;
            first.sock.write_all(&answer[..cut]).expect("sent");
            let mut second = session(accept(listener));
            let answered = self::answer(&mut second);
            (answered, first)
        });
        let upstream = made(&[address], UpstreamLimits::default());
        run(move || async move {
            {
                let mut lent = upstream.checkout(&Request::default()).await.expect("it listens");
                lent.send(b"hello".to_vec()).await.expect("open");
                let half = lent.recv_some().await.expect("half of it");
                assert_eq!(*half, *b"half ");
            }
            once(&upstream).await.expect("on another connection");
        });
        assert!(server.join().expect("the server").0);
    });
}

#[test]
fn a_greeting_is_there_for_the_first_and_goes_with_who_gave_it() {
    bounded(|| {
        for announces in [true, false] {
            let (address, server) = server(move |listener| {
                let mut first = session(accept(listener));
                first.write_all(b"ready").expect("sent");
                // It has waited for long enough.
                std::thread::park_timeout(ms(100));
                if announces {
                    first.conn.send_close_notify();
                    first.flush().expect("sent");
                } else {
                    first.sock.shutdown(Shutdown::Write).expect("half-closed");
                }
                let mut second = session(accept(listener));
                second.write_all(b"ready").expect("sent");
                (answer(&mut second), first, second)
            });
            let pool = PoolLimits::of(Mode::Dynamic { min_idle: 1, max: 4 });
            let upstream = made(&[address], UpstreamLimits { pool, ..UpstreamLimits::default() });
            run(move || async move {
                let dialed = || upstream.snapshot().endpoints[0].pool_counters.dials;
                soon("another was dialed in place of the first", || dialed() >= 2).await;
                let mut lent = upstream.checkout(&Request::default()).await.expect("the second");
                assert_eq!(*lent.recv_some().await.expect("a greeting"), *b"ready");
                lent.send(b"hello".to_vec()).await.expect("open");
                assert_eq!(*lent.recv_some().await.expect("alive"), *b"hello");
            });
            assert!(server.join().expect("the server").0);
        }
    });
}

#[test]
fn a_handshake_that_stalls_is_told_as_one_whoever_s_time_it_was() {
    bounded(|| {
        let (address, server) = server(|listener| {
            let streams: Vec<_> = (0..2).map(|_| accept(listener)).collect();
            streams.iter().for_each(|stream| {
                let _ = (&*stream).read_to_end(&mut Vec::new());
            });
        });
        let of_connector = {
            let limits = ConnectLimits { tls: ms(200), ..ConnectLimits::default() };
            let client = pki::client().build().expect("a client");
            let connector = Connector::builder().tls(client).limits(limits).build();
            builder(&[address], UpstreamLimits::default()).connector(connector.expect("sound"))
        };
        let never = slipring::policy::retry::RetryPolicy::never();
        let limits = UpstreamLimits { retry: never, ..UpstreamLimits::default() };
        let of_connector = of_connector.limits(limits.clone()).build().expect("sound");
        let of_request = made(&[address], limits);
        let errors = run(move || async move {
            let first = of_connector.connect(&Request::default()).await.expect_err("it stalls");
            let request = Request { within: Some(ms(200)), ..Request::default() };
            let second = of_request.connect(&request).await.expect_err("it stalls");
            [first, second]
        });
        for error in errors {
            assert!(matches!(error.kind(), Kind::Tls(Tls::Timeout)), "{error}");
            assert_eq!(error.phase(), Phase::TlsHandshake, "{error}");
            assert_eq!(error.endpoint(), Some(address), "{error}");
        }
        server.join().expect("the server");
    });
}

#[test]
fn a_check_that_is_too_slow_says_at_what() {
    bounded(|| {
        let (address, server) = server(|listener| {
            let _ = accept(listener).read_to_end(&mut Vec::new());
        });
        let limits = HealthLimits { timeout: ms(200), ..HealthLimits::default() };
        let check = Check { limits, ..Check::default() };
        let error = run(move || async move { check.run(&connector(), address).await });
        let error = error.expect_err("it stalls");
        assert_eq!((error.label(), error.phase()), ("tls_timeout", Phase::TlsHandshake), "{error}");
        server.join().expect("the server");
    });
}

#[test]
fn a_request_that_may_have_been_heard_is_not_repeated() {
    bounded(|| {
        for serves_before in [false, true] {
            let heard = Arc::new(AtomicUsize::new(0));
            let (address, server) = server({
                let heard = Arc::clone(&heard);
                move |listener| {
                    let mut first = session(accept(listener));
                    if serves_before {
                        assert!(answer(&mut first));
                    }
                    if hear(&mut first).is_some() {
                        heard.fetch_add(1, Ordering::SeqCst);
                    }
                    reset(first.sock);
                    listener.set_nonblocking(true).expect("a listener");
                    std::thread::park_timeout(ms(300));
                    listener.accept().is_ok()
                }
            });
            let upstream = made(&[address], UpstreamLimits::default());
            let error = run(move || async move {
                if serves_before {
                    once(&upstream).await.expect("an answer");
                }
                once(&upstream).await.expect_err("it was reset")
            });
            let expected = if serves_before { "stale_reuse" } else { "reset_early" };
            assert_eq!(error.label(), expected, "{error}");
            assert_eq!(error.traffic().bytes_sent, 5);
            assert!(!server.join().expect("the server"), "nobody came again");
            assert_eq!(heard.load(Ordering::SeqCst), 1);
        }
    });
}

#[test]
fn one_that_fails_in_the_handshake_is_left_alone_and_is_back_when_it_works() {
    bounded(|| {
        let (stop, stopped) = mpsc::channel::<()>();
        let (address, server) = server(move |listener| {
            let mut resets = 0;
            while stopped.try_recv().is_err() {
                let stream = accept(listener);
                read_bytes(&stream, 5);
                reset(stream);
                resets += 1;
            }
            let mut probe = session(accept(listener));
            let _ = probe.read(&mut [0]);
            resets
        });
        let of_other = pki::server().build().expect("a server");
        let other = serve(one_reactor(), move |conn: Conn| {
            let of_other = of_other.clone();
            async move {
                let Ok(mut conn) = of_other.accept(conn).await else { return };
                while let Ok(Some(heard)) = conn.recv().await {
                    let _ = conn.send(heard).await;
                }
            }
        });
        let upstream = made(&[address, other.addresses()[0]], UpstreamLimits::default());
        run(move || async move {
            let stands = || {
                let snapshot = upstream.snapshot();
                let one = snapshot.endpoints.iter().find(|one| one.address == address);
                one.expect("an endpoint").availability
            };
            while stands() == Availability::Up {
                let mut connected = upstream.connect(&Request::default()).await.expect("the other");
                connected.abort();
            }
            stop.send(()).expect("it runs");
            soon("it works again", || stands() == Availability::Up).await;
        });
        assert!(server.join().expect("the server") > 1);
        end(other);
    });
}

#[test]
fn who_comes_again_resumes_and_each_connection_has_its_header_and_protocol() {
    bounded(|| {
        let (address, server) = server(|listener| {
            for _ in 0..2 {
                let stream = accept(listener);
                assert_eq!(read_bytes(&stream, 15), b"PROXY UNKNOWN\r\n");
                let mut session = session(stream);
                assert!(answer(&mut session));
            }
        });
        let client = pki::client().alpn(["echo"]).build().expect("a client");
        let connector = Connector::builder().tls(client).proxy_header(Version::V1).build();
        let upstream = builder(&[address], UpstreamLimits::default());
        let upstream = upstream.connector(connector.expect("sound")).build().expect("sound");
        run(move || async move {
            for resumes in [false, true] {
                let mut lent = upstream.checkout(&Request::default()).await.expect("it listens");
                lent.send(b"hello".to_vec()).await.expect("open");
                assert_eq!(*lent.recv_some().await.expect("an answer"), *b"hello");
                let agreed = lent.agreed().expect("it speaks TLS");
                assert_eq!(agreed.alpn.as_deref(), Some(&b"echo"[..]));
                assert_eq!(agreed.resumed, resumes);
                lent.mark_unclean();
            }
        });
        server.join().expect("the server");
    });
}

#[test]
fn a_certificate_that_is_wrong_is_told_as_it_is_and_asked_for_once() {
    bounded(|| {
        let (address, server) = server(|listener| {
            let mut session = session(accept(listener));
            let _ = session.read(&mut [0]);
        });
        let stranger = pki::Authority::new();
        let client = slipring::tls::TlsClient::builder().roots_pem(stranger.pem().as_bytes());
        let connector = Connector::builder().tls(client.build().expect("a client")).build();
        let upstream = builder(&[address], UpstreamLimits::default());
        let upstream = upstream.connector(connector.expect("sound")).build().expect("sound");
        let (error, counters) = run(move || async move {
            let error = once(&upstream).await.expect_err("it is not trusted");
            (error, upstream.snapshot().counters)
        });
        assert!(matches!(error.kind(), Kind::Tls(Tls::PeerCert)), "{error}");
        assert_eq!((error.phase(), error.endpoint()), (Phase::TlsHandshake, Some(address)));
        assert_eq!((counters.attempts, counters.ejections), (1, 0), "it would fail again");
        server.join().expect("the server");
    });
}

#[test]
fn certificates_of_a_name_s_endpoints_are_for_that_name() {
    bounded(|| {
        let (address, server) = server(|listener| {
            let mut session = session(accept(listener));
            answer(&mut session).then(|| session.conn.server_name().map(str::to_owned))
        });
        let fixed = Fixed::new();
        fixed.set("localhost", [address.ip()]).expect("a name");
        let query = format!("localhost:{}", address.port()).parse().expect("a query");
        let upstream = builder(&[], UpstreamLimits::default());
        let upstream = upstream.name(query, fixed, ResolveLimits::default());
        let upstream = upstream.build().expect("sound");
        run(move || async move { once(&upstream).await.expect("its certificate is for the name") });
        let name = server.join().expect("the server").expect("it was asked");
        assert_eq!(name.as_deref(), Some("localhost"));
    });
}
