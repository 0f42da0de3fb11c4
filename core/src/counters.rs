//! What one reactor counts. Plain numbers: the reactor alone writes them, a report copies them out.

/// Numbers of one reactor since it started. Bytes are bytes; everything else is a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Passes of the reactor.
    pub turns: u64,
    /// Completions taken from the kernel.
    pub completions: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Dials begun.
    pub dialed: u64,
    /// Connections that ended; `accepted + dialed - closed` are open.
    pub closed: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes the kernel took.
    pub bytes_sent: u64,
    /// Completions of a connection that no longer was there, or of an earlier activation.
    pub stale_completions: u64,
    /// Receives that found no free buffer and were parked.
    pub receives_parked: u64,
    /// Completions put off to the next turn because their connection had used its share of this one.
    pub completions_deferred: u64,
    /// Sends that the socket took only in part, or not at all.
    pub sends_blocked: u64,
    /// Buffers freed early by copying the bytes of a stalled reader to plain memory.
    pub buffers_spilled: u64,
    /// Sends made without a copy, and those of them that the kernel copied all the same.
    pub zero_copy_sends: u64,
    /// See `zero_copy_sends`.
    pub zero_copy_copied: u64,
    /// Clients handed over to another reactor, and those taken over from others. Who serves them counts them as
    /// accepted.
    pub handed_over: u64,
    /// See `handed_over`.
    pub taken_over: u64,
    /// Clients that were to be handed over and stayed, because the other's mailbox was full.
    pub mailboxes_full: u64,
    /// Accepts that failed, of any cause.
    pub accept_errors: u64,
    /// Times the acceptor stopped for want of descriptors.
    pub accept_pauses: u64,
    /// Handlers that panicked, each of which ended its connection.
    pub handler_panics: u64,
    /// Turns that found their completions by polling, and those that polled in vain.
    pub polls_paid: u64,
    /// See `polls_paid`.
    pub polls_vain: u64,
    /// Connections the drain deadline aborted.
    pub drain_aborted: u64,
}
