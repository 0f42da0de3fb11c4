//! The command lines of the binaries: what all of them understand, and how they refuse.
//!
//! Is: the options all servers have ([`SharedOptions`]), and the one way out on bad input. Is not: a judge of
//! what fits together or of what the machine has; limits are checked where they are known, by the runtime, when
//! it starts. `cli/values.rs` reads what stands behind an option.
//!
//! ```text
//! text -> duration | timeout | cores | address | addresses | count | placement | prefix | rate | on_full -> value
//!      -> Err("CAUSE; REMEDY") -> clap -> parse -> one line on stderr, exit code 2
//! ```
//!
//! Why no default values in here: servers differ in them, so an option left out is `None`.

mod values;

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
pub use slipring::Timeout;
use slipring::policy::balancer::Algorithm;
use slipring::tls::{Identity, TlsServer};
use slipring::{OnFull, Placement, Prefix, Rate};

pub use values::{
    Cores, Upstreams, address, connect_timeout, cores, count, duration, interval, on_full,
    placement, prefix, rate, timeout, upstreams,
};

/// The exit code for everything the caller can put right: bad input, a taken port, limits too low,
/// a kernel or a container that forbids io_uring.
pub const EXIT_REFUSED: i32 = 2;

/// The command line of a server that has no options of its own.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where to listen, `IP:PORT`; port 0 takes a free one. May be given several times
    /// [default: 127.0.0.1:7000]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Vec<SocketAddr>,

    /// TLS, if it is wanted.
    #[command(flatten)]
    pub tls: TlsOptions,

    /// What all servers have.
    #[command(flatten)]
    pub shared: SharedOptions,
}

/// The certificate of a server, if it serves TLS.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Serve TLS, with the certificate in this file (PEM; then those of its issuers). `dev-cert` makes one to try
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl TlsOptions {
    /// What is to be served by TLS, if it is, by one of these application protocols (ALPN). Ends the process if it
    /// cannot be.
    #[must_use]
    pub fn server(&self, protocols: &[&str]) -> Option<TlsServer> {
        let (certificate, key) = (self.tls_cert.as_ref()?, self.tls_key.as_ref()?);
        let server = Identity::from_files(certificate, key)
            .and_then(|identity| TlsServer::builder().identity(identity).alpn(protocols).build());
        Some(server.unwrap_or_else(|error| fail(error)))
    }
}

impl ServerOptions {
    /// Where to listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self.listen.as_slice() {
            [] => vec![SocketAddr::from(([127, 0, 0, 1], 7000))],
            some => some.to_vec(),
        }
    }
}

/// The options all servers have.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedOptions {
    /// CPUs to run a reactor on, such as `0`, `0,2` or `0-3` [default: all the process may use]
    #[arg(long, value_name = "LIST", value_parser = cores)]
    pub cores: Option<Cores>,

    /// Accepted connections at once, over all cores; what becomes of clients beyond, --on-full says
    /// [default: 16384, or what the limit of descriptors has room for]
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_connections: Option<u32>,

    /// Close a connection that moved no byte for this long: `500ms`, `30s`, `5m`, `1h` or `never`
    /// [default: 60s, proxy 1h]
    #[arg(long, value_name = "DUR|never", value_parser = timeout)]
    pub idle_timeout: Option<Timeout>,

    /// Reset a client that has sent no byte this long after it was accepted: `500ms`, `30s` or `never`. For a
    /// proxy the time it takes to connect to the upstream counts [default: never]
    #[arg(long, value_name = "DUR|never", value_parser = timeout)]
    pub first_byte_timeout: Option<Timeout>,

    /// How long open connections may go on after SIGTERM or SIGINT [default: 30s]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub drain_deadline: Option<Duration>,

    /// For how long of that time clients are still let in: load balancers need a moment to send them elsewhere
    /// [default: 0s]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub not_ready: Option<Duration>,

    /// What an idle reactor does before it sleeps [default: off]
    #[arg(long, value_enum, value_name = "off|adaptive|always", hide_possible_values = true)]
    pub poll: Option<Poll>,

    /// Receive buffers per reactor, a power of two [default: the library's]
    #[arg(long, value_name = "N", value_parser = count)]
    pub buffers: Option<u32>,

    /// Bytes of each receive buffer [default: the library's]
    #[arg(long, value_name = "BYTES", value_parser = count)]
    pub buffer_size: Option<u32>,

    /// Which reactor a client goes to: `kernel` (a hash), `cpu` (of the CPU that received it),
    /// `least-loaded` or `round-robin` [default: least-loaded]
    #[arg(long, value_name = "POLICY", value_parser = placement)]
    pub placement: Option<Placement>,

    /// Clients may come from here, `CIDR[,CIDR...]`, and from nowhere else, unless --deny has a longer prefix;
    /// others are reset. May be given several times [default: from anywhere]
    #[arg(long, value_name = "CIDR", value_parser = prefix, value_delimiter = ',')]
    pub allow: Vec<Prefix>,

    /// Clients from here are reset, `CIDR[,CIDR...]`, unless --allow has a longer prefix. May be given several
    /// times [default: nobody]
    #[arg(long, value_name = "CIDR", value_parser = prefix, value_delimiter = ',')]
    pub deny: Vec<Prefix>,

    /// Connections of one source at once, an IPv4 address or an IPv6 /64, over all cores; those beyond are
    /// reset [default: no limit]
    #[arg(long, value_name = "N", value_parser = count)]
    pub per_source: Option<u32>,

    /// Clients let in a second, over all cores, `R`, `R/s` or, with another burst than a second's worth,
    /// `R:BURST`; those who come sooner wait in the kernel's backlog [default: no limit]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub accept_rate: Option<Rate>,

    /// What becomes of a client for whom there is no place: it waits in the kernel's `backlog`, `reject` resets
    /// it, `evict` closes the connection that has been idle for longest [default: backlog]
    #[arg(long, value_name = "backlog|reject|evict", value_parser = on_full)]
    pub on_full: Option<OnFull>,

    /// Keep accepted connections in tables of the rings, one for each core, whose places do not count against the
    /// limit of descriptors: each may have as many as that. No quicker; Linux 6.13 or newer
    #[arg(long)]
    pub direct_descriptors: bool,

    /// Show a table on stderr once a second, a row for each reactor
    #[arg(long)]
    pub stats: bool,
}

/// Which endpoint of an upstream a client goes to.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The one of two with fewer clients.
    P2c,
    /// In turn.
    RoundRobin,
    /// Any.
    Random,
    /// The one of two that connects faster.
    Ewma,
    /// The same for the same client address.
    Maglev,
}

impl From<Balance> for Algorithm {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::P2c => Self::LeastOfTwo,
            Balance::RoundRobin => Self::RoundRobin,
            Balance::Random => Self::Random,
            Balance::Ewma => Self::Ewma,
            Balance::Maglev => Self::Maglev,
        }
    }
}

/// What a reactor does when it has nothing to do.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Sleep at once.
    Off,
    /// Look at the completion queue for a moment first, when that has paid lately.
    Adaptive,
    /// Never sleep: one CPU per reactor at 100 %.
    Always,
}

impl From<Poll> for slipring::Poll {
    fn from(poll: Poll) -> Self {
        match poll {
            Poll::Off => Self::Off,
            Poll::Adaptive => Self::Adaptive,
            Poll::Always => Self::Always,
        }
    }
}

// ------------------------------------------------------------------------------------ the way out

/// Reads the process's command line. `--help` and `--version` print and exit with 0; anything wrong
/// is one line on stderr and exit code 2.
#[must_use]
pub fn parse<P: Parser>() -> P {
    P::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            fail(one_line(&error));
        }
        error.exit()
    })
}

/// Ends the process with exit code 2 and the line `error: MESSAGE` on stderr.
///
/// The message is `CAUSE; REMEDY`. Line breaks in it become spaces: one line is the contract.
pub fn fail(message: impl fmt::Display) -> ! {
    let line = joined(&message.to_string());
    // Nobody may be there to read it, and there is nowhere else to say so.
    let _ = writeln!(std::io::stderr(), "error: {line}");
    std::process::exit(EXIT_REFUSED)
}

/// clap's refusal without its `error: `, its usage block and its line breaks.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(joined);
    let first = paragraphs.next().unwrap_or_default();
    let cause = first.strip_prefix("error: ").unwrap_or(&first);
    match paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned)) {
        Some(tip) => format!("{cause}; {tip}"),
        // The refusals of this file bring their own remedy.
        None if cause.contains("; ") => cause.to_owned(),
        None => format!("{cause}; see --help"),
    }
}

fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A binary's command line, as `proxy` has one.
    #[derive(Parser, Debug)]
    #[command(name = "proxy", version)]
    struct Proxy {
        #[arg(long, value_name = "ADDR", value_parser = address)]
        listen: Vec<SocketAddr>,
        #[arg(long, value_name = "ADDR[,ADDR...]", value_parser = upstreams, requires = "listen")]
        to: Option<Upstreams>,
        #[command(flatten)]
        common: SharedOptions,
    }

    fn proxy(arguments: &str) -> Result<Proxy, clap::Error> {
        Proxy::try_parse_from(["proxy"].into_iter().chain(arguments.split_whitespace()))
    }

    #[test]
    fn an_empty_command_line_leaves_everything_to_the_binary() {
        let proxy = proxy("").expect("nothing is required");
        assert_eq!(proxy.common, SharedOptions::default());
        assert_eq!((proxy.listen, proxy.to), (vec![], None));
    }

    #[test]
    fn every_option_arrives() {
        let proxy = proxy(
            "--listen :1 --listen [::1]:2 --to 127.0.0.1:3,127.0.0.1:4 --cores 0-1 \
             --max-connections 100 --idle-timeout never --first-byte-timeout 5s --drain-deadline 9s --not-ready 5s \
             --poll always \
             --buffers 64 --buffer-size 16384 --placement cpu --stats --allow 10.0.0.0/8,::1 \
             --deny 10.1.0.0/16 --per-source 3 --accept-rate 100/s:20 --on-full evict --direct-descriptors",
        )
        .expect("all of it is well formed");
        assert_eq!(proxy.listen.len(), 2);
        assert_eq!(proxy.to.map(|to| to.len()), Some(2));
        let common = SharedOptions {
            cores: Some(vec![0, 1]),
            max_connections: Some(100),
            idle_timeout: Some(Timeout::Never),
            first_byte_timeout: Some(Timeout::seconds(5)),
            drain_deadline: Some(Duration::from_secs(9)),
            not_ready: Some(Duration::from_secs(5)),
            poll: Some(Poll::Always),
            buffers: Some(64),
            buffer_size: Some(16384),
            placement: Some(Placement::Cpu),
            stats: true,
            allow: vec!["10.0.0.0/8".parse().expect("a prefix"), "::1".parse().expect("a prefix")],
            deny: vec!["10.1.0.0/16".parse().expect("a prefix")],
            per_source: Some(3),
            accept_rate: Some(Rate::with_burst(100, 20).expect("a rate")),
            on_full: Some(OnFull::EvictIdle),
            direct_descriptors: true,
        };
        assert_eq!(proxy.common, common);
    }

    #[test]
    fn refusals_are_one_line_with_cause_and_remedy() {
        let cases = [
            (
                "--idle-timeout 30",
                "invalid value '30' for '--idle-timeout <DUR|never>': `30` has no unit; write 30s \
                 for seconds",
            ),
            ("--cores 3-1", "the range 3-1 runs backwards; write 1-3"),
            (
                "--accept-rate 0",
                "invalid value '0' for '--accept-rate <R>': a rate of 0 lets nobody in; write at least 1",
            ),
            ("--on-full wait", "`wait` is not known; write backlog, reject or evict"),
            ("--poll hard", "[possible values: off, adaptive, always]; see --help"),
            ("--lisen :1", "unexpected argument '--lisen' found; a similar argument exists"),
            (
                "--to 127.0.0.1:3",
                "required arguments were not provided: --listen <ADDR>; see --help",
            ),
            (
                "--cores",
                "a value is required for '--cores <LIST>' but none was supplied; see --help",
            ),
            ("--buffers 1 --buffers 2", "cannot be used multiple times; see --help"),
        ];
        for (arguments, expected) in cases {
            let error = proxy(arguments).expect_err(arguments);
            let line = one_line(&error);
            assert!(line.contains(expected), "{arguments}: {line}");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
            assert_eq!(error.exit_code(), EXIT_REFUSED);
        }
    }

    #[test]
    fn help_is_no_refusal_and_states_the_defaults() {
        let error = proxy("--help").expect_err("clap hands help over as an error");
        assert!(!error.use_stderr());
        let help = joined(&error.to_string());
        for words in ["--cores <LIST>", "60s, proxy 1h", "30s]", "off]", "all the process"] {
            assert!(help.contains(words), "`{words}` is not in:\n{help}");
        }
    }
}
