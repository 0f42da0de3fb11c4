//! Time, reactors, listeners, a drain; and that a seed decides all of it.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use slipring_core::{Ctx, Handle, Handler, Lease, Limits, Poll, Timeout, Timeouts};
use slipring_sim::{End, Knobs, Script, Sim, SimBuilder, check};

use crate::handlers::{Echo, Greeter, Obedient, Pieces, Served};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn an_idle_connection_ends_at_its_time() {
    check(100, |seed| {
        let timeouts = Timeouts { idle: Timeout::seconds(300), ..Timeouts::default() };
        let mut sim = SimBuilder::new(seed).timeouts(timeouts).start(|_| Obedient::default());
        let idle = sim.connect(Script::new().send(b"x").expect(b"x").expect_end());
        sim.run();
        let ended = sim.ended_at(idle).expect("it did");
        // The bytes took a while, at most; the wheel rounds up by an eighth at most.
        assert!(ended >= seconds(300) && ended < seconds(350), "{ended:?}");
        sim.finish();
        assert_eq!(sim.handler(0).told.last(), Some(&"idle"));
    });
}

#[test]
fn time_passes_when_it_is_told_to() {
    let mut sim = Sim::new(1, |_| Echo);
    assert_eq!(sim.now(), Duration::ZERO);
    sim.run_for(seconds(3600));
    assert_eq!(sim.now(), seconds(3600));
    // Nobody is there, so there is nothing to wait for.
    sim.run();
    assert_eq!(sim.now(), seconds(3600));
}

/// Stops all reactors at a word.
#[derive(Default)]
struct Stoppable {
    all: Rc<OnceCell<Handle>>,
}

impl Handler for Stoppable {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        let all = self.all.get().expect("set before there are clients");
        match &*data {
            b"drain" => all.drain(),
            b"abort" => all.abort(),
            _ => ctx.send(data),
        }
    }
}

#[test]
fn a_handler_can_order_the_end_of_all_reactors() {
    for (word, end) in [(&b"drain"[..], End::InOrder), (b"abort", End::Reset)] {
        let all = Rc::new(OnceCell::new());
        let builder = SimBuilder::new(1).reactors(2).faults(Knobs::calm());
        let mut sim = builder.start(|_| Stoppable { all: Rc::clone(&all) });
        all.set(sim.handle()).expect("set once");
        let others: Vec<_> = (0..4)
            .map(|_| sim.connect(Script::new().send(b"x").expect(b"x").expect_gone()))
            .collect();
        sim.run_for(seconds(1));
        assert_eq!(sim.open_connections(), 4);
        sim.connect(Script::new().send(word).expect_gone());
        sim.run();
        assert!(others.iter().all(|peer| sim.end_of(*peer) == Some(end)), "after {word:?}");
        sim.finish();
        let counted: u64 = sim.handle().counters().iter().map(|one| one.closed).sum();
        assert_eq!(counted, 5, "reported by reactors that have ended");
    }
}

#[test]
fn a_drain_closes_who_is_quiet_and_turns_others_away() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |_| Obedient::default());
        let script = Script::new().send(b"x").expect(b"x");
        let quiet: Vec<_> = (0..4).map(|_| sim.connect(script.clone())).collect();
        sim.run();
        sim.drain();
        sim.run_until(|sim| sim.open_connections() == 0);
        // The default is 30 s, of which the quiet ones have half.
        assert!(sim.now() < seconds(30), "{:?}", sim.now());
        sim.connect(Script::new().expect_refused());
        sim.finish();
        assert!(quiet.iter().all(|peer| sim.end_of(*peer) == Some(End::InOrder)));
        let drained = sim.handler(0).told.iter().filter(|told| **told == "drained").count();
        assert_eq!(drained, 4);
    });
}

#[test]
fn a_drain_aborts_who_goes_on_for_too_long() {
    let builder = SimBuilder::new(4).drain_time(seconds(2)).faults(Knobs::calm());
    let mut sim = builder.start(|_| Echo);
    let script = Script::new().send_slowly(vec![b'x'; 400], Duration::from_millis(50));
    let busy = sim.connect(script.expect_reset());
    sim.run_for(seconds(1));
    sim.drain();
    sim.run();
    assert_eq!(sim.end_of(busy), Some(End::Reset));
    assert_eq!(sim.counters(0).drain_aborted, 1);
    assert!(sim.now() < seconds(4), "{:?}", sim.now());
    sim.finish();
}

#[test]
fn the_same_seed_is_the_same_run() {
    let hash_of = |seed| {
        let mut sim = SimBuilder::new(seed).reactors(2).start(|_| Echo);
        for number in 0..4_u8 {
            let bytes = vec![number; 700];
            sim.connect(Script::new().send(bytes.clone()).expect(bytes).shutdown().expect_end());
        }
        sim.finish();
        (sim.trace_hash(), sim.now())
    };
    let hashes: BTreeSet<_> = (0..50).map(hash_of).collect();
    assert_eq!(hashes.len(), 50, "different seeds, different runs");
    assert_eq!(hashes, (0..50).map(hash_of).collect());
}

#[test]
fn several_reactors_share_the_clients() {
    let served = Served::default();
    check(20, |seed| {
        let make = |reactor| Greeter { reactor, served: Served::clone(&served) };
        let mut sim = SimBuilder::new(seed).reactors(3).poll(Poll::Adaptive).start(make);
        for _ in 0..12 {
            sim.connect(Script::new().expect(b"welcome").expect_end());
        }
        sim.finish();
        let accepted: u64 = (0..3).map(|reactor| sim.counters(reactor).accepted).sum();
        assert_eq!(accepted, 12);
    });
    assert_eq!(served.borrow().iter().collect::<BTreeSet<_>>().len(), 3, "each served somebody");
}

#[test]
fn listeners_are_told_apart() {
    let mut sim = SimBuilder::new(2).listeners(2).start(|_| Obedient::default());
    assert_ne!(sim.address(0), sim.address(1));
    sim.connect_to(1, Script::new().send(b"x").expect(b"x"));
    sim.finish();
    assert_eq!(sim.handler(0).told[0], "opened elsewhere");
}

#[test]
fn a_client_beyond_the_cap_waits_for_a_place() {
    let limits = Limits { accepted_max: 1, buffers: 16, ..Limits::default() };
    let mut sim = SimBuilder::new(6).limits(limits).start(|_| Echo);
    // Whoever comes first stays for a while.
    let served = |byte: &[u8; 1]| Script::new().send(byte).expect(byte).pause(seconds(5)).close();
    let (a, b) = (sim.connect(served(b"a")), sim.connect(served(b"b")));
    sim.run();
    assert!(sim.now() >= seconds(10), "one after the other: {:?}", sim.now());
    assert!(sim.received(a) == b"a" && sim.received(b) == b"b");
    sim.finish();
}

#[test]
fn calm_conditions_cut_nothing() {
    check(50, |seed| {
        let builder = SimBuilder::new(seed).faults(Knobs::calm());
        let mut sim = builder.start(|_| Pieces::default());
        sim.connect(Script::new().send(vec![b'x'; 4096]));
        sim.run_until(|sim| sim.counters(0).bytes_received > 0);
        assert!(sim.knobs().turned().is_empty());
        assert_eq!(sim.handler(0).0, [4096]);
        sim.finish();
    });
}

#[test]
fn what_a_runtime_would_refuse_is_refused() {
    let none = Limits { accepted_max: 0, dialed_max: 1, ..Limits::default() };
    let no_dials = Limits { dialed_max: 0, ..Limits::default() };
    let odd = Limits { buffers: 100, ..Limits::default() };
    let refusals = [
        (SimBuilder::new(1).limits(odd), "100 buffers; choose a power of two"),
        (SimBuilder::new(1).reactors(0), "no core to run on; name at least one"),
        (SimBuilder::new(1).limits(none), "and no connection that may be accepted"),
        (SimBuilder::new(1).limits(no_dials).listeners(0), "neither an address to listen on nor"),
    ];
    for (builder, cause) in refusals {
        let started = catch_unwind(AssertUnwindSafe(|| drop(builder.start(|_| Echo))));
        let panic = started.expect_err(cause);
        let text = panic.downcast_ref::<String>().expect("a cause");
        assert!(text.starts_with("bad configuration: ") && text.contains(cause), "{text}");
    }
}
