//! The load generator: many connections to an echo server, every byte checked, honest latencies.
//!
//! ```text
//!   options ──Plan──> run ──phases──> work ─┬─ streams ── schedule     (connections that stay)
//!                      │                    └─ churn ──── schedule     (one for each message)
//!                      │                         │
//!                      │                    connection ── pattern      (positions; what they hold)
//!                      │                         │
//!                      │                    transport ─── tls          (a socket, or TLS over it)
//!                      │                         │
//!                      │                    dial, poll                 (the kernel)
//!                      └──tally, cpu──> report ──> text | JSON
//! ```
//! It is a closed loop (as fast as the server answers), an open loop (`--rate`: as fast as a
//! schedule says, latency from the intended start, so that a slow answer cannot hide the waiting of
//! those behind it), or churn (`--churn`: a connection for every message). Each over TCP, or over TLS (`--tls`).
//!
//! It is not an HTTP client and knows one protocol: what is sent comes back. No code of the product
//! is used, since a shared mistake would cancel out. One thread on epoll, to which a bench gives
//! one CPU; to load a server of several cores, run several.

pub mod churn;
pub mod connection;
pub mod cpu;
pub mod dial;
pub mod fault;
pub mod options;
pub mod pattern;
pub mod poll;
pub mod progress;
pub mod report;
pub mod run;
pub mod schedule;
pub mod streams;
pub mod tally;
pub mod tls;
pub mod transport;
pub mod work;
