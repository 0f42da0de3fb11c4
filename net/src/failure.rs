//! What went wrong between us and an upstream, in one type.
//!
//! ```
//! use slipring::failure::{Dial, Kind, Traffic};
//! use slipring::{CloseReason, Error, Fault, Idempotency};
//!
//! // Nobody listens: nothing was sent, so anybody may try elsewhere, at once.
//! let refused = Error::of_close(CloseReason::DialFailed(Fault::Refused), Traffic::default());
//! assert!(matches!(refused.kind(), Kind::Dial(Dial::Refused)));
//! assert!(refused.retry(Idempotency::ConnectOnly).is_allowed());
//! assert_eq!(refused.label(), "refused");
//!
//! // A kept connection was reset before a byte of the reply: most likely the peer had closed it already.
//! let traffic = Traffic { bytes_sent: 100, is_reused: true, ..Traffic::default() };
//! let stale = Error::of_close(CloseReason::Reset, traffic);
//! assert!(stale.retry(Idempotency::Idempotent).is_allowed());
//! assert!(!stale.retry(Idempotency::ConnectOnly).is_allowed(), "it may have been carried out");
//! ```
//!
//! Is: [`Error`], the [`Kind`]s it comes in (`failure/kinds.rs`), and what follows from one: whether it may be retried,
//! whether a breaker counts it, its label (`failure/verdicts.rs`). None of these is stored: they are functions of the
//! kind, the phase and the bytes. Is not: why a *connection* ended, which is a [`CloseReason`]; it becomes an error by
//! what was under way on it ([`Error::of_close`]).

mod kinds;
mod verdicts;

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{CloseReason, Fault};

pub use kinds::{
    Admit, Breaker, Checkout, Dial, Drain, Kind, ProxyHeader, Resolve, Resource, Retry, Tls,
    Transfer, Upstream,
};
pub use verdicts::{Idempotency, Never, Repeat};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A name was looked up.
    Resolve,
    /// A connection was being established.
    Dial,
    /// TLS was being negotiated.
    TlsHandshake,
    /// A PROXY header was being sent or awaited.
    ProxyHeader,
    /// It was decided whether to begin at all.
    Admit,
    /// A connection of a pool was being waited for.
    Checkout,
    /// Bytes were under way.
    Transfer,
    /// The connection was being ended.
    Close,
    /// The runtime was draining.
    Drain,
}

impl Phase {
    /// As a part of an error's line.
    fn words(self) -> &'static str {
        match self {
            Self::Resolve => "looking up its name",
            Self::Dial => "connecting",
            Self::TlsHandshake => "in the TLS handshake",
            Self::ProxyHeader => "at the PROXY header",
            Self::Admit => "before it began",
            Self::Checkout => "waiting for a connection",
            Self::Transfer => "on an established connection",
            Self::Close => "ending",
            Self::Drain => "draining",
        }
    }
}

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who connected to us.
    Downstream,
    /// Whom we connect to, or the way there.
    Upstream,
    /// We ourselves: a limit, a lack, a decision.
    Local,
}

/// What had happened on a connection by the time it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of this request that were handed to the kernel.
    pub bytes_sent: u64,
    /// Bytes of its reply that have come.
    pub bytes_received: u64,
    /// The connection had served before: it came from a pool.
    pub is_reused: bool,
    /// Only some of what was to be sent was taken.
    pub is_partial: bool,
}

/// Why something asked of an upstream did not come about. One pointer wide. Its clones are the same error, told to
/// others.
#[derive(Clone)]
pub struct Error(Box<Parts>);

#[derive(Clone)]
struct Parts {
    kind: Kind,
    phase: Phase,
    side: Side,
    endpoint: Option<SocketAddr>,
    fault: Option<Fault>,
    elapsed: Duration,
    traffic: Traffic,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Of this kind, in the phase and on the side where such a thing happens as a rule; nothing sent or received.
    #[must_use]
    pub fn new(kind: impl Into<Kind>) -> Self {
        let kind = kind.into();
        let (phase, side) = (kind.phase(), kind.side());
        Self(Box::new(Parts {
            kind,
            phase,
            side,
            endpoint: None,
            fault: None,
            elapsed: Duration::ZERO,
            traffic: Traffic::default(),
            source: None,
        }))
    }

    /// Of an upstream's connection that has ended, with something under way.
    #[must_use]
    pub fn of_close(reason: CloseReason, traffic: Traffic) -> Self {
        let fault = match reason {
            CloseReason::DialFailed(fault) | CloseReason::Transport(fault) => Some(fault),
            CloseReason::Reset => Some(Fault::Reset),
            _ => None,
        };
        let mut error =
            Self::new(Kind::of_close(reason, traffic)).with_traffic(traffic).over(reason);
        error.0.fault = fault;
        error
    }

    // --------------------------------------------------------------------------- being made

    /// In another phase than such a thing is usually met in.
    #[must_use]
    pub fn in_phase(mut self, phase: Phase) -> Self {
        self.0.phase = phase;
        self
    }

    /// On another side than such a thing usually is.
    #[must_use]
    pub fn on_side(mut self, side: Side) -> Self {
        self.0.side = side;
        self
    }

    /// At this endpoint.
    #[must_use]
    pub fn at(mut self, endpoint: SocketAddr) -> Self {
        self.0.endpoint = Some(endpoint);
        self
    }

    /// This long after it was begun.
    #[must_use]
    pub fn after(mut self, elapsed: Duration) -> Self {
        self.0.elapsed = elapsed;
        self
    }

    /// With this having happened before.
    #[must_use]
    pub fn with_traffic(mut self, traffic: Traffic) -> Self {
        self.0.traffic = traffic;
        self
    }

    /// Because of this.
    #[must_use]
    pub fn over(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    // --------------------------------------------------------------------------- being asked

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// What was being done.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Whose doing it was.
    #[must_use]
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// With whom; `None` if nobody had been chosen yet.
    #[must_use]
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.0.endpoint
    }

    /// What the kernel said, if it was the kernel that said it.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.0.fault
    }

    /// How long it had been under way.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// What had happened on the connection by then.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.0.traffic
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0;
        f.debug_struct("Error")
            .field("kind", &parts.kind)
            .field("phase", &parts.phase)
            .field("side", &parts.side)
            .field("endpoint", &parts.endpoint)
            .field("fault", &parts.fault)
            .field("elapsed", &parts.elapsed)
            .field("traffic", &parts.traffic)
            .field("source", &parts.source)
            .finish()
    }
}

/// One line: what, with whom, after how long, how far it had come; in which phase, if one would not guess it.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0;
        write!(f, "{}", parts.kind)?;
        if let Some(endpoint) = parts.endpoint {
            write!(f, " [{endpoint}")?;
        } else {
            f.write_str(" [no endpoint")?;
        }
        write!(f, ", after {:.3} s", parts.elapsed.as_secs_f64())?;
        let Traffic { bytes_sent, bytes_received, is_reused, is_partial } = parts.traffic;
        if bytes_sent > 0 || bytes_received > 0 {
            write!(f, ", {bytes_sent} bytes sent and {bytes_received} received")?;
        }
        if is_partial {
            f.write_str(", not all of them sent")?;
        }
        if is_reused {
            f.write_str(", on a kept connection")?;
        }
        if parts.phase != parts.kind.phase() {
            write!(f, ", {}", parts.phase.words())?;
        }
        f.write_str("]")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| {
            let source: &(dyn StdError + 'static) = source.as_ref();
            source
        })
    }
}

#[cfg(test)]
mod tests;
