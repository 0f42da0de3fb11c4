//! What a listener does with a client when every place is taken: it waits, is refused, or gets the place of who
//! has been idle for longest.

use slipring_core::token::{Descriptor, Op};
use slipring_core::{CloseReason, Fault, OnFull};
use slipring_sim::Conditions;

use crate::support::{Noted, Told, echo, ignore, limited, stage};

/// Two places, and a listener that does this.
fn full(on_full: OnFull) -> Conditions {
    let limits = limited(|limits| (limits.accepted_max, limits.backlog) = (2, 64));
    Conditions { on_full, ..limits }
}

/// A client queues, and the kernel says so, if it was asked to; whether it was.
fn queue(stage: &mut Noted, clients: usize) -> (Vec<Descriptor>, bool) {
    let listener = stage.listener();
    let clients = (0..clients).map(|_| stage.driver().queue_client(listener)).collect();
    (clients, announce(stage))
}

fn announce(stage: &mut Noted) -> bool {
    let listener = stage.listener();
    let watch = stage.driver().find(Op::WatchListener, listener);
    if let Some(watch) = watch {
        stage.driver().complete(watch, Ok(1));
    }
    stage.settle();
    watch.is_some()
}

fn reasons(stage: &mut Noted) -> Vec<CloseReason> {
    let told = stage.handler().take_told();
    let reason = |told| if let Told::Close(reason) = told { Some(reason) } else { None };
    told.into_iter().filter_map(|(_, told)| reason(told)).collect()
}

/// The peer's FIN, for one that we have closed.
fn answer_fin(stage: &mut Noted, client: Descriptor) {
    assert!(stage.driver().is_shut(client), "it is not being closed in order");
    stage.end_of_stream(client);
}

#[test]
fn by_default_clients_wait() {
    let mut stage = stage(&full(OnFull::Backlog), ignore);
    let first = stage.accept();
    stage.accept();
    let (_, asked) = queue(&mut stage, 1);
    assert!(!asked, "nobody is to be told of it");
    stage.pass_ms(10_000);
    assert_eq!((stage.counters().refused_full, stage.counters().evicted), (0, 0));
    stage.reset(first);
    announce(&mut stage);
    assert_eq!((stage.counters().accepted, stage.driver().queued_clients()), (3, 0));
}

// -------------------------------------------------------------------------------------------- refusing

#[test]
fn who_finds_no_place_is_reset() {
    let mut stage = stage(&full(OnFull::Reject), ignore);
    let first = stage.accept();
    stage.accept();
    let (clients, asked) = queue(&mut stage, 3);
    assert!(asked);
    for client in clients {
        assert!(stage.driver().is_closed(client) && stage.driver().is_abortive(client));
    }
    assert_eq!((stage.counters().refused_full, stage.counters().accepted), (3, 2));
    // And as soon as there is one, the next has it.
    stage.reset(first);
    let (next, _) = queue(&mut stage, 1);
    assert!(!stage.driver().is_closed(next[0]));
    assert_eq!((stage.counters().refused_full, stage.counters().accepted), (3, 3));
}

#[test]
fn a_turn_refuses_so_many_and_no_more() {
    let mut stage = stage(&full(OnFull::Reject), ignore);
    stage.accept();
    stage.accept();
    queue(&mut stage, 40);
    assert_eq!((stage.counters().refused_full, stage.driver().queued_clients()), (32, 8));
    // The kernel tells of the others: the watch sees what is there.
    assert!(announce(&mut stage));
    assert_eq!((stage.counters().refused_full, stage.driver().queued_clients()), (40, 0));
}

#[test]
fn without_a_descriptor_to_spare_they_wait() {
    let mut stage = stage(&full(OnFull::Reject), ignore);
    let first = stage.accept();
    stage.accept();
    stage.driver().fail_accept_queued(Fault::DescriptorsOfProcess);
    queue(&mut stage, 2);
    let counters = stage.counters();
    assert_eq!((counters.refused_full, counters.accept_pauses), (0, 1));
    assert_eq!(stage.driver().queued_clients(), 2);
    // A descriptor comes back, and a place with it.
    stage.reset(first);
    announce(&mut stage);
    announce(&mut stage);
    assert_eq!((stage.counters().accepted, stage.counters().refused_full), (3, 1));
}

#[test]
fn a_place_that_is_merely_reserved_is_waited_for() {
    let limits = limited(|limits| (limits.accepted_max, limits.backlog) = (10, 8));
    let mut stage = stage(&Conditions { listeners: 2, on_full: OnFull::Reject, ..limits }, ignore);
    let first = stage.listener();
    assert!(stage.driver().find(Op::AcceptMany, first).is_some(), "9 of 10");
    let second = stage.driver().in_flight().find(|o| o.op() == Op::WatchListener);
    let second = second.and_then(|watch| watch.submitted.descriptor()).expect("one watches");
    for accepted in 1..=10 {
        stage.driver().accept(second);
        stage.settle();
        assert_eq!(stage.counters().accepted, accepted);
    }
    assert_eq!(stage.counters().refused_full, 0);
    let client = stage.driver().accept(second);
    stage.settle();
    assert!(stage.driver().is_closed(client));
    assert_eq!(stage.counters().refused_full, 1);
}

// ------------------------------------------------------------------------------------------- evicting

#[test]
fn who_was_idle_for_longest_makes_room() {
    let mut stage = stage(&full(OnFull::EvictIdle), echo);
    let first = stage.accept();
    stage.pass_ms(100);
    let second = stage.accept();
    stage.pass_ms(5_000);
    // The older one has just said something.
    stage.receive(first, b"I am here");
    let (next, asked) = queue(&mut stage, 1);
    assert!(asked);
    answer_fin(&mut stage, second);
    announce(&mut stage);
    assert!(stage.driver().is_closed(second) && !stage.driver().is_abortive(second));
    assert_eq!(reasons(&mut stage), [CloseReason::Evicted]);
    assert_eq!((stage.counters().evicted, stage.counters().accepted), (1, 3));
    assert!(!stage.driver().is_closed(next[0]) && !stage.driver().is_closed(first));
}

/// What could be there is not what is there.
#[test]
fn room_is_made_at_once_in_a_slab_for_many() {
    let limits = limited(|limits| (limits.accepted_max, limits.backlog) = (16_384, 64));
    let conditions = Conditions { listener_max: Some(2), on_full: OnFull::EvictIdle, ..limits };
    let mut stage = stage(&conditions, ignore);
    stage.accept();
    stage.accept();
    for evicted in 1..=3 {
        stage.pass_ms(5_000);
        queue(&mut stage, 1);
        assert_eq!(stage.counters().evicted, evicted);
        // It does not answer: the linger ends it.
        stage.pass_ms(1_100);
        announce(&mut stage);
        assert_eq!(stage.counters().accepted, 2 + evicted);
    }
}

#[test]
fn one_client_costs_one_connection() {
    let mut stage = stage(&full(OnFull::EvictIdle), ignore);
    let clients = [stage.accept(), stage.accept()];
    stage.pass_ms(5_000);
    queue(&mut stage, 1);
    let asked = announce(&mut stage);
    assert!(!asked, "the place that was asked for is awaited");
    assert_eq!(stage.counters().evicted, 1);
    let shut = clients.iter().filter(|client| stage.driver().is_shut(**client)).count();
    assert_eq!(shut, 1);
    // It does not answer: the linger ends it.
    stage.pass_ms(1_100);
    announce(&mut stage);
    stage.pass_ms(5_000);
    assert_eq!((stage.counters().evicted, stage.counters().accepted), (1, 3));
}

#[test]
fn who_is_busy_is_not_ended_for_another() {
    let mut stage = stage(&full(OnFull::EvictIdle), echo);
    let first = stage.accept();
    let stalled = stage.accept();
    stage.pass_ms(2_000);
    // One has bytes to send that its peer does not take; the other has moved something.
    stage.driver().receive(stalled, b"echo");
    stage.rest();
    let send = stage.driver().expect(Op::Send, stalled);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.rest();
    stage.driver().advance_us(1_500_000);
    stage.receive(first, b"x");
    let (next, asked) = queue(&mut stage, 1);
    assert!(asked);
    assert_eq!((stage.counters().evicted, stage.driver().queued_clients()), (0, 1));
    // A second later the other has been idle for long enough, and nobody had to ask again but the clock.
    stage.pass_ms(2_300);
    announce(&mut stage);
    answer_fin(&mut stage, first);
    announce(&mut stage);
    assert_eq!((stage.counters().evicted, stage.counters().accepted), (1, 3));
    assert!(!stage.driver().is_closed(next[0]) && !stage.driver().is_closed(stalled));
}

#[test]
fn at_its_own_cap_a_listener_takes_of_its_own() {
    let limits = limited(|limits| (limits.accepted_max, limits.backlog) = (40, 64));
    let conditions = Conditions { listeners: 2, listener_max: Some(1), ..limits };
    let mut stage = stage(&Conditions { on_full: OnFull::EvictIdle, ..conditions }, ignore);
    let first = stage.listener();
    let second = stage.driver().in_flight().filter_map(|o| o.submitted.descriptor());
    let second = second.into_iter().find(|of| *of != first).expect("it accepts");
    let oldest = stage.driver().accept(second);
    stage.pass_ms(1_000);
    let own = stage.accept();
    stage.pass_ms(2_000);
    queue(&mut stage, 1);
    assert!(stage.driver().is_shut(own), "it needs a place of its own listener");
    assert!(!stage.driver().is_shut(oldest));
}
