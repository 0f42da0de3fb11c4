//! Durations, sizes and shares as texts, and back.
//!
//! | what | written | not |
//! |---|---|---|
//! | duration | `250ms`, `1.5s`, `5m`, `1h`, `20us`, `7ns` | `250`, `.5s`, more than 1000 hours |
//! | size | `512B`, `64KiB`, `1MiB`, `2GiB` | `64`, `64KB`, `1.5KiB` |
//! | share | `10%`, `0.5%`, `0.0001%` | `0.1`, `110%` |
//!
//! What is written here is read here, and comes to the same value: `Display` takes the largest unit that leaves a whole
//! number, so no text has a point but that of a share.

use std::fmt;
use std::time::Duration;

use super::rules::RuleError;

/// Nothing is waited for longer than this.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(1000 * 3600);

const TIMES: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// Digits behind a point that are looked at: a nanosecond of an hour is finer than a billionth.
const FRACTION_DIGITS_MAX: usize = 13;

/// The number and the unit of a text.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A number that may have a point, times a unit; `None` if it is none, or does not come out whole.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let scale = 10_u128.pow(fraction.len() as u32);
    let parts = match fraction {
        "" => 0,
        digits => digits.parse::<u128>().ok()? * unit,
    };
    let whole = u128::from(whole.parse::<u64>().ok()?) * unit;
    parts.is_multiple_of(scale).then(|| whole + parts / scale)
}

pub(super) fn duration(text: &str) -> Result<Duration, RuleError> {
    let wrong = || RuleError::Duration { text: text.to_owned() };
    let (number, unit) = split(text);
    let (_, unit) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let nanos = scaled(number, *unit).ok_or_else(wrong)?;
    if nanos > DURATION_MAX.as_nanos() {
        return Err(RuleError::TooLong { text: text.to_owned() });
    }
    Ok(Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32))
}

pub(super) fn size(text: &str) -> Result<u64, RuleError> {
    let wrong = || RuleError::Size { text: text.to_owned() };
    let (number, unit) = split(text);
    let (_, unit) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    if number.contains('.') {
        return Err(wrong());
    }
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit)).ok_or_else(wrong)
}

/// Bytes each second.
pub(super) fn rate(text: &str) -> Result<u64, RuleError> {
    let wrong = |_| RuleError::Rate { text: text.to_owned() };
    let per_second = text.strip_suffix("/s").unwrap_or("");
    size(per_second).map_err(wrong)
}

/// Millionths.
pub(super) fn share(text: &str) -> Result<u32, RuleError> {
    const PERCENT: u128 = 10_000;
    let number = text.strip_suffix('%').unwrap_or("");
    match scaled(number, PERCENT) {
        Some(millionths) if millionths <= 100 * PERCENT => Ok(millionths as u32),
        _ => Err(RuleError::Share { text: text.to_owned() }),
    }
}

/// A duration as [`duration`] reads it.
pub(super) struct Time(pub(super) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let fits = |(_, unit): &&(&str, u128)| nanos.is_multiple_of(*unit);
        let (name, unit) = TIMES.iter().find(fits).unwrap_or(&TIMES[TIMES.len() - 1]);
        write!(f, "{}{name}", nanos / unit)
    }
}

/// A size as [`size`] reads it.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        let fits = |(_, unit): &&(&str, u64)| self.0.is_multiple_of(*unit);
        let (name, unit) = SIZES.iter().find(fits).unwrap_or(&SIZES[SIZES.len() - 1]);
        write!(f, "{}{name}", self.0 / unit)
    }
}

/// Millionths as [`share`] reads them.
pub(super) struct Percent(pub(super) u32);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:04}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}
