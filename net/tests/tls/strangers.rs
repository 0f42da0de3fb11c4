//! Against rustls' own record layer, with every cipher: what it seals is opened here, and the other way round.

use std::io::{Cursor, Read, Write};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls::{ConnectionCommon, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use slipring::tls::{Machine, TlsError};

use super::pki;
use super::world::{End, pattern};

fn suites() -> Vec<SupportedCipherSuite> {
    // The others of TLS 1.2 want an RSA key, and have the same ciphers.
    let has_key = |suite: &SupportedCipherSuite| !format!("{suite:?}").contains("_RSA_");
    let suites = rustls::crypto::ring::default_provider().cipher_suites;
    let suites: Vec<_> = suites.into_iter().filter(has_key).collect();
    assert_eq!(suites.len(), 6, "three of TLS 1.3, three of TLS 1.2");
    suites
}

fn provider(suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    let ring = rustls::crypto::ring::default_provider();
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..ring })
}

fn stranger_server(suite: SupportedCipherSuite) -> ServerConnection {
    ServerConnection::new(Arc::new(server_config(suite))).expect("a server")
}

fn server_config(suite: SupportedCipherSuite) -> ServerConfig {
    let pair = pki::localhost();
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    ServerConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[suite.version()])
        .expect("a version for the suite")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair")
}

fn stranger_client(suite: SupportedCipherSuite) -> ClientConnection {
    connection_of(&Arc::new(client_config(suite)))
}

fn connection_of(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = "localhost".try_into().expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("a client")
}

fn client_config(suite: SupportedCipherSuite) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(pki::authority().pem().as_bytes()).expect("one");
    roots.add(root).expect("a root");
    ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[suite.version()])
        .expect("a version for the suite")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Carries bytes across until neither has any; what the stranger got is appended to `received`.
fn carry<D>(
    stranger: &mut ConnectionCommon<D>,
    own: &mut End,
    received: &mut Vec<u8>,
    dice: &mut fastrand::Rng,
) -> Result<(), rustls::Error> {
    loop {
        let mut bytes = Vec::new();
        while stranger.wants_write() {
            stranger.write_tls(&mut bytes).expect("memory takes all");
        }
        let back = own.outgoing();
        if bytes.is_empty() && back.is_empty() {
            return Ok(());
        }
        super::world::deliver(bytes, own, &mut |_| dice.usize(1..40_000));
        let mut back = Cursor::new(back);
        while back.position() < back.get_ref().len() as u64 {
            stranger.read_tls(&mut back).expect("it takes what is left");
            stranger.process_new_packets()?;
            let _ = stranger.reader().read_to_end(received); // would block: that is all for now
        }
    }
}

/// Handshake, many records both ways, new keys on both sides, and both ends.
fn converse<D>(stranger: &mut ConnectionCommon<D>, own: Machine, seed: u64)
where
    ConnectionCommon<D>: Refresh,
{
    let mut own = End::new(own);
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut received, mut up, mut down) = (Vec::new(), Vec::new(), Vec::new());
    carry(stranger, &mut own, &mut received, &mut dice).expect("both keep to the protocol");
    assert!(own.error.is_none() && own.machine.agreed().is_some(), "{:?}", own.error);
    for round in 0..200 {
        let length = if round % 50 == 49 { 50_000 } else { dice.usize(1..2_000) };
        let (a, b) = (pattern(round as u8, length), pattern(!round as u8, length / 2 + 1));
        stranger.writer().write_all(&a).expect("its buffer takes it");
        own.machine.seal(&b).expect("established");
        up.extend(a);
        down.extend(b);
        if round % 20 == 19 {
            stranger.refresh();
        }
        carry(stranger, &mut own, &mut received, &mut dice).expect("both keep to the protocol");
    }
    assert!(own.error.is_none(), "{:?}", own.error);
    assert!(own.received == up && received == down);
    stranger.send_close_notify();
    own.machine.close();
    carry(stranger, &mut own, &mut received, &mut dice).expect("both keep to the protocol");
    assert!(own.machine.is_peer_closed());
    assert_eq!(stranger.reader().read(&mut [0]).expect("a clean end"), 0);
}

/// Changes the keys, where the version can.
trait Refresh {
    fn refresh(&mut self);
}

impl<D> Refresh for ConnectionCommon<D> {
    fn refresh(&mut self) {
        if self.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
            self.refresh_traffic_keys().expect("TLS 1.3 can");
        }
    }
}

#[test]
fn our_server_and_its_client() {
    for (seed, suite) in suites().into_iter().enumerate() {
        let server = pki::server().build().expect("a server");
        let own = Machine::server(&server).expect("a server");
        converse(&mut stranger_client(suite), own, seed as u64);
    }
}

#[test]
fn our_client_and_its_server() {
    for (seed, suite) in suites().into_iter().enumerate() {
        let client = pki::client().build().expect("a client");
        let own = Machine::client(&client, "localhost").expect("a client");
        converse(&mut stranger_server(suite), own, seed as u64);
    }
}

/// A peer that asks for new keys for ever, and sends nothing, is owed one answer, and is soon refused.
#[test]
fn keys_that_change_for_ever_cost_nothing_and_end() {
    let suite = suites()[0];
    let mut stranger = stranger_client(suite);
    let server = pki::server().build().expect("a server");
    let mut own = End::new(Machine::server(&server).expect("a server"));
    let mut dice = fastrand::Rng::with_seed(1);
    carry(&mut stranger, &mut own, &mut Vec::new(), &mut dice).expect("both keep to it");
    let mut updates = 0;
    while own.error.is_none() {
        updates += 1;
        assert!(updates <= 33, "it is never refused");
        stranger.refresh_traffic_keys().expect("TLS 1.3 can");
        let mut bytes = Vec::new();
        stranger.write_tls(&mut bytes).expect("memory takes all");
        own.handle(&mut bytes);
        if own.error.is_none() {
            assert!(!own.machine.has_outgoing(), "answers go with the next data");
        }
    }
    assert_eq!(updates, 33);
    assert!(matches!(own.error, Some(TlsError::Protocol(_))), "{:?}", own.error);
    assert_eq!(own.outgoing().len(), 5 + 2 + 1 + 16, "one alert, and no answer");
}

/// A client that offers early data: its ticket is from another server, one that takes it.
fn offers_early_data(suite: SupportedCipherSuite) -> ClientConnection {
    let mut config = client_config(suite);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let mut other = server_config(suite);
    other.max_early_data_size = 1 << 16;
    let mut other = ServerConnection::new(Arc::new(other)).expect("a server");
    let mut first = connection_of(&config);
    for _ in 0..4 {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while first.wants_write() {
            first.write_tls(&mut up).expect("memory takes all");
        }
        let mut up = Cursor::new(up);
        while other.read_tls(&mut up).expect("it takes what is left") > 0 {
            other.process_new_packets().expect("an honest client");
        }
        while other.wants_write() {
            other.write_tls(&mut down).expect("memory takes all");
        }
        let mut down = Cursor::new(down);
        while first.read_tls(&mut down).expect("it takes what is left") > 0 {
            first.process_new_packets().expect("an honest server");
        }
    }
    connection_of(&config)
}

/// Our server drops early data, up to 16 KiB of it.
#[test]
fn early_data_that_is_dropped_is_counted_once() {
    for suite in suites().into_iter().filter(|suite| suite.tls13().is_some()) {
        let mut client = offers_early_data(suite);
        for _ in 0..5 {
            client.early_data().expect("a ticket").write_all(&[7; 3000]).expect("room");
        }
        let server = pki::server().build().expect("a server");
        let mut own = End::new(Machine::server(&server).expect("a server"));
        let mut dice = fastrand::Rng::with_seed(7);
        carry(&mut client, &mut own, &mut Vec::new(), &mut dice).expect("an honest server");
        assert!(own.error.is_none(), "{suite:?}: {:?}", own.error);
        assert!(own.machine.agreed().is_some() && !client.is_early_data_accepted());
        client.writer().write_all(b"hello").expect("sealed");
        carry(&mut client, &mut own, &mut Vec::new(), &mut dice).expect("an honest server");
        assert_eq!(own.received, b"hello");
    }
}

/// They cost their sender five bytes each, and nothing of what rustls drops: without an end of their own, all of them
/// would be looked at again with each that follows.
#[test]
fn early_data_shorter_than_a_seal_is_refused() {
    for suite in suites().into_iter().filter(|suite| suite.tls13().is_some()) {
        for length in [0, 1, 15] {
            let mut client = offers_early_data(suite);
            let mut hello = Vec::new();
            client.write_tls(&mut hello).expect("memory takes all");
            let server = pki::server().build().expect("a server");
            let mut own = End::new(Machine::server(&server).expect("a server"));
            own.handle(&mut hello);
            assert!(own.error.is_none(), "{suite:?}: {:?}", own.error);
            let record = [&[23, 3, 3, 0, length][..], &vec![0; length.into()]].concat();
            let taken = (0..2_000).take_while(|_| {
                own.handle(&mut record.clone());
                own.error.is_none()
            });
            assert_eq!(taken.count(), 0, "{suite:?}: records of {length} bytes");
            let refused = Some(TlsError::Protocol(rustls::Error::DecryptError));
            assert_eq!(format!("{:?}", own.error), format!("{refused:?}"));
        }
    }
}
