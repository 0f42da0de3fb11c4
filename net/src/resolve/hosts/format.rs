//! How a file of hosts is written: a line for an address, its names, and what is set for it.

use std::net::{IpAddr, SocketAddr};

use super::{HostsFault, Strictness};
use crate::resolve::places::{Place, Places};
use crate::resolve::query::{QueryError, Underscore, name_of};

/// What an error shows of a word.
const SHOWN_CHARS_MAX: usize = 100;

/// The names and their places; or the first line that is not good, from 1, and why.
pub(super) fn parse(bytes: &[u8], strictness: Strictness) -> Result<Places, (usize, HostsFault)> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut places = Places::default();
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some((place, names))) => {
                for name in names {
                    places.add(name, place);
                }
            }
            Err(fault) => match strictness {
                Strictness::Whole => return Err((number, fault)),
                #[cfg(feature = "dns")]
                Strictness::Line => tracing::debug!(line = number, %fault, "passed over"),
            },
        }
    }
    Ok(places)
}

fn parse_line(line: &[u8]) -> Result<Option<(Place, Vec<String>)>, HostsFault> {
    // A comment may be in any encoding.
    let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| HostsFault::NotText)?;
    let mut words = line.split_ascii_whitespace();
    let Some(first) = words.next() else { return Ok(None) };
    let mut place = parse_address(first)?;
    let mut names = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some((setting, value)) => set(&mut place, setting, value)
                .ok_or_else(|| HostsFault::Setting { word: shown(word) })?,
            None => match name_of(word, Underscore::Yes) {
                Ok((name, _)) if names.contains(&name) => {}
                Ok((name, _)) => names.push(name),
                Err(fault) => return Err(QueryError::new(word, fault).into()),
            },
        }
    }
    match names.is_empty() {
        true => Err(HostsFault::NameMissing),
        false => Ok(Some((place, names))),
    }
}

fn parse_address(word: &str) -> Result<Place, HostsFault> {
    let wrong = || HostsFault::Address { word: shown(word) };
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    match word.parse::<SocketAddr>() {
        // A zone would be lost.
        Ok(SocketAddr::V6(address)) if address.scope_id() != 0 => Err(wrong()),
        Ok(address) if address.port() != 0 => Ok(address.into()),
        _ => Err(wrong()),
    }
}

fn set(place: &mut Place, setting: &str, value: &str) -> Option<()> {
    // `parse` alone would take a sign.
    let number: u16 = value.parse().ok().filter(|_| !value.starts_with('+'))?;
    match setting {
        "tier" => place.tier = number,
        "weight" if number > 0 => place.weight = number,
        _ => return None,
    }
    Some(())
}

fn shown(word: &str) -> String {
    word.chars().take(SHOWN_CHARS_MAX).collect()
}
