//! How long one wait for bytes may take: armed by the wait, not by the connection.

use std::task::{Context, Poll};
use std::time::Duration;

use slipring_core::Lease;

use crate::tasks::Timer;

#[derive(Debug)]
pub(super) struct ReadDeadline {
    pub(super) within: Duration,
    /// Of the wait that runs.
    pub(super) until_ms: Option<u64>,
    pub(super) timer: Timer,
    pub(super) has_passed: bool,
}

impl ReadDeadline {
    #[cold]
    pub(super) fn begin(&mut self) {
        let now = crate::tasks::now();
        self.until_ms = self.until_ms.filter(|until_ms| now < Duration::from_millis(*until_ms));
        self.has_passed = false;
    }

    pub(super) fn poll(
        &mut self,
        polled: Poll<Option<Lease>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Lease>> {
        if polled.is_ready() {
            self.until_ms = None;
            self.has_passed = false;
            return polled;
        }
        let until_ms = *self.until_ms.get_or_insert_with(|| {
            let until = crate::tasks::now().saturating_add(self.within);
            slipring_core::clock::millis(until)
        });
        if self.timer.poll(until_ms, cx).is_pending() {
            return Poll::Pending;
        }
        self.until_ms = None;
        self.has_passed = true;
        Poll::Ready(None)
    }
}
