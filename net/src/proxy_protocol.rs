//! The PROXY protocol, as it is written: who a connection is for, said in its first bytes.
//!
//! ```
//! use slipring::proxy_protocol::{Header, Version};
//!
//! let (client, local) = ("192.0.2.7:40000".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
//! let header = Header::proxied(client, local).encode(Version::V1);
//! assert_eq!(header, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n");
//! assert_eq!(Header::Local.encode(Version::V1), b"PROXY UNKNOWN\r\n");
//! ```
//!
//! Is: the bytes of a header, of versions 1 and 2 of <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, for
//! TCP, without the optional fields (TLV) of version 2. Is not: who sends it, nor how one is read.
//!
//! *Families.* A header has addresses of one family. IPv4 addresses that are written as IPv6 ones (`::ffff:1.2.3.4`),
//! as sockets for both give them, are taken for what they are. If then one is IPv4 and the other IPv6, the first is
//! written as an IPv6 address after all, and the header is one of IPv6. Zones of link-local addresses have no place in
//! it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection of the sender's own.
const LOCAL: u8 = 0x20;
/// Version 2, a connection for somebody else.
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// Bytes of the longest header: of version 1, between two IPv6 addresses. The specification asks readers of that
/// version for room for 107.
pub const HEADER_BYTES_MAX: usize = 104;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// The connection is the sender's own, such as one of a health check: `UNKNOWN` in version 1, `LOCAL` in version 2.
    Local,
    /// It is for a client. Made by [`Header::proxied`].
    Tcp4 {
        /// The client's address.
        source: (Ipv4Addr, u16),
        /// The address that the client connected to.
        destination: (Ipv4Addr, u16),
    },
    /// The same, over IPv6.
    Tcp6 {
        /// The client's address.
        source: (Ipv6Addr, u16),
        /// The address that the client connected to.
        destination: (Ipv6Addr, u16),
    },
}

impl Header {
    /// For this client, who connected to this address; of one family, as the [module](self) says.
    #[must_use]
    pub fn proxied(client: SocketAddr, local: SocketAddr) -> Self {
        match (client.ip().to_canonical(), local.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::Tcp4 {
                source: (source, client.port()),
                destination: (destination, local.port()),
            },
            (source, destination) => Self::Tcp6 {
                source: (as_v6(source), client.port()),
                destination: (as_v6(destination), local.port()),
            },
        }
    }

    /// Its bytes, at most [`HEADER_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => self.line().into_bytes(),
            Version::V2 => self.binary(),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Local => "PROXY UNKNOWN\r\n".to_owned(),
            Self::Tcp4 { source: (source, source_port), destination: (destination, port) } => {
                format!("PROXY TCP4 {source} {destination} {source_port} {port}\r\n")
            }
            Self::Tcp6 { source: (source, source_port), destination: (destination, port) } => {
                let (source, destination) = (hexadecimal(*source), hexadecimal(*destination));
                format!("PROXY TCP6 {source} {destination} {source_port} {port}\r\n")
            }
        }
    }

    fn binary(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIGNATURE.len() + 4 + 36);
        bytes.extend_from_slice(&SIGNATURE);
        match self {
            // Whoever reads it takes what the socket says: there are no addresses.
            Self::Local => bytes.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]),
            Self::Tcp4 { source, destination } => {
                bytes.extend_from_slice(&[PROXY, TCP_OVER_IPV4, 0, 12]);
                bytes.extend_from_slice(&source.0.octets());
                bytes.extend_from_slice(&destination.0.octets());
                bytes.extend_from_slice(&source.1.to_be_bytes());
                bytes.extend_from_slice(&destination.1.to_be_bytes());
            }
            Self::Tcp6 { source, destination } => {
                bytes.extend_from_slice(&[PROXY, TCP_OVER_IPV6, 0, 36]);
                bytes.extend_from_slice(&source.0.octets());
                bytes.extend_from_slice(&destination.0.octets());
                bytes.extend_from_slice(&source.1.to_be_bytes());
                bytes.extend_from_slice(&destination.1.to_be_bytes());
            }
        }
        bytes
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// As version 1 wants it: hexadecimal groups only, where the standard library writes `::ffff:1.2.3.4`.
fn hexadecimal(address: Ipv6Addr) -> String {
    let mut text = String::new();
    let written = match address.to_ipv4_mapped() {
        None => write!(text, "{address}"),
        Some(_) => {
            let [.., high, low] = address.segments();
            write!(text, "::ffff:{high:x}:{low:x}")
        }
    };
    written.expect("memory takes all");
    text
}

#[cfg(test)]
mod tests;
