//! Echo on a bare ring: what the kernel charges for it, and next to nothing more.
//!
//! Every received buffer is answered by one plain SEND of that buffer, which goes back to the ring
//! when the send has completed. At most one send of a connection is in flight (two may pass each
//! other); what arrives meanwhile waits in its outbox. After every completion `settle` looks at the
//! connection and does whatever has become due, so that no event has to be remembered:
//!
//! | due | when |
//! |---|---|
//! | send | something waits and no send is in flight |
//! | receive | no receive is armed, the stream goes on, and the outbox is nearly empty |
//! | pause | the outbox holds `HELD_MAX` leases: cancel the receive |
//! | close | the stream ended or broke, nothing is left to send, and the kernel holds nothing |

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

use super::DESCRIPTORS_MAX;
use super::buffers::Queue;
use super::ring::{self, Completion, Files, Op, Ring};

/// Leases a connection may hold before it stops receiving, and at which it starts again.
const HELD_MAX: u16 = 32;
const HELD_LOW: u16 = 8;
const _: () = assert!(HELD_LOW < HELD_MAX);

struct Connection {
    outbox: Queue,
    open: bool,
    receiving: bool,
    cancelling: bool,
    sending: bool,
    /// Waits in `Echo::parked` for a buffer.
    parked: bool,
    ended: bool,
    broken: bool,
}

impl Connection {
    const fn closed() -> Self {
        Self {
            outbox: Queue::new(),
            open: false,
            receiving: false,
            cancelling: false,
            sending: false,
            parked: false,
            ended: false,
            broken: false,
        }
    }

    fn kernel_holds_nothing(&self) -> bool {
        !self.receiving && !self.cancelling && !self.sending
    }
}

struct Echo<'a> {
    ring: Ring<'a>,
    listener: i32,
    /// No descriptor (or slot) was left: accept again after the next close.
    accept_parked: bool,
    connections: Vec<Connection>,
    parked: VecDeque<i32>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When the ring cannot be set up, or `io_uring_enter` fails for good.
pub fn ring_echo(listener: &TcpListener, buffer_bytes: u32, files: Files) -> io::Result<()> {
    let mut io = ring::set_up()?;
    let mut echo = Echo {
        ring: Ring::new(&mut io, buffer_bytes, files)?,
        listener: listener.as_raw_fd(),
        accept_parked: false,
        connections: (0..DESCRIPTORS_MAX).map(|_| Connection::closed()).collect(),
        parked: VecDeque::new(),
    };
    echo.ring.accept(echo.listener);
    loop {
        echo.ring.turn()?;
        while let Some(completion) = echo.ring.next() {
            echo.dispatch(completion);
        }
        echo.unpark();
    }
}

impl Echo<'_> {
    fn dispatch(&mut self, completion: Completion) {
        match completion.op {
            Op::Accept => return self.on_accept(completion),
            Op::Receive => self.on_receive(completion),
            Op::Send => self.on_send(completion),
            Op::Cancel => self.connections[completion.fd as usize].cancelling = false,
            Op::Close | Op::Connect | Op::Shutdown => return,
        }
        self.settle(completion.fd);
    }

    fn on_accept(&mut self, completion: Completion) {
        let accepted = completion.result;
        if accepted >= 0 {
            let connection = &mut self.connections[accepted as usize];
            *connection = Connection::closed();
            connection.open = true;
            self.settle(accepted);
        }
        if completion.more {
            return;
        }
        match -accepted {
            libc::EMFILE | libc::ENFILE => self.accept_parked = true,
            _ => self.ring.accept(self.listener),
        }
    }

    fn on_receive(&mut self, completion: Completion) {
        let connection = &mut self.connections[completion.fd as usize];
        connection.receiving = completion.more;
        if let Some(buffer) = completion.buffer {
            self.ring.buffers.take(buffer, completion.result.max(0) as u32);
            if completion.result > 0 {
                return connection.outbox.push(&mut self.ring.buffers, buffer);
            }
            self.ring.buffers.give_back(buffer);
        }
        match -completion.result {
            libc::ENOBUFS => {
                connection.parked = true;
                self.parked.push_back(completion.fd);
            }
            libc::ECANCELED => {}
            0 => connection.ended = true,
            _ => {
                connection.ended = true;
                connection.broken = true;
            }
        }
    }

    fn on_send(&mut self, completion: Completion) {
        let connection = &mut self.connections[completion.fd as usize];
        connection.sending = false;
        if completion.result >= 0 {
            connection.outbox.advance(&mut self.ring.buffers, completion.result as u32);
        } else {
            connection.broken = true;
        }
    }

    fn settle(&mut self, fd: i32) {
        let connection = &mut self.connections[fd as usize];
        if !connection.open {
            return;
        }
        if !connection.sending {
            if connection.broken {
                connection.outbox.clear(&mut self.ring.buffers);
            } else if let Some(buffer) = connection.outbox.front() {
                connection.sending = true;
                self.ring.send(fd, buffer);
            }
        }
        let held = connection.outbox.len();
        if connection.receiving {
            // Broken: a receive whose wake-up met unread data may never notice the reset by itself
            // (6.18 loses that one), so it is taken back rather than waited for.
            if (held >= HELD_MAX || connection.broken) && !connection.cancelling {
                connection.cancelling = true;
                self.ring.cancel_receive(fd);
            }
        } else if connection.ended || connection.broken {
            if held == 0 && connection.kernel_holds_nothing() {
                connection.open = false;
                self.ring.close(fd);
                if std::mem::take(&mut self.accept_parked) {
                    self.ring.accept(self.listener);
                }
            }
        } else if held <= HELD_LOW && !connection.parked && !connection.cancelling {
            connection.receiving = true;
            self.ring.receive(fd);
        }
    }

    /// Buffers came back: one attempt for each, oldest waiter first.
    fn unpark(&mut self) {
        for _ in 0..self.ring.buffers.free() {
            let Some(fd) = self.parked.pop_front() else { return };
            if std::mem::take(&mut self.connections[fd as usize].parked) {
                self.settle(fd);
            }
        }
    }
}
