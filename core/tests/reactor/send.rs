//! Sends: one at a time, in order, whole; readers that stall hold nobody else up.

use std::rc::Rc;

use slipring_core::driver::Driver as _;
use slipring_core::token::{Descriptor, Op};
use slipring_core::{CloseReason, Fault, Origin};
use slipring_sim::{Conditions, Submitted};

use crate::support::{Noted, Told, buffers_free, echo, ignore, limited, stage};

fn sends(log: &[Submitted]) -> Vec<Vec<u8>> {
    let send = |submitted: &Submitted| match submitted {
        Submitted::Send { bytes, .. } => Some(bytes.clone()),
        _ => None,
    };
    log.iter().filter_map(send).collect()
}

/// Completes the send in flight with fewer bytes than it has.
fn take(stage: &mut Noted, client: Descriptor, bytes: u32) {
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Ok(bytes));
    stage.rest();
}

#[test]
fn a_short_send_waits_for_room_and_goes_on_where_it_stopped() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    stage.driver().receive(client, b"0123456789");
    stage.rest();
    assert_eq!(stage.driver().sending(client), b"0123456789");
    take(&mut stage, client, 4);
    stage.turn();
    assert!(stage.driver().find(Op::Send, client).is_none());
    stage.driver().receive(client, b"abc");
    stage.rest();
    let watch = stage.driver().expect(Op::Watch, client);
    stage.driver().complete(watch, Ok(4));
    stage.rest();
    assert_eq!(stage.driver().sending(client), b"456789abc");
    stage.settle();
    assert_eq!(stage.sent(client), b"0123456789abc");
    assert_eq!(stage.counters().sends_blocked, 1);
}

#[test]
fn a_socket_without_room_is_watched_and_not_asked_again() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    stage.driver().receive(client, b"x");
    stage.rest();
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.driver().take_log();
    stage.rest();
    assert_eq!(
        stage.driver().take_log(),
        [Submitted::WatchWritable { descriptor: client, many: false }]
    );
}

#[test]
fn all_that_is_sent_in_a_turn_is_one_send_and_one_is_in_flight_at_a_time() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    for part in [b"a", b"b", b"c"] {
        stage.driver().receive(client, part);
    }
    stage.driver().take_log();
    stage.rest();
    assert_eq!(sends(&stage.driver().take_log()), [b"abc"]);
    stage.turn();
    stage.driver().receive(client, b"d");
    stage.driver().receive(client, b"e");
    stage.rest();
    assert_eq!(sends(&stage.driver().take_log()), Vec::<Vec<u8>>::new());
    take(&mut stage, client, 3);
    assert_eq!(sends(&stage.driver().take_log()), [b"de"]);
}

#[test]
fn a_lease_goes_to_another_connection_without_a_copy() {
    let mut stage = stage(&Conditions::default(), |ctx, told, lease| {
        if let (Told::Data(_), Some(lease)) = (told, lease) {
            let other = slipring_core::Key::new(1 - ctx.key().index(), ctx.key().generation());
            ctx.forward(other, lease);
        }
    });
    let (first, second) = (stage.accept(), stage.accept());
    stage.driver().receive(first, b"for the other");
    stage.rest();
    assert_eq!(stage.driver().sending(second), b"for the other");
    assert_eq!(buffers_free(&mut stage), 15, "the buffer itself is being sent");
    stage.settle();
    assert_eq!((stage.sent(second), buffers_free(&mut stage)), (b"for the other".to_vec(), 16));
}

#[test]
fn a_full_outbox_holds_its_feeder_back_until_it_is_low() {
    let conditions = limited(|limits| {
        (limits.outbox_high_bytes, limits.outbox_low_bytes) = (1000, 400);
    });
    let mut stage = stage(&conditions, echo);
    let client = stage.accept();
    stage.driver().receive(client, &[1; 1000]);
    stage.rest();
    let receive = stage.driver().expect(Op::Receive, client);
    let cancel = stage.driver().expect_cancel(receive);
    stage.driver().complete(receive, Err(Fault::Cancelled));
    stage.driver().complete(cancel, Ok(0));
    take(&mut stage, client, 599);
    assert!(stage.driver().find(Op::Receive, client).is_none(), "401 bytes are not low");
    stage.turn();
    let watch = stage.driver().expect(Op::Watch, client);
    stage.driver().complete(watch, Ok(4));
    stage.rest();
    take(&mut stage, client, 1);
    stage.turn();
    assert!(stage.driver().find(Op::Receive, client).is_some(), "400 bytes are");
    assert!(stage.handler().take_told_of(0).contains(&Told::Writable));
}

#[test]
fn a_send_the_queue_refuses_is_made_in_the_next_turn() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    stage.driver().refuse_sends(2);
    stage.receive(client, b"not lost");
    assert_eq!(stage.sent(client), b"not lost");
}

#[test]
fn a_failed_send_ends_the_connection_and_gives_its_buffers_back() {
    let mut stage = stage(&Conditions::default(), echo);
    let client = stage.accept();
    stage.driver().receive(client, b"x");
    stage.rest();
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Err(Fault::BrokenPipe));
    stage.settle();
    assert_eq!(stage.handler().take_told_of(0).last(), Some(&Told::Close(CloseReason::Reset)));
    assert_eq!(buffers_free(&mut stage), 16);
}

#[test]
fn more_than_an_outbox_may_hold_ends_the_connection() {
    let conditions = limited(|limits| limits.outbox_bytes_max = 1 << 16);
    let mut stage = stage(&conditions, |ctx, told, _| {
        if matches!(told, Told::Open(_)) {
            ctx.send(vec![0; 1 << 16]);
            ctx.send(vec![0; 1]);
        }
    });
    let client = stage.accept();
    let overflow = Told::Close(CloseReason::OutboxOverflow);
    assert_eq!(stage.handler().take_told_of(0).last(), Some(&overflow));
    assert!(stage.driver().is_abortive(client));
}

/// Blocks the client's socket, with `bytes` echoed before.
fn block(stage: &mut Noted, client: Descriptor) {
    stage.driver().receive(client, b"first");
    stage.rest();
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.rest();
}

#[test]
fn what_waits_for_a_dial_gives_its_buffers_up_when_they_run_short() {
    let conditions = limited(|limits| (limits.buffers, limits.dialed_max) = (4, 1));
    let mut stage = stage(&conditions, |ctx, told, lease| match (told, lease) {
        (Told::Open(Origin::Accepted(_)), _) => {
            ctx.dial(([192, 0, 2, 1], 80).into(), ()).expect("there is a place");
        }
        (_, Some(lease)) => ctx.forward(slipring_core::Key::new(1, 0), lease),
        _ => {}
    });
    let client = stage.accept();
    let upstream = Descriptor(client.0 + 1);
    for part in [b"one ", b"two ", b"six ", b"ten "] {
        stage.driver().receive(client, part);
        stage.rest();
    }
    assert!(buffers_free(&mut stage) > 0, "an upstream that is silent keeps nobody from reading");
    stage.answer_dial(upstream, Ok(()));
    assert_eq!(stage.sent(upstream), b"one two six ten ");
    assert_eq!(buffers_free(&mut stage), 4);
}

#[test]
fn a_stalled_reader_gives_its_buffers_up_when_they_run_short() {
    let conditions = limited(|limits| limits.buffers = 4);
    let mut stage = stage(&conditions, echo);
    let client = stage.accept();
    block(&mut stage, client);
    for _ in 0..3 {
        stage.driver().receive(client, b"more");
        stage.rest();
    }
    assert!(buffers_free(&mut stage) > 0, "copied aside");
    assert_eq!(stage.counters().buffers_spilled, 4);
    let watch = stage.driver().expect(Op::Watch, client);
    stage.driver().complete(watch, Ok(4));
    stage.settle();
    assert_eq!(stage.sent(client), b"firstmoremoremore");
}

/// What it had to be copied aside for is no reason to keep others out.
#[test]
fn what_stalled_readers_leave_in_memory_strains_nobody() {
    let conditions = limited(|limits| (limits.buffers, limits.owned_bytes_max) = (4, 18));
    let mut stage = stage(&conditions, echo);
    let client = stage.accept();
    block(&mut stage, client);
    for _ in 0..3 {
        stage.driver().receive(client, b"more");
        stage.rest();
    }
    let memory = Rc::clone(stage.driver().memory());
    assert_eq!((memory.owned_bytes(), memory.spilled_bytes()), (17, 17), "94 %");
    stage.pass_ms(200);
    assert_eq!(stage.counters().strained, 0);
    let other = stage.accept();
    stage.receive(other, b"hi");
    assert_eq!(stage.sent(other), b"hi");
}

#[test]
fn a_reader_that_goes_on_stalling_gives_up_what_came_later_too() {
    let conditions = limited(|limits| limits.buffers = 4);
    let mut stage = stage(&conditions, echo);
    let client = stage.accept();
    block(&mut stage, client);
    for _ in 0..15 {
        stage.driver().receive(client, b"more");
        stage.rest();
        assert!(buffers_free(&mut stage) > 0, "a stalled reader holds all buffers");
    }
    let other = stage.accept();
    stage.receive(other, b"served");
    assert_eq!(stage.sent(other), b"served");
}

#[test]
fn constant_bytes_and_empty_ones_can_be_sent() {
    let mut stage = stage(&Conditions::default(), |ctx, told, _| {
        if matches!(told, Told::Open(_)) {
            ctx.send("");
            ctx.send("hello ");
            ctx.send(vec![]);
            ctx.send(b"world");
        }
    });
    let client = stage.accept();
    assert_eq!(stage.sent(client), b"hello world");
}

#[test]
fn what_is_sent_to_a_connection_that_is_over_is_dropped() {
    let mut stage = stage(&Conditions::default(), ignore);
    let client = stage.accept();
    stage.reset(client);
    let key = stage.handler().keys[0];
    stage.reactor().connections().send_to(key, "too late");
    let refused = stage.reactor().connections().try_send_to(key, "too late");
    assert!(matches!(refused, Err(slipring_core::SendRefused::Ended(_))));
    stage.settle();
}

#[test]
fn connections_that_stalled_once_and_are_gone_are_forgotten() {
    let mut stage = stage(&Conditions::default(), echo);
    for _ in 0..500 {
        let client = stage.accept();
        block(&mut stage, client);
        stage.reset(client);
    }
    let printed = format!("{:?}", stage.reactor().connections());
    let (_, stalled) = printed.split_once("stalled: [").expect("the list of the stalled");
    let (stalled, _) = stalled.split_once(']').expect("its end");
    let listed = stalled.matches("Key").count();
    assert!(listed <= 100, "{listed} keys of dead connections are kept");
}
