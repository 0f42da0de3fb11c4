//! How a call ended, for whoever judges the upstream or its endpoints by that.

/// What came of a call. What an error comes to says [`Error::outcome`](crate::Error::outcome).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It went well.
    Success,
    /// It failed in a way that speaks against the upstream, on a connection that had been established.
    Failure,
    /// There was no connection to be had, which speaks against it likewise: dialing failed, or the handshake of TLS.
    DialFailure,
    /// The same, and it took all the time that it may: the next one would cost that much again.
    DialTimeout,
    /// It says nothing of the upstream: cut short by us or by the client, a limit of ours, a question of patience.
    Ignored,
}

impl Outcome {
    /// Whether it speaks against the upstream.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::DialFailure | Self::DialTimeout)
    }
}
