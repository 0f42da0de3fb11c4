//! P7: from a completion through the handler to the submission, with no kernel in between.
//!
//! A [`Null`] driver hands a message to each connection in every turn and completes each send at the
//! next `enter`; the handler is an echo. One message is a receive completion, the handler's call, the
//! send's submission and the send's completion. The bytes themselves are neither written nor read.
//!
//! What the driver costs is in the figure: it stores what a ring would store, in fixed arrays. What is
//! not in it: the system call, the translation of completion entries and the filling of submission
//! entries, which are the ring's.
//!
//! An allocation in the steady state fails the bench.

#![expect(unsafe_code, reason = "a global allocator that counts has to implement an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::hint::black_box;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, Throughput};
use slipring_benches::measure::clock::now;
use slipring_benches::measure::micro::{Samples, figure, row};
use slipring_benches::measure::{CLIENT_CPU, note};
use slipring_benches::pin::pin_to_cpu;
use slipring_core::admission::Admission;
use slipring_core::control::Control;
use slipring_core::driver::{
    Abilities, Completion, Driver, DriverFailed, QueueFull, Share, Submission, Wait,
};
use slipring_core::reactor::{Reactor, Setup};
use slipring_core::sys::memory::Memory;
use slipring_core::token::{Descriptor, Token};
use slipring_core::{Ctx, Fault, Handler, Lease, Limits, Poll, Timeouts};

const CONNECTIONS: usize = 64;
const MESSAGE_BYTES: u32 = 64;
/// Two turns' worth: those of the sends in flight, and those of the receives.
const BUFFERS: usize = 2 * CONNECTIONS;
const LISTENER: Descriptor = Descriptor(3);
/// The first client's; the others follow.
const FIRST_CLIENT: u32 = 8;
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

/// A kernel that is always ready: see the head of this file.
struct Null {
    memory: Rc<Memory>,
    published: [u16; BUFFERS],
    published_count: usize,
    /// Pushed since the last `enter`: token and bytes.
    sends: [(Token, u32); CONNECTIONS],
    sends_count: usize,
    /// Sends that have completed.
    sent_count: usize,
    /// The receive of each client, as far as they are accepted.
    receives: [Option<Token>; CONNECTIONS],
    accept: Option<Token>,
    accepted: usize,
    /// Whether the clients have a message for us in the next turn.
    talking: bool,
    /// Whether this turn's completions are still to be reaped.
    ready: bool,
}

impl Null {
    fn new(limits: &Limits) -> Self {
        let memory = Memory::new(BUFFERS as u32, limits.buffer_bytes, limits.owned_bytes_max);
        let nothing = Token::from_bits(0).expect("zero is a token");
        let mut null = Self {
            memory,
            published: [0; BUFFERS],
            published_count: 0,
            sends: [(nothing, 0); CONNECTIONS],
            sends_count: 0,
            sent_count: 0,
            receives: [None; CONNECTIONS],
            accept: None,
            accepted: 0,
            talking: false,
            ready: false,
        };
        null.recycle();
        null
    }

    #[inline]
    fn reap_messages(&mut self, into: &mut VecDeque<Completion>) {
        for token in self.receives.iter().flatten() {
            assert!(self.published_count > 0, "there are buffers for two turns");
            self.published_count -= 1;
            let number = self.published[self.published_count];
            let span = Some(self.memory.claim(number, MESSAGE_BYTES));
            into.push_back(Completion { span, ..completion(*token, MESSAGE_BYTES, true) });
        }
    }

    /// All clients come in at once.
    #[cold]
    fn reap_clients(&mut self, token: Token, into: &mut VecDeque<Completion>) {
        for client in 0..CONNECTIONS as u32 {
            into.push_back(completion(token, FIRST_CLIENT + client, true));
        }
        self.accepted = CONNECTIONS;
    }
}

#[inline]
fn completion(token: Token, number: u32, more: bool) -> Completion {
    Completion { token, result: Ok(number), span: None, more, notification: false, hint: false }
}

impl Driver for Null {
    #[inline]
    fn abilities(&self) -> Abilities {
        Abilities { receive_cap: true, zero_copy: false }
    }

    #[inline]
    fn now_us(&self) -> u64 {
        0
    }

    #[inline]
    fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    #[inline]
    fn room(&self, _: Share) -> u32 {
        u32::MAX
    }

    #[inline]
    fn push(
        &mut self,
        token: Token,
        submission: Submission<'_>,
        _: Share,
    ) -> Result<(), QueueFull> {
        match submission {
            Submission::Send { segments, .. } => {
                let bytes = segments.iter().map(|segment| segment.length).sum();
                *self.sends.get_mut(self.sends_count).ok_or(QueueFull)? = (token, bytes);
                self.sends_count += 1;
            }
            Submission::Receive { descriptor, .. } => {
                self.receives[(descriptor.0 - FIRST_CLIENT) as usize] = Some(token);
            }
            Submission::AcceptMany(_) => self.accept = Some(token),
            other => unreachable!("an echo that nobody ends wants no {other:?}"),
        }
        Ok(())
    }

    #[inline]
    fn enter(&mut self, _: Wait) -> Result<(), DriverFailed> {
        self.memory.settle();
        self.sent_count = self.sends_count;
        self.ready = true;
        Ok(())
    }

    #[inline]
    fn has_completions(&self) -> bool {
        self.ready
    }

    #[inline]
    fn reap(&mut self, into: &mut VecDeque<Completion>, _: usize) {
        self.ready = false;
        for (token, bytes) in &self.sends[..self.sent_count] {
            into.push_back(completion(*token, *bytes, false));
        }
        self.sends_count = 0;
        self.sent_count = 0;
        if self.talking {
            self.reap_messages(into);
        } else if let (Some(token), 0) = (self.accept, self.accepted) {
            self.reap_clients(token, into);
        }
    }

    #[inline]
    fn recycle(&mut self) -> u32 {
        let before = self.published_count;
        while let Some(number) = self.memory.take_returned() {
            self.published[self.published_count] = number;
            self.published_count += 1;
        }
        (self.published_count - before) as u32
    }

    fn open_socket(&mut self, _: &SocketAddr) -> Result<Descriptor, Fault> {
        Err(Fault::Denied)
    }

    fn set_abortive(&mut self, _: Descriptor) {}

    fn accept_queued(&mut self, _: Descriptor) -> Option<Descriptor> {
        None
    }

    fn close_now(&mut self, _: Descriptor) {}

    fn push_wake(&mut self, _: Token) -> Result<(), QueueFull> {
        Ok(())
    }

    fn clear_wake(&mut self) {}

    fn addresses(&self, _: Descriptor) -> Result<(SocketAddr, SocketAddr), Fault> {
        Err(Fault::NotConnected)
    }
}

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
    let admission = Admission::new(limits.accepted_max, 0, limits.backlog, 1);
    let setup = Setup {
        number: 0,
        listeners: vec![LISTENER],
        timeouts: Timeouts::default(),
        poll: Poll::Off,
        admission: Arc::new(admission),
        control: Arc::new(Control::new(1, 0)),
        limits,
    };
    let mut reactor = Reactor::new(Null::new(&setup.limits.clone()), Echo, setup);
    reactor.start();
    turns(&mut reactor, 2);
    assert_eq!(reactor.connections().len() as usize, CONNECTIONS);
    reactor.driver().talking = true;
    turns(&mut reactor, WARMUP_TURNS);
    reactor
}

/// Not inlined, so that a profile shows the reactor's part.
#[inline(never)]
fn turns(reactor: &mut Bench, turns: u64) {
    for _ in 0..turns {
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

fn main() -> ExitCode {
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
