//! How long one wait for bytes may take: armed by the wait, not by the connection.

use std::task::{Context, Poll};
use std::time::Duration;

use slipring_core::{Lease, Timeout};

use crate::tasks::Timer;

#[derive(Debug)]
pub(crate) struct ReadDeadline {
    within: Duration,
    /// Of the wait that runs.
    until_ms: Option<u64>,
    timer: Timer,
    pub(super) has_passed: bool,
}

impl ReadDeadline {
    pub(crate) fn new(within: Timeout) -> Option<Box<Self>> {
        match within {
            Timeout::Never => None,
            Timeout::After(within) => {
                let timer = Timer::default();
                Some(Box::new(Self { within, until_ms: None, timer, has_passed: false }))
            }
        }
    }

    #[cold]
    pub(crate) fn begin(&mut self) {
        let now = crate::tasks::now();
        self.until_ms = self.until_ms.filter(|until_ms| now < Duration::from_millis(*until_ms));
        self.has_passed = false;
    }

    pub(super) fn poll(
        &mut self,
        polled: Poll<Option<Lease>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Lease>> {
        match self.passes(polled.is_ready(), cx) {
            true => Poll::Ready(None),
            false => polled,
        }
    }

    /// Whether it ends the wait that runs, which has brought something or has not.
    pub(crate) fn passes(&mut self, is_ready: bool, cx: &mut Context<'_>) -> bool {
        self.has_passed = false;
        if is_ready {
            self.until_ms = None;
            return false;
        }
        let until_ms = *self.until_ms.get_or_insert_with(|| {
            let until = crate::tasks::now().saturating_add(self.within);
            slipring_core::clock::millis(until)
        });
        if self.timer.poll(until_ms, cx).is_pending() {
            return false;
        }
        self.until_ms = None;
        self.has_passed = true;
        true
    }
}
