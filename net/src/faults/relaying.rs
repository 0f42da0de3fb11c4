//! Two connections bridged by a task, with faults on what goes between.
//!
//! ```text
//!   recv of a ---lease---> held, counted by a course ---when it says so---> outbox of b        and likewise back
//!   a's FIN -------------> behind the bytes --------------------------------> FIN of b
//!   a's reset ----------------------------------------------------- at once > b reset
//! ```
//!
//! Is: what [`relay`](crate::relay) promises, as far as the faults leave it. Is not: when what passes (`Course`), nor
//! the bytes of one direction (`faults/way.rs`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use slipring_core::{CloseReason, Timeout};

use super::way::{Turn, Way};
use crate::conn::{self, BusyFlag, Conn, Relayed};
use crate::policy::faults::Plan;
use crate::tasks::{Sleep, now, sleep_until};

/// How long a reset waits for the bytes before it to be acknowledged: as long as an orderly end waits for the peer's
/// (`Timeouts::linger`).
const FLUSH: Duration = Duration::from_secs(1);
/// How often that is looked at.
const FLUSH_LOOK: Duration = Duration::from_millis(1);
/// How often it is looked whether a connection is still there that is not received from.
const LOST_LOOK: Duration = Duration::from_millis(100);

/// The wait of [`Faults::relay`](super::Faults::relay).
///
/// Where nothing happens to the bytes it is that of [`slipring::relay`](crate::relay). Else it does the same in a task:
/// bytes in their order, a FIN behind the bytes before it while the other direction lives on, a reset as a reset, a
/// full outbox holds back the reading. What differs:
///
/// * What is held for a fault is copied out of the ring's buffers, and bounded:
///   [`Course::bound_bytes`](crate::policy::faults::Course::bound_bytes) and one received piece, in each direction.
/// * A reset passes on at once, past what is held. One of a connection that is not received from, since more is held
///   than is wanted or its FIN has come, is noticed within a tenth of a second, and its reason is
///   [`Aborted`](CloseReason::Aborted).
/// * A reset that a rule makes behind so many bytes waits until those are acknowledged, for a second at most, so that
///   the receiver gets exactly these. One that does not read may get fewer.
/// * Timeouts of the connections stay what they are: the half-closed timeout ends a relay whose FIN is held longer, the
///   idle timeout one that stalls. Read deadlines are taken off, as they have no say in a relay.
///
/// *Dropped* while it relays, it resets both connections; dropped before it was polled, it drops two connections as
/// they are.
#[derive(Debug)]
#[must_use = "it relays once it is awaited"]
pub struct Relaying {
    bridge: Bridge,
}

#[derive(Debug)]
enum Bridge {
    Plain(conn::Relaying),
    Planned(Option<Box<Planned>>),
    Faulty(Box<Faulty>),
}

#[derive(Debug)]
struct Planned {
    conns: [Conn; 2],
    plan: Plan,
}

impl Relaying {
    pub(super) fn plain(client: Conn, server: Conn) -> Self {
        Self { bridge: Bridge::Plain(conn::relay(client, server)) }
    }

    pub(super) fn with(client: Conn, server: Conn, plan: Plan) -> Self {
        let planned = Planned { conns: [client, server], plan };
        Self { bridge: Bridge::Planned(Some(Box::new(planned))) }
    }
}

impl Future for Relaying {
    type Output = Relayed;

    /// # Panics
    /// If it is polled again behind its result.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Relayed> {
        if let Bridge::Planned(planned) = &mut self.bridge {
            let Some(planned) = planned.take() else { panic!("a relay was polled after a panic") };
            self.bridge = Bridge::Faulty(Box::new(Faulty::new(*planned)));
        }
        match &mut self.bridge {
            Bridge::Plain(relaying) => Pin::new(relaying).poll(cx),
            Bridge::Faulty(faulty) => faulty.poll(cx),
            Bridge::Planned(_) => Poll::Pending,
        }
    }
}

#[derive(Debug)]
enum Stage {
    Relays,
    /// What was delivered to this one is still to be acknowledged, until then; both are reset behind it.
    Flushes {
        to: usize,
        until: Duration,
        timer: Sleep,
    },
    /// Both have been asked to end.
    Ends,
    Over,
}

/// A client and a server, and what goes from each to the other.
#[derive(Debug)]
struct Faulty {
    conns: [Conn; 2],
    /// From the client, and to it.
    ways: [Way; 2],
    /// What each had acknowledged at the beginning, if nothing was under way then.
    acked_before: [Option<u64>; 2],
    busy: [BusyFlag; 2],
    is_busy: bool,
    /// It was closed since the other has ended.
    is_closed: [bool; 2],
    /// When it is looked for those that are lost.
    look: Option<Sleep>,
    stage: Stage,
}

/// The two of a direction: from whom, to whom.
fn pair(conns: &mut [Conn; 2], from: usize) -> (&mut Conn, &mut Conn) {
    let [client, server] = conns;
    match from {
        0 => (client, server),
        _ => (server, client),
    }
}

/// Bytes that the peer has acknowledged by now, if that is all there is.
fn acked_all(conn: &Conn) -> Option<u64> {
    let info = conn.info()?;
    (conn.outbox_bytes() == 0 && info.unacked_segments == 0).then_some(info.acked_bytes)
}

impl Faulty {
    fn new(planned: Planned) -> Self {
        let Planned { mut conns, plan } = planned;
        let (to, from) = plan.courses(now());
        for conn in &mut conns {
            conn.set_read_deadline(Timeout::Never);
        }
        Self {
            acked_before: [acked_all(&conns[0]), acked_all(&conns[1])],
            busy: [conns[0].busy_flag(), conns[1].busy_flag()],
            conns,
            ways: [Way::new(to), Way::new(from)],
            is_busy: false,
            is_closed: [false; 2],
            look: None,
            stage: Stage::Relays,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        let mut ended = self.ended(cx);
        if let Stage::Relays = self.stage {
            self.pass_on(ended);
        }
        for (from, reason) in ended.into_iter().enumerate() {
            if let Stage::Relays = self.stage {
                let turn = self.ways[from].turn(pair(&mut self.conns, from), now(), cx);
                self.act(from, turn, reason.is_some());
            }
        }
        self.look_for_the_lost(ended, cx);
        self.flush(cx);
        self.note_busy();
        if let [None, None] = ended {
            return Poll::Pending;
        }
        // What has just been asked for may have ended the other.
        ended = self.ended(cx);
        let [Some(first), Some(second)] = ended else { return Poll::Pending };
        self.stage = Stage::Over;
        Poll::Ready(Relayed { first, second })
    }

    /// Why each has ended. Those that have not wake the task when they do.
    fn ended(&mut self, cx: &mut Context<'_>) -> [Option<CloseReason>; 2] {
        self.conns.each_mut().map(|conn| match conn.poll_closed(cx) {
            Poll::Ready(reason) => Some(reason),
            Poll::Pending => None,
        })
    }

    /// One has ended: nothing goes to it any more. What it sent before an orderly end goes on its way.
    fn pass_on(&mut self, ended: [Option<CloseReason>; 2]) {
        for (one, reason) in ended.into_iter().enumerate() {
            let Some(reason) = reason else { continue };
            let other = 1 - one;
            if reason.is_abortive() {
                return self.abort();
            }
            self.ways[other].discard();
            self.close_behind(one);
        }
    }

    /// The other of one that has ended is closed, once all has passed to it.
    fn close_behind(&mut self, ended: usize) {
        let other = 1 - ended;
        if self.ways[ended].is_over() && !self.is_closed[other] {
            self.is_closed[other] = true;
            self.conns[other].close();
        }
    }

    /// What a direction says.
    fn act(&mut self, from: usize, turn: Turn, has_ended: bool) {
        let to = 1 - from;
        match turn {
            Turn::Waits => {}
            Turn::Ends => {
                self.ways[from].discard();
                match has_ended {
                    true => self.close_behind(from),
                    false => self.conns[to].shutdown(),
                }
            }
            Turn::Closes => {
                self.discard();
                for conn in &mut self.conns {
                    conn.close();
                }
                self.stage = Stage::Ends;
            }
            Turn::Resets { is_behind_bytes: false } => self.abort(),
            Turn::Resets { is_behind_bytes: true } => {
                self.discard();
                let now = now();
                let (until, timer) = (now.saturating_add(FLUSH), sleep_until(now));
                self.stage = Stage::Flushes { to, until, timer };
            }
        }
    }

    /// Nobody tells of the reset of a connection that is not received from, so it is asked for now and then. One to
    /// which the FIN has passed may have ended in order: that is told.
    fn look_for_the_lost(&mut self, ended: [Option<CloseReason>; 2], cx: &mut Context<'_>) {
        let is_dark = |one: usize| {
            ended[one].is_none() && !self.ways[one].is_receiving() && !self.ways[1 - one].is_over()
        };
        let dark = [is_dark(0), is_dark(1)];
        if !matches!(self.stage, Stage::Relays) || dark == [false; 2] {
            self.look = None;
            return;
        }
        let look = self.look.get_or_insert_with(|| sleep_until(now().saturating_add(LOST_LOOK)));
        if Pin::new(&mut *look).poll(cx).is_pending() {
            return;
        }
        look.reset(now().saturating_add(LOST_LOOK));
        cx.waker().wake_by_ref();
        if (0..2).any(|one| dark[one] && self.conns[one].is_lost()) {
            self.abort();
        }
    }

    /// Resets both, once what was delivered is there.
    fn flush(&mut self, cx: &mut Context<'_>) {
        let Stage::Flushes { to, until, timer } = &mut self.stage else { return };
        let now = now();
        let conn = &self.conns[*to];
        let delivered = self.ways[1 - *to].delivered_bytes();
        let is_sent = match (self.acked_before[*to], conn.info()) {
            _ if conn.outbox_bytes() > 0 => false,
            (_, None) => true,
            (None, Some(info)) => info.unacked_segments == 0,
            (Some(before), Some(info)) => info.acked_bytes.saturating_sub(before) >= delivered,
        };
        if is_sent || now >= *until {
            return self.abort();
        }
        timer.reset(now.saturating_add(FLUSH_LOOK));
        if Pin::new(timer).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn discard(&mut self) {
        for way in &mut self.ways {
            way.discard();
        }
    }

    fn abort(&mut self) {
        self.discard();
        for conn in &mut self.conns {
            conn.abort();
        }
        self.stage = Stage::Ends;
    }

    /// A drain does not take a relay for idle that has yet to deliver something.
    fn note_busy(&mut self) {
        let is_busy = self.ways.iter().any(Way::is_under_way);
        if is_busy != self.is_busy {
            self.is_busy = is_busy;
            for flag in &self.busy {
                flag.set(is_busy);
            }
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Over) {
            for conn in &self.conns {
                conn.abort_at_once_or_later();
            }
        }
    }
}
