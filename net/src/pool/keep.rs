//! What can be pooled, and how it comes about.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::conn::{Conn, Stir};
use crate::connector::{About, Connector, Stream};
use crate::failure::Error;

/// A connection that a pool can keep: a [`Conn`], or what a protocol has around one.
pub trait Keep: 'static {
    /// Ready as soon as something stirs while nobody uses it. Whoever asks is woken by all that comes after.
    fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir>;

    /// It is given out: who looked after it does so no more.
    fn forget_stir(&mut self) {}

    /// Closes it in order; done when it has ended. Its token is kept until then.
    fn close(self) -> impl Future<Output = ()>;
}

impl Keep for Conn {
    fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        Conn::poll_stir(self, cx)
    }

    fn forget_stir(&mut self) {
        Conn::forget_stir(self);
    }

    async fn close(mut self) {
        Conn::close(&mut self);
        self.closed().await;
    }
}

impl Keep for Stream {
    fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        Stream::poll_stir(self, cx)
    }

    fn forget_stir(&mut self) {
        self.forget_waits();
    }

    async fn close(mut self) {
        Stream::close(&mut self);
        self.closed().await;
    }
}

/// How the connections of a pool come about. One value for all reactors.
pub trait Establish: Send + Sync + 'static {
    /// What is established.
    type Connection: Keep;

    /// Establishes a connection, with whatever has to be said before it can be used: a protocol's greeting, a login. It
    /// is to end by itself if nobody answers. Dropped, nothing is left of it.
    fn establish(
        &self,
        endpoint: SocketAddr,
    ) -> impl Future<Output = Result<Self::Connection, Error>>;

    /// Whether a connection that was idle for long still works: a ping of its protocol. By default nothing is sent, and
    /// one that has not ended is taken for alive.
    fn is_alive(&self, connection: &mut Self::Connection) -> impl Future<Output = bool> {
        let _ = connection;
        ready(true)
    }
}

/// Establishes plain connections, by [`dial`](crate::dial).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain;

impl Establish for Plain {
    type Connection = Conn;

    async fn establish(&self, endpoint: SocketAddr) -> Result<Conn, Error> {
        let stream = Connector::default().connect(endpoint, &About::default()).await?;
        Ok(stream.into_conn().expect("nobody asked for TLS"))
    }
}
