//! Sends without a copy: what the kernel reads is kept until its notification, whatever happens meanwhile.

use slipring_core::driver::Abilities;
use slipring_core::token::{Descriptor, Op, Token};
use slipring_core::{CloseReason, Fault};
use slipring_sim::{Conditions, Submitted};

use crate::support::{Noted, Told, buffers_free, echo, limited, stage};

fn conditions() -> Conditions {
    let conditions = limited(|limits| limits.zero_copy_min_bytes = Some(100));
    Conditions { abilities: Abilities { receive_cap: true, zero_copy: true }, ..conditions }
}

/// Echoes `bytes` as far as the send in flight; whether that avoids the copy.
fn echo_begins(stage: &mut Noted, client: Descriptor, bytes: &[u8]) -> (Token, bool) {
    stage.driver().receive(client, bytes);
    stage.driver().take_log();
    stage.rest();
    let zero_copy = |s: &Submitted| matches!(s, Submitted::Send { zero_copy: true, .. });
    let zero_copy = stage.driver().take_log().iter().any(zero_copy);
    (stage.driver().expect(Op::Send, client), zero_copy)
}

#[test]
fn the_memory_is_kept_until_the_notification() {
    let mut stage = stage(&conditions(), echo);
    let client = stage.accept();
    let (send, zero_copy) = echo_begins(&mut stage, client, &[7; 200]);
    assert!(zero_copy);
    stage.driver().complete_with_more(send, Ok(200));
    stage.settle();
    assert_eq!((buffers_free(&mut stage), stage.driver().held()), (15, 1));
    for filler in 0..20 {
        stage.receive(client, &[filler; 90]);
    }
    // Checked by the driver: the bytes are as they were.
    stage.driver().notify(send, false);
    stage.settle();
    assert_eq!(buffers_free(&mut stage), 16);
    assert_eq!(stage.sent(client)[..200], [7; 200]);
    assert_eq!(stage.counters().zero_copy_sends, 1);
}

#[test]
fn small_sends_are_copied() {
    let mut stage = stage(&conditions(), echo);
    let client = stage.accept();
    assert!(!echo_begins(&mut stage, client, &[7; 99]).1);
}

#[test]
fn the_first_one_decides_whether_more_are_made() {
    for (copied, more) in [(true, false), (false, true)] {
        let mut stage = stage(&conditions(), echo);
        let client = stage.accept();
        let (first, _) = echo_begins(&mut stage, client, &[1; 200]);
        stage.driver().complete_with_more(first, Ok(200));
        stage.rest();
        let (second, zero_copy) = echo_begins(&mut stage, client, &[2; 200]);
        assert!(!zero_copy, "not before the first one's answer");
        stage.driver().complete(second, Ok(200));
        stage.driver().notify(first, copied);
        stage.rest();
        assert_eq!(echo_begins(&mut stage, client, &[3; 200]).1, more);
        assert_eq!(stage.counters().zero_copy_copied, u64::from(copied));
    }
}

#[test]
fn one_that_fails_for_want_of_memory_is_made_again_with_a_copy() {
    for fault in [Fault::NoBuffers, Fault::Memory] {
        let mut stage = stage(&conditions(), echo);
        let client = stage.accept();
        let (send, _) = echo_begins(&mut stage, client, &[1; 200]);
        stage.driver().complete(send, Err(fault));
        stage.rest();
        let again = stage.driver().expect(Op::Send, client);
        assert_eq!(stage.driver().held(), 0, "the second one copies");
        stage.driver().complete(again, Ok(200));
        stage.settle();
        assert_eq!(stage.sent(client), [1; 200]);
        assert!(!echo_begins(&mut stage, client, &[2; 200]).1);
    }
}

#[test]
fn a_cancelled_one_is_still_read_until_its_notification() {
    let mut stage = stage(&conditions(), echo);
    let client = stage.accept();
    let (send, _) = echo_begins(&mut stage, client, &[9; 200]);
    let key = stage.handler().keys[0];
    stage.reactor().connections().abort_of(key);
    stage.rest();
    stage.driver().complete_with_more(send, Err(Fault::Cancelled));
    stage.settle();
    assert!(stage.driver().is_closed(client), "the close does not wait");
    assert_eq!(stage.reactor().connections().len(), 1, "the slot does");
    assert_eq!(buffers_free(&mut stage), 15);
    stage.driver().notify(send, false);
    stage.settle();
    assert_eq!(stage.handler().take_told_of(0).last(), Some(&Told::Close(CloseReason::Aborted)));
    assert!(stage.reactor().connections().is_empty());
    assert_eq!(buffers_free(&mut stage), 16);
}

#[test]
fn a_slot_waits_for_all_notifications_in_whatever_order() {
    let mut stage = stage(&conditions(), echo);
    let client = stage.accept();
    let (first, _) = echo_begins(&mut stage, client, &[1; 200]);
    stage.driver().complete_with_more(first, Ok(200));
    stage.driver().notify(first, false);
    stage.rest();
    let mut sends = Vec::new();
    for filler in 2..5 {
        let (send, zero_copy) = echo_begins(&mut stage, client, &[filler; 200]);
        assert!(zero_copy);
        stage.driver().complete_with_more(send, Ok(200));
        stage.rest();
        sends.push(send);
    }
    stage.reset(client);
    for (left, send) in [(2, sends[2]), (1, sends[0]), (0, sends[1])] {
        stage.driver().notify(send, left == 1);
        stage.settle();
        assert_eq!(stage.reactor().connections().is_empty(), left == 0);
    }
    assert_eq!(buffers_free(&mut stage), 16);
}

#[test]
fn a_short_one_is_resumed_behind_what_was_taken() {
    let mut stage = stage(&conditions(), echo);
    let client = stage.accept();
    let (send, _) = echo_begins(&mut stage, client, &(0..200).collect::<Vec<u8>>());
    stage.driver().complete_with_more(send, Ok(50));
    stage.driver().notify(send, false);
    stage.rest();
    let watch = stage.driver().expect(Op::Watch, client);
    stage.driver().complete(watch, Ok(4));
    stage.settle();
    assert_eq!(stage.sent(client), (0..200).collect::<Vec<u8>>());
}
