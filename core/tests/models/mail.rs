//! Mailboxes and borrowed listeners: nobody sleeps beside a message, nobody accepts from what is being closed.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, Ordering};

use crate::admission::Admission;
use crate::front::Front;
use crate::mailbox::{Mailbox, Posted};
use crate::places::Place;
use crate::shared::{Bells, spawn};
use crate::sync::Slip;
use crate::token::Descriptor;
use crate::{every_order, finds, many_orders};

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

/// One asks for a place, two others could make it, and it may not be wanted any more: one of the three has its way.
fn one_place_is_made() {
    let front = Arc::new(Front::new(3, 1));
    front.tell_listeners(0, &[Descriptor(7)]);
    front.places().ask(0, 0);
    let makers = [1, 2].map(|maker| {
        let front = Arc::clone(&front);
        spawn(move || {
            let wanted = front.places().asked_by_others(maker).next();
            wanted.is_some_and(|wanted| front.places().make(maker, wanted))
        })
    });
    let withdrawn = front.places().withdraw(0, 0);
    let made = makers.map(|maker| u32::from(maker.join().expect("it did not panic")));
    assert_eq!(made.iter().sum::<u32>() + u32::from(withdrawn), 1);
    assert!(!front.places().is_any_asked());
    (1..3).for_each(|maker| front.places().end(maker, (0, 0)));
    assert_eq!(front.places().get(0, 0), Place::Free);
}

#[test]
fn one_client_costs_one_connection() {
    finds(Slip::MakesUnasked, every_order, one_place_is_made);
}

/// A client waits for the one place, and somebody else holds it: who asks is served, since who makes room has said so
/// before it gives the place back, and another that wants it too may have it first.
fn who_asks_is_served() {
    let front = Arc::new(Front::new(3, 1));
    front.tell_listeners(0, &[Descriptor(7)]);
    let admission = Arc::new(Admission::new(1, 0, 8, 3));
    let bells = Bells::new(3);
    let rung = bells.clone();
    admission.connect(move |reactor| rung.ring(reactor));
    assert!(admission.take(1, 0), "the one that is idle");
    let maker = spawn({
        let (front, admission, bells) = (Arc::clone(&front), Arc::clone(&admission), bells.clone());
        move || loop {
            let wanted = front.places().asked_by_others(1).next();
            if wanted.is_some_and(|wanted| front.places().make(1, wanted)) {
                front.places().end(1, (0, 0));
                return admission.release(1, 0);
            }
            bells.wait(1);
        }
    });
    let other = spawn({
        let (admission, bells) = (Arc::clone(&admission), bells.clone());
        move || {
            while !admission.take(2, 0) {
                bells.wait(2);
            }
            admission.release(2, 0);
        }
    });
    while !admission.take(0, 0) {
        if front.places().get(0, 0) == Place::Free {
            front.places().ask(0, 0);
            bells.ring(1);
        }
        bells.wait(0);
    }
    maker.join().expect("it did not panic");
    admission.release(0, 0);
    other.join().expect("it did not panic");
}

#[test]
fn who_asks_for_a_place_gets_one() {
    many_orders(who_asks_is_served);
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
