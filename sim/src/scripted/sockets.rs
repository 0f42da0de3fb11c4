//! The descriptors of a scripted driver, and what may be done with each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use super::{Operation, Submitted};
use slipring_core::driver;
use slipring_core::token::{Descriptor, Token};
use slipring_core::{Fault, TcpInfo};

/// The first number handed out: those below are of the process.
const FIRST: u32 = 10;

#[derive(Debug, Default)]
struct Socket {
    /// Its close was pushed.
    closed: bool,
    /// Our FIN was asked for.
    shut: bool,
    abortive: bool,
    sent: Vec<u8>,
    /// What its send queue is said to hold.
    unsent: Option<u32>,
    /// Who is said to be at the other end.
    peer: Option<Result<SocketAddr, Fault>>,
    info: TcpInfo,
}

/// See the module's documentation. Numbers are never used again, so that whatever is late shows.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    sockets: BTreeMap<Descriptor, Socket>,
    /// The descriptor each token was last pushed for.
    targets: BTreeMap<u64, Option<Descriptor>>,
    questions: u64,
}

/// Answers about them.
#[derive(Debug)]
pub(super) struct Asked(pub(super) Rc<RefCell<Sockets>>);

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

impl driver::Sockets for Asked {
    fn peer(&self, of: Descriptor) -> Result<SocketAddr, Fault> {
        let peer = self.0.borrow_mut().asked(of).peer;
        peer.unwrap_or_else(|| Ok(address(2, 49_152 + (of.0 % 16_384) as u16)))
    }

    fn local(&self, of: Descriptor) -> Result<SocketAddr, Fault> {
        self.0.borrow_mut().asked(of);
        Ok(address(1, 7000))
    }

    fn info(&self, of: Descriptor) -> Result<TcpInfo, Fault> {
        Ok(self.0.borrow_mut().asked(of).info.clone())
    }
}

impl Sockets {
    pub(super) fn open(&mut self) -> Descriptor {
        let descriptor = Descriptor(FIRST + self.sockets.len() as u32);
        self.sockets.insert(descriptor, Socket::default());
        descriptor
    }

    pub(super) fn is_open(&self, descriptor: Descriptor) -> bool {
        self.sockets.get(&descriptor).is_some_and(|socket| !socket.closed)
    }

    pub(super) fn open_count(&self) -> usize {
        self.sockets.values().filter(|socket| !socket.closed).count()
    }

    pub(super) fn is_closed(&self, descriptor: Descriptor) -> bool {
        self.sockets.get(&descriptor).is_some_and(|socket| socket.closed)
    }

    pub(super) fn is_shut(&self, descriptor: Descriptor) -> bool {
        self.sockets.get(&descriptor).is_some_and(|socket| socket.shut)
    }

    pub(super) fn is_abortive(&self, descriptor: Descriptor) -> bool {
        self.sockets.get(&descriptor).is_some_and(|socket| socket.abortive)
    }

    pub(super) fn set_abortive(&mut self, descriptor: Descriptor) {
        self.usable(descriptor, "set_abortive").abortive = true;
    }

    /// Closes at once, beside whatever is in flight.
    pub(super) fn close_now(&mut self, descriptor: Descriptor) {
        self.usable(descriptor, "close_now").closed = true;
    }

    pub(super) fn unsent(&self, descriptor: Descriptor) -> Option<u32> {
        self.sockets.get(&descriptor)?.unsent
    }

    pub(super) fn set_unsent(&mut self, descriptor: Descriptor, bytes: u32) {
        self.usable(descriptor, "set_unsent").unsent = Some(bytes);
    }

    pub(super) fn set_peer(&mut self, descriptor: Descriptor, peer: Result<SocketAddr, Fault>) {
        self.usable(descriptor, "set_peer").peer = Some(peer);
    }

    pub(super) fn set_info(&mut self, descriptor: Descriptor, info: TcpInfo) {
        self.usable(descriptor, "set_info").info = info;
    }

    pub(super) fn questions(&self) -> u64 {
        self.questions
    }

    fn asked(&mut self, descriptor: Descriptor) -> &Socket {
        self.questions += 1;
        self.usable(descriptor, "a question")
    }

    pub(super) fn append_sent(&mut self, descriptor: Descriptor, bytes: &[u8]) {
        if let Some(socket) = self.sockets.get_mut(&descriptor) {
            socket.sent.extend_from_slice(bytes);
        }
    }

    pub(super) fn take_sent(&mut self, descriptor: Descriptor) -> Vec<u8> {
        self.sockets
            .get_mut(&descriptor)
            .map_or(Vec::new(), |socket| std::mem::take(&mut socket.sent))
    }

    fn usable(&mut self, descriptor: Descriptor, what: &str) -> &mut Socket {
        let socket = self.sockets.get_mut(&descriptor);
        let socket = socket.unwrap_or_else(|| panic!("{what} on {descriptor:?}, never opened"));
        assert!(!socket.closed, "{what} on {descriptor:?}, which is closed");
        socket
    }

    /// The reactor's side of the contract, as far as it shows in one push.
    pub(super) fn check(&mut self, token: Token, submitted: &Submitted, others: &[Operation]) {
        if let Submitted::Cancel(target) = submitted {
            let pushed = self.targets.get(&target.to_bits());
            let pushed = pushed.unwrap_or_else(|| panic!("a cancel of {target:?}, never pushed"));
            if let Some(descriptor) = *pushed {
                self.usable(descriptor, "a cancel");
            }
            return;
        }
        self.targets.insert(token.to_bits(), submitted.descriptor());
        let Some(descriptor) = submitted.descriptor() else { return };
        let socket = self.usable(descriptor, &format!("{submitted:?}"));
        let mut in_flight =
            others.iter().filter(|other| other.submitted.descriptor() == Some(descriptor));
        match submitted {
            Submitted::Send { .. } => {
                assert!(!socket.shut, "a send on {descriptor:?} after its FIN");
                let sending =
                    in_flight.any(|other| matches!(other.submitted, Submitted::Send { .. }));
                assert!(!sending, "two sends in flight on {descriptor:?}");
            }
            Submitted::ShutdownWrite(_) => {
                assert!(!socket.shut, "two FINs on {descriptor:?}");
                let sending =
                    in_flight.find(|other| matches!(other.submitted, Submitted::Send { .. }));
                assert!(sending.is_none(), "a FIN on {descriptor:?} beside a send in flight");
                socket.shut = true;
            }
            Submitted::Close(_) => {
                let used = in_flight.next();
                assert!(used.is_none(), "a close of {descriptor:?} beside {used:?}");
                socket.closed = true;
            }
            _ => {}
        }
    }
}
