//! The kinds of [`Error`](super::Error), a family for each phase, and what each says of itself.
//!
//! `Display` gives the cause, and behind a semicolon the remedy where the user has one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{CloseReason, Fault};

use super::{Error, Phase, Side, Traffic};
use crate::policy::pool::PoolSnapshot;

/// A name came to no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Resolve {
    /// There is no such name (NXDOMAIN).
    #[error("there is no such name; check its spelling and the search list of the resolver")]
    NotFound,
    /// The name exists and has no address (NODATA).
    #[error("the name has no address")]
    NoAddress,
    /// The name server failed (SERVFAIL), or refused to answer.
    #[error("the name server failed")]
    ServerFailure,
    /// No name server answered in time.
    #[error("no name server answered in time")]
    Timeout,
    /// All addresses lie in loopback or private ranges, and the upstream was declared public.
    #[error(
        "the name of a public upstream led to loopback or private addresses only; declare the upstream private if that \
         is meant"
    )]
    NotPublic,
}

/// A connection was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dial {
    /// Nobody answered in time.
    #[error("connect timeout: nobody answered")]
    Timeout,
    /// Nobody listens there (ECONNREFUSED).
    #[error("connection refused: nobody listens there")]
    Refused,
    /// The host forbids it (EACCES, EPERM): a firewall's rule, as a rule.
    #[error("the host forbids to connect there; see its firewall")]
    Denied,
    /// There is no way there (EHOSTUNREACH, ENETUNREACH).
    #[error("there is no route to it")]
    Unreachable,
    /// The addresses to come from are given, and none is of the family of the address to go to.
    #[error("no source address is of its family; add one (ConnectorBuilder::sources)")]
    NoSource,
    /// The kernel ended it otherwise.
    #[error("connecting failed: {0}")]
    Failed(Fault),
    /// The reactor ended it: it is draining, or its ring has failed.
    #[error("connecting was given up: {0}")]
    GivenUp(CloseReason),
}

/// TLS could not be negotiated, or was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Tls {
    /// The handshake was not done in time.
    #[error("the TLS handshake was not done in time")]
    Timeout,
    /// The peer's certificate is not one that we trust.
    #[error("the peer's certificate is not trusted")]
    PeerCert,
    /// The peer's certificate is for another name.
    #[error("the peer's certificate is for another name")]
    NameMismatch,
    /// The peer wants a certificate of ours, and has got none that it takes.
    #[error("the peer wants a client certificate")]
    ClientCertRequired,
    /// The peer refused with an alert.
    #[error("the peer ended TLS with an alert")]
    Alert,
    /// What came was not TLS, or broke its rules.
    #[error("the peer does not keep to TLS")]
    Protocol,
    /// The stream ended without its announcement: some of it may be missing.
    #[error("the stream was cut off: its end was not announced")]
    Truncated,
}

/// A PROXY header did not come as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// There was none.
    #[error("no PROXY header came")]
    Missing,
    /// It was none that can be read.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// It came from somebody who is not trusted to send one.
    #[error("a PROXY header came from an untrusted source")]
    Untrusted,
    /// It was not there in time.
    #[error("the PROXY header was not there in time")]
    Timeout,
}

/// One of our limits, or rules, kept it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Admit {
    /// That of the process, or of an upstream.
    #[error("as many connections as the process may have")]
    ProcessLimit,
    /// That of the listener.
    #[error("as many connections as the listener may have")]
    ListenerLimit,
    /// That of one source.
    #[error("as many connections as one source may have")]
    SourceLimit,
    /// That of new connections in a second.
    #[error("more new connections than the rate allows")]
    RateLimit,
    /// As many as the upstream may have.
    #[error("as many connections as the upstream may have (limit {limit})")]
    UpstreamLimit {
        /// How many that is.
        limit: u32,
    },
    /// As many as may wait for the upstream.
    #[error("as many requests wait for the upstream as may (limit {limit})")]
    PendingLimit {
        /// How many that is.
        limit: u32,
    },
    /// The list of addresses forbids it.
    #[error("forbidden by the access list")]
    AclDenied,
    /// The reactor has too much to do.
    #[error("shed: the reactor has too much to do")]
    Overloaded,
}

/// The machine ran out of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Resource {
    /// Descriptors of the process (EMFILE).
    #[error("the process is out of descriptors; raise its limit (ulimit -n)")]
    FdProcess,
    /// Descriptors of the host (ENFILE).
    #[error("the host is out of descriptors; raise fs.file-max")]
    FdSystem,
    /// Memory of the kernel (ENOMEM).
    #[error("the kernel is out of memory")]
    Memory,
    /// Local ports (EADDRNOTAVAIL).
    #[error(
        "no local port is free; keep connections instead of dialing each time, widen net.ipv4.ip_local_port_range or \
         add source addresses"
    )]
    EphemeralPorts,
}

/// A pool had no connection to give.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Checkout {
    /// As many wait already as may.
    #[error("the pool is saturated: {0}")]
    Saturated(PoolSnapshot),
    /// None was free in time.
    #[error("no connection was free in time: {snapshot}{}", Because(last_dial_error.as_deref()))]
    Timeout {
        /// The pool, at that moment.
        snapshot: PoolSnapshot,
        /// Why the last dial failed, if one did since the last that went well.
        last_dial_error: Option<Arc<Error>>,
    },
}

/// The end of a sentence about a pool.
struct Because<'a>(Option<&'a Error>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(error) => write!(f, "; its last dial failed: {error}"),
            None => Ok(()),
        }
    }
}

/// Bytes were under way, and their connection came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Transfer {
    /// Nothing came within the read deadline.
    #[error("read timeout: nothing came")]
    ReadTimeout,
    /// The peer took none of our bytes.
    #[error("write stall: the peer took no bytes")]
    WriteStall,
    /// The peer's host acknowledged nothing (TCP_USER_TIMEOUT), or answered no keep-alive probe.
    #[error("the peer's host does not answer any more")]
    PeerUnresponsive,
    /// A kept connection was reset before a byte of the reply: its peer had given it up meanwhile.
    #[error("a kept connection had been given up by its peer")]
    StaleReuse,
    /// A fresh connection was reset before a byte of the reply.
    #[error("reset before the reply")]
    ResetEarly,
    /// It was reset amidst the reply.
    #[error("reset amidst the reply")]
    Reset,
    /// The stream ended before what was expected of it had come.
    #[error("the stream ended too early")]
    UnexpectedEof,
    /// More bytes at once than can ever wait to be sent; nothing of them was taken.
    #[error("more bytes at once than an outbox may hold; cut them, as `send_all` does")]
    TooLarge,
    /// It moved no byte for the idle timeout.
    #[error("idle for too long")]
    IdleTimeout,
    /// We ended it ourselves: who held it aborted or closed it, or its task panicked.
    #[error("ended by us: {0}")]
    Ended(CloseReason),
}

/// The upstream has nobody to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Upstream {
    /// It has no endpoint at all.
    #[error("the upstream has no endpoint")]
    Empty,
    /// None of its endpoints is healthy, or all have been tried.
    #[error("none of the upstream's {endpoints} endpoints is healthy")]
    NoneHealthy {
        /// How many it has.
        endpoints: u32,
    },
}

/// The upstream's breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breaker {
    /// Too many calls failed. Until this time on the runtime's clock nothing is tried.
    #[error("the breaker is open: too many calls failed; the next is tried at {:.3} s", until.as_secs_f64())]
    Open {
        /// When it lets somebody try.
        until: Duration,
    },
}

/// The runtime ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Drain {
    /// Nothing new is begun.
    #[error("the runtime is draining: nothing new is begun")]
    Refusing,
}

/// A retry was called for, and not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Retry {
    /// The upstream has had as many retries as it may lately.
    #[error("the retry budget is empty")]
    BudgetExhausted,
}

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// A name came to no address.
    #[error("{0}")]
    Resolve(#[from] Resolve),
    /// A connection was not established.
    #[error("{0}")]
    Dial(#[from] Dial),
    /// TLS could not be negotiated, or was cut off.
    #[error("{0}")]
    Tls(#[from] Tls),
    /// A PROXY header did not come as it should.
    #[error("{0}")]
    ProxyHeader(#[from] ProxyHeader),
    /// One of our limits, or rules, kept it out.
    #[error("{0}")]
    Admit(#[from] Admit),
    /// The machine ran out of something.
    #[error("{0}")]
    Resource(#[from] Resource),
    /// A pool had no connection to give.
    #[error("{0}")]
    Checkout(#[from] Checkout),
    /// Bytes were under way, and their connection came to an end.
    #[error("{0}")]
    Transfer(#[from] Transfer),
    /// The upstream has nobody to go to.
    #[error("{0}")]
    Upstream(#[from] Upstream),
    /// The upstream's breaker is open.
    #[error("{0}")]
    Breaker(#[from] Breaker),
    /// The runtime ends.
    #[error("{0}")]
    Drain(#[from] Drain),
    /// A retry was called for, and not made.
    #[error("{0}")]
    Retry(#[from] Retry),
}

impl Kind {
    /// What was being done when such a thing happens, as a rule.
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Resolve(_) => Phase::Resolve,
            Self::Dial(_) | Self::Resource(_) => Phase::Dial,
            Self::Tls(Tls::Truncated) | Self::Transfer(_) => Phase::Transfer,
            Self::Tls(_) => Phase::TlsHandshake,
            Self::ProxyHeader(_) => Phase::ProxyHeader,
            Self::Admit(_) | Self::Upstream(_) | Self::Breaker(_) | Self::Retry(_) => Phase::Admit,
            Self::Checkout(_) => Phase::Checkout,
            Self::Drain(_) => Phase::Drain,
        }
    }

    /// Whose doing it is, as a rule.
    pub(super) fn side(&self) -> Side {
        match self {
            Self::Resolve(_) | Self::Tls(_) => Side::Upstream,
            Self::Dial(Dial::Denied | Dial::NoSource | Dial::GivenUp(_)) => Side::Local,
            Self::Transfer(Transfer::TooLarge | Transfer::IdleTimeout | Transfer::Ended(_)) => {
                Side::Local
            }
            Self::Dial(_) | Self::Transfer(_) | Self::Upstream(_) => Side::Upstream,
            Self::ProxyHeader(_) => Side::Downstream,
            Self::Admit(_)
            | Self::Resource(_)
            | Self::Checkout(_)
            | Self::Breaker(_)
            | Self::Drain(_)
            | Self::Retry(_) => Side::Local,
        }
    }

    /// What the end of an upstream's connection means for what was under way on it.
    pub(super) fn of_close(reason: CloseReason, traffic: Traffic) -> Self {
        let reset = || match traffic {
            Traffic { bytes_received: 1.., .. } => Transfer::Reset,
            Traffic { is_reused: true, .. } => Transfer::StaleReuse,
            _ => Transfer::ResetEarly,
        };
        match reason {
            CloseReason::DialTimeout | CloseReason::DialFailed(Fault::TimedOut) => {
                Dial::Timeout.into()
            }
            CloseReason::DialFailed(fault) => Self::of_dial(fault),
            CloseReason::Reset | CloseReason::Transport(Fault::Reset | Fault::BrokenPipe) => {
                reset().into()
            }
            CloseReason::Transport(Fault::TimedOut) => Transfer::PeerUnresponsive.into(),
            CloseReason::Transport(Fault::Memory) => Resource::Memory.into(),
            CloseReason::Transport(_) => reset().into(),
            // A request was under way, and its reply had not come whole.
            CloseReason::PeerClosed if traffic.is_reused && traffic.bytes_received == 0 => {
                Transfer::StaleReuse.into()
            }
            CloseReason::PeerClosed => Transfer::UnexpectedEof.into(),
            CloseReason::WriteStall => Transfer::WriteStall.into(),
            CloseReason::IdleTimeout => Transfer::IdleTimeout.into(),
            CloseReason::HalfClosedTimeout | CloseReason::PhaseTimeout => {
                Transfer::ReadTimeout.into()
            }
            reason => Transfer::Ended(reason).into(),
        }
    }

    fn of_dial(fault: Fault) -> Self {
        match fault {
            Fault::Refused => Dial::Refused.into(),
            Fault::Denied => Dial::Denied.into(),
            Fault::Unreachable => Dial::Unreachable.into(),
            Fault::AddressUnavailable => Resource::EphemeralPorts.into(),
            Fault::DescriptorsOfProcess => Resource::FdProcess.into(),
            Fault::DescriptorsOfHost => Resource::FdSystem.into(),
            Fault::Memory => Resource::Memory.into(),
            fault => Dial::Failed(fault).into(),
        }
    }
}
