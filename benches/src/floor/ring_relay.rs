//! Relay on a bare ring: each accepted client is bridged to a connection dialled for it.
//!
//! ```text
//!   client ──receive*──> leases ──> upstream.outbox ──one vectored send──> upstream   and back
//! ```
//! Leases of one connection that arrive in one turn leave as one message: sides touched in a turn
//! are settled once, at its end. At most one send is in flight a direction. A side whose far outbox
//! is full stops receiving; a FIN is passed on once everything before it has been sent; an error on
//! either side ends both. Both sides close together, when the kernel holds nothing of either.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};

use socket2::{Domain, SockAddr, Socket, Type};

use super::DESCRIPTORS_MAX;
use super::buffers::Queue;
use super::ring::{self, Completion, Files, Message, Op, Ring, VECTORS};

/// Leases a direction may hold before its source stops receiving, and at which it starts again.
const HELD_MAX: u16 = 32;
const HELD_LOW: u16 = 8;
const _: () = assert!(HELD_LOW < HELD_MAX && HELD_MAX as usize >= VECTORS);

/// One of the two connections of a bridge.
struct Side {
    /// The other one.
    peer: i32,
    /// What waits to be sent here; it came from the peer.
    outbox: Queue,
    message: Box<Message>,
    connected: bool,
    receiving: bool,
    cancelling: bool,
    /// A connect, send or shutdown is in flight: one at a time.
    writing: bool,
    /// Waits in `Relay::parked` for a buffer.
    parked: bool,
    /// Its stream ended: nothing more will be received.
    ended: bool,
    /// The peer's end was passed on to here.
    finished: bool,
    /// An error on either side ended the bridge.
    broken: bool,
    /// Stands in `Relay::touched`.
    touched: bool,
}

impl Side {
    fn new(peer: i32, connected: bool) -> Self {
        Self {
            peer,
            outbox: Queue::new(),
            message: Message::new(),
            connected,
            receiving: false,
            cancelling: false,
            writing: false,
            parked: false,
            ended: false,
            finished: false,
            broken: false,
            touched: false,
        }
    }

    fn is_done(&self) -> bool {
        let over = self.broken || (self.ended && self.finished);
        over && !self.receiving && !self.cancelling && !self.writing && self.outbox.is_empty()
    }
}

struct Relay<'a> {
    ring: Ring<'a>,
    listener: i32,
    upstream: SocketAddr,
    upstream_raw: SockAddr,
    /// No descriptor was left: accept again after the next close.
    accept_parked: bool,
    sides: Vec<Option<Side>>,
    touched: Vec<i32>,
    parked: VecDeque<i32>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When the ring cannot be set up, or `io_uring_enter` fails for good.
pub fn ring_relay(listener: &TcpListener, to: SocketAddr, buffer_bytes: u32) -> io::Result<()> {
    let mut io = ring::set_up()?;
    let mut relay = Relay {
        ring: Ring::new(&mut io, buffer_bytes, Files::Descriptors)?,
        listener: listener.as_raw_fd(),
        upstream: to,
        upstream_raw: to.into(),
        accept_parked: false,
        sides: (0..DESCRIPTORS_MAX).map(|_| None).collect(),
        touched: Vec::new(),
        parked: VecDeque::new(),
    };
    relay.ring.accept(relay.listener);
    let mut touched = Vec::new();
    loop {
        relay.ring.turn()?;
        while let Some(completion) = relay.ring.next() {
            relay.dispatch(completion);
        }
        relay.unpark();
        std::mem::swap(&mut touched, &mut relay.touched);
        for fd in touched.drain(..) {
            relay.settle(fd);
        }
    }
}

impl Relay<'_> {
    fn side(&mut self, fd: i32) -> &mut Side {
        self.sides[fd as usize].as_mut().expect("closed only when the kernel holds nothing of it")
    }

    fn dispatch(&mut self, completion: Completion) {
        match completion.op {
            Op::Accept => return self.on_accept(completion),
            Op::Close => return,
            Op::Receive => self.on_receive(completion),
            Op::Send => self.on_send(completion),
            Op::Cancel => self.side(completion.fd).cancelling = false,
            Op::Connect | Op::Shutdown => self.on_written(completion),
        }
        self.touch(completion.fd);
        let peer = self.side(completion.fd).peer;
        self.touch(peer);
    }

    fn touch(&mut self, fd: i32) {
        if !std::mem::replace(&mut self.side(fd).touched, true) {
            self.touched.push(fd);
        }
    }

    fn on_accept(&mut self, completion: Completion) {
        let client = completion.result;
        if client >= 0 {
            match dial_socket(self.upstream) {
                Ok(upstream) => {
                    self.sides[client as usize] = Some(Side::new(upstream, true));
                    let mut side = Side::new(client, false);
                    side.writing = true;
                    self.sides[upstream as usize] = Some(side);
                    self.ring.connect(upstream, &self.upstream_raw);
                }
                Err(_) => self.ring.close(client),
            }
        }
        if completion.more {
            return;
        }
        match -client {
            libc::EMFILE | libc::ENFILE => self.accept_parked = true,
            _ => self.ring.accept(self.listener),
        }
    }

    fn on_receive(&mut self, completion: Completion) {
        let side = self.side(completion.fd);
        side.receiving = completion.more;
        let peer = side.peer;
        if let Some(buffer) = completion.buffer {
            self.ring.buffers.take(buffer, completion.result.max(0) as u32);
            let to = self.sides[peer as usize].as_mut().expect("a bridge closes as one");
            if completion.result > 0 {
                return to.outbox.push(&mut self.ring.buffers, buffer);
            }
            self.ring.buffers.give_back(buffer);
        }
        match -completion.result {
            libc::ENOBUFS => {
                self.side(completion.fd).parked = true;
                self.parked.push_back(completion.fd);
            }
            libc::ECANCELED => {}
            0 => self.side(completion.fd).ended = true,
            _ => self.break_bridge(completion.fd),
        }
    }

    fn on_send(&mut self, completion: Completion) {
        if completion.result > 0 {
            let side = self.sides[completion.fd as usize].as_mut().expect("its send was in flight");
            side.outbox.advance(&mut self.ring.buffers, completion.result as u32);
        }
        self.on_written(completion);
    }

    /// The one operation of the writing direction completed.
    fn on_written(&mut self, completion: Completion) {
        let side = self.side(completion.fd);
        side.writing = false;
        side.connected |= completion.op == Op::Connect && completion.result >= 0;
        if completion.result < 0 {
            self.break_bridge(completion.fd);
        }
    }

    /// Ends both directions: shutting the sockets down makes a write in flight complete.
    fn break_bridge(&mut self, fd: i32) {
        let peer = self.side(fd).peer;
        for fd in [fd, peer] {
            self.side(fd).broken = true;
            self.ring.abort(fd);
        }
    }

    /// Does whatever has become due on one side.
    fn settle(&mut self, fd: i32) {
        let Some(side) = self.sides[fd as usize].as_mut() else { return };
        side.touched = false;
        if side.broken && !side.writing {
            side.outbox.clear(&mut self.ring.buffers);
        }
        let peer = side.peer;
        let far = self.sides[peer as usize].as_ref().expect("a bridge closes as one");
        let (far_ended, far_connected, far_held) = (far.ended, far.connected, far.outbox.len());
        self.settle_writing(fd, far_ended);
        self.settle_receiving(fd, far_connected, far_held);
        let is_done = |side: &Option<Side>| side.as_ref().is_some_and(Side::is_done);
        if is_done(&self.sides[fd as usize]) && is_done(&self.sides[peer as usize]) {
            self.close(fd);
            self.close(peer);
        }
    }

    fn settle_writing(&mut self, fd: i32, far_ended: bool) {
        let side = self.sides[fd as usize].as_mut().expect("settled");
        if side.writing || side.broken || !side.connected {
            return;
        }
        let Some(front) = side.outbox.front() else {
            if far_ended && !side.finished {
                side.finished = true;
                side.writing = true;
                self.ring.shut_down(fd);
            }
            return;
        };
        side.writing = true;
        if side.outbox.len() == 1 {
            self.ring.send(fd, front);
        } else {
            self.ring.send_vectored(fd, &mut side.message, &side.outbox);
        }
    }

    fn settle_receiving(&mut self, fd: i32, far_connected: bool, far_held: u16) {
        let side = self.side(fd);
        if side.receiving {
            // Broken: a receive whose wake-up met unread data may never notice the reset by itself
            // (6.18 loses that one), so it is taken back rather than waited for.
            if (far_held >= HELD_MAX || side.broken) && !side.cancelling {
                side.cancelling = true;
                self.ring.cancel_receive(fd);
            }
            return;
        }
        let may = side.connected && far_connected && !side.ended && !side.broken;
        if may && !side.parked && !side.cancelling && far_held <= HELD_LOW {
            side.receiving = true;
            self.ring.receive(fd);
        }
    }

    fn close(&mut self, fd: i32) {
        self.sides[fd as usize] = None;
        self.ring.close(fd);
        if std::mem::take(&mut self.accept_parked) {
            self.ring.accept(self.listener);
        }
    }

    /// Buffers came back: one attempt for each, oldest waiter first.
    fn unpark(&mut self) {
        for _ in 0..self.ring.buffers.free() {
            let Some(fd) = self.parked.pop_front() else { return };
            if let Some(side) = self.sides[fd as usize].as_mut()
                && std::mem::take(&mut side.parked)
            {
                self.touch(fd);
            }
        }
    }
}

fn dial_socket(to: SocketAddr) -> io::Result<i32> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into_raw_fd())
}
