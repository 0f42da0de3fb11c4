//! What one thread sees of the front end's shared parts: mailboxes, loads, and what reactors have of each other.
//!
//! Apart from the files they are about: `core/tests/models.rs` compiles those a second time.

use crate::front::Front;
use crate::loads::{BUSY_WEIGHT, Business, Loads, STALE_US, WINDOW_US};
use crate::mailbox::{Client, Mailbox, Message, Posted};
use crate::token::Descriptor;

// ---------------------------------------------------------------------------------------- mailbox

#[test]
fn messages_come_in_order_and_a_full_box_gives_them_back() {
    let mailbox = Mailbox::new(2);
    assert_eq!(mailbox.post(1), Ok(Posted::Seen));
    assert_eq!(mailbox.post(2), Ok(Posted::Seen));
    assert_eq!(mailbox.post(3), Err(3));
    assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(1), Some(2), None));
}

#[test]
fn the_first_to_find_it_asleep_wakes_it() {
    let mailbox = Mailbox::new(4);
    assert!(mailbox.fall_asleep());
    assert_eq!(mailbox.post(1), Ok(Posted::Wake));
    assert_eq!(mailbox.post(2), Ok(Posted::Seen), "it is being woken");
    mailbox.wake_up();
    assert_eq!(mailbox.post(3), Ok(Posted::Seen), "it is awake");
}

#[test]
fn nobody_falls_asleep_beside_a_message() {
    let mailbox = Mailbox::new(4);
    assert_eq!(mailbox.post(1), Ok(Posted::Seen));
    assert!(!mailbox.fall_asleep());
    assert_eq!(mailbox.post(2), Ok(Posted::Seen), "it is awake still");
    assert_eq!((mailbox.take(), mailbox.take()), (Some(1), Some(2)));
    assert!(mailbox.fall_asleep());
}

// ------------------------------------------------------------------------------------------ loads

#[test]
fn a_connection_counts_from_when_it_is_given() {
    let loads = Loads::new(2);
    loads.add(1);
    loads.add(1);
    loads.remove(1);
    assert_eq!((loads.connections(0), loads.connections(1)), (0, 1));
    assert_eq!((loads.score(0, 0), loads.score(1, 0)), (0, 1));
}

#[test]
fn a_busy_reactor_counts_for_eight_more_until_that_is_long_ago() {
    let loads = Loads::new(1);
    let mut business = Business::default();
    business.note(&loads, 0, WINDOW_US, WINDOW_US);
    assert_eq!(loads.score(0, WINDOW_US), BUSY_WEIGHT);
    assert_eq!(loads.score(0, WINDOW_US + STALE_US), 0);
    business.note(&loads, 0, WINDOW_US * 3 / 2, 0);
    assert_eq!(loads.score(0, WINDOW_US * 3 / 2), BUSY_WEIGHT, "the window is not over");
    // Half of the next one it sleeps.
    business.note(&loads, 0, WINDOW_US * 2, WINDOW_US * 3 / 2);
    assert_eq!(loads.score(0, WINDOW_US * 2), BUSY_WEIGHT / 2);
}

#[test]
fn a_turn_is_as_long_as_it_lasts() {
    let loads = Loads::new(1);
    assert_eq!(loads.turning_for_us(0, 70), 0);
    loads.begin_turn(0, 50);
    assert_eq!(loads.turning_for_us(0, 70), 20);
    assert_eq!(loads.turning_for_us(0, 40), 0, "another's clock is behind");
    loads.end_turn(0);
    assert_eq!(loads.turning_for_us(0, 70), 0);
}

// ------------------------------------------------------------------------------------------ front

fn client(number: u32) -> Client {
    let (listener, source) = (0, None);
    Client { descriptor: Descriptor(number), listener, source }
}

#[test]
fn what_a_failed_reactor_leaves_is_taken_by_another() {
    let front = Front::new(3, 8);
    let _ = front.mail(1).post(Message::Client(client(7)));
    assert!(front.take(0).is_none());
    assert!(front.is_empty(0) && !front.is_empty(1));
    front.abandon(1);
    assert!(!front.is_empty(0));
    assert!(matches!(front.take(0), Some(Message::Client(it)) if it == client(7)));
    assert!(front.is_empty(0));
}

#[test]
fn the_next_that_turns_stands_in() {
    let front = Front::new(3, 8);
    assert!(!front.stands_in(1, 0), "it turns");
    front.begin_stall(0);
    assert!(front.stands_in(1, 0) && !front.stands_in(2, 0));
    front.begin_stall(1);
    assert!(front.stands_in(2, 0) && front.stands_in(2, 1));
    front.end_stall(0);
    assert!(!front.stands_in(2, 0) && front.stands_in(2, 1));
}

#[test]
fn listeners_are_not_closed_while_they_are_borrowed_nor_borrowed_once_they_close() {
    let front = Front::new(2, 8);
    front.tell_listeners(1, &[Descriptor(4)]);
    let borrowed = front.borrow_listeners(1).expect("they are open");
    assert_eq!(borrowed.listeners(), [Descriptor(4)]);
    assert!(!front.may_close_listeners(1));
    drop(borrowed);
    assert!(front.borrow_listeners(1).is_none(), "its owner closes them");
    assert!(front.may_close_listeners(1));
}

#[test]
fn the_last_to_retire_is_told() {
    let front = Front::new(2, 8);
    assert!(!front.retire(1) && !front.is_retired());
    assert!(front.loads().is_gone(1));
    assert!(front.retire(0) && front.is_retired());
}
