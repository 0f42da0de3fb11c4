//! What CQEs mean, entry by entry: whose a buffer is, and until when a zero-copy send's memory is the kernel's.

use std::rc::Rc;

use slipring_core::driver::Completion;
use slipring_core::sys::memory::Memory;
use slipring_core::sys::{Cqe, Intake};
use slipring_core::token::{Op, Token};
use slipring_core::{Fault, Key};

const BUFFERS: u32 = 4;
const F_BUFFER: u32 = 1;
const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;
const BUFFER_SHIFT: u32 = 16;
const COPIED: i32 = i32::MIN;

struct World {
    memory: Rc<Memory>,
    intake: Intake,
}

impl World {
    fn new() -> Self {
        let memory = Memory::new(BUFFERS, 64, 0);
        Self { intake: Intake::new(Rc::clone(&memory)), memory }
    }

    fn take(&mut self, token: Token, result: i32, flags: u32) -> Completion {
        let cqe = Cqe { user_data: token.to_bits(), result, flags };
        self.intake.translate(cqe).expect("a token of ours")
    }

    /// A zero-copy send of a buffer of its own is pushed. Whoever sends keeps its reference until the result:
    /// that is over here already, so that only the intake's counts.
    fn send(&mut self, activation: u8) -> Token {
        let number = self.memory.take_returned().expect("a buffer");
        let span = self.memory.claim(number, 64);
        let token = send(activation);
        self.intake.hold(token, &[span.segment()]);
        self.memory.release(span);
        token
    }

    #[track_caller]
    fn assert_held(&self, sends: u32) {
        assert_eq!(self.intake.held(), sends as usize);
        assert_eq!(self.memory.buffers_free(), BUFFERS - sends);
    }
}

fn send(activation: u8) -> Token {
    Token::new(Op::Send, Key::new(3, 7), activation)
}

fn receive() -> Token {
    Token::new(Op::Receive, Key::new(3, 7), 1)
}

#[test]
fn a_buffer_is_ours_when_the_flags_say_so_whatever_the_result() {
    for (result, brings) in [(5, true), (0, false), (-libc::ECONNRESET, false)] {
        let mut world = World::new();
        let number = world.memory.take_returned().expect("a buffer");
        world.memory.fill(number, 0, b"bytes");
        let flags = F_BUFFER | u32::from(number) << BUFFER_SHIFT;
        let completion = world.take(receive(), result, flags);
        assert_eq!(completion.span.is_some(), brings);
        if let Some(span) = completion.span {
            assert_eq!(*world.memory.lease(span), *b"bytes");
        }
        assert_eq!(world.memory.buffers_free(), BUFFERS, "{result}");
    }
}

#[test]
fn want_of_buffers_is_noted_of_receives_only() {
    let mut world = World::new();
    let completion = world.take(send(1), -libc::ENOBUFS, 0);
    assert_eq!(completion.result, Err(Fault::NoBuffers));
    assert!(!world.intake.take_starved(), "it is pinned memory that was missing");
    world.take(receive(), -libc::ENOBUFS, 0);
    assert!(world.intake.take_starved() && !world.intake.take_starved());
}

#[test]
fn what_names_no_operation_is_counted_and_brings_nothing() {
    let mut world = World::new();
    let cqe = Cqe { user_data: u64::MAX, result: 0, flags: 0 };
    assert!(world.intake.translate(cqe).is_none());
    assert_eq!(world.intake.foreign(), 1);
    // A driver's own question, answered too late.
    let cqe = Cqe { user_data: 0xf << 60 | 7, result: 0, flags: 0 };
    assert!(world.intake.translate(cqe).is_none());
    assert_eq!(world.intake.foreign(), 1);
}

#[test]
fn a_zero_copy_send_is_held_until_its_notification() {
    for (result, copied) in [(0, false), (COPIED, true)] {
        let mut world = World::new();
        let token = world.send(1);
        let completion = world.take(token, 64, F_MORE);
        assert_eq!((completion.result, completion.more), (Ok(64), true));
        world.assert_held(1);
        let completion = world.take(token, result, F_NOTIF);
        assert!(completion.notification && !completion.more);
        assert_eq!((completion.result, completion.hint), (Ok(0), copied), "no errno");
        world.assert_held(0);
    }
}

/// As when the kernel has no memory for the notification itself.
#[test]
fn a_zero_copy_send_that_fails_without_more_to_come_is_let_go_of() {
    let mut world = World::new();
    let token = world.send(1);
    world.take(token, -libc::ENOMEM, 0);
    world.assert_held(0);
}

#[test]
fn a_zero_copy_send_that_fails_with_more_to_come_is_held_until_its_notification() {
    let mut world = World::new();
    let token = world.send(1);
    world.take(token, -libc::EAGAIN, F_MORE);
    world.assert_held(1);
    world.take(token, 0, F_NOTIF);
    world.assert_held(0);
}

#[test]
fn notifications_come_in_any_order() {
    let mut world = World::new();
    let tokens = [1, 2, 3].map(|activation| {
        let token = world.send(activation);
        world.take(token, 64, F_MORE);
        token
    });
    for (left, token) in [(2, tokens[1]), (1, tokens[2]), (0, tokens[0])] {
        world.take(token, 0, F_NOTIF);
        world.assert_held(left);
    }
}

/// 256 sends later the token is the same. Which of the two a notification is of, nothing tells.
#[test]
fn two_sends_with_one_token_are_held_until_both_were_notified_of() {
    let mut world = World::new();
    for _ in 0..2 {
        let token = world.send(9);
        world.take(token, 64, F_MORE);
    }
    world.take(send(9), 0, F_NOTIF);
    world.assert_held(2);
    world.take(send(9), 0, F_NOTIF);
    world.assert_held(0);
}

#[test]
fn a_notification_is_never_of_a_send_without_a_result() {
    let mut world = World::new();
    let token = world.send(9);
    world.take(token, 64, F_MORE);
    world.send(9);
    world.take(token, 0, F_NOTIF);
    world.assert_held(1);
    world.take(token, 64, F_MORE);
    world.assert_held(1);
    world.take(token, 0, F_NOTIF);
    world.assert_held(0);
}

#[test]
fn a_third_with_the_token_holds_no_more_than_what_may_be_its_own() {
    let mut world = World::new();
    for _ in 0..2 {
        let token = world.send(9);
        world.take(token, 64, F_MORE);
    }
    world.take(send(9), 0, F_NOTIF);
    // It fails at once: nothing can be told of the other two by that.
    world.send(9);
    world.take(send(9), -libc::ENOMEM, 0);
    world.assert_held(2);
    world.take(send(9), 0, F_NOTIF);
    world.assert_held(0);
}

/// Plain sends of the connection count along, and are not held.
#[test]
fn the_result_of_a_plain_send_with_the_token_lets_nothing_go() {
    let mut world = World::new();
    let token = world.send(9);
    world.take(token, 64, F_MORE);
    world.take(send(9), 5, 0);
    world.assert_held(1);
    world.take(token, 0, F_NOTIF);
    world.assert_held(0);
}

/// poll(2)'s bits: POLLOUT 4, POLLERR 8, POLLHUP 16, POLLRDHUP 0x2000.
#[test]
fn a_watch_tells_room_from_a_broken_socket() {
    let mut world = World::new();
    let watch = Token::new(Op::Watch, Key::new(3, 7), 1);
    let mut take = |mask| {
        let told = world.take(watch, mask, F_MORE);
        (told.hint, told.result.err())
    };
    assert_eq!(take(0x4), (true, None));
    assert_eq!(take(0x2000), (false, None), "the peer's FIN says nothing of room");
    assert_eq!(take(0x2014), (true, None), "both have ended: nothing is to be waited for");
    assert_eq!(take(0x201d), (true, Some(Fault::BrokenPipe)));
    // The same bits in another operation's result are a number of bytes.
    let told = world.take(send(1), 0x1d, 0);
    assert_eq!((told.hint, told.result), (false, Ok(0x1d)));
}
