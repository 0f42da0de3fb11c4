//! Much and little in one turn: who has little goes first, and who has much takes turns as long as they are there.

use slipring_core::Ctx;
use slipring_core::driver::Abilities;
use slipring_core::token::{Descriptor, Op};
use slipring_sim::{Conditions, Submitted};

use crate::support::{Noted, Told, echo, limited, stage};

/// A connection's share of a turn. Much is a quarter of it; half of it is what all have who have much, while others
/// wait.
const SHARE: u32 = 4096;
const HALF: usize = 2048;

fn conditions() -> Conditions {
    limited(|limits| {
        limits.turn_bytes_max = SHARE;
        limits.zero_copy_min_bytes = None;
    })
}

/// An echo with so many clients, of which it has heard nothing yet.
fn served(clients: usize, conditions: &Conditions) -> (Noted, Vec<Descriptor>) {
    let mut stage = stage(conditions, echo);
    let clients = (0..clients).map(|_| stage.accept()).collect();
    stage.driver().take_log();
    (stage, clients)
}

fn much(stage: &mut Noted, client: Descriptor) {
    stage.driver().receive(client, &[b'm'; HALF]);
}

/// One turn: what it pushed of sends, by whom and how many bytes; and whether the next one would sleep.
fn turn(stage: &mut Noted) -> (Vec<(Descriptor, usize)>, bool) {
    stage.turn();
    let sends = stage.driver().take_log().into_iter().filter_map(|submitted| match submitted {
        Submitted::Send { descriptor, bytes, .. } => Some((descriptor, bytes.len())),
        _ => None,
    });
    (sends.collect(), stage.reactor().plan_wait().sleep_us != Some(0))
}

/// What was pushed is sent, and the reactor has been told.
fn deliver(stage: &mut Noted) {
    stage.turn();
    stage.driver().oblige();
    stage.turn();
    stage.driver().take_log();
}

#[test]
fn little_is_sent_before_much_that_came_earlier() {
    let (mut stage, clients) = served(2, &conditions());
    much(&mut stage, clients[0]);
    stage.driver().receive(clients[1], b"little");
    assert_eq!(turn(&mut stage), (vec![(clients[1], 6), (clients[0], HALF)], true));
}

#[test]
fn who_has_much_takes_turns_in_order_while_somebody_has_little() {
    let (mut stage, clients) = served(4, &conditions());
    for hog in [2, 0, 3] {
        much(&mut stage, clients[hog]);
    }
    stage.driver().receive(clients[1], b"little");
    assert_eq!(turn(&mut stage), (vec![(clients[1], 6), (clients[2], HALF)], false));
    // Who has more comes behind those who wait.
    much(&mut stage, clients[2]);
    assert_eq!(turn(&mut stage), (vec![(clients[0], HALF)], false));
    stage.driver().oblige();
    assert_eq!(turn(&mut stage), (vec![(clients[3], HALF)], false));
    assert_eq!(turn(&mut stage), (vec![(clients[2], HALF)], true));
    assert_eq!(stage.counters().large_put_off, 2 + 1 + 1);
}

#[test]
fn less_than_the_half_leaves_room_for_another() {
    let (mut stage, clients) = served(3, &conditions());
    for hog in &clients[..2] {
        stage.driver().receive(*hog, &[b'm'; HALF - 1]);
    }
    stage.driver().receive(clients[2], b"little");
    let sends = vec![(clients[2], 6), (clients[0], HALF - 1), (clients[1], HALF - 1)];
    assert_eq!(turn(&mut stage), (sends, true));
}

#[test]
fn where_all_have_much_a_turn_is_as_long_as_it_comes() {
    let (mut stage, clients) = served(3, &conditions());
    clients.iter().for_each(|client| much(&mut stage, *client));
    assert_eq!(turn(&mut stage), (clients.iter().map(|c| (*c, HALF)).collect(), true));
}

#[test]
fn who_had_little_a_moment_ago_may_come_again_and_after_a_while_not() {
    let (mut stage, clients) = served(3, &conditions());
    much(&mut stage, clients[0]);
    stage.driver().receive(clients[2], b"little");
    turn(&mut stage);
    for (wait_ms, sent_at_once) in [(99, 1), (1, 2)] {
        stage.driver().oblige();
        stage.rest();
        stage.pass_ms(wait_ms);
        stage.driver().take_log();
        much(&mut stage, clients[0]);
        much(&mut stage, clients[1]);
        assert_eq!(turn(&mut stage).0.len(), sent_at_once, "{wait_ms} ms later");
        turn(&mut stage);
    }
}

#[test]
fn the_rest_of_a_large_message_is_nobody_who_waits() {
    let (mut stage, clients) = served(2, &conditions());
    clients.iter().for_each(|client| much(&mut stage, *client));
    assert_eq!(turn(&mut stage).0.len(), 2);
    deliver(&mut stage);
    // Its rest, beside the other's next.
    stage.driver().receive(clients[0], b"rest");
    much(&mut stage, clients[1]);
    assert_eq!(turn(&mut stage).0, [(clients[0], 4), (clients[1], HALF)]);
    deliver(&mut stage);
    clients.iter().for_each(|client| much(&mut stage, *client));
    assert_eq!(turn(&mut stage).0.len(), 2, "and no reason for short turns");
    // Who has had little for long has.
    for _ in 0..100 {
        deliver(&mut stage);
        stage.driver().receive(clients[0], b"little");
        much(&mut stage, clients[1]);
        turn(&mut stage);
    }
    deliver(&mut stage);
    clients.iter().for_each(|client| much(&mut stage, *client));
    assert_eq!(turn(&mut stage).0.len(), 1);
}

#[test]
fn a_receive_that_will_bring_much_waits_for_its_turn_and_brings_half_of_a_share() {
    let abilities = Abilities { receive_cap: true, ..Abilities::default() };
    let (mut stage, clients) = served(3, &Conditions { abilities, ..conditions() });
    let caps = |stage: &mut Noted| {
        stage.turn();
        let log = stage.driver().take_log().into_iter();
        let caps = log.filter_map(|submitted| match submitted {
            Submitted::Receive { descriptor, cap } => Some((descriptor, cap)),
            _ => None,
        });
        caps.collect::<Vec<_>>()
    };
    // Their receives end at their caps, and what they brought is sent.
    for hog in &clients[..2] {
        stage.driver().receive_last(*hog, &[b'm'; HALF]);
    }
    // All have much: both are armed again at once, for a whole share.
    assert_eq!(caps(&mut stage), [(clients[0], SHARE), (clients[1], SHARE)]);
    deliver(&mut stage);
    for hog in &clients[..2] {
        stage.driver().receive_last(*hog, &[b'm'; HALF]);
    }
    stage.driver().receive(clients[2], b"little");
    // The second has to wait, with both of its wishes.
    assert_eq!(caps(&mut stage), [(clients[0], HALF as u32)]);
    assert_eq!(caps(&mut stage), [(clients[1], HALF as u32)]);
    deliver(&mut stage);
    // One that brought little is armed again at once, for a whole one.
    stage.driver().receive_last(clients[0], b"little");
    assert_eq!(caps(&mut stage), [(clients[0], SHARE)]);
}

#[test]
fn who_is_put_off_and_aborted_meanwhile_ends_at_once() {
    let (mut stage, clients) = served(4, &conditions());
    let receive = stage.driver().expect(Op::Receive, clients[3]);
    for hog in [0, 1, 3] {
        much(&mut stage, clients[hog]);
    }
    stage.driver().receive(clients[2], b"little");
    assert!(!turn(&mut stage).1);
    much(&mut stage, clients[3]);
    let key = stage.handler().keys[3];
    stage.reactor().connections().abort_of(key);
    // It does not wait for its turn: another has this one.
    assert_eq!(turn(&mut stage).0, [(clients[1], HALF)]);
    stage.turn();
    let _ = stage.driver().expect_cancel(receive);
    stage.settle();
    assert!(stage.driver().is_closed(clients[3]));
    assert_eq!(crate::support::buffers_free(&mut stage), 16);
}

#[test]
fn a_panic_between_little_and_much_loses_neither() {
    let panics = |ctx: &mut Ctx<'_, ()>, told: &Told, lease| {
        assert!(!matches!(told, Told::Close(_)), "it panics at an end");
        echo(ctx, told, lease);
    };
    let mut stage = stage(&conditions(), panics);
    let clients: Vec<_> = (0..4).map(|_| stage.accept()).collect();
    let key = stage.handler().keys[3];
    stage.reactor().connections().abort_of(key);
    stage.rest();
    let receive = stage.driver().expect(Op::Receive, clients[3]);
    let cancel = stage.driver().expect_cancel(receive);
    stage.driver().complete(cancel, Ok(0));
    stage.driver().complete(receive, Err(slipring_core::Fault::Cancelled));
    stage.rest();
    let close = stage.driver().expect(Op::Close, clients[3]);
    stage.driver().take_log();
    much(&mut stage, clients[0]);
    stage.driver().complete(close, Ok(0));
    much(&mut stage, clients[1]);
    stage.driver().receive(clients[2], b"little");
    // The one whose end panics is freed while the dirty are asked.
    let sends = vec![(clients[2], 6), (clients[0], HALF)];
    assert_eq!(turn(&mut stage), (sends, false));
    assert_eq!(stage.counters().handler_panics, 1);
    stage.reactor().audit().expect("nobody is lost");
    assert_eq!(turn(&mut stage), (vec![(clients[1], HALF)], true));
}
