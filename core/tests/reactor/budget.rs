//! Shares of a turn: who sends a lot waits, in order, and nobody waits for it.

use slipring_core::token::Op;
use slipring_core::{Ctx, Fault};
use slipring_sim::Conditions;

use crate::support::{Noted, Told, ignore, limited, stage};

/// What was told in the last turns: number of the connection, and the bytes; `!` for the end.
fn heard(stage: &mut Noted) -> Vec<(usize, String)> {
    let keys = stage.handler().keys.clone();
    let number = |key| keys.iter().position(|of| *of == key).expect("an open connection");
    let word = |told: Told| match told {
        Told::Data(bytes) => String::from_utf8(bytes).expect("text"),
        Told::Eof => "!".to_owned(),
        other => panic!("told {other:?}"),
    };
    let told = stage.handler().take_told();
    told.into_iter().map(|(key, told)| (number(key), word(told))).collect()
}

fn words(words: &[(usize, &str)]) -> Vec<(usize, String)> {
    words.iter().map(|(number, word)| (*number, (*word).to_owned())).collect()
}

fn two_clients(conditions: &Conditions) -> (Noted, [slipring_core::token::Descriptor; 2]) {
    let mut stage = stage(conditions, ignore);
    let clients = [stage.accept(), stage.accept()];
    stage.handler().take_told();
    (stage, clients)
}

#[test]
fn beyond_its_share_of_receives_a_connection_waits_for_the_next_turn_in_order() {
    let (mut stage, [busy, calm]) = two_clients(&limited(|limits| limits.turn_receives_max = 2));
    for word in ["1", "2", "3", "4", "5"] {
        stage.driver().receive(busy, word.as_bytes());
    }
    stage.driver().receive(calm, b"a");
    let receive = stage.driver().expect(Op::Receive, busy);
    stage.driver().complete(receive, Ok(0));
    stage.turn();
    assert_eq!(heard(&mut stage), words(&[(0, "1"), (0, "2"), (1, "a")]));
    stage.driver().receive(calm, b"b");
    assert_eq!(stage.turn().sleep_us, Some(0), "there is work to do");
    assert_eq!(heard(&mut stage), words(&[(0, "3"), (0, "4"), (1, "b")]));
    stage.turn();
    assert_eq!(heard(&mut stage), words(&[(0, "5"), (0, "!")]), "its end comes last");
    assert_eq!(stage.counters().completions_deferred, 4 + 2);
    stage.rest();
}

#[test]
fn beyond_its_share_of_bytes_too() {
    let (mut stage, [busy, calm]) = two_clients(&limited(|limits| limits.turn_bytes_max = 10));
    for word in ["1234567", "abcdefg", "last"] {
        stage.driver().receive(busy, word.as_bytes());
    }
    stage.driver().receive(calm, b"a");
    stage.turn();
    assert_eq!(heard(&mut stage), words(&[(0, "1234567"), (0, "abcdefg"), (1, "a")]));
    stage.turn();
    assert_eq!(heard(&mut stage), words(&[(0, "last")]));
}

#[test]
fn what_came_later_waits_behind_what_was_put_off() {
    let (mut stage, [busy, _]) = two_clients(&limited(|limits| limits.turn_receives_max = 1));
    stage.driver().receive(busy, b"1");
    stage.driver().receive(busy, b"2");
    stage.turn();
    stage.driver().receive(busy, b"3");
    let receive = stage.driver().expect(Op::Receive, busy);
    stage.driver().complete(receive, Err(Fault::NoBuffers));
    stage.rest();
    assert_eq!(heard(&mut stage), words(&[(0, "1"), (0, "2"), (0, "3")]));
    assert!(stage.driver().find(Op::Receive, busy).is_some(), "parked, then armed again");
}

#[test]
fn what_was_put_off_of_a_connection_that_is_aborted_meanwhile_is_dropped() {
    let (mut stage, [busy, _]) = two_clients(&limited(|limits| limits.turn_receives_max = 1));
    for word in ["1", "2", "3"] {
        stage.driver().receive(busy, word.as_bytes());
    }
    stage.turn();
    let key = stage.handler().keys[0];
    stage.reactor().connections().abort_of(key);
    stage.settle();
    assert!(stage.driver().is_closed(busy));
    assert_eq!(crate::support::buffers_free(&mut stage), 16);
}

#[test]
fn put_off_completions_survive_a_panic_in_the_same_turn() {
    let mut stage = stage(&limited(|limits| limits.turn_receives_max = 1), |_, told, _| {
        assert!(*told != Told::Data(b"bad".to_vec()), "a bug of the user's");
    });
    let (busy, bad) = (stage.accept(), stage.accept());
    for word in ["1", "2", "3"] {
        stage.driver().receive(busy, word.as_bytes());
    }
    stage.driver().receive(bad, b"bad");
    stage.settle();
    let data: Vec<_> = ["1", "2", "3"].map(|word| Told::Data(word.into())).into();
    assert_eq!(stage.handler().take_told_of(0)[1..], data);
}

#[test]
fn no_turn_takes_more_than_its_completions() {
    let (mut stage, [busy, _]) = two_clients(&limited(|limits| {
        limits.buffers = 2048;
        limits.buffer_bytes = 64;
        limits.turn_receives_max = 10_000;
    }));
    for _ in 0..2000 {
        stage.driver().receive(busy, b"x");
    }
    stage.turn();
    assert_eq!(heard(&mut stage).len(), 1024);
    stage.rest();
    assert_eq!(heard(&mut stage).len(), 2000 - 1024);
}

#[test]
fn a_panic_in_the_same_turn_does_not_mix_up_what_was_put_off() {
    let panics = |_: &mut Ctx<'_, ()>, told: &Told, _| {
        assert!(!matches!(told, Told::Close(_)), "it panics at an end");
    };
    let mut stage = stage(&limited(|limits| limits.turn_receives_max = 1), panics);
    let [busy, ending] = [stage.accept(), stage.accept()];
    let key = stage.handler().keys[1];
    stage.reactor().connections().abort_of(key);
    stage.rest();
    let receive = stage.driver().expect(Op::Receive, ending);
    let cancel = stage.driver().expect_cancel(receive);
    stage.driver().complete(cancel, Ok(0));
    stage.driver().complete(receive, Err(Fault::Cancelled));
    stage.rest();
    let close = stage.driver().expect(Op::Close, ending);
    stage.driver().complete(close, Ok(0));
    for word in ["1", "2", "3", "4"] {
        stage.driver().receive(busy, word.as_bytes());
    }
    stage.handler().take_told();
    for word in ["1", "2", "3", "4"] {
        stage.turn();
        let told: Vec<Told> = stage.handler().take_told_of(0);
        assert_eq!(told, [Told::Data(word.into())]);
        assert_eq!(stage.counters().handler_panics, 1);
    }
}
