//! `floor`: one of the bare servers that the benches measure against.
//!
//! It prints `listening on IP:PORT` and serves until it is ended by a signal. What each floor is,
//! and why there are floors at all, is told in `slipring_benches::floor`.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use slipring_benches::floor::{self, Files};
use slipring_benches::pin;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    RingEcho,
    EpollEcho,
    RingRelay,
}

impl Which {
    /// What measured best for it: see the design's tables.
    fn buffer_bytes(self) -> u32 {
        match self {
            Self::RingEcho => 16 * 1024,
            Self::EpollEcho | Self::RingRelay => 64 * 1024,
        }
    }
}

/// A bare, single-purpose server to compare with.
#[derive(Parser)]
struct Options {
    which: Which,
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where `ring-relay` dials for every client.
    #[arg(long, required_if_eq("which", "ring-relay"))]
    to: Option<SocketAddr>,
    /// Bytes of one receive buffer [default: 16384 for ring-echo, else 65536].
    #[arg(long, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    buffer: Option<u32>,
    /// Accept `ring-echo`'s clients to direct descriptors.
    #[arg(long)]
    direct: bool,
    /// The CPU to stay on.
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    if let Some(cpu) = options.cpu {
        pin::pin_to_cpu(cpu)?;
    }
    let listener = floor::listen(options.listen)?;
    let buffer_bytes = options.buffer.unwrap_or_else(|| options.which.buffer_bytes());
    let files = if options.direct { Files::Slots } else { Files::Descriptors };
    match (options.which, options.to) {
        (Which::RingEcho, _) => floor::ring_echo(&listener, buffer_bytes, files),
        _ if options.direct => Err(std::io::Error::other("only ring-echo has --direct")),
        (Which::EpollEcho, _) => floor::epoll_echo(&listener, buffer_bytes),
        (Which::RingRelay, Some(to)) => floor::ring_relay(&listener, to, buffer_bytes),
        (Which::RingRelay, None) => Err(std::io::Error::other("ring-relay needs --to")),
    }
}
