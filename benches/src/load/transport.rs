//! What carries a connection of the load: its socket, or TLS over it.
//!
//! Calls answer as those of a non-blocking socket do. What differs is [`Transport::flush`]: TLS has things of its own
//! to say, and may hold bytes that the socket did not take.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use super::tls::{Handshakes, Tls};

/// A connected (or connecting) non-blocking socket, with or without TLS.
#[derive(Debug)]
pub enum Transport {
    /// The bytes as they are.
    Plain(TcpStream),
    /// The bytes in records.
    Tls(Box<Tls>),
}

impl Transport {
    /// What has arrived; 0 is the end of the peer's stream.
    ///
    /// # Errors
    /// What the socket says; whatever is wrong with the peer's TLS.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// Whether there may be more behind `len` bytes that were just read into a buffer of `room` bytes, so that no event
    /// will tell. A record is handed out by itself, however much the socket still has.
    #[must_use]
    pub fn may_have_more(&self, len: usize, room: usize) -> bool {
        match self {
            Self::Plain(_) => len == room,
            Self::Tls(_) => true,
        }
    }

    /// How many of the bytes were taken.
    ///
    /// # Errors
    /// What the socket says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    /// Sends what was taken and not sent.
    ///
    /// # Errors
    /// What the socket says.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Ends its own stream; the peer's goes on.
    ///
    /// # Errors
    /// What the socket says.
    pub fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.shutdown(Shutdown::Write),
            Self::Tls(tls) => tls.shutdown(),
        }
    }

    /// Which handshake there was; `None` without TLS, and until it is known.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshakes> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.handshake(),
        }
    }
}
