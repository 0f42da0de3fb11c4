//! Memory for what is to be sent: how much fits at all, and the wait for it. Nothing tells when there is some again, so
//! whoever waits looks again after a while.

use std::task::Context;

use slipring_core::{Connections, Key, Outgoing};

use super::{Conn, SendError, Shell};
use crate::tasks::Timer;

/// After so long, milliseconds.
const NO_MEMORY_MS: u64 = 5;

/// When a send for which there was no memory is tried again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    timer: Timer,
    at_ms: u64,
}

impl Conn {
    /// There is no room for so much, though the outbox is not high.
    #[cold]
    pub(super) fn wait_for_memory(&mut self, cx: &mut Context<'_>) {
        let now_ms = crate::tasks::now().as_millis() as u64;
        let retry = self.retry.get_or_insert_default();
        if retry.at_ms <= now_ms {
            retry.at_ms = now_ms + NO_MEMORY_MS;
        }
        let _ = retry.timer.poll(retry.at_ms, cx);
    }
}

/// So many bytes of one's own fit once there is room.
pub(super) fn bytes_at_once(connections: &Connections<Shell>) -> usize {
    let owned = usize::try_from(connections.owned_bytes_max()).unwrap_or(usize::MAX);
    owned.min(connections.outbox_bytes_max() as usize).max(1)
}

/// So many bytes of one's own fit now, into the outbox of this one.
pub(super) fn bytes_free(connections: &Connections<Shell>, key: Key) -> usize {
    let owned = usize::try_from(connections.owned_bytes_free()).unwrap_or(usize::MAX);
    let room = connections.outbox_bytes_max().saturating_sub(connections.outbox_bytes(key));
    owned.min(room as usize)
}

/// Why not even one byte of one's own ever fits.
pub(super) fn nothing_fits(connections: &Connections<Shell>) -> Option<SendError> {
    let most = connections.owned_bytes_max();
    (most == 0).then_some(SendError::TooManyOwned { bytes: 1, most })
}

/// Why bytes for which there is no room now will find none later either.
pub(super) fn never_fits(connections: &Connections<Shell>, data: &Outgoing) -> Option<SendError> {
    let (bytes, most) = (data.len(), connections.outbox_bytes_max() as usize);
    if bytes > most {
        return Some(SendError::TooMany { bytes, most });
    }
    let most = connections.owned_bytes_max();
    let is_owned = !matches!(data, Outgoing::Static(_));
    (is_owned && bytes as u64 > most).then_some(SendError::TooManyOwned { bytes, most })
}
