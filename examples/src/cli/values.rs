//! One argument's text to a value: pure, and refusing in words that help.
//!
//! Why not `FromStr` of the standard types: they say "invalid socket address syntax". A refusal is
//! read by someone in a hurry, so each names the cause and, after a semicolon, the remedy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use slipring::resolve::{Query, QueryError};
use slipring::{OnFull, Placement, Prefix, PrefixError, Rate, RateError, Timeout};

/// The longest duration a command line takes. Timers count milliseconds in 32 bits (49 days).
const DURATION_MAX: Duration = Duration::from_hours(1000);

/// The highest CPU number an affinity mask of the kernel's usual size holds.
const CORE_MAX: usize = 1023;

/// CPU numbers, ascending. (An alias, because clap reads a `Vec` as "may be repeated".)
pub type Cores = Vec<usize>;

/// The endpoints of an upstream, as they are named. (An alias for the same reason as [`Cores`].)
pub type Upstreams = Vec<Query>;

// -------------------------------------------------------------------------------------- durations

/// How long connecting may take: a [`duration`] from 1 ms to an hour.
///
/// # Errors
/// Cause and remedy, for anything else.
pub fn connect_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("nobody connects within `{text}`; say from 1 ms to an hour")),
        time if time > Duration::from_hours(1) => {
            Err(format!("`{text}` is too long for one dial; say from 1 ms to an hour"))
        }
        time => Ok(time),
    }
}

/// A time between two of something: a [`duration`] that is not zero.
///
/// # Errors
/// Cause and remedy, for anything else.
pub fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("`{text}` leaves no pause between two; give at least 1 ms")),
        time => Ok(time),
    }
}

/// A duration: digits, perhaps with a fraction, and a unit: `500ms`, `1.5s`, `30s`, `5m`, `1h`.
///
/// # Errors
/// Cause and remedy, when it has no unit or another one, is finer than a millisecond or longer than
/// 1000 hours. Zero is a duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write a number and a unit, such as 500ms, 30s, 5m or 1h";
    if text == "never" {
        return Err("`never` is not possible here; give a duration such as 30s".into());
    }
    let split = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(format!("`{text}` is not a duration; {EXAMPLES}"));
    }
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "" => return Err(format!("`{text}` has no unit; write {text}s for seconds")),
        _ => return Err(format!("`{unit}` is not a unit of time; {EXAMPLES}")),
    };
    let too_long = || format!("{text} is too long; 1000h is the most");
    let whole_ms = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit_ms));
    let fraction_ms = fraction_of(fraction, unit_ms)
        .ok_or_else(|| format!("{text} is finer than a millisecond; round it to whole ones"))?;
    let duration = whole_ms
        .and_then(|whole_ms| whole_ms.checked_add(fraction_ms))
        .map(Duration::from_millis)
        .ok_or_else(too_long)?;
    if duration > DURATION_MAX { Err(too_long()) } else { Ok(duration) }
}

/// The digits after a point, as a share of `unit`; nothing when that is no whole number.
fn fraction_of(digits: &str, unit: u64) -> Option<u64> {
    let digits = digits.trim_end_matches('0');
    // An hour has 3.6 million milliseconds, so more digits than this never come out whole.
    const DIGITS_MAX: usize = 9;
    if digits.is_empty() {
        return Some(0);
    }
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let scale = 10_u64.pow(digits.len() as u32);
    let scaled = digits.parse::<u64>().ok()? * unit;
    scaled.is_multiple_of(scale).then_some(scaled / scale)
}

/// A duration above zero, or `never`.
///
/// # Errors
/// Those of [`duration`], and zero, which would close every connection at once.
pub fn timeout(text: &str) -> Result<Timeout, String> {
    if text == "never" {
        return Ok(Timeout::Never);
    }
    match duration(text)? {
        Duration::ZERO => Err(format!(
            "{text} would close every connection at once; write `never` for no timeout"
        )),
        duration => Ok(Timeout::After(duration)),
    }
}

// ------------------------------------------------------------------------------------------ cores

/// CPU numbers and ranges of them, separated by commas: `0`, `0,2`, `0-3`, `0-1,4`. The result is
/// ascending. Whether the process may run there is for the runtime to find out.
///
/// # Errors
/// Cause and remedy, for an empty part, a reversed range, a CPU named twice, a number above 1023.
pub fn cores(text: &str) -> Result<Cores, String> {
    let mut cores = Cores::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (core(first, text)?, core(last, text)?);
        if first > last {
            return Err(format!("the range {part} runs backwards; write {last}-{first}"));
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    if let Some(twice) = cores.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("CPU {} is named twice; name each CPU once", twice[0]));
    }
    Ok(cores)
}

fn core(text: &str, list: &str) -> Result<usize, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(core) if digits && core <= CORE_MAX => Ok(core),
        _ if digits => Err(format!("there is no CPU {text}; {CORE_MAX} is the highest number")),
        _ => Err(format!("`{list}` is not a list of CPUs; write it as in 0, 0,2 or 0-3")),
    }
}

// -------------------------------------------------------------------------------------- addresses

/// An address to listen on or to dial: `IP:PORT`, `[IPV6]:PORT`, or `:PORT` for 0.0.0.0.
///
/// # Errors
/// Cause and remedy: no port, a bad port, an IPv6 address without brackets, a host name.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!(
            "`{text}` is an IPv6 address without brackets or port; write [{text}]:7000"
        ));
    }
    if bare_ip(text) {
        return Err(format!("`{text}` has no port; write {text}:7000"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let example = if is_number(text) { format!(":{text}") } else { "127.0.0.1:7000".into() };
        return Err(format!("`{text}` has no port, or no address; write IP:PORT, as in {example}"));
    };
    let port = is_number(port).then(|| port.parse::<u16>().ok()).flatten().ok_or_else(|| {
        format!("`{port}` in `{text}` is not a port; give a number from 0 to 65535")
    })?;
    if host.is_empty() {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("`{text}` is an IPv6 address without brackets; write [{host}]:{port}"));
    }
    let looks_like_ip =
        host.contains([':', '[', ']']) || host.bytes().all(|b| b == b'.' || b.is_ascii_digit());
    if looks_like_ip {
        return Err(format!("`{host}` is not an IP address; write it as in 127.0.0.1 or [::1]"));
    }
    Err(format!(
        "`{host}` is a host name, and a listener has none; give its IP address, or :PORT for all of them"
    ))
}

fn bare_ip(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text).parse::<IpAddr>().is_ok()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `HOST:PORT[,HOST:PORT...]`: names, `srv:` names and addresses, all parts of one upstream.
///
/// # Errors
/// Those of [`Query`], and an empty entry.
pub fn upstreams(text: &str) -> Result<Upstreams, String> {
    let query = |part: &str| match part {
        "" => Err(format!("`{text}` has an empty entry; separate upstreams with one comma")),
        part => part.parse().map_err(|error: QueryError| error.to_string()),
    };
    text.split(',').map(query).collect()
}

// ----------------------------------------------------------------------------------------- counts

/// A whole number above zero, in plain digits.
///
/// # Errors
/// Cause and remedy, for anything else.
pub fn count(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("0 leaves nothing to work with; give at least 1".into()),
        Ok(count) if is_number(text) => Ok(count),
        _ if is_number(text) => Err(format!("{text} is too large; {} is the most", u32::MAX)),
        _ => Err(format!("`{text}` is not a whole number; write plain digits, as in 4096")),
    }
}

// -------------------------------------------------------------------------------------- placement

/// Which reactor a client goes to: `kernel`, `cpu`, `least-loaded` or `round-robin`.
///
/// # Errors
/// Cause and remedy, for another name.
pub fn placement(text: &str) -> Result<Placement, String> {
    text.parse()
}

// ---------------------------------------------------------------------------------------- on full

/// What becomes of a client for whom there is no place: `backlog`, `reject` or `evict`.
///
/// # Errors
/// Cause and remedy, for another word.
pub fn on_full(text: &str) -> Result<OnFull, String> {
    match text {
        "backlog" => Ok(OnFull::Backlog),
        "reject" => Ok(OnFull::Reject),
        "evict" => Ok(OnFull::EvictIdle),
        _ => Err(format!("`{text}` is not known; write backlog, reject or evict")),
    }
}

// ------------------------------------------------------------------------------------------ rates

/// So many a second: `1000`, `1000/s`, or `1000:50` with a burst of 50.
///
/// # Errors
/// Cause and remedy, for what is none, a rate or a burst of 0, and more than a million a second.
pub fn rate(text: &str) -> Result<Rate, String> {
    text.parse().map_err(|error: RateError| error.to_string())
}

// --------------------------------------------------------------------------------------- prefixes

/// Addresses that begin with the same bits: `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// # Errors
/// Cause and remedy, for what is none, and for bits set behind the prefix.
pub fn prefix(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(|error: PrefixError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    /// Each text is refused with a cause that holds the words and, after a semicolon, a remedy.
    #[track_caller]
    fn assert_refused<T: fmt::Debug>(
        parse: fn(&str) -> Result<T, String>,
        cases: &[(&str, &str, &str)],
    ) {
        for (text, cause, remedy) in cases {
            let message = parse(text).expect_err(text);
            let (before, after) = message.split_once("; ").expect("CAUSE; REMEDY");
            assert!(before.contains(cause), "{text}: `{cause}` is not in: {before}");
            assert!(after.contains(remedy), "{text}: `{remedy}` is not in: {after}");
            assert!(!message.contains('\n'), "{text}: more than a line: {message}");
        }
    }

    #[test]
    fn durations_are_read() {
        let cases = [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1.5s", 1500),
            ("0.001s", 1),
            ("2.0ms", 2),
            ("0.25m", 15_000),
            ("0.0000025h", 9),
            ("1000h", 3_600_000_000),
            ("0s", 0),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused() {
        assert_refused(
            duration,
            &[
                ("30", "`30` has no unit", "write 30s"),
                ("1.5", "has no unit", "write 1.5s"),
                ("", "not a duration", "such as 500ms"),
                ("s", "not a duration", "such as 500ms"),
                ("-1s", "not a duration", "such as 500ms"),
                (".5s", "not a duration", "such as 500ms"),
                ("1.s", "not a duration", "such as 500ms"),
                ("1.2.3s", "not a duration", "such as 500ms"),
                ("5 s", "` s` is not a unit", "such as 500ms"),
                ("5S", "`S` is not a unit", "such as 500ms"),
                ("1d", "`d` is not a unit", "1h"),
                ("1h30m", "`h30m` is not a unit", "1h"),
                ("5µs", "`µs` is not a unit", "500ms"),
                ("1.5ms", "finer than a millisecond", "round"),
                ("0.0001s", "finer than a millisecond", "round"),
                ("0.3333333333h", "finer than a millisecond", "round"),
                ("1000.5h", "too long", "1000h"),
                ("99999999999999999999s", "too long", "1000h"),
                ("18446744073709551615h", "too long", "1000h"),
                ("never", "not possible here", "30s"),
            ],
        );
    }

    #[test]
    fn timeouts_may_be_never_but_not_zero() {
        assert_eq!(timeout("never"), Ok(Timeout::Never));
        assert_eq!(timeout("1ms"), Ok(Timeout::After(Duration::from_millis(1))));
        assert_refused(
            timeout,
            &[
                ("0s", "0s would close every connection", "`never`"),
                ("0.0h", "would close every connection", "`never`"),
                ("30", "no unit", "30s"),
                ("NEVER", "not a duration", "30s"),
            ],
        );
    }

    #[test]
    fn cores_are_read_in_ascending_order() {
        assert_eq!(cores("0"), Ok(vec![0]));
        assert_eq!(cores("0,1"), Ok(vec![0, 1]));
        assert_eq!(cores("0-3"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(cores("4,0-1"), Ok(vec![0, 1, 4]));
        assert_eq!(cores("7-7"), Ok(vec![7]));
        assert_eq!(cores("1023"), Ok(vec![1023]));
    }

    #[test]
    fn bad_cores_are_refused() {
        assert_refused(
            cores,
            &[
                ("1,1", "CPU 1 is named twice", "once"),
                ("0-3,2", "CPU 2 is named twice", "once"),
                ("3-1", "3-1 runs backwards", "1-3"),
                ("", "not a list of CPUs", "0-3"),
                ("0,", "not a list of CPUs", "0-3"),
                ("0, 1", "not a list of CPUs", "0-3"),
                ("a", "not a list of CPUs", "0-3"),
                ("1-", "not a list of CPUs", "0-3"),
                ("-1", "not a list of CPUs", "0-3"),
                ("1-2-3", "not a list of CPUs", "0-3"),
                ("+1", "not a list of CPUs", "0-3"),
                ("1024", "no CPU 1024", "1023"),
                ("0-99999999999999999999", "no CPU 99999999999999999999", "1023"),
            ],
        );
    }

    #[test]
    fn addresses_are_read() {
        for text in ["127.0.0.1:7000", "[::1]:80", "0.0.0.0:0", "[::]:0"] {
            assert_eq!(address(text), Ok(text.parse().expect("std reads it")), "{text}");
        }
        assert_eq!(address(":7000"), Ok(SocketAddr::from(([0, 0, 0, 0], 7000))));
    }

    #[test]
    fn bad_addresses_are_refused() {
        assert_refused(
            address,
            &[
                ("127.0.0.1", "has no port", "127.0.0.1:7000"),
                ("[::1]", "has no port", "[::1]:7000"),
                ("::1", "without brackets", "[::1]:7000"),
                ("7000", "has no port, or no address", ":7000"),
                ("", "has no port, or no address", "127.0.0.1:7000"),
                ("localhost", "has no port", "IP:PORT"),
                ("127.0.0.1:", "`` in `127.0.0.1:` is not a port", "65535"),
                ("127.0.0.1:65536", "`65536` in", "65535"),
                ("127.0.0.1:http", "`http` in", "65535"),
                ("127.0.0.1:+80", "`+80` in", "65535"),
                ("2001:db8:0:0:0:0:0:1:80", "without brackets", "[2001:db8:0:0:0:0:0:1]:80"),
                ("1.2.3:80", "`1.2.3` is not an IP address", "127.0.0.1"),
                ("256.0.0.1:80", "is not an IP address", "127.0.0.1"),
                ("[::g]:80", "`[::g]` is not an IP address", "[::1]"),
                ("localhost:80", "`localhost` is a host name", "IP address"),
                ("db.example.org:5432", "host name", "IP address"),
            ],
        );
    }

    #[test]
    fn upstreams_are_addresses_and_names() {
        let read = upstreams("127.0.0.1:1,[::1]:2,db.example:5432,srv:_sip._tcp.example");
        let read = read.expect("all are well formed");
        assert_eq!(read.iter().filter_map(Query::address).count(), 2);
        assert_eq!(read[2].name(), Some("db.example"));
        assert!(read[3].is_service());
        assert_refused(
            upstreams,
            &[
                ("", "empty entry", "one comma"),
                ("a:1,,b:2", "empty entry", "one comma"),
                ("127.0.0.1:9,", "empty entry", "one comma"),
                ("127.0.0.1", "no port", "host:port"),
                ("db.example", "no port", "host:port"),
                ("127.0.0.1:0", "port 0", "from 1 to 65535"),
                ("http://db.example:1", "URL", "leave out the scheme"),
            ],
        );
    }

    #[test]
    fn counts_are_whole_and_above_zero() {
        assert_eq!(count("4096"), Ok(4096));
        assert_eq!(count("4294967295"), Ok(u32::MAX));
        assert_refused(
            count,
            &[
                ("0", "leaves nothing", "at least 1"),
                ("4294967296", "too large", "4294967295"),
                ("-1", "not a whole number", "plain digits"),
                ("+1", "not a whole number", "plain digits"),
                ("64k", "not a whole number", "plain digits"),
                ("1.5", "not a whole number", "plain digits"),
                ("", "not a whole number", "plain digits"),
            ],
        );
    }

    #[test]
    fn prefixes_are_read() {
        for text in ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"] {
            assert!(prefix(text).is_ok(), "{text}");
        }
        assert_refused(
            prefix,
            &[
                ("10.0.0.1/8", "10.0.0.1/8", "10.0.0.0/8"),
                ("10.0.0.0/33", "33", "32"),
                ("here", "`here` is not an IP address", "write addresses"),
            ],
        );
    }

    #[test]
    fn rates_are_read() {
        let cases = [("1", 1, 1), ("100", 100, 100), ("100/s", 100, 100), ("100/s:7", 100, 7)];
        for (text, per_second, burst) in cases {
            let read = rate(text).expect(text);
            assert_eq!((read.per_second(), read.burst()), (per_second, burst), "{text}");
        }
        assert_refused(
            rate,
            &[
                ("0", "a rate of 0 lets nobody in", "at least 1"),
                ("5:0", "a burst of 0 lets nobody in", "at least 1"),
                ("60/m", "`/m` is not /s", "10/s"),
                ("1000001", "more than is told apart", "at most 1000000"),
                ("fast", "`fast` is not a whole number", "1000/s"),
                ("", "not a whole number", "1000/s"),
            ],
        );
    }

    #[test]
    fn what_is_done_when_full_has_three_names() {
        assert_eq!(on_full("backlog"), Ok(OnFull::Backlog));
        assert_eq!(on_full("reject"), Ok(OnFull::Reject));
        assert_eq!(on_full("evict"), Ok(OnFull::EvictIdle));
        assert_refused(
            on_full,
            &[
                ("wait", "`wait` is not known", "backlog, reject or evict"),
                ("", "`` is not known", "backlog"),
                ("Reject", "`Reject` is not known", "reject"),
            ],
        );
    }

    #[test]
    fn placements_have_names() {
        assert_eq!(placement("round-robin"), Ok(Placement::RoundRobin));
        assert_refused(placement, &[("hash", "'hash' is no placement", "least-loaded")]);
    }
}
