//! Who is at either end of a connection, and how it goes: what the kernel is asked while handlers run.
//!
//! An address does not change, so what was learnt is kept, and told once the descriptor is gone too: in
//! [`on_close`](crate::Handler::on_close), for an access log. Only who asks pays for that: a call for the first answer,
//! and 32 bytes a slot in a list as long as the highest slot that has one. There is no list, and nothing in the slots,
//! as long as nobody asks. To learn the address of every client as it comes in, in case somebody wants it at the end,
//! would cost that for all.
//!
//! ```text
//!            dialing         open            closing       descriptor gone (on_close, as a rule)
//!   peer     what was dialed (always)  . . . . . . . . . . . . . . . . . . . .
//!            -               asked, then kept            . if it was kept
//!   local    -               asked, then kept            . if it was kept
//!   info     -               asked                       -
//! ```
//!
//! Numbers do change: `info` is of the moment, and is not kept.

use std::net::SocketAddr;
use std::rc::Rc;

use super::Connections;
use crate::canary::{Canary, sings};
use crate::connection::State;
use crate::driver::{Sockets, TcpInfo};
use crate::moving::Known;
use crate::token::{Descriptor, Key};

/// Who answers, and what was answered.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) sockets: Rc<dyn Sockets>,
    slots: u32,
    peers: Learnt,
    locals: Learnt,
}

/// An address for some of the slots.
#[derive(Debug, Default)]
struct Learnt(Vec<Option<SocketAddr>>);

/// What a slot comes to that both addresses are kept of, bytes.
pub(crate) const ADDRESSES_BYTES: u64 = 2 * size_of::<Option<SocketAddr>>() as u64;

impl Learnt {
    fn get(&self, key: Key) -> Option<SocketAddr> {
        *self.0.get(key.index() as usize)?
    }

    fn keep(&mut self, key: Key, address: SocketAddr, slots: u32) {
        let (index, before) = (key.index() as usize, self.0.len());
        if index >= before {
            // Never more than there are slots: that is in the bound of the memory.
            let after = (index + 1).next_power_of_two().min(slots as usize);
            self.0.reserve_exact(after - before);
            self.0.resize(after, None);
        }
        self.0[index] = Some(address);
    }

    #[inline]
    fn forget(&mut self, key: Key) {
        if let Some(place) = self.0.get_mut(key.index() as usize)
            && !sings(Canary::AddressKept)
        {
            *place = None;
        }
    }
}

impl Addresses {
    /// For so many slots.
    pub(crate) fn new(sockets: Rc<dyn Sockets>, slots: u32) -> Self {
        Self { sockets, slots, peers: Learnt::default(), locals: Learnt::default() }
    }

    /// What is known of a connection.
    pub(crate) fn known(&self, key: Key) -> Known {
        Known { peer: self.peers.get(key), local: self.locals.get(key) }
    }

    /// What was known of it when it was another reactor's.
    pub(crate) fn put(&mut self, key: Key, known: Known) {
        if let Some(peer) = known.peer {
            self.peers.keep(key, peer, self.slots);
        }
        if let Some(local) = known.local {
            self.locals.keep(key, local, self.slots);
        }
    }

    pub(super) fn remember_dialed(&mut self, key: Key, peer: SocketAddr) {
        self.peers.keep(key, peer, self.slots);
    }

    /// The life of the slot is over.
    #[inline]
    pub(super) fn forget(&mut self, key: Key) {
        self.peers.forget(key);
        self.locals.forget(key);
    }
}

impl<S> Connections<S> {
    /// The address of a connection's peer: of a dialed one what was dialed, from the dial on; of an accepted one what
    /// the kernel says, who is asked once. `None` if it cannot be told, or the connection is over.
    ///
    /// In [`on_close`](crate::Handler::on_close) the descriptor is gone: an accepted connection has its address there
    /// if somebody asked for it before, on this reactor or on one that it came from. So a log of connections asks in
    /// [`on_open`](crate::Handler::on_open). The first answer costs a system call and 32 bytes a slot; with direct
    /// descriptors, outside of `on_open`, also an enter, a close and a descriptor for the moment. One that has been
    /// reset since still has its address.
    ///
    /// A client of IPv4 at a listener of IPv6 is `::ffff:192.0.2.1` here, as the kernel has it:
    /// [`IpAddr::to_canonical`](std::net::IpAddr::to_canonical) makes that `192.0.2.1`.
    ///
    /// ```
    /// use slipring_core::{CloseReason, Ctx, Handler, Lease, Origin};
    ///
    /// struct Logs;
    ///
    /// impl Handler for Logs {
    ///     type State = ();
    ///
    ///     fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _: Origin) {
    ///         ctx.peer(); // known from now on
    ///     }
    ///
    ///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
    ///         ctx.send(data);
    ///     }
    ///
    ///     fn on_close(&mut self, ctx: &mut Ctx<'_, ()>, reason: CloseReason) {
    ///         println!("{:?}: {reason}", ctx.peer());
    ///     }
    /// }
    /// ```
    pub fn peer_of(&mut self, key: Key) -> Option<SocketAddr> {
        let descriptor = self.descriptor_of(key)?;
        if let Some(known) = self.addresses.peers.get(key) {
            return Some(known);
        }
        let peer = self.addresses.sockets.peer(descriptor?).ok()?;
        self.addresses.peers.keep(key, peer, self.addresses.slots);
        Some(peer)
    }

    /// The address of this end of a connection: where the client came to, if the listener has several, or what a dial
    /// goes out from. As [`peer_of`](Self::peer_of), but for a dialed connection, which has none until it is open and
    /// is asked like any other then.
    pub fn local_of(&mut self, key: Key) -> Option<SocketAddr> {
        let descriptor = self.descriptor_of(key)?;
        if let Some(known) = self.addresses.locals.get(key) {
            return Some(known);
        }
        let local = self.addresses.sockets.local(descriptor?).ok()?;
        self.addresses.locals.keep(key, local, self.addresses.slots);
        Some(local)
    }

    /// How a connection goes, as the kernel counts it at this moment: round trips, what was sent again, rates. `None`
    /// before it is open and once its descriptor is gone, in [`on_close`](crate::Handler::on_close) that is, or if it
    /// cannot be told.
    ///
    /// A system call each time, and of those with much to fill in: for now and then, not for every message. With
    /// direct descriptors, outside of `on_open`, also an enter, a close and a descriptor for the moment.
    #[must_use]
    pub fn info_of(&self, key: Key) -> Option<TcpInfo> {
        self.addresses.sockets.info(self.descriptor_of(key)??).ok()
    }

    /// Whether the kernel has no peer for an open connection any more: it was reset. As a rule
    /// [`on_close`](crate::Handler::on_close) tells that at once; but not of one that has nothing to send and is not
    /// received from, since it is held back or its peer has sent its FIN. Who holds one back for long may ask now and
    /// then. An end in both directions is told as the same, just before it is told to all.
    ///
    /// False where the driver cannot tell: a simulated one, for now. A system call, as [`info_of`](Self::info_of) is.
    #[must_use]
    pub fn is_lost(&self, key: Key) -> bool {
        let Some(Some(descriptor)) = self.descriptor_of(key) else { return false };
        self.addresses.sockets.is_lost(descriptor)
    }

    /// What is there to be asked about; `None`: no connection, `Some(None)`: no open socket.
    fn descriptor_of(&self, key: Key) -> Option<Option<Descriptor>> {
        let connection = &self.slots.get(key)?.connection;
        let is_open = !matches!(connection.state(), State::Opening { .. });
        Some(connection.descriptor_to_close().filter(|_| is_open))
    }
}
