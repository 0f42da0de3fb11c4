//! How a TLS connection comes about: from the transport to the end of the handshake, within a deadline.
//!
//! ```text
//!   accept:  recv_hello --whole--> wait_for a turn --> Machine, the hello opened --+
//!   connect: Machine, with a hello of its own to send -----------------------------+--> shake_hands --> TlsConn
//! ```
//!
//! What comes after that stands in `conn`; whose turn it is, and what a handshake may cost others, in `gate`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use slipring_core::{CloseReason, Timeout};

use super::client::TlsClient;
use super::conn::TlsConn;
use super::error::{AlertDescription, TlsError};
use super::gate::{Turn, Wait};
use super::hello::Hello;
use super::machine::{Machine, bare_alert};
use super::server::TlsServer;
use crate::conn::{Conn, End};
use crate::tasks::{Sleep, now, sleep_until};

impl TlsServer {
    /// Conducts the handshake with a client, as its server. It may take [`handshake_timeout`](Self::handshake_timeout),
    /// of which the wait for its turn is a part: [`handshakes_max`](Self::handshakes_max) are under way on a reactor
    /// at a time. The connection's phase deadline serves for that, so one that was set is replaced.
    ///
    /// Whose turn it is has to be polled to take it: a future that has begun and is held without being polled keeps
    /// those behind it from their turn, until it is polled again or dropped.
    ///
    /// ```no_run
    /// use slipring::tls::{TlsError, TlsServer};
    ///
    /// async fn echo(conn: slipring::Conn, server: TlsServer) -> Result<(), TlsError> {
    ///     let mut conn = server.accept(conn).await?;
    ///     while let Some(data) = conn.recv().await? {
    ///         conn.send(data).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`TlsError`]; the peer has been told, where there is an alert for it, and the connection is closed.
    pub async fn accept(&self, mut conn: Conn) -> Result<TlsConn, TlsError> {
        let cap = self.handshakes_max();
        conn.set_phase_deadline(Timeout::After(self.handshake_timeout()));
        let mut hello = recv_hello(&mut conn).await?;
        let mut turn = Turn::new(self.number());
        wait_for(&mut turn, cap, &mut conn).await?;
        let mut tls = TlsConn::new(conn, Machine::server(self)?);
        tls.open_hello(&mut hello);
        drop(hello);
        tls.shake_hands(&mut turn, cap).await?;
        Ok(tls)
    }
}

/// The whole ClientHello. Nothing is done about it yet; what came with it is there for the next `recv`.
async fn recv_hello(conn: &mut Conn) -> Result<Vec<u8>, TlsError> {
    let mut hello = Hello::default();
    loop {
        match conn.recv().await {
            Some(mut lease) => match hello.push(&lease) {
                Ok(Some(behind)) => {
                    lease.advance(lease.len() - behind);
                    conn.unrecv(lease);
                    return Ok(hello.into_bytes());
                }
                Ok(None) => {}
                Err(error) => {
                    // If it cannot be sent, there is nobody to hear it.
                    let _ = conn.try_send(bare_alert(AlertDescription::DecodeError));
                    return Err(error);
                }
            },
            None => {
                return Err(match conn.end() {
                    Some(End::ReadTimeout) => TlsError::ReadTimeout,
                    Some(End::Closed(CloseReason::PhaseTimeout)) => TlsError::Timeout,
                    Some(End::Closed(reason)) if reason != CloseReason::PeerClosed => {
                        TlsError::Ended(reason)
                    }
                    _ => TlsError::EndedInHandshake,
                });
            }
        }
    }
}

/// Waits for a turn, and for the end of the connection meanwhile.
async fn wait_for(turn: &mut Turn, cap: usize, conn: &mut Conn) -> Result<(), TlsError> {
    let mut closed = pin!(conn.closed());
    let mut until: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        loop {
            match turn.poll(cap, now(), cx) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(Wait::Wake) => break,
                Err(Wait::Until(at)) => {
                    let sleep = until.insert(Box::pin(sleep_until(at)));
                    if sleep.as_mut().poll(cx).is_pending() {
                        break;
                    }
                }
            }
        }
        closed.as_mut().poll(cx).map(|reason| match reason {
            CloseReason::PhaseTimeout => Err(TlsError::HandshakeCap { cap }),
            reason => Err(TlsError::Ended(reason)),
        })
    })
    .await
}

impl TlsClient {
    /// Conducts the handshake with a server of this name, a DNS name or an IP address, as its client. It may take
    /// [`handshake_timeout`](Self::handshake_timeout).
    ///
    /// ```no_run
    /// # async fn example(client: slipring::tls::TlsClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let conn = slipring::dial("192.0.2.1:443".parse()?).await?;
    /// let mut conn = client.connect(conn, "example.org").await?;
    /// conn.send("GET / HTTP/1.0\r\n\r\n").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TlsError`]; the peer has been told, where there is an alert for it, and the connection is closed.
    pub async fn connect(&self, conn: Conn, name: &str) -> Result<TlsConn, TlsError> {
        let mut tls = TlsConn::new(conn, Machine::client(self, name)?);
        tls.conn.set_phase_deadline(Timeout::After(self.handshake_timeout()));
        tls.shake_hands(&mut Turn::new(0), 0).await?;
        Ok(tls)
    }

    /// The same until this time on the runtime's clock, and not until an eighth later: then it is reset.
    pub(crate) async fn connect_until(
        &self,
        conn: Conn,
        name: &str,
        until: Duration,
    ) -> Result<TlsConn, TlsError> {
        let mut tls = TlsConn::new(conn, Machine::client(self, name)?);
        let mut turn = Turn::new(0);
        let shaken = {
            let (mut shaking, mut late) =
                (pin!(tls.shake_hands(&mut turn, 0)), pin!(sleep_until(until)));
            poll_fn(|cx| match shaking.as_mut().poll(cx) {
                Poll::Ready(shaken) => Poll::Ready(Some(shaken)),
                Poll::Pending => late.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
        match shaken {
            Some(shaken) => shaken.map(|()| tls),
            None => {
                tls.abort();
                Err(TlsError::Timeout)
            }
        }
    }
}

impl TlsConn {
    fn open_hello(&mut self, hello: &mut [u8]) {
        if let Err(error) = self.machine.handle_received(hello, &mut self.plain) {
            self.failed = Some(error);
        }
    }

    async fn shake_hands(&mut self, turn: &mut Turn, cap: usize) -> Result<(), TlsError> {
        // Something came, and is back in its slot until the handshake may go on: held here, it would keep its buffer
        // from others.
        let mut has_come = false;
        let shaken = poll_fn(|cx| {
            loop {
                // To the outbox, also what is said to a peer that failed.
                let flushed = self.poll_flush(cx)?;
                if flushed.is_ready() {
                    if let Some(error) = &self.failed {
                        return Poll::Ready(Err(error.clone()));
                    }
                    if self.machine.agreed().is_some() {
                        return Poll::Ready(Ok(()));
                    }
                }
                // Nor does who waits for room keep its place from others.
                if turn.poll_given_up(cx).is_ready() {
                    let failed = self.failed.clone();
                    return Poll::Ready(Err(failed.unwrap_or(TlsError::HandshakeCap { cap })));
                }
                ready!(flushed);
                if has_come {
                    ready!(turn.poll_go_on(now(), cx));
                }
                let received = ready!(self.conn.poll_recv(cx));
                // An end costs nothing that others would have to wait for.
                let may_go_on = has_come || received.is_none();
                match received {
                    Some(lease) if !may_go_on && turn.poll_go_on(now(), cx).is_pending() => {
                        self.conn.unrecv(lease);
                        has_come = true;
                        return Poll::Pending;
                    }
                    received => self.take(received),
                }
                has_come = false;
            }
        });
        shaken.await?;
        // It is for plaintext from now on.
        self.read_deadline = self.conn.take_read_deadline();
        self.conn.end_phase();
        Ok(())
    }
}
