//! Deadlines as the reactor keeps them: armed once, checked when they fire, slept towards and no longer.

use std::time::Duration;

use slipring_core::token::{Descriptor, Op};
use slipring_core::{CloseReason, Fault, Poll, Timeout, Timeouts};
use slipring_sim::Conditions;

use crate::support::{Noted, Told, echo, ignore, stage};

fn ms(ms: u64) -> Timeout {
    Timeout::After(Duration::from_millis(ms))
}

fn with(change: impl FnOnce(&mut Timeouts)) -> Conditions {
    let mut conditions = Conditions::default();
    change(&mut conditions.timeouts);
    conditions
}

fn ended(stage: &mut Noted) -> Option<CloseReason> {
    match stage.handler().take_told_of(0).last() {
        Some(Told::Close(reason)) => Some(*reason),
        _ => None,
    }
}

fn block(stage: &mut Noted, client: Descriptor) {
    stage.driver().receive(client, b"bytes to send");
    stage.rest();
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.rest();
}

#[test]
fn a_silent_connection_ends_and_an_active_one_does_not() {
    let mut stage = stage(&with(|t| t.idle = ms(1000)), echo);
    let client = stage.accept();
    let busy = stage.accept();
    for _ in 0..10 {
        stage.pass_ms(99);
        stage.receive(busy, b"x");
    }
    assert_eq!(ended(&mut stage), None);
    // 1000 ms fall on level 2 of the wheel: up to 63 ms late.
    stage.pass_ms(10 + 64);
    assert!(stage.driver().is_closed(client) && !stage.driver().is_abortive(client));
    assert_eq!(ended(&mut stage), Some(CloseReason::IdleTimeout));
    assert!(stage.driver().find(Op::Receive, busy).is_some());
    stage.pass_ms(1000 + 64);
    assert!(stage.driver().is_closed(busy), "its turn comes");
}

/// Found by seed 277890: a timer stands up to an eighth later than it was asked to.
#[test]
fn a_deadline_that_comes_while_a_later_timer_is_late_is_kept() {
    let timeouts = with(|t| (t.idle, t.half_closed) = (ms(33_000), ms(1000)));
    let mut stage = stage(&timeouts, ignore);
    let client = stage.accept();
    stage.pass_ms(20_000);
    stage.receive(client, b"x");
    // The idle deadline of the beginning has passed, and its timer has not fired.
    stage.pass_ms(13_100);
    assert_eq!(ended(&mut stage), None);
    stage.end_of_stream(client);
    stage.pass_ms(1000 + 64);
    assert_eq!(ended(&mut stage), Some(CloseReason::HalfClosedTimeout));
}

#[test]
fn a_long_turn_does_not_put_off_the_deadlines_behind_it() {
    let mut stage = stage(&with(|t| t.idle = ms(1000)), ignore);
    stage.accept();
    let mut sleep_behind_us = |took_us| {
        stage.reactor().turn().expect("the driver does not fail");
        let planned = stage.reactor().plan_wait();
        stage.driver().advance_us(took_us);
        let left = stage.reactor().fall_asleep(planned);
        (planned.sleep_us.expect("a deadline"), left.sleep_us.expect("a deadline"))
    };
    let (planned_us, left_us) = sleep_behind_us(300_000);
    assert_eq!(left_us, planned_us - 300_000);
    let (_, left_us) = sleep_behind_us(900_000);
    assert_eq!(left_us, 1, "it has passed: no time is left, and it waits all the same");
}

#[test]
fn a_reactor_without_work_sleeps_until_its_first_deadline() {
    let mut stage = stage(&with(|t| t.idle = ms(1000)), ignore);
    assert_eq!(stage.turn().sleep_us, None, "nothing to wake for");
    stage.accept();
    let sleep_us = stage.turn().sleep_us.expect("a deadline");
    assert!((1_000_000..1_064_000).contains(&sleep_us), "{sleep_us}");
    for _ in 0..5 {
        // Woken for nothing, it sleeps again.
        stage.driver().advance_us(1000);
        let wait = stage.turn();
        assert!(wait.sleep_us.expect("a deadline") > 900_000 && wait.spin_us == 0);
    }
}

#[test]
fn a_connection_that_is_gone_wakes_nobody() {
    let mut stage = stage(&with(|t| t.idle = ms(1000)), ignore);
    let client = stage.accept();
    stage.reset(client);
    assert_eq!(stage.turn().sleep_us, None);
}

#[test]
fn polling_ends_before_the_next_deadline() {
    let conditions = Conditions { poll: Poll::Always, ..with(|t| t.idle = ms(10)) };
    let mut stage = stage(&conditions, ignore);
    assert_eq!(stage.turn().spin_us, u32::MAX);
    stage.accept();
    let wait = stage.turn();
    assert_eq!(Some(u64::from(wait.spin_us)), wait.sleep_us);
}

#[test]
fn a_connection_is_asked_to_keep_itself_alive_while_it_is_quiet() {
    let mut stage = stage(&with(|t| t.idle = ms(100_000)), |ctx, told, _| {
        if matches!(told, Told::Open(_)) {
            ctx.set_keep_alive(ms(20));
        }
    });
    let client = stage.accept();
    for _ in 0..9 {
        stage.pass_ms(10);
        stage.receive(client, b"x");
    }
    let alive = |stage: &mut Noted| {
        stage.handler().take_told_of(0).iter().filter(|t| **t == Told::KeepAlive).count()
    };
    assert_eq!(alive(&mut stage), 0, "not while something moves");
    stage.pass_ms(100);
    assert_eq!(alive(&mut stage), 5);
}

#[test]
fn a_reader_that_takes_nothing_is_reset() {
    let mut stage = stage(&with(|t| t.write_stall = ms(50)), echo);
    let client = stage.accept();
    block(&mut stage, client);
    stage.pass_ms(49);
    assert_eq!(ended(&mut stage), None);
    stage.pass_ms(2);
    assert_eq!(ended(&mut stage), Some(CloseReason::WriteStall));
    assert!(stage.driver().is_abortive(client));
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_is_not_reset_before_it_stops() {
    let mut stage = stage(&with(|t| t.write_stall = ms(50)), echo);
    let client = stage.accept();
    block(&mut stage, client);
    for acknowledged in 0..20 {
        stage.driver().set_unsent(client, 10_000 - acknowledged);
        stage.pass_ms(20);
    }
    assert_eq!(ended(&mut stage), None, "400 ms of a reader that is slow, but reads");
    stage.pass_ms(50 + 13);
    assert_eq!(ended(&mut stage), Some(CloseReason::WriteStall));
}

#[test]
fn bytes_that_come_do_not_excuse_a_reader_that_takes_none() {
    let mut stage = stage(&with(|t| t.write_stall = ms(50)), echo);
    let client = stage.accept();
    block(&mut stage, client);
    for _ in 0..5 {
        stage.pass_ms(9);
        stage.driver().receive(client, b"x");
    }
    stage.pass_ms(7);
    assert_eq!(ended(&mut stage), Some(CloseReason::WriteStall));
}

/// Found by seed 51811: the watch tells of the reset, which comes with room for bytes that nobody will read.
#[test]
fn a_reset_puts_off_no_timeout() {
    for reads in [false, true] {
        let timeouts = with(|t| t.half_closed = ms(1000));
        let mut stage = stage(&timeouts, |ctx, told, data| {
            if let (Told::Data(_), Some(data)) = (told, data) {
                ctx.send(data);
            }
        });
        let client = stage.accept();
        block(&mut stage, client);
        stage.end_of_stream(client);
        // It ends with the FIN; the next one goes on.
        let watch = stage.driver().expect(Op::Watch, client);
        stage.driver().complete(watch, Ok(0));
        stage.rest();
        let watch = stage.driver().expect(Op::Watch, client);
        stage.driver().complete_with_more(watch, Ok(4));
        stage.settle();
        assert_eq!(stage.sent(client), b"bytes to send");
        stage.pass_ms(900);
        let more = if reads { Ok(4) } else { Err(Fault::BrokenPipe) };
        stage.driver().complete_with_more(watch, more);
        stage.rest();
        stage.pass_ms(100 + 64);
        let expected = (!reads).then_some(CloseReason::HalfClosedTimeout);
        assert_eq!(ended(&mut stage), expected);
    }
}

#[test]
fn half_closed_and_silent_is_not_for_ever() {
    for ours in [true, false] {
        let mut stage = stage(&with(|t| t.half_closed = ms(50)), move |ctx, told, _| {
            if ours && matches!(told, Told::Open(_)) {
                ctx.shutdown();
            }
        });
        let client = stage.accept();
        if !ours {
            stage.end_of_stream(client);
        }
        stage.pass_ms(49);
        assert_eq!(ended(&mut stage), None);
        stage.pass_ms(2);
        assert_eq!(ended(&mut stage), Some(CloseReason::HalfClosedTimeout));
        assert!(stage.driver().is_abortive(client));
    }
}

#[test]
fn a_peer_that_never_closes_is_lingered_for_and_no_longer() {
    let mut stage = stage(&with(|t| t.linger = ms(50)), |ctx, told, _| {
        if matches!(told, Told::Open(_)) {
            ctx.close();
        }
    });
    let client = stage.accept();
    for _ in 0..5 {
        // A trickle extends nothing.
        stage.pass_ms(9);
        stage.receive(client, b"x");
    }
    assert!(!stage.driver().is_closed(client));
    stage.pass_ms(6);
    assert!(stage.driver().is_closed(client));
    assert_eq!(ended(&mut stage), Some(CloseReason::LocalClosed));
}

#[test]
fn a_peer_that_floods_a_closing_connection_is_not_listened_to_for_long() {
    let mut stage = stage(&Conditions::default(), |ctx, told, _| {
        if matches!(told, Told::Open(_)) {
            ctx.close();
        }
    });
    let client = stage.accept();
    for _ in 0..16 {
        stage.receive(client, &[0; 4096]);
    }
    assert!(!stage.driver().is_closed(client), "64 KiB are dropped");
    stage.receive(client, &[0; 1]);
    assert!(stage.driver().is_closed(client));
}

#[test]
fn timeouts_can_be_set_for_one_connection() {
    let mut stage = stage(&Conditions::default(), |ctx, told, _| {
        if matches!(told, Told::Open(_)) {
            ctx.set_idle_timeout(ms(30));
        }
    });
    let client = stage.accept();
    stage.pass_ms(31);
    assert!(stage.driver().is_closed(client));
}

#[test]
fn never_means_never() {
    let never = with(|t| (t.idle, t.half_closed) = (Timeout::Never, Timeout::Never));
    let mut stage = stage(&never, ignore);
    let client = stage.accept();
    assert_eq!(stage.turn().sleep_us, None);
    stage.end_of_stream(client);
    stage.pass_ms(100_000_000);
    assert_eq!(ended(&mut stage), None);
}

#[test]
fn an_idle_end_with_bytes_unsent_is_a_reset() {
    let mut stage = stage(&with(|t| (t.idle, t.write_stall) = (ms(500), ms(60_000))), echo);
    let client = stage.accept();
    block(&mut stage, client);
    stage.pass_ms(1000);
    assert_eq!(ended(&mut stage), Some(CloseReason::IdleTimeout));
    assert!(stage.driver().is_abortive(client), "a FIN would pass the torn stream off as whole");
}

#[test]
fn who_does_not_speak_in_time_is_reset_and_counted() {
    let mut stage = stage(&with(|t| t.first_byte = ms(50)), echo);
    let silent = stage.accept();
    let speaks = stage.accept();
    stage.pass_ms(49);
    stage.receive(speaks, b"x");
    assert_eq!(ended(&mut stage), None);
    stage.pass_ms(2);
    assert_eq!(ended(&mut stage), Some(CloseReason::PhaseTimeout));
    assert!(stage.driver().is_closed(silent) && stage.driver().is_abortive(silent));
    stage.pass_ms(1000);
    assert!(!stage.driver().is_closed(speaks), "it has spoken");
    assert_eq!(stage.counters().phase_timeouts, 1);
}

#[test]
fn a_trickle_does_not_keep_a_phase_alive_which_its_handler_may_end_or_another_ones() {
    let mut stage = stage(&Conditions::default(), |ctx, told, lease| {
        let key = ctx.key();
        match (told, lease.as_deref()) {
            (Told::Open(_), _) => ctx.set_phase_deadline(ms(50)),
            (_, Some(b"done")) => ctx.end_phase(),
            (_, Some(b"again")) => ctx.set_phase_deadline_of(key, ms(50)),
            (_, Some(b"never")) => ctx.set_phase_deadline(Timeout::Never),
            _ => {}
        }
    });
    let (slow, done, again, never) =
        (stage.accept(), stage.accept(), stage.accept(), stage.accept());
    for _ in 0..4 {
        stage.pass_ms(10);
        stage.receive(slow, b"x");
    }
    stage.receive(done, b"done");
    stage.receive(again, b"again");
    stage.receive(never, b"never");
    stage.pass_ms(9);
    assert!(!stage.driver().is_closed(slow));
    stage.pass_ms(2);
    assert!(stage.driver().is_abortive(slow) && !stage.driver().is_closed(again));
    assert_eq!(ended(&mut stage), Some(CloseReason::PhaseTimeout));
    stage.pass_ms(40);
    assert!(stage.driver().is_abortive(again), "40 ms after the first would have ended it");
    stage.pass_ms(1000);
    assert!(!stage.driver().is_closed(done) && !stage.driver().is_closed(never));
    assert_eq!(stage.counters().phase_timeouts, 2);
    let gone = stage.handler().keys[0];
    stage.reactor().connections().set_phase_deadline_of(gone, ms(1));
    stage.reactor().connections().end_phase_of(gone);
    assert!(
        stage.turn().sleep_us.is_some_and(|us| us > 1_000_000),
        "a key of the past does nothing"
    );
}
