//! One connection of the load: its socket, and how far its two streams have come.
//!
//! ```text
//!   until ──> send ──> socket ──> server ──> socket ──> receive ──> checked, in order
//!             made from `sent`                          against `received`
//! ```
//! It knows positions, not messages: the caller says up to where to send and sees from `received`
//! what is complete. Nothing of a message is kept, so memory does not grow with its size, and since
//! each call moves one buffer at most, a caller that alternates the two cannot deadlock with a
//! server that stops reading while its own writes are blocked.

use std::io;

use super::fault::Fault;
use super::pattern::Pattern;
use super::tls::Handshakes;
use super::transport::Transport;

/// A connected (or connecting) transport with its positions.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    pattern: Pattern,
    sent: u64,
    received: u64,
    /// A write found no room, and no event has told of any since.
    blocked: bool,
}

/// How a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All that was to be sent is out.
    All,
    /// The socket takes no more; an event will tell when it does.
    Blocked,
    /// There is more, and the socket may take it: call again.
    More,
}

/// How a receive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes, all of them right.
    Bytes {
        /// How many.
        len: usize,
        /// There may be more that no event will tell of: call again.
        more: bool,
    },
    /// Nothing has arrived; an event will tell when something does.
    Nothing,
    /// The peer has ended its stream.
    End,
}

impl Connection {
    /// A connection that has moved nothing yet.
    #[must_use]
    pub fn new(transport: Transport, pattern: Pattern) -> Self {
        Self { transport, pattern, sent: 0, received: 0, blocked: false }
    }

    /// Bytes that came back so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// An event told that a blocked write may go on.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends the stream up to position `until`, one buffer of it at most.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn send(&mut self, until: u64, buffer: &mut [u8]) -> Result<Sent, Fault> {
        if self.blocked {
            return Ok(Sent::Blocked);
        }
        if self.sent >= until {
            return self.flush();
        }
        let len = (until - self.sent).min(buffer.len() as u64) as usize;
        let mut rest = &mut buffer[..len];
        self.pattern.fill(self.sent, rest);
        while !rest.is_empty() {
            match self.transport.write(rest) {
                Ok(taken) => {
                    self.sent += taken as u64;
                    rest = &mut rest[taken..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(Sent::Blocked);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if self.sent < until { Sent::More } else { Sent::All })
    }

    /// Sends what the transport has of its own to say.
    fn flush(&mut self) -> Result<Sent, Fault> {
        match self.transport.flush() {
            Ok(()) => Ok(Sent::All),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                Ok(Sent::Blocked)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Receives and checks what has arrived, one buffer of it at most.
    ///
    /// # Errors
    /// When the socket fails, or bytes are not those that were sent (or more than were).
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Fault> {
        // What a handshake waited for may be what comes now; then there is something to send.
        if matches!(self.transport, Transport::Tls(_)) {
            self.blocked = false;
        }
        let len = loop {
            match self.transport.read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(len) => break len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                Err(error) => return Err(error.into()),
            }
        };
        let owed = (self.sent - self.received).min(len as u64) as usize;
        let (expected, surplus) = buffer[..len].split_at(owed);
        let wrong = self.pattern.count_wrong(self.received, expected) + surplus.len() as u64;
        if wrong > 0 {
            return Err(Fault::Corrupted(wrong));
        }
        self.received += len as u64;
        let more = self.transport.may_have_more(len, buffer.len());
        Ok(Received::Bytes { len, more })
    }

    /// Ends its own stream; the peer's goes on.
    ///
    /// # Errors
    /// When the peer has reset the connection.
    pub fn shutdown(&mut self) -> Result<(), Fault> {
        Ok(self.transport.shutdown()?)
    }

    /// Which TLS handshake there was; `None` without one.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshakes> {
        self.transport.handshake()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let socket = TcpStream::connect(listener.local_addr().expect("it is bound"));
        let (peer, _) = listener.accept().expect("somebody connects");
        let transport = Transport::Plain(socket.expect("it listens"));
        (Connection::new(transport, Pattern::new(5)), peer)
    }

    fn echo(connection: &mut Connection, peer: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let sent = connection.send(bytes as u64, &mut vec![0; bytes]).expect("the peer is there");
        assert_eq!(sent, Sent::All);
        let mut stream = vec![0; bytes];
        peer.read_exact(&mut stream).expect("all was sent");
        stream
    }

    #[test]
    fn an_echo_is_right_and_a_change_is_not() {
        let (mut connection, mut peer) = pair();
        let mut stream = echo(&mut connection, &mut peer, 100);
        stream[70] ^= 1;
        let mut buffer = [0; 50];
        peer.write_all(&stream).expect("room for 100 bytes");
        let whole = connection.receive(&mut buffer);
        assert!(matches!(whole, Ok(Received::Bytes { len: 50, more: true })));
        assert!(matches!(connection.receive(&mut buffer), Err(Fault::Corrupted(1))));
    }

    #[test]
    fn bytes_beyond_what_was_sent_are_wrong_even_if_they_fit_the_pattern() {
        let (mut connection, mut peer) = pair();
        let mut stream = echo(&mut connection, &mut peer, 100);
        stream.resize(103, 0);
        Pattern::new(5).fill(100, &mut stream[100..]);
        peer.write_all(&stream).expect("room for 103 bytes");
        assert!(matches!(connection.receive(&mut [0; 128]), Err(Fault::Corrupted(3))));
    }
}
