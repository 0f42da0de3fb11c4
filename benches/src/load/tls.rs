//! TLS under the load: rustls, as a client, over one of the load's sockets.
//!
//! What is offered is one version, one cipher suite and one group, so that every server that is measured does the same
//! work. Whom the certificate is for, who issued it, and whether its signature in the handshake is right, is **not**
//! verified: it was made a moment ago for this run, and verifying is the client's work, while what is measured is the
//! server's. Records are: one that was changed under way does not open.
//!
//! This trusts rustls, as the servers do. The bytes in the records are made and checked by the load itself.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
};

use super::options::Refusal;
use super::transport::Transport;

/// Whom the load asks for (SNI).
pub const SERVER_NAME: &str = "localhost";

/// Which handshakes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshakes {
    /// No ticket is kept: each is a full one.
    Full,
    /// Each place for a connection keeps the tickets of the connections before: after the first, sessions are resumed.
    Resumed,
}

/// What the connections of a run speak, and the tickets they keep.
#[derive(Debug)]
pub enum Speech {
    /// TCP, and nothing over it.
    Plain,
    /// TLS, with one configuration for all, or one for each place, which are as many as are kept apart.
    Tls(Vec<Arc<ClientConfig>>),
}

impl Speech {
    /// What a run with so many places for connections speaks.
    ///
    /// # Errors
    /// When rustls takes none of it.
    pub fn new(tls: Option<Handshakes>, places: usize) -> Result<Self, Refusal> {
        let Some(handshakes) = tls else { return Ok(Self::Plain) };
        let places = if handshakes == Handshakes::Full { 1 } else { places };
        let configs = (0..places).map(|_| config(handshakes).map(Arc::new));
        let configs = configs.collect::<Result<_, _>>();
        configs.map(Self::Tls).map_err(|error| {
            Refusal::new(format!("TLS cannot be set up: {error}; leave out --tls, and report this"))
        })
    }

    /// What carries the connection in this place.
    ///
    /// # Errors
    /// When rustls refuses to begin.
    pub fn over(&self, socket: TcpStream, place: usize) -> io::Result<Transport> {
        match self {
            Self::Plain => Ok(Transport::Plain(socket)),
            Self::Tls(configs) => {
                let config = Arc::clone(&configs[place % configs.len()]);
                Ok(Transport::Tls(Box::new(Tls::new(socket, config)?)))
            }
        }
    }
}

/// A non-blocking socket with TLS over it.
#[derive(Debug)]
pub struct Tls {
    socket: TcpStream,
    rustls: ClientConnection,
}

impl Tls {
    fn new(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(SERVER_NAME).expect("a DNS name");
        let rustls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Self { socket, rustls })
    }

    /// What has come and could be opened; the rest of a handshake is taken along. 0 is the peer's close_notify.
    ///
    /// # Errors
    /// What the socket says, above all `WouldBlock`; `UnexpectedEof` for an end without a close_notify.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.rustls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            self.rustls.read_tls(&mut self.socket)?;
            self.rustls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Takes bytes, and sends what the socket takes of them and of all before.
    ///
    /// # Errors
    /// What the socket says; with `WouldBlock` nothing was taken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.rustls.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // Until the handshake is done only so much is taken.
            _ if taken == 0 && !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    /// Sends what was taken and what TLS itself has to say.
    ///
    /// # Errors
    /// What the socket says.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.rustls.wants_write() {
            self.rustls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Sends a close_notify and ends the stream.
    ///
    /// # Errors
    /// What the socket says.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.rustls.send_close_notify();
        self.flush()?;
        self.socket.shutdown(std::net::Shutdown::Write)
    }

    /// Which handshake it was; `None` until the server has told.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshakes> {
        self.rustls.handshake_kind().map(|kind| match kind {
            HandshakeKind::Resumed => Handshakes::Resumed,
            _ => Handshakes::Full,
        })
    }
}

/// What a server agrees to with this load, in words: version, cipher suite, group.
///
/// # Errors
/// When there is no server, or none that speaks what the load does.
pub fn agreed(address: SocketAddr) -> io::Result<String> {
    let config = config(Handshakes::Full).map_err(io::Error::other)?;
    let mut tls = Tls::new(TcpStream::connect(address)?, Arc::new(config))?;
    tls.rustls.complete_io(&mut tls.socket)?;
    let version = tls.rustls.protocol_version().and_then(|version| version.as_str());
    let suite = tls.rustls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let group = tls.rustls.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    let words = [version, suite, group].map(|word| word.unwrap_or("?"));
    tls.shutdown()?;
    Ok(words.join(", "))
}

fn config(handshakes: Handshakes) -> Result<ClientConfig, Error> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![ring::kx_group::X25519];
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { schemes }))
        .with_no_client_auth();
    config.resumption = match handshakes {
        Handshakes::Full => Resumption::disabled(),
        Handshakes::Resumed => Resumption::in_memory_sessions(1),
    };
    Ok(config)
}

/// Any server will do.
#[derive(Debug)]
struct Anybody {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
