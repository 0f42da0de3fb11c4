//! Accepting: many at once far from the cap, one by one near it, never more; pauses that end.

use slipring_core::Fault;
use slipring_core::config::CLIENTS_PER_TURN_MAX;
use slipring_core::token::Op;
use slipring_sim::{Conditions, Operation, Submitted};

use crate::support::{Noted, Told, echo, ignore, limited, stage};

/// A cap of `accepted_max`, and a backlog of 16: a multishot reserves 17.
fn capped(accepted_max: u32) -> Noted {
    stage(&limited(|limits| limits.accepted_max = accepted_max), ignore)
}

fn opened(stage: &mut Noted) -> usize {
    stage.handler().take_told().iter().filter(|(_, told)| matches!(told, Told::Open(_))).count()
}

#[test]
fn far_from_the_cap_a_multishot_takes_all_and_is_armed_again_when_it_ends() {
    let mut stage = capped(64);
    let listener = stage.listener();
    let many = stage.driver().expect(Op::AcceptMany, listener);
    stage.driver().accept(listener);
    stage.driver().accept(listener);
    let last = stage.driver().descriptor();
    stage.driver().complete(many, Ok(last.0));
    stage.settle();
    assert_eq!(opened(&mut stage), 3, "the one that came with its end, too");
    assert!(stage.driver().find(Op::AcceptMany, listener).is_some());
    assert!(stage.driver().find(Op::Receive, last).is_some());
}

#[test]
fn near_the_cap_clients_come_one_by_one_and_at_the_cap_none() {
    let mut stage = capped(20);
    let listener = stage.listener();
    let clients: Vec<_> = (0..20).map(|_| stage.accept()).collect();
    assert_eq!((stage.admission().open(), opened(&mut stage)), (20, 20));
    let of_listener =
        |s: &Submitted| s.descriptor() == Some(listener) && !matches!(s, Submitted::Close(_));
    let armed = stage.driver().in_flight().filter(|o| of_listener(&o.submitted)).count();
    assert_eq!(armed, 0, "clients stay in the backlog");
    stage.reset(clients[3]);
    assert!(stage.driver().find(Op::WatchListener, listener).is_some(), "room for one");
    stage.accept();
    assert_eq!(stage.admission().open(), 20);
    for &client in &clients[4..] {
        stage.reset(client);
    }
    assert_eq!(stage.admission().open(), 4);
    for &client in &clients[..3] {
        stage.reset(client);
    }
    let watch = stage.driver().expect(Op::WatchListener, listener);
    stage.driver().complete(watch, Ok(1));
    stage.settle();
    assert!(stage.driver().find(Op::AcceptMany, listener).is_some(), "far from the cap again");
}

#[test]
fn a_client_that_left_before_it_was_accepted_costs_no_place() {
    let mut stage = capped(2);
    let listener = stage.listener();
    for _ in 0..10 {
        let watch = stage.driver().expect(Op::WatchListener, listener);
        stage.driver().complete(watch, Ok(1));
        stage.rest();
        assert_eq!(stage.admission().open(), 0);
    }
    assert_eq!(stage.counters().accept_errors, 0, "that is no failure");
}

/// A poll may be wrong; or the client has gone since, or another process that shares the socket took it.
#[test]
fn a_listener_that_found_nobody_keeps_no_place_from_the_others() {
    let conditions = limited(|limits| limits.accepted_max = 1);
    let mut stage = stage(&Conditions { listeners: 2, ..conditions }, ignore);
    let first = stage.listener();
    let watches = |o: &&Operation| o.op() == Op::WatchListener;
    let watched =
        stage.driver().in_flight().filter(watches).filter_map(|o| o.submitted.descriptor());
    let second = watched.last().expect("both listeners are watched");
    let watch = stage.driver().expect(Op::WatchListener, first);
    stage.driver().complete(watch, Ok(1));
    stage.settle();
    assert_eq!(stage.admission().open(), 0);
    let client = stage.driver().queue_client(second);
    let watch = stage.driver().expect(Op::WatchListener, second);
    stage.driver().complete(watch, Ok(1));
    stage.settle();
    assert!(stage.driver().find(Op::Receive, client).is_some(), "{:?}", stage.reactor());
    assert_eq!(stage.admission().open(), 1);
}

#[test]
fn a_multishot_is_recalled_when_it_reserves_what_is_not_there() {
    let mut stage = capped(18);
    let listener = stage.listener();
    let many = stage.driver().expect(Op::AcceptMany, listener);
    stage.accept();
    assert_eq!(stage.driver().expect(Op::AcceptMany, listener), many, "1 + 17 fit 18");
    stage.driver().accept(listener);
    stage.rest();
    let cancel = stage.driver().expect_cancel(many);
    stage.driver().complete(cancel, Ok(0));
    stage.driver().complete(many, Err(Fault::Cancelled));
    stage.settle();
    assert!(stage.driver().find(Op::WatchListener, listener).is_some());
    assert_eq!(stage.counters().accept_errors, 0);
}

#[test]
fn clients_beyond_the_reservation_wait_for_a_place() {
    let mut stage = capped(17);
    let listener = stage.listener();
    let clients: Vec<_> = (0..20).map(|_| stage.driver().accept(listener)).collect();
    stage.settle();
    assert_eq!((stage.admission().open(), opened(&mut stage)), (17, 17));
    assert!(clients.iter().all(|&client| !stage.driver().is_closed(client)), "none is refused");
    for number in 0..3 {
        stage.reset(clients[number]);
        assert_eq!(opened(&mut stage), 1);
        assert!(stage.driver().find(Op::Receive, clients[17 + number]).is_some(), "in order");
    }
    assert_eq!(stage.admission().open(), 17);
}

#[test]
fn for_want_of_descriptors_accepting_rests_until_the_timer() {
    for fault in [Fault::DescriptorsOfProcess, Fault::DescriptorsOfHost, Fault::Memory] {
        let mut stage = capped(64);
        let listener = stage.listener();
        let many = stage.driver().expect(Op::AcceptMany, listener);
        stage.driver().complete(many, Err(fault));
        stage.pass_ms(99);
        assert!(stage.driver().find(Op::AcceptMany, listener).is_none());
        stage.pass_ms(20);
        assert!(stage.driver().find(Op::AcceptMany, listener).is_some(), "{fault}");
        assert_eq!((stage.counters().accept_pauses, stage.counters().accept_errors), (1, 1));
    }
}

#[test]
fn for_want_of_descriptors_accepting_rests_near_the_cap_too() {
    let mut stage = capped(2);
    let listener = stage.listener();
    stage.driver().fail_accept_queued(Fault::DescriptorsOfProcess);
    let client = stage.driver().accept(listener);
    stage.pass_ms(99);
    assert!(stage.driver().find(Op::WatchListener, listener).is_none());
    assert_eq!(stage.admission().open(), 0, "whoever rests holds no place");
    stage.pass_ms(20);
    let watch = stage.driver().expect(Op::WatchListener, listener);
    assert_eq!((stage.counters().accept_pauses, stage.counters().accept_errors), (1, 1));
    stage.driver().complete(watch, Ok(1));
    stage.settle();
    assert!(stage.driver().find(Op::Receive, client).is_some());
}

#[test]
fn a_descriptor_that_comes_back_ends_the_rest() {
    let mut stage = capped(64);
    let listener = stage.listener();
    let client = stage.accept();
    let many = stage.driver().expect(Op::AcceptMany, listener);
    stage.driver().complete(many, Err(Fault::DescriptorsOfProcess));
    stage.settle();
    assert!(stage.driver().find(Op::AcceptMany, listener).is_none());
    stage.reset(client);
    assert!(stage.driver().find(Op::AcceptMany, listener).is_some());
    stage.pass_ms(500);
}

#[test]
fn a_storm_of_failures_is_answered_with_a_rest_and_kills_no_listener() {
    let mut stage = capped(64);
    let listener = stage.listener();
    for failure in 1..=32 {
        let many = stage.driver().find(Op::AcceptMany, listener);
        let many = many.unwrap_or_else(|| panic!("no accept after {failure} failures"));
        stage.driver().complete(many, Err(Fault::Other(71)));
        stage.settle();
    }
    assert!(stage.driver().find(Op::AcceptMany, listener).is_none());
    assert_eq!((stage.counters().accept_pauses, stage.counters().accept_errors), (1, 32));
    stage.pass_ms(200);
    assert!(stage.driver().find(Op::AcceptMany, listener).is_some());
}

#[test]
fn a_success_in_between_is_no_storm() {
    let mut stage = capped(64);
    let listener = stage.listener();
    for _ in 0..3 {
        for _ in 0..31 {
            let many = stage.driver().expect(Op::AcceptMany, listener);
            stage.driver().complete(many, Err(Fault::Reset));
            stage.settle();
        }
        stage.accept();
    }
    assert_eq!(stage.counters().accept_pauses, 0);
}

#[test]
fn listeners_share_the_cap() {
    let conditions = limited(|limits| (limits.accepted_max, limits.backlog) = (38, 16));
    let mut stage = stage(&Conditions { listeners: 2, ..conditions }, echo);
    let first = stage.listener();
    let many = stage.driver().in_flight().filter(|o| o.op() == Op::AcceptMany).count();
    assert_eq!(many, 2, "two backlogs of 17 fit 38");
    for _ in 0..5 {
        stage.driver().accept(first);
    }
    stage.settle();
    let many = stage.driver().in_flight().filter(|o| o.op() == Op::AcceptMany).count();
    assert!(many < 2, "5 + 34 do not");
    assert_eq!(stage.admission().open(), 5);
}

#[test]
fn a_listener_at_its_cap_leaves_its_clients_in_the_backlog_and_the_others_alone() {
    let conditions = limited(|limits| (limits.accepted_max, limits.backlog) = (64, 16));
    let conditions = Conditions { listeners: 2, listener_max: Some(18), ..conditions };
    let mut stage = stage(&conditions, echo);
    let first = stage.listener();
    let second = stage.driver().in_flight().map(|o| o.submitted.descriptor());
    let second = second.flatten().find(|of| *of != first).expect("it accepts");
    for _ in 0..2 {
        stage.driver().accept(first);
    }
    stage.settle();
    assert!(stage.driver().find(Op::AcceptMany, first).is_none(), "2 + 17 do not fit 18");
    assert!(stage.driver().find(Op::WatchListener, first).is_some());
    assert!(stage.driver().find(Op::AcceptMany, second).is_some(), "it has room of its own");
    let mut clients = Vec::new();
    for _ in 2..18 {
        clients.push(stage.driver().accept(first));
        stage.settle();
    }
    let silent = |stage: &mut Noted| {
        let mut of_first = |op| stage.driver().find(op, first).is_none();
        of_first(Op::AcceptMany) && of_first(Op::WatchListener)
    };
    assert!(silent(&mut stage), "it is full, and asks for nobody");
    assert_eq!((stage.admission().open(), stage.admission().open_of(0)), (18, Some(18)));
    stage.driver().accept(second);
    stage.settle();
    assert_eq!(stage.admission().open_of(1), Some(1));
    // One leaves, one comes.
    stage.reset(clients[0]);
    assert!(!silent(&mut stage));
    stage.driver().accept(first);
    stage.settle();
    assert!(silent(&mut stage));
    assert_eq!(stage.admission().open_of(0), Some(18));
}

/// A burst of clients in one turn, and room for all of them.
const BURST: usize = 2 * CLIENTS_PER_TURN_MAX + 3;

#[test]
fn a_burst_of_clients_is_taken_in_over_several_turns_in_its_order() {
    let mut stage = stage(&limited(|limits| limits.accepted_max = 1024), echo);
    let old = stage.accept();
    opened(&mut stage);
    let listener = stage.listener();
    let burst: Vec<_> = (0..BURST).map(|_| stage.driver().accept(listener)).collect();
    stage.driver().receive(old, b"x");
    stage.driver().take_log();
    stage.turn();
    assert_eq!(opened(&mut stage), CLIENTS_PER_TURN_MAX);
    let mut log = stage.driver().take_log().into_iter();
    let answers =
        |s: Submitted| matches!(s, Submitted::Send { descriptor, .. } if descriptor == old);
    assert!(log.any(answers), "and who is there is answered in the same turn");
    assert_eq!(stage.turn().sleep_us, Some(0), "there are more");
    assert_eq!(opened(&mut stage), CLIENTS_PER_TURN_MAX);
    stage.turn();
    assert_eq!(opened(&mut stage), 3);
    stage.rest();
    let receives = stage.driver().in_flight().filter(|o| o.op() == Op::Receive);
    let receives: Vec<_> = receives.filter_map(|o| o.submitted.descriptor()).collect();
    assert_eq!(receives[1..], burst, "in the order of their coming");
    assert_eq!(stage.admission().open() as usize, 1 + BURST);
}

#[test]
fn clients_that_wait_for_their_turn_when_a_drain_begins_are_served_all_the_same() {
    let mut stage = stage(&limited(|limits| limits.accepted_max = 1024), echo);
    let listener = stage.listener();
    let burst: Vec<_> = (0..BURST).map(|_| stage.driver().accept(listener)).collect();
    stage.turn();
    assert_eq!(opened(&mut stage), CLIENTS_PER_TURN_MAX);
    stage.drain();
    stage.settle();
    assert_eq!(opened(&mut stage), BURST - CLIENTS_PER_TURN_MAX);
    let last = *burst.last().expect("there are some");
    stage.receive(last, b"x");
    assert_eq!(stage.driver().take_sent(last), b"x");
    for client in burst {
        stage.reset(client);
    }
    assert!(stage.is_drained() && stage.admission().open() == 0);
}

#[test]
fn clients_that_wait_for_their_turn_when_the_ring_fails_are_closed() {
    let mut stage = stage(&limited(|limits| limits.accepted_max = 1024), ignore);
    let listener = stage.listener();
    let burst: Vec<_> = (0..BURST).map(|_| stage.driver().accept(listener)).collect();
    stage.turn();
    stage.driver().fail_enter("gone");
    assert!(stage.reactor().step().is_break());
    let left = burst.iter().filter(|client| !stage.driver().is_closed(**client));
    assert_eq!(left.count(), 0);
    assert_eq!(stage.admission().open(), 0);
}
