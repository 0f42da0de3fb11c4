//! Mailboxes and borrowed listeners: nobody sleeps beside a message, nobody accepts from what is being closed.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, Ordering};

use crate::front::Front;
use crate::mailbox::{Mailbox, Posted};
use crate::shared::{Bells, spawn};
use crate::sync::Slip;
use crate::token::Descriptor;
use crate::{finds, many_orders};

/// Posters leave so many messages each; the owner takes them all, and sleeps whenever it may.
fn all_are_taken(posters: u32, each: u32) {
    let mailbox = Arc::new(Mailbox::new(8));
    let bells = Bells::new(1);
    let threads: Vec<_> = (0..posters)
        .map(|_| {
            let (mailbox, bells) = (Arc::clone(&mailbox), bells.clone());
            spawn(move || {
                for number in 0..each {
                    if mailbox.post(number).expect("there is room") == Posted::Wake {
                        bells.ring(0);
                    }
                }
            })
        })
        .collect();
    let mut taken = 0;
    while taken < posters * each {
        while mailbox.take().is_some() {
            taken += 1;
        }
        if taken < posters * each && mailbox.fall_asleep() {
            // Nobody else rings: a message that is not told of is a deadlock.
            bells.wait(0);
            mailbox.wake_up();
        }
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it did not panic"));
    assert!(mailbox.is_empty());
}

#[test]
fn nobody_sleeps_beside_a_message() {
    finds(Slip::AsksFirst, many_orders, || all_are_taken(1, 2));
    finds(Slip::LooksFirst, many_orders, || all_are_taken(2, 1));
    many_orders(|| all_are_taken(2, 2));
}

/// One accepts from listeners that their owner closes.
fn open_while_borrowed() {
    let front = Arc::new(Front::new(2, 1));
    front.tell_listeners(1, &[Descriptor(7)]);
    let closed = Arc::new(AtomicBool::new(false));
    let borrower = spawn({
        let (front, closed) = (Arc::clone(&front), Arc::clone(&closed));
        move || {
            for _ in 0..2 {
                if let Some(borrowed) = front.borrow_listeners(1) {
                    assert_eq!(borrowed.listeners(), [Descriptor(7)]);
                    assert!(!closed.load(Ordering::SeqCst), "accepted from what was closed");
                }
            }
        }
    });
    while !front.may_close_listeners(1) {
        shuttle::thread::yield_now();
    }
    closed.store(true, Ordering::SeqCst);
    borrower.join().expect("it did not panic");
}

#[test]
fn listeners_are_open_while_they_are_borrowed() {
    finds(Slip::ClosesUnseen, many_orders, open_while_borrowed);
}

/// Two reactors retire while each hands one over: whoever is left sees all there is.
fn what_is_handed_over_is_taken() {
    let front = Arc::new(Front::new(2, 2));
    let threads = [0, 1].map(|reactor| {
        let front = Arc::clone(&front);
        spawn(move || {
            let client =
                crate::mailbox::Client { descriptor: Descriptor(1), listener: 0, source: None };
            let posted = front.mail(1 - reactor).post(crate::mailbox::Message::Client(client));
            assert!(posted.is_ok(), "there is room");
            let _ = front.retire(reactor);
            let mut taken = 0;
            while !(front.is_retired() && front.is_empty(reactor)) {
                taken += u32::from(front.take(reactor).is_some());
                shuttle::thread::yield_now();
            }
            taken
        })
    });
    let taken: u32 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(taken, 2, "a client was left in a mailbox");
}

#[test]
fn nobody_ends_with_a_client_on_its_way() {
    many_orders(what_is_handed_over_is_taken);
}
