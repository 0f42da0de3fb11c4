//! What can go wrong with TLS: on a connection ([`TlsError`]), and while its files are read
//! ([`TlsSetupError`]).
//!
//! Who may be able to put it right decides the variant: the peer's operator, ours, or nobody. What rustls said
//! is kept as the source.

use std::path::{Path, PathBuf};
use std::{fmt, io};

pub use rustls::{AlertDescription, CertificateError};

use crate::conn::kind_of;

/// Why a TLS connection failed.
///
/// It ends with its first error, and says the same from then on. Where the protocol has an alert for it, the
/// alert has been put among the bytes to send.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The handshake was not done by its deadline.
    #[error(
        "the TLS handshake was not done within its deadline; the peer is slow, far away, or does not speak TLS"
    )]
    Timeout,
    /// As many handshakes were under way as may be: it waited for its turn until its deadline, or had begun, and took
    /// longer than a second while others waited.
    #[error(
        "too many TLS handshakes at a time: {cap} are under way on this reactor; raise the cap (handshakes_max) if there is CPU to spare, or add reactors"
    )]
    HandshakeCap {
        /// How many may be under way at a time.
        cap: usize,
    },
    /// The peer's stream ended in the middle of the handshake.
    #[error(
        "the peer ended the connection during the TLS handshake; it may not speak TLS, or not like what it was offered"
    )]
    EndedInHandshake,
    /// The peer's stream ended without a close_notify: bytes may be missing.
    #[error(
        "the stream ended without a TLS close_notify: it may have been cut off, so do not take it for whole"
    )]
    Truncated,
    /// The connection was over, without a word of TLS.
    #[error("the connection is over: {0}")]
    Ended(slipring_core::CloseReason),
    /// The connection is being closed, by its drain or an idle timeout, or after an abort: its end is still to come.
    #[error("the connection is being closed")]
    Closing,
    /// More bytes at once than an outbox may hold ([`Limits::outbox_bytes_max`](crate::Limits)) when they are sealed.
    #[error(
        "{bytes} bytes at once, and an outbox holds at most {most}, sealed; cut them, as `send_all` does"
    )]
    TooMany {
        /// Those to be sent.
        bytes: usize,
        /// What an outbox may hold, an announcement of the end aside.
        most: usize,
    },
    /// A record of it takes more bytes than the reactor may own
    /// ([`Limits::owned_bytes_max`](crate::Limits::owned_bytes_max)).
    #[error(
        "{bytes} bytes at once, and a reactor owns at most {most}, sealed; cut them, as `send_all` does, or raise \
         `Limits::owned_bytes_max`"
    )]
    TooManyOwned {
        /// Those to be sent.
        bytes: usize,
        /// What the reactor may own.
        most: u64,
    },
    /// Nothing came within the read deadline; the connection is as it was.
    #[error("nothing came within the read deadline")]
    ReadTimeout,
    /// The peer's certificate was refused.
    #[error("the peer's certificate was refused: {0}{hint}", hint = hint(.0))]
    PeerCert(CertificateError),
    /// The server's certificate is for other names.
    #[error(
        "the server's certificate is not for the name asked for: {0}; ask for a name it has, or give the server one for this name"
    )]
    NameMismatch(CertificateError),
    /// A client certificate is required, and none was shown: by the client, if this is the server; by us, if this
    /// is the client, which learns of it after the handshake in TLS 1.3.
    #[error(
        "a client certificate is required and none was shown; give the client one (TlsClientBuilder::identity)"
    )]
    ClientCertRequired,
    /// The two sides have no application protocol (ALPN) in common.
    #[error("no application protocol (ALPN) in common; name one that the other side has, or none")]
    NoCommonProtocol,
    /// The peer gave up, and said why.
    #[error("the peer ended the connection with the TLS alert {0:?}{hint}", hint = alert_hint(*.0))]
    Alert(AlertDescription),
    /// The peer broke the protocol, or the bytes were changed on their way.
    #[error("the peer does not keep to TLS: {0}")]
    Protocol(#[source] rustls::Error),
    /// The handshake took more bytes than any honest one.
    #[error("the peer's TLS handshake is longer than {limit} bytes")]
    HandshakeTooLarge {
        /// Bytes that this message may take, in all of its records.
        limit: usize,
    },
    /// The reactor's plain memory is used up, so a record in two pieces could not be put together.
    #[error(
        "the reactor has no plain memory left for a TLS record in two pieces; raise Limits::owned_bytes_max"
    )]
    NoMemory,
    /// So much was encrypted with one key that more would be unsafe, and TLS 1.2 has no way to change it.
    #[error("the keys of this TLS 1.2 connection are used up; close it and open another")]
    KeysUsedUp,
    /// It cannot be sent on: we have sent our close_notify.
    #[error("nothing can be sent after our own close_notify")]
    SentClose,
    /// The name to connect to is neither a DNS name nor an address.
    #[error("\"{name}\" is no name a certificate could be for; give a DNS name or an IP address")]
    BadName {
        /// As it was given.
        name: String,
    },
}

impl TlsError {
    /// Whether it says that the stream was cut off rather than that TLS failed.
    #[must_use]
    pub fn is_truncation(&self) -> bool {
        matches!(self, Self::Truncated | Self::EndedInHandshake)
    }
}

fn hint(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer => {
            "; if it is right, trust the authority that issued it (roots)"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "; it has to be renewed, or a clock is wrong"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "; a clock is wrong, here or where it was issued"
        }
        _ => "",
    }
}

fn alert_hint(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA => ": it does not trust who issued our certificate",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => ": it refused our certificate",
        AlertDescription::CertificateExpired => ": our certificate has expired",
        AlertDescription::HandshakeFailure => {
            ": no version, cipher or signature in common, or it requires a client certificate"
        }
        AlertDescription::ProtocolVersion => ": it speaks another version of TLS",
        AlertDescription::UnrecognisedName => ": it does not know the name asked for",
        _ => "",
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(
                cause @ (CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. }),
            ) => Self::NameMismatch(cause),
            E::InvalidCertificate(cause) => Self::PeerCert(cause),
            E::NoCertificatesPresented
            | E::AlertReceived(AlertDescription::CertificateRequired) => Self::ClientCertRequired,
            E::NoApplicationProtocol
            | E::AlertReceived(AlertDescription::NoApplicationProtocol) => Self::NoCommonProtocol,
            // After the handshake it is the end of the stream, and no error.
            E::AlertReceived(AlertDescription::CloseNotify) => Self::EndedInHandshake,
            E::AlertReceived(alert) => Self::Alert(alert),
            other => Self::Protocol(other),
        }
    }
}

impl From<TlsError> for io::Error {
    /// Of the fitting kind; the [`TlsError`] is in it.
    fn from(error: TlsError) -> Self {
        let kind = match &error {
            TlsError::Timeout | TlsError::ReadTimeout | TlsError::HandshakeCap { .. } => {
                io::ErrorKind::TimedOut
            }
            TlsError::EndedInHandshake | TlsError::Truncated => io::ErrorKind::UnexpectedEof,
            TlsError::Ended(reason) => kind_of(*reason),
            TlsError::Closing | TlsError::SentClose => io::ErrorKind::BrokenPipe,
            TlsError::TooMany { .. } | TlsError::TooManyOwned { .. } | TlsError::BadName { .. } => {
                io::ErrorKind::InvalidInput
            }
            TlsError::NoMemory => io::ErrorKind::OutOfMemory,
            TlsError::Alert(_) => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Why a TLS server or client cannot be set up, or a reload was refused. One line: the cause, then the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A file cannot be read.
    #[error("cannot read {file}: {source}; check the path and that this user may read it")]
    File {
        /// Which.
        file: Source,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not PEM.
    #[error("{file} is not PEM: {source}; it should have lines like -----BEGIN CERTIFICATE-----")]
    Pem {
        /// Which.
        file: Source,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// No certificate in it.
    #[error(
        "no certificate in {file}; it should have the certificate, then those of its issuers, each between \
         -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----{seen}"
    )]
    NoCertificate {
        /// Which.
        file: Source,
        /// What there is instead.
        seen: Seen,
    },
    /// No private key in it.
    #[error(
        "no private key in {file}; it should have one, not encrypted, between -----BEGIN PRIVATE KEY----- and \
         -----END PRIVATE KEY----- (\"RSA\" and \"EC\" keys do too){seen}"
    )]
    NoKey {
        /// Which.
        file: Source,
        /// What there is instead.
        seen: Seen,
    },
    /// A certificate cannot be understood.
    #[error("certificate {number} in {file} cannot be used: {source}; issue it again")]
    Certificate {
        /// Which file.
        file: Source,
        /// Which of its certificates, from 1.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// A key is of a kind that is not supported.
    #[error(
        "the private key in {file} cannot be used: {source}; use ECDSA (P-256, P-384), Ed25519 or RSA of 2048 to 8192 bits"
    )]
    Key {
        /// Which file.
        file: Source,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The key is another certificate's.
    #[error(
        "the private key in {key} is not that of the first certificate in {certificates}; name the two files of one pair, \
         and put the server's own certificate first"
    )]
    KeyMismatch {
        /// The file of the certificates.
        certificates: Source,
        /// The file of the key.
        key: Source,
    },
    /// A server without a certificate.
    #[error("a TLS server needs at least one identity; add a certificate and its key")]
    NoIdentity,
    /// Two identities are for the same name.
    #[error("two identities are for the name {name}; leave out one of them")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// An identity has nothing to be chosen by.
    #[error(
        "the certificate in {file} has no DNS names, and is not the first identity: no client would ever be shown it; \
         put it first, or issue it with subject alternative names"
    )]
    NoNames {
        /// The file of the certificates.
        file: Source,
    },
    /// No roots to trust, or none that can be used.
    #[error(
        "no authority to trust in {file}: {cause}; name a PEM file with the certificates of authorities"
    )]
    Roots {
        /// Which file.
        file: Source,
        /// What rustls said.
        cause: String,
    },
    /// The host has no roots.
    #[error(
        "this host trusts no authority: {source}; install its CA certificates (the package ca-certificates), or name the \
         authorities yourself (TlsClientBuilder::roots_file)"
    )]
    HostRoots {
        /// What was found.
        source: rustls::Error,
    },
    /// An application protocol's name (ALPN) is empty or too long.
    #[error(
        "an application protocol (ALPN) has a name of 1 to 255 bytes, such as h2 or http/1.1, not {length}"
    )]
    Protocol {
        /// Its length.
        length: usize,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for session tickets: {source}; check that getrandom(2) is permitted")]
    Random {
        /// What was said.
        source: rustls::Error,
    },
    /// rustls refused the configuration.
    #[error(
        "rustls refused the configuration: {source}; this is not a known condition, please report it"
    )]
    Refused {
        /// What it said.
        source: rustls::Error,
    },
}

/// Where certificates or keys came from: a file, or memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Bytes that were given.
    Memory,
}

impl Source {
    pub(super) fn file(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Memory => f.write_str("the PEM given"),
        }
    }
}

/// What a PEM file has instead of what was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing of PEM.
    Nothing,
    /// A private key.
    Key,
    /// Certificates.
    Certificates,
    /// A key that is encrypted with a pass phrase.
    EncryptedKey,
    /// Something else in PEM.
    Other,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "",
            Self::Key => "; it has a private key: are the two files swapped?",
            Self::Certificates => "; it has certificates: are the two files swapped?",
            Self::EncryptedKey => {
                "; it has an encrypted key: take the pass phrase off (openssl pkey -in FILE -out FILE)"
            }
            Self::Other => "; it has something else in PEM",
        })
    }
}
