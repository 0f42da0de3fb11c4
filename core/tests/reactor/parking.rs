//! Receives that wait for a buffer: those that bring little come before those that bring much, and have the last
//! buffers for themselves while they are there.

use std::cell::RefCell;
use std::rc::Rc;

use slipring_core::driver::{Abilities, Wait};
use slipring_core::token::{Descriptor, Op};
use slipring_core::{Ctx, Fault, Lease, Limits};
use slipring_sim::{Conditions, Submitted};

use crate::support::{Noted, Told, buffers_free, stage};

/// Much is a quarter of a connection's share of a turn.
const SHARE: u32 = 4096;
const MUCH: usize = 2048;
/// Few are an eighth of these.
const BUFFERS: u32 = 16;

type Hoard = Rc<RefCell<Vec<Lease>>>;

/// A handler that echoes what is much and small `e`, and keeps everything else, and what it keeps.
fn hoarding(buffers: u32) -> (Noted, Hoard) {
    let hoard = Hoard::default();
    let kept = Rc::clone(&hoard);
    let react = move |ctx: &mut Ctx<'_, ()>, _: &Told, lease: Option<Lease>| {
        let Some(lease) = lease else { return };
        match lease.len() == MUCH || *lease == *b"e" {
            true => ctx.send(lease),
            false => kept.borrow_mut().push(lease),
        }
    };
    let limits = Limits {
        buffers,
        turn_bytes_max: SHARE,
        zero_copy_min_bytes: None,
        ..Conditions::default().limits
    };
    let abilities = Abilities { receive_cap: true, ..Abilities::default() };
    (stage(&Conditions { limits, abilities, ..Conditions::default() }, react), hoard)
}

/// One turn; whose receives it armed.
fn armed(stage: &mut Noted) -> Vec<Descriptor> {
    stage.turn();
    let log = stage.driver().take_log().into_iter();
    let receives = log.filter_map(|submitted| match submitted {
        Submitted::Receive { descriptor, .. } => Some(descriptor),
        _ => None,
    });
    receives.collect()
}

/// Its receive finds no buffer.
fn starve(stage: &mut Noted, client: Descriptor) {
    let receive = stage.driver().expect(Op::Receive, client);
    stage.driver().complete(receive, Err(Fault::NoBuffers));
    stage.settle();
}

/// A hog that was the first to find no buffer, one with little that was the second, and all buffers are held.
fn starved() -> (Noted, Hoard, [Descriptor; 2]) {
    let (mut stage, hoard) = hoarding(3);
    let [hog, little, third] = [(); 3].map(|()| stage.accept());
    stage.receive(hog, &[b'm'; MUCH - 1]);
    stage.receive(little, b"l");
    stage.receive(third, b"t");
    assert_eq!(buffers_free(&mut stage), 0);
    starve(&mut stage, hog);
    starve(&mut stage, little);
    (stage, hoard, [hog, little])
}

#[test]
fn a_buffer_goes_to_who_has_little_before_who_waits_longer_for_more() {
    let (mut stage, hoard, [hog, little]) = starved();
    stage.driver().take_log();
    hoard.borrow_mut().pop();
    assert_eq!(armed(&mut stage), [little]);
    // It was taken meanwhile, and the next one is there.
    hoard.borrow_mut().pop();
    assert_eq!(armed(&mut stage), [hog]);
}

#[test]
fn each_eighth_time_who_has_much_is_first() {
    let (mut stage, hoard) = hoarding(1);
    let hog = stage.accept();
    let littles: Vec<_> = (0..8).map(|_| stage.accept()).collect();
    stage.receive(hog, &[b'm'; MUCH - 1]);
    starve(&mut stage, hog);
    littles.iter().for_each(|little| starve(&mut stage, *little));
    stage.driver().take_log();
    // It comes back, and whoever is armed for it does not need it.
    hoard.borrow_mut().pop();
    for little in &littles[..7] {
        assert_eq!(armed(&mut stage), [*little]);
    }
    assert_eq!(armed(&mut stage), [hog]);
    assert_eq!(armed(&mut stage), [littles[7]]);
}

/// Two that stream and one with little, so that they take turns, and as many buffers free as are few.
fn short() -> (Noted, Hoard, [Descriptor; 3]) {
    let (mut stage, hoard) = hoarding(BUFFERS);
    let [first, second, little] = [(); 3].map(|()| stage.accept());
    while buffers_free(&mut stage) > BUFFERS / 8 + 3 {
        stage.receive(little, b"kept");
    }
    stage.driver().take_log();
    stage.driver().receive_last(first, &[b'm'; MUCH]);
    stage.driver().receive_last(second, &[b'm'; MUCH]);
    stage.driver().receive(little, b"e");
    assert_eq!(buffers_free(&mut stage), BUFFERS / 8);
    (stage, hoard, [first, second, little])
}

#[test]
fn who_streams_leaves_the_last_buffers_to_who_has_little() {
    let (mut stage, hoard, [first, second, _]) = short();
    // The first to go is sent, and reads nothing more: what it has sent comes back before.
    assert_eq!(armed(&mut stage), []);
    assert_eq!(stage.counters().receives_parked, 1);
    stage.reactor().audit().expect("it is known to wait");
    // The second is the last: there is nothing left to wait for.
    assert_eq!(armed(&mut stage), [second]);
    hoard.borrow_mut().clear();
    stage.settle();
    assert!(stage.driver().find(Op::Receive, first).is_some(), "it reads on");
}

/// Ten send one after the other, a turn each, and there are few buffers all the while.
#[test]
fn who_waits_for_a_buffer_behind_senders_has_the_eighth() {
    let (mut stage, _hoard) = hoarding(BUFFERS);
    let streams: Vec<_> = (0..10).map(|_| stage.accept()).collect();
    let [waiting, little] = [(); 2].map(|()| stage.accept());
    stage.receive(waiting, &[b'm'; MUCH]);
    stage.driver().oblige();
    stage.settle();
    while buffers_free(&mut stage) > BUFFERS / 8 + 10 + 1 {
        stage.receive(little, b"kept");
    }
    streams.iter().for_each(|stream| stage.driver().receive(*stream, &[b'm'; MUCH]));
    stage.driver().receive(little, b"e");
    stage.driver().take_log();
    assert_eq!(armed(&mut stage), []);
    let receive = stage.driver().expect(Op::Receive, waiting);
    stage.driver().complete(receive, Err(Fault::NoBuffers));
    for _ in 0..7 {
        assert_eq!(armed(&mut stage), []);
    }
    assert_eq!(armed(&mut stage), [waiting]);
    // There were senders left, whose buffers it could have waited for.
    assert_eq!(stage.reactor().plan_wait(), Wait::NOT);
}
