//! What scripts do, and what they fail with.

use std::time::Duration;

use slipring_sim::{End, Knobs, Script, Sim, SimBuilder, check};

use crate::handlers::{Echo, GIVEN, Mute, Obedient};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Bytes that differ from place to place.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place * 7 + place / 256) as u8).collect()
}

#[test]
fn an_echo_serves_several_peers_whatever_the_faults() {
    check(300, |seed| {
        let mut sim = Sim::new(seed, |_| Echo);
        let peers: Vec<_> = (0..5)
            .map(|number| {
                let bytes = pattern(number * 900);
                let script = Script::new().send(bytes.clone()).shutdown();
                (sim.connect(script.expect(bytes.clone()).expect_end()), bytes)
            })
            .collect();
        sim.run();
        for (peer, bytes) in peers {
            assert_eq!(sim.received(peer), bytes);
            assert_eq!(sim.end_of(peer), Some(End::InOrder));
        }
        sim.finish();
        assert_eq!(sim.open_connections(), 0);
    });
}

#[test]
fn a_slow_reader_is_served_in_full_and_holds_up_nobody_else() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |_| Obedient::default());
        // Less than the write-stall timeout of 30 s.
        let script = Script::new().stop_reading().send(b"g").pause(seconds(20));
        let slow = sim.connect(script.read(GIVEN).shutdown().expect_end());
        let quick = sim.connect(Script::new().send(b"12").expect(b"12"));
        sim.run_until(|sim| sim.is_through(quick));
        assert!(sim.received(slow).is_empty());
        sim.run();
        assert_eq!(sim.received(slow), [b'g'; GIVEN]);
        assert!(sim.now() >= seconds(20));
        sim.finish();
    });
}

#[test]
fn a_reader_that_stops_for_too_long_is_ended() {
    check(60, |seed| {
        let mut sim = Sim::new(seed, |_| Obedient::default());
        // More than all queues between can hold: back-pressure stops the sender, and nobody reads.
        let script = Script::new().stop_reading().send(vec![b'x'; 2_000_000]);
        let peer = sim.connect(script.expect_reset());
        sim.run();
        assert_eq!(sim.end_of(peer), Some(End::Reset));
        assert!(sim.counters(0).bytes_received < 600_000, "{:?}", sim.counters(0));
        sim.finish();
        assert_eq!(sim.handler(0).told.last(), Some(&"stalled"));
    });
}

#[test]
fn bytes_sent_slowly_take_their_time() {
    check(50, |seed| {
        let mut sim = Sim::new(seed, |_| Echo);
        let script = Script::new().send_slowly(b"abcdef", seconds(2)).expect(b"abcdef");
        sim.connect(script);
        sim.run();
        assert!((10..14).contains(&sim.now().as_secs()), "{:?}", sim.now());
        sim.finish();
    });
}

#[test]
fn every_end_is_told_from_the_others() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |_| Obedient::default());
        let ended = sim.connect(Script::new().send(b"e").expect_end());
        let aborted = sim.connect(Script::new().send(b"a").expect_reset());
        let either = sim.connect(Script::new().send(b"a").expect_gone());
        let closed = sim.connect(Script::new().send(b"x").expect(b"x").close());
        let reset = sim.connect(Script::new().send(b"x").expect(b"x").reset());
        let stays = sim.connect(Script::new().expect_silence(seconds(3)));
        sim.run();
        let ends = [ended, aborted, either, closed, reset, stays].map(|peer| sim.end_of(peer));
        let reset = Some(End::Reset);
        let left = Some(End::Left);
        assert_eq!(ends, [Some(End::InOrder), reset, reset, left, left, None]);
        assert!(sim.ended_at(aborted).expect("reset") <= sim.now());
        sim.finish();
    });
}

#[test]
fn a_broken_connection_skips_to_the_end_that_is_expected() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |_| Obedient::default());
        let script = Script::new().send(b"a").pause(seconds(2)).send(b"more").expect_reset();
        sim.connect(script);
        sim.finish();
    });
}

/// What a script on a handler that obeys fails with, while no byte is cut off from the others.
fn failure_of(script: Script) -> String {
    let mut sim = SimBuilder::new(3).faults(Knobs::calm()).start(|_| Obedient::default());
    sim.connect(script);
    let failure = sim.try_run().expect_err("it cannot be met");
    assert_eq!(sim.try_run(), Err(failure.clone()), "the same from then on");
    assert_eq!(sim.try_finish(), Err(failure.clone()));
    failure.what
}

#[test]
fn a_step_that_cannot_be_met_says_what_came_instead() {
    let begin = Script::new;
    let end = "expect the end of the stream";
    for (script, step, what) in [
        (
            begin().send(b"hello").expect(b"help"),
            "2 of 2 (expect 4 bytes \"help\")",
            "after 3 bytes as expected, 2 bytes \"lo\" came instead of 1 byte \"p\"",
        ),
        (
            begin().send(b"x").expect(b"x").send(b"e").expect(b"y"),
            "4 of 4 (expect 1 byte \"y\")",
            "nothing came: the other side has ended its stream",
        ),
        (
            begin().send(b"x").pause(seconds(1)).send(b"e").read(3),
            "4 of 4 (read 3 bytes)",
            "only 1 byte \"x\" came: the other side has ended its stream",
        ),
        (
            begin().send(b"a").expect_end(),
            &format!("2 of 2 ({end})"),
            "it was reset, after nothing",
        ),
        (
            begin().send(b"x").read(1).send(b"e").expect_reset(),
            "4 of 4 (expect a reset)",
            "the stream ended in order, after nothing",
        ),
        (begin().send(b"xx").expect_end(), &format!("2 of 2 ({end})"), "2 bytes \"xx\" came"),
        (
            begin().send(b"xx").expect_silence(seconds(1)),
            "2 of 2 (expect no byte for 1000 ms)",
            "2 bytes \"xx\" came",
        ),
        (
            begin().send(b"a").pause(seconds(1)).send(b"more").expect(b"more"),
            "3 of 4 (send 4 bytes \"more\")",
            "the connection takes no more: it was reset",
        ),
    ] {
        assert_eq!(
            failure_of(script),
            format!("peer 0 at reactor 0 slot 0/0, step {step}: {what}")
        );
    }
    let connected = failure_of(begin().expect_refused());
    assert_eq!(connected, "peer 0 was connected, and expected to be refused");
}

#[test]
fn scripts_that_are_stuck_are_named_with_their_step() {
    let mut sim = Sim::new(9, |_| Mute);
    sim.connect(Script::new().send(b"well?").expect(b"yes"));
    sim.connect(Script::new());
    let failure = sim.try_run().expect_err("nobody answers");
    let waits = "peer 0 waits at step 2 of 2: expect 3 bytes \"yes\"; nothing of them came";
    assert!(failure.what.contains("no script gets any further within 600s"), "{failure}");
    assert!(failure.what.contains(waits), "{failure}");
    assert!(!failure.what.contains("peer 1"), "{failure}");
}

#[test]
#[should_panic(expected = "a script that sends after its shutdown: send 4 bytes \"more\"")]
fn a_script_that_makes_no_sense_is_refused_at_once() {
    let _ = Script::new().shutdown().send(b"more");
}

#[test]
#[should_panic(expected = "a script that goes on after its peer has left: expect a reset")]
fn nothing_follows_a_close() {
    let _ = Script::new().close().expect_reset();
}
