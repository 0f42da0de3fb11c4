//! Phases: a deadline that no byte moves, until the phase is over.
//!
//! What can go wrong: a trickle keeps one alive; it ends what speaks in time; it ends what has no phase any more;
//! it outlives the open connection and cuts a flush short; a dial has the one of an accepted connection.

use slipring_core::CloseReason;
use slipring_core::connection::{Input, Rules, State};
use slipring_core::token::Op;

use super::world::{Answer, DIAL_MS, World, rules};
use super::{ALL, DATA, trickle};

fn speaks_within(first_byte_ms: u32) -> World {
    World::new(false, Rules { first_byte_ms, ..rules(true, 0) })
}

fn silence(_: &mut World) {}

#[test]
fn who_does_not_speak_in_time_is_reset_whatever_we_say_to_them() {
    for we_speak in [false, true] {
        let mut world = speaks_within(5_000);
        if we_speak {
            world.wait(2_000);
            world.append(10);
            world.poll();
            world.step(Op::Send, ALL);
        }
        let left_ms = if we_speak { 3_000 } else { 5_000 };
        assert_eq!(world.wait_for_the_end(silence), left_ms);
        assert_eq!(world.finish(), CloseReason::PhaseTimeout);
        assert_eq!(world.abortive, Some(true));
    }
}

#[test]
fn the_first_byte_ends_the_wait_for_it_in_the_very_millisecond_too() {
    for at_ms in [0, 4_999, 5_000] {
        let mut world = speaks_within(5_000);
        // The timer would fire by this: the byte is taken in first, as in a turn of the reactor.
        world.now_ms += at_ms;
        world.step(Op::Receive, DATA);
        assert_eq!(world.wait_for_the_end(silence), 60_000, "its idle timeout, from then on");
        assert_eq!(world.finish(), CloseReason::IdleTimeout);
    }
}

#[test]
fn who_ends_without_a_byte_is_waited_for_no_longer() {
    let mut world = speaks_within(5_000);
    world.step(Op::Receive, Answer::Good { share: 0, more: false });
    assert_eq!(world.wait_for_the_end(silence), 20_000);
    assert_eq!(world.finish(), CloseReason::HalfClosedTimeout);
}

#[test]
fn a_trickle_does_not_extend_a_phase() {
    for first_byte_ms in [0, 500] {
        let mut world = speaks_within(first_byte_ms);
        world.set_phase(7_000);
        world.poll();
        assert_eq!(world.wait_for_the_end(trickle), 7_000);
        assert_eq!(world.finish(), CloseReason::PhaseTimeout);
        assert_eq!(world.abortive, Some(true));
    }
}

#[test]
fn a_phase_ends_when_it_is_said_to_and_is_replaced_by_the_next() {
    let mut world = speaks_within(0);
    world.set_phase(7_000);
    world.poll();
    world.wait(6_999);
    world.end_phase();
    world.wait(10_000);
    world.poll();
    assert_eq!(world.connection.state(), State::Established);
    // A longer one, a shorter one, and none.
    for (phase_ms, left_ms) in [(9_000, 9_000), (3_000, 3_000)] {
        let mut world = speaks_within(0);
        world.set_phase(7_000);
        world.poll();
        world.wait(1_000);
        world.poll();
        world.set_phase(phase_ms);
        world.poll();
        assert_eq!(world.wait_for_the_end(trickle), left_ms);
        assert_eq!(world.finish(), CloseReason::PhaseTimeout);
    }
    world.set_phase(7_000);
    world.set_phase(0);
    world.poll();
    for _ in 0..1_000 {
        world.wait(100);
        world.poll();
        trickle(&mut world);
    }
    assert_eq!(world.connection.state(), State::Established);
}

#[test]
fn a_phase_runs_on_while_the_connection_is_open_in_one_direction() {
    for ours in [true, false] {
        let mut world = speaks_within(0);
        world.set_phase(7_000);
        if ours {
            world.ask(Input::Shutdown);
            world.step(Op::Shutdown, ALL);
        } else {
            world.step(Op::Receive, Answer::Good { share: 0, more: false });
        }
        assert_eq!(world.wait_for_the_end(trickle), 7_000);
        assert_eq!(world.finish(), CloseReason::PhaseTimeout);
    }
}

#[test]
fn a_phase_does_not_cut_an_end_in_order_short() {
    let mut world = speaks_within(0);
    world.set_phase(500);
    world.block(10);
    world.ask(Input::Close(CloseReason::LocalClosed));
    assert_eq!(world.wait_for_the_end(trickle), 9_000);
    assert_eq!(world.finish(), CloseReason::WriteStall);
    // And who lingers has the time for that.
    let mut world = speaks_within(0);
    world.set_phase(500);
    world.ask(Input::Close(CloseReason::LocalClosed));
    world.step(Op::Shutdown, ALL);
    assert_eq!(world.wait_for_the_end(trickle), 1_000);
    assert_eq!(world.finish(), CloseReason::LocalClosed);
}

#[test]
fn a_dial_has_a_phase_only_if_it_is_given_one_which_waits_for_it_to_be_open() {
    for (phase_ms, ends_after_ms, reason) in [
        (0, 60_000, CloseReason::IdleTimeout),
        (1_000, 500, CloseReason::PhaseTimeout),
        (100, 0, CloseReason::PhaseTimeout),
    ] {
        let mut world = World::new(true, Rules { first_byte_ms: 5_000, ..rules(true, 0) });
        world.set_phase(phase_ms);
        world.open_socket(true);
        world.wait(500);
        world.poll();
        assert!(matches!(world.connection.state(), State::Opening { .. }), "its own deadline");
        world.step(Op::Connect, ALL);
        if ends_after_ms == 0 {
            assert_eq!(world.armed_ms.map(|ms| ms <= world.now_ms), Some(true), "fires at once");
            world.expire();
        }
        assert_eq!(world.wait_for_the_end(silence), ends_after_ms);
        assert_eq!(world.finish(), reason);
    }
    let mut world = World::new(true, Rules { first_byte_ms: 50, ..rules(true, 0) });
    world.open_socket(true);
    assert_eq!(world.wait_for_the_end(silence), DIAL_MS);
    assert_eq!(world.finish(), CloseReason::DialTimeout);
}
