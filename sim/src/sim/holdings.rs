//! What reactors hold, for a failure that says no more than that nothing goes on.

use slipring_core::driver::Driver as _;
use slipring_core::{Handler, Key};

use super::Sim;
use crate::trace::Party;

impl<H: Handler> Sim<H> {
    /// A line for each reactor.
    pub(super) fn holdings(&mut self) -> String {
        let lines = self.engine.reactors().enumerate().map(|(place, reactor)| {
            let parked = reactor.counters().receives_parked;
            let open: Vec<Key> = reactor.handler().open.iter().copied().collect();
            let memory = reactor.driver().memory();
            let (buffers, free) = (memory.buffers(), memory.buffers_free());
            let owned = memory.owned_bytes();
            let connections = reactor.connections();
            let waiting = open.iter().map(|key| connections.outbox_bytes(*key));
            let waiting: Vec<u32> = waiting.filter(|bytes| *bytes > 0).collect();
            let bytes: u64 = waiting.iter().copied().map(u64::from).sum();
            let high = open.iter().filter(|key| connections.is_outbox_high(**key)).count();
            format!(
                "reactor {place}: {} connections, {} of {buffers} buffers held, {owned} bytes of other \
                 memory, {bytes} bytes to send in {} outboxes ({high} above their watermark), receives \
                 parked {parked} times so far",
                connections.len(),
                buffers - free,
                waiting.len(),
            )
        });
        lines.collect::<Vec<_>>().join("\n  ")
    }

    /// Connections that handlers have been told of, and not of their end.
    pub(super) fn open_parties(&mut self) -> Vec<Party> {
        let reactors = self.engine.reactors().enumerate();
        let open = reactors.flat_map(|(place, reactor)| {
            let open: Vec<Key> = reactor.handler().open.iter().copied().collect();
            open.into_iter().map(move |key| Party::of(place, key))
        });
        open.collect()
    }
}
