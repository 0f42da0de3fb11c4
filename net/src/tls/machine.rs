//! The sans-IO machine of one TLS connection: bytes of the peer in, plaintext and bytes for the peer out.
//!
//! It knows no socket, no clock and no lease; deadlines and the order of closing are its caller's business.
//!
//! ```text
//!   received bytes --> cut into records --+--> Handshake --done--> Records --+--> plaintext, where it lies
//!                        |                |                         |        +--> end of the peer's stream
//!                        v                +-------> outgoing <------+
//!               the piece of a record                  ^
//!               that goes on elsewhere       close, seal (application data)
//! ```
//!
//! A record that lies in the received bytes whole is opened there, and its plaintext is a range of the same bytes.
//! One that began in earlier bytes is put together, and its plaintext handed out as bytes of its own: at most one
//! record is copied for each piece of received bytes, and at most one is kept.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use rustls::{AlertDescription, ContentType, InvalidMessage};

use super::client::TlsClient;
use super::error::TlsError;
use super::handshake::{Agreed, Handshake};
use super::records::{HEADER, Opened, PLAIN_MAX, Records, SEALED_MAX};
use super::server::TlsServer;

/// Bytes that a record is longer than its plaintext: header, number, seal.
pub(super) const RECORD_OVERHEAD: usize = 34;

/// Decrypted application data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// In these of the bytes that were handed in.
    Here(Range<usize>),
    /// Of a record that lay in two pieces.
    Whole(Vec<u8>),
}

/// One TLS connection, without its transport.
///
/// ```
/// # use slipring::tls::{Identity, Machine, Plain, TlsClient, TlsError, TlsServer};
/// # let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
/// # let (certificate, key) = (key.cert.pem(), key.signing_key.serialize_pem());
/// let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())?;
/// let server = TlsServer::builder().identity(identity).build()?;
/// let client = TlsClient::builder().roots_pem(certificate.as_bytes()).build()?;
/// let (mut a, mut b) = (Machine::client(&client, "localhost")?, Machine::server(&server)?);
///
/// // Whatever one has to send, the other receives, until both have agreed.
/// let mut plain = Vec::new();
/// while a.agreed().is_none() || b.agreed().is_none() {
///     while let Some(mut bytes) = a.poll_outgoing() {
///         b.handle_received(&mut bytes, &mut plain)?;
///     }
///     while let Some(mut bytes) = b.poll_outgoing() {
///         a.handle_received(&mut bytes, &mut plain)?;
///     }
/// }
/// a.seal(b"hello")?;
/// let mut bytes = a.poll_outgoing().unwrap();
/// b.handle_received(&mut bytes, &mut plain)?;
/// let Plain::Here(range) = plain.remove(0) else { unreachable!("it came in one piece") };
/// assert_eq!(&bytes[range], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Machine {
    state: State,
    /// The first bytes of a record whose others have not come.
    piece: Vec<u8>,
    outgoing: VecDeque<Vec<u8>>,
    agreed: Option<Box<Agreed>>,
    sent_close: bool,
    peer_closed: bool,
}

enum State {
    Handshake(Box<Handshake>),
    Records(Box<Records>),
    Failed(TlsError),
}

impl Machine {
    /// The server's side of a connection.
    ///
    /// # Errors
    /// None that is known.
    pub fn server(server: &TlsServer) -> Result<Self, TlsError> {
        Ok(Self::new(Handshake::server(server)?))
    }

    /// The client's side of a connection to the server of this name: a DNS name or an IP address, which its
    /// certificate has to be for. What is to be sent first can be had at once.
    ///
    /// # Errors
    /// [`TlsError::BadName`].
    pub fn client(client: &TlsClient, name: &str) -> Result<Self, TlsError> {
        let mut machine = Self::new(Handshake::client(client, name)?);
        machine.handle_handshake(&mut [])?;
        Ok(machine)
    }

    fn new(handshake: Handshake) -> Self {
        Self {
            state: State::Handshake(Box::new(handshake)),
            piece: Vec::new(),
            outgoing: VecDeque::new(),
            agreed: None,
            sent_close: false,
            peer_closed: false,
        }
    }

    /// Takes what the peer sent, all of it, and decrypts it in place. What is for the application is appended to
    /// `plain`, in order; the bytes outside of those ranges are no longer what they were. After the peer's
    /// close_notify nothing is looked at any more.
    ///
    /// # Errors
    /// [`TlsError`], now and from now on. What stood in front of the error has been appended, and is good; an alert
    /// for the peer may be among the bytes to send.
    pub fn handle_received(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<Plain>,
    ) -> Result<(), TlsError> {
        self.check()?;
        self.take_records(bytes, plain).inspect_err(|error| {
            self.piece = Vec::new();
            self.state = State::Failed(error.clone());
        })
    }

    fn check(&self) -> Result<(), TlsError> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn take_records(&mut self, bytes: &mut [u8], plain: &mut Vec<Plain>) -> Result<(), TlsError> {
        let mut start = self.complete_piece(bytes, plain)?;
        while !self.peer_closed && start < bytes.len() {
            let rest = &mut bytes[start..];
            let length = match self.record_length(rest)? {
                Some(length) if length <= rest.len() => length,
                _ => {
                    // No larger than what came: a header alone buys nobody a record's memory.
                    self.piece = rest.to_vec();
                    return Ok(());
                }
            };
            if let Some(range) = self.handle_record(&mut rest[..length])? {
                plain.push(Plain::Here(start + range.start..start + range.end));
            }
            start += length;
        }
        Ok(())
    }

    /// Adds to the piece what its record lacks. How many bytes were taken.
    fn complete_piece(&mut self, bytes: &[u8], plain: &mut Vec<Plain>) -> Result<usize, TlsError> {
        if self.piece.is_empty() || self.peer_closed {
            return Ok(0);
        }
        let mut taken = 0;
        // First the header, which says how much more there is.
        let mut record = loop {
            let piece = std::mem::take(&mut self.piece);
            let whole = self.record_length(&piece)?;
            self.piece = piece;
            let lacks = whole.unwrap_or(HEADER) - self.piece.len();
            if lacks == 0 {
                break std::mem::take(&mut self.piece);
            }
            if taken == bytes.len() {
                return Ok(taken);
            }
            let more = &bytes[taken..bytes.len().min(taken + lacks)];
            self.piece.extend_from_slice(more);
            taken += more.len();
        };
        if let Some(range) = self.handle_record(&mut record)? {
            record.truncate(range.end);
            record.drain(..range.start);
            plain.push(Plain::Whole(record));
        }
        Ok(taken)
    }

    /// Takes a whole record; where its plaintext is, if it has any.
    fn handle_record(&mut self, record: &mut [u8]) -> Result<Option<Range<usize>>, TlsError> {
        let records = match &mut self.state {
            State::Records(records) => records,
            State::Handshake(_) => return self.handle_handshake(record).map(|()| None),
            State::Failed(error) => return Err(error.clone()),
        };
        Ok(match records.open(record, &mut self.outgoing)? {
            Opened::Data(range) => Some(range),
            Opened::Nothing => None,
            Opened::Closed => {
                self.peer_closed = true;
                None
            }
        })
    }

    /// The length of the record that begins here, its header included; `None` before the header is there. The peer
    /// is told if there is none.
    fn record_length(&mut self, bytes: &[u8]) -> Result<Option<usize>, TlsError> {
        record_length(bytes).map_err(|(alert, cause)| {
            match &mut self.state {
                State::Records(records) => records.refuse(alert, &mut self.outgoing),
                _ => self.outgoing.push_back(bare_alert(alert)),
            }
            rustls::Error::InvalidMessage(cause).into()
        })
    }

    /// Takes a record of the handshake, or none, to begin.
    fn handle_handshake(&mut self, record: &mut [u8]) -> Result<(), TlsError> {
        let State::Handshake(handshake) = &mut self.state else { return self.check() };
        let mut flight = Vec::new();
        let done = handshake.handle_record(record, &mut flight);
        if !flight.is_empty() {
            self.outgoing.push_back(flight);
        }
        if done? {
            // For the moment in between, and for good if it cannot be finished.
            let failed = State::Failed(rustls::Error::HandshakeNotComplete.into());
            if let State::Handshake(handshake) = std::mem::replace(&mut self.state, failed) {
                let (agreed, records) = handshake.finish()?;
                self.agreed = Some(Box::new(agreed));
                self.state = State::Records(Box::new(records));
            }
        }
        Ok(())
    }

    /// The peer's stream is over, as far as the transport knows.
    ///
    /// # Errors
    /// [`TlsError::Truncated`] or [`TlsError::EndedInHandshake`], if it had not said so by a close_notify: somebody
    /// may have cut it off.
    pub fn handle_end(&mut self) -> Result<(), TlsError> {
        self.check()?;
        if self.peer_closed {
            return Ok(());
        }
        let error = match self.agreed {
            Some(_) => TlsError::Truncated,
            None => TlsError::EndedInHandshake,
        };
        self.state = State::Failed(error.clone());
        Err(error)
    }

    /// What so many bytes take at most when they are sealed, changes of keys aside.
    pub(super) fn sealed_bytes(plain: usize) -> usize {
        plain + plain.div_ceil(PLAIN_MAX) * RECORD_OVERHEAD
    }

    /// Encrypts application data, to be sent: the bytes to send are longer by at most 34 for each 16 KiB begun.
    ///
    /// # Errors
    /// [`TlsError`]: the connection has failed, is not past its handshake, or we have said that we send no more.
    pub fn seal(&mut self, plain: &[u8]) -> Result<(), TlsError> {
        if self.sent_close {
            return Err(TlsError::SentClose);
        }
        match &mut self.state {
            State::Records(records) => records.seal(plain, &mut self.outgoing),
            State::Handshake(_) => Err(rustls::Error::HandshakeNotComplete.into()),
            State::Failed(error) => Err(error.clone()),
        }
    }

    /// Says that we will send no more (close_notify), once; in the handshake, where there is no way to say so, and
    /// after a failure, it says nothing. The peer may go on.
    pub fn close(&mut self) {
        if let State::Records(records) = &mut self.state
            && !std::mem::replace(&mut self.sent_close, true)
        {
            records.close(&mut self.outgoing);
        }
    }

    /// The next bytes to send to the peer, in order. To be sent after a failure as well: an alert may be among them.
    pub fn poll_outgoing(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Puts back what [`poll_outgoing`](Self::poll_outgoing) gave last and could not be sent.
    pub(super) fn put_back_outgoing(&mut self, bytes: Vec<u8>) {
        self.outgoing.push_front(bytes);
    }

    /// Whether there are bytes to send.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a record has come in part.
    pub(super) fn has_piece(&self) -> bool {
        !self.piece.is_empty()
    }

    /// What was agreed upon, once the handshake is done.
    #[must_use]
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_deref()
    }

    /// Whether the peer has said that it will send no more.
    #[must_use]
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether we have.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sent_close
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Handshake(_) => "handshake",
            State::Records(_) => "records",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Machine")
            .field("state", &state)
            .field("agreed", &self.agreed)
            .field("sent_close", &self.sent_close)
            .field("peer_closed", &self.peer_closed)
            .finish_non_exhaustive()
    }
}

/// The length of the record that begins here, its header included; `None` before the header is there. Judged by
/// what is there of it, so that somebody who does not speak TLS is found out by the first byte.
pub(super) fn record_length(
    bytes: &[u8],
) -> Result<Option<usize>, (AlertDescription, InvalidMessage)> {
    if let Some(&typ) = bytes.first()
        && matches!(ContentType::from(typ), ContentType::Unknown(_) | ContentType::Heartbeat)
    {
        return Err((AlertDescription::UnexpectedMessage, InvalidMessage::InvalidContentType));
    }
    if bytes.get(1).is_some_and(|&major| major != 3) {
        return Err((AlertDescription::ProtocolVersion, InvalidMessage::UnknownProtocolVersion));
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let sealed = usize::from(u16::from_be_bytes([high, low]));
    if sealed > SEALED_MAX {
        return Err((AlertDescription::RecordOverflow, InvalidMessage::MessageTooLarge));
    }
    Ok(Some(HEADER + sealed))
}

/// A fatal alert in the clear, for who does not get as far as a cipher.
pub(super) fn bare_alert(alert: AlertDescription) -> Vec<u8> {
    vec![u8::from(ContentType::Alert), 3, 3, 0, 2, 2, u8::from(alert)]
}
