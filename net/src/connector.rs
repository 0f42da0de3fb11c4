//! Connections to upstreams: established, with errors that say what failed.
//!
//! Is: [`Connector`], which dials, and [`Stream`], what comes of it. Is not: which endpoint, which is the balancer's,
//! nor whether to try again, which is the retry's.

mod failing;
mod stream;

use std::net::SocketAddr;

use crate::conn::dial_with;
use crate::failure::Error;
use crate::tasks::now;
use slipring_core::Dial;

pub use stream::Stream;

/// What a PROXY header says of a connection: who it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    addresses: Option<(SocketAddr, SocketAddr)>,
}

impl About {
    /// It is for this client, who connected to this address of ours. The default is for nobody but ourselves, as a
    /// health check is.
    #[must_use]
    pub const fn client(client: SocketAddr, local: SocketAddr) -> Self {
        Self { addresses: Some((client, local)) }
    }
}

/// Establishes connections. Cheap to clone; give each reactor a clone.
#[derive(Clone, Debug, Default)]
pub struct Connector {}

impl Connector {
    /// Connects to an address. Dropping the future gives it up.
    ///
    /// # Errors
    /// [`Error`], with what failed.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn connect(&self, to: SocketAddr, about: &About) -> Result<Stream, Error> {
        let _ = about.addresses;
        let begun = now();
        match dial_with(Dial::to(to)).await {
            Ok(conn) => Ok(Stream::plain(conn, to)),
            Err(error) => Err(failing::of_dial(error).at(to).after(now().saturating_sub(begun))),
        }
    }
}
