//! Echo over connections that stay: the closed loop and the open loop.
//!
//! ```text
//!   closed   an answer lets its lane send the next; each lane has `depth` messages in flight
//!   open     message m is due at schedule(m), on lane m % n, and waits there (as a number, not as
//!            bytes) while `depth` others are in flight
//! ```
//! A lane is one connection and its messages. One whose connection failed stays without: a load
//! that quietly connected again would hide that the server lost it. Its share of an open loop's
//! messages stays unanswered.

use std::collections::VecDeque;

use super::connection::{Connection, Received, Sent};
use super::dial::Dialer;
use super::fault::Fault;
use super::options::{Plan, Refusal};
use super::pattern::Pattern;
use super::poll::Event;
use super::schedule::Schedule;
use super::tls::Speech;
use super::transport::Transport;
use super::work::{ROUNDS_MAX, Rig, Work, nanoseconds};

/// All lanes of a run.
#[derive(Debug)]
pub struct Streams {
    terms: Terms,
    lanes: Vec<Lane>,
    /// Lanes that have more to do without an event.
    again: Vec<usize>,
    /// Open loop: the first message whose lane has not been told that it is due.
    next_message: u64,
    connected: usize,
    in_flight: u64,
    completed: u64,
    /// The latest time known.
    now_ns: u64,
}

/// What all lanes keep to.
#[derive(Debug)]
struct Terms {
    message_bytes: u64,
    depth: u64,
    timeout_ns: u64,
    lanes: u64,
    /// When messages are due in an open loop. In a closed one: when the one before is answered.
    schedule: Option<Schedule>,
    /// No message starts any more.
    stopped: bool,
}

/// One connection and its messages, which are numbered from 0.
#[derive(Debug)]
struct Lane {
    number: u64,
    /// `None`: failed.
    connection: Option<Connection>,
    started: u64,
    completed: u64,
    /// When each message in flight was started, oldest first.
    started_ns: VecDeque<u64>,
}

/// Whether a lane has done what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// An event will tell when there is more to do.
    Wait,
    /// There is more to do, but it is the others' turn.
    Again,
}

impl Streams {
    /// Connects all of them; the time of an open loop begins when that is done.
    ///
    /// # Errors
    /// When one does not connect.
    pub fn connect(plan: &Plan, rig: &mut Rig) -> Result<Self, Refusal> {
        let (mut dialer, first) = Dialer::find(&plan.addresses, plan.timeout)?;
        let mut first = Some(first);
        let speech = Speech::new(plan.tls, plan.connections)?;
        let mut lanes = Vec::with_capacity(plan.connections);
        for index in 0..plan.connections {
            let socket = match first.take() {
                Some(socket) => socket,
                None => dialer.connect(plan.timeout)?,
            };
            rig.poll.watch(&socket, index).map_err(|error| {
                Refusal::new(format!("cannot watch {index} sockets: {error}; ask for fewer"))
            })?;
            let transport = speech.over(socket, index).map_err(|error| {
                Refusal::new(format!("no TLS: {error}; leave out --tls, and report this"))
            })?;
            lanes.push(Lane::new(index as u64, transport));
        }
        let terms = Terms {
            message_bytes: plan.message_bytes,
            depth: plan.depth,
            timeout_ns: nanoseconds(plan.timeout),
            lanes: plan.connections as u64,
            schedule: plan.rate.map(|rate| Schedule::new(rig.clock.now_ns(), rate)),
            stopped: false,
        };
        Ok(Self {
            terms,
            again: (0..lanes.len()).collect(),
            next_message: 0,
            connected: lanes.len(),
            in_flight: 0,
            completed: 0,
            now_ns: rig.clock.now_ns(),
            lanes,
        })
    }

    fn serve_lane(&mut self, rig: &mut Rig, event: Event) {
        let lane = &mut self.lanes[event.index];
        let before = (lane.started, lane.completed);
        let outcome = lane.exchange(&self.terms, rig, event, &mut self.now_ns);
        let (started, completed) = (lane.started - before.0, lane.completed - before.1);
        self.in_flight = self.in_flight + started - completed;
        self.completed += completed;
        match outcome {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.again.push(event.index),
            Err(fault) => self.fail_lane(rig, event.index, fault),
        }
    }

    fn fail_lane(&mut self, rig: &mut Rig, index: usize, fault: Fault) {
        rig.tally.fail(fault);
        let lane = &mut self.lanes[index];
        lane.connection = None;
        self.in_flight -= lane.started_ns.len() as u64;
        lane.started_ns.clear();
        self.connected -= 1;
    }

    /// Tells the lanes of all messages that have become due.
    fn start_due(&mut self, rig: &mut Rig) {
        while self.advance_due_ns() <= self.now_ns {
            let index = (self.next_message % self.terms.lanes) as usize;
            self.next_message += 1;
            self.serve_lane(rig, Event::none(index));
        }
    }
}

impl Work for Streams {
    fn serve(&mut self, rig: &mut Rig, event: Event) {
        self.serve_lane(rig, event);
        // A batch of events takes longer than the interval of a fast schedule.
        self.start_due(rig);
    }

    fn advance(&mut self, rig: &mut Rig, now_ns: u64) {
        self.now_ns = now_ns;
        let count = self.again.len();
        for nth in 0..count {
            self.serve_lane(rig, Event::all(self.again[nth]));
        }
        self.again.drain(..count);
        self.start_due(rig);
    }

    fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    fn advance_due_ns(&self) -> u64 {
        match &self.terms.schedule {
            Some(schedule) if !self.terms.stopped => schedule.due_ns(self.next_message),
            _ => u64::MAX,
        }
    }

    fn expire(&mut self, rig: &mut Rig, now_ns: u64) {
        for index in 0..self.lanes.len() {
            let oldest_ns = self.lanes[index].started_ns.front();
            if oldest_ns.is_some_and(|oldest_ns| now_ns > oldest_ns + self.terms.timeout_ns) {
                self.fail_lane(rig, index, Fault::Timeout);
            }
        }
    }

    fn stop(&mut self, rig: &mut Rig, now_ns: u64) -> u64 {
        self.terms.stopped = true;
        let Some(schedule) = &self.terms.schedule else { return self.in_flight };
        for lane in &self.lanes {
            let unanswered = (lane.completed..).map(|nth| self.terms.due_ns(schedule, lane, nth));
            for due_ns in unanswered.take_while(|due_ns| *due_ns <= now_ns) {
                rig.tally.leave_unanswered(now_ns - due_ns);
            }
        }
        schedule.due_count(now_ns).saturating_sub(self.completed)
    }

    fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn is_over(&self) -> bool {
        self.connected == 0
    }
}

impl Terms {
    /// When a lane's message number `nth` is due in an open loop.
    fn due_ns(&self, schedule: &Schedule, lane: &Lane, nth: u64) -> u64 {
        schedule.due_ns(nth * self.lanes + lane.number)
    }
}

impl Lane {
    fn new(number: u64, transport: Transport) -> Self {
        let pattern = Pattern::new(u64::from(std::process::id()) << 32 | number);
        Self {
            number,
            connection: Some(Connection::new(transport, pattern)),
            started: 0,
            completed: 0,
            started_ns: VecDeque::new(),
        }
    }

    /// Receives what has arrived, starts what may start, sends what the socket takes.
    fn exchange(
        &mut self,
        terms: &Terms,
        rig: &mut Rig,
        event: Event,
        now_ns: &mut u64,
    ) -> Result<Next, Fault> {
        let mut readable = event.readable;
        for _ in 0..ROUNDS_MAX {
            let Some(connection) = &mut self.connection else { return Ok(Next::Wait) };
            if event.writable {
                connection.unblock();
            }
            if readable {
                match connection.receive(&mut rig.incoming)? {
                    Received::End => return Err(Fault::EarlyEof),
                    Received::Nothing => readable = false,
                    Received::Bytes { len, more } => {
                        readable = event.ending || more;
                        rig.tally.receive(len as u64);
                        *now_ns = rig.clock.now_ns();
                        self.complete(terms, rig, *now_ns);
                    }
                }
            }
            self.start(terms, *now_ns);
            let Some(connection) = &mut self.connection else { return Ok(Next::Wait) };
            let sent = connection.send(self.started * terms.message_bytes, &mut rig.outgoing)?;
            if !readable && sent != Sent::More {
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Again)
    }

    /// Counts the messages whose last byte has come back.
    fn complete(&mut self, terms: &Terms, rig: &mut Rig, now_ns: u64) {
        let received = self.connection.as_ref().map_or(0, Connection::received);
        while (self.completed + 1) * terms.message_bytes <= received {
            let Some(started_ns) = self.started_ns.pop_front() else { return };
            let since_ns = match &terms.schedule {
                None => started_ns,
                Some(schedule) => terms.due_ns(schedule, self, self.completed),
            };
            self.completed += 1;
            rig.tally.complete(now_ns.saturating_sub(since_ns));
        }
    }

    /// Starts as many messages as may be in flight and are due.
    fn start(&mut self, terms: &Terms, now_ns: u64) {
        while !terms.stopped && self.started - self.completed < terms.depth {
            if let Some(schedule) = &terms.schedule
                && terms.due_ns(schedule, self, self.started) > now_ns
            {
                return;
            }
            self.started += 1;
            self.started_ns.push_back(now_ns);
        }
    }
}
