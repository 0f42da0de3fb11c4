//! What is asked about sockets, by handlers as a rule: who is at the other end, and how it goes.
//!
//! Of a descriptor each is a system call. Of a place in the ring's table there is none: a descriptor is installed
//! beside the place for the moment of the call (IORING_OP_FIXED_FD_INSTALL). That costs an enter and a close more, and
//! needs a descriptor to be had. To remember the addresses of everybody who moves into the table would cost two calls
//! and 64 bytes for each, asked for or not, and would be no help with TCP_INFO.

use std::fmt;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use super::super::{questions, socket};
use super::direct::install;
use super::queues::Queues;
use crate::driver::{Sockets, TcpInfo};
use crate::error::Fault;
use crate::token::Descriptor;

/// See the module's documentation.
pub(super) struct Asked(Weak<Queues>);

impl Asked {
    pub(super) fn through(queues: &Rc<Queues>) -> Self {
        Self(Rc::downgrade(queues))
    }

    fn ask<T>(
        &self,
        of: Descriptor,
        question: fn(Descriptor) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match of.place() {
            None => question(of),
            Some(place) => self.ask_of_place(place, question),
        }
    }

    #[cold]
    fn ask_of_place<T>(
        &self,
        place: u32,
        question: fn(Descriptor) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // Without a ring there is no table.
        let queues = self.0.upgrade().ok_or(Fault::NotConnected)?;
        let beside = install(&queues, place)?;
        let answer = question(beside);
        socket::close(beside);
        answer
    }
}

impl Sockets for Asked {
    fn peer(&self, of: Descriptor) -> Result<SocketAddr, Fault> {
        self.ask(of, questions::peer)
    }

    fn local(&self, of: Descriptor) -> Result<SocketAddr, Fault> {
        self.ask(of, questions::local)
    }

    fn info(&self, of: Descriptor) -> Result<TcpInfo, Fault> {
        self.ask(of, questions::info)
    }

    fn is_lost(&self, of: Descriptor) -> bool {
        self.ask(of, questions::is_lost).unwrap_or(false)
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}
