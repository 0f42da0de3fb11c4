//! A service that handlers dial: whoever connects to it is talked to by a script of its own.

use std::net::SocketAddr;
use std::rc::Rc;

use super::cast::SharedCast;
use super::{PeerId, Script};
use crate::engine::Actor;
use crate::kernel::{FileId, Kernel, Owner};

/// Clients that it lets wait.
const BACKLOG: usize = 128;

/// Makes the script for the client of this number, from zero on.
pub(crate) type MakeScript = Box<dyn FnMut(usize) -> Script>;

/// See the module's documentation.
pub(crate) struct Service {
    cast: SharedCast,
    at: SocketAddr,
    listener: FileId,
    make: MakeScript,
    clients: Vec<PeerId>,
}

impl Service {
    /// Listens there.
    pub(crate) fn new(
        kernel: &mut Kernel,
        me: u32,
        cast: &SharedCast,
        at: SocketAddr,
        make: MakeScript,
    ) -> Self {
        let listener = kernel.listen(at, BACKLOG, Owner::Actor(me));
        Self { cast: Rc::clone(cast), at, listener, make, clients: Vec::new() }
    }

    pub(crate) fn listener(&self) -> FileId {
        self.listener
    }
}

impl Actor for Service {
    fn look(&mut self, kernel: &mut Kernel, me: u32) {
        while let Some(client) = kernel.accept(self.listener, Owner::Actor(me)) {
            let script = (self.make)(self.clients.len());
            let id = self.cast.borrow_mut().add_served(self.at, client, script);
            self.clients.push(id);
        }
        let mut cast = self.cast.borrow_mut();
        let plays = self.clients.iter().filter_map(|id| cast.play(kernel, me, *id));
        let soonest_us = plays.min();
        if let Some(in_us) = soonest_us {
            kernel.look_in(me, in_us.max(1));
        }
    }
}
