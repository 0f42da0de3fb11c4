//! The machine against a model of the kernel: any legal order of completions and wishes.
//!
//! The model (`connection/world.rs`) knows what the kernel holds of the connection (operations, cancels,
//! notifications), where the timer stands, and which bytes were appended; it knows nothing of states. Every
//! action is checked when it comes, everything that must hold at rest whenever nothing is wanted.

#[path = "connection/moving.rs"]
mod moving;
#[path = "connection/phases.rs"]
mod phases;
#[path = "connection/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::sample::Index;
use slipring_core::config::NOTIFICATIONS_MAX;
use slipring_core::connection::{Input, Pause, Rules, State};
use slipring_core::token::Op;
use slipring_core::{CloseReason, Fault};

use world::{Answer, DIAL_MS, START_MS, World, rules};

// ------------------------------------------------------------------------- any order of anything

#[derive(Debug, Clone)]
enum Step {
    Append { bytes: u32 },
    Complete { which: Index, answer: Answer },
    Wait { ms: u64 },
    WaitForTimer { less_ms: u64 },
    TimerEarly,
    Unpark,
    OpenSocket { good: bool },
    Pause { who: Pause, on: bool },
    IdleMs(u32),
    KeepAliveMs(u32),
    PhaseMs(u32),
    EndPhase,
    Ask(Input),
}

const WHO: [Pause; 3] = [Pause::Handler, Pause::Outbox, Pause::Move];

fn answer() -> impl Strategy<Value = Answer> {
    let faults = prop_oneof![
        4 => Just(Fault::Cancelled),
        2 => Just(Fault::NoBuffers),
        2 => Just(Fault::WouldBlock),
        1 => Just(Fault::Memory),
        1 => Just(Fault::Reset),
        1 => Just(Fault::BrokenPipe),
    ];
    prop_oneof![
        10 => (any::<u8>(), any::<bool>()).prop_map(|(share, more)| Answer::Good { share, more }),
        1 => any::<bool>().prop_map(|more| Answer::Good { share: 0, more }),
        2 => faults.prop_map(Answer::Bad),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ask = prop_oneof![
        3 => Just(Input::Shutdown),
        2 => Just(Input::Close(CloseReason::LocalClosed)),
        1 => Just(Input::Abort(CloseReason::Aborted)),
    ];
    prop_oneof![
        12 => prop_oneof![0..20_u32, 0..700_u32].prop_map(|bytes| Step::Append { bytes }),
        30 => (any::<Index>(), answer())
            .prop_map(|(which, answer)| Step::Complete { which, answer }),
        4 => prop_oneof![0..50_u64, 0..15_000_u64].prop_map(|ms| Step::Wait { ms }),
        2 => (0..3_u64).prop_map(|less_ms| Step::WaitForTimer { less_ms }),
        2 => Just(Step::TimerEarly),
        3 => Just(Step::Unpark),
        4 => prop::bool::weighted(0.9).prop_map(|good| Step::OpenSocket { good }),
        4 => (prop::sample::select(&WHO[..]), any::<bool>())
            .prop_map(|(who, on)| Step::Pause { who, on }),
        1 => (1..100_000_u32).prop_map(Step::IdleMs),
        1 => (0..10_000_u32).prop_map(Step::KeepAliveMs),
        1 => (0..20_000_u32).prop_map(Step::PhaseMs),
        1 => Just(Step::EndPhase),
        2 => ask.prop_map(Step::Ask),
    ]
}

fn take(world: &mut World, step: &Step) {
    match *step {
        Step::Append { bytes } => world.append(bytes),
        Step::Complete { which, answer } => {
            let held = world.held();
            if !held.is_empty() {
                world.complete(*which.get(&held), answer);
            }
        }
        Step::Wait { ms } => world.wait(ms),
        Step::WaitForTimer { less_ms } => {
            let until_ms = world.armed_ms.map_or(0, |ms| ms.saturating_sub(less_ms));
            world.wait(until_ms.saturating_sub(world.now_ms));
        }
        Step::TimerEarly => world.expire(),
        Step::Unpark => {
            if std::mem::take(&mut world.parked) {
                world.handle(Input::Unparked);
            }
        }
        Step::OpenSocket { good } => world.open_socket(good),
        Step::Pause { who, on } => {
            if on {
                world.paused.insert(who as u8);
                world.connection.pause(who);
            } else {
                world.paused.remove(&(who as u8));
                world.connection.resume(who);
            }
        }
        Step::IdleMs(ms) => world.connection.set_idle_ms(ms),
        Step::KeepAliveMs(ms) => world.connection.set_keep_alive_ms(ms),
        Step::PhaseMs(ms) => world.set_phase(ms),
        Step::EndPhase => world.end_phase(),
        Step::Ask(input) => {
            world.handle(input);
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// `polled`: whether the reactor gets round to the connection after the step, or only later.
    #[test]
    fn whatever_happens_the_kernel_is_asked_in_order_and_everything_comes_back(
        dialed in any::<bool>(),
        receive_cap in any::<bool>(),
        zero_copy in any::<bool>(),
        first_byte in any::<bool>(),
        steps in prop::collection::vec((step(), prop::bool::weighted(0.7)), 1..150),
    ) {
        let rules = rules(receive_cap, if zero_copy { 64 } else { 0 });
        let first_byte_ms = if first_byte { 700 } else { 0 };
        let mut world = World::new(dialed, Rules { first_byte_ms, ..rules });
        for (step, polled) in &steps {
            take(&mut world, step);
            if *polled {
                world.poll();
            }
            if world.freed.is_some() {
                break;
            }
        }
        if world.freed.is_none() {
            world.finish();
        }
    }
}

// ------------------------------------------------------------------------------ one thing at a time

const ALL: Answer = Answer::Good { share: u8::MAX, more: false };
const DATA: Answer = Answer::Good { share: 1, more: true };

/// A peer that sends a little, as long as anybody listens.
fn trickle(world: &mut World) {
    if world.flights.contains(&Op::Receive) {
        world.step(Op::Receive, DATA);
    }
}

#[test]
fn a_trickle_neither_extends_nor_shortens_the_wait_for_the_fin() {
    for peer in [trickle as fn(&mut World), |_| {}] {
        let mut world = World::new(false, rules(true, 0));
        world.wait(7_000);
        world.ask(Input::Close(CloseReason::LocalClosed));
        world.wait(500);
        world.step(Op::Shutdown, ALL);
        assert_eq!(world.wait_for_the_end(peer), 1_000, "from our FIN on");
        assert_eq!(world.finish(), CloseReason::LocalClosed);
    }
}

#[test]
fn a_trickle_does_not_extend_the_flush() {
    let mut world = World::new(false, rules(true, 0));
    world.block(10);
    world.ask(Input::Close(CloseReason::LocalClosed));
    assert_eq!(world.wait_for_the_end(trickle), 9_000);
    assert_eq!(world.finish(), CloseReason::WriteStall);
}

#[test]
fn a_trickle_extends_the_idle_timeout_and_not_the_stall() {
    let mut world = World::new(false, rules(true, 0));
    for _ in 0..1_000 {
        world.wait(59_000);
        world.poll();
        world.step(Op::Receive, DATA);
    }
    assert_eq!(world.connection.state(), State::Established);
    world.block(10);
    assert_eq!(world.wait_for_the_end(trickle), 9_000);
    assert_eq!(world.finish(), CloseReason::WriteStall);
}

#[test]
fn nothing_stalls_where_nothing_waits_however_long_ago_the_last_bytes_were_taken() {
    for (asked, reason, after_ms) in [
        (None, CloseReason::IdleTimeout, 60_000),
        (Some(Input::Shutdown), CloseReason::HalfClosedTimeout, 20_000),
    ] {
        let mut world = World::new(false, rules(true, 0));
        world.append(10);
        world.poll();
        world.step(Op::Send, ALL);
        if let Some(input) = asked {
            world.ask(input);
            world.step(Op::Shutdown, ALL);
        }
        assert_eq!(world.wait_for_the_end(|_| {}), after_ms, "longer than a stall may take");
        assert_eq!(world.finish(), reason);
    }
}

#[test]
fn a_dial_ends_at_its_deadline() {
    for has_socket in [false, true] {
        let mut world = World::new(true, rules(true, 0));
        world.append(10);
        if has_socket {
            world.open_socket(true);
        }
        world.expire();
        assert_eq!(world.armed_ms, None);
        world.poll();
        assert_eq!(world.armed_ms, Some(START_MS + DIAL_MS), "armed again");
        assert_eq!(world.wait_for_the_end(|_| {}), DIAL_MS);
        assert_eq!(world.finish(), CloseReason::DialTimeout);
    }
}

#[test]
fn what_waits_for_a_dial_that_fails_is_released() {
    for socket in [false, true] {
        let mut world = World::new(true, rules(true, 0));
        world.append(10);
        world.append(20);
        world.open_socket(socket);
        if socket {
            world.step(Op::Connect, Answer::Bad(Fault::Refused));
        }
        assert_eq!(world.released, 2);
        assert!(matches!(world.finish(), CloseReason::DialFailed(_)));
    }
}

#[test]
fn closing_a_dial_says_whether_bytes_were_lost() {
    for (bytes, reason) in [(0, CloseReason::LocalClosed), (1, CloseReason::Aborted)] {
        let mut world = World::new(true, rules(true, 0));
        world.append(bytes);
        world.ask(Input::Close(CloseReason::LocalClosed));
        assert_eq!(world.freed, Some(reason), "nothing to wait for");
    }
}

#[test]
fn after_our_fin_so_much_is_read_and_no_more() {
    let mut world = World::new(false, rules(true, 0));
    world.ask(Input::Close(CloseReason::LocalClosed));
    world.step(Op::Shutdown, ALL);
    let mut bytes = 0;
    while matches!(world.connection.state(), State::Draining { .. }) {
        world.step(Op::Receive, DATA);
        bytes += 100;
    }
    assert!((64 << 10..(64 << 10) + 200).contains(&bytes), "{bytes}");
    assert_eq!(world.finish(), CloseReason::LocalClosed);
}

#[test]
fn what_is_being_sent_stays_until_the_kernel_is_done_with_it() {
    let mut world = World::new(false, rules(true, 64));
    world.append(100);
    world.poll();
    world.append(100);
    world.ask(Input::Abort(CloseReason::Aborted));
    assert_eq!(world.released, 0, "the kernel reads it");
    world.step(Op::Send, Answer::Good { share: u8::MAX, more: true });
    assert_eq!((world.released, world.notifications), (2, 1));
    world.step(Op::Receive, Answer::Bad(Fault::Cancelled));
    assert!(!world.flights.contains(&Op::Close), "the cancel is not answered");
    world.step(Op::Cancel, ALL);
    world.step(Op::Close, ALL);
    assert_eq!(world.freed, None, "the notification is due");
    world.step(Op::Wake, ALL);
    assert_eq!(world.freed, Some(CloseReason::Aborted));
}

#[test]
fn beyond_so_many_notifications_sends_copy() {
    let mut world = World::new(false, rules(true, 64));
    let all = Answer::Good { share: u8::MAX, more: true };
    let send = |world: &mut World| {
        world.append(64);
        world.poll();
        let zero_copy = world.sending.as_ref().expect("in flight").zero_copy;
        world.step(Op::Send, all);
        zero_copy
    };
    assert!(send(&mut world), "the first one asks");
    assert!(!send(&mut world), "no second before the answer");
    world.step(Op::Wake, ALL);
    for _ in 0..NOTIFICATIONS_MAX {
        assert!(send(&mut world));
    }
    assert!(!send(&mut world), "too many");
    world.step(Op::Wake, ALL);
    assert!(send(&mut world));
    world.step(Op::Wake, Answer::Bad(Fault::Cancelled));
    assert!(!send(&mut world), "the kernel copies all the same");
    world.finish();
}

#[test]
fn so_many_pieces_are_high_and_half_of_them_low() {
    let mut world = World::new(false, rules(true, 0));
    let pieces = world.rules.high_pieces;
    for number in 1..=pieces {
        world.append(1);
        assert_eq!(world.connection.is_high(), number == pieces, "{number} pieces");
    }
    world.poll();
    for left in (0..pieces).rev() {
        // The least that counts as sent is a byte, and each piece has one.
        world.complete(Op::Send, Answer::Good { share: 1, more: false });
        assert_eq!(world.connection.outbox.pieces(), left);
        assert_eq!(world.connection.is_high(), left > pieces / 2, "{left} pieces left");
        world.poll();
        if left > 0 {
            world.step(Op::Watch, ALL);
        }
    }
}

#[test]
fn a_send_that_may_not_keep_its_buffers_is_an_ordinary_one() {
    let mut world = World::new(false, rules(true, 64));
    world.may_keep = false;
    world.append(100);
    world.poll();
    assert!(!world.sending.as_ref().expect("in flight").zero_copy);
    world.step(Op::Send, Answer::Good { share: u8::MAX, more: false });
    world.may_keep = true;
    world.append(100);
    world.poll();
    assert!(world.sending.as_ref().expect("in flight").zero_copy, "the next may");
    let mut world = World::new(false, rules(true, 64));
    world.may_keep = false;
    world.append(100);
    world.poll();
    world.step(Op::Send, Answer::Bad(Fault::Memory));
    assert!(matches!(world.connection.state(), State::Closing { .. }), "no copy was avoided");
}

#[test]
fn only_a_send_without_a_copy_is_tried_again_for_want_of_memory() {
    // (from how many bytes on the copy is avoided, the failure, whether it goes on)
    for (zero_copy_min, fault, goes_on) in [
        (64, Fault::NoBuffers, true),
        (64, Fault::Memory, true),
        (64, Fault::Reset, false),
        (0, Fault::NoBuffers, false),
        (0, Fault::Memory, false),
        (0, Fault::Cancelled, true),
    ] {
        let mut world = World::new(false, rules(true, zero_copy_min));
        world.append(100);
        world.poll();
        assert_eq!(world.sending.as_ref().expect("in flight").zero_copy, zero_copy_min > 0);
        world.step(Op::Send, Answer::Bad(fault));
        let again = world.flights.contains(&Op::Send);
        assert_eq!(again, goes_on, "{fault:?}, copy avoided: {}", zero_copy_min > 0);
        assert_eq!(world.connection.state() == State::Established, goes_on, "{fault:?}");
        if let Some(sending) = &world.sending {
            assert!(!sending.zero_copy, "the second time with a copy");
        }
    }
}

#[test]
fn a_peer_that_resets_instead_of_waiting_for_our_fin_has_missed_nothing_once_all_is_sent() {
    for (bytes, reason) in [(0, CloseReason::LocalClosed), (1, CloseReason::Reset)] {
        let mut world = World::new(false, rules(true, 0));
        world.append(bytes);
        world.ask(Input::Close(CloseReason::LocalClosed));
        world.step(Op::Receive, Answer::Bad(Fault::Reset));
        assert!(matches!(world.connection.state(), State::Closing { .. }));
        assert_eq!(world.finish(), reason, "{bytes} bytes waiting");
    }
}

#[test]
fn what_is_dropped_unsent_makes_the_close_a_reset() {
    // A reason that is none for a reset by itself.
    let quiet = CloseReason::IdleTimeout;
    let blocked = Answer::Bad(Fault::WouldBlock);
    let part = Answer::Good { share: 100, more: false };
    // (why it ends, bytes appended, what becomes of their send before and after that, the close)
    for (reason, bytes, before, after, resets) in [
        (quiet, 0, None, None, false),
        (CloseReason::Aborted, 0, None, None, true),
        (quiet, 10, Some(ALL), None, false),
        (quiet, 10, Some(blocked), None, true),
        (quiet, 10, Some(part), None, true),
        (quiet, 10, None, Some(ALL), false),
        (quiet, 10, None, Some(part), true),
        (quiet, 10, None, Some(Answer::Bad(Fault::Cancelled)), true),
    ] {
        let mut world = World::new(false, rules(true, 0));
        world.append(bytes);
        world.poll();
        if let Some(answer) = before {
            world.step(Op::Send, answer);
        }
        world.ask(Input::Abort(reason));
        if let Some(answer) = after {
            world.step(Op::Send, answer);
        }
        assert_eq!(world.finish(), reason);
        let case = format!("{reason:?}, {bytes} bytes, {before:?}, {after:?}");
        assert_eq!(world.abortive, Some(resets), "{case}");
    }
}

#[test]
fn it_is_not_closing_before_the_kernel_has_answered_for_our_fin() {
    let mut world = World::new(false, rules(true, 0));
    world.ask(Input::Shutdown);
    // The peer's FIN, while ours is with the kernel.
    world.step(Op::Receive, Answer::Good { share: 0, more: false });
    assert!(world.flights.contains(&Op::Shutdown));
    assert!(matches!(world.connection.state(), State::Draining { peer_done: true, .. }));
    world.ask(Input::Abort(CloseReason::Aborted));
    world.step(Op::Shutdown, ALL);
    world.step(Op::Close, ALL);
    assert_eq!(world.freed, Some(CloseReason::Aborted), "it could still be aborted");
}

#[test]
fn a_full_socket_with_bytes_waiting_is_unwatched_until_the_watch_is_asked_for() {
    let mut world = World::new(false, rules(true, 0));
    assert!(!world.connection.is_unwatched(), "no bytes wait");
    world.append(10);
    assert!(!world.connection.is_unwatched(), "the socket is not full");
    world.poll();
    world.complete(Op::Send, Answer::Bad(Fault::WouldBlock));
    assert!(world.connection.is_unwatched());
    world.poll();
    assert!(!world.connection.is_unwatched(), "the watch tells");
    world.complete(Op::Watch, ALL);
    assert!(!world.connection.is_unwatched(), "it has told");
    world.poll();
    world.complete(Op::Send, Answer::Bad(Fault::WouldBlock));
    world.handle(Input::Abort(CloseReason::Aborted));
    assert!(!world.connection.is_unwatched(), "it sends no more");
}

/// What a message costs hangs on it: a settled connection is not polled.
#[test]
fn an_open_connection_that_waits_for_the_kernel_only_is_settled() {
    let mut world = World::new(false, rules(true, 0));
    assert!(world.connection.is_settled(), "it reads, and has nothing to send");
    world.append(10);
    assert!(!world.connection.is_settled(), "bytes wait");
    world.poll();
    assert!(world.connection.is_settled(), "they are being sent");
    world.step(Op::Send, Answer::Bad(Fault::WouldBlock));
    assert!(world.connection.is_settled(), "they are being watched for");
    world.connection.pause(Pause::Handler);
    assert!(!world.connection.is_settled(), "the reading is to stop");
    world.connection.resume(Pause::Handler);
    world.connection.set_idle_ms(1_000);
    assert!(!world.connection.is_settled(), "the timer is to be moved");
    world.poll();
    assert!(world.connection.is_settled());
    world.complete(Op::Receive, Answer::Good { share: 1, more: false });
    assert!(!world.connection.is_settled(), "nobody reads");
    world.poll();
    world.ask(Input::Shutdown);
    assert!(!world.connection.is_settled(), "it is not open in both directions");
}

const NO_ROOM: Answer = Answer::Good { share: 0, more: true };
const ROOM: Answer = Answer::Good { share: 1, more: true };

/// Found by comparing with a kernel: a poll tells of the peer's FIN unasked, and as often as it is armed.
#[test]
fn a_watch_that_the_peers_fin_ends_is_followed_by_one_that_goes_on() {
    let mut world = World::new(false, rules(true, 0));
    world.block(1000);
    assert!(world.flights.contains(&Op::Watch), "it watches");
    world.step(Op::Watch, NO_ROOM);
    assert!(world.flights.contains(&Op::Watch), "it watches on");
    assert!(world.watches_on && world.connection.is_blocked());
    world.step(Op::Watch, NO_ROOM);
    assert_eq!(world.held(), [Op::Receive, Op::Watch], "told of the FIN again, and does nothing");
    world.step(Op::Watch, ROOM);
    assert_eq!(world.held(), [Op::Receive, Op::Send, Op::Watch], "sends, and the watch goes on");
    // Of a change that a short send makes nobody would be told: it is followed by one that asks for it.
    world.step(Op::Send, Answer::Good { share: 100, more: false });
    assert!(world.connection.is_sending() && !world.connection.is_blocked());
    world.step(Op::Send, Answer::Bad(Fault::WouldBlock));
    assert!(world.connection.is_blocked() && !world.connection.is_unwatched());
    assert_eq!(world.held(), [Op::Receive, Op::Watch], "no second watch");
    // It ends by itself: another takes its place.
    world.step(Op::Watch, Answer::Good { share: 0, more: false });
    assert_eq!(world.held(), [Op::Receive, Op::Watch]);
}

#[test]
fn room_that_is_told_of_before_the_send_says_that_there_is_none_is_not_forgotten() {
    let mut world = World::new(false, rules(true, 0));
    world.block(1000);
    world.step(Op::Watch, NO_ROOM);
    world.step(Op::Watch, ROOM);
    world.step(Op::Watch, ROOM);
    world.step(Op::Send, Answer::Bad(Fault::WouldBlock));
    assert!(world.connection.is_sending(), "it tries again");
    world.step(Op::Send, Answer::Bad(Fault::WouldBlock));
    assert!(!world.connection.is_sending(), "told of once, tried once");
    world.step(Op::Watch, ROOM);
    world.step(Op::Watch, ROOM);
    world.step(Op::Send, ALL);
    world.block(1000);
    assert!(!world.connection.is_sending(), "a send that went is what the word was about");
    world.step(Op::Watch, ROOM);
    assert!(world.connection.is_sending());
    world.step(Op::Send, Answer::Bad(Fault::WouldBlock));
    assert!(!world.connection.is_sending(), "the word made it send: it was about nothing later");
}

#[test]
fn a_peer_that_is_lost_is_an_end() {
    for fault in [Fault::TimedOut, Fault::Unreachable] {
        let mut world = World::new(false, rules(true, 0));
        world.step(Op::Receive, Answer::Bad(fault));
        assert!(matches!(world.connection.state(), State::Closing { .. }), "{fault:?}");
        assert_eq!(world.finish(), CloseReason::Transport(fault));
    }
}

#[test]
fn an_end_in_order_does_not_wait_for_a_watch_that_goes_on() {
    let mut world = World::new(false, rules(true, 0));
    world.block(1000);
    world.step(Op::Watch, NO_ROOM);
    world.step(Op::Receive, Answer::Good { share: 0, more: false });
    world.ask(Input::Close(CloseReason::LocalClosed));
    world.step(Op::Watch, ROOM);
    world.step(Op::Send, ALL);
    assert_eq!(world.held(), [Op::Watch, Op::Cancel], "it is cancelled");
    world.step(Op::Cancel, ALL);
    world.step(Op::Watch, Answer::Bad(Fault::Cancelled));
    world.step(Op::Close, ALL);
    assert_eq!(world.freed, Some(CloseReason::PeerClosed));
}

/// Found by comparing with a kernel: it says of what never went that it was copied.
#[test]
fn what_the_notification_of_a_refused_send_says_does_not_end_zero_copy() {
    let mut world = World::new(false, rules(true, 64));
    let copied = Answer::Bad(Fault::Cancelled);
    world.block(1000);
    world.step(Op::Wake, copied);
    world.step(Op::Watch, ALL);
    assert!(world.sending.as_ref().expect("in flight").zero_copy, "it asks again whether it pays");
    world.step(Op::Send, Answer::Good { share: u8::MAX, more: true });
    world.step(Op::Wake, copied);
    world.append(1000);
    world.poll();
    assert!(!world.sending.as_ref().expect("in flight").zero_copy, "it does not");
}
