//! P7: from a completion through the handler to the submission, with no kernel in between.
//!
//! The simulator's [`Null`] driver hands a message to each connection in every turn and completes each
//! send at the next `enter`; the handler is an echo. One message is a receive completion, the handler's
//! call, the send's submission and the send's completion. The bytes themselves are neither written nor
//! read.
//!
//! What the driver costs is in the figure: it stores what a ring would store, in arrays. What is
//! not in it: the system call, the translation of completion entries and the filling of submission
//! entries, which are the ring's.
//!
//! An allocation in the steady state fails the bench.

#![expect(unsafe_code, reason = "a global allocator that counts has to implement an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, Throughput};
use slipring_benches::measure::clock::now;
use slipring_benches::measure::micro::{Samples, figure, row};
use slipring_benches::measure::{CLIENT_CPU, note};
use slipring_benches::pin::pin_to_cpu;
use slipring_core::reactor::Reactor;
use slipring_core::token::Descriptor;
use slipring_core::{Ctx, Handler, Lease, Limits, Listen, Poll, Team, Timeouts};
use slipring_sim::Null;

const CONNECTIONS: usize = 64;
const MESSAGE_BYTES: u32 = 64;
/// Two turns' worth: those of the sends in flight, and those of the receives.
const BUFFERS: usize = 2 * CONNECTIONS;
const LISTENER: Descriptor = Descriptor(3);
const WARMUP_TURNS: u64 = 1_000;
const STEADY_TURNS: u64 = 20_000;
const AIM_NS: f64 = 40.0;

/// Counts what is allocated or moved; freeing is free to happen.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(block, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

type Bench = Reactor<Null, Echo>;

/// A reactor whose connections are open and talk.
fn prepare() -> Bench {
    let limits = Limits { buffers: BUFFERS as u32, ..Limits::default() };
    let team = Team::new((1, &[Listen::new()]), limits, Timeouts::default(), Poll::Off, 0);
    let setup = team.setup(0, vec![LISTENER]);
    let mut reactor = Reactor::new(Null::new(&limits), Echo, setup);
    reactor.start();
    reactor.driver().connect(CONNECTIONS as u32);
    reactor.turn().expect("this driver does not fail");
    assert_eq!(reactor.driver().receiving(), CONNECTIONS);
    turns(&mut reactor, WARMUP_TURNS);
    reactor
}

/// Not inlined, so that a profile shows the reactor's part.
#[inline(never)]
fn turns(reactor: &mut Bench, turns: u64) {
    for _ in 0..turns {
        reactor.driver().deliver(CONNECTIONS, MESSAGE_BYTES);
        reactor.turn().expect("this driver does not fail");
    }
    black_box(reactor);
}

/// Allocations of many turns, all of whose messages came back.
fn steady_state() -> u64 {
    let mut reactor = prepare();
    let (counters, before) = (*reactor.counters(), ALLOCATIONS.load(Ordering::Relaxed));
    turns(&mut reactor, STEADY_TURNS);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
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

fn main() -> ExitCode {
    if let Some(count) = only_turns() {
        turns(&mut prepare(), count);
        return ExitCode::SUCCESS;
    }
    if let Err(error) = pin_to_cpu(CLIENT_CPU) {
        note(format_args!("p7_dispatch: not pinned, figures will waver: {error}"));
    }
    let allocations = steady_state();
    let samples = Samples::default();
    let mut criterion = Criterion::default().configure_from_args();
    let mut reactor = prepare();
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
    row(
        "P7",
        "completion to handler to submission, no kernel",
        &[
            figure(message, Some(AIM_NS)),
            format!("{each} a completion"),
            format!("{allocations} allocations"),
        ],
    );
    if allocations == 0 {
        ExitCode::SUCCESS
    } else {
        note("p7_dispatch: the steady state may not allocate");
        ExitCode::FAILURE
    }
}
