//! A scripted driver holds both sides to the contract: each breach is a panic that names it.

use std::collections::VecDeque;

use slipring_core::driver::{Abilities, Driver, Share, Submission, Wait};
use slipring_core::span::Span;
use slipring_core::token::{Descriptor, Key, Op, Token};
use slipring_core::{Fault, Limits};
use slipring_sim::{Scripted, Submitted};

fn driver() -> Scripted {
    let limits = Limits { buffers: 2, buffer_bytes: 64, submissions: 16, ..Limits::default() };
    Scripted::new(&limits, Abilities { receive_cap: true, zero_copy: true })
}

fn token(op: Op, activation: u8) -> Token {
    Token::new(op, Key::new(7, 1), activation)
}

fn push(driver: &mut Scripted, op: Op, activation: u8, submission: Submission<'_>) {
    driver.push(token(op, activation), submission, Share::Management).expect("room");
}

fn enter(driver: &mut Scripted) {
    driver.enter(Wait::NOT).expect("no failure was asked for");
}

fn reap(driver: &mut Scripted) -> VecDeque<slipring_core::driver::Completion> {
    let mut completions = Vec::new();
    driver.reap(&mut completions, 100);
    completions.into()
}

fn span(driver: &Scripted) -> Span {
    driver.memory().adopt(b"owned".to_vec()).expect("room")
}

fn push_send(
    driver: &mut Scripted,
    activation: u8,
    descriptor: Descriptor,
    span: &Span,
    zero_copy: bool,
) {
    let segments = &[span.segment()];
    push(driver, Op::Send, activation, Submission::Send { descriptor, segments, zero_copy });
}

// --------------------------------------------------------------------------- what it does when all is well

#[test]
fn an_operation_goes_from_the_queue_to_the_kernel_and_back() {
    let mut driver = driver();
    let client = driver.descriptor();
    push(&mut driver, Op::Receive, 1, Submission::Receive { descriptor: client, cap: 0 });
    assert_eq!(driver.in_flight().count(), 0, "a push does not reach the kernel");
    enter(&mut driver);
    assert_eq!(driver.expect(Op::Receive, client), token(Op::Receive, 1));
    driver.receive(client, b"hello");
    let mut completions = reap(&mut driver);
    let completion = completions.pop_front().expect("one completion");
    assert!(completion.more && completion.result == Ok(5));
    let lease = driver.memory().lease(completion.span.expect("bytes"));
    assert_eq!(&*lease, b"hello");
    drop(lease);
    assert_eq!((driver.published(), driver.recycle(), driver.published()), (1, 1, 2));
    assert_eq!(driver.take_log(), [Submitted::Receive { descriptor: client, cap: 0 }]);
}

#[test]
fn the_management_share_is_kept_from_data() {
    let mut driver = driver();
    let client = driver.descriptor();
    driver.set_queue(3, 1);
    assert_eq!((driver.room(Share::Data), driver.room(Share::Management)), (2, 3));
    for activation in 0..2 {
        let watch = Submission::WatchWritable { descriptor: client, many: false };
        driver.push(token(Op::Watch, activation), watch, Share::Data).expect("room");
    }
    let watch = Submission::WatchWritable { descriptor: client, many: false };
    driver.push(token(Op::Watch, 9), watch, Share::Data).expect_err("no room for data");
    push(&mut driver, Op::Close, 1, Submission::ShutdownWrite(client));
    assert_eq!(driver.room(Share::Management), 0);
    driver.set_stuck(true);
    enter(&mut driver);
    assert_eq!(driver.room(Share::Management), 0, "nothing was taken");
    driver.set_stuck(false);
    enter(&mut driver);
    assert_eq!(driver.room(Share::Management), 3);
}

#[test]
fn a_ring_before_the_watch_is_not_lost_and_several_are_one() {
    let mut driver = driver();
    driver.ring();
    driver.ring();
    driver.push_wake(token(Op::Wake, 0)).expect("room");
    enter(&mut driver);
    assert_eq!(reap(&mut driver).len(), 1);
    driver.clear_wake();
    driver.push_wake(token(Op::Wake, 0)).expect("room");
    enter(&mut driver);
    assert_eq!((reap(&mut driver).len(), driver.rings()), (0, 2));
}

#[test]
fn an_obliging_kernel_ends_what_can_end_at_once() {
    let mut driver = driver();
    let client = driver.descriptor();
    let bytes = span(&driver);
    push(&mut driver, Op::Receive, 1, Submission::Receive { descriptor: client, cap: 0 });
    push_send(&mut driver, 1, client, &bytes, true);
    push(&mut driver, Op::Cancel, 1, Submission::Cancel(token(Op::Receive, 1)));
    enter(&mut driver);
    assert_eq!(driver.oblige(), 2);
    let completions = reap(&mut driver);
    let results: Vec<_> = completions.iter().map(|c| (c.token.decode().0, c.result)).collect();
    let expected = [
        (Op::Send, Ok(5)),
        (Op::Send, Ok(0)),
        (Op::Receive, Err(Fault::Cancelled)),
        (Op::Cancel, Ok(0)),
    ];
    assert_eq!(results, expected);
    assert_eq!((driver.take_sent(client), driver.held()), (b"owned".to_vec(), 0));
    driver.memory().release(bytes);
}

#[test]
fn failures_come_when_asked_for() {
    let mut driver = driver();
    driver.fail_open_socket(Fault::DescriptorsOfProcess);
    let address = ([192, 0, 2, 1], 80).into();
    assert_eq!(driver.open_socket(&address, None), Err(Fault::DescriptorsOfProcess));
    let socket = driver.open_socket(&address, None).expect("a descriptor");
    assert!(driver.sockets().peer(socket).is_ok());
    driver.fail_enter("gone");
    driver.enter(Wait::NOT).expect_err("asked for");
    enter(&mut driver);
}

// ------------------------------------------------------------------------------- what a reactor must not do

#[test]
#[should_panic(expected = "two sends in flight")]
fn two_sends_in_flight() {
    let mut driver = driver();
    let client = driver.descriptor();
    let bytes = span(&driver);
    push_send(&mut driver, 1, client, &bytes, false);
    push_send(&mut driver, 2, client, &bytes, false);
}

#[test]
#[should_panic(expected = "after its FIN")]
fn a_send_after_the_fin() {
    let mut driver = driver();
    let client = driver.descriptor();
    let bytes = span(&driver);
    push(&mut driver, Op::Shutdown, 1, Submission::ShutdownWrite(client));
    push_send(&mut driver, 1, client, &bytes, false);
}

#[test]
#[should_panic(expected = "beside a send in flight")]
fn a_fin_that_overtakes_a_send() {
    let mut driver = driver();
    let client = driver.descriptor();
    let bytes = span(&driver);
    push_send(&mut driver, 1, client, &bytes, false);
    push(&mut driver, Op::Shutdown, 1, Submission::ShutdownWrite(client));
}

#[test]
#[should_panic(expected = "a close of Descriptor(10) beside")]
fn a_close_of_a_descriptor_in_use() {
    let mut driver = driver();
    let client = driver.descriptor();
    push(&mut driver, Op::Receive, 1, Submission::Receive { descriptor: client, cap: 0 });
    enter(&mut driver);
    let receive = driver.expect(Op::Receive, client);
    driver.complete(receive, Ok(0));
    // Ended, but the reactor cannot know that yet.
    push(&mut driver, Op::Close, 1, Submission::Close(client));
}

#[test]
#[should_panic(expected = "which is closed")]
fn an_operation_on_a_closed_descriptor() {
    let mut driver = driver();
    let client = driver.descriptor();
    push(&mut driver, Op::Close, 1, Submission::Close(client));
    push(&mut driver, Op::Watch, 1, Submission::WatchWritable { descriptor: client, many: false });
}

#[test]
#[should_panic(expected = "a cancel on Descriptor(10), which is closed")]
fn a_cancel_of_what_ended_before_the_close() {
    let mut driver = driver();
    let client = driver.descriptor();
    push(&mut driver, Op::Watch, 1, Submission::WatchWritable { descriptor: client, many: false });
    enter(&mut driver);
    driver.complete(token(Op::Watch, 1), Ok(4));
    reap(&mut driver);
    push(&mut driver, Op::Close, 1, Submission::Close(client));
    push(&mut driver, Op::Cancel, 1, Submission::Cancel(token(Op::Watch, 1)));
}

#[test]
#[should_panic(expected = "never pushed")]
fn a_cancel_of_nothing() {
    push(&mut driver(), Op::Cancel, 1, Submission::Cancel(token(Op::Watch, 1)));
}

#[test]
#[should_panic(expected = "used again")]
fn a_token_in_use() {
    let mut driver = driver();
    let (one, other) = (driver.descriptor(), driver.descriptor());
    push(&mut driver, Op::Watch, 1, Submission::WatchWritable { descriptor: one, many: false });
    push(&mut driver, Op::Watch, 1, Submission::WatchWritable { descriptor: other, many: false });
}

#[test]
#[should_panic(expected = "nobody holds")]
fn bytes_released_before_the_send_is_over() {
    let mut driver = driver();
    let client = driver.descriptor();
    let filled = driver.memory().claim(0, 5);
    push_send(&mut driver, 1, client, &filled, false);
    driver.memory().release(filled);
    enter(&mut driver);
    driver.complete(token(Op::Send, 1), Ok(5));
}

// ---------------------------------------------------------------------------------- what a test must not do

#[test]
#[should_panic(expected = "which is not in flight")]
fn a_second_end_of_one_operation() {
    let mut driver = driver();
    let client = driver.descriptor();
    push(&mut driver, Op::Watch, 1, Submission::WatchWritable { descriptor: client, many: false });
    enter(&mut driver);
    driver.complete(token(Op::Watch, 1), Ok(4));
    driver.complete(token(Op::Watch, 1), Ok(4));
}

#[test]
#[should_panic(expected = "took 6 of 5 bytes")]
fn more_taken_than_sent() {
    let mut driver = driver();
    let client = driver.descriptor();
    let bytes = span(&driver);
    push_send(&mut driver, 1, client, &bytes, false);
    enter(&mut driver);
    driver.complete(token(Op::Send, 1), Ok(6));
}

#[test]
#[should_panic(expected = "that has its result and not its notification")]
fn a_notification_before_the_result() {
    let mut driver = driver();
    let client = driver.descriptor();
    let bytes = span(&driver);
    push_send(&mut driver, 1, client, &bytes, true);
    enter(&mut driver);
    driver.notify(token(Op::Send, 1), false);
}

#[test]
#[should_panic(expected = "not the kernel's buffer")]
fn a_buffer_filled_that_is_not_published() {
    let mut driver = driver();
    let client = driver.descriptor();
    push(&mut driver, Op::Receive, 1, Submission::Receive { descriptor: client, cap: 0 });
    enter(&mut driver);
    driver.receive(client, b"x");
    driver.receive_into(token(Op::Receive, 1), 1, b"x", true);
    driver.receive_into(token(Op::Receive, 1), 1, b"x", true);
}
