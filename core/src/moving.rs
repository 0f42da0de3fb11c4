//! A connection between two reactors: what is posted when one moves.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;

use crate::connection::Packed;
use crate::sources::Source;

/// What a handler gives a connection along: see [`Handler::on_leave`](crate::Handler::on_leave).
pub type Luggage = Box<dyn Any + Send>;

/// A connection that has left one reactor and is to arrive at another. It has its permit.
pub struct Moved {
    pub(crate) connection: Packed,
    /// The number of the listener that it came to.
    pub(crate) listener: u16,
    /// What it is counted for.
    pub(crate) source: Option<Source>,
    pub(crate) addresses: Known,
    pub(crate) luggage: Luggage,
}

/// The addresses of a connection that somebody has asked for: the peer's, and that of this end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

impl fmt::Debug for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moved")
            .field("connection", &self.connection)
            .field("listener", &self.listener)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
