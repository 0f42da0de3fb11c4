//! What may be asked for: an address, a host with a port, or a service.
//!
//! | text | asks for |
//! |---|---|
//! | `192.0.2.1:80`, `[2001:db8::1]:443`, `[fe80::1%2]:80` | nothing: it is an address |
//! | `example.com:443` | the addresses of a host; the port is given |
//! | `example.com.:443` | the same, and no list of domains to search in is tried |
//! | `srv:_http._tcp.example.com` | the SRV records of a service, and the addresses they lead to; they have the ports |
//!
//! Is: the one way from text to a name that is fit to be asked for. Is not: the look-up. Names are kept in lower case:
//! DNS makes no difference, and one name should not be asked for twice.
//!
//! Why so strict: what is not a name would be asked for all the same, and fail as "no such name" minutes later. And
//! `127.1` or `010.0.0.1` are addresses for some resolvers and names for others: here they are neither.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a name, without the dot at its end (RFC 1035: 255 on the wire).
const NAME_BYTES_MAX: usize = 253;
/// Bytes between two dots.
const LABEL_BYTES_MAX: usize = 63;
const SERVICE_PREFIX: &str = "srv:";
/// What an error shows of the text.
const SHOWN_CHARS_MAX: usize = 100;

/// What is asked for: see the table above. From text by `parse`, and back by `Display`.
///
/// ```
/// use slipring::resolve::Query;
///
/// let query: Query = "Example.com:443".parse()?;
/// assert_eq!((query.name(), query.port()), (Some("example.com"), Some(443)));
/// let address: Query = "[2001:db8::1]:443".parse()?;
/// assert!(address.address().is_some(), "there is nothing to look up");
/// let service: Query = "srv:_http._tcp.example.com".parse()?;
/// assert_eq!(service.to_string(), "srv:_http._tcp.example.com");
/// # Ok::<(), slipring::resolve::QueryError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query(Asked);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Asked {
    Address(SocketAddr),
    Host { name: Named, port: u16 },
    Service(Named),
}

/// A name in lower case, without the dot at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Named {
    text: Arc<str>,
    is_absolute: bool,
}

impl Query {
    /// A host's addresses, with this port. An address, IPv6 without brackets, is taken as one.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn host(name: &str, port: u16) -> Result<Self, QueryError> {
        let asked = || {
            if port == 0 {
                return Err(QueryFault::PortZero);
            }
            match name.parse::<IpAddr>() {
                Ok(address) => Ok(Asked::Address(SocketAddr::new(address, port))),
                Err(_) => Ok(Asked::Host { name: named(name, Underscore::No)?, port }),
            }
        };
        asked().map(Self).map_err(|fault| QueryError::new(name, fault))
    }

    /// The SRV records of a service, such as `_http._tcp.example.com`.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn service(name: &str) -> Result<Self, QueryError> {
        match named(name, Underscore::Yes) {
            Ok(name) => Ok(Self(Asked::Service(name))),
            Err(fault) => Err(QueryError::new(name, fault)),
        }
    }

    /// The address, if it is one: then there is nothing to look up.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.0 {
            Asked::Address(address) => Some(address),
            Asked::Host { .. } | Asked::Service(_) => None,
        }
    }

    /// The name, in lower case, without a dot at its end. `None` for an address.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Asked::Address(_) => None,
            Asked::Host { name, .. } | Asked::Service(name) => Some(&name.text),
        }
    }

    /// The name that a certificate of what it leads to has to be for: of a service that of its domain.
    pub(crate) fn certified(&self) -> Option<&str> {
        let mut name = self.name()?;
        while self.is_service()
            && name.starts_with('_')
            && let Some((_, domain)) = name.split_once('.')
        {
            name = domain;
        }
        Some(name)
    }

    /// Whether the name ended in a dot: it is whole, and not to be searched for in a list of domains.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        match &self.0 {
            Asked::Address(_) => false,
            Asked::Host { name, .. } | Asked::Service(name) => name.is_absolute,
        }
    }

    /// The port, which a service does not have: its records have theirs.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Asked::Address(address) => Some(address.port()),
            Asked::Host { port, .. } => Some(*port),
            Asked::Service(_) => None,
        }
    }

    /// Whether SRV records are asked for.
    #[must_use]
    pub fn is_service(&self) -> bool {
        matches!(self.0, Asked::Service(_))
    }
}

impl TryFrom<SocketAddr> for Query {
    type Error = QueryError;

    fn try_from(mut address: SocketAddr) -> Result<Self, QueryError> {
        if address.port() == 0 {
            return Err(QueryError::new(&address.to_string(), QueryFault::PortZero));
        }
        if let SocketAddr::V6(address) = &mut address {
            // Nobody can write it down.
            address.set_flowinfo(0);
        }
        Ok(Self(Asked::Address(address)))
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.is_absolute() { "." } else { "" };
        match &self.0 {
            Asked::Address(address) => write!(f, "{address}"),
            Asked::Host { name, port } => write!(f, "{}{dot}:{port}", name.text),
            Asked::Service(name) => write!(f, "{SERVICE_PREFIX}{}{dot}", name.text),
        }
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({self})")
    }
}

// -------------------------------------------------------------------------------------- from text

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        parse(text).map(Self).map_err(|fault| QueryError::new(text, fault))
    }
}

fn parse(text: &str) -> Result<Asked, QueryFault> {
    if text.contains("://") {
        return Err(QueryFault::Url);
    }
    if let Some(name) = text.strip_prefix(SERVICE_PREFIX)
        // A host may be called `srv`. No name is all digits.
        && !is_number(name)
    {
        return match name.contains(':') {
            true => Err(QueryFault::ServicePort),
            false => Ok(Asked::Service(named(name, Underscore::Yes)?)),
        };
    }
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed(rest);
    }
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(port), None) => {
            if let Ok(address) = name.parse::<Ipv4Addr>() {
                return Ok(Asked::Address((address, parse_port(port)?).into()));
            }
            let name = named(name, Underscore::No)?;
            Ok(Asked::Host { name, port: parse_port(port)? })
        }
        (_, Some(_), Some(_)) => Err(QueryFault::Colons),
        _ => {
            // What is wrong with the name comes first; an address is none.
            if text.parse::<Ipv4Addr>().is_err() {
                named(text, Underscore::No)?;
            }
            Err(QueryFault::PortMissing)
        }
    }
}

/// What stands behind an opening bracket.
fn bracketed(text: &str) -> Result<Asked, QueryFault> {
    let (address, rest) = text.split_once(']').ok_or(QueryFault::Bracket)?;
    let (address, zone) = match address.split_once('%') {
        Some((address, zone)) => {
            let zone = Some(zone).filter(|zone| is_number(zone)).and_then(|zone| zone.parse().ok());
            (address, zone.ok_or(QueryFault::Zone)?)
        }
        None => (address, 0),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| QueryFault::Bracket)?;
    let port = match rest.strip_prefix(':') {
        Some(port) => parse_port(port)?,
        None if rest.is_empty() => return Err(QueryFault::PortMissing),
        None => return Err(QueryFault::Bracket),
    };
    Ok(Asked::Address(SocketAddrV6::new(address, port, 0, zone).into()))
}

fn parse_port(text: &str) -> Result<u16, QueryFault> {
    if text.is_empty() {
        return Err(QueryFault::PortMissing);
    }
    // `parse` alone would take a sign.
    let port = Some(text).filter(|text| is_number(text)).and_then(|text| text.parse().ok());
    match port.ok_or(QueryFault::Port)? {
        0 => Err(QueryFault::PortZero),
        port => Ok(port),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a name may have underscores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Underscore {
    Yes,
    No,
}

fn named(text: &str, underscore: Underscore) -> Result<Named, QueryFault> {
    let (text, is_absolute) = name_of(text, underscore)?;
    Ok(Named { text: text.into(), is_absolute })
}

/// A name as it is kept, and whether it had a dot at its end.
pub(super) fn name_of(text: &str, underscore: Underscore) -> Result<(String, bool), QueryFault> {
    let (name, is_absolute) = match text.strip_suffix('.') {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.is_empty() {
        return Err(QueryFault::NameMissing);
    }
    for character in name.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => {}
            '_' if underscore == Underscore::Yes => {}
            '_' => return Err(QueryFault::Underscore),
            character if !character.is_ascii() => return Err(QueryFault::NotAscii { character }),
            character => return Err(QueryFault::Character { character }),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(QueryFault::NameLong { bytes: name.len() });
    }
    let mut last = "";
    for label in name.split('.') {
        if label.is_empty() {
            return Err(QueryFault::LabelEmpty);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(QueryFault::LabelLong { bytes: label.len() });
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(QueryFault::Hyphen);
        }
        last = label;
    }
    let last = last.to_ascii_lowercase();
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_number(&last) || last.strip_prefix("0x").is_some_and(is_hex) {
        return Err(QueryFault::Number);
    }
    Ok((name.to_ascii_lowercase(), is_absolute))
}

// ----------------------------------------------------------------------------------------- errors

/// A text that nothing can be asked for by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {fault}")]
pub struct QueryError {
    text: String,
    fault: QueryFault,
}

impl QueryError {
    pub(super) fn new(text: &str, fault: QueryFault) -> Self {
        let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < text.len() {
            shown.push_str("..");
        }
        Self { text: shown, fault }
    }

    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self) -> &QueryFault {
        &self.fault
    }
}

/// What is wrong with a text that is to become a [`Query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryFault {
    /// Nothing where the name should be.
    #[error("there is no name; write host:port, as in example.com:443")]
    NameMissing,
    /// No port.
    #[error("there is no port; write host:port, as in example.com:443")]
    PortMissing,
    /// Port 0.
    #[error("nobody listens on port 0; say from 1 to 65535")]
    PortZero,
    /// A port that is no number, or too great a one.
    #[error(
        "the port is no number from 1 to 65535; write it in digits, also that of a well-known service"
    )]
    Port,
    /// A scheme.
    #[error("this is a URL; leave out the scheme and the path, as in example.com:443")]
    Url,
    /// More than one colon.
    #[error(
        "there is more than one colon; write an IPv6 address in brackets, as in [2001:db8::1]:443"
    )]
    Colons,
    /// Brackets that hold no IPv6 address, or do not end.
    #[error("the brackets do not hold an IPv6 address; write it as in [2001:db8::1]:443")]
    Bracket,
    /// A zone that is no number.
    #[error(
        "the zone of the address is no number; write the interface's number, as in [fe80::1%2]:443"
    )]
    Zone,
    /// A port behind the name of a service.
    #[error("the name of a service has no port, for its records have theirs; leave the port out")]
    ServicePort,
    /// The name ends in a number.
    #[error(
        "a name does not end in a number, and an IPv4 address has four, from 0 to 255; write it in full"
    )]
    Number,
    /// More than 253 bytes.
    #[error("a name of {bytes} bytes; {NAME_BYTES_MAX} is the most there is")]
    NameLong {
        /// Its length.
        bytes: usize,
    },
    /// Nothing between two dots, or before the first.
    #[error("there is nothing between two dots; write each part of the name")]
    LabelEmpty,
    /// More than 63 bytes between two dots.
    #[error("{bytes} bytes between two dots; {LABEL_BYTES_MAX} is the most there is")]
    LabelLong {
        /// Their number.
        bytes: usize,
    },
    /// A hyphen at an end of a part.
    #[error("a part of the name begins or ends with a hyphen; they stand within one")]
    Hyphen,
    /// An underscore in the name of a host.
    #[error(
        "the name of a host has no underscore; names of services have: srv:_http._tcp.example.com"
    )]
    Underscore,
    /// What is not ASCII.
    #[error("{character:?} is not ASCII; write the name in punycode, as in xn--mnchen-3ya.example")]
    NotAscii {
        /// The first that is not.
        character: char,
    },
    /// What no name has.
    #[error("{character:?} is in no name; use letters, digits, hyphens and dots")]
    Character {
        /// The first of them.
        character: char,
    },
}

#[cfg(test)]
mod tests;
