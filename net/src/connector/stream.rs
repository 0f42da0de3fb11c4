//! A connection to an upstream, as code holds it: plain or TLS, with what went over it for the present request.
//!
//! Is: [`Conn`] or `TlsConn`, whose failures are [`Error`]s with endpoint, time and [`Traffic`]. Is not: what keeps
//! such connections, which is a pool, nor a protocol.
//!
//! *What a dropped future loses* is what it loses with the connection beneath: nothing that came, and of what was to be
//! sent, what was not taken. `traffic` counts what was taken, also by a future that was dropped.

use std::cell::Cell;
#[cfg(feature = "tls")]
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use slipring_core::{CloseReason, Key, Lease, Outgoing, Timeout};

use super::failing;
use crate::conn::{BusyFlag, Conn, End, Stir};
use crate::failure::{Error, Phase, Traffic};
use crate::policy::outcome::Outcome;
#[cfg(feature = "tls")]
use crate::tls::{Agreed, TlsConn};

/// A connection to an upstream. Like [`Conn`] it belongs to its reactor, and its methods panic outside of that one's
/// tasks; dropping it closes it in order.
///
/// Its errors are of the phase [`Transfer`](Phase::Transfer), with the endpoint, the time since
/// [`begin_request`](Self::begin_request) and the bytes since then. What kind they are follows from these: a reset is
/// [`StaleReuse`](crate::failure::Transfer::StaleReuse) on a kept connection without a byte of the reply,
/// [`ResetEarly`](crate::failure::Transfer::ResetEarly) on a fresh one, and
/// [`Reset`](crate::failure::Transfer::Reset) amidst the reply.
#[derive(Debug)]
pub struct Stream {
    carrier: Carrier,
    endpoint: SocketAddr,
    traffic: Traffic,
    /// Bytes that were counted as received, and put back.
    put_back: u64,
    /// When the present request began.
    begun: Duration,
    /// What its last failure came to.
    failed: Cell<Option<Outcome>>,
}

#[derive(Debug)]
enum Carrier {
    Plain(Conn),
    #[cfg(feature = "tls")]
    Tls(Box<TlsConn>),
}

impl Stream {
    /// Of a connection that was established otherwise, to this address.
    #[must_use]
    pub fn plain(conn: Conn, endpoint: SocketAddr) -> Self {
        Self::new(Carrier::Plain(conn), endpoint)
    }

    /// The same with TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(conn: TlsConn, endpoint: SocketAddr) -> Self {
        Self::new(Carrier::Tls(Box::new(conn)), endpoint)
    }

    fn new(carrier: Carrier, endpoint: SocketAddr) -> Self {
        let (traffic, begun) = (Traffic::default(), crate::tasks::now());
        Self { carrier, endpoint, traffic, put_back: 0, begun, failed: Cell::new(None) }
    }

    // --------------------------------------------------------------------------------- requests

    /// A request begins: what is counted starts anew. `is_reused`: others were served on this connection before.
    pub fn begin_request(&mut self, is_reused: bool) {
        self.traffic = Traffic { is_reused, ..Traffic::default() };
        // What was put back belongs to this one's reply.
        self.put_back = 0;
        self.failed.set(None);
        self.begun = crate::tasks::now();
        self.forget_waits();
    }

    /// What went over it since the request began, in bytes of plaintext. *Sent* is what was taken to be sent: how much
    /// of it the kernel took is not known when a connection ends, so that all of it may have gone. Nothing sent is
    /// exact. *Partial*: a [`send_all`](Self::send_all) was broken off. That some of what was taken still waited counts
    /// too, in the errors.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The same as it is left by a failure.
    fn traffic_left(&self) -> Traffic {
        let mut traffic = self.traffic;
        traffic.is_partial |= traffic.bytes_sent > 0 && self.outbox_bytes() > 0;
        traffic
    }

    // -------------------------------------------------------------------------------- receiving

    /// The next bytes, in the kernel's own buffer; `None` once the peer has ended its stream in order. What came before
    /// a failure comes before it.
    ///
    /// # Errors
    /// [`Error`]: [`ReadTimeout`](crate::failure::Transfer::ReadTimeout), after which the connection is as it was; an
    /// end of the connection; with TLS also [`Truncated`](crate::failure::Tls::Truncated), without a close_notify.
    pub async fn recv(&mut self) -> Result<Option<Lease>, Error> {
        let received = match &mut self.carrier {
            Carrier::Plain(conn) => match conn.recv().await {
                Some(lease) => Ok(Some(lease)),
                None if conn.read_end().is_ok() => Ok(None),
                None => Err(failing::of_end(conn.end(), self.traffic_left())),
            },
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => match conn.recv().await {
                Ok(received) => Ok(received),
                Err(error) => Err(failing::of_tls(error, self.traffic_left())),
            },
        };
        match received {
            Ok(Some(lease)) => {
                self.count_received(lease.len());
                Ok(Some(lease))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(self.say(error)),
        }
    }

    /// The next bytes, of which there have to be some.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`UnexpectedEof`](crate::failure::Transfer::UnexpectedEof) if the peer has ended
    /// its stream; [`StaleReuse`](crate::failure::Transfer::StaleReuse) if that is all that came on a kept connection.
    pub async fn recv_some(&mut self) -> Result<Lease, Error> {
        match self.recv().await? {
            Some(lease) => Ok(lease),
            None => Err(self.say(failing::of_end(Some(End::Eof), self.traffic_left()))),
        }
    }

    /// Puts back what was received last, or the rest of it: the next [`recv`](Self::recv) gives it. It has come all the
    /// same: the bytes received are not less for it, and not more when they are received again.
    pub fn unrecv(&mut self, lease: Lease) {
        self.put_back += lease.len() as u64;
        match &mut self.carrier {
            Carrier::Plain(conn) => conn.unrecv(lease),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.unrecv(lease),
        }
    }

    fn count_received(&mut self, bytes: usize) {
        let again = self.put_back.min(bytes as u64);
        self.put_back -= again;
        self.traffic.bytes_received += bytes as u64 - again;
    }

    // ---------------------------------------------------------------------------------- sending

    /// Sends, behind all that waits: waits for back-pressure only, and takes all bytes or none.
    ///
    /// # Errors
    /// [`Error`]: nothing can be sent any more; or [`TooLarge`](crate::failure::Transfer::TooLarge), after which the
    /// connection is as it was. The bytes are dropped.
    pub async fn send(&mut self, data: impl Into<Outgoing>) -> Result<(), Error> {
        let data = data.into();
        let bytes = data.len() as u64;
        let sent = match &mut self.carrier {
            Carrier::Plain(conn) => match conn.send(data).await {
                Ok(()) => Ok(()),
                Err(error) => Err(failing::of_send(error, self.traffic_left())),
            },
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => {
                let bytes = match &data {
                    Outgoing::Lease(lease) => &lease[..],
                    Outgoing::Owned(bytes) => bytes,
                    Outgoing::Static(bytes) => bytes,
                };
                match conn.take_bytes(bytes).await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(failing::of_tls(error, self.traffic_left())),
                }
            }
        };
        match sent {
            Ok(()) => self.traffic.bytes_sent += bytes,
            Err(error) => return Err(self.say(error)),
        }
        self.flush().await
    }

    /// Sends a copy of these bytes, however many, in pieces. Dropped or failed between two of them, what was sent is
    /// [partial](Traffic::is_partial) for good.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let was_partial = self.traffic.is_partial;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(self.piece_bytes()));
            let taken = self.traffic.bytes_sent;
            let sent = self.send(piece.to_vec()).await;
            if self.traffic.bytes_sent > taken {
                self.traffic.is_partial = was_partial || !behind.is_empty();
            }
            sent?;
            rest = behind;
        }
        Ok(())
    }

    fn piece_bytes(&self) -> usize {
        match &self.carrier {
            Carrier::Plain(conn) => conn.piece_bytes(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.piece_bytes(),
        }
    }

    /// What TLS has encrypted and its outbox has not taken, for want of memory.
    async fn flush(&mut self) -> Result<(), Error> {
        match &mut self.carrier {
            Carrier::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => match poll_fn(|cx| conn.poll_flush(cx)).await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.say(failing::of_tls(error, self.traffic_left()))),
            },
        }
    }

    /// Bytes that wait to be sent, as they go over the wire.
    #[must_use]
    pub fn outbox_bytes(&self) -> u32 {
        match &self.carrier {
            Carrier::Plain(conn) => conn.outbox_bytes(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.outbox_bytes(),
        }
    }

    /// Half-closes: what waits is sent, our end of the stream follows, with TLS announced. Receiving goes on.
    ///
    /// # Errors
    /// [`Error`], if what was sent may be lost.
    pub async fn shutdown(&mut self) -> Result<(), Error> {
        let done = match &mut self.carrier {
            Carrier::Plain(conn) => {
                conn.shutdown();
                match conn.reason() {
                    Some(reason) if reason.is_abortive() => {
                        Err(failing::of_close(reason, self.traffic_left()))
                    }
                    _ => Ok(()),
                }
            }
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => match conn.shutdown().await {
                Ok(()) => Ok(()),
                Err(error) => Err(failing::of_tls(error, self.traffic_left())),
            },
        };
        done.map_err(|error| self.say(error))
    }

    // ----------------------------------------------------------------------------------- ending

    /// Closes in order, as dropping it does. Returns at once; [`closed`](Self::closed) waits for the end.
    pub fn close(&mut self) {
        match &mut self.carrier {
            Carrier::Plain(conn) => conn.close(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.close(),
        }
    }

    /// Ends at once: the peer sees a reset, what waits to be sent is dropped.
    pub fn abort(&mut self) {
        match &mut self.carrier {
            Carrier::Plain(conn) => conn.abort(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.abort(),
        }
    }

    /// Waits until the connection has ended. Bytes that come meanwhile are kept for `recv`.
    pub async fn closed(&mut self) -> CloseReason {
        match &mut self.carrier {
            Carrier::Plain(conn) => conn.closed().await,
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.closed().await,
        }
    }

    /// Why the connection ended; `None` as long as it has not.
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        match &self.carrier {
            Carrier::Plain(conn) => conn.reason(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.reason(),
        }
    }

    // ------------------------------------------------------------------------------- being kept

    /// For who keeps it without a request: ready as soon as it is not fit for another any more. That is, when anything
    /// came, when the peer has ended its stream, or when the connection is being closed or has ended, for whatever
    /// reason. Else it is pending, and what happens later wakes the caller, the last one who asked.
    ///
    /// Nothing is lost by asking: what came unasked is there for [`recv`](Self::recv). But it makes the connection
    /// unfit, so that nobody should want it: it could be the end of a reply that was taken for whole.
    ///
    /// With TLS it means to decrypt: tickets and changes of keys are seen to and are nothing that came. A record that
    /// has come in part is something, as it may be the rest of a reply. A read deadline does not count.
    ///
    /// To be asked by a pool once more when it gives the connection away: that somebody closes it wakes nobody before
    /// it is closed. [`begin_request`](Self::begin_request) ends the wait.
    pub fn poll_unfit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_stir(cx).map(drop)
    }

    /// [`poll_unfit`](Self::poll_unfit), and what it is that makes it so.
    pub fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        match &mut self.carrier {
            Carrier::Plain(conn) => conn.poll_stir(cx),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.poll_stir(cx),
        }
    }

    pub(crate) fn forget_waits(&self) {
        match &self.carrier {
            Carrier::Plain(conn) => {
                conn.forget_reader();
                conn.forget_writer();
            }
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.forget_waits(),
        }
    }

    // -------------------------------------------------------------------------------- deadlines

    /// The connection ends when nothing moves in either direction for so long. Default: the runtime's
    /// ([`Timeouts::idle`](crate::Timeouts::idle)).
    pub fn set_idle_timeout(&mut self, idle: Timeout) {
        match &mut self.carrier {
            Carrier::Plain(conn) => conn.set_idle_timeout(idle),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.set_idle_timeout(idle),
        }
    }

    /// Each wait for bytes from now on ends after this long with
    /// [`ReadTimeout`](crate::failure::Transfer::ReadTimeout); the connection stays as it is. Default: never.
    pub fn set_read_deadline(&mut self, within: Timeout) {
        match &mut self.carrier {
            Carrier::Plain(conn) => conn.set_read_deadline(within),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.set_read_deadline(within),
        }
    }

    // -------------------------------------------------------------------------------- questions

    /// The address that was dialed: also when the connection has ended.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.endpoint
    }

    /// The address of this end; `None` once the connection has ended.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        match &self.carrier {
            Carrier::Plain(conn) => conn.local(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.local(),
        }
    }

    /// Names the connection in logs.
    #[must_use]
    pub fn key(&self) -> Key {
        match &self.carrier {
            Carrier::Plain(conn) => conn.key(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.key(),
        }
    }

    /// For telling a drain that something is under way on it.
    #[must_use]
    pub fn busy_flag(&self) -> BusyFlag {
        match &self.carrier {
            Carrier::Plain(conn) => conn.busy_flag(),
            #[cfg(feature = "tls")]
            Carrier::Tls(conn) => conn.busy_flag(),
        }
    }

    /// What was agreed upon in the TLS handshake; `None` of a plain connection.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn agreed(&self) -> Option<&Agreed> {
        match &self.carrier {
            Carrier::Plain(_) => None,
            Carrier::Tls(conn) => Some(conn.agreed()),
        }
    }

    /// The connection itself, if it is plain: for [`relay`](crate::relay). What it was given, a read deadline for
    /// instance, it keeps.
    ///
    /// # Errors
    /// It speaks TLS; the stream comes back.
    pub fn into_conn(self) -> Result<Conn, Self> {
        match self.carrier {
            Carrier::Plain(conn) => Ok(conn),
            #[cfg(feature = "tls")]
            carrier @ Carrier::Tls(_) => Err(Self { carrier, ..self }),
        }
    }

    /// Where, when and how far it had come.
    fn say(&self, error: Error) -> Error {
        let elapsed = crate::tasks::now().saturating_sub(self.begun);
        let error = error.in_phase(Phase::Transfer).at(self.endpoint).after(elapsed);
        self.failed.set(Some(error.outcome()));
        error
    }

    /// What the last failure of the present request came to; `None`: it had none.
    pub(crate) fn failed(&self) -> Option<Outcome> {
        self.failed.get()
    }
}
