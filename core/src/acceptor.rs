//! The listeners of one reactor: how they accept, pause and close.
//!
//! ```text
//!        room for a backlog              recalled, or near the cap
//!  Idle --------------------> Many ---------------------------------> Cancelling --> Idle
//!   |
//!   |  near the cap                a client waits             let in, if it has a place
//!   +--------------> Watching ---------------------> Ready ---------------------------> Idle
//!
//!                                                    no descriptors: Idle, after a pause
//! ```
//!
//! Far from the caps one multishot accept serves each listener. Near that of the process or its own a client
//! is let in only with a permit in hand; the others stay in the kernel's backlog, where they belong: accepting
//! to refuse is a lie. A listener at its own cap keeps nobody from another: each goes its own way.
//!
//! That one is accepted by a plain call, not through the ring. The poll that announced it may have been
//! wrong, the client may have gone since, or another process that shares the socket may have taken it: an
//! accept in the ring would then wait, on a non-blocking socket too, and keep its permit from all other
//! listeners for as long as nobody comes to this one. (IORING_ACCEPT_DONTWAIT ends it, but only from 6.10 on,
//! and a call for each client near the cap is little.) So a permit is held no longer than a call takes.
//!
//! A listener that stops takes in who has a place and queues already, before it closes: the kernel has told
//! those clients that they are connected.
//!
//! What else a listener may do with its clients when every place is taken stands in `acceptor/full.rs`, and how
//! those with a rate keep to it in `acceptor/paced.rs`: they never arm a multishot.
//!
//! EMFILE and its kin pause all accepting until a descriptor comes back, with a slow timer beside it. No
//! errno ends a listener; a storm of failures is answered with the same pause.

mod full;
mod paced;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::admission::{Admission, Reservation};
use crate::canary::{Canary, sings};
use crate::driver::{Completion, Driver, QueueFull, Share, Submission};
use crate::error::Fault;
use crate::front::Front;
use crate::pace::Pace;
use crate::token::{Descriptor, Key, Op, Token};
use full::Eviction;

/// How long accepting rests when descriptors ran out and none comes back, milliseconds.
pub(crate) const PAUSE_MS: u64 = 100;
/// Failures in a row that count as a storm.
const STORM: u32 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Many,
    Cancelling,
    Watching,
    /// Its watch has said that a client waits.
    Ready,
    /// A client waits, and for it there is no token of a rate until this time.
    Paced {
        until_us: u64,
    },
    Closing,
    Closed,
}

#[derive(Debug)]
struct Listener {
    descriptor: Descriptor,
    state: State,
    /// What the operation in flight is, for its cancel.
    op: Op,
    activation: u8,
    cancel_in_flight: bool,
    /// Its multishot was given up for somebody who needs the room: the next client is accepted alone, and
    /// what follows is for the turn after. If it were armed again at once, it would take the room before the
    /// other came to look, for ever.
    recalled: bool,
    /// What its multishot has reserved and not used up.
    reservation: Reservation,
    /// It has found no permit since its clients were last looked through.
    is_full: bool,
    eviction: Eviction,
}

/// What came of letting one in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    In,
    /// There was no permit for it.
    NoPermit,
    /// There was no token for it, of a rate; there may be one at this time.
    NoToken {
        until_us: u64,
    },
    /// Nobody was there, or it could not be accepted.
    Nobody,
}

/// A client that was accepted, but not yet opened.
#[derive(Debug)]
struct Client {
    descriptor: Descriptor,
    listener: u16,
}

/// What went wrong, or had to wait, since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Accepts that failed.
    pub(crate) errors: u64,
    /// Pauses that began: look again after [`PAUSE_MS`].
    pub(crate) pauses: u64,
    /// Clients that were refused for want of a place.
    pub(crate) refused: u64,
    /// Clients that were left waiting for want of a token: look again at [`Acceptor::next_token_us`].
    pub(crate) paced: u64,
}

/// The listeners of one reactor.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    admission: Arc<Admission>,
    front: Arc<Front>,
    pace: Arc<Pace>,
    reactor: usize,
    /// Clients with a permit, on their way to a slot.
    admitted: VecDeque<Client>,
    /// Clients that a multishot accepted beyond its reservation: each waits for a permit, before all that
    /// still queue.
    early: VecDeque<Client>,
    paused: bool,
    /// The reactor has too much already.
    held: bool,
    stopping: bool,
    /// Failures without a success between them.
    in_a_row: u32,
    untold: Failures,
    /// Something happened since the last `poll`.
    changed: bool,
}

impl Acceptor {
    pub(crate) fn new(
        listeners: Vec<Descriptor>,
        (admission, front, pace): (Arc<Admission>, Arc<Front>, Arc<Pace>),
        reactor: usize,
    ) -> Self {
        front.tell_listeners(reactor, &listeners);
        let listeners = listeners
            .into_iter()
            .map(|descriptor| Listener {
                descriptor,
                state: State::Idle,
                op: Op::AcceptMany,
                activation: 0,
                cancel_in_flight: false,
                recalled: false,
                reservation: Reservation::default(),
                is_full: false,
                eviction: Eviction::None,
            })
            .collect();
        Self {
            listeners,
            admission,
            front,
            pace,
            reactor,
            admitted: VecDeque::new(),
            early: VecDeque::new(),
            paused: false,
            held: false,
            stopping: false,
            in_a_row: 0,
            untold: Failures::default(),
            changed: true,
        }
    }

    /// Another reactor rang, a descriptor came back, or the pause is over.
    pub(crate) fn look_again(&mut self) {
        self.changed = true;
        self.paused = self.paused && sings(Canary::AcceptStaysPaused);
    }

    /// Nobody is to be accepted for now, or again.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
        self.changed = true;
        if held {
            self.ask_for_none();
        }
    }

    /// A descriptor of this reactor was closed.
    #[inline]
    pub(crate) fn descriptor_returned(&mut self) {
        if self.paused {
            self.look_again();
        }
    }

    /// Rings another reactor.
    pub(crate) fn ring(&self, reactor: usize) {
        self.admission.ring_one(reactor);
    }

    /// Rings every reactor.
    pub(crate) fn ring_all(&self) {
        self.admission.ring_all();
    }

    /// Stops accepting and closes the listeners.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        self.changed = true;
        self.ask_for_none();
    }

    /// Whether every listener is closed.
    pub(crate) fn is_stopped(&self) -> bool {
        self.admitted.is_empty()
            && self.early.is_empty()
            && self.listeners.iter().all(|l| l.state == State::Closed && !l.cancel_in_flight)
    }

    /// A connection that was accepted by this listener, here or on another reactor, is over.
    pub(crate) fn release(&mut self, listener: u16) {
        self.admission.release(self.reactor, listener);
        self.changed = true;
    }

    /// Whether it accepts, as far as it is up to it.
    pub(crate) fn is_accepting(&self) -> bool {
        !self.paused && !self.held && !self.stopping
    }

    /// A listener that keeps clients waiting although there is room, and that nothing will make look again.
    pub(crate) fn find_idle_with_room(&self) -> Option<usize> {
        if self.changed || !self.is_accepting() {
            return None;
        }
        let idle = |number: &usize| {
            self.listeners[*number].state == State::Idle && self.admission.is_open(*number as u16)
        };
        (0..self.listeners.len()).find(idle)
    }

    /// Takes in a completion of one of the accept operations.
    pub(crate) fn handle(&mut self, op: Op, key: Key, activation: u8, completion: &Completion) {
        self.changed = true;
        let number = key.index() as u16;
        let listener = &mut self.listeners[usize::from(number)];
        match op {
            Op::CancelAccept => {
                listener.cancel_in_flight = false;
                // It may have come too early or too late: what is still in flight is looked at again.
                if listener.state == State::Cancelling {
                    listener.state = State::Many;
                }
                return;
            }
            Op::CloseOther => {
                listener.state = State::Closed;
                return;
            }
            _ => {}
        }
        let listener_is_cancelling = listener.cancel_in_flight;
        match (op, completion.result) {
            (_, Err(fault)) => self.on_failure(fault),
            (Op::WatchListener, Ok(_)) => {}
            (_, Ok(_)) if listener_is_cancelling && sings(Canary::CancelledAcceptDrops) => {}
            (_, Ok(descriptor)) => {
                self.in_a_row = 0;
                let client = Client { descriptor: Descriptor(descriptor), listener: number };
                let left = &mut listener.reservation;
                match self.admission.admit(self.reactor, number, left) {
                    true => self.admitted.push_back(client),
                    false => self.early.push_back(client),
                }
            }
        }
        let listener = &mut self.listeners[usize::from(number)];
        let current = listener.activation == activation && listener.op == op;
        if current && !completion.more {
            if op == Op::AcceptMany && !sings(Canary::ReservationLeaked) {
                let left = std::mem::take(&mut listener.reservation);
                self.admission.disarm(self.reactor, number, left);
            }
            let is_ready = op == Op::WatchListener && completion.result.is_ok();
            listener.state = if is_ready { State::Ready } else { State::Idle };
        }
    }

    fn on_failure(&mut self, fault: Fault) {
        if fault == Fault::Cancelled {
            return;
        }
        self.in_a_row += 1;
        self.untold.errors += 1;
        let short = matches!(
            fault,
            Fault::DescriptorsOfProcess
                | Fault::DescriptorsOfHost
                | Fault::Memory
                | Fault::NoBuffers
        );
        if short || self.in_a_row >= STORM {
            self.in_a_row = 0;
            self.paused = true;
            self.untold.pauses += 1;
        }
    }

    /// What went wrong since the last call.
    pub(crate) fn take_failures(&mut self) -> Failures {
        std::mem::take(&mut self.untold)
    }

    /// Clients that have their permits, and wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.admitted.len()
    }

    /// A client that has its permit: open a connection.
    pub(crate) fn poll_client(&mut self) -> Option<(Descriptor, u16)> {
        self.admitted.pop_front().map(|client| (client.descriptor, client.listener))
    }

    /// Those accepted too early come in as there are permits, in their order at each listener.
    fn admit_early<D: Driver>(&mut self, driver: &mut D) {
        for _ in 0..self.early.len() {
            let Some(client) = self.early.pop_front() else { return };
            let is_full = &mut self.listeners[usize::from(client.listener)].is_full;
            *is_full = *is_full || !self.admission.take(self.reactor, client.listener);
            let is_full = *is_full;
            match is_full {
                false => self.admitted.push_back(client),
                true if self.refuses(client.listener) => self.refuse(client.descriptor, driver),
                true => {
                    self.want_place(usize::from(client.listener));
                    self.early.push_back(client);
                }
            }
        }
        self.listeners.iter_mut().for_each(|listener| listener.is_full = false);
    }

    /// Closes everything at once, after the driver has failed.
    pub(crate) fn abandon<D: Driver>(&mut self, driver: &mut D) {
        self.ask_for_none();
        for client in &self.admitted {
            self.admission.release(self.reactor, client.listener);
        }
        for client in self.admitted.drain(..).chain(self.early.drain(..)) {
            driver.set_abortive(client.descriptor);
            driver.close_now(client.descriptor);
        }
        // For as long as a few calls take.
        while !self.front.may_close_listeners(self.reactor) {
            std::hint::spin_loop();
        }
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let left = std::mem::take(&mut listener.reservation);
            if matches!(listener.state, State::Many | State::Cancelling) {
                self.admission.disarm(self.reactor, number as u16, left);
            }
            // The number of one whose close is under way may be somebody else's by now.
            if !matches!(listener.state, State::Closing | State::Closed) {
                driver.close_now(listener.descriptor);
            }
            listener.state = State::Closed;
            listener.cancel_in_flight = false;
        }
    }

    /// Lets one in who queues at the listener, if there is a place.
    fn let_in<D: Driver>(&mut self, number: usize, driver: &mut D) -> Entry {
        self.enter(self.listeners[number].descriptor, number as u16, driver)
    }

    /// Lets one in who queues at the listener of this number of another reactor; whether somebody came. It has the
    /// same rates there as here.
    pub(crate) fn let_in_from<D: Driver>(
        &mut self,
        listener: Descriptor,
        number: u16,
        now_us: u64,
        driver: &mut D,
    ) -> bool {
        if self.held {
            return false;
        }
        let entry = match self.is_paced(number.into()) {
            true => self.enter_at_rate(listener, number, now_us, driver),
            false => self.enter(listener, number, driver),
        };
        entry == Entry::In
    }

    fn enter<D: Driver>(&mut self, listener: Descriptor, number: u16, driver: &mut D) -> Entry {
        if !self.admission.take(self.reactor, number) {
            return Entry::NoPermit;
        }
        match driver.accept_queued(listener) {
            Ok(descriptor) => {
                self.in_a_row = 0;
                self.admitted.push_back(Client { descriptor, listener: number });
                self.ask_no_more(number.into());
                Entry::In
            }
            Err(fault) => {
                // Another listener may have found no place while this one had it.
                self.changed |= self.admission.release(self.reactor, number);
                if fault != Fault::WouldBlock {
                    self.on_failure(fault);
                }
                Entry::Nobody
            }
        }
    }

    /// Lets all in who queue at a listener that stops, and have a place.
    fn let_all_in<D: Driver>(&mut self, number: usize, driver: &mut D) {
        // Those that came before the end, not those that keep coming.
        for _ in 0..self.admission.queue_max() {
            if self.let_in(number, driver) != Entry::In {
                return;
            }
        }
    }

    /// Whether something is left for the next turn.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.changed || !self.admitted.is_empty()
    }

    /// Starts what should be under way. Called once a turn; does nothing unless something changed.
    pub(crate) fn poll<D: Driver>(&mut self, now_us: u64, driver: &mut D) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.hear_of_places();
        self.admit_early(driver);
        // A queue without room leaves them as they are: the next turn asks again.
        self.changed |= self.poll_listeners(now_us, driver).is_err();
    }

    fn poll_listeners<D: Driver>(&mut self, now_us: u64, driver: &mut D) -> Result<(), QueueFull> {
        for number in 0..self.listeners.len() {
            self.poll_listener(number, now_us, driver)?;
        }
        // A later one may have found too little room, and an earlier one reserve what it lacks.
        for number in 0..self.listeners.len() {
            if self.listeners[number].state == State::Many {
                self.poll_listener(number, now_us, driver)?;
            }
        }
        Ok(())
    }

    /// Whether its armed multishot has to be given up.
    fn is_tight(&self, number: usize) -> bool {
        self.admission.is_tight(number as u16, &self.listeners[number].reservation)
    }

    fn poll_listener<D: Driver>(
        &mut self,
        number: usize,
        now_us: u64,
        driver: &mut D,
    ) -> Result<(), QueueFull> {
        let key = Key::new(number as u32, 0);
        let Listener { descriptor, state, .. } = self.listeners[number];
        match state {
            State::Many if self.stopping || self.held || self.is_tight(number) => {
                let cancelled = self.cancel(number, driver)?;
                let after = if cancelled { State::Cancelling } else { State::Many };
                self.listeners[number].state = after;
                self.listeners[number].recalled = true;
            }
            State::Watching if self.stopping => {
                self.cancel(number, driver)?;
            }
            // Another is accepting from it: in the next turn it is done.
            State::Idle | State::Ready | State::Paced { .. }
                if self.stopping && !self.front.may_close_listeners(self.reactor) =>
            {
                self.changed = true;
            }
            State::Idle | State::Ready | State::Paced { .. } if self.stopping => {
                self.let_all_in(number, driver);
                let token = Token::new(Op::CloseOther, key, 0);
                driver.push(token, Submission::Close(descriptor), Share::Management)?;
                self.listeners[number].state = State::Closing;
            }
            // One for each watch, unless its rate says how many: in between the others look.
            State::Ready if !self.paused && !self.held => {
                let listener = &mut self.listeners[number];
                listener.state = State::Idle;
                let was_recalled = std::mem::take(&mut listener.recalled);
                let entry = match self.is_paced(number) {
                    true => self.let_in_at_rate(number, now_us, driver),
                    false => self.let_in(number, driver),
                };
                match entry {
                    Entry::In | Entry::Nobody => {}
                    Entry::NoPermit => self.meet_full(number, driver),
                    Entry::NoToken { until_us } => {
                        self.listeners[number].state = State::Paced { until_us };
                    }
                }
                match was_recalled {
                    true => self.changed = true,
                    false => self.poll_listener(number, now_us, driver)?,
                }
            }
            State::Idle if !self.paused && !self.held => self.start(number, driver)?,
            _ => {}
        }
        Ok(())
    }

    fn start<D: Driver>(&mut self, number: usize, driver: &mut D) -> Result<(), QueueFull> {
        if driver.room(Share::Data) == 0 {
            return Err(QueueFull);
        }
        let early = self.early.iter().any(|client| usize::from(client.listener) == number);
        let Listener { descriptor, recalled, .. } = self.listeners[number];
        let may_arm = !early && !recalled && !self.is_paced(number);
        let armed = may_arm.then(|| self.admission.arm(self.reactor, number as u16)).flatten();
        let (op, submission, state) = if let Some(reservation) = armed {
            self.listeners[number].reservation = reservation;
            (Op::AcceptMany, Submission::AcceptMany(descriptor), State::Many)
        } else if self.admission.has_room(self.reactor, number as u16) || self.meets_full(number) {
            (Op::WatchListener, Submission::WatchReadable(descriptor), State::Watching)
        } else {
            return Ok(());
        };
        let listener = &mut self.listeners[number];
        listener.activation = listener.activation.wrapping_add(1);
        listener.op = op;
        listener.state = state;
        let token = Token::new(op, Key::new(number as u32, 0), listener.activation);
        driver.push(token, submission, Share::Data)
    }

    /// Cancels the operation in flight; false while an earlier cancel is unanswered, whose answer asks again.
    fn cancel<D: Driver>(&mut self, number: usize, driver: &mut D) -> Result<bool, QueueFull> {
        let key = Key::new(number as u32, 0);
        let listener = &mut self.listeners[number];
        if listener.cancel_in_flight {
            return Ok(false);
        }
        let target = Token::new(listener.op, key, listener.activation);
        let token = Token::new(Op::CancelAccept, key, 0);
        driver.push(token, Submission::Cancel(target), Share::Management)?;
        listener.cancel_in_flight = true;
        Ok(true)
    }
}
