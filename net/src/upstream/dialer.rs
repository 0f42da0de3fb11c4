//! How the connections of an upstream's pools come about.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Weak;
use std::task::{Context, Poll};

use slipring_core::canary::{Canary, sings};

use super::Shared;
use super::call::Trying;
use super::parties::Place;
use crate::conn::Stir;
use crate::connector::{About, Connector, Stream};
use crate::failure::{self, Error};
use crate::pool::{Establish, Keep};
use crate::tasks::timeout;

/// Establishes connections to one endpoint, within the caps of the upstream.
pub struct Dialer {
    upstream: Weak<Shared>,
    connector: Connector,
    number: u32,
}

impl Dialer {
    pub(super) fn new(upstream: Weak<Shared>, connector: Connector, number: u32) -> Self {
        Self { upstream, connector, number }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A connection of an upstream, and its place under the cap.
#[derive(Debug)]
pub struct Counted {
    stream: Stream,
    place: Place,
}

impl Counted {
    pub(super) fn new(stream: Stream, place: Place) -> Self {
        Self { stream, place }
    }

    pub(super) fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    /// Its stream, and its place under the cap, to be kept for as long as that is.
    pub(super) fn into_parts(self) -> (Stream, Place) {
        (self.stream, self.place)
    }
}

impl Deref for Counted {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

impl DerefMut for Counted {
    fn deref_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

impl Keep for Counted {
    fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        Keep::poll_stir(&mut self.stream, cx)
    }

    fn forget_stir(&mut self) {
        Keep::forget_stir(&mut self.stream);
    }

    async fn close(self) {
        let (stream, place) = self.into_parts();
        Keep::close(stream).await;
        drop(place);
    }
}

impl Establish for Dialer {
    type Connection = Counted;

    async fn establish(&self, endpoint: SocketAddr) -> Result<Counted, Error> {
        let Some(upstream) = self.upstream.upgrade() else {
            return Err(Error::new(failure::Drain::Refusing).at(endpoint));
        };
        let room = Shared::room(&upstream);
        // Kept until the dial is over: its number is nobody else's before.
        let Some(known) = room.known_as(self.number) else {
            // The endpoint has left.
            return Err(Error::new(failure::Drain::Refusing).at(endpoint));
        };
        // First a place among the dials of this endpoint: who holds a connection's meanwhile keeps it from all others.
        let _dial = match sings(Canary::DialsUncounted) {
            true => None,
            false => Some(known.dials.take().await),
        };
        let place = match room.try_connection(&known.pooled) {
            Some(place) => Some(place),
            // Who waits for it waits for that, too; what would only be kept takes nothing from anybody.
            None if known.member.pool.is_wanted() => {
                timeout(upstream.limits.connect_within, room.connection(&known.pooled)).await.ok()
            }
            None => None,
        };
        let Some(place) = place else {
            let limit = upstream.limits.connections_max;
            return Err(Error::new(failure::Admit::UpstreamLimit { limit }).at(endpoint));
        };
        let trying = Trying::begin(Rc::clone(&room), self.number);
        let result = self.connector.connect(endpoint, &About::default()).await;
        // A dial of the pool is nobody's call: what it says of the endpoint is said here.
        room.note_dial(self.number, trying.ended(), result.as_ref().err());
        result.map(|stream| Counted::new(stream, place))
    }
}
