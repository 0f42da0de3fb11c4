//! The handshake, as rustls conducts it: complete records in, flights out, and in the end the keys.
//!
//! rustls is given one record at a time, so that it never meets application data: once it says that the handshake
//! is done, its keys are taken over by [`Records`] before the next record is looked at.
//!
//! A handshake message may lie in several records. rustls asks that they stay in front of it until the message is
//! whole, so they are collected here, up to a bound. These bytes are copied; there are few, and once.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError};
use rustls::{CommonState, ContentType, HandshakeKind, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;

use super::client::{TlsClient, server_name};
use super::error::TlsError;
use super::identity::Choice;
use super::records::{HEADER, Records};
use super::server::TlsServer;

/// Bytes that a handshake message may take on the wire, in all of its records. rustls takes messages of 64 KiB;
/// the rest is for their headers and seals.
pub(super) const MESSAGE_BYTES_MAX: usize = 80 << 10;

/// Bytes of a record's seal, in every cipher of TLS 1.3 here.
const SEAL: usize = 16;

/// Which version of TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The same, as rustls has it.
pub(super) fn spoken(versions: &[Version]) -> Vec<&'static SupportedProtocolVersion> {
    let one = |version: &Version| match version {
        Version::Tls12 => &rustls::version::TLS12,
        Version::Tls13 => &rustls::version::TLS13,
    };
    versions.iter().map(one).collect()
}

/// What the two sides agreed upon, and who the peer is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Agreed {
    /// The version of TLS.
    pub version: Version,
    /// The application protocol (ALPN), if both sides named any.
    pub alpn: Option<Vec<u8>>,
    /// The name the client asked for (SNI), if it did. From the client: escape it before it is shown.
    pub server_name: Option<String>,
    /// The peer's certificate and those of its issuers, verified; none of a client that was not asked.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// A handshake under way.
pub(super) struct Handshake {
    side: Side,
    /// Records whose message is not whole.
    collected: Vec<u8>,
}

enum Side {
    Server { rustls: UnbufferedServerConnection, choice: Arc<Choice> },
    Client { rustls: UnbufferedClientConnection, name: String },
}

/// What rustls wants next.
enum Next {
    /// To be asked again.
    More,
    /// A record.
    Record,
    /// To talk: as far as it is concerned, application data could be sent.
    Talk,
}

impl Handshake {
    pub(super) fn server(server: &TlsServer) -> Result<Self, TlsError> {
        let (config, choice) = server.config();
        let rustls = UnbufferedServerConnection::new(config)?;
        Ok(Self { side: Side::Server { rustls, choice }, collected: Vec::new() })
    }

    pub(super) fn client(client: &TlsClient, name: &str) -> Result<Self, TlsError> {
        let rustls = UnbufferedClientConnection::new(client.config(), server_name(name)?)?;
        let side = Side::Client { rustls, name: name.to_owned() };
        Ok(Self { side, collected: Vec::new() })
    }

    /// Takes a complete record, or none, to begin. What is to be sent is appended to `flight`. Whether it is done.
    pub(super) fn handle_record(
        &mut self,
        record: &[u8],
        flight: &mut Vec<u8>,
    ) -> Result<bool, TlsError> {
        if self.collected.len() + record.len() > MESSAGE_BYTES_MAX {
            return Err(TlsError::HandshakeTooLarge { limit: MESSAGE_BYTES_MAX });
        }
        let is_alone = self.collected.is_empty();
        self.collected.extend_from_slice(record);
        loop {
            match self.step(flight) {
                Ok(Next::More) => {}
                Ok(Next::Record) => {
                    if is_too_short(record) {
                        return Err(rustls::Error::DecryptError.into());
                    }
                    if is_alone && is_dropped_early_data(&self.collected) {
                        self.collected.clear();
                    }
                    return Ok(false);
                }
                Ok(Next::Talk) => return Ok(!self.side.common().is_handshaking()),
                Err(error) => {
                    // The alert that tells the peer why, and no step further.
                    while self.side.common().wants_write() {
                        self.step(flight)?;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    fn step(&mut self, flight: &mut Vec<u8>) -> Result<Next, rustls::Error> {
        let (discard, next) = self.side.ask(&mut self.collected, flight);
        self.collected.drain(..discard);
        next
    }

    /// What was agreed, and what opens and seals the records from now on.
    pub(super) fn finish(self) -> Result<(Agreed, Records), TlsError> {
        if !self.collected.is_empty() {
            // The keys change between records, so no message can go on under the next ones.
            let cause = rustls::PeerMisbehaved::KeyEpochWithPendingFragment;
            return Err(rustls::Error::from(cause).into());
        }
        let agreed = self.side.agreed();
        let records = match self.side {
            Side::Server { rustls, .. } => {
                let (secrets, kernel) = rustls.dangerous_into_kernel_connection()?;
                Records::new(secrets, kernel.into())
            }
            Side::Client { rustls, .. } => {
                let (secrets, kernel) = rustls.dangerous_into_kernel_connection()?;
                Records::new(secrets, kernel.into())
            }
        };
        Ok((agreed, records?))
    }
}

impl Side {
    fn common(&self) -> &CommonState {
        match self {
            Self::Server { rustls, .. } => rustls,
            Self::Client { rustls, .. } => rustls,
        }
    }

    /// Lets rustls take a step. How many of the bytes it is done with, and what it wants next.
    fn ask(
        &mut self,
        bytes: &mut [u8],
        flight: &mut Vec<u8>,
    ) -> (usize, Result<Next, rustls::Error>) {
        match self {
            Self::Server { rustls, .. } => {
                let status = rustls.process_tls_records(bytes);
                (status.discard, status.state.and_then(|state| take(state, flight)))
            }
            Self::Client { rustls, .. } => {
                let status = rustls.process_tls_records(bytes);
                (status.discard, status.state.and_then(|state| take(state, flight)))
            }
        }
    }

    fn agreed(&self) -> Agreed {
        let common = self.common();
        Agreed {
            version: match common.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => Version::Tls13,
                _ => Version::Tls12, // no other is offered
            },
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            server_name: match self {
                Self::Server { choice, .. } => choice.asked(),
                Self::Client { name, .. } => Some(name.clone()),
            },
            peer_certificates: common.peer_certificates().unwrap_or_default().to_vec(),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// Whether this record, which rustls has looked at and not taken, is none that it waits to see the rest of. It drops
/// early data that it could not open, but leaves the bytes here, and would count them again with each record that
/// follows.
///
/// A record that was opened holds its type where it lies, which is no zero, in front of its seal; in one that was not,
/// the cipher has overwritten all of that with zeros.
fn is_dropped_early_data(record: &[u8]) -> bool {
    let outer = record.first().map(|typ| ContentType::from(*typ));
    let sealed = record.get(HEADER..).unwrap_or_default();
    let inner = sealed.split_last_chunk::<SEAL>().map(|(inner, _)| inner);
    outer == Some(ContentType::ApplicationData)
        && inner.is_some_and(|inner| inner.iter().all(|byte| *byte == 0))
}

/// Whether this record, which rustls has looked at and not taken, was never sealed: it is shorter than a seal. rustls
/// takes it for early data too, of which it drops a number of bytes. Those without any would go on for ever, each of
/// them looked at again with each that follows; no honest peer sends one.
fn is_too_short(record: &[u8]) -> bool {
    record.first().is_some_and(|typ| ContentType::from(*typ) == ContentType::ApplicationData)
        && record.len() < HEADER + SEAL
}

/// Does what a state of rustls asks for.
fn take<Data>(
    state: ConnectionState<'_, '_, Data>,
    flight: &mut Vec<u8>,
) -> Result<Next, rustls::Error> {
    match state {
        ConnectionState::EncodeTlsData(mut message) => {
            let start = flight.len();
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                message.encode(&mut [])
            {
                flight.resize(start + required_size, 0);
                let encoded = message.encode(&mut flight[start..]);
                flight.truncate(start + encoded.unwrap_or(0));
            }
            Ok(Next::More)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(Next::More)
        }
        ConnectionState::BlockedHandshake => Ok(Next::Record),
        ConnectionState::WriteTraffic(_) => Ok(Next::Talk),
        // Application data and close_notify come after the handshake, and by then rustls is not asked any more.
        _ => Err(rustls::Error::HandshakeNotComplete),
    }
}
