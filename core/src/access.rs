//! Who may connect at all: prefixes of addresses, allowed and denied.
//!
//! Is: the words for a prefix, and two lists of them as one immutable table that reactors share behind an
//! `Arc`; a look-up takes no lock and no memory. Is not: a judge of how many or how often, see `sources`; it
//! does not look names up, and it knows nothing of PROXY headers: it is asked about whatever address is
//! believed.
//!
//! | an address | gets |
//! |---|---|
//! | in an entry of either list | what its longest matching prefix says, wherever it stands in the lists |
//! | in no entry, and something is allowed | denied |
//! | in no entry, and nothing is allowed | allowed: there is a list of the denied only, or none |
//! | IPv4-mapped, `::ffff:10.0.0.1` | what `10.0.0.1` gets: a dual-stack listener shows IPv4 clients so |
//!
//! | an entry | means |
//! |---|---|
//! | `10.0.0.0/8`, `2001:db8::/32` | the addresses that begin with these bits |
//! | `10.0.0.1`, `::1` | this one: `/32`, `/128` |
//! | `::ffff:10.0.0.0/104` | `10.0.0.0/8` |
//! | `0.0.0.0/0`, `::/0` | everybody of one family; none of the other, so `::/0` says nothing of `10.0.0.1` |
//! | `10.0.0.1/8` | nothing: refused, since either the address or the length is a mistake |
//! | one prefix in both lists | nothing: refused. In one list twice it is just said twice |
//!
//! Something allowed in one family denies the rest of both: `allow 10.0.0.0/8` lets no IPv6 client in.
//!
//! Why ranges and not a trie: written shortest first into a map of ranges, each prefix overwrites the part of
//! a shorter one that it knows better, and what is left is disjoint: the longest match is the only match.
//! Ranges that say the same become one. The map (`rangemap`) is a `BTreeMap` beneath: no `unsafe`, no further
//! crates, and some twenty comparisons in a list of a million. The tries to be had bring one or the other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use rangemap::RangeInclusiveMap;

use crate::error::SetupError;

/// Bits of an IPv6 address before the IPv4 address it maps.
const MAPPED_BITS: u8 = 96;

// ------------------------------------------------------------------------------------- one prefix

/// The addresses that begin with the same bits: `10.0.0.0/8`. Never IPv4-mapped, and no bit is set beyond
/// its length, so equal prefixes are equal values.
///
/// ```
/// use slipring_core::Prefix;
///
/// let ours: Prefix = "10.0.0.0/8".parse()?;
/// assert!(ours.contains("10.1.2.3".parse()?));
/// assert!(ours.contains("::ffff:10.1.2.3".parse()?));
///
/// let error = "10.0.0.1/8".parse::<Prefix>().unwrap_err();
/// assert!(error.to_string().ends_with("write 10.0.0.0/8 for all of them, or 10.0.0.1 for the one"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why something is no prefix. `Display` is one line: the cause, then the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// What stands before the slash is no address.
    #[error("`{text}` is not an IP address; {remedy}")]
    NotAnAddress {
        /// What was written.
        text: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// What stands behind the slash is no number.
    #[error(
        "`{text}` is not the length of a prefix; write how many bits are given, such as 10.0.0.0/8"
    )]
    NotALength {
        /// What was written.
        text: String,
    },
    /// More bits than an address has.
    #[error("{address} has no {length} bits; write a length of at most {most}")]
    TooLong {
        /// The address.
        address: IpAddr,
        /// The length asked for.
        length: u32,
        /// The length of an address of that family.
        most: u8,
    },
    /// The address goes on beyond the length.
    #[error(
        "{address}/{length} goes on beyond its {length} bits; write {network} for all of them, or \
         {address} for the one",
        length = network.length
    )]
    BeyondLength {
        /// The address.
        address: IpAddr,
        /// The prefix of that length that it lies in.
        network: Prefix,
    },
    /// The length of an IPv4-mapped prefix leaves out what makes it one.
    #[error(
        "{address}/{length} is shorter than the 96 bits before the IPv4 address; write it as IPv4, \
         such as 10.0.0.0/8"
    )]
    MappedTooShort {
        /// The address.
        address: Ipv6Addr,
        /// The length asked for.
        length: u8,
    },
}

impl Prefix {
    /// The prefix `address/length`.
    ///
    /// # Errors
    /// [`PrefixError`], if the length is more than the address has, or less than what is set in it.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let most = bits_of(address);
        if length > most {
            return Err(PrefixError::TooLong { address, length: length.into(), most });
        }
        let length = match address {
            IpAddr::V6(mapped) if mapped.to_ipv4_mapped().is_some() => length
                .checked_sub(MAPPED_BITS)
                .ok_or(PrefixError::MappedTooShort { address: mapped, length })?,
            _ => length,
        };
        let address = address.to_canonical();
        let network = Self::covering(address, length);
        if network.address == address {
            Ok(network)
        } else {
            Err(PrefixError::BeyondLength { address, network })
        }
    }

    /// The prefix of so many bits that `address` lies in; the address itself if it has no more bits than
    /// that. IPv4-mapped addresses count as IPv4.
    #[must_use]
    pub fn covering(address: IpAddr, length: u8) -> Self {
        let address = address.to_canonical();
        let length = length.min(bits_of(address));
        let address = match address {
            IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) & v4_mask(length)).into(),
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & v6_mask(length)).into(),
        };
        Self { address, length }
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits of an address it gives.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` begins with it. IPv4-mapped addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && Self::covering(address, self.length) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (read_address(address)?, Some(length)),
            None => (read_address(text)?, None),
        };
        let most = bits_of(address);
        let Some(length) = length else {
            return Self::new(address, most);
        };
        // `parse` would take a sign.
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let Some(number) = length.parse::<u32>().ok().filter(|_| digits) else {
            return Err(PrefixError::NotALength { text: length.to_owned() });
        };
        match u8::try_from(number) {
            Ok(length) => Self::new(address, length),
            Err(_) => Err(PrefixError::TooLong { address, length: number, most }),
        }
    }
}

fn read_address(text: &str) -> Result<IpAddr, PrefixError> {
    text.parse().map_err(|_| {
        let remedy = if text.starts_with('[') {
            "leave the brackets out, such as ::1"
        } else if text.contains('%') {
            "leave out what follows the %: a prefix has no zone"
        } else if text.parse::<std::net::SocketAddr>().is_ok() {
            "leave the port out: a prefix has none"
        } else if text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
            "names are not looked up: write addresses, or 0.0.0.0/0 and ::/0 for everybody"
        } else {
            "write all of it, such as 10.0.0.0/8 or 2001:db8::/32"
        };
        PrefixError::NotAnAddress { text: text.to_owned(), remedy }
    })
}

fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn v4_mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn v6_mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

// -------------------------------------------------------------------------------------- two lists

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Deny,
}

/// The lists of a listener or a process. The top of this file says what they mean together.
///
/// ```
/// use slipring_core::Access;
///
/// let access = Access::new(["10.0.0.0/8".parse()?], ["10.66.0.0/16".parse()?])?;
/// assert!(access.allows("10.1.2.3".parse()?));
/// assert!(!access.allows("10.66.2.3".parse()?), "its longest match denies");
/// assert!(!access.allows("192.168.0.1".parse()?), "something is allowed, and this is not");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Disjoint ranges of addresses and what their longest prefixes say.
    v4: RangeInclusiveMap<u32, Verdict>,
    v6: RangeInclusiveMap<u128, Verdict>,
    otherwise: Verdict,
}

impl Access {
    /// The table of these lists. Their order means nothing.
    ///
    /// # Errors
    /// [`SetupError::Config`] if a prefix is both allowed and denied.
    pub fn new(
        allow: impl IntoIterator<Item = Prefix>,
        deny: impl IntoIterator<Item = Prefix>,
    ) -> Result<Self, SetupError> {
        // By length first: that is the order to write them in.
        let by_length = |prefix: Prefix| (prefix.length, prefix);
        let mut entries: BTreeMap<_, _> =
            allow.into_iter().map(|prefix| (by_length(prefix), Verdict::Allow)).collect();
        let otherwise = if entries.is_empty() { Verdict::Allow } else { Verdict::Deny };
        for prefix in deny {
            if entries.insert(by_length(prefix), Verdict::Deny) == Some(Verdict::Allow) {
                return Err(SetupError::Config {
                    cause: format!("{prefix} is both allowed and denied"),
                    remedy: "keep it in one of the lists".to_owned(),
                });
            }
        }
        let mut access =
            Self { v4: RangeInclusiveMap::new(), v6: RangeInclusiveMap::new(), otherwise };
        for ((length, prefix), verdict) in entries {
            match prefix.address {
                IpAddr::V4(first) => {
                    let first = u32::from(first);
                    access.v4.insert(first..=first | !v4_mask(length), verdict);
                }
                IpAddr::V6(first) => {
                    let first = u128::from(first);
                    access.v6.insert(first..=first | !v6_mask(length), verdict);
                }
            }
        }
        Ok(access)
    }

    /// Whether a client of this address may connect.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let matched = match address.to_canonical() {
            IpAddr::V4(address) => self.v4.get(&u32::from(address)),
            IpAddr::V6(address) => self.v6.get(&u128::from(address)),
        };
        *matched.unwrap_or(&self.otherwise) == Verdict::Allow
    }
}
