//! What the benches without a kernel share: a reactor over the simulator's [`Null`] driver, whose connections talk.
//!
//! The driver hands a message to each connection in every turn and completes each send at the next `enter`. The bytes
//! themselves are neither written nor read. What the driver costs is in the figure: it stores what a ring would store,
//! in arrays. What is not in it: the system call, the translation of completion entries and the filling of submission
//! entries, which are the ring's.
//!
//! One bench for each way to write a service, not one for all: what two call, the compiler lays out otherwise than what
//! one calls, and the instructions of each would tell of the other.

use std::hint::black_box;
use std::process::ExitCode;

use criterion::{Criterion, Throughput};
use slipring_core::reactor::Reactor;
use slipring_core::token::Descriptor;
use slipring_core::{Handler, Limits, Listen, Poll, Team, Timeouts};
use slipring_sim::Null;

use slipring_benches::measure::clock::now;
pub(crate) use slipring_benches::measure::heap::Counting;
use slipring_benches::measure::heap::allocations;
use slipring_benches::measure::micro::{Samples, figure, row};
use slipring_benches::measure::{CLIENT_CPU, note};
use slipring_benches::pin::pin_to_cpu;

const CONNECTIONS: usize = 64;
const MESSAGE_BYTES: u32 = 64;
/// Two turns' worth: those of the sends in flight, and those of the receives.
const BUFFERS: usize = 2 * CONNECTIONS;
const LISTENER: Descriptor = Descriptor(3);
const WARMUP_TURNS: u64 = 1_000;
const STEADY_TURNS: u64 = 20_000;

/// A reactor whose connections are open and talk.
fn prepare<H: Handler>(handler: H) -> Reactor<Null, H> {
    let limits = Limits { buffers: BUFFERS as u32, ..Limits::default() };
    let team = Team::new((1, &[Listen::new()]), limits, Timeouts::default(), Poll::Off, 0);
    let setup = team.setup(0, vec![LISTENER]);
    let mut reactor = Reactor::new(Null::new(&limits), handler, setup);
    reactor.start();
    reactor.driver().connect(CONNECTIONS as u32);
    reactor.turn().expect("this driver does not fail");
    assert_eq!(reactor.driver().receiving(), CONNECTIONS);
    turns(&mut reactor, WARMUP_TURNS);
    reactor
}

/// Not inlined, so that a profile shows the reactor's part.
#[inline(never)]
fn turns<H: Handler>(reactor: &mut Reactor<Null, H>, turns: u64) {
    for _ in 0..turns {
        reactor.driver().deliver(CONNECTIONS, MESSAGE_BYTES);
        reactor.turn().expect("this driver does not fail");
    }
    black_box(reactor);
}

/// Allocations of many turns, all of whose messages came back.
fn steady_state<H: Handler>(handler: H) -> u64 {
    let mut reactor = prepare(handler);
    let (counters, before) = (*reactor.counters(), allocations());
    turns(&mut reactor, STEADY_TURNS);
    let allocations = allocations() - before;
    let bytes = STEADY_TURNS * CONNECTIONS as u64 * u64::from(MESSAGE_BYTES);
    assert_eq!(reactor.counters().bytes_received - counters.bytes_received, bytes);
    assert_eq!(reactor.counters().bytes_sent - counters.bytes_sent, bytes);
    assert_eq!(reactor.counters().completions_deferred, 0, "nobody passes his share");
    assert_eq!(reactor.counters().stale_completions, 0);
    allocations
}

/// So many turns and nothing else, for who counts instructions (`scripts/instructions`).
fn only_turns() -> Option<u64> {
    std::env::var("SLIPRING_P7_TURNS").ok()?.parse().ok()
}

/// Prints the row of a handler; an allocation in the steady state fails the bench.
pub(crate) fn bench<H: Handler>(what: &str, aim_ns: Option<f64>, make: impl Fn() -> H) -> ExitCode {
    if let Some(count) = only_turns() {
        turns(&mut prepare(make()), count);
        return ExitCode::SUCCESS;
    }
    if let Err(error) = pin_to_cpu(CLIENT_CPU) {
        note(format_args!("not pinned, figures will waver: {error}"));
    }
    let allocations = steady_state(make());
    let samples = Samples::default();
    let mut criterion = Criterion::default().configure_from_args();
    let mut reactor = prepare(make());
    let mut group = criterion.benchmark_group("p7");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function("turn of 64 messages", |bencher| {
        bencher.iter_custom(|iterations| {
            let start = now();
            turns(&mut reactor, iterations);
            samples.note(start.elapsed(), iterations * CONNECTIONS as u64)
        });
    });
    group.finish();
    criterion.final_summary();
    let message = samples.median();
    let each = figure(message.map(|ns| ns / 2.0), None);
    let figures = [
        figure(message, aim_ns),
        format!("{each} a completion"),
        format!("{allocations} allocations"),
    ];
    row("P7", what, &figures);
    if allocations == 0 {
        return ExitCode::SUCCESS;
    }
    note("the steady state may not allocate");
    ExitCode::FAILURE
}
