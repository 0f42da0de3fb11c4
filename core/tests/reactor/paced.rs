//! Accept rates: clients are let in as there are tokens, and wait in the backlog until then.

use slipring_core::token::{Descriptor, Op};
use slipring_core::{Fault, OnFull, Rate};
use slipring_sim::Conditions;

use crate::support::{Noted, ignore, limited, stage};

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate::with_burst(per_second, burst).expect("a rate"))
}

/// A process that lets in so many a second, and so many at once.
fn paced(per_second: u32, burst: u32) -> Conditions {
    Conditions { accept_rate: rate(per_second, burst), ..Conditions::default() }
}

fn listeners(stage: &mut Noted) -> Vec<Descriptor> {
    let watches = stage.driver().in_flight().filter(|o| o.op() == Op::WatchListener);
    watches.filter_map(|watch| watch.submitted.descriptor()).collect()
}

/// Clients queue, and the kernel says so, if it was asked to; whether it was.
fn queue(stage: &mut Noted, clients: usize) -> bool {
    let listener = stage.listener();
    for _ in 0..clients {
        stage.driver().queue_client(listener);
    }
    announce(stage)
}

fn announce(stage: &mut Noted) -> bool {
    let listener = stage.listener();
    announce_at(stage, listener)
}

fn announce_at(stage: &mut Noted, listener: Descriptor) -> bool {
    let watch = stage.driver().find(Op::WatchListener, listener);
    if let Some(watch) = watch {
        stage.driver().complete(watch, Ok(1));
    }
    stage.settle();
    watch.is_some()
}

/// Clients queue, and the kernel says so for as long as it is asked.
fn queue_all(stage: &mut Noted, clients: usize) {
    queue(stage, clients);
    keep_announcing(stage);
}

fn keep_announcing(stage: &mut Noted) {
    while stage.driver().queued_clients() > 0 && announce(stage) {}
}

/// Accepted, still queued, and how often one had to wait.
fn count(stage: &mut Noted) -> (u64, usize, u64) {
    let counters = stage.counters();
    assert_eq!(counters.refused(), 0, "a rate refuses nobody");
    (counters.accepted, stage.driver().queued_clients(), counters.accepts_paced)
}

#[test]
fn who_has_a_rate_asks_for_clients_one_by_one() {
    for conditions in [
        paced(1_000_000, 1_000_000),
        Conditions { listener_rate: rate(1_000_000, 1_000_000), ..Conditions::default() },
    ] {
        let mut stage = stage(&conditions, ignore);
        let listener = stage.listener();
        assert!(stage.driver().find(Op::AcceptMany, listener).is_none(), "it takes what comes");
        assert!(stage.driver().find(Op::WatchListener, listener).is_some());
    }
}

#[test]
fn a_burst_comes_in_at_once_and_the_rest_as_the_rate_says() {
    let mut stage = stage(&paced(10, 3), ignore);
    queue_all(&mut stage, 5);
    assert_eq!(count(&mut stage), (3, 2, 1));
    let listener = stage.listener();
    assert!(stage.driver().find(Op::WatchListener, listener).is_none(), "it knows that they wait");
    stage.pass_ms(90);
    assert_eq!(count(&mut stage), (3, 2, 1));
    stage.pass_ms(20);
    keep_announcing(&mut stage);
    assert_eq!(count(&mut stage), (4, 1, 2));
    stage.pass_ms(100);
    assert_eq!(count(&mut stage), (5, 0, 2));
    // Nobody waits any more: it is told of the next one, and that one finds a full bucket after a while.
    stage.pass_ms(10_000);
    assert!(queue(&mut stage, 3));
    assert_eq!(count(&mut stage), (8, 0, 2));
}

#[test]
fn tokens_that_came_meanwhile_are_used_at_once() {
    let mut stage = stage(&paced(2000, 10), ignore);
    queue_all(&mut stage, 16);
    assert_eq!(count(&mut stage), (10, 6, 1));
    // Half a millisecond a token, and it looks every millisecond.
    for left in [4, 2, 0] {
        stage.pass_ms(1);
        keep_announcing(&mut stage);
        assert_eq!(stage.driver().queued_clients(), left);
    }
    assert_eq!(stage.driver().queued_clients(), 0);
}

#[test]
fn a_turn_lets_in_so_many_and_no_more() {
    let mut stage = stage(&paced(1000, 1000), ignore);
    let listener = stage.listener();
    for _ in 0..40 {
        stage.driver().queue_client(listener);
    }
    let watch = stage.driver().expect(Op::WatchListener, listener);
    stage.driver().complete(watch, Ok(1));
    stage.settle();
    assert_eq!(count(&mut stage), (32, 8, 0));
    // The kernel tells of the others: the watch sees what is there.
    assert!(announce(&mut stage));
    assert_eq!(count(&mut stage), (40, 0, 0));
}

#[test]
fn a_token_for_nobody_is_given_back() {
    let mut stage = stage(&paced(1, 1), ignore);
    for _ in 0..5 {
        assert!(announce(&mut stage), "a watch that was wrong");
    }
    assert!(queue(&mut stage, 1));
    assert_eq!(count(&mut stage), (1, 0, 0));
}

#[test]
fn a_token_for_want_of_a_descriptor_is_given_back() {
    let mut stage = stage(&paced(1, 1), ignore);
    stage.driver().fail_accept_queued(Fault::DescriptorsOfProcess);
    assert!(queue(&mut stage, 1));
    assert_eq!((count(&mut stage), stage.counters().accept_pauses), ((0, 1, 0), 1));
    stage.pass_ms(110);
    assert!(announce(&mut stage));
    assert_eq!(count(&mut stage), (1, 0, 0));
}

#[test]
fn a_pause_for_want_of_descriptors_outlasts_the_wait_for_a_token() {
    let mut stage = stage(&Conditions { listeners: 2, ..paced(50, 1) }, ignore);
    let both = listeners(&mut stage);
    queue_all(&mut stage, 2);
    assert_eq!(count(&mut stage), (1, 1, 1));
    // The other listener finds no descriptor, when there is a token: both rest.
    stage.driver().advance_us(20_000);
    stage.driver().queue_client(both[1]);
    stage.driver().fail_accept_queued(Fault::DescriptorsOfProcess);
    stage.driver().fail_accept_queued(Fault::DescriptorsOfProcess);
    stage.settle();
    assert_eq!(stage.counters().accept_pauses, 1);
    stage.pass_ms(50);
    assert_eq!(stage.counters().accepted, 1);
    // And then a client of one, then of the other comes in.
    for _ in 0..20 {
        stage.pass_ms(20);
        both.iter().for_each(|listener| {
            announce_at(&mut stage, *listener);
        });
    }
    assert_eq!((stage.counters().accepted, stage.driver().queued_clients()), (3, 0));
}

#[test]
fn listeners_share_the_rate_of_the_process() {
    let mut stage = stage(&Conditions { listeners: 2, ..paced(10, 3) }, ignore);
    let both = listeners(&mut stage);
    assert_eq!(both.len(), 2);
    for listener in &both {
        stage.driver().queue_client(*listener);
        stage.driver().queue_client(*listener);
    }
    both.iter().for_each(|listener| assert!(announce_at(&mut stage, *listener)));
    assert_eq!(count(&mut stage), (3, 1, 0));
    assert!(announce_at(&mut stage, both[1]));
    assert_eq!(count(&mut stage), (3, 1, 1));
    stage.pass_ms(110);
    assert_eq!(count(&mut stage), (4, 0, 1));
}

#[test]
fn a_rate_of_each_listener_leaves_the_other_alone() {
    let own = Conditions { listeners: 2, listener_rate: rate(10, 2), ..Conditions::default() };
    let mut stage = stage(&own, ignore);
    let both = listeners(&mut stage);
    for at in [0, 0, 0, 1, 1] {
        stage.driver().queue_client(both[at]);
    }
    both.iter().for_each(|listener| assert!(announce_at(&mut stage, *listener)));
    assert_eq!(count(&mut stage), (4, 1, 0), "two of each");
    assert!(announce_at(&mut stage, both[0]));
    stage.pass_ms(110);
    assert_eq!(count(&mut stage), (5, 0, 1));
}

#[test]
fn a_drain_keeps_to_no_rate() {
    let mut stage = stage(&paced(1, 2), ignore);
    queue_all(&mut stage, 10);
    assert_eq!(count(&mut stage), (2, 8, 1));
    stage.drain();
    stage.settle();
    assert_eq!(count(&mut stage), (10, 0, 1));
    let listener = stage.listener();
    assert!(stage.driver().is_closed(listener));
}

/// Who is to be refused for want of a place is not refused for want of a token, and the other way round: who finds
/// no place needs no token to be told so.
#[test]
fn what_is_done_when_full_is_not_done_for_a_rate() {
    let limits = limited(|limits| (limits.accepted_max, limits.backlog) = (4, 64));
    let conditions = Conditions { accept_rate: rate(10, 3), on_full: OnFull::Reject, ..limits };
    let mut stage = stage(&conditions, ignore);
    queue_all(&mut stage, 4);
    assert_eq!(count(&mut stage), (3, 1, 1));
    stage.pass_ms(150);
    announce(&mut stage);
    assert_eq!(count(&mut stage), (4, 0, 1));
    queue(&mut stage, 20);
    let counters = stage.counters();
    assert_eq!((counters.accepted, counters.refused_full, counters.accepts_paced), (4, 20, 1));
}

#[test]
fn at_the_cap_a_client_waits_for_its_place_and_takes_no_token() {
    let limits = limited(|limits| limits.accepted_max = 1);
    let mut stage = stage(&Conditions { accept_rate: rate(1, 2), ..limits }, ignore);
    let listener = stage.listener();
    let first = stage.driver().queue_client(listener);
    queue(&mut stage, 1);
    assert_eq!(count(&mut stage), (1, 1, 0));
    // The second token is still there when the place is.
    stage.reset(first);
    announce(&mut stage);
    assert_eq!(count(&mut stage), (2, 0, 0));
}
