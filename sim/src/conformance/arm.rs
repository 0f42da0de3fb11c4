//! The verbs of a script: what it asks of either kernel.

use std::net::SocketAddr;

use slipring_core::sys::bare::{Completion, Entered, Operation, Setup};
use slipring_core::{Fault, TcpInfo};

/// The other side of a connection, or a client on its way: no ring's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub(super) usize);

/// For how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// As long as it takes, within reason: what is waited for is to come.
    Long,
    /// Until nothing is under way any more: what is waited for is not to come.
    Quiet,
    /// This long, milliseconds, on either clock.
    Within(u32),
}

/// What has become of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialed {
    /// Connected.
    Connected,
    /// No answer yet.
    Pending,
    /// Failed, with this errno.
    Failed(i32),
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It did not, as far as can be told.
    Open,
    /// With a FIN.
    End,
    /// With this errno.
    Failed(i32),
}

/// What a peer has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What came after them.
    pub ending: Ending,
}

/// What to open, beyond the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// A socket with room for whatever a script sends.
    Wide,
    /// A socket that a few KiB fill, on both sides.
    Narrow,
}

/// One kernel.
pub trait Arm {
    /// Sets a ring up; rings are numbered from 0.
    fn ring(&mut self, setup: Setup) -> usize;
    /// The same, with the counter of its buffers eight below its wrap.
    fn ring_near_wrap(&mut self, setup: Setup) -> usize;
    /// Closes a ring.
    fn exit(&mut self, ring: usize);
    /// The ring's descriptor; of a closed one too.
    fn ring_descriptor(&self, ring: usize) -> u32;
    /// Queues a submission.
    fn push(&mut self, ring: usize, token: u64, operation: Operation);
    /// Hands everything queued over, then waits until `want` completions stand in the queue.
    fn enter(&mut self, ring: usize, want: usize, time: Time) -> Entered;
    /// Takes the oldest completion.
    fn reap(&mut self, ring: usize) -> Option<Completion>;
    /// Puts a descriptor into a place of the ring's table, at once; or why not.
    fn fill(&mut self, ring: usize, place: u32, descriptor: u32) -> Result<(), i32>;
    /// Publishes a held buffer again.
    fn recycle(&mut self, ring: usize, buffer: u16);

    /// A listening socket, alone or beside others at their address: its descriptor and address.
    fn listen(&mut self, backlog: u32, beside: Option<SocketAddr>) -> (u32, SocketAddr);
    /// A socket that is not connected.
    fn socket(&mut self) -> u32;
    /// An accepted socket and its peer, connected.
    fn pair(&mut self, open: Open) -> (u32, Peer);
    /// close(2), at once and past any ring.
    fn close(&mut self, descriptor: u32);
    /// The next close of the descriptor is a reset.
    fn set_abortive(&mut self, descriptor: u32);
    /// Waits until so many clients queue at the listener; whether they do.
    fn queued(&mut self, listener: u32, clients: usize) -> bool;
    /// Waits until so many bytes have arrived that nobody has read; whether they have.
    fn arrived(&mut self, descriptor: u32, bytes: usize) -> bool;
    /// Waits until the connection's end has arrived, a FIN or a reset; whether it has.
    fn ended(&mut self, descriptor: u32) -> bool;
    /// Waits until the peer has acknowledged so many bytes; whether it has.
    fn acked(&mut self, descriptor: u32, bytes: u64) -> bool;
    /// Who is at the other end of a socket, and its own address, or why that cannot be told.
    fn names(&mut self, descriptor: u32) -> (Result<SocketAddr, Fault>, Result<SocketAddr, Fault>);
    /// How a connection goes.
    fn info(&mut self, descriptor: u32) -> Result<TcpInfo, Fault>;
    /// A peer's own address, and that which it is connected to.
    fn ends_of(&mut self, peer: Peer) -> Option<(SocketAddr, SocketAddr)>;

    /// Dials from nowhere in particular, without waiting.
    fn dial(&mut self, to: SocketAddr) -> Peer;
    /// What has become of a dial.
    fn dialed(&mut self, peer: Peer, time: Time) -> Dialed;
    /// send(2) without waiting: how much was taken, or the errno.
    fn write(&mut self, peer: Peer, bytes: &[u8]) -> Result<usize, i32>;
    /// Reads until `most` bytes have come, the connection has ended, or the time is up.
    fn read(&mut self, peer: Peer, most: usize, time: Time) -> Seen;
    /// The peer's FIN.
    fn finish(&mut self, peer: Peer);
    /// The peer closes, in order or with a reset.
    fn leave(&mut self, peer: Peer, abortive: bool);

    /// Descriptors of the process that are open.
    fn open_descriptors(&mut self) -> usize;
    /// From now on so many descriptors can be opened and no more.
    fn shortage(&mut self, left: usize);
    /// One more can.
    fn relent(&mut self);
}
