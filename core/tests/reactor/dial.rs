//! Dials: what was sent waits for the outcome; each ends by its deadline, its failure, or its success.

use std::net::SocketAddr;
use std::time::Duration;

use slipring_core::token::{Descriptor, Op};
use slipring_core::{CloseReason, DialRefused, Fault, Key, Origin, Timeout, Timeouts};
use slipring_sim::{Conditions, Submitted};

use crate::support::{Noted, Told, ignore, stage, stage_started};

fn somewhere() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 80))
}

fn dialing(stage: &mut Noted) -> Key {
    stage.reactor().connections().dial(somewhere(), ()).expect("room for a dial")
}

fn dialed(conditions: &Conditions) -> (Noted, Key, Descriptor) {
    let mut stage = stage(conditions, ignore);
    let key = dialing(&mut stage);
    stage.settle();
    let dials = stage.dials();
    assert_eq!((dials.len(), dials[0].1), (1, somewhere()));
    (stage, key, dials[0].0)
}

fn told(stage: &mut Noted, key: Key) -> Vec<Told> {
    stage.handler().take_told().into_iter().filter(|t| t.0 == key).map(|(_, told)| told).collect()
}

#[test]
fn bytes_sent_before_the_outcome_follow_it() {
    let (mut stage, key, socket) = dialed(&Conditions::default());
    stage.reactor().connections().send_to(key, "early");
    stage.settle();
    assert_eq!(stage.sent(socket), b"");
    stage.answer_dial(socket, Ok(()));
    assert_eq!(stage.sent(socket), b"early");
    stage.receive(socket, b"answer");
    assert_eq!(told(&mut stage, key), [Told::Open(Origin::Dialed), Told::Data(b"answer".to_vec())]);
}

#[test]
fn a_half_close_asked_before_the_outcome_leaves_the_answer_to_come() {
    let (mut stage, key, socket) = dialed(&Conditions::default());
    stage.reactor().connections().send_to(key, "question");
    stage.reactor().connections().shutdown_of(key);
    stage.answer_dial(socket, Ok(()));
    assert_eq!(stage.sent(socket), b"question");
    assert!(stage.driver().is_shut(socket) && !stage.driver().is_closed(socket));
    stage.receive(socket, b"answer");
    stage.end_of_stream(socket);
    assert!(told(&mut stage, key).contains(&Told::Data(b"answer".to_vec())));
    assert!(stage.driver().is_closed(socket));
}

#[test]
fn a_dial_nobody_answers_ends_at_its_deadline() {
    let timeouts =
        Timeouts { dial: Timeout::After(Duration::from_millis(50)), ..Timeouts::default() };
    let (mut stage, key, socket) = dialed(&Conditions { timeouts, ..Conditions::default() });
    stage.pass_ms(49);
    assert_eq!(stage.dials().len(), 1);
    stage.pass_ms(2);
    assert!(stage.driver().is_closed(socket));
    assert_eq!(told(&mut stage, key), [Told::Close(CloseReason::DialTimeout)]);
}

#[test]
fn a_dial_that_succeeds_as_it_is_given_up_is_closed() {
    let (mut stage, key, socket) = dialed(&Conditions::default());
    stage.reactor().connections().abort_of(key);
    stage.rest();
    let connect = stage.driver().expect(Op::Connect, socket);
    let cancel = stage.driver().expect_cancel(connect);
    stage.driver().complete(connect, Ok(0));
    stage.driver().complete(cancel, Err(Fault::NotFound));
    stage.settle();
    assert!(stage.driver().is_closed(socket) && stage.driver().is_abortive(socket));
    assert_eq!(told(&mut stage, key), [Told::Close(CloseReason::Aborted)]);
}

#[test]
fn a_refused_dial_is_told_with_its_cause() {
    let (mut stage, key, socket) = dialed(&Conditions::default());
    stage.answer_dial(socket, Err(Fault::Refused));
    assert!(stage.driver().is_closed(socket));
    let failed = CloseReason::DialFailed(Fault::Refused);
    assert_eq!(told(&mut stage, key), [Told::Close(failed)]);
}

#[test]
fn a_dial_without_a_socket_is_told_with_its_cause() {
    let mut stage = stage(&Conditions::default(), ignore);
    stage.driver().fail_open_socket(Fault::DescriptorsOfProcess);
    let key = dialing(&mut stage);
    let second = dialing(&mut stage);
    stage.settle();
    let failed = CloseReason::DialFailed(Fault::DescriptorsOfProcess);
    assert_eq!(told(&mut stage, key), [Told::Close(failed)]);
    assert_eq!(stage.dials().len(), 1, "the other one goes on");
    let socket = stage.dials()[0].0;
    stage.answer_dial(socket, Ok(()));
    assert_eq!(told(&mut stage, second), [Told::Open(Origin::Dialed)]);
}

#[test]
fn a_dial_aborted_before_it_was_begun_opens_no_socket() {
    let mut stage = stage(&Conditions::default(), ignore);
    let open = stage.driver().open_descriptors();
    let key = dialing(&mut stage);
    stage.reactor().connections().abort_of(key);
    stage.settle();
    assert_eq!(told(&mut stage, key), [Told::Close(CloseReason::Aborted)]);
    assert_eq!(stage.driver().open_descriptors(), open);
}

#[test]
fn dials_end_at_their_limit_and_their_places_come_back() {
    let mut stage = stage(&Conditions::default(), ignore);
    let keys: Vec<_> = (0..16).map(|_| dialing(&mut stage)).collect();
    let refused = stage.reactor().connections().dial(somewhere(), ()).expect_err("sixteen");
    assert_eq!(refused, DialRefused::Full { limit: 16 });
    for key in keys {
        stage.reactor().connections().abort_of(key);
    }
    stage.settle();
    dialing(&mut stage);
    stage.settle();
    assert_eq!(stage.dials().len(), 1);
}

#[test]
fn a_handler_can_dial_at_the_start_and_again_when_a_dial_fails() {
    let mut stage = stage_started(
        &Conditions::default(),
        |connections| {
            connections.dial(somewhere(), ()).expect("room for a dial");
        },
        |ctx, told, _| {
            if *told == Told::Close(CloseReason::DialFailed(Fault::Refused)) {
                ctx.dial(SocketAddr::from(([192, 0, 2, 8], 80)), ()).expect("room for a dial");
            }
        },
    );
    stage.settle();
    let (first, _) = stage.dials()[0];
    stage.answer_dial(first, Err(Fault::Refused));
    let (second, address) = stage.dials()[0];
    assert_eq!(address.ip().to_string(), "192.0.2.8");
    stage.answer_dial(second, Ok(()));
    assert!(stage.driver().find(Op::Receive, second).is_some());
}

#[test]
fn a_queue_without_room_delays_or_fails_dials_and_loses_none() {
    let mut stage = stage(&Conditions::default(), ignore);
    stage.driver().set_queue(8, 1);
    let keys: Vec<_> = (0..16).map(|_| dialing(&mut stage)).collect();
    stage.driver().set_stuck(true);
    stage.turn();
    stage.turn();
    stage.driver().set_stuck(false);
    stage.settle();
    let going = stage.dials().len();
    let told = stage.handler().take_told();
    let failed = Told::Close(CloseReason::DialFailed(Fault::Memory));
    let failures = told.iter().filter(|(_, told)| *told == failed).count();
    assert_eq!(going + failures, keys.len());
    let log = stage.driver().take_log();
    let closes = log.iter().filter(|s| matches!(s, Submitted::Close(_))).count();
    assert_eq!(closes, failures, "their sockets are closed");
}
