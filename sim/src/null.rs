//! A driver that does nothing, at next to no cost: what is measured over it is the reactor.
//!
//! Every send is taken whole at the next `enter`; messages come when [`Null::deliver`] prepared them, in
//! buffers that were never written to. Nothing is checked and, once warm, nothing allocated.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use slipring_core::driver::{
    Abilities, Completion, Driver, DriverFailed, QueueFull, Share, Submission, Wait,
};
use slipring_core::sys::memory::Memory;
use slipring_core::token::{Descriptor, Token};
use slipring_core::{Fault, Limits};

/// See the module's documentation.
#[derive(Debug)]
pub struct Null {
    memory: Rc<Memory>,
    published: VecDeque<u16>,
    /// Sends pushed: their tokens and bytes.
    sends: VecDeque<(Token, u32)>,
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
            published: VecDeque::with_capacity(limits.buffers as usize),
            sends: VecDeque::with_capacity(limits.slots() as usize),
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
                let bytes = segments.iter().map(|segment| segment.length).sum();
                self.sends.push_back((token, bytes));
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
    fn reap(&mut self, into: &mut VecDeque<Completion>, limit: usize) {
        for _ in 0..limit {
            if let Some((token, bytes)) = self.sends.pop_front() {
                into.push_back(Self::completion(token, bytes, false));
            } else if self.messages > 0 {
                self.messages -= 1;
                let Some(number) = self.published.pop_front() else { return };
                let span = Some(self.memory.claim(number, self.message_bytes));
                let token = self.receives[self.messages];
                let completion = Self::completion(token, self.message_bytes, true);
                into.push_back(Completion { span, ..completion });
            } else if let (Some(token), 1..) = (self.accept, self.clients) {
                into.push_back(Self::completion(token, 10 + self.clients, true));
                self.clients -= 1;
            } else {
                return;
            }
        }
    }

    #[inline]
    fn recycle(&mut self) -> u32 {
        let before = self.published.len();
        while let Some(number) = self.memory.take_returned() {
            self.published.push_back(number);
        }
        (self.published.len() - before) as u32
    }

    fn open_socket(&mut self, _: &SocketAddr) -> Result<Descriptor, Fault> {
        Err(Fault::Denied)
    }

    fn set_abortive(&mut self, _: Descriptor) {}

    fn accept_queued(&mut self, _: Descriptor) -> Option<Descriptor> {
        None
    }

    fn close_now(&mut self, _: Descriptor) {}

    fn push_wake(&mut self, _: Token) -> Result<(), QueueFull> {
        Ok(())
    }

    fn clear_wake(&mut self) {}

    fn addresses(&self, _: Descriptor) -> Result<(SocketAddr, SocketAddr), Fault> {
        Err(Fault::NotConnected)
    }
}
