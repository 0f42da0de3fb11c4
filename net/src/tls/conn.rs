//! A TLS connection as `async` code holds it: a [`Conn`], a [`Machine`], and what was decrypted and not taken yet.
//!
//! ```text
//!   Conn::recv --lease--> Machine, in place --parts of the same lease--> recv
//!   send --> Machine --records, owned--> what is sealed, in order --> Conn's outbox
//! ```
//!
//! *What a dropped future loses*: nothing. What was sealed has its number in the stream, so it can be neither left out
//! nor sealed again. If the outbox does not take it at once, which it does but when the reactor has no memory, it stays
//! in the machine's list of bytes to send, and every call takes that up where the last one left it.
//!
//! | dropped while it waits | has happened |
//! |---|---|
//! | `recv` | nothing: what comes is there for the next call |
//! | `send` | nothing: it takes all of its bytes at once, when there is room |
//! | `send_all` | a whole number of its pieces was taken, in their order |
//! | `accept`, `connect` | the connection is closed with it |
//! | the `TlsConn` | what was sent goes out, a close_notify, a FIN; a reset, if the outbox does not take it all |

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use slipring_core::{CloseReason, Key, Lease, Origin, Outgoing, SendRefused, Timeout};

use super::error::TlsError;
use super::handshake::Agreed;
use super::inbox::{Inbox, RECORDS_KEPT};
use super::machine::{Machine, Plain, RECORD_OVERHEAD};
use super::records::PLAIN_MAX;
use crate::conn::{BusyFlag, Conn, End, ReadDeadline, SendError, Stir};
use crate::tasks::{Executor, Sleep, sleep};

/// Bytes for which there is no room, or no memory, try again after this long: nothing tells when there is some.
const NO_ROOM: Duration = Duration::from_millis(5);
/// Bytes of an outbox that a send leaves free: for a change of keys in front of it and a close_notify behind it.
const ROOM_KEPT: usize = 80;

/// A connection of a reactor, encrypted. Like [`Conn`] it belongs to its reactor, and its methods panic outside of
/// that one's tasks.
///
/// The ends of a stream are announced: [`recv`](Self::recv) gives `None` after the peer's close_notify, and
/// [`TlsError::Truncated`] when the stream ends without one. Whoever closes the connection beneath, as an idle timeout
/// does, announces nothing.
#[derive(Debug)]
pub struct TlsConn {
    pub(super) conn: Conn,
    pub(super) machine: Machine,
    /// Decrypted, in order.
    inbox: Inbox,
    /// What is to be told behind that.
    pub(super) failed: Option<TlsError>,
    /// For ranges, between calls.
    pub(super) plain: Vec<Plain>,
    retry: Option<Pin<Box<Sleep>>>,
    pub(super) read_deadline: Option<Box<ReadDeadline>>,
}

impl TlsConn {
    pub(super) fn new(conn: Conn, machine: Machine) -> Self {
        let (inbox, plain) = (Inbox::default(), Vec::new());
        Self { conn, machine, inbox, failed: None, plain, retry: None, read_deadline: None }
    }

    /// What was agreed upon in the handshake: version, protocol (ALPN), the name asked for (SNI), the peer's
    /// certificates.
    ///
    /// # Panics
    /// Never: without a handshake there is no such connection.
    #[must_use]
    pub fn agreed(&self) -> &Agreed {
        self.machine.agreed().expect("`accept` and `connect` return when both have agreed")
    }

    // -------------------------------------------------------------------------------- receiving

    /// The next bytes, decrypted where the kernel put them; `None` once the peer has announced that it will send no
    /// more.
    ///
    /// # Errors
    /// [`TlsError`], behind all that could be decrypted: above all [`TlsError::Truncated`]. It is told again by the
    /// next call, but for [`TlsError::ReadTimeout`], after which the connection is as it was.
    pub async fn recv(&mut self) -> Result<Option<Lease>, TlsError> {
        if let Some(deadline) = &mut self.read_deadline {
            deadline.begin();
        }
        Receiving { conn: self, waits: false }.await
    }

    /// [`recv`](Self::recv), for those who write futures.
    ///
    /// # Errors
    /// As `recv`.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Lease>, TlsError>> {
        let polled = self.poll_plain(cx);
        if let Some(deadline) = &mut self.read_deadline
            && deadline.passes(polled.is_ready(), cx)
        {
            self.conn.forget_reader();
            return Poll::Ready(Err(TlsError::ReadTimeout));
        }
        polled
    }

    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Lease>, TlsError>> {
        loop {
            if let Some(lease) = self.inbox.pop() {
                return Poll::Ready(Ok(Some(lease)));
            }
            if let Some(error) = &self.failed {
                return Poll::Ready(Err(error.clone()));
            }
            if self.machine.is_peer_closed() {
                return Poll::Ready(Ok(None));
            }
            // What a send that was dropped has left, and answers of the machine's own.
            if self.machine.has_outgoing() {
                let _ = self.poll_flush(cx);
            }
            ready!(self.poll_take(cx));
        }
    }

    /// Ready as soon as application data lies there, or the stream has ended, failed, or is being closed by anybody;
    /// what came stays there. Tickets and changes of keys are seen to and are none of it. No read deadline counts. A
    /// record that has not come whole may be the rest of an answer, and is taken for one.
    pub(crate) fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        if self.machine.is_closed() || !self.conn.may_send() {
            return Poll::Ready(Stir::Ended);
        }
        match self.poll_plain(cx) {
            Poll::Ready(Ok(Some(lease))) => self.unrecv(lease),
            Poll::Ready(_) => return Poll::Ready(Stir::Ended),
            Poll::Pending if self.machine.has_piece() => return Poll::Ready(Stir::Spoke),
            Poll::Pending => return Poll::Pending,
        }
        // It may have ended behind what it said. Of that no more is opened than a greeting may take.
        while self.inbox.len() < RECORDS_KEPT && !self.is_over() && self.poll_take(cx).is_ready() {}
        let is_over = self.is_over() || self.conn.poll_stir(cx) == Poll::Ready(Stir::Ended);
        Poll::Ready(if is_over { Stir::Ended } else { Stir::Spoke })
    }

    /// Nothing comes behind what was decrypted.
    fn is_over(&self) -> bool {
        self.failed.is_some() || self.machine.is_peer_closed()
    }

    /// Nobody waits for anything on it any more.
    pub(crate) fn forget_waits(&self) {
        self.conn.forget_reader();
        self.conn.forget_writer();
    }

    /// Puts back what was received last, or the rest of it.
    pub fn unrecv(&mut self, lease: Lease) {
        if !lease.is_empty() {
            self.inbox.put_back(lease);
        }
    }

    /// Takes the next received bytes, or the end, into the machine.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let received = ready!(self.conn.poll_recv(cx));
        self.take(received);
        Poll::Ready(())
    }

    pub(super) fn take(&mut self, received: Option<Lease>) {
        let outcome = match received {
            Some(lease) => self.open(lease),
            None => self.take_end(),
        };
        if let Err(error) = outcome {
            self.failed = Some(error);
            // The alert, if there is one, without waiting: it is the last thing that is said.
            self.push_outgoing();
        }
    }

    fn open(&mut self, mut lease: Lease) -> Result<(), TlsError> {
        // As a rule there is nobody else; then nothing is copied.
        if lease.bytes_mut().is_none() {
            lease = lease.adopt_beside(lease.to_vec()).map_err(|_| TlsError::NoMemory)?;
        }
        let Some(mut bytes) = lease.bytes_mut() else { return Err(TlsError::NoMemory) };
        let outcome = self.machine.handle_received(&mut bytes, &mut self.plain);
        drop(bytes);
        let mut start = 0;
        let last = self.plain.len().saturating_sub(1);
        for (place, plain) in self.plain.drain(..).enumerate() {
            match plain {
                Plain::Here(range) => {
                    lease.advance(range.start - start);
                    start = range.end;
                    if place == last {
                        lease.truncate(range.len());
                        self.inbox.push(lease);
                        break;
                    }
                    self.inbox.push(lease.split_to(range.len()));
                }
                Plain::Whole(bytes) => {
                    let own = lease.adopt_beside(bytes).map_err(|_| TlsError::NoMemory)?;
                    self.inbox.push(own);
                }
            }
        }
        // What a crowd of tiny records took is not kept.
        self.plain.shrink_to(RECORDS_KEPT);
        outcome
    }

    fn take_end(&mut self) -> Result<(), TlsError> {
        let is_shaking = self.machine.agreed().is_none();
        match self.conn.end() {
            Some(End::ReadTimeout) => Err(TlsError::ReadTimeout),
            Some(End::Closed(CloseReason::PhaseTimeout)) if is_shaking => Err(TlsError::Timeout),
            Some(End::Closed(reason)) if reason != CloseReason::PeerClosed => {
                Err(TlsError::Ended(reason))
            }
            _ => self.machine.handle_end(),
        }
    }

    // ---------------------------------------------------------------------------------- sending

    /// Encrypts and sends, behind all that waits. It waits only as long as the outbox is above its watermark, that is,
    /// for back-pressure, and then takes all bytes at once or, dropped before, none.
    ///
    /// # Errors
    /// [`TlsError`]; the bytes are dropped.
    pub async fn send(&mut self, data: impl Into<Outgoing>) -> Result<(), TlsError> {
        let data = data.into();
        self.send_bytes(match &data {
            Outgoing::Lease(lease) => lease,
            Outgoing::Owned(bytes) => bytes,
            Outgoing::Static(bytes) => bytes,
        })
        .await
    }

    /// The same for bytes that are borrowed, however many: in pieces of a record each.
    ///
    /// # Errors
    /// [`TlsError`]; how many of the pieces were taken is not told.
    pub async fn send_all(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        for piece in bytes.chunks(self.piece_bytes()) {
            self.send_bytes(piece).await?;
        }
        Ok(())
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        self.take_bytes(bytes).await?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Waits for room and encrypts: from then on they go out, whoever is dropped.
    pub(crate) async fn take_bytes(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let most = self.room();
        let sealed = Machine::sealed_bytes(bytes.len());
        if sealed > most {
            return Err(TlsError::TooMany { bytes: bytes.len(), most });
        }
        self.check_memory(bytes.len())?;
        poll_fn(|cx| self.poll_room(sealed, cx)).await?;
        self.machine.seal(bytes)
    }

    /// Whether there may ever be memory for the records of so many bytes.
    fn check_memory(&self, bytes: usize) -> Result<(), TlsError> {
        let most = self.conn.owned_bytes_max();
        match Machine::sealed_bytes(bytes.min(PLAIN_MAX)) as u64 > most {
            true => Err(TlsError::TooManyOwned { bytes, most }),
            false => Ok(()),
        }
    }

    /// Bytes of a record, as large as there may be room and memory for.
    pub(crate) fn piece_bytes(&self) -> usize {
        let owned = usize::try_from(self.conn.owned_bytes_max()).unwrap_or(usize::MAX);
        owned.min(self.room()).saturating_sub(RECORD_OVERHEAD).clamp(1, PLAIN_MAX)
    }

    /// Waits until the outbox is below its watermark and has room for so many bytes.
    fn poll_room(&mut self, sealed: usize, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        loop {
            ready!(self.poll_ready(cx))?;
            if self.conn.outbox_bytes() as usize + sealed <= self.room() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_retry(cx));
        }
    }

    /// Bytes that a send may bring the outbox to.
    fn room(&self) -> usize {
        self.conn.outbox_bytes_max().saturating_sub(ROOM_KEPT)
    }

    fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.retry.get_or_insert_with(|| Box::pin(sleep(NO_ROOM))).as_mut().poll(cx));
        self.retry = None;
        Poll::Ready(())
    }

    /// Whether a [`send`](Self::send) would be taken at once.
    ///
    /// # Errors
    /// [`TlsError`], if nothing can be sent any more.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        ready!(self.poll_flush(cx))?;
        self.conn.poll_ready(cx).map_err(|error| self.why_not(error))
    }

    /// Encrypts and sends without waiting, whatever waits already: for those who have asked
    /// [`poll_ready`](Self::poll_ready). What the outbox does not take goes out with the next call.
    ///
    /// # Errors
    /// [`TlsError`]; nothing was taken.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        self.check_memory(bytes.len())?;
        self.machine.seal(bytes)?;
        self.push_outgoing();
        Ok(())
    }

    /// Hands what is sealed to the outbox; done when it has all of it, which is at once but when memory is short.
    ///
    /// # Errors
    /// [`TlsError`], if nothing can be sent any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        loop {
            if self.push_outgoing() {
                return Poll::Ready(Ok(()));
            }
            // Full: either there is much in it, or there is no memory.
            ready!(self.conn.poll_ready(cx)).map_err(|error| self.why_not(error))?;
            ready!(self.poll_retry(cx));
        }
    }

    /// Hands over as much of what is sealed as the outbox takes; whether that was all.
    fn push_outgoing(&mut self) -> bool {
        while let Some(bytes) = self.machine.poll_outgoing() {
            match self.conn.try_send(bytes) {
                Ok(()) => {}
                Err(SendRefused::Full(Outgoing::Owned(bytes))) => {
                    self.machine.put_back_outgoing(bytes);
                    return false;
                }
                // Nobody will ever read it; whoever sends next is told.
                Err(_) => {}
            }
        }
        true
    }

    /// Why nothing can be sent: what ended the handshake or the stream says more than the transport's end.
    fn why_not(&self, error: SendError) -> TlsError {
        match (&self.failed, error) {
            (Some(failed), _) => failed.clone(),
            (None, SendError::Ended(CloseReason::PhaseTimeout))
                if self.machine.agreed().is_none() =>
            {
                TlsError::Timeout
            }
            (None, SendError::Ended(reason)) => TlsError::Ended(reason),
            (None, SendError::ShutDown) => TlsError::SentClose,
            (None, _) => TlsError::Closing,
        }
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn outbox_bytes(&self) -> u32 {
        self.conn.outbox_bytes()
    }

    /// Half-closes: what waits is sent, our close_notify and FIN follow. Receiving goes on.
    ///
    /// # Errors
    /// [`TlsError`], if nothing can be sent any more, or what was sent may be lost.
    pub async fn shutdown(&mut self) -> Result<(), TlsError> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// [`shutdown`](Self::shutdown), for those who write futures.
    ///
    /// # Errors
    /// As `shutdown`.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        self.machine.close();
        ready!(self.poll_flush(cx))?;
        self.conn.shutdown();
        Poll::Ready(self.write_end())
    }

    /// What a writer is told who asks how it went, as at [`Conn::write_end`].
    pub(crate) fn write_end(&self) -> Result<(), TlsError> {
        match self.conn.reason() {
            Some(reason) if reason.is_abortive() => Err(self.why_not(SendError::Ended(reason))),
            _ => Ok(()),
        }
    }

    // ----------------------------------------------------------------------------------- ending

    /// Closes in order, as dropping it does: what waits is sent, our close_notify and FIN follow, the peer's is waited
    /// for. If the outbox does not take all that was sent, because of [`try_send`](Self::try_send) or for want of
    /// memory, it aborts; if it only lacks room for the close_notify, the peer gets all and sees a stream that was cut
    /// off. [`shutdown`](Self::shutdown) waits for room instead. Returns at once; [`closed`](Self::closed) waits for
    /// the end.
    pub fn close(&mut self) {
        let has_all = self.push_outgoing();
        self.machine.close();
        self.push_outgoing();
        match has_all {
            true => self.conn.close(),
            // What is missing must not look like an end.
            false => self.conn.abort(),
        }
    }

    /// Ends at once: the peer sees a reset, what waits to be sent is dropped.
    pub fn abort(&mut self) {
        self.conn.abort();
    }

    /// Waits until the connection has ended.
    pub async fn closed(&mut self) -> CloseReason {
        self.conn.closed().await
    }

    /// Why the connection ended; `None` as long as it has not.
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        self.conn.reason()
    }

    // -------------------------------------------------------------------------------- the rest

    /// As [`Conn::set_idle_timeout`].
    pub fn set_idle_timeout(&mut self, idle: Timeout) {
        self.conn.set_idle_timeout(idle);
    }

    /// As [`Conn::set_phase_deadline`].
    pub fn set_phase_deadline(&mut self, within: Timeout) {
        self.conn.set_phase_deadline(within);
    }

    /// As [`Conn::end_phase`].
    pub fn end_phase(&mut self) {
        self.conn.end_phase();
    }

    /// As [`Conn::set_read_deadline`], for plaintext: what comes and makes no record whole, or an empty one, does not
    /// put it off. What passes it is [`TlsError::ReadTimeout`].
    pub fn set_read_deadline(&mut self, within: Timeout) {
        self.read_deadline = ReadDeadline::new(within);
    }

    /// Names the connection in logs.
    #[must_use]
    pub fn key(&self) -> Key {
        self.conn.key()
    }

    /// The peer's address; `None` once the connection has ended.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.conn.peer()
    }

    /// The address of this end; `None` once the connection has ended.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.conn.local()
    }

    /// As [`Conn::busy_flag`].
    #[must_use]
    pub fn busy_flag(&self) -> BusyFlag {
        self.conn.busy_flag()
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.conn.origin()
    }
}

/// The wait of [`TlsConn::recv`]. Dropped, it waits no more: a drain takes a connection for idle whose task does.
struct Receiving<'a> {
    conn: &'a mut TlsConn,
    waits: bool,
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.conn.conn.forget_reader();
        }
    }
}

impl Future for Receiving<'_> {
    type Output = Result<Option<Lease>, TlsError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.conn.poll_recv(cx);
        self.waits = polled.is_pending();
        polled
    }
}

impl Drop for TlsConn {
    fn drop(&mut self) {
        let is_unwinding = Executor::with(|executor| executor.is_unwinding()).unwrap_or(true);
        // Outside of a turn everything ends: the reactor is gone, or going.
        if !is_unwinding && self.conn.is_within_reach() {
            self.close();
        }
    }
}
