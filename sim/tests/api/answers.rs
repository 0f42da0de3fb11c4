//! Peers that answer what comes, whatever it is.

use std::cell::RefCell;
use std::rc::Rc;

use slipring::Relay;
use slipring_sim::{End, Script, Sim, check};

use crate::handlers::{Echo, Obedient};
use crate::services::upstream;

/// The line at the beginning, with its end.
fn line(unread: &[u8]) -> Option<&[u8]> {
    let end = unread.iter().position(|byte| *byte == b'\n')?;
    Some(&unread[..=end])
}

#[test]
fn a_service_answers_whoever_asks_in_any_order() {
    let mut first = [0, 0];
    check(200, |seed| {
        let mut sim = Sim::new(seed, |reactor| Relay::new([upstream(1)], reactor));
        let asked = Rc::new(RefCell::new(Vec::new()));
        let all = Rc::clone(&asked);
        sim.serve(upstream(1), move |_| {
            let all = Rc::clone(&all);
            Script::new().answer_to_end(move |unread| {
                let line = line(unread)?;
                all.borrow_mut().push(line.to_vec());
                Some((line.len(), [b"you said ", line].concat()))
            })
        });
        for name in ["anna", "bert"] {
            let asks = format!("{name} 1\n{name} 2\n");
            let hears = format!("you said {name} 1\nyou said {name} 2\n");
            sim.connect(Script::new().send(asks).expect(hears).shutdown().expect_end());
        }
        sim.run();
        sim.finish();
        assert_eq!(asked.borrow().len(), 4);
        first[usize::from(asked.borrow()[0] == b"anna 1\n")] += 1;
    });
    assert!(first.iter().all(|count| *count > 20), "{first:?}");
}

#[test]
fn who_answers_is_not_waited_for_and_may_stay_connected() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |reactor| Relay::new([upstream(1)], reactor));
        sim.serve(upstream(1), |_| Script::new().answer_to_end(|_| Some((1, b"!".to_vec()))));
        let peer = sim.connect(Script::new().send(b"abc").expect(b"!!!"));
        sim.run();
        assert_eq!(sim.end_of(sim.served(upstream(1))[0]), None);
        assert!(sim.is_through(peer) && !sim.is_through(sim.served(upstream(1))[0]));
        sim.finish();
        assert!(sim.is_through(sim.served(upstream(1))[0]));
    });
}

#[test]
fn an_answer_larger_than_what_sockets_hold_is_sent_whole() {
    const LARGE: usize = 300_000;
    check(20, |seed| {
        let mut sim = Sim::new(seed, |reactor| Relay::new([upstream(1)], reactor));
        sim.serve(upstream(1), |_| Script::new().answer_to_end(|_| Some((1, vec![b'x'; LARGE]))));
        let peer = sim.connect(Script::new().send(b"12").read(2 * LARGE).shutdown().expect_end());
        sim.finish();
        assert_eq!(sim.received(peer).len(), 2 * LARGE);
    });
}

#[test]
fn an_answer_leaves_to_the_next_step_what_it_does_not_take() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |_| Echo);
        // The echo gives the line back, and the answer to it.
        let script = Script::new().send(b"one\ntwo").answer(|unread| {
            let line = line(unread)?;
            Some((line.len(), line.to_ascii_uppercase()))
        });
        sim.connect(script.expect(b"twoONE\n").shutdown().expect_end());
        sim.run();
        sim.finish();
    });
}

#[test]
fn what_is_never_answered_fails() {
    let failure_of = |sends: &[u8], script: Script| {
        let mut sim = Sim::new(9, |reactor| Relay::new([upstream(1)], reactor));
        sim.serve(upstream(1), move |_| script.clone());
        sim.connect(Script::new().send(sends).shutdown().expect_gone());
        sim.try_finish().expect_err("no answer").what
    };
    let what = failure_of(b"half", Script::new().answer(|_| None));
    assert!(what.contains("(answer what comes): only 4 bytes \"half\" came: the other"), "{what}");
    let what = failure_of(b"half", Script::new().answer_to_end(|_| None));
    assert!(what.contains("4 bytes \"half\" came before the end, and was no request"), "{what}");
    let what = failure_of(b"x", Script::new().answer(|_| Some((2, Vec::new()))));
    assert!(what.contains("the answer takes 2 of 1 bytes that are there"), "{what}");
    let what = failure_of(b"x", Script::new().answer(|unread| panic!("not {unread:?}")));
    assert!(what.ends_with("not [120]"), "{what}");
}

#[test]
fn a_reset_is_an_end_of_answers_if_it_is_expected() {
    check(50, |seed| {
        let script = || Script::new().send(b"1").answer_to_end(|_| Some((1, b"a".to_vec())));
        let mut sim = Sim::new(seed, |_| Obedient::default());
        sim.connect(script().expect_reset());
        sim.finish();
        let mut sim = Sim::new(seed, |_| Obedient::default());
        sim.connect(script());
        let failure = sim.try_finish().expect_err("a reset");
        assert!(failure.what.contains("(answer all that comes): it was reset"), "{failure}");
    });
}

#[test]
fn a_client_that_answers_to_the_end_waits_for_it() {
    check(50, |seed| {
        let mut sim = Sim::new(seed, |_| Obedient::default());
        // Its third answer ends the connection.
        let mut count = 0;
        let script = Script::new().send(b"0").answer_to_end(move |_| {
            count += 1;
            Some((1, if count < 3 { b"0".to_vec() } else { b"e".to_vec() }))
        });
        let peer = sim.connect(script);
        sim.run();
        assert_eq!((sim.received(peer), sim.end_of(peer)), (b"000".to_vec(), Some(End::InOrder)));
        sim.finish();
    });
}
