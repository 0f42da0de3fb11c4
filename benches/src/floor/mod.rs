//! The floors: bare, single-purpose servers that a product cannot beat by much.
//!
//! Each does one thing with as little as the kernel allows: no handler, no timers, no limits beyond
//! those that keep memory bounded, no statistics. They are what the rows of `docs/performance.md`
//! are ratios of. They are not a second runtime: nothing here is configurable but what a bench
//! turns, and no code of the product may be used here (a shared mistake would cancel out).
//!
//! ```text
//!   ring-echo    accept* ─ receive* ─ CQE: one SEND of the same buffer ─ buffer back at its CQE
//!                (--direct: accepted to slots of the ring's own table, not to descriptors)
//!   epoll-echo   epoll_wait ─ one read, one write an event
//!   ring-relay   accept* ─ connect ─ receive* on both ─ a turn's leases: one vectored send
//! ```
//! (`*`: multishot.) They are honest servers all the same, byte exact with short sends, exhausted
//! buffers and readers that stop reading, because a floor that loses data measures nothing.

mod buffers;
mod epoll_echo;
mod ring;
mod ring_echo;
mod ring_relay;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

pub use epoll_echo::epoll_echo;
pub use ring::Files;
pub use ring_echo::ring_echo;
pub use ring_relay::ring_relay;

/// Descriptors a floor expects at most; its tables are indexed by descriptor and sized to this.
const DESCRIPTORS_MAX: usize = 20_000;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 4096;

/// A listening socket, announced on standard output as the benches expect it.
///
/// Accepted sockets inherit `TCP_NODELAY` from it.
///
/// # Errors
/// What the socket calls answer, such as an address in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let mut out = io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    Ok(listener)
}
