//! Connections to upstreams: established, with errors that say what failed.
//!
//! ```text
//!   connect(address) --+
//!                      +--> TCP, from one of our addresses --> PROXY header --> TLS --> Stream
//!   race(targets) -----+    3 s each                                           5 s
//!                           |---------------------- 10 s in all ----------------------|
//! ```
//!
//! ```no_run
//! use slipring::connector::{About, Connector};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connector = Connector::default();
//! let mut stream = connector.connect("192.0.2.7:6379".parse()?, &About::default()).await?;
//! stream.send("PING\r\n").await?;
//! let reply = stream.recv_some().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Is: [`Connector`], which establishes, and [`Stream`], what comes of it. Is not: which endpoint, which is the
//! balancer's, whether to try again, which is the retry's, nor where a name leads, which is the resolver's.
//!
//! *Dropped* while it connects, the future leaves nothing behind: a dial is given up, a connection that had come about
//! is closed. *The phase* of an error is the step that failed, also when it was the time of the whole that passed.

mod building;
mod failing;
mod limits;
mod racing;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slipring_core::{Dial, Fault, Timeout};

use crate::conn::{Conn, DialError, dial_with};
use crate::failure::{Admit, Error, Phase, Traffic};
use crate::policy::names::Target;
use crate::proxy_protocol::Header;
use crate::tasks::{now, timeout};
#[cfg(feature = "tls")]
use crate::tls::TlsError;

use building::Parts;
pub use building::{ConnectorBuilder, ConnectorError};
use limits::Whole;
pub use limits::{ConnectLimits, ConnectLimitsError, Passed};
pub use racing::Attempts;
pub use stream::Stream;

/// So much later than ours the runtime's own timer of a dial passes.
const BEHIND: Duration = Duration::from_millis(10);

/// Whom a connection is for: what a PROXY header says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Who connected, and to which address of ours.
    addresses: Option<(SocketAddr, SocketAddr)>,
}

impl About {
    /// For this client, who connected to this address of ours. The default is for nobody but ourselves, as a health
    /// check is.
    #[must_use]
    pub const fn client(client: SocketAddr, local: SocketAddr) -> Self {
        Self { addresses: Some((client, local)) }
    }

    /// For who has this connection to us; the default once it has ended.
    ///
    /// # Panics
    /// Outside of the tasks of its reactor.
    #[must_use]
    pub fn peer_of(conn: &Conn) -> Self {
        Self { addresses: conn.peer().zip(conn.local()) }
    }

    fn header(&self) -> Header {
        match self.addresses {
            Some((client, local)) => Header::proxied(client, local),
            None => Header::Local,
        }
    }
}

/// Establishes connections to upstreams. Cheap to clone; give each reactor a clone.
///
/// The default is plain TCP with the default [`ConnectLimits`]; [`builder`](Self::builder) makes others. The runtime
/// has to be allowed to dial: [`Builder::max_dialed`](crate::Builder::max_dialed).
#[derive(Debug, Default)]
pub struct Connector {
    parts: Arc<Parts>,
    /// Of the source addresses, which is next. Of each clone its own, so that reactors write no memory in common.
    next_source: AtomicUsize,
}

impl Clone for Connector {
    fn clone(&self) -> Self {
        let next_source = AtomicUsize::new(self.next_source.load(Ordering::Relaxed));
        Self { parts: Arc::clone(&self.parts), next_source }
    }
}

impl Connector {
    /// To make one.
    pub fn builder() -> ConnectorBuilder {
        ConnectorBuilder::default()
    }

    /// How long what may take.
    #[must_use]
    pub fn limits(&self) -> &ConnectLimits {
        &self.parts.limits
    }

    /// Connects to an address. A connection with a PROXY header is `about` one client: it is not to be kept for others.
    ///
    /// # Errors
    /// [`Error`], with the phase that failed, the endpoint and the time it took. A timeout of ours has as its source
    /// which limit [`Passed`].
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn connect(&self, to: SocketAddr, about: &About) -> Result<Stream, Error> {
        self.connect_in(to, about, Whole::new(&self.parts.limits, now())).await
    }

    /// The same for who has only so long: whatever is under way then is what failed.
    pub(crate) async fn connect_within(
        &self,
        to: SocketAddr,
        about: &About,
        left: Duration,
    ) -> Result<Stream, Error> {
        self.connect_in(to, about, Whole::within(&self.parts.limits, now(), left)).await
    }

    async fn connect_in(
        &self,
        to: SocketAddr,
        about: &About,
        whole: Whole,
    ) -> Result<Stream, Error> {
        let conn = self.dial(to, whole).await?;
        self.introduce(conn, to, about, whole).await
    }

    /// Connects to one of these, whichever comes about first: Happy Eyeballs (RFC 8305), in the order and at the times
    /// that [`policy::race`](crate::policy::race) has it. As soon as one is connected by TCP the others are given up,
    /// and it alone gets the PROXY header and conducts the TLS handshake: if that fails, the race has failed. RFC 8305
    /// leaves that open; to begin again with the others would hide a host that is broken, and take its clients twice as
    /// long.
    ///
    /// Whom none of the source addresses fits is left out.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). When all have failed, the failure that says most, with the others ([`Attempts`])
    /// as its source; [`Upstream::Empty`](crate::failure::Upstream::Empty) without targets.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn race(&self, targets: &[Target], about: &About) -> Result<Stream, Error> {
        let whole = Whole::new(&self.parts.limits, now());
        let (conn, to) = racing::first(self, &self.parts.limits, targets, whole).await?;
        self.introduce(conn, to, about, whole).await
    }

    // ------------------------------------------------------------------------------------- TCP

    /// One attempt, from each source address in turn as long as they lack a port.
    async fn dial(&self, to: SocketAddr, whole: Whole) -> Result<Conn, Error> {
        let begun = now();
        let (until, passed) = whole.part(begun, self.parts.limits.attempt, Passed::Attempt);
        let dialed = self.dial_from_sources(to, until).await;
        dialed.map_err(|error| {
            let failed = match error {
                DialError::Timeout => failing::of_dial(error).over(passed),
                DialError::Failed(Fault::AddressUnavailable) if !self.parts.sources.is_empty() => {
                    let sources = self.sources_for(to).collect();
                    failing::of_dial(error).over(SourcesUnavailable { sources })
                }
                _ => failing::of_dial(error),
            };
            failed.at(to).after(now().saturating_sub(begun))
        })
    }

    async fn dial_from_sources(&self, to: SocketAddr, until: Duration) -> Result<Conn, DialError> {
        let dial = Dial::to(canonical(to));
        let sources: Vec<IpAddr> = self.sources_for(to).collect();
        if sources.is_empty() {
            return match self.parts.sources.first() {
                None => self.dial_until(dial, until).await,
                Some(&from) => Err(slipring_core::DialRefused::Families { to, from }.into()),
            };
        }
        let first = self.next_source.fetch_add(1, Ordering::Relaxed) % sources.len();
        let mut dialed = Err(DialError::Failed(Fault::AddressUnavailable));
        for source in sources[first..].iter().chain(&sources[..first]) {
            dialed = self.dial_until(dial.from_address(*source), until).await;
            if !matches!(dialed, Err(DialError::Failed(Fault::AddressUnavailable))) {
                break;
            }
        }
        dialed
    }

    async fn dial_until(&self, dial: Dial, until: Duration) -> Result<Conn, DialError> {
        let left = until.saturating_sub(now());
        if left.is_zero() {
            return Err(DialError::Timeout);
        }
        let dial = dial.within(Timeout::After(left.saturating_add(BEHIND)));
        let dialed = timeout(left, self.dial_once(dial)).await;
        dialed.unwrap_or(Err(DialError::Timeout))
    }

    #[cfg(feature = "faults")]
    async fn dial_once(&self, dial: Dial) -> Result<Conn, DialError> {
        match &self.parts.faults {
            Some((faults, upstream)) => faults.dial(dial, upstream).await,
            None => dial_with(dial).await,
        }
    }

    #[cfg(not(feature = "faults"))]
    async fn dial_once(&self, dial: Dial) -> Result<Conn, DialError> {
        dial_with(dial).await
    }

    /// Those of its family.
    fn sources_for(&self, to: SocketAddr) -> impl Iterator<Item = IpAddr> {
        let is_ipv4 = canonical(to).is_ipv4();
        self.parts.sources.iter().copied().filter(move |source| source.is_ipv4() == is_ipv4)
    }

    fn has_source_for(&self, to: SocketAddr) -> bool {
        self.parts.sources.is_empty() || self.sources_for(to).next().is_some()
    }

    // ---------------------------------------------------------------------------------- beyond

    /// What is said before a connection can be used: the PROXY header, in front of everything, and TLS.
    async fn introduce(
        &self,
        mut conn: Conn,
        to: SocketAddr,
        about: &About,
        whole: Whole,
    ) -> Result<Stream, Error> {
        if let Some(version) = self.parts.header {
            let header = about.header().encode(version);
            if let Err(error) = send_header(&mut conn, header, whole).await {
                return Err(error.in_phase(Phase::ProxyHeader).at(to).after(whole.elapsed(now())));
            }
        }
        #[cfg(feature = "tls")]
        if let Some(client) = &self.parts.tls {
            let span = self.parts.limits.tls.min(client.handshake_timeout());
            let (until, passed) = whole.part(now(), span, Passed::Tls);
            let name = self.parts.name_for(to);
            return match client.connect_until(conn, &name, until).await {
                Ok(tls) => Ok(Stream::tls(tls, to)),
                Err(error) => {
                    let is_late = matches!(error, TlsError::Timeout);
                    let failed = failing::of_handshake(error);
                    let failed = if is_late { failed.over(passed) } else { failed };
                    Err(failed.in_phase(Phase::TlsHandshake).at(to).after(whole.elapsed(now())))
                }
            };
        }
        Ok(Stream::plain(conn, to))
    }
}

/// The outbox is empty, so it takes the header at once; only memory can be waited for.
async fn send_header(conn: &mut Conn, header: Vec<u8>, whole: Whole) -> Result<(), Error> {
    let left = whole.until.saturating_sub(now());
    match timeout(left, conn.send(header)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(failing::of_introduction(failing::of_send(error, Traffic::default())))
        }
        Err(_) => {
            conn.abort();
            Err(Error::new(Admit::Overloaded).over(whole.passed()))
        }
    }
}

/// The runtime's own timer of a dial may be late by an eighth, or early by a millisecond; the task's is not. So the
/// former only stands behind the latter, for futures that are kept without being polled.
/// An IPv4 address that is written as one of IPv6 is dialed as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        // Its zone is not part of the IP address.
        IpAddr::V6(_) => address,
    }
}

/// No source address has a port to come from.
#[derive(Debug, thiserror::Error)]
#[error("each of the source addresses {sources:?} is out of ports for it, or is none of this host")]
struct SourcesUnavailable {
    sources: Vec<IpAddr>,
}
