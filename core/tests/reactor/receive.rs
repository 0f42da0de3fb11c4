//! Receives: armed again whenever they end, parked in order when buffers run out, deaf to what is stale.

use std::cell::RefCell;
use std::rc::Rc;

use slipring_core::driver::Completion;
use slipring_core::token::{Descriptor, Key, Op, Token};
use slipring_core::{CloseReason, Fault, Lease};
use slipring_sim::{Conditions, Submitted};

use crate::support::{Noted, Told, buffers_free, echo, ignore, limited, stage};

/// A handler that keeps every lease, and the leases.
fn hoarding(conditions: &Conditions) -> (Noted, Rc<RefCell<Vec<Lease>>>) {
    let hoard = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&hoard);
    let stage = stage(conditions, move |_, _, lease| kept.borrow_mut().extend(lease));
    (stage, hoard)
}

fn receives(log: &[Submitted]) -> Vec<Descriptor> {
    let receive = |submitted: &Submitted| match submitted {
        Submitted::Receive { descriptor, .. } => Some(*descriptor),
        _ => None,
    };
    log.iter().filter_map(receive).collect()
}

#[test]
fn parked_receives_are_armed_in_the_order_of_parking_as_buffers_come_back() {
    let (mut stage, hoard) = hoarding(&limited(|limits| limits.buffers = 2));
    let clients: Vec<_> = (0..5).map(|_| stage.accept()).collect();
    stage.receive(clients[0], b"a");
    stage.receive(clients[1], b"b");
    assert_eq!(buffers_free(&mut stage), 0);
    for &client in [&clients[3], &clients[2], &clients[4]] {
        let receive = stage.driver().expect(Op::Receive, client);
        stage.driver().complete(receive, Err(Fault::NoBuffers));
    }
    stage.driver().take_log();
    stage.settle();
    assert_eq!(stage.counters().receives_parked, 3);
    assert_eq!(stage.driver().take_log(), [], "nothing to arm them with");

    hoard.borrow_mut().pop();
    stage.turn();
    assert_eq!(receives(&stage.driver().take_log()), [clients[3]], "one buffer, one attempt");
    // The attempt finds the buffer gone: somebody else's bytes took it.
    stage.turn();
    let receive = stage.driver().expect(Op::Receive, clients[3]);
    stage.driver().receive(clients[1], b"b again");
    stage.driver().complete(receive, Err(Fault::NoBuffers));
    stage.settle();
    stage.driver().take_log();
    stage.settle();
    assert_eq!(stage.driver().take_log(), []);

    hoard.borrow_mut().clear();
    stage.settle();
    let armed = receives(&stage.driver().take_log());
    assert!(armed.contains(&clients[3]) && armed.len() <= 3, "{armed:?}");
    for client in clients {
        assert!(stage.driver().find(Op::Receive, client).is_some(), "{client:?} is not armed");
    }
}

#[test]
fn a_parked_connection_can_end_and_its_buffer_goes_to_the_next() {
    let (mut stage, hoard) = hoarding(&limited(|limits| limits.buffers = 1));
    let clients: Vec<_> = (0..3).map(|_| stage.accept()).collect();
    stage.receive(clients[0], b"a");
    for &client in &clients[1..] {
        let receive = stage.driver().expect(Op::Receive, client);
        stage.driver().complete(receive, Err(Fault::NoBuffers));
        stage.settle();
    }
    let first = stage.handler().keys[1];
    stage.reactor().connections().abort_of(first);
    stage.settle();
    assert!(stage.driver().is_closed(clients[1]));
    hoard.borrow_mut().clear();
    stage.settle();
    assert!(stage.driver().find(Op::Receive, clients[2]).is_some());
}

#[test]
fn a_receive_that_ends_with_bytes_is_armed_again() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    stage.driver().receive(client, b"one ");
    stage.driver().receive_last(client, b"two ");
    stage.settle();
    stage.receive(client, b"three");
    assert_eq!(stage.sent(client), b"one two three");
}

#[test]
fn a_receive_that_was_cancelled_by_nobody_is_armed_again() {
    let mut stage = stage(&Conditions::default(), ignore);
    let client = stage.accept();
    let receive = stage.driver().expect(Op::Receive, client);
    stage.driver().complete(receive, Err(Fault::Cancelled));
    stage.settle();
    assert_ne!(stage.driver().expect(Op::Receive, client), receive, "a new activation");
}

#[test]
fn completions_of_an_earlier_life_change_a_counter_only() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    let receive = stage.driver().expect(Op::Receive, client);
    stage.reset(client);
    let second = stage.accept();
    stage.driver().take_log();
    stage.handler().take_told();
    let before = stage.counters();
    let free = buffers_free(&mut stage);

    let (_, key, _) = receive.decode();
    let number = stage.driver().first_published().expect("a buffer");
    stage.driver().receive_into(receive, number, b"late", true);
    for op in [Op::Connect, Op::Send, Op::Watch, Op::Shutdown, Op::Close] {
        let token = Token::new(op, key, 1);
        let (result, span, more, hint) = (Ok(1), None, false, false);
        stage.driver().inject(Completion { token, result, span, more, notification: false, hint });
    }
    let token = Token::new(Op::Send, key, 1);
    let (result, span, more, hint) = (Ok(0), None, false, true);
    stage.driver().inject(Completion { token, result, span, more, notification: true, hint });
    stage.settle();

    let after = stage.counters();
    assert_eq!(after.stale_completions, before.stale_completions + 7);
    assert_eq!(buffers_free(&mut stage), free);
    assert_eq!(stage.handler().take_told(), []);
    assert_eq!(stage.driver().take_log(), []);
    let mut expected = before;
    expected.stale_completions = after.stale_completions;
    (expected.turns, expected.completions) = (after.turns, after.completions);
    expected.turn_times = after.turn_times;
    assert_eq!(after, expected);
    stage.receive(second, b"well");
    assert_eq!(stage.sent(second), b"well");
}

#[test]
fn a_completion_of_an_earlier_activation_reaches_nobody() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    let first = stage.driver().expect(Op::Receive, client);
    stage.driver().receive_last(client, b"first");
    stage.settle();
    let number = stage.driver().first_published().expect("a buffer");
    stage.driver().receive_into(first, number, b"ghost", false);
    stage.settle();
    assert_eq!(stage.counters().stale_completions, 1);
    assert_eq!(stage.sent(client), b"first");
    assert_eq!(buffers_free(&mut stage), 16);
}

#[test]
fn a_completion_of_no_slot_at_all_is_survived() {
    let mut stage = stage(&Conditions::default(), ignore);
    for op in [Op::Receive, Op::Send, Op::Close, Op::Cancel] {
        let token = Token::new(op, Key::new((1 << 20) - 1, 77), 3);
        let (result, span, more, notification, hint) = (Ok(1), None, false, false, false);
        stage.driver().inject(Completion { token, result, span, more, notification, hint });
    }
    stage.settle();
    assert_eq!(stage.handler().take_told(), []);
}

#[test]
fn a_paused_connection_is_not_read_and_goes_on_in_order() {
    let mut stage = stage(&Conditions::default(), |ctx, told, _| {
        if let Told::Data(bytes) = told
            && bytes == b"stop"
        {
            ctx.pause();
        }
    });
    let client = stage.accept();
    stage.driver().receive(client, b"stop");
    stage.driver().receive(client, b"already there");
    stage.settle();
    assert!(stage.driver().find(Op::Receive, client).is_none(), "cancelled");
    let key = stage.handler().keys[0];
    stage.reactor().connections().resume_of(key);
    stage.settle();
    stage.receive(client, b"on");
    let data = [b"stop".as_slice(), b"already there", b"on"].map(|b| Told::Data(b.to_vec()));
    assert_eq!(stage.handler().take_told_of(0)[1..], data);
}

#[test]
fn pausing_and_resuming_faster_than_the_kernel_cancels_loses_nothing() {
    let mut stage = stage(&Conditions::default(), ignore);
    let client = stage.accept();
    let key = stage.handler().keys[0];
    let first = stage.driver().expect(Op::Receive, client);
    stage.reactor().connections().pause_of(key);
    stage.rest();
    stage.reactor().connections().resume_of(key);
    // The target's end comes first: armed again, while the cancel is unanswered.
    stage.driver().complete(first, Err(Fault::Cancelled));
    stage.rest();
    let second = stage.driver().expect(Op::Receive, client);
    stage.reactor().connections().pause_of(key);
    stage.rest();
    let cancel = stage.driver().expect_cancel(second);
    assert_eq!(cancel, stage.driver().expect_cancel(first), "cancels of one op share a token");
    stage.driver().complete(cancel, Ok(0));
    stage.driver().complete(second, Err(Fault::Cancelled));
    stage.settle();
    stage.reactor().connections().abort_of(key);
    stage.settle();
    assert_eq!(stage.handler().take_told_of(0)[1..], [Told::Close(CloseReason::Aborted)]);
}
