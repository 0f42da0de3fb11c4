//! Dialing from a task.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

#[cfg(feature = "faults")]
use slipring_core::Timeout;
use slipring_core::{CloseReason, Dial, DialRefused, Fault};

use super::{Conn, Shell, reason, shell};
use crate::tasks::{note, put_aside};

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// It was not begun.
    #[error("not dialed: {0}")]
    NotBegun(#[from] DialRefused),
    /// The host or the network said no.
    #[error("dial failed: {0}")]
    Failed(Fault),
    /// Nobody answered within [`Timeouts::dial`](crate::Timeouts::dial), or what the dial had instead.
    #[error("dial timed out")]
    Timeout,
    /// The reactor ended it.
    #[error("dial given up: {0}")]
    Ended(CloseReason),
}

/// Dials an address, from a task. Needs [`Builder::max_dialed`](crate::Builder::max_dialed): by default a runtime
/// dials nobody. Dropping the future gives the dial up.
///
/// # Errors
/// [`DialError`].
///
/// # Panics
/// Outside of a reactor's tasks.
pub async fn dial(address: SocketAddr) -> Result<Conn, DialError> {
    dial_with(Dial::to(address)).await
}

/// [`dial`], from a local address or with a timeout of its own.
///
/// # Errors
/// [`DialError`].
///
/// # Panics
/// Outside of a reactor's tasks.
pub async fn dial_with(dial: Dial) -> Result<Conn, DialError> {
    let conn = begin(dial)?;
    poll_fn(|cx| {
        conn.with(|connections, key| match connections.state_of(key) {
            Some(shell) if shell.is_open => Poll::Ready(Ok(())),
            Some(shell) => {
                put_aside(note(&mut shell.writer, cx));
                Poll::Pending
            }
            None => {
                let was_open = shell::with_remain(key, |remain| remain.was_open).unwrap_or(false);
                Poll::Ready(match reason(key) {
                    // It has been open, if only for a moment: what came is there to be received.
                    Some(_) if was_open => Ok(()),
                    Some(CloseReason::DialFailed(fault)) => Err(DialError::Failed(fault)),
                    Some(CloseReason::DialTimeout) => Err(DialError::Timeout),
                    Some(reason) => Err(DialError::Ended(reason)),
                    None => Err(DialError::Ended(CloseReason::DriverFailed)),
                })
            }
        })
    })
    .await?;
    Ok(conn)
}

/// How long a dial takes at most that says nothing of it.
///
/// # Panics
/// Outside of a reactor's tasks.
#[cfg(feature = "faults")]
pub(crate) fn dial_timeout() -> Timeout {
    match shell::with(|connections| connections.dial_timeout()) {
        Some(timeout) => timeout,
        None => panic!("`dial` was called outside of a reactor's tasks"),
    }
}

fn begin(dial: Dial) -> Result<Conn, DialError> {
    let begun = shell::with(|connections| {
        connections.dial_with(dial, Shell::held()).map(|key| Conn::new(connections, key))
    });
    match begun {
        Some(begun) => Ok(begun?),
        None => panic!("`dial` was called outside of a reactor's tasks"),
    }
}
