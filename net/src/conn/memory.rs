//! Waiting for memory: nothing tells when there is some again, so whoever waits looks again after a while.

use std::task::Context;

use super::Conn;
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
