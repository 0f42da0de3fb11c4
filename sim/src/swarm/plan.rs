//! The conditions of a run, drawn from its seed: so small that every bound is met, so different that each is.

use std::net::SocketAddr;
use std::time::Duration;

use slipring_core::driver::Abilities;
use slipring_core::{
    Limits, Listen, OnFull, Placement, Poll, Rate, SourceLimits, Timeout, Timeouts,
};

use crate::dice::Dice;
use crate::engine::Plan;
use crate::kernel::Patience;
use crate::knobs::Knobs;
use crate::ring::SimRingSetup;

/// What the reactors serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Echo,
    Relay,
    Busy,
    /// Tasks that do anything.
    Tasks,
    /// Tasks that relay.
    Relayed,
}

impl Service {
    /// Whether it relays, by handlers or by tasks.
    pub(super) fn relays(self) -> bool {
        matches!(self, Self::Relay | Self::Relayed)
    }

    /// One of those that are tasks.
    fn of_tasks(dice: &Dice) -> Self {
        if dice.aside("relayed").permille(150) { Self::Relayed } else { Self::Tasks }
    }
}

/// A run to be.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    pub(super) plan: Plan,
    pub(super) service: Service,
    pub(super) clients: u32,
    /// Within this time they come.
    pub(super) arrive_within_us: u64,
    /// Bytes that a stream has at most.
    pub(super) total_max: u64,
    /// Addresses that reactors dial, and those of them where somebody listens.
    pub(super) upstreams: Vec<SocketAddr>,
    pub(super) served: Vec<SocketAddr>,
    pub(super) descriptors_max: usize,
    /// The first reactor's ring fails after so many events.
    pub(super) ring_fails_at: Option<u64>,
    /// A drain is ordered after so many events, among all the faults.
    pub(super) drains_at: Option<u64>,
    /// The drain is an abort.
    pub(super) aborts: bool,
    /// The safety phase ends at this time at the latest.
    pub(super) safety_us: u64,
    pub(super) patience: Patience,
    /// Handlers that do anything set phases, too.
    pub(super) phases: bool,
    /// Who has an accept rate, if there is one.
    paced: Whose,
    /// And the burst of it.
    burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Nobody,
    Process,
    FirstListener,
    LastListener,
    All,
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

/// A timeout of the run, or never.
fn timeout(dice: &mut Dice, low_ms: u64, high_ms: u64) -> Timeout {
    Timeout::After(Duration::from_millis(dice.log_between(low_ms, high_ms)))
}

/// The shortest submission queue that a runtime may have. That of a run is shorter still, for its bounds to be
/// met, and the reactor need not know.
const SUBMISSIONS_MIN: u32 = 64;

fn micros(timeout: Timeout) -> Option<u64> {
    match timeout {
        Timeout::Never => None,
        Timeout::After(duration) => Some(duration.as_micros() as u64),
    }
}

impl Draw {
    /// The seed's conditions, with these knobs instead of those it draws.
    pub(super) fn turn(&mut self, knobs: Knobs) {
        self.plan.knobs = knobs;
        self.plan.ring.places = knobs.table_places;
        self.plan.placement = placement(&knobs);
        self.plan.rebalance = knobs.moved > 0;
        self.pace(knobs.accept_rate);
    }

    /// Clients are let in so many a second: low enough for some to wait, high enough for all to come in soon.
    fn pace(&mut self, per_second: u32) {
        let rate = Rate::with_burst(per_second, self.burst).ok();
        let of_process = matches!(self.paced, Whose::Process | Whose::All);
        self.plan.accept_rate = rate.filter(|_| of_process);
        let last = self.plan.listen_as.len() - 1;
        for (number, how) in self.plan.listen_as.iter_mut().enumerate() {
            let is_paced = match self.paced {
                Whose::Nobody | Whose::Process => false,
                Whose::FirstListener => number == 0,
                Whose::LastListener => number == last,
                Whose::All => true,
            };
            how.accept_rate = rate.filter(|_| is_paced);
        }
    }

    pub(super) fn new(seed: u64, tasks: bool) -> Self {
        let mut dice = Dice::new(seed ^ 0x706c_616e);
        let service = dice.pick(&[Service::Echo, Service::Relay, Service::Busy, Service::Busy]);
        let service = if tasks { Service::of_tasks(&dice) } else { service };
        let knobs = Knobs::draw_all(&mut dice);
        let reactors = draw_reactors(&mut dice, &knobs);
        let abilities = Abilities { receive_cap: dice.coin(), zero_copy: dice.coin() };
        let limits = draw_limits(&mut dice, service);
        let limits = if dice.permille(200) { at_the_edge(&mut dice, limits) } else { limits };
        let timeouts = draw_timeouts(&mut dice);
        let listeners = dice.between(1, 2) as u16;
        let ring = draw_ring(&mut dice, &limits, abilities, 4);
        let aside = &mut dice.aside("messages_max");
        let messages_max = if aside.coin() { 1024 } else { aside.log_between(1, 8) as u32 };
        let mut plan = Plan {
            seed,
            knobs,
            reactors,
            listen: (0..listeners).map(|port| address(10, 7000 + port)).collect(),
            listen_as: draw_listen(&dice, listeners),
            limits: Limits { submissions: SUBMISSIONS_MIN, messages_max, ..limits },
            timeouts,
            poll: dice.pick(&[Poll::Off, Poll::Off, Poll::Adaptive, Poll::Always]),
            placement: Placement::Kernel,
            rebalance: false,
            per_source: draw_sources(&dice),
            accept_rate: None,
            drain_ms: dice.log_between(1, 30_000) as u32,
            not_ready_ms: 0,
            ring,
            first_generation: draw_generation(&mut dice),
            keep_records: false,
        };
        plan.not_ready_ms = draw_not_ready(&dice, plan.drain_ms);
        let upstreams: Vec<SocketAddr> =
            (0..dice.between(1, 3)).map(|n| address(20 + n as u8, 80)).collect();
        let all = upstreams.len() as u64;
        let served = dice.between(u64::from(service.relays()), all) as usize;
        let tight = dice.permille(250);
        let descriptors = reactors * usize::from(listeners) + dice.between(1, 12) as usize;
        let patience = patience(&plan, service);
        let phases = dice.aside("phases").permille(400);
        let (paced, burst) = draw_paced(&dice);
        Self {
            service,
            clients: dice.log_between(1, 80) as u32,
            arrive_within_us: dice.log_between(1_000, 5_000_000),
            total_max: dice.log_between(16, 40_000),
            served: upstreams[..served].to_vec(),
            upstreams,
            descriptors_max: if tight { descriptors } else { usize::MAX },
            ring_fails_at: dice.permille(30).then(|| dice.log_between(100, 3_000)),
            drains_at: dice.permille(150).then(|| dice.log_between(50, 3_000)),
            aborts: dice.permille(200),
            safety_us: 120_000_000,
            patience,
            phases,
            paced,
            burst,
            plan,
        }
    }
}

/// A ring with room for so many completions at the least, and buffer numbers that may be about to wrap.
pub(super) fn draw_ring(
    dice: &mut Dice,
    limits: &Limits,
    abilities: Abilities,
    completions_min: u64,
) -> SimRingSetup {
    SimRingSetup {
        buffers: limits.buffers,
        buffer_bytes: limits.buffer_bytes,
        owned_bytes_max: limits.owned_bytes_max,
        submissions: limits.submissions,
        completions: match dice.coin() {
            true => dice.log_between(completions_min, 64) as u32,
            false => limits.completions(),
        },
        abilities,
        buffers_from: if dice.coin() { 0 } else { dice.word() as u16 | 0xff00 },
        places: 0,
    }
}

/// A slab whose names are new, or about to wrap.
pub(super) fn draw_generation(dice: &mut Dice) -> u32 {
    if dice.coin() { 0 } else { u32::MAX - dice.below(3) }
}

/// Connections are moved, if there is somebody to move them to.
fn draw_reactors(dice: &mut Dice, knobs: &Knobs) -> usize {
    let several = dice.permille(400);
    let several_all_the_same = knobs.moved > 0 && knobs.handed_over > 0;
    match (several, several_all_the_same) {
        (true, _) => dice.between(2, 3) as usize,
        (false, true) => dice.aside("reactors").between(2, 3) as usize,
        (false, false) => 1,
    }
}

/// Sources are counted, or not. None has too many: its peers could not tell why they are reset.
fn draw_sources(dice: &Dice) -> SourceLimits {
    let counts = dice.aside("per_source").coin();
    SourceLimits { connections_max: counts.then_some(u32::MAX), ..SourceLimits::default() }
}

/// For how long of a drain clients are let in; in half of all runs not at all.
fn draw_not_ready(dice: &Dice, drain_ms: u32) -> u32 {
    let mut dice = dice.aside("not_ready_ms");
    let longest = u64::from(drain_ms) - 1;
    if dice.coin() && longest > 0 { dice.log_between(1, longest) as u32 } else { 0 }
}

/// Who has an accept rate when the knob is turned, nobody half of the time: without one, listeners accept by
/// multishot.
fn draw_paced(dice: &Dice) -> (Whose, u32) {
    let mut dice = dice.aside("accept_rate of");
    let one = [Whose::Process, Whose::FirstListener, Whose::LastListener, Whose::All];
    let whose = if dice.coin() { Whose::Nobody } else { dice.pick(&one) };
    (whose, dice.log_between(1, 8) as u32)
}

/// Which reactor clients go to: the kernel's choice, unless the knob is turned.
fn placement(knobs: &Knobs) -> Placement {
    match knobs.handed_over {
        0 => Placement::Kernel,
        1 => Placement::LeastLoaded,
        _ => Placement::RoundRobin,
    }
}

/// How long anything may last under these conditions.
fn patience(plan: &Plan, service: Service) -> Patience {
    let Timeouts { idle, write_stall, half_closed, dial, linger, .. } = plan.timeouts;
    // Turns may come late, and several in a row.
    let slack_us = match (plan.knobs.stalled_turn, plan.knobs.stalled_reactor) {
        (0, 0) => 1_500_000,
        (_, 0) => 7_000_000,
        _ => 40_000_000,
    };
    let late = |us: u64| us + us / 7 + slack_us;
    let stall_us = micros(write_stall).map(|us| us * 3 / 2);
    let ending = [micros(half_closed), stall_us, micros(linger)];
    Patience {
        // It sets idle timeouts of its own.
        idle: micros(idle).map(late).filter(|_| !matches!(service, Service::Busy | Service::Tasks)),
        half_closed: ending.into_iter().flatten().max().map(late),
        write_stall: stall_us.map(late),
        dial: micros(dial).map(late),
    }
}

fn draw_limits(dice: &mut Dice, service: Service) -> Limits {
    let high = dice.log_between(64, 16_384) as u32;
    Limits {
        accepted_max: dice.log_between(1, 64) as u32,
        dialed_max: match service {
            Service::Echo => 0,
            _ => dice.log_between(1, 64) as u32,
        },
        buffers: 1 << dice.between(0, 6),
        buffer_bytes: dice.log_between(64, 4096) as u32,
        submissions: 1 << dice.between(3, 8),
        backlog: dice.log_between(1, 32) as u32,
        outbox_high_bytes: high,
        outbox_low_bytes: dice.below(high) / 2,
        outbox_pieces_high: dice.log_between(2, 32) as u32,
        outbox_bytes_max: (dice.log_between(4_096, 65_536) as u32).max(high),
        owned_bytes_max: dice.log_between(4_096, 1 << 20),
        turn_bytes_max: dice.log_between(64, 32_768) as u32,
        turn_receives_max: dice.log_between(1, 16) as u32,
        zero_copy_min_bytes: dice.coin().then(|| dice.log_between(1, 4096) as u32),
        ..Limits::default()
    }
}

/// One of the sizes at an edge: what the check lets through has to run, the rest it has to refuse.
fn at_the_edge(dice: &mut Dice, drawn: Limits) -> Limits {
    let edge = dice.pick(&[0, 1, 2, 3, u32::MAX]);
    let mut limits = drawn;
    match dice.below(10) {
        // With listeners, none at all is refused by who starts the reactors.
        0 => limits.accepted_max = edge.max(1),
        1 => limits.buffers = edge,
        2 => limits.buffer_bytes = edge,
        3 => limits.backlog = edge,
        4 => limits.outbox_low_bytes = edge,
        5 => limits.outbox_bytes_max = edge,
        6 => limits.outbox_pieces_high = edge,
        // A byte a turn is allowed, and takes too long to be tried a thousand times.
        7 => limits.turn_bytes_max = edge.max(16),
        8 => limits.turn_receives_max = edge,
        _ => limits.zero_copy_min_bytes = Some(edge),
    }
    let checked = Limits { submissions: SUBMISSIONS_MIN, ..limits }.check();
    let huge = limits.accepted_max > 64 || limits.buffers > 64 || limits.buffer_bytes > 4096;
    if checked.is_ok() && !huge { limits } else { drawn }
}

/// Caps of listeners, in a third of all runs; drawn aside, for the seeds to stay what they were.
fn draw_listen(dice: &Dice, listeners: u16) -> Vec<Listen> {
    let mut dice = dice.aside("listen");
    let capped = dice.permille(330);
    let draw = |_| {
        let (has_one, cap) = (dice.permille(700), dice.log_between(1, 48) as u32);
        let cap = if dice.permille(50) { u32::MAX } else { cap };
        let mut how = Listen::new();
        how.max_connections = (capped && has_one).then_some(cap);
        how.on_full(dice.pick(&[
            OnFull::Backlog,
            OnFull::Backlog,
            OnFull::Reject,
            OnFull::EvictIdle,
        ]))
    };
    (0..listeners).map(draw).collect()
}

fn draw_timeouts(dice: &mut Dice) -> Timeouts {
    // Drawn aside, for the seeds to stay what they were.
    let aside = &mut dice.aside("first_byte");
    let first_byte = if aside.permille(300) { timeout(aside, 200, 20_000) } else { Timeout::Never };
    Timeouts {
        first_byte,
        idle: timeout(dice, 200, 60_000),
        write_stall: timeout(dice, 200, 20_000),
        half_closed: timeout(dice, 200, 20_000),
        dial: timeout(dice, 20, 5_000),
        linger: timeout(dice, 5, 2_000),
    }
}
