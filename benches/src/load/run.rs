//! The loop: waits for events, lets the work react, and leads it through the phases of a run.
//!
//! ```text
//!   connect ──> warm-up ──────> measured ──────> last answers ──> report
//!               figures not     figures,         nothing starts; what is in flight comes back,
//!               counted         CPU time         or has its timeout
//! ```
//! What was unanswered when the measured time was over is reported. The wait after it exists only
//! for the faults: an answer that never comes, or comes wrong, is to be known.
//!
//! One thread, on purpose: a bench gives it one CPU, and nothing in here waits for anything but the
//! server.

use std::time::Duration;

use super::churn::Churn;
use super::cpu::CpuMeter;
use super::options::{Plan, Refusal};
use super::poll;
use super::progress::Progress;
use super::report::Report;
use super::streams::Streams;
use super::work::{Rig, Work, nanoseconds};
use crate::pin;

/// How often timeouts, the phase and the progress bar are looked at, if nothing is due earlier.
const CHECK_NS: u64 = 50_000_000;
/// How often at least within one timeout, so that none is found much too late.
const CHECKS_IN_TIMEOUT: u64 = 4;
/// No more often than this, however short the timeout.
const CHECK_NS_MIN: u64 = 1_000_000;

/// An open loop does not sleep through the last of the wait for a due message: waking takes tens of
/// microseconds, which would be counted as the server's.
const SPIN_NS: u64 = 100_000;

/// Descriptors beside the connections: standard streams, epoll, `/proc`, the probe.
const DESCRIPTORS_BESIDE: u64 = 16;

/// Where a run is: see the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    LastAnswers,
}

/// The clocks of the measured window, and what they showed when it began.
#[derive(Debug)]
struct Window {
    own: CpuMeter,
    server: Option<CpuMeter>,
    began_ns: u64,
    own_began: Duration,
    server_began: Option<Duration>,
}

/// The measured window, when it is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// How long it was.
    pub time: Duration,
    /// CPU time of the load.
    pub own_cpu: Duration,
    /// CPU time of the server, if it was asked for and the server outlived the window.
    pub server_cpu: Option<Duration>,
    /// Messages due and not answered at its end.
    pub unanswered: u64,
}

/// Runs a plan to its end.
///
/// # Errors
/// When it cannot start: the cause and the remedy.
pub fn run(plan: &Plan) -> Result<Report, Refusal> {
    prepare(plan)?;
    let mut rig = Rig::new().map_err(|error| {
        Refusal::new(format!("no epoll: {error}; allow this process more descriptors"))
    })?;
    let window = Window::new(plan)?;
    let measured = if plan.churn {
        let churn = Churn::find(plan, &rig)?;
        drive(plan, &mut rig, churn, window)
    } else {
        let streams = Streams::connect(plan, &mut rig)?;
        drive(plan, &mut rig, streams, window)
    };
    Ok(Report::new(plan, measured?, rig.tally))
}

/// Sets up this process: descriptors for all connections, and its CPU.
fn prepare(plan: &Plan) -> Result<(), Refusal> {
    let needed = plan.connections as u64 + DESCRIPTORS_BESIDE;
    let allowed = poll::raise_descriptor_limit()
        .map_err(|error| Refusal::new(format!("no limit of descriptors: {error}; report this")))?;
    if allowed < needed {
        return Err(Refusal::new(format!(
            "{} connections need {needed} descriptors and this process may have {allowed}; \
             raise the hard limit (ulimit -Hn), or ask for fewer",
            plan.connections
        )));
    }
    let Some(cpu) = plan.cpu else { return Ok(()) };
    pin::pin_to_cpu(cpu).map_err(|error| {
        Refusal::new(format!("cannot stay on CPU {cpu}: {error}; choose one of those it may use"))
    })
}

fn drive(
    plan: &Plan,
    rig: &mut Rig,
    mut work: impl Work,
    mut window: Window,
) -> Result<Measured, Refusal> {
    let check_every_ns =
        CHECK_NS.min(nanoseconds(plan.timeout) / CHECKS_IN_TIMEOUT).max(CHECK_NS_MIN);
    let mut progress = Progress::new(plan);
    let mut phase = Phase::WarmUp;
    let mut now_ns = rig.clock.now_ns();
    let mut phase_end_ns = now_ns + nanoseconds(plan.warmup);
    let mut check_ns = 0;
    let mut measured = Measured::default();
    loop {
        if now_ns >= check_ns || now_ns >= phase_end_ns || work.is_over() {
            work.expire(rig, now_ns);
            progress.show(rig, now_ns);
            let ended = now_ns >= phase_end_ns || work.is_over();
            match phase {
                Phase::WarmUp if ended => {
                    phase = Phase::Measured;
                    now_ns = window.begin(rig);
                    phase_end_ns = now_ns + nanoseconds(plan.measured);
                    rig.tally.record(true);
                }
                Phase::Measured if ended => {
                    phase = Phase::LastAnswers;
                    phase_end_ns = u64::MAX;
                    measured = window.end(rig);
                    measured.unanswered = work.stop(rig, now_ns);
                    rig.tally.record(false);
                }
                _ => {}
            }
            check_ns = now_ns.saturating_add(check_every_ns).min(phase_end_ns);
        }
        if phase == Phase::LastAnswers && work.in_flight() == 0 {
            return Ok(measured);
        }
        work.advance(rig, now_ns);
        let wait_ns = wait_ns(&work, now_ns, check_ns);
        let ready = rig
            .poll
            .wait(Duration::from_nanos(wait_ns))
            .map_err(|error| Refusal::new(format!("epoll failed: {error}; report this")))?;
        for nth in 0..ready {
            let event = rig.poll.event(nth);
            work.serve(rig, event);
        }
        now_ns = rig.clock.now_ns();
    }
}

/// How long to wait for events. What `advance` is due for is met to the microsecond by not sleeping
/// just before it.
fn wait_ns(work: &impl Work, now_ns: u64, check_ns: u64) -> u64 {
    if work.has_more() {
        return 0;
    }
    let advance_ns = work.advance_due_ns().saturating_sub(SPIN_NS);
    check_ns.min(advance_ns).saturating_sub(now_ns)
}

impl Window {
    fn new(plan: &Plan) -> Result<Self, Refusal> {
        let meter = |pid| {
            CpuMeter::of(pid).map_err(|error| {
                let text = format!("no CPU time of process {pid}: {error}; correct --server-pid");
                Refusal::new(text)
            })
        };
        Ok(Self {
            own: meter(std::process::id())?,
            server: plan.server_pid.map(meter).transpose()?,
            began_ns: 0,
            own_began: Duration::ZERO,
            server_began: None,
        })
    }

    /// Returns the time at which it began.
    fn begin(&mut self, rig: &Rig) -> u64 {
        self.server_began = self.server.and_then(|server| server.read().ok());
        self.own_began = self.own.read().unwrap_or_default();
        self.began_ns = rig.clock.now_ns();
        self.began_ns
    }

    fn end(&self, rig: &Rig) -> Measured {
        let time = Duration::from_nanos(rig.clock.now_ns() - self.began_ns);
        let server = self.server.and_then(|server| server.read().ok());
        Measured {
            time,
            own_cpu: self.own.read().unwrap_or_default().saturating_sub(self.own_began),
            server_cpu: server.zip(self.server_began).map(|(end, began)| end.saturating_sub(began)),
            unanswered: 0,
        }
    }
}
