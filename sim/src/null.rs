//! A driver that does nothing, at next to no cost: what is measured over it is the reactor.
//!
//! Every send is taken whole at the next `enter`; messages come when [`Null::deliver`] prepared them, in
//! buffers that were never written to. Nothing is checked and, once warm, nothing allocated.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use slipring_core::driver::{
    Abilities, Completion, Driver, DriverFailed, QueueFull, Share, Sockets, Submission, Wait,
};
use slipring_core::sys::memory::Memory;
use slipring_core::token::{Descriptor, Token};
use slipring_core::{Fault, Limits, TcpInfo};

/// Descriptors of clients start above this.
const FIRST_CLIENT: u32 = 10;

/// See the module's documentation.
#[derive(Debug)]
pub struct Null {
    memory: Rc<Memory>,
    published: Vec<u16>,
    /// Sends pushed: their tokens and bytes.
    sends: Vec<(Token, u32)>,
    accept: Option<Token>,
    /// Receives armed.
    receives: Vec<Token>,
    clients: u32,
    messages: usize,
    message_bytes: u32,
    pushed: u64,
}

impl Null {
    /// A driver with the buffers of these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let memory = Memory::new(limits.buffers, limits.buffer_bytes, limits.owned_bytes_max);
        let mut null = Self {
            memory,
            published: Vec::with_capacity(limits.buffers as usize),
            sends: Vec::with_capacity(limits.slots() as usize),
            accept: None,
            receives: Vec::with_capacity(limits.slots() as usize),
            clients: 0,
            messages: 0,
            message_bytes: 0,
            pushed: 0,
        };
        null.recycle();
        null
    }

    /// So many clients come in with the next `reap`.
    pub fn connect(&mut self, clients: u32) {
        self.clients = clients;
    }

    /// Each of the first `connections` that receive gets a message of so many bytes with the next `reap`.
    pub fn deliver(&mut self, connections: usize, bytes: u32) {
        self.messages = connections;
        self.message_bytes = bytes;
    }

    /// Connections that receive.
    #[must_use]
    pub fn receiving(&self) -> usize {
        self.receives.len()
    }

    /// Submissions so far.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    #[inline]
    fn reap_messages(&mut self, into: &mut Vec<Completion>, room: usize) {
        let count = self.messages.min(self.published.len()).min(room);
        let (memory, bytes) = (&self.memory, self.message_bytes);
        let left = self.messages - count;
        let tokens = &self.receives[left..self.messages];
        let kept = self.published.len() - count;
        into.extend(tokens.iter().zip(&self.published[kept..]).map(|(token, number)| {
            let span = Some(memory.claim(*number, bytes));
            Completion { span, ..Self::completion(*token, bytes, true) }
        }));
        self.published.truncate(kept);
        self.messages = left;
    }

    #[cold]
    fn reap_clients(&mut self, token: Token, into: &mut Vec<Completion>, limit: usize) {
        while self.clients > 0 && into.len() < limit {
            into.push(Self::completion(token, FIRST_CLIENT + self.clients, true));
            self.clients -= 1;
        }
    }

    #[inline]
    fn completion(token: Token, bytes: u32, more: bool) -> Completion {
        let (notification, hint) = (false, false);
        Completion { token, result: Ok(bytes), span: None, more, notification, hint }
    }
}

impl Driver for Null {
    fn abilities(&self) -> Abilities {
        Abilities { receive_cap: true, zero_copy: false }
    }

    #[inline]
    fn now_us(&self) -> u64 {
        0
    }

    #[inline]
    fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    #[inline]
    fn room(&self, _: Share) -> u32 {
        u32::MAX
    }

    #[inline]
    fn push(
        &mut self,
        token: Token,
        submission: Submission<'_>,
        _: Share,
    ) -> Result<(), QueueFull> {
        self.pushed += 1;
        match submission {
            Submission::Send { segments, .. } => {
                let bytes = match segments {
                    [segment] => segment.length,
                    segments => segments.iter().map(|segment| segment.length).sum(),
                };
                self.sends.push((token, bytes));
            }
            Submission::Receive { .. } => self.receives.push(token),
            Submission::AcceptMany(_) => self.accept = Some(token),
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn enter(&mut self, _: Wait) -> Result<(), DriverFailed> {
        self.memory.settle();
        Ok(())
    }

    #[inline]
    fn has_completions(&self) -> bool {
        self.messages > 0 || self.clients > 0 || !self.sends.is_empty()
    }

    #[inline]
    fn reap(&mut self, into: &mut Vec<Completion>, limit: usize) {
        let (before, limit) = (into.len(), into.len() + limit);
        let sent = self.sends.len().min(limit - before);
        let sends = self.sends.drain(..sent);
        into.extend(sends.map(|(token, bytes)| Self::completion(token, bytes, false)));
        self.reap_messages(into, limit - into.len());
        if let (Some(token), 1..) = (self.accept, self.clients) {
            self.reap_clients(token, into, limit);
        }
    }

    #[inline]
    fn recycle(&mut self) -> u32 {
        self.memory.publish_up_to(u32::MAX, |number| self.published.push(number))
    }

    fn open_socket(&mut self, _: &SocketAddr, _: Option<IpAddr>) -> Result<Descriptor, Fault> {
        Err(Fault::Denied)
    }

    fn set_abortive(&mut self, _: Descriptor) {}

    fn accept_queued(&mut self, _: Descriptor) -> Result<Descriptor, Fault> {
        Err(Fault::WouldBlock)
    }

    fn close_now(&mut self, _: Descriptor) {}

    fn push_wake(&mut self, _: Token) -> Result<(), QueueFull> {
        Ok(())
    }

    fn clear_wake(&mut self) {}

    fn sockets(&self) -> Rc<dyn Sockets> {
        Rc::new(Silent)
    }
}

/// Knows nothing of any socket.
#[derive(Debug)]
struct Silent;

impl Sockets for Silent {
    fn peer(&self, _: Descriptor) -> Result<SocketAddr, Fault> {
        Err(Fault::NotConnected)
    }

    fn local(&self, _: Descriptor) -> Result<SocketAddr, Fault> {
        Err(Fault::NotConnected)
    }

    fn info(&self, _: Descriptor) -> Result<TcpInfo, Fault> {
        Err(Fault::NotConnected)
    }
}
