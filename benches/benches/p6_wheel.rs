//! P6: the wheel with a million timers armed.
//!
//! - *re-arm by activity*: what a connection does when bytes move. It notes the time in its slot; the
//!   wheel is not touched, that is its trick. So what is timed is a store over a random walk of slots:
//!   of few slots, as when the message at hand has brought its slot to the cache anyway, and of a
//!   million, where each store also waits for its slot. The first is the price of the re-arm.
//! - *arm and disarm*: of one timer after the other in rotation, deadlines from one second to a minute in
//!   no order (to draw one is in the figure); the same with one timeout for all; and with other
//!   structures.
//! - *expiry*: a minute of time, millisecond by millisecond, in which all of them fall due.
//!
//! tokio-util's `DelayQueue` is measured by a process of its own (`peers/src/bin/peer-delayqueue.rs`), the
//! same walk with the same deadlines: nothing of tokio enters this workspace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use criterion::Criterion;
use slipring_benches::measure::binaries::single_peer;
use slipring_benches::measure::clock::now;
use slipring_benches::measure::micro::{Samples, figure, row};
use slipring_benches::measure::settings::Settings;
use slipring_benches::measure::{CLIENT_CPU, note};
use slipring_benches::pin::pin_to_cpu;
use slipring_core::config::TIMERS_PER_TURN_MAX;
use slipring_core::connection::Connection;
use slipring_core::wheel::Wheel;

const TIMERS: u32 = 1 << 20;
/// Slots that fit the first level of the cache.
const FEW: usize = 64;
const LATEST_MS: u64 = 60_000;
const ARM_AIM_NS: f64 = 20.0;
const ACTIVITY_AIM_NS: f64 = 2.0;
const PEER: &str = "delayqueue";

/// Marsaglia's xorshift, as in the peer.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(0x2545_F491_4F6C_DD1D)
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 32
    }

    #[inline]
    fn deadline_ms(&mut self) -> u64 {
        1_000 + self.next() % (LATEST_MS - 1_000)
    }
}

/// Timers that can be armed and disarmed, one for each index.
trait Timers {
    fn arm(&mut self, index: u32, deadline_ms: u64);
    fn disarm(&mut self, index: u32);
}

impl Timers for Wheel {
    #[inline]
    fn arm(&mut self, index: u32, deadline_ms: u64) {
        Self::arm(self, index, deadline_ms);
    }

    #[inline]
    fn disarm(&mut self, index: u32) {
        Self::disarm(self, index);
    }
}

/// A heap that learns of a disarm late: entries carry the count of their timer's armings, and those of
/// earlier ones are dropped once they outnumber the living.
struct Heap {
    entries: BinaryHeap<Reverse<(u64, u32, u32)>>,
    armings: Vec<u32>,
    armed: usize,
}

impl Heap {
    fn new() -> Self {
        let entries = BinaryHeap::with_capacity(2 * TIMERS as usize + 2);
        Self { entries, armings: vec![0; TIMERS as usize], armed: 0 }
    }
}

impl Timers for Heap {
    #[inline]
    fn arm(&mut self, index: u32, deadline_ms: u64) {
        if self.entries.len() > 2 * self.armed.max(FEW) {
            let armings = &self.armings;
            self.entries.retain(|Reverse((_, index, arming))| armings[*index as usize] == *arming);
        }
        self.entries.push(Reverse((deadline_ms, index, self.armings[index as usize])));
        self.armed += 1;
    }

    #[inline]
    fn disarm(&mut self, index: u32) {
        self.armings[index as usize] += 1;
        self.armed -= 1;
    }
}

/// A sorted map, beside the deadline of each timer.
struct Tree {
    entries: BTreeMap<(u64, u32), ()>,
    deadlines: Vec<u64>,
}

impl Tree {
    fn new() -> Self {
        Self { entries: BTreeMap::new(), deadlines: vec![0; TIMERS as usize] }
    }
}

impl Timers for Tree {
    #[inline]
    fn arm(&mut self, index: u32, deadline_ms: u64) {
        self.deadlines[index as usize] = deadline_ms;
        self.entries.insert((deadline_ms, index), ());
    }

    #[inline]
    fn disarm(&mut self, index: u32) {
        self.entries.remove(&(self.deadlines[index as usize], index));
    }
}

/// Disarms and arms one timer after the other, all the others armed.
fn rotation<T: Timers>(
    criterion: &mut Criterion,
    name: &str,
    mut timers: T,
    mut deadline_ms: impl FnMut() -> u64,
) -> Option<f64> {
    for index in 0..TIMERS {
        timers.arm(index, deadline_ms());
    }
    let samples = Samples::default();
    let mut index = 0;
    criterion.bench_function(&format!("p6/arm and disarm/{name}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let start = now();
            for _ in 0..iterations {
                timers.disarm(index);
                timers.arm(index, deadline_ms());
                index = (index + 1) % TIMERS;
            }
            black_box(&mut timers);
            samples.note(start.elapsed(), iterations)
        });
    });
    samples.median()
}

/// As long as a connection, with the time of its last activity in it.
#[derive(Clone)]
#[repr(C, align(8))]
struct Slot {
    active_at_ms: u64,
    rest: [u8; size_of::<Connection>() - size_of::<u64>()],
}

/// Notes the time in slots in no order.
fn activity(criterion: &mut Criterion, name: &str, count: usize) -> Option<f64> {
    const { assert!(TIMERS.is_power_of_two(), "a step is masked, not divided") };
    let slot = Slot { active_at_ms: 0, rest: [1; _] };
    let mut slots = vec![slot; count];
    let mut random = Random::new();
    let walk: Vec<u32> = (0..TIMERS).map(|_| random.next() as u32 % count as u32).collect();
    let samples = Samples::default();
    let mut now_ms = 0;
    criterion.bench_function(&format!("p6/re-arm by activity/{name}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let start = now();
            for step in 0..iterations {
                now_ms += 1;
                let index = walk[step as usize % TIMERS as usize] as usize;
                slots[index].active_at_ms = now_ms;
            }
            black_box(&mut slots);
            samples.note(start.elapsed(), iterations)
        });
    });
    black_box(slots.last().map(|slot| slot.rest));
    samples.median()
}

/// Lets all timers fall due, a millisecond at a time; the time for each of them.
fn expiry(criterion: &mut Criterion) -> Option<f64> {
    let samples = Samples::default();
    let mut due = Vec::with_capacity(TIMERS_PER_TURN_MAX);
    criterion.bench_function("p6/expiry of all timers", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut took = std::time::Duration::ZERO;
            for _ in 0..iterations {
                let mut random = Random::new();
                let mut wheel = Wheel::new(TIMERS, 0);
                for index in 0..TIMERS {
                    wheel.arm(index, random.deadline_ms());
                }
                let mut delivered = 0;
                let start = now();
                // A coarse bucket delivers late, by at most an eighth.
                for now_ms in 0..LATEST_MS + LATEST_MS / 7 {
                    loop {
                        due.clear();
                        let more = wheel.expire(now_ms, TIMERS_PER_TURN_MAX, &mut due);
                        delivered += black_box(&due).len();
                        if !more {
                            break;
                        }
                    }
                }
                took += start.elapsed();
                assert_eq!(delivered, TIMERS as usize);
            }
            samples.note(took, iterations * u64::from(TIMERS))
        });
    });
    samples.median()
}

/// What the peer printed.
fn run_peer(binary: &Path) -> io::Result<f64> {
    let output = Command::new(binary).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| io::Error::other(format!("{PEER} ended: {}", output.status)))
}

/// The line of tokio-util's queue, whose absence is said too.
fn peer_line(peer: Option<&Path>) -> String {
    match peer.map(run_peer) {
        Some(Ok(ns)) => figure(Some(ns), None),
        Some(Err(error)) => format!("left out: {error}"),
        None => "left out: not built, or not among SLIPRING_BENCH_PEERS".to_owned(),
    }
}

fn main() -> ExitCode {
    let peer = match Settings::from_env().and_then(|set| single_peer(PEER, &set.peers)) {
        Ok(peer) => peer,
        Err(error) => {
            note(format_args!("p6_wheel: {PEER} is left out: {error}"));
            None
        }
    };
    if let Err(error) = pin_to_cpu(CLIENT_CPU) {
        note(format_args!("p6_wheel: not pinned, figures will waver: {error}"));
    }
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let few = activity(&mut criterion, "64 slots", FEW);
    let many = activity(&mut criterion, "1 M slots", TIMERS as usize);
    let mut random = Random::new();
    let mut mixed = || random.deadline_ms();
    let wheel = rotation(&mut criterion, "wheel", Wheel::new(TIMERS, 0), &mut mixed);
    let equal = rotation(&mut criterion, "wheel, one timeout", Wheel::new(TIMERS, 0), || LATEST_MS);
    let heap = rotation(&mut criterion, "heap, lazy deletion", Heap::new(), &mut mixed);
    let tree = rotation(&mut criterion, "BTreeMap", Tree::new(), &mut mixed);
    let expiry = expiry(&mut criterion);
    criterion.final_summary();
    let plain = |what: &str, median| row("P6", what, &[figure(median, None)]);
    let few = figure(few, Some(ACTIVITY_AIM_NS));
    row("P6", "re-arm by activity: a store into a slot in the cache", &[few]);
    plain("the same, over 1 M slots at random: the slot's cache miss", many);
    row("P6", "arm + disarm, 1 M armed", &[figure(wheel, Some(ARM_AIM_NS))]);
    plain("the same, one timeout for all", equal);
    plain("the same, BinaryHeap with lazy deletion", heap);
    plain("the same, BTreeMap", tree);
    row("P6", "the same, tokio-util's DelayQueue", &[peer_line(peer.as_deref())]);
    plain("expiry, each timer", expiry);
    ExitCode::SUCCESS
}
