//! What a test says to a scripted driver, and what it asks it.

use std::net::SocketAddr;

use slipring_core::driver::{Completion, Wait};
use slipring_core::token::{Descriptor, Op, Token};
use slipring_core::{Fault, TcpInfo};

use super::{Operation, Place, Scripted, Submitted};

/// What the reactor did.
impl Scripted {
    /// The operations that are with the kernel, in the order they were pushed.
    pub fn in_flight(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| operation.place == Place::Kernel)
    }

    /// Whether something was pushed that the next `enter` takes.
    #[must_use]
    pub fn has_queued(&self) -> bool {
        self.queued() > 0
    }

    /// The token of what is in flight on a descriptor.
    #[must_use]
    pub fn find(&self, op: Op, descriptor: Descriptor) -> Option<Token> {
        let is_it = |operation: &&Operation| {
            operation.op() == op && operation.submitted.descriptor() == Some(descriptor)
        };
        self.in_flight().find(is_it).map(|operation| operation.token)
    }

    /// The token of what has to be in flight on a descriptor.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    #[track_caller]
    pub fn expect(&self, op: Op, descriptor: Descriptor) -> Token {
        match self.find(op, descriptor) {
            Some(token) => token,
            None => panic!("no {op:?} in flight on {descriptor:?}, but {:#?}", self.operations),
        }
    }

    /// The token of the cancel of `target` that has to be in flight.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    #[track_caller]
    pub fn expect_cancel(&self, target: Token) -> Token {
        let is_it = |operation: &&Operation| operation.submitted == Submitted::Cancel(target);
        self.in_flight().find(is_it).expect("a cancel of the token in flight").token
    }

    /// The bytes of the send in flight on a descriptor; empty when there is none.
    #[must_use]
    pub fn sending(&self, descriptor: Descriptor) -> &[u8] {
        let send = self.in_flight().find_map(|operation| match &operation.submitted {
            Submitted::Send { descriptor: other, bytes, .. } if *other == descriptor => Some(bytes),
            _ => None,
        });
        send.map_or(&[], |bytes| bytes)
    }

    /// Everything pushed since the last call, in order.
    pub fn take_log(&mut self) -> Vec<Submitted> {
        std::mem::take(&mut self.log)
    }

    /// How long each `enter` since the last call was allowed to wait.
    pub fn take_waits(&mut self) -> Vec<Wait> {
        std::mem::take(&mut self.waits)
    }

    /// How long the last `enter` was allowed to wait.
    #[must_use]
    pub fn last_wait(&self) -> Option<Wait> {
        self.waits.last().copied()
    }

    /// The bytes that the kernel took on a descriptor since the last call.
    pub fn take_sent(&mut self, descriptor: Descriptor) -> Vec<u8> {
        self.sockets.borrow_mut().take_sent(descriptor)
    }

    /// Whether the descriptor was closed.
    #[must_use]
    pub fn is_closed(&self, descriptor: Descriptor) -> bool {
        self.sockets.borrow_mut().is_closed(descriptor)
    }

    /// Whether our FIN was asked for.
    #[must_use]
    pub fn is_shut(&self, descriptor: Descriptor) -> bool {
        self.sockets.borrow_mut().is_shut(descriptor)
    }

    /// Whether the close of the descriptor is, or was, a reset.
    #[must_use]
    pub fn is_abortive(&self, descriptor: Descriptor) -> bool {
        self.sockets.borrow_mut().is_abortive(descriptor)
    }

    /// Descriptors that are open, listeners among them.
    #[must_use]
    pub fn open_descriptors(&self) -> usize {
        self.sockets.borrow_mut().open_count()
    }

    /// Zero-copy sends whose memory the kernel still reads.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The zero-copy sends that may be notified of now.
    #[must_use]
    pub fn awaiting_notification(&self) -> Vec<Token> {
        self.held.iter().filter(|held| held.answered).map(|held| held.token).collect()
    }

    /// Buffers the kernel could fill.
    #[must_use]
    pub fn published(&self) -> usize {
        self.published.len()
    }

    /// The buffer that would be filled next.
    #[must_use]
    pub fn first_published(&self) -> Option<u16> {
        self.published.front().copied()
    }

    /// Rings so far.
    #[must_use]
    pub fn rings(&self) -> u64 {
        self.rings
    }
}

/// What the surroundings are like.
impl Scripted {
    /// A descriptor of its own, for a listener or for an accepted client.
    pub fn descriptor(&mut self) -> Descriptor {
        self.sockets.borrow_mut().open()
    }

    /// Lets time pass, microseconds.
    pub fn advance_us(&mut self, by_us: u64) {
        self.now_us += by_us;
    }

    /// From now on `enter` takes nothing from the queue (as when it is told EBUSY), or does again.
    pub fn set_stuck(&mut self, stuck: bool) {
        self.stuck = stuck;
    }

    /// From now on the socket's send queue is said to hold so many bytes. Until told otherwise, nothing is said.
    ///
    /// # Panics
    /// If the descriptor is not open.
    pub fn set_unsent(&mut self, descriptor: Descriptor, bytes: u32) {
        self.sockets.borrow_mut().set_unsent(descriptor, bytes);
    }

    /// Says who is at the other end of a descriptor, or why that cannot be told. Without it each has an address of its
    /// own, in 192.0.2.0/24.
    ///
    /// # Panics
    /// If it was never opened, or is closed.
    pub fn set_peer(&mut self, descriptor: Descriptor, peer: Result<SocketAddr, Fault>) {
        self.sockets.borrow_mut().set_peer(descriptor, peer);
    }

    /// Says how the connection of a descriptor goes. Without it, all is zero.
    ///
    /// # Panics
    /// If it was never opened, or is closed.
    pub fn set_info(&mut self, descriptor: Descriptor, info: TcpInfo) {
        self.sockets.borrow_mut().set_info(descriptor, info);
    }

    /// Questions about sockets that the driver was asked so far.
    #[must_use]
    pub fn questions(&self) -> u64 {
        self.sockets.borrow().questions()
    }

    /// Refuses the next sends, whatever room there is (as when they have too many segments).
    pub fn refuse_sends(&mut self, sends: u32) {
        self.sends_refused = sends;
    }

    /// Makes the next `open_socket` fail; called twice, the next two.
    pub fn fail_open_socket(&mut self, fault: Fault) {
        self.open_faults.push_back(fault);
    }

    /// A client queues at the listener, and no completion says so: only who looks finds it. Its descriptor
    /// counts as open from now on.
    pub fn queue_client(&mut self, listener: Descriptor) -> Descriptor {
        let client = self.sockets.borrow_mut().open();
        self.queued_clients.push_back((listener, client));
        client
    }

    /// Makes the next `accept_queued` fail; called twice, the next two.
    pub fn fail_accept_queued(&mut self, fault: Fault) {
        self.accept_faults.push_back(fault);
    }

    /// Clients that queue at listeners.
    #[must_use]
    pub fn queued_clients(&self) -> usize {
        self.queued_clients.len()
    }

    /// Makes the next `enter` fail.
    pub fn fail_enter(&mut self, cause: &str) {
        self.enter_failure = Some(cause.to_owned());
    }

    /// Another thread rings. The completion comes as soon as the watch for it is in flight.
    pub fn ring(&mut self) {
        self.rung = true;
        self.rings += 1;
        self.post_wake();
    }
}

/// What the kernel does.
impl Scripted {
    /// Ends an operation in flight. The result of a watch for room is whether there is some: zero for none.
    ///
    /// # Panics
    /// If it is not in flight, or could not end so.
    #[track_caller]
    pub fn complete(&mut self, token: Token, result: Result<u32, Fault>) {
        self.finish(token, result, false);
    }

    /// Gives an operation in flight a result that is not its last.
    ///
    /// # Panics
    /// If it is not in flight, or could not go on so.
    #[track_caller]
    pub fn complete_with_more(&mut self, token: Token, result: Result<u32, Fault>) {
        self.finish(token, result, true);
    }

    #[track_caller]
    fn finish(&mut self, token: Token, result: Result<u32, Fault>, more: bool) {
        let in_flight = |o: &Operation| o.token == token && o.place == Place::Kernel;
        let Some(place) = self.operations.iter().position(in_flight) else {
            panic!("completed {:?}, which is not in flight", token.decode());
        };
        let submitted = &self.operations[place].submitted;
        let is_watch = matches!(submitted, Submitted::WatchWritable { .. });
        let goes_on = !matches!(submitted, Submitted::WatchWritable { many: false, .. });
        assert!(goes_on || !more, "a watch that ends with its first word");
        if let Submitted::Send { .. } = submitted {
            self.finish_send(place, result, more);
        } else if !more {
            self.operations[place].place = Place::Posted;
        }
        let hint = is_watch && result.is_ok_and(|room| room > 0);
        self.inject(Completion { token, result, span: None, more, notification: false, hint });
    }

    /// The result of a send: the reactor must have kept its bytes until now.
    #[track_caller]
    fn finish_send(&mut self, place: usize, result: Result<u32, Fault>, more: bool) {
        let operation = &self.operations[place];
        let Submitted::Send { descriptor, bytes, zero_copy } = &operation.submitted else { return };
        assert!(*zero_copy || !more, "only a zero-copy send is notified of");
        assert!(self.read(&operation.segments) == *bytes, "the bytes of a send in flight changed");
        let taken = result.unwrap_or(0) as usize;
        assert!(taken <= bytes.len(), "took {taken} of {} bytes", bytes.len());
        self.sockets.borrow_mut().append_sent(*descriptor, &bytes[..taken]);
        let token = operation.token;
        if let Some(held) = self.held.iter().position(|held| held.token == token && !held.answered)
        {
            self.held[held].answered = true;
            if !more {
                self.let_go(held);
            }
        }
        self.operations[place].place = Place::Posted;
    }

    fn let_go(&mut self, place: usize) {
        let held = self.held.remove(place);
        held.spans.into_iter().for_each(|span| self.memory.release(span));
    }

    /// The kernel lets go of the memory of a zero-copy send, which had a result with more to come.
    ///
    /// # Panics
    /// If there is no such send, or its bytes have changed since it was pushed.
    #[track_caller]
    pub fn notify(&mut self, token: Token, copied: bool) {
        let place = self.held.iter().position(|held| held.token == token && held.answered);
        let place = place.expect("a zero-copy send that has its result and not its notification");
        let segments: Vec<_> = self.held[place].spans.iter().map(|span| span.segment()).collect();
        let same = self.read(&segments) == self.held[place].bytes;
        assert!(same, "the bytes of a zero-copy send changed before its notification");
        self.let_go(place);
        let (result, span) = (Ok(0), None);
        let (more, notification, hint) = (false, true, copied);
        self.inject(Completion { token, result, span, more, notification, hint });
    }

    pub(super) fn take_queued_client(&mut self, listener: Descriptor) -> Option<Descriptor> {
        let place = self.queued_clients.iter().position(|&(at, _)| at == listener)?;
        self.queued_clients.remove(place).map(|(_, client)| client)
    }

    /// The client that has queued longest, or else a new one, is accepted by the multishot in flight, which
    /// goes on; or the watch in flight tells that it waits.
    ///
    /// # Panics
    /// If neither is in flight.
    #[track_caller]
    pub fn accept(&mut self, listener: Descriptor) -> Descriptor {
        let queued = self.take_queued_client(listener);
        let client = queued.unwrap_or_else(|| self.descriptor());
        match self.find(Op::AcceptMany, listener) {
            Some(many) => self.complete_with_more(many, Ok(client.0)),
            None => {
                self.queued_clients.push_front((listener, client));
                self.complete(self.expect(Op::WatchListener, listener), Ok(1));
            }
        }
        client
    }

    /// Bytes come, in the next published buffer; the receive stays armed.
    ///
    /// # Panics
    /// If no receive is in flight, no buffer published, or the bytes do not fit one.
    #[track_caller]
    pub fn receive(&mut self, descriptor: Descriptor, bytes: &[u8]) {
        self.receive_as(descriptor, bytes, true);
    }

    /// Bytes come, and with them the end of the receive.
    ///
    /// # Panics
    /// As [`Scripted::receive`].
    #[track_caller]
    pub fn receive_last(&mut self, descriptor: Descriptor, bytes: &[u8]) {
        self.receive_as(descriptor, bytes, false);
    }

    #[track_caller]
    fn receive_as(&mut self, descriptor: Descriptor, bytes: &[u8], more: bool) {
        let token = self.expect(Op::Receive, descriptor);
        let number = self.published.pop_front().expect("a published buffer to receive into");
        self.receive_into(token, number, bytes, more);
    }

    /// Bytes come in the buffer of this number, which has to be published.
    ///
    /// # Panics
    /// If it is not: the kernel writes to no other.
    #[track_caller]
    pub fn receive_into(&mut self, token: Token, number: u16, bytes: &[u8], more: bool) {
        self.published.retain(|published| *published != number);
        self.memory.fill(number, 0, bytes);
        let span = Some(self.memory.claim(number, bytes.len() as u32));
        let result = Ok(bytes.len() as u32);
        if !more && let Some(operation) = self.operations.iter_mut().find(|o| o.token == token) {
            operation.place = Place::Posted;
        }
        let (notification, hint) = (false, false);
        self.inject(Completion { token, result, span, more, notification, hint });
    }

    /// Posts any completion, unchecked: a stale one, a foreign one, a second one.
    pub fn inject(&mut self, completion: Completion) {
        self.completions.push_back(completion);
    }

    /// Completes what a healthy kernel completes at once, as it would: sends, half-closes, cancels and
    /// closes. Returns how many.
    pub fn oblige(&mut self) -> usize {
        let at_once = |operation: &&Operation| {
            matches!(
                operation.submitted,
                Submitted::Send { .. }
                    | Submitted::ShutdownWrite(_)
                    | Submitted::Cancel(_)
                    | Submitted::Close(_)
                    | Submitted::Notify(_)
            )
        };
        let tokens: Vec<Token> = self.in_flight().filter(at_once).map(|o| o.token).collect();
        for token in &tokens {
            self.oblige_one(*token);
        }
        tokens.len()
    }

    fn oblige_one(&mut self, token: Token) {
        let operation = self.in_flight().find(|operation| operation.token == token);
        let Some(operation) = operation else { return };
        match &operation.submitted {
            Submitted::Send { bytes, zero_copy, .. } => {
                let (taken, zero_copy) = (bytes.len() as u32, *zero_copy);
                self.finish(token, Ok(taken), zero_copy);
                if zero_copy {
                    self.notify(token, false);
                }
            }
            Submitted::Cancel(target) => {
                let target = *target;
                let waits = self.in_flight().any(|operation| operation.token == target);
                if waits {
                    self.complete(target, Err(Fault::Cancelled));
                }
                self.complete(token, if waits { Ok(0) } else { Err(Fault::NotFound) });
            }
            _ => self.complete(token, Ok(0)),
        }
    }
}
