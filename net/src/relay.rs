//! Two connections bridged inside a reactor: what one receives, the other sends, without a copy.
//!
//! ```text
//!   client ---lease---> upstream's outbox ---> upstream
//!   client <--- client's outbox <---lease---- upstream
//! ```
//!
//! * A full outbox holds back the other leg's reading, each way by itself.
//! * A FIN passes on once the bytes before it are sent; the other direction lives on until it ends too, or
//!   falls silent for the half-closed timeout.
//! * A reset passes on as a reset: the other side must not take a torn stream for a whole one.
//! * The client is not read before its upstream is connected, so that another upstream can be tried, with
//!   nothing lost, when one refuses. Each is tried once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{CloseReason, Connections, Ctx, Handler, Key, Lease, Origin, Timeout};

/// A client for which no dial was free asks again after this long.
const RETRY: Duration = Duration::from_millis(20);

/// One leg of a relayed pair.
#[derive(Debug, Default, Clone, Copy)]
pub struct Leg {
    other: Option<Key>,
    /// Upstreams that refused so far; of a dialed leg, or of a client that waits for a dial.
    refused: u16,
    /// Which upstream was dialed first; likewise.
    first: u16,
    connected: bool,
}

/// Relays every accepted connection to one of several upstreams, in turn.
///
/// Needs a dialed connection for each accepted one, and a few more for upstreams that are still closing when
/// their client is gone: see `Builder::max_dialed`. While none is free, a client waits.
///
/// ```no_run
/// use slipring::{Relay, Runtime};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let upstreams = ["127.0.0.1:8001".parse()?, "127.0.0.1:8002".parse()?];
/// let running = Runtime::builder()
///     .listen("127.0.0.1:8000".parse()?)
///     .max_connections(1000)
///     .max_dialed(1000)
///     .start(move |reactor| Relay::new(upstreams, reactor))?;
/// # running.join()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Relay {
    upstreams: Arc<[SocketAddr]>,
    next: usize,
}

impl Relay {
    /// Relays to these, starting with number `first` (modulo their count), so that reactors do not all
    /// start with the same one.
    ///
    /// # Panics
    /// If there are none, or more than 65535.
    #[must_use]
    pub fn new(upstreams: impl Into<Arc<[SocketAddr]>>, first: usize) -> Self {
        let upstreams = upstreams.into();
        assert!((1..=usize::from(u16::MAX)).contains(&upstreams.len()), "1 to 65535 upstreams");
        let next = first % upstreams.len();
        Self { upstreams, next }
    }

    /// Dials an upstream for a client: the next in turn, or the one after those that refused.
    /// If no dial is free, the client is asked again in a moment.
    fn dial(&mut self, connections: &mut Connections<Leg>, client: Key, retry: Option<Leg>) {
        let count = self.upstreams.len();
        let (first, refused) = match retry {
            Some(leg) => (leg.first, leg.refused),
            None => {
                let first = self.next as u16;
                self.next = (self.next + 1) % count;
                (first, 0)
            }
        };
        let address = self.upstreams[(usize::from(first) + usize::from(refused)) % count];
        let leg = Leg { other: Some(client), refused, first, connected: false };
        match connections.dial(address, leg) {
            Ok(upstream) => {
                if let Some(leg) = connections.state_of(client) {
                    leg.other = Some(upstream);
                }
            }
            Err(error) => {
                // Upstreams that linger after their client left: one is free in a moment.
                tracing::debug!(%error, "a client waits for a dial");
                if let Some(waiting) = connections.state_of(client) {
                    // It goes on where it stands: each upstream is tried once, and turns are kept.
                    *waiting = Leg { other: None, ..leg };
                }
                connections.set_keep_alive_of(client, Timeout::After(RETRY));
            }
        }
    }

    /// An upstream could not be reached: the next one gets its turn, or the client is told.
    fn on_dial_failed(&mut self, ctx: &mut Ctx<'_, Leg>, reason: CloseReason) {
        let mut leg = *ctx.state();
        let Some(client) = leg.other else { return };
        leg.refused += 1;
        let count = self.upstreams.len();
        let failed = (usize::from(leg.first) + usize::from(leg.refused) - 1) % count;
        tracing::debug!(upstream = %self.upstreams[failed], %reason, "upstream not reached");
        match ctx.state_of(client) {
            Some(leg) => leg.other = None,
            None => return,
        }
        if usize::from(leg.refused) < count {
            self.dial(ctx, client, Some(leg));
        } else {
            tracing::warn!(%reason, "no upstream could be reached");
            ctx.abort_of(client);
        }
    }
}

impl Handler for Relay {
    type State = Leg;

    fn on_open(&mut self, ctx: &mut Ctx<'_, Leg>, origin: Origin) {
        match origin {
            Origin::Accepted(_) => {
                ctx.pause();
                let client = ctx.key();
                self.dial(ctx, client, None);
            }
            Origin::Dialed => {
                ctx.state().connected = true;
                let client = ctx.state().other;
                match client {
                    Some(client) if ctx.state_of(client).is_some() => ctx.resume_of(client),
                    _ => ctx.abort(),
                }
            }
        }
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, Leg>) {
        ctx.set_keep_alive(Timeout::Never);
        let client = ctx.key();
        let waiting = *ctx.state();
        if waiting.other.is_none() {
            self.dial(ctx, client, Some(waiting));
        }
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, Leg>, data: Lease) {
        if let Some(other) = ctx.state().other {
            ctx.forward(other, data);
        }
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Leg>) {
        if let Some(other) = ctx.state().other {
            ctx.shutdown_of(other);
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Leg>, reason: CloseReason) {
        let leg = *ctx.state();
        let Some(other) = leg.other else { return };
        let dial_failed = matches!(reason, CloseReason::DialFailed(_) | CloseReason::DialTimeout);
        if dial_failed && !leg.connected {
            return self.on_dial_failed(ctx, reason);
        }
        if reason.is_abortive() {
            ctx.abort_of(other);
        } else {
            ctx.close_of(other);
        }
    }
}
