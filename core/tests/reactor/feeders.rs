//! Back-pressure between connections: many into one, one into many, and whoever ends meanwhile.

use slipring_core::token::{Descriptor, Op};
use slipring_core::{CloseReason, Fault, Key};
use slipring_sim::{Conditions, Operation, Submitted};

use crate::support::{Noted, Told, buffers_free, limited, stage};

fn conditions() -> Conditions {
    limited(|limits| {
        (limits.outbox_high_bytes, limits.outbox_low_bytes) = (1000, 400);
    })
}

fn key(number: u32) -> Key {
    Key::new(number, 0)
}

/// Whatever comes from others than these goes to all of these.
fn into(targets: &'static [u32]) -> Noted {
    stage(&conditions(), move |ctx, told, lease| match (told, lease) {
        (Told::Data(_), Some(lease)) if !targets.contains(&ctx.key().index()) => {
            let copy = lease.to_vec();
            for target in &targets[1..] {
                ctx.forward(key(*target), copy.clone());
            }
            ctx.forward(key(targets[0]), lease);
        }
        (Told::Data(word), _) if word == b"abort" => ctx.abort(),
        _ => {}
    })
}

/// Whether the client is being read from: held back means a cancel, and no receive.
fn reads(stage: &mut Noted, client: Descriptor) -> bool {
    stage.rest();
    let Some(receive) = stage.driver().find(Op::Receive, client) else { return false };
    let cancels = |o: &&Operation| o.submitted == Submitted::Cancel(receive);
    let Some(cancel) = stage.driver().in_flight().find(cancels).map(|o| o.token) else {
        return true;
    };
    stage.driver().complete(receive, Err(Fault::Cancelled));
    stage.driver().complete(cancel, Ok(0));
    stage.rest();
    stage.driver().find(Op::Receive, client).is_some()
}

/// The target's socket takes nothing, whatever it is given from now on.
fn block(stage: &mut Noted, feeder: Descriptor, target: Descriptor) {
    stage.driver().receive(feeder, b"x");
    stage.rest();
    let send = stage.driver().expect(Op::Send, target);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.rest();
}

/// The target takes all that waits.
fn drain(stage: &mut Noted, target: Descriptor) {
    let watch = stage.driver().expect(Op::Watch, target);
    stage.driver().complete(watch, Ok(4));
    stage.rest();
    let bytes = stage.driver().sending(target).len() as u32;
    let send = stage.driver().expect(Op::Send, target);
    stage.driver().complete(send, Ok(bytes));
    stage.rest();
}

#[test]
fn all_that_feed_one_outbox_are_held_back_until_it_is_low() {
    let mut stage = into(&[0]);
    let sink = stage.accept();
    let feeders: Vec<_> = (0..8).map(|_| stage.accept()).collect();
    block(&mut stage, feeders[0], sink);
    // Each brings what it had been delivered already, in whatever order.
    for round in 0..2 {
        for &feeder in &feeders {
            if round == 0 || reads(&mut stage, feeder) {
                stage.driver().receive(feeder, &[1; 1000]);
            }
        }
        stage.rest();
    }
    for &feeder in &feeders {
        assert!(!reads(&mut stage, feeder), "one that feeds on lets no other go");
    }
    assert_eq!(stage.reactor().connections().outbox_bytes(key(0)), 1 + 8 * 1000);
    drain(&mut stage, sink);
    for &feeder in &feeders {
        assert!(reads(&mut stage, feeder), "all go on");
    }
    assert_eq!(stage.reactor().audit(), Ok(()));
    assert_eq!(buffers_free(&mut stage), 16);
}

#[test]
fn one_that_feeds_two_waits_for_both() {
    let mut stage = into(&[0, 1]);
    let (one, other, feeder) = (stage.accept(), stage.accept(), stage.accept());
    stage.driver().receive(feeder, &[1; 1000]);
    stage.rest();
    for target in [one, other] {
        let send = stage.driver().expect(Op::Send, target);
        stage.driver().complete(send, Err(Fault::WouldBlock));
    }
    assert!(!reads(&mut stage, feeder));
    drain(&mut stage, one);
    assert!(!reads(&mut stage, feeder), "the other is as full as before");
    assert_eq!(stage.reactor().audit(), Ok(()));
    drain(&mut stage, other);
    assert!(reads(&mut stage, feeder));
}

#[test]
fn the_end_of_an_outbox_lets_all_go_that_fed_it() {
    let mut stage = into(&[0]);
    let sink = stage.accept();
    let feeders = [stage.accept(), stage.accept()];
    block(&mut stage, feeders[0], sink);
    for feeder in feeders {
        stage.driver().receive(feeder, &[1; 1000]);
    }
    stage.rest();
    assert!(feeders.iter().all(|feeder| !reads(&mut stage, *feeder)));
    stage.driver().receive(sink, b"abort");
    stage.settle();
    assert_eq!(stage.handler().take_told_of(0).last(), Some(&Told::Close(CloseReason::Aborted)));
    assert!(feeders.iter().all(|feeder| reads(&mut stage, *feeder)));
    assert_eq!(buffers_free(&mut stage), 16);
}

#[test]
fn one_that_is_held_back_can_end() {
    let mut stage = into(&[0]);
    let (sink, feeder) = (stage.accept(), stage.accept());
    block(&mut stage, feeder, sink);
    stage.driver().receive(feeder, &[1; 1000]);
    assert!(!reads(&mut stage, feeder));
    stage.reactor().connections().abort_of(key(1));
    stage.turn();
    stage.rest();
    // Another connection in its place is none that is held back.
    while stage.driver().oblige() > 0 {
        stage.rest();
    }
    let next = stage.accept();
    assert!(reads(&mut stage, next));
    drain(&mut stage, sink);
    assert!(reads(&mut stage, next));
    assert_eq!(stage.reactor().audit(), Ok(()));
}
