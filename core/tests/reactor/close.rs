//! Ends: a join on what the kernel holds, in any order of its answers, through a full queue and a panic.

use slipring_core::token::{Descriptor, Op};
use slipring_core::{CloseReason, Fault};
use slipring_sim::{Conditions, Submitted};

use crate::support::{Noted, Told, buffers_free, echo, ignore, limited, stage};

/// A client that does not read: its receive and its watch are in flight.
fn blocked(stage: &mut Noted) -> Descriptor {
    let client = stage.accept();
    stage.driver().receive(client, b"x");
    stage.rest();
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.rest();
    client
}

#[test]
fn cancels_and_their_targets_end_in_any_order() {
    for order in 0..24_usize {
        let mut stage = stage(&Conditions::default(), echo);
        let client = blocked(&mut stage);
        let key = stage.handler().keys[0];
        stage.reactor().connections().abort_of(key);
        stage.rest();
        let driver = stage.driver();
        let targets = [driver.expect(Op::Receive, client), driver.expect(Op::Watch, client)];
        let cancels = targets.map(|target| driver.expect_cancel(target));
        let mut all = vec![targets[0], targets[1], cancels[0], cancels[1]];
        let mut left = order;
        for number in (0..4).rev() {
            assert!(!stage.driver().is_closed(client), "closed with {number} answers to come");
            let token = all.remove(left % all.len());
            left /= number + 1;
            let result = if targets.contains(&token) { Err(Fault::Cancelled) } else { Ok(0) };
            stage.driver().complete(token, result);
            stage.rest();
        }
        stage.turn();
        assert!(stage.driver().is_closed(client) && stage.driver().is_abortive(client));
        stage.settle();
        assert_eq!(
            stage.handler().take_told_of(0).last(),
            Some(&Told::Close(CloseReason::Aborted))
        );
        assert_eq!(buffers_free(&mut stage), 16);
    }
}

#[test]
fn a_cancel_that_came_too_late_meets_its_targets_own_end() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    let key = stage.handler().keys[0];
    stage.reactor().connections().abort_of(key);
    stage.rest();
    let receive = stage.driver().expect(Op::Receive, client);
    let cancel = stage.driver().expect_cancel(receive);
    stage.driver().complete(cancel, Err(Fault::NotFound));
    stage.driver().receive(client, b"in between");
    stage.driver().receive_last(client, b"and at the end");
    stage.settle();
    let told = stage.handler().take_told_of(0);
    assert_eq!(told[1..], [Told::Close(CloseReason::Aborted)], "nothing is told in between");
    assert_eq!(buffers_free(&mut stage), 16);
}

#[test]
fn an_orderly_close_flushes_then_half_closes_then_waits_for_the_peer() {
    let mut stage = stage(&Conditions::default(), |ctx, told, _| {
        if matches!(told, Told::Data(_)) {
            ctx.send("bye");
            ctx.close();
        }
    });
    let client = stage.accept();
    stage.driver().take_log();
    stage.driver().receive(client, b"?");
    stage.rest();
    assert!(!stage.driver().is_shut(client), "the flush comes first");
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Ok(3));
    stage.rest();
    let shutdown = stage.driver().expect(Op::Shutdown, client);
    stage.driver().complete(shutdown, Ok(0));
    stage.settle();
    assert!(!stage.driver().is_closed(client), "the peer may still send");
    stage.receive(client, b"dropped");
    stage.end_of_stream(client);
    assert!(stage.driver().is_closed(client) && !stage.driver().is_abortive(client));
    let told = stage.handler().take_told_of(0);
    assert_eq!(told[2..], [Told::Close(CloseReason::LocalClosed)]);
}

#[test]
fn the_peers_end_is_answered_with_ours() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    stage.receive(client, b"last words");
    stage.end_of_stream(client);
    assert_eq!(stage.sent(client), b"last words");
    assert!(stage.driver().is_closed(client) && !stage.driver().is_abortive(client));
    let told = stage.handler().take_told_of(0);
    assert_eq!(told[2..], [Told::Eof, Told::Close(CloseReason::PeerClosed)]);
}

#[test]
fn after_our_half_close_the_peer_is_still_heard() {
    let mut stage = stage(&Conditions::default(), |ctx, told, _| {
        if matches!(told, Told::Open(_)) {
            ctx.send("question");
            ctx.shutdown();
        }
    });
    let client = stage.accept();
    assert!(stage.driver().is_shut(client) && !stage.driver().is_closed(client));
    stage.receive(client, b"answer");
    stage.end_of_stream(client);
    assert!(stage.driver().is_closed(client));
    let told = stage.handler().take_told_of(0);
    let answer = Told::Data(b"answer".to_vec());
    assert_eq!(told[1..], [answer, Told::Eof, Told::Close(CloseReason::LocalClosed)]);
}

#[test]
fn a_full_queue_in_the_middle_of_many_closes_loses_none() {
    let mut stage = stage(&Conditions::default(), echo);
    let clients: Vec<_> = (0..40).map(|_| stage.accept()).collect();
    stage.driver().set_queue(8, 2);
    for (number, &client) in clients.iter().enumerate() {
        match number % 3 {
            0 => {
                let key = stage.handler().keys[number];
                stage.reactor().connections().abort_of(key);
            }
            1 => stage.driver().receive(client, b"x"),
            _ => {
                let receive = stage.driver().expect(Op::Receive, client);
                stage.driver().complete(receive, Ok(0));
            }
        }
        // Now and then the kernel takes nothing for some turns.
        stage.driver().set_stuck(number % 4 == 3);
        stage.turn();
        stage.turn();
    }
    stage.driver().set_stuck(false);
    stage.settle();
    for (number, &client) in clients.iter().enumerate() {
        assert_eq!(stage.driver().is_closed(client), number % 3 != 1, "client {number}");
        assert_eq!(stage.sent(client), if number % 3 == 1 { b"x".to_vec() } else { vec![] });
    }
    let told = stage.handler().take_told();
    let closes = told.iter().filter(|(_, told)| matches!(told, Told::Close(_))).count();
    assert_eq!(closes, clients.len() - clients.len().div_ceil(3) + 1);
    assert_eq!(stage.driver().open_descriptors() - 1, clients.len() - closes);
}

#[test]
fn a_reactor_whose_queue_was_full_accepts_before_it_sleeps() {
    let mut stage = stage(&Conditions::default(), ignore);
    let listener = stage.listener();
    let many = stage.driver().expect(Op::AcceptMany, listener);
    stage.driver().complete(many, Err(Fault::Reset));
    stage.driver().set_queue(0, 0);
    stage.turn();
    stage.driver().set_queue(8, 1);
    assert_eq!(stage.turn().sleep_us, Some(0));
    stage.rest();
    assert!(stage.driver().find(Op::AcceptMany, listener).is_some());
}

#[test]
fn a_reactor_whose_queue_was_full_can_be_rung_before_it_sleeps() {
    let mut stage = stage(&Conditions { listeners: 0, ..Conditions::default() }, ignore);
    stage.driver().ring();
    stage.driver().set_queue(0, 0);
    stage.turn();
    stage.driver().set_queue(8, 1);
    assert_eq!(stage.turn().sleep_us, Some(0));
    stage.rest();
    let is_wake = |s: &Submitted| *s == Submitted::Wake;
    assert_eq!(stage.driver().in_flight().filter(|o| is_wake(&o.submitted)).count(), 1);
}

#[test]
fn a_panic_in_a_handler_ends_one_connection() {
    for panics_in_close in [false, true] {
        let mut stage = stage(&Conditions::default(), move |ctx, told, lease| {
            match told {
                Told::Data(bytes) if bytes == b"bad" => panic!("a bug of the user's"),
                Told::Close(_) if panics_in_close => panic!("another"),
                _ => {}
            }
            echo(ctx, told, lease);
        });
        let (bad, good) = (stage.accept(), stage.accept());
        stage.driver().receive(good, b"before ");
        stage.driver().receive(bad, b"bad");
        stage.driver().receive(good, b"after");
        stage.settle();
        assert_eq!(stage.sent(good), b"before after");
        assert!(stage.driver().is_closed(bad) && stage.driver().is_abortive(bad));
        let told = stage.handler().take_told_of(0);
        assert_eq!(told.last(), Some(&Told::Close(CloseReason::HandlerPanic)));
        assert_eq!(stage.counters().handler_panics, 1 + u64::from(panics_in_close));
        assert_eq!((stage.reactor().connections().len(), buffers_free(&mut stage)), (1, 16));
        assert_eq!(stage.admission().open(), 1);
    }
}

#[test]
fn slots_and_descriptors_are_used_again() {
    let mut stage = stage(&limited(|limits| limits.accepted_max = 20), echo);
    for round in 0..50 {
        let clients: Vec<_> = (0..3).map(|_| stage.accept()).collect();
        for &client in &clients {
            stage.receive(client, &[round]);
            assert_eq!(stage.sent(client), [round]);
        }
        for client in clients {
            stage.end_of_stream(client);
        }
        assert_eq!(stage.driver().open_descriptors(), 1, "the listener");
    }
    assert_eq!(stage.counters().closed, 150);
    assert_eq!(stage.admission().open(), 0);
}

#[test]
fn a_driver_that_fails_ends_the_reactor() {
    let mut stage = stage(&Conditions::default(), ignore);
    stage.driver().fail_enter("completions were lost");
    let failed = stage.reactor().turn().expect_err("the driver failed");
    assert_eq!(failed.to_string(), "the ring failed: completions were lost");
}
