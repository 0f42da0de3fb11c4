//! The conditions of a run of upstreams, drawn from its seed.
//!
//! Small, so that every bound is met; each kind of trouble is there in some seeds and not in others, so that what it
//! hides shows in those.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slipring::health::Check;
use slipring::policy::backoff::Backoff;
use slipring::policy::balancer::Algorithm;
use slipring::policy::breaker::BreakerLimits;
use slipring::policy::budget::BudgetLimits;
use slipring::policy::health::HealthLimits;
use slipring::policy::outlier::OutlierLimits;
use slipring::policy::pool::{Mode, PoolLimits};
use slipring::policy::retry::RetryPolicy;
use slipring::upstream::UpstreamLimits;
use slipring_core::driver::Abilities;
use slipring_core::{Limits, Placement, Poll, SourceLimits, Timeout, Timeouts};

use super::promise;
use crate::dice::Dice;
use crate::engine::Plan;
use crate::kernel::address;
use crate::knobs::Knobs;
use crate::ring::SimRingSetup;
use crate::swarm::plan::{draw_generation, draw_ring};

/// Knobs that are of no concern here, or would hide from a reactor what it has to know for the checks to hold.
const AT_REST: &[&str] = &[
    "accept_rate",
    "failed_accept",
    "failed_states",
    "handed_over",
    "moved",
    "panics",
    "peer_pauses_ms",
    "peer_resets",
    "silent_reset",
    "stalled_reactor",
];

/// Endpoints that an upstream has at most.
pub(super) const ENDPOINTS_MOST: usize = 5;
/// Hosts from this one on are endpoints.
const FIRST_HOST: u8 = 20;

/// What is asked of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Call,
    Checkout,
    Connect,
    Pool,
}

/// How an endpoint behaves while nothing is well yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Temper {
    /// It is up all the time.
    pub(super) is_steady: bool,
    /// Of a thousand answers so many are slow, in pieces, cut off, too long or none.
    pub(super) trouble: u32,
    /// So long its connections may be idle at most.
    pub(super) idle_us: Option<u64>,
    /// Up and down it goes, for so long at most each time.
    pub(super) flaps_us: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) plan: Plan,
    pub(super) limits: UpstreamLimits,
    pub(super) pool: PoolLimits,
    pub(super) endpoints: Vec<(SocketAddr, Temper)>,
    /// Where the pool leads that belongs to no upstream.
    pub(super) alone: (SocketAddr, Temper),
    pub(super) deeds: Vec<Deed>,
    pub(super) requesters: u32,
    pub(super) requests_each: u32,
    pub(super) pause_ms: u64,
    pub(super) hold_ms: u64,
    /// What is done with one connection takes so long at most.
    pub(super) act_ms: u64,
    /// Of a thousand, so many are dropped somewhere; so many panic.
    pub(super) cuts: u32,
    pub(super) panics: u32,
    pub(super) chaos_us: u64,
    /// A drain is ordered at that time.
    pub(super) drains_us: Option<u64>,
    /// The pool that is alone is drained at that time.
    pub(super) pool_drains_us: Option<u64>,
    /// How late anything may be.
    pub(super) slack_us: u64,
    /// Permits are out for longer than any probe takes.
    pub(super) are_permits_kept: bool,
    /// Connections that are nobody's call: checks and probes.
    pub(super) unasked: usize,
}

fn ms(dice: &mut Dice, low: u64, high: u64) -> Duration {
    Duration::from_millis(dice.log_between(low, high))
}

fn some(dice: &mut Dice, chance: u32, low: u64, high: u64) -> Option<Duration> {
    let (is_some, span) = (dice.permille(chance), ms(dice, low, high));
    is_some.then_some(span)
}

impl Terms {
    pub(super) fn new(seed: u64, given: Option<Knobs>, off: &[String]) -> Self {
        let mut dice = Dice::new(seed ^ 0x7570_7374);
        let mut knobs = Knobs::draw_all(&mut dice);
        // Half of the seeds see what goes wrong while the kernel does nothing out of the ordinary.
        if dice.coin() {
            knobs = Knobs::calm();
        }
        AT_REST.iter().for_each(|name| {
            knobs.put_to_rest(name);
        });
        knobs = given.unwrap_or(knobs);
        off.iter().for_each(|name| {
            knobs.put_to_rest(name);
        });
        let slack_us = Self::slack_us(&knobs);
        let plan = plan(seed, &mut dice, knobs);
        let limits = upstream(&mut dice);
        let all = dice.between(1, ENDPOINTS_MOST as u64);
        let troubled = dice.pick(&[0, 100, 300, 600]);
        let is_one_steady = dice.permille(600);
        let temper = |dice: &mut Dice, is_steady: bool| Temper {
            is_steady,
            trouble: if is_steady || dice.permille(200) { 0 } else { troubled },
            idle_us: dice.permille(300).then(|| dice.log_between(20_000, 5_000_000)),
            flaps_us: dice.log_between(200_000, 8_000_000),
        };
        let endpoints = (0..all)
            .map(|number| {
                let is_steady = dice.permille(300) || (is_one_steady && number == 0);
                (Self::endpoint(number), temper(&mut dice, is_steady))
            })
            .collect();
        let is_steady = dice.coin();
        let alone = (Self::endpoint(ENDPOINTS_MOST as u64), temper(&mut dice, is_steady));
        let deeds = match dice.below(6) {
            0 => vec![Deed::Call],
            1 => vec![Deed::Connect],
            2 => vec![Deed::Call, Deed::Checkout],
            3 => vec![Deed::Pool],
            _ => vec![Deed::Call, Deed::Call, Deed::Checkout, Deed::Connect, Deed::Pool],
        };
        let has_probes = limits.outlier.ejected_max_percent > 0;
        let unasked =
            usize::from(limits.health.is_some()) + if has_probes { plan.reactors } else { 0 };
        let chaos_us = dice.log_between(2_000_000, 30_000_000);
        let mut terms = Self {
            are_permits_kept: limits.breaker.permit_timeout.min(limits.breaker.open * 1_024)
                > Duration::from_secs(30),
            unasked,
            pool: pool(&mut dice),
            endpoints,
            alone,
            deeds,
            requesters: dice.log_between(1, 24) as u32,
            requests_each: dice.log_between(1, 16) as u32,
            pause_ms: dice.log_between(1, 2_000),
            hold_ms: dice.log_between(1, 3_000),
            act_ms: dice.log_between(100, 4_000),
            cuts: dice.pick(&[0, 0, 100, 400]),
            panics: dice.pick(&[0, 0, 0, 60]),
            drains_us: dice.permille(120).then(|| dice.log_between(1_000, chaos_us)),
            pool_drains_us: dice.permille(100).then(|| dice.log_between(1_000, chaos_us)),
            chaos_us,
            slack_us,
            limits,
            plan,
        };
        promise::draw(&mut terms, given.is_some());
        terms
    }

    /// How late anything may be.
    pub(super) fn slack_us(knobs: &Knobs) -> u64 {
        if knobs.stalled_turn > 0 { 8_000_000 } else { 400_000 }
    }

    /// Whether reactors may be late by seconds.
    pub(super) fn is_late(&self) -> bool {
        self.slack_us > 1_000_000
    }

    /// Nothing ever goes wrong: whoever judges the upstream has nothing to hold against it. Nobody closes what was kept
    /// for long, as somebody comes for it.
    pub(super) fn is_quiet(&self) -> bool {
        let is_steady =
            |(_, temper): &(SocketAddr, Temper)| temper.is_steady && temper.idle_us.is_none();
        self.plan.knobs == Knobs::calm() && self.endpoints.iter().all(is_steady)
    }

    /// How many endpoints may be left alone at a time.
    pub(super) fn ejected_max(&self) -> usize {
        let (all, percent) =
            (self.endpoints.len(), self.limits.outlier.ejected_max_percent as usize);
        if percent == 0 { 0 } else { (all * percent / 100).max(1).min(all - 1) }
    }

    /// Where the endpoint of this number is.
    pub(super) fn endpoint(number: u64) -> SocketAddr {
        address(FIRST_HOST + number as u8, 80)
    }

    /// The number of an endpoint, or of the one of the pool that is alone.
    pub(super) fn number_of(at: SocketAddr) -> usize {
        match at.ip() {
            IpAddr::V4(ip) => {
                usize::from(ip.octets()[3].saturating_sub(FIRST_HOST)).min(ENDPOINTS_MOST)
            }
            IpAddr::V6(_) => ENDPOINTS_MOST,
        }
    }

    /// Whether an upstream's connections are all of its pools.
    pub(super) fn are_all_pooled(&self) -> bool {
        !self.deeds.contains(&Deed::Connect)
    }

    /// Whether what is kept idle may come near to as many connections as there may be, of the upstream or of the
    /// process.
    pub(super) fn are_connections_few(&self) -> bool {
        let pooled = self.limits.pool.mode.max() as usize * self.endpoints.len();
        let alone = self.pool.mode.max() as usize;
        let dialed_max = (self.plan.limits.dialed_max as usize).saturating_sub(alone);
        (self.limits.connections_max as usize).min(dialed_max) <= pooled * 2
    }

    /// The conditions in words.
    pub(super) fn describe(&self) -> Vec<String> {
        let Self { plan, limits, deeds, .. } = self;
        let mut lines = vec![
            format!(
                "{} reactors, {} requesters with {} requests each, {deeds:?}",
                plan.reactors, self.requesters, self.requests_each
            ),
            format!(
                "chaos {} ms, pauses {} ms, held {} ms, acts {} ms, cuts {} and panics {} of 1000",
                self.chaos_us / 1_000,
                self.pause_ms,
                self.hold_ms,
                self.act_ms,
                self.cuts,
                self.panics
            ),
            format!(
                "drain at {:?} us, of the pool at {:?} us",
                self.drains_us, self.pool_drains_us
            ),
            format!("{limits:?}"),
            format!("alone {:?}: {:?}", self.alone, self.pool),
        ];
        lines.extend(self.endpoints.iter().map(|endpoint| format!("{endpoint:?}")));
        lines
    }
}

fn pool(dice: &mut Dice) -> PoolLimits {
    let max = dice.log_between(1, 10) as u32;
    let min_idle = if dice.permille(300) { dice.below(max + 1) } else { 0 };
    let mode = if dice.permille(150) { Mode::Fixed(max) } else { Mode::Dynamic { min_idle, max } };
    let lifetime = some(dice, 400, 1_000, 10_000);
    let below = |own: &Duration, other: Option<Duration>| other.is_none_or(|other| *own < other);
    let idle = some(dice, 500, 1_000, 8_000).filter(|own| below(own, lifetime));
    let keep_alive = some(dice, 300, 1_000, 4_000);
    let checkout_timeout = some(dice, 900, 20, 5_000);
    let validate_timeout = ms(dice, 5, 1_000);
    PoolLimits {
        dials_max: dice.log_between(1, 16) as u32,
        waiters_max: dice.log_between(1, 64) as u32,
        checkout_timeout,
        idle_timeout: idle,
        max_lifetime: lifetime,
        keep_alive: keep_alive.filter(|own| below(own, lifetime) && below(own, idle)),
        validate_after: some(dice, 500, 1, 1_000),
        validate_timeout: checkout_timeout
            .map_or(validate_timeout, |all| validate_timeout.min(all / 2)),
        leak_after: some(dice, 500, 1_000, 60_000),
        hung_after: ms(dice, 1, 2_000),
        refill: backoff(dice),
        ..PoolLimits::of(mode)
    }
}

fn backoff(dice: &mut Dice) -> Backoff {
    let first = ms(dice, 1, 300);
    Backoff { first, most: first * dice.between(1, 10) as u32, ..Backoff::default() }
}

fn upstream(dice: &mut Dice) -> UpstreamLimits {
    let breaker = BreakerLimits {
        is_enabled: dice.permille(750),
        failures_percent: dice.between(10, 100) as u32,
        calls_min: dice.log_between(1, 16) as u32,
        window: ms(dice, 1_000, 8_000),
        open: ms(dice, 1, 2_000),
        open_max: ms(dice, 2_000, 6_000),
        permits: dice.log_between(1, 4) as u32,
        successes: dice.log_between(1, 6) as u32,
        permit_timeout: match dice.permille(700) {
            true => Duration::from_secs(1_000),
            false => ms(dice, 20, 4_000),
        },
    };
    let budget = BudgetLimits {
        percent: dice.pick(&[0, 20, 20, 100, 1000]),
        per_second: dice.pick(&[0, 0, 1, 10]),
        window: ms(dice, 1_000, 10_000),
    };
    let retry =
        RetryPolicy { attempts_max: dice.between(1, 5) as u32, backoff: backoff(dice), budget };
    let base = ms(dice, 10, 3_000);
    let outlier = OutlierLimits {
        failures: dice.log_between(1, 8) as u32,
        ejects_on_dial_timeout: dice.coin(),
        base,
        longest: base + ms(dice, 1, 3_000),
        ejected_max_percent: dice.pick(&[0, 0, 50, 100]),
    };
    let interval = ms(dice, 50, 2_000);
    let health = dice.permille(250).then(|| Check {
        limits: HealthLimits {
            interval,
            fast_interval: interval / dice.between(1, 4) as u32,
            timeout: ms(dice, 10, 1_000),
            fall: dice.between(1, 3) as u32,
            rise: dice.between(1, 3) as u32,
            ..HealthLimits::default()
        },
        ..Check::default()
    });
    let is_tight = dice.permille(400);
    UpstreamLimits {
        connections_max: if is_tight { dice.log_between(1, 16) as u32 } else { 1_024 },
        pending_max: if dice.permille(300) { dice.log_between(1, 16) as u32 } else { 1_024 },
        dials_max: if dice.coin() { dice.log_between(1, 4) as u32 } else { 16 },
        connect_within: ms(dice, 50, 10_000),
        algorithm: dice.pick(&[
            Algorithm::LeastOfTwo,
            Algorithm::RoundRobin,
            Algorithm::Random,
            Algorithm::Ewma,
            Algorithm::Maglev,
        ]),
        breaker,
        outlier,
        probe_interval: ms(dice, 20, 1_000),
        retry,
        pool: pool(dice),
        health,
        ..UpstreamLimits::default()
    }
}

fn plan(seed: u64, dice: &mut Dice, knobs: Knobs) -> Plan {
    let limits = Limits {
        dialed_max: if dice.permille(150) { dice.log_between(1, 16) as u32 } else { 256 },
        buffers: 1 << dice.between(4, 6),
        buffer_bytes: dice.log_between(64, 4096) as u32,
        submissions: 1 << dice.between(6, 8),
        turn_bytes_max: dice.log_between(256, 32_768) as u32,
        turn_receives_max: dice.log_between(2, 16) as u32,
        owned_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let abilities = Abilities { receive_cap: dice.coin(), zero_copy: dice.coin() };
    let ring = draw_ring(dice, &limits, abilities, 8);
    let ring = SimRingSetup { places: knobs.table_places, ..ring };
    let span = |dice: &mut Dice, low, high| Timeout::After(ms(dice, low, high));
    let timeouts = Timeouts {
        idle: if dice.coin() { Timeout::Never } else { span(dice, 1_000, 60_000) },
        half_closed: span(dice, 200, 5_000),
        dial: span(dice, 50, 4_000),
        linger: span(dice, 5, 1_000),
        ..Timeouts::default()
    };
    Plan {
        seed,
        knobs,
        reactors: dice.between(1, 4) as usize,
        listen: Vec::new(),
        listen_as: Vec::new(),
        limits,
        timeouts,
        poll: dice.pick(&[Poll::Off, Poll::Off, Poll::Adaptive]),
        placement: Placement::Kernel,
        rebalance: false,
        per_source: SourceLimits::default(),
        accept_rate: None,
        drain_ms: dice.log_between(10, 10_000) as u32,
        not_ready_ms: 0,
        ring,
        first_generation: draw_generation(dice),
        keep_records: false,
    }
}
