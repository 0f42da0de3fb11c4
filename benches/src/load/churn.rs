//! A connection for every message: connect, echo, shutdown, wait for the peer's end, close.
//!
//! ```text
//!   connecting ─ echoing ── all bytes back: shutdown ── ending ── the peer's end: complete, close
//!       └───────────┴─────────────── fault: counted, the berth rests ──┘
//! ```
//! A berth is the place of one connection at a time; there are as many as `--connections`. A closed
//! loop fills a free berth at once, an open loop when the next connection is due. Connecting is not
//! a state of its own: the first write blocks until the connection stands, or tells why it never
//! will. After a fault the berth rests a moment, since a server that is gone refuses faster than
//! any other answer comes, and would be all the load measures.
//!
//! With TLS a handshake comes before the echo and a close_notify before each end; a berth keeps the tickets of its
//! connections, if sessions are to be resumed.
//!
//! The load ends its stream first, so TIME_WAIT is on its side and not the server's.

use std::collections::VecDeque;

use super::connection::{Connection, Received, Sent};
use super::dial::Dialer;
use super::fault::Fault;
use super::options::{Plan, Refusal};
use super::pattern::Pattern;
use super::poll::Event;
use super::schedule::Schedule;
use super::tls::Speech;
use super::work::{ROUNDS_MAX, Rig, Work, nanoseconds};

/// How long a berth stays empty after a fault.
const REST_NS: u64 = 10_000_000;

/// All berths of a run.
#[derive(Debug)]
pub struct Churn {
    dialer: Dialer,
    speech: Speech,
    message_bytes: u64,
    timeout_ns: u64,
    /// When connections are due in an open loop. In a closed one: when a berth is free.
    schedule: Option<Schedule>,
    stopped: bool,
    berths: Vec<Option<Visit>>,
    free: Vec<usize>,
    /// Berths that rest, and until when; the next to be free first.
    resting: VecDeque<(u64, usize)>,
    /// Berths that have more to do without an event.
    again: Vec<usize>,
    started: u64,
    /// Connections that have ended, well or not.
    ended: u64,
}

/// One connection's life.
#[derive(Debug)]
struct Visit {
    connection: Connection,
    /// The intended start: in a closed loop the actual one.
    due_ns: u64,
    started_ns: u64,
    /// The echo is complete and its own stream has ended.
    ending: bool,
}

/// What a visit has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// An event will tell when there is more to do.
    Wait,
    /// There is more to do, but it is the others' turn.
    Again,
    /// The peer has ended its stream too.
    Complete,
}

impl Churn {
    /// Finds the server (with a connection that is closed at once and not counted).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn find(plan: &Plan, rig: &Rig) -> Result<Self, Refusal> {
        let (dialer, _) = Dialer::find(&plan.addresses, plan.timeout)?;
        Ok(Self {
            dialer,
            speech: Speech::new(plan.tls, plan.connections)?,
            message_bytes: plan.message_bytes,
            timeout_ns: nanoseconds(plan.timeout),
            schedule: plan.rate.map(|rate| Schedule::new(rig.clock.now_ns(), rate)),
            stopped: false,
            berths: (0..plan.connections).map(|_| None).collect(),
            free: (0..plan.connections).rev().collect(),
            resting: VecDeque::new(),
            again: Vec::new(),
            started: 0,
            ended: 0,
        })
    }

    /// Starts connections while berths are free and connections are due.
    fn start_due(&mut self, rig: &mut Rig, now_ns: u64) {
        while self.next_due_ns().is_some_and(|due_ns| due_ns <= now_ns) {
            let Some(index) = self.free.pop() else { return };
            // A batch of connects takes long enough for the clock to matter.
            let started_ns = rig.clock.now_ns();
            let due_ns = self.schedule.map_or(started_ns, |schedule| schedule.due_ns(self.started));
            let pattern = Pattern::new(u64::from(std::process::id()) << 32 ^ self.started);
            self.started += 1;
            let transport = self.dialer.start().and_then(|socket| {
                rig.poll.watch(&socket, index)?;
                self.speech.over(socket, index)
            });
            match transport {
                Ok(transport) => {
                    let connection = Connection::new(transport, pattern);
                    let visit = Visit { connection, due_ns, started_ns, ending: false };
                    self.berths[index] = Some(visit);
                    self.serve(rig, Event::none(index));
                }
                Err(error) => self.fail(rig, index, error.into()),
            }
        }
    }

    /// When the next connection is due; `None` when none starts any more.
    fn next_due_ns(&self) -> Option<u64> {
        if self.stopped {
            return None;
        }
        Some(self.schedule.map_or(0, |schedule| schedule.due_ns(self.started)))
    }

    fn fail(&mut self, rig: &mut Rig, index: usize, fault: Fault) {
        rig.tally.fail(fault);
        self.berths[index] = None;
        self.ended += 1;
        self.resting.push_back((rig.clock.now_ns() + REST_NS, index));
    }
}

impl Work for Churn {
    fn serve(&mut self, rig: &mut Rig, event: Event) {
        let Some(visit) = &mut self.berths[event.index] else { return };
        match visit.exchange(self.message_bytes, rig, event) {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.again.push(event.index),
            Ok(Next::Complete) => {
                let due_ns = visit.due_ns;
                rig.tally.shake_hands(visit.connection.handshake());
                self.berths[event.index] = None;
                self.free.push(event.index);
                self.ended += 1;
                rig.tally.complete(rig.clock.now_ns().saturating_sub(due_ns));
            }
            Err(fault) => self.fail(rig, event.index, fault),
        }
    }

    fn advance(&mut self, rig: &mut Rig, now_ns: u64) {
        let count = self.again.len();
        for nth in 0..count {
            self.serve(rig, Event::all(self.again[nth]));
        }
        self.again.drain(..count);
        while let Some((_, index)) = self.resting.pop_front_if(|(until_ns, _)| *until_ns <= now_ns)
        {
            self.free.push(index);
        }
        self.start_due(rig, now_ns);
    }

    fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    fn advance_due_ns(&self) -> u64 {
        let rested_ns = self.resting.front().map_or(u64::MAX, |(until_ns, _)| *until_ns);
        match self.next_due_ns() {
            Some(due_ns) if !self.free.is_empty() => due_ns.min(rested_ns),
            Some(_) => rested_ns,
            None => u64::MAX,
        }
    }

    fn expire(&mut self, rig: &mut Rig, now_ns: u64) {
        for index in 0..self.berths.len() {
            let Some(visit) = &self.berths[index] else { continue };
            if now_ns > visit.started_ns + self.timeout_ns {
                self.fail(rig, index, Fault::Timeout);
            }
        }
    }

    fn stop(&mut self, rig: &mut Rig, now_ns: u64) -> u64 {
        let Some(schedule) = self.schedule else {
            self.stopped = true;
            return self.in_flight();
        };
        self.stopped = true;
        let due_count = schedule.due_count(now_ns);
        let in_flight = self.berths.iter().flatten().map(|visit| visit.due_ns);
        let unsent = (self.started..due_count).map(|nth| schedule.due_ns(nth));
        for due_ns in in_flight.chain(unsent) {
            rig.tally.leave_unanswered(now_ns.saturating_sub(due_ns));
        }
        due_count.saturating_sub(self.ended)
    }

    fn in_flight(&self) -> u64 {
        self.started - self.ended
    }

    fn is_over(&self) -> bool {
        false
    }
}

impl Visit {
    /// Receives what has arrived, sends what the socket takes, ends its stream after the echo.
    fn exchange(&mut self, until: u64, rig: &mut Rig, event: Event) -> Result<Next, Fault> {
        if event.writable {
            self.connection.unblock();
        }
        let mut readable = event.readable;
        for _ in 0..ROUNDS_MAX {
            if readable {
                match self.connection.receive(&mut rig.incoming)? {
                    Received::End if self.ending => return Ok(Next::Complete),
                    Received::End => return Err(Fault::EarlyEof),
                    Received::Nothing => readable = false,
                    Received::Bytes { len, more } => {
                        readable = event.ending || more;
                        rig.tally.receive(len as u64);
                    }
                }
            }
            let sent = self.connection.send(until, &mut rig.outgoing)?;
            if !self.ending && self.connection.received() == until {
                self.connection.shutdown()?;
                self.ending = true;
            }
            if !readable && sent != Sent::More {
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Again)
    }
}
