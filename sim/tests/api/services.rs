//! Handlers that dial: services that follow scripts, and addresses where nobody is.

use std::net::SocketAddr;
use std::time::Duration;

use slipring::Relay;
use slipring_core::{CloseReason, Connections, Ctx, Handler, Lease, Origin};
use slipring_sim::{End, Script, Sim, SimBuilder, check};

pub(crate) fn upstream(host: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], 80))
}

#[test]
fn a_relay_reaches_a_service_that_follows_a_script() {
    check(200, |seed| {
        let mut sim = Sim::new(seed, |reactor| Relay::new([upstream(1)], reactor));
        sim.serve(upstream(1), |number| {
            let answer = format!("answer {number}");
            Script::new().expect(b"question").send(answer).expect_end()
        });
        let peers: Vec<_> = (0..3)
            .map(|_| sim.connect(Script::new().send(b"question").read(8).shutdown().expect_end()))
            .collect();
        sim.run();
        let mut answers: Vec<_> = peers.iter().map(|peer| sim.received(*peer)).collect();
        answers.sort();
        assert_eq!(answers, [b"answer 0", b"answer 1", b"answer 2"]);
        assert_eq!(sim.served(upstream(1)).len(), 3);
        sim.finish();
    });
}

#[test]
fn where_nobody_listens_a_dial_is_refused_and_the_next_upstream_is_tried() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |_| Relay::new([upstream(1), upstream(2)], 0));
        sim.serve(upstream(2), |_| Script::new().expect(b"hi").send(b"second").read_to_end());
        sim.connect(Script::new().send(b"hi").expect(b"second").close());
        sim.finish();
        assert_eq!(sim.counters(0).dialed, 2);
    });
}

#[test]
fn a_service_can_go_away_in_the_middle() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |reactor| Relay::new([upstream(1)], reactor));
        sim.serve(upstream(1), |_| Script::new().expect(b"1").send(b"first").read_to_end());
        let before = sim.connect(Script::new().send(b"1").expect(b"first"));
        sim.run_until(|sim| sim.is_through(before));
        sim.refuse(upstream(1));
        let after = sim.connect(Script::new().send(b"1").expect_reset());
        sim.run_until(|sim| sim.is_through(after));
        assert_eq!(sim.end_of(before), None);
        sim.finish();
        assert_eq!(sim.end_of(before), Some(End::InOrder));
    });
}

/// Dials when it starts, says hello, and notes what became of it.
struct Caller {
    became: Vec<CloseReason>,
    heard: Vec<u8>,
}

impl Handler for Caller {
    type State = ();

    fn on_start(&mut self, connections: &mut Connections<()>) {
        let key = connections.dial(upstream(1), ()).expect("a place for it");
        connections.send_to(key, "hello");
    }

    fn on_open(&mut self, _: &mut Ctx<'_, ()>, origin: Origin) {
        assert_eq!(origin, Origin::Dialed);
    }

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, data: Lease) {
        self.heard.extend_from_slice(&data);
    }

    fn on_close(&mut self, _: &mut Ctx<'_, ()>, reason: CloseReason) {
        self.became.push(reason);
    }
}

fn caller(_: usize) -> Caller {
    Caller { became: Vec::new(), heard: Vec::new() }
}

#[test]
fn a_handler_that_dials_at_its_start_finds_the_service() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, caller);
        sim.serve(upstream(1), |_| Script::new().expect(b"hello").send(b"hello yourself").close());
        sim.run_until(|sim| !sim.served(upstream(1)).is_empty());
        sim.run();
        sim.finish();
        assert_eq!(sim.handler(0).heard, b"hello yourself");
        assert_eq!(sim.handler(0).became, [CloseReason::PeerClosed]);
    });
}

#[test]
fn a_service_that_answers_may_be_kept_connected_to_the_end() {
    check(50, |seed| {
        let mut sim = Sim::new(seed, caller);
        sim.serve(upstream(1), |_| {
            Script::new().answer_to_end(|unread| Some((unread.len(), b"!".to_vec())))
        });
        sim.run_until(|sim| !sim.handler(0).heard.is_empty());
        sim.run();
        sim.finish();
        assert_eq!(sim.handler(0).became.len(), 1);
    });
}

#[test]
fn a_dial_that_is_never_answered_times_out() {
    let builder = SimBuilder::new(1).turn(|knobs| knobs.lost_dial = 1000);
    let mut sim = builder.start(caller);
    sim.run_until(|sim| !sim.handler(0).became.is_empty());
    assert_eq!(sim.handler(0).became, [CloseReason::DialTimeout]);
    // By default after 3 s.
    assert!(sim.now() >= Duration::from_secs(3) && sim.now() < Duration::from_secs(5));
    sim.finish();
}
