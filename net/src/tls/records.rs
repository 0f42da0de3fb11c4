//! The records after the handshake: opened where they lie, sealed into bytes of their own.
//!
//! rustls hands plaintext out as a copy, even from its unbuffered API. So when the handshake is done it gives its
//! keys away (`dangerous_into_kernel_connection`, made for ciphers in the kernel or in hardware), and from then on
//! its own ciphers are called here, on the bytes that the kernel put into a lease. rustls still derives the keys
//! of an update and keeps the tickets; certificates, versions and key exchange were its business all along.
//!
//! What is to be kept in mind when keys are ours, and where it is:
//!
//! | rule | where |
//! |---|---|
//! | a number is never used twice with a key | `Sealer::seal` counts, and only there; `Sealer` is made for each key |
//! | a key seals only so much | `Sealer::left`: TLS 1.3 changes the key, TLS 1.2 ends |
//! | TLS 1.3 shows one outer type only | `open` |
//! | no message goes on under other keys, or around other records | `open`, `handle_handshake` |
//! | what costs us work and brings the peer nothing is bounded | `chatter` |
//!
//! The provider is `ring`, whose ciphers can be continued at any number. Those of `aws-lc-rs` take the first number
//! they see for zero, which it is not, since the handshake sealed records with the same key. In exchange there is no
//! hybrid (post-quantum) key exchange yet.

use std::collections::VecDeque;
use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, HandshakeType,
    InvalidMessage, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
};

use super::error::TlsError;

/// Bytes of a record's header: type, version, length.
pub(super) const HEADER: usize = 5;
/// Bytes of plaintext in a record, at most.
pub(super) const PLAIN_MAX: usize = 1 << 14;
/// Bytes of a record after its header, at most: what TLS 1.2 allows, which is more than TLS 1.3.
pub(super) const SEALED_MAX: usize = PLAIN_MAX + 2048;
/// Bytes of a ticket for a client, at most.
const TICKET_MAX: usize = 1 << 16;
/// Bytes of a ClientHello that asks to renegotiate, at most. It is turned down unread.
const HELLO_MAX: usize = 1 << 14;
/// Messages and warnings that bring no application data, in a row. As many updates of keys as rustls takes.
const CHATTER_MAX: u32 = 32;
/// Records that are sealed with a key at most, whatever its cipher says: the number must not wrap.
const NUMBER_MAX: u64 = 1 << 62;

const WARNING: u8 = 1;
const FATAL: u8 = 2;
/// The handshake message that changes our key, and asks for no change of the peer's.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What was in a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Application data, in these bytes of the record.
    Data(Range<usize>),
    /// Nothing for the application.
    Nothing,
    /// The peer's close_notify.
    Closed,
}

/// What is left of rustls: it derives keys, and keeps tickets.
pub(super) enum Kernel {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl From<KernelConnection<ServerConnectionData>> for Kernel {
    fn from(kernel: KernelConnection<ServerConnectionData>) -> Self {
        Self::Server(kernel)
    }
}

impl From<KernelConnection<ClientConnectionData>> for Kernel {
    fn from(kernel: KernelConnection<ClientConnectionData>) -> Self {
        Self::Client(kernel)
    }
}

impl Kernel {
    fn suite(&self) -> SupportedCipherSuite {
        match self {
            Self::Server(kernel) => kernel.negotiated_cipher_suite(),
            Self::Client(kernel) => kernel.negotiated_cipher_suite(),
        }
    }

    fn next_seal(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Server(kernel) => kernel.update_tx_secret(),
            Self::Client(kernel) => kernel.update_tx_secret(),
        }
    }

    fn next_opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Server(kernel) => kernel.update_rx_secret(),
            Self::Client(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// Seals records with one key.
struct Sealer {
    cipher: Box<dyn MessageEncrypter>,
    version: ProtocolVersion,
    /// Of the next record.
    number: u64,
    limit: u64,
}

impl Sealer {
    fn new(
        suite: SupportedCipherSuite,
        (number, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, rustls::Error> {
        let (key, iv) = parts(secrets)?;
        let (cipher, version, common) = match suite {
            SupportedCipherSuite::Tls13(suite) => {
                (suite.aead_alg.encrypter(key, iv), ProtocolVersion::TLSv1_3, &suite.common)
            }
            SupportedCipherSuite::Tls12(suite) => {
                let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
                let (fixed, explicit) = iv.as_ref().split_at(fixed);
                let cipher = suite.aead_alg.encrypter(key, fixed, explicit);
                (cipher, ProtocolVersion::TLSv1_2, &suite.common)
            }
        };
        Ok(Self { cipher, version, number, limit: common.confidentiality_limit.min(NUMBER_MAX) })
    }

    /// Records that its key may seal yet.
    fn left(&self) -> u64 {
        self.limit.saturating_sub(self.number)
    }

    fn seal(&mut self, typ: ContentType, plain: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let payload = OutboundChunks::Single(plain);
        let message = OutboundPlainMessage { typ, version: self.version, payload };
        let number = self.number;
        self.number += 1;
        Ok(self.cipher.encrypt(message, number)?.encode())
    }
}

/// Opens records with one key.
struct Opener {
    cipher: Box<dyn MessageDecrypter>,
    /// Of the next record.
    number: u64,
}

impl Opener {
    fn new(
        suite: SupportedCipherSuite,
        (number, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, rustls::Error> {
        let (key, iv) = parts(secrets)?;
        let cipher = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => {
                let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
                suite.aead_alg.decrypter(key, &iv.as_ref()[..fixed])
            }
        };
        Ok(Self { cipher, number })
    }
}

fn parts(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), rustls::Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(rustls::Error::General("a cipher whose keys have another form".to_owned())),
    }
}

/// The records of a connection, both ways.
pub(super) struct Records {
    kernel: Kernel,
    suite: SupportedCipherSuite,
    opener: Opener,
    sealer: Sealer,
    /// The beginning of a handshake message that goes on in the next record.
    message: Vec<u8>,
    /// Messages and warnings since the last application data.
    chatter: u32,
    /// The peer changed its key and asked for a change of ours: before the next data, as often as it asked.
    owes_update: bool,
    /// A wish to renegotiate was turned down; the next one is fatal.
    turned_down: bool,
}

impl Records {
    pub(super) fn new(secrets: ExtractedSecrets, kernel: Kernel) -> Result<Self, TlsError> {
        let suite = kernel.suite();
        Ok(Self {
            opener: Opener::new(suite, secrets.rx)?,
            sealer: Sealer::new(suite, secrets.tx)?,
            kernel,
            suite,
            message: Vec::new(),
            chatter: 0,
            owes_update: false,
            turned_down: false,
        })
    }

    fn is_tls13(&self) -> bool {
        matches!(self.suite, SupportedCipherSuite::Tls13(_))
    }

    /// Opens a complete record in place. Alerts and answers are appended to `outgoing`.
    pub(super) fn open(
        &mut self,
        record: &mut [u8],
        outgoing: &mut VecDeque<Vec<u8>>,
    ) -> Result<Opened, TlsError> {
        self.open_or_blame(record, outgoing).map_err(|Blame { alert, error }| {
            // Who broke the protocol is told; that fails only for want of numbers, and then the end says it all.
            if let Some(alert) = alert {
                self.alert(FATAL, alert, outgoing);
            }
            error
        })
    }

    fn open_or_blame(
        &mut self,
        record: &mut [u8],
        outgoing: &mut VecDeque<Vec<u8>>,
    ) -> Result<Opened, Blame> {
        let start = record.as_ptr().addr();
        let (header, sealed) = record.split_at_mut(HEADER);
        let outer = ContentType::from(header[0]);
        if self.is_tls13() && outer != ContentType::ApplicationData {
            return Err(unexpected(&[ContentType::ApplicationData], outer));
        }
        let version = ProtocolVersion::from(u16::from_be_bytes([header[1], header[2]]));
        let message = InboundOpaqueMessage::new(outer, version, sealed);
        let opener = &mut self.opener;
        let plain = opener.cipher.decrypt(message, opener.number).map_err(|error| match error {
            rustls::Error::PeerSentOversizedRecord => {
                Blame::new(AlertDescription::RecordOverflow, error)
            }
            rustls::Error::DecryptError => Blame::new(AlertDescription::BadRecordMac, error),
            error => Blame::new(AlertDescription::UnexpectedMessage, error),
        })?;
        opener.number += 1;
        if plain.typ != ContentType::Handshake && !self.message.is_empty() {
            return Err(unexpected(&[ContentType::Handshake], plain.typ));
        }
        match plain.typ {
            ContentType::ApplicationData => {
                if plain.payload.is_empty() {
                    return Ok(Opened::Nothing);
                }
                self.chatter = 0;
                let first = plain.payload.as_ptr().addr() - start;
                Ok(Opened::Data(first..first + plain.payload.len()))
            }
            ContentType::Alert => self.handle_alert(plain.payload),
            ContentType::Handshake => {
                self.message.extend_from_slice(plain.payload);
                if plain.payload.is_empty() {
                    return Err(invalid(InvalidMessage::InvalidEmptyPayload));
                }
                self.handle_handshake(outgoing).map(|()| Opened::Nothing)
            }
            typ => Err(unexpected(&[ContentType::ApplicationData], typ)),
        }
    }

    fn handle_alert(&mut self, payload: &[u8]) -> Result<Opened, Blame> {
        let &[level, description] = payload else {
            return Err(invalid(InvalidMessage::MessageTooShort));
        };
        let description = AlertDescription::from(description);
        match (level, description) {
            (WARNING | FATAL, AlertDescription::CloseNotify) => Ok(Opened::Closed),
            (WARNING, AlertDescription::UserCanceled) => self.chat(),
            (WARNING, _) if !self.is_tls13() => self.chat(),
            (WARNING | FATAL, _) => {
                let error = rustls::Error::AlertReceived(description);
                Err(Blame { alert: None, error: error.into() })
            }
            _ => Err(Blame::new(
                AlertDescription::IllegalParameter,
                rustls::Error::General("an alert of no known level".to_owned()),
            )),
        }
    }

    /// Something came that is no application data.
    fn chat(&mut self) -> Result<Opened, Blame> {
        self.chatter += 1;
        if self.chatter > CHATTER_MAX {
            let error = rustls::Error::from(PeerMisbehaved::TooManyKeyUpdateRequests);
            return Err(Blame::new(AlertDescription::UnexpectedMessage, error));
        }
        Ok(Opened::Nothing)
    }

    /// Takes the whole messages out of `message`.
    fn handle_handshake(&mut self, outgoing: &mut VecDeque<Vec<u8>>) -> Result<(), Blame> {
        while let &[typ, a, b, c, ..] = self.message.as_slice() {
            let (typ, length) = (HandshakeType::from(typ), u32::from_be_bytes([0, a, b, c]));
            // Judged before it is waited for: nothing is kept of what will not be taken.
            let most = self.body_max(typ).ok_or_else(|| misplaced(typ))?;
            if length as usize > most {
                return Err(invalid(InvalidMessage::HandshakePayloadTooLarge));
            }
            let end = 4 + length as usize;
            if self.message.len() < end {
                break;
            }
            let rest = self.message.split_off(end);
            let message = std::mem::replace(&mut self.message, rest);
            self.chat()?;
            self.handle_message(typ, &message[4..], outgoing)?;
        }
        Ok(())
    }

    /// Bytes that the body of a message may have at most; none if it has no place after the handshake.
    fn body_max(&self, typ: HandshakeType) -> Option<usize> {
        match (typ, &self.kernel, self.is_tls13()) {
            (HandshakeType::KeyUpdate, _, true) => Some(1),
            (HandshakeType::NewSessionTicket, Kernel::Client(_), true) => Some(TICKET_MAX),
            (HandshakeType::HelloRequest, Kernel::Client(_), false) => Some(0),
            (HandshakeType::ClientHello, Kernel::Server(_), false) => Some(HELLO_MAX),
            _ => None,
        }
    }

    /// Takes a message that has its place here.
    fn handle_message(
        &mut self,
        typ: HandshakeType,
        body: &[u8],
        outgoing: &mut VecDeque<Vec<u8>>,
    ) -> Result<(), Blame> {
        match (typ, &mut self.kernel) {
            (HandshakeType::NewSessionTicket, Kernel::Client(kernel)) => {
                let refused = |error| Blame::new(AlertDescription::DecodeError, error);
                kernel.handle_new_session_ticket(body).map_err(refused)
            }
            (HandshakeType::HelloRequest | HandshakeType::ClientHello, _) => {
                self.turn_down(outgoing)
            }
            (HandshakeType::KeyUpdate, _) => self.handle_key_update(body),
            _ => Err(misplaced(typ)),
        }
    }

    /// The peer would renegotiate: turned down once, politely.
    fn turn_down(&mut self, outgoing: &mut VecDeque<Vec<u8>>) -> Result<(), Blame> {
        if std::mem::replace(&mut self.turned_down, true) {
            let error = rustls::Error::from(PeerMisbehaved::TooManyRenegotiationRequests);
            return Err(Blame::new(AlertDescription::NoRenegotiation, error));
        }
        self.alert(WARNING, AlertDescription::NoRenegotiation, outgoing);
        Ok(())
    }

    /// The peer seals with its next key from now on.
    fn handle_key_update(&mut self, body: &[u8]) -> Result<(), Blame> {
        let asked = match body {
            [0] => false,
            [1] => true,
            _ => return Err(invalid(InvalidMessage::InvalidKeyUpdate)),
        };
        if !self.message.is_empty() {
            let error = rustls::Error::from(PeerMisbehaved::KeyEpochWithPendingFragment);
            return Err(Blame::new(AlertDescription::UnexpectedMessage, error));
        }
        let refused = |error| Blame::new(AlertDescription::InternalError, error);
        let secrets = self.kernel.next_opening().map_err(refused)?;
        self.opener = Opener::new(self.suite, secrets).map_err(refused)?;
        self.owes_update |= asked;
        Ok(())
    }

    /// Seals application data, as few records as it takes, and appends them to `outgoing`; all of it or nothing.
    pub(super) fn seal(
        &mut self,
        plain: &[u8],
        outgoing: &mut VecDeque<Vec<u8>>,
    ) -> Result<(), TlsError> {
        if !self.is_tls13() && self.sealer.left() < plain.len().div_ceil(PLAIN_MAX) as u64 {
            return Err(TlsError::KeysUsedUp);
        }
        for plain in plain.chunks(PLAIN_MAX) {
            if self.owes_update || self.sealer.left() == 0 {
                self.change_key(outgoing)?;
            }
            outgoing.push_back(self.sealer.seal(ContentType::ApplicationData, plain)?);
        }
        Ok(())
    }

    /// TLS 1.3 only: an older one has no way to.
    fn change_key(&mut self, outgoing: &mut VecDeque<Vec<u8>>) -> Result<(), TlsError> {
        outgoing.push_back(self.sealer.seal(ContentType::Handshake, &KEY_UPDATE)?);
        self.sealer = Sealer::new(self.suite, self.kernel.next_seal()?)?;
        self.owes_update = false;
        Ok(())
    }

    /// Says that we will send no more.
    pub(super) fn close(&mut self, outgoing: &mut VecDeque<Vec<u8>>) {
        self.alert(WARNING, AlertDescription::CloseNotify, outgoing);
    }

    /// The peer's bytes are cut in a way that no record is: it is told.
    pub(super) fn refuse(&mut self, alert: AlertDescription, outgoing: &mut VecDeque<Vec<u8>>) {
        self.alert(FATAL, alert, outgoing);
    }

    fn alert(&mut self, level: u8, alert: AlertDescription, outgoing: &mut VecDeque<Vec<u8>>) {
        // Ciphers refuse records that are too long, and nothing else.
        outgoing.extend(self.sealer.seal(ContentType::Alert, &[level, alert.into()]));
    }
}

/// An error, and the alert that tells the peer.
struct Blame {
    alert: Option<AlertDescription>,
    error: TlsError,
}

impl Blame {
    fn new(alert: AlertDescription, error: rustls::Error) -> Self {
        Self { alert: Some(alert), error: error.into() }
    }
}

fn unexpected(expected: &[ContentType], got_type: ContentType) -> Blame {
    let error = rustls::Error::InappropriateMessage { expect_types: expected.to_vec(), got_type };
    Blame::new(AlertDescription::UnexpectedMessage, error)
}

fn misplaced(got_type: HandshakeType) -> Blame {
    let error = rustls::Error::InappropriateHandshakeMessage { expect_types: Vec::new(), got_type };
    Blame::new(AlertDescription::UnexpectedMessage, error)
}

fn invalid(cause: InvalidMessage) -> Blame {
    Blame::new(AlertDescription::DecodeError, rustls::Error::InvalidMessage(cause))
}

#[cfg(test)]
mod tests;
