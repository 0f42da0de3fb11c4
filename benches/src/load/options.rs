//! The command line of `load`, and what a run is once it has been understood.
//!
//! Is: text in, a [`Plan`] out, whose fields fit together and are bounded, so that nothing behind
//! it checks them again. Is not: a judge of the machine or the server; their refusals come when the
//! run starts, in the same form: one line, the cause; the remedy.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use clap::Parser;

use super::tls::Handshakes;

/// Connections of a run: what one thread can drive, and loopback has descriptors for.
const CONNECTIONS_MAX: u64 = 20_000;
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
const DEPTH_MAX: u64 = 4096;
/// Messages a second; a faster schedule than any loop can follow.
const RATE_MAX: f64 = 1e7;
/// No run is without an end.
const SECONDS_MAX: f64 = 86_400.0;

/// Loads an echo server, and measures it.
///
/// Every byte that comes back is checked. Ends with 0 when all was well, 1 when anything was wrong
/// with the answers, 2 when the load could not start.
#[derive(Parser, Debug)]
#[command(name = "load", args_override_self = true)]
struct Arguments {
    /// The echo server: IP:PORT or HOST:PORT
    #[arg(value_name = "ADDR", value_parser = addresses)]
    addresses: Addresses,

    /// Connections at a time
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX)
    )]
    connections: u64,

    /// Bytes of a message, up to 64 MiB
    #[arg(
        long, value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=MESSAGE_BYTES_MAX)
    )]
    size: u64,

    /// How long to measure
    #[arg(long, value_name = "S", value_parser = time, allow_negative_numbers = true)]
    seconds: Duration,

    /// Open loop: messages (with --churn: connections) a second, all together. Latency counts from
    /// the instant a message was due
    #[arg(long, value_name = "R", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<f64>,

    /// A new connection for every message: connect, echo, shutdown, wait for the peer's end
    #[arg(long)]
    churn: bool,

    /// TLS 1.3 with AES-128-GCM, whoever the server is: its certificate is not verified. With --churn, a full handshake
    /// for every connection
    #[arg(long)]
    tls: bool,

    /// With --tls and --churn: sessions are resumed, by the tickets of the connections before
    #[arg(long, requires_all = ["tls", "churn"])]
    resume: bool,

    /// Messages a connection has in flight at most
    #[arg(
        long, value_name = "D", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX)
    )]
    depth: u64,

    /// Load before the measurement, which no figure includes
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = time_or_zero)]
    warmup: Duration,

    /// A message that takes longer is an error, and ends its connection
    #[arg(long, value_name = "S", default_value = "10", value_parser = time)]
    timeout: Duration,

    /// The server's process, to report the CPU time it takes a message
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,

    /// The CPU to stay on
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,

    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
}

/// A run that is understood: what to load, how, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server may be; the first that answers is loaded.
    pub addresses: Vec<SocketAddr>,
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of a message.
    pub message_bytes: u64,
    /// Messages a connection has in flight at most.
    pub depth: u64,
    /// A new connection for every message.
    pub churn: bool,
    /// TLS, and with which handshakes; `None` without.
    pub tls: Option<Handshakes>,
    /// Messages a second in an open loop; a closed loop has none.
    pub rate: Option<f64>,
    /// Load before the measurement.
    pub warmup: Duration,
    /// How long to measure.
    pub measured: Duration,
    /// What a message may take.
    pub timeout: Duration,
    /// Whose CPU time to sample.
    pub server_pid: Option<u32>,
    /// The CPU to stay on.
    pub cpu: Option<usize>,
    /// One line of JSON instead of text.
    pub json: bool,
}

/// Why a run does not start: one line, the cause; the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(String);

/// Why there is no plan.
#[derive(Debug)]
pub enum NoPlan {
    /// Help was asked for; this is it.
    Help(String),
    /// The command line is wrong.
    Refused(Refusal),
}

/// (An alias, because clap reads a `Vec` as "may be repeated".)
type Addresses = Vec<SocketAddr>;

impl Plan {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// When it is wrong, or asks for help.
    pub fn parse(command_line: impl IntoIterator<Item = String>) -> Result<Self, NoPlan> {
        let given = Arguments::try_parse_from(command_line).map_err(|error| {
            let text = error.to_string();
            if error.use_stderr() { NoPlan::Refused(one_line(&text)) } else { NoPlan::Help(text) }
        })?;
        if given.churn && given.depth > 1 {
            let text = "--churn sends one message a connection; leave out --depth";
            return Err(NoPlan::Refused(Refusal::new(text)));
        }
        Ok(Self {
            addresses: given.addresses,
            connections: given.connections as usize,
            message_bytes: given.size,
            depth: given.depth,
            churn: given.churn,
            tls: given.tls.then_some(match given.resume {
                false => Handshakes::Full,
                true => Handshakes::Resumed,
            }),
            rate: given.rate,
            warmup: given.warmup,
            measured: given.seconds,
            timeout: given.timeout,
            server_pid: given.server_pid,
            cpu: given.cpu,
            json: given.json,
        })
    }

    /// How the load is made, in one word.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        match (self.churn, self.rate) {
            (true, _) => "churn",
            (false, None) => "closed",
            (false, Some(_)) => "open",
        }
    }
}

impl Refusal {
    /// A refusal of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What clap says before it shows the usage, without its line breaks.
fn one_line(text: &str) -> Refusal {
    let cause = text.split("\n\n").next().unwrap_or(text).trim_start_matches("error: ");
    let words: Vec<&str> = cause.split_whitespace().collect();
    Refusal::new(format!("{}; see load --help", words.join(" ")))
}

fn addresses(text: &str) -> Result<Addresses, String> {
    match text.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(format!("{error}, want IP:PORT or HOST:PORT")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(format!("want a number above 0, up to {RATE_MAX}")),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match time_or_zero(text) {
        Ok(time) if time.is_zero() => Err("want more than 0".to_owned()),
        time => time,
    }
}

fn time_or_zero(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!("want seconds up to {SECONDS_MAX}, such as 2 or 0.5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "127.0.0.1:7 --connections 3 --size 64 --seconds 0.25";

    fn parse(arguments: &str) -> Result<Plan, NoPlan> {
        let words = std::iter::once("load").chain(arguments.split_whitespace());
        Plan::parse(words.map(str::to_owned))
    }

    fn refusal(arguments: &str) -> String {
        match parse(arguments) {
            Err(NoPlan::Refused(refusal)) => refusal.to_string(),
            other => panic!("{arguments}: {other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let plan = parse(GOOD).expect("it is complete");
        assert_eq!((plan.connections, plan.message_bytes, plan.depth), (3, 64, 1));
        assert_eq!(plan.measured, Duration::from_millis(250));
        assert_eq!(plan.warmup, Duration::from_millis(500));
        assert_eq!((plan.mode(), plan.timeout), ("closed", Duration::from_secs(10)));
        let plan = parse(&format!("{GOOD} --warmup 0 --rate 10 --churn")).expect("it is complete");
        assert_eq!((plan.mode(), plan.rate, plan.warmup), ("churn", Some(10.0), Duration::ZERO));
        assert_eq!(plan.tls, None);
        for (further, handshakes) in [("", Handshakes::Full), (" --resume", Handshakes::Resumed)] {
            let plan = parse(&format!("{GOOD} --churn --tls{further}")).expect("it is complete");
            assert_eq!(plan.tls, Some(handshakes));
        }
    }

    #[test]
    fn bad_input_is_refused_in_one_line() {
        for bad in [
            "",
            "nowhere --connections 1 --size 1 --seconds 1",
            "127.0.0.1:7 --connections 0 --size 1 --seconds 1",
            "127.0.0.1:7 --connections 1 --size 67108865 --seconds 1",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 0",
            "127.0.0.1:7 --connections 1 --size 1 --seconds NaN",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 1e9",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 1 --rate 0",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 1 --rate -3",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 1 --churn --depth 2",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 1 --verbose",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 1 --tls --resume",
            "127.0.0.1:7 --connections 1 --size 1 --seconds 1 --churn --resume",
        ] {
            let text = refusal(bad);
            assert!(text.contains("; ") && !text.contains('\n'), "{bad}: {text}");
        }
        assert!(refusal("127.0.0.1:7").contains("--connections"));
    }

    #[test]
    fn help_is_not_a_refusal() {
        assert!(matches!(parse("--help"), Err(NoPlan::Help(text)) if text.contains("--rate")));
    }
}
