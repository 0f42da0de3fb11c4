//! Who may come in: both tokens or neither, multishots that reserve a backlog, and who is rung when.
//!
//! One thread: here everything is exact. Two of them meet in `models.rs`, reactors in `reactor/shared.rs`.

use std::sync::{Arc, Mutex};

use slipring_core::admission::{Admission, Reservation};

fn rung(admission: &Admission) -> Arc<Mutex<Vec<usize>>> {
    let rung = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&rung);
    admission.connect(move |reactor| note.lock().expect("no panic").push(reactor));
    rung
}

fn heard(rung: &Mutex<Vec<usize>>) -> Vec<usize> {
    std::mem::take(&mut *rung.lock().expect("no panic"))
}

#[test]
fn permits_end_at_the_cap_and_come_back() {
    let admission = Admission::new(2, 0, 8, 2);
    let rung = rung(&admission);
    assert!(admission.arm(0, 0).is_none(), "a backlog of 8 does not fit a cap of 2");
    assert!(admission.take(0, 0) && admission.take(1, 0));
    assert!(!admission.take(1, 0) && !admission.has_room(0, 1));
    assert_eq!(admission.open(), 2);
    assert!(admission.release(0, 0), "who releases is told that it waits itself");
    assert_eq!(heard(&rung), [1], "only who waited is rung");
    assert!(admission.take(1, 0));
}

#[test]
fn a_listener_at_its_cap_keeps_nobody_from_another() {
    let admission = Admission::new(3, 0, 8, 2).with_listeners([Some(1), None]);
    let rung = rung(&admission);
    assert!(admission.take(0, 0));
    assert!(!admission.take(1, 0) && !admission.has_room(1, 0));
    assert!(admission.has_room(0, 1) && admission.take(0, 1) && admission.take(1, 1));
    assert_eq!((admission.open(), admission.open_of(0), admission.open_of(1)), (3, Some(1), None));
    assert!(!admission.take(0, 1), "the process has no more");
    // It ends on another reactor than the one that accepted it.
    assert!(admission.release(1, 0), "the caller waits for the listener");
    assert_eq!(heard(&rung), [0], "and the other for the process");
    assert!(admission.take(1, 0));
}

#[test]
fn a_client_without_both_tokens_takes_neither() {
    let admission = Admission::new(1, 0, 8, 2).with_listeners([Some(5), Some(1)]);
    let rung = rung(&admission);
    assert!(admission.take(0, 0));
    assert!(!admission.take(1, 1), "the process is full");
    assert_eq!((admission.open_of(0), admission.open_of(1)), (Some(1), Some(0)));
    assert!(!admission.admit(1, 1, &mut Reservation::default()));
    assert_eq!(admission.open_of(1), Some(0));
    assert!(!admission.release(0, 0));
    assert_eq!(heard(&rung), [1]);
    assert!(admission.take(1, 1) && !admission.take(1, 0));
    assert_eq!((admission.open_of(0), admission.open_of(1)), (Some(0), Some(1)));
}

#[test]
fn an_armed_multishot_holds_a_backlog_until_it_is_recalled() {
    let admission = Admission::new(10, 0, 4, 2);
    let rung = rung(&admission);
    let mut first = admission.arm(0, 0).expect("5 of 10");
    let second = admission.arm(1, 0).expect("10 of 10");
    assert!(admission.arm(0, 1).is_none());
    assert!(!admission.is_tight(0, &first) && !admission.is_tight(0, &second));
    assert!(!admission.take(0, 0), "all ten are reserved");
    assert_eq!(heard(&rung), [1], "the other reactor is called on");
    assert!(admission.is_tight(0, &first) && admission.is_tight(0, &second));
    admission.disarm(1, 0, second);
    assert_eq!(heard(&rung), [0]);
    for _ in 0..5 {
        assert!(admission.take(1, 0), "what was given back");
    }
    assert!(!admission.is_tight(0, &first), "it has what it reserved");
    for _ in 0..5 {
        assert!(admission.admit(0, 0, &mut first));
        assert!(admission.is_tight(0, &first), "it uses up what it reserved");
    }
    assert!(!admission.admit(0, 0, &mut first), "a client too many waits for a permit");
    assert_eq!((admission.open(), &first), (10, &Reservation::default()));
    admission.disarm(0, 0, first);
    assert_eq!(admission.open(), 10);
}

#[test]
fn a_multishot_reserves_under_both_caps_or_neither() {
    let admission = Admission::new(100, 0, 4, 1).with_listeners([Some(9), Some(5)]);
    let armed = admission.arm(0, 0).expect("5 of 9");
    assert!(admission.arm(0, 0).is_none(), "the listener has 4 left");
    for _ in 0..91 {
        assert!(admission.take(0, 2));
    }
    assert!(admission.arm(0, 1).is_none(), "the process has 4 left");
    admission.disarm(0, 0, armed);
    let armed = admission.arm(0, 1).expect("nothing of its 5 was kept");
    for _ in 0..4 {
        assert!(admission.take(0, 2), "nor of the process");
    }
    assert!(!admission.take(0, 2));
    admission.disarm(0, 1, armed);
}

#[test]
fn only_a_listener_whose_own_room_is_missed_gives_up() {
    let admission = Admission::new(1000, 0, 4, 2).with_listeners([Some(9), Some(9)]);
    let rung = rung(&admission);
    let (first, second) = (admission.arm(0, 0), admission.arm(0, 1));
    let (first, second) = (first.expect("5 of 9"), second.expect("5 of 9"));
    for _ in 0..4 {
        assert!(admission.take(1, 0));
    }
    assert!(!admission.take(1, 0));
    assert_eq!(heard(&rung), [0]);
    assert!(admission.is_tight(0, &first) && !admission.is_tight(1, &second));
}

#[test]
fn dials_end_at_their_cap_and_come_back() {
    let admission = Admission::new(1, 1, 8, 1);
    assert!(admission.dial() && !admission.dial());
    admission.end_dial();
    assert!(admission.dial());
}
