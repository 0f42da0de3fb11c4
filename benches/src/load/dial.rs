//! Connecting to the address under load, tens of thousands of times, without running out of ports.
//!
//! Whoever closes a connection first keeps its pair of addresses in TIME_WAIT for a minute, and
//! with one source address there are some 28,000 ports: a second of churn. Loopback is a whole /8,
//! so towards it the sources take turns over 127.0.0.2 to .250, and every port serves 249 times as
//! long. Towards any other address the kernel chooses the source; what it lacks is reported, and
//! the remedy is more addresses or a lower rate.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::options::Refusal;
use super::poll;

/// The last byte of the first source address; .1 is left to everybody else.
const SOURCE_FIRST: u8 = 2;
const SOURCE_LAST: u8 = 250;

/// Where to connect to, and from where next.
#[derive(Debug)]
pub struct Dialer {
    address: SocketAddr,
    source: u8,
}

impl Dialer {
    /// The first of these addresses that answers, with the connection that showed it.
    ///
    /// # Errors
    /// When none answers: what the last one said, and what to do about it.
    pub fn find(addresses: &[SocketAddr], timeout: Duration) -> Result<(Self, TcpStream), Refusal> {
        let mut refusal = Refusal::new("the name stands for no address; give IP:PORT");
        for address in addresses {
            let mut dialer = Self { address: *address, source: SOURCE_FIRST };
            match dialer.connect(timeout) {
                Ok(socket) => return Ok((dialer, socket)),
                Err(because) => refusal = because,
            }
        }
        Err(refusal)
    }

    /// Connects, and waits until it has.
    ///
    /// # Errors
    /// The cause and the remedy.
    pub fn connect(&mut self, timeout: Duration) -> Result<TcpStream, Refusal> {
        let address = self.address;
        let mut attempt = || {
            let socket = self.socket(Type::STREAM)?;
            socket.connect_timeout(&address.into(), timeout)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        attempt().map_err(|error| refuse(address, &error))
    }

    /// Starts to connect. A write will succeed once it is connected, or tell why it is not.
    ///
    /// # Errors
    /// When there is no port or descriptor left, or the address cannot be reached at all.
    pub fn start(&mut self) -> io::Result<TcpStream> {
        let socket = self.socket(Type::STREAM.nonblocking())?;
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket.into()),
        }
    }

    fn socket(&mut self, kind: Type) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.address), kind, None)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = self.next_source() {
            poll::choose_port_at_connect(&socket)?;
            socket.bind(&source.into())?;
        }
        Ok(socket)
    }

    /// The source to bind to: only towards IPv4 loopback.
    fn next_source(&mut self) -> Option<SocketAddr> {
        if !matches!(self.address.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
            return None;
        }
        let source = Ipv4Addr::new(127, 0, 0, self.source);
        self.source = if self.source == SOURCE_LAST { SOURCE_FIRST } else { self.source + 1 };
        Some(SocketAddr::from((source, 0)))
    }
}

fn refuse(address: SocketAddr, error: &io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::ConnectionRefused => "start the server first, or correct the address",
        io::ErrorKind::TimedOut => "look whether it accepts, or give it longer with --timeout",
        io::ErrorKind::ConnectionReset => "look at the server's limit of connections",
        io::ErrorKind::AddrNotAvailable => "wait a minute, or ask for fewer connections",
        _ => "correct the address, or this machine's route to it",
    };
    Refusal::new(format!("cannot connect to {address}: {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_take_turns_towards_loopback_only() {
        let address = SocketAddr::from(([127, 9, 9, 9], 80));
        let mut dialer = Dialer { address, source: SOURCE_FIRST };
        let sources: Vec<_> = (0..250).filter_map(|_| dialer.next_source()).collect();
        assert_eq!(sources[0], SocketAddr::from(([127, 0, 0, 2], 0)));
        assert_eq!(sources[248], SocketAddr::from(([127, 0, 0, 250], 0)));
        assert_eq!(sources[249], sources[0]);
        let address = SocketAddr::from(([192, 0, 2, 1], 80));
        let mut dialer = Dialer { address, source: SOURCE_FIRST };
        assert_eq!(dialer.next_source(), None);
    }
}
