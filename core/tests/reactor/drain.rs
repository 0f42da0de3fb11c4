//! Drains: no new client, the quiet asked to go, the busy let finish, the rest aborted, everything closed.

use slipring_core::config::COMPLETIONS_PER_TURN_MAX;
use slipring_core::token::Op;
use slipring_core::{CloseReason, Ctx, DialRefused, Fault, Lease, Origin};
use slipring_sim::Conditions;

use crate::support::{Noted, Told, echo, ignore, limited, stage};

fn conditions(drain_ms: u32) -> Conditions {
    Conditions { drain_ms, ..Conditions::default() }
}

fn closes(stage: &mut Noted) -> Vec<CloseReason> {
    let close = |told: Told| match told {
        Told::Close(reason) => Some(reason),
        _ => None,
    };
    stage.handler().take_told().into_iter().filter_map(|(_, told)| close(told)).collect()
}

#[test]
fn a_reactor_without_clients_drains_at_once() {
    let mut stage = stage(&conditions(30_000), ignore);
    assert!(!stage.is_drained());
    stage.drain();
    stage.settle();
    assert!(stage.is_drained());
    assert_eq!(stage.driver().open_descriptors(), 0, "the listener is closed, by us");
}

#[test]
fn quiet_connections_are_asked_over_half_the_time_and_busy_ones_may_finish() {
    let mut stage = stage(&conditions(12_800), echo);
    let clients: Vec<_> = (0..8).map(|_| stage.accept()).collect();
    stage.pass_ms(1000);
    stage.receive(clients[0], b"busy");
    stage.drain();
    stage.settle();
    let listener = stage.listener();
    assert!(stage.driver().is_closed(listener));
    let mut gone_at = vec![None; clients.len()];
    for step in 0..100_u32 {
        stage.pass_ms(90);
        stage.receive(clients[0], b"busy");
        for (client, gone_at) in clients.iter().zip(&mut gone_at) {
            if gone_at.is_none() && stage.driver().is_shut(*client) {
                *gone_at = Some(step);
                stage.end_of_stream(*client);
            }
        }
    }
    assert_eq!(gone_at[0], None, "not while it talks");
    assert!(gone_at[1..].iter().all(|at| at.is_some_and(|step| step < 12)), "{gone_at:?}");
    let mut different = gone_at[1..].to_vec();
    different.dedup();
    assert!(different.len() > 3, "not all at once: {gone_at:?}");
    assert_eq!(closes(&mut stage), [CloseReason::Drained; 7]);
    stage.pass_ms(300);
    assert!(stage.driver().is_shut(clients[0]), "quiet at last");
    stage.end_of_stream(clients[0]);
    assert!(stage.is_drained());
}

#[test]
fn it_goes_on_accepting_while_it_is_not_ready_and_ends_by_its_deadline_all_the_same() {
    let mut stage = stage(&Conditions { not_ready_ms: 2000, ..conditions(10_000) }, echo);
    let (early, busy) = (stage.accept(), stage.accept());
    stage.drain();
    stage.pass_ms(1950);
    assert!(!stage.reactor().connections().is_ready());
    assert!(!stage.reactor().connections().is_draining());
    assert!(!stage.driver().is_shut(early), "nobody is asked to go yet");
    let late = stage.accept();
    stage.receive(late, b"served");
    assert_eq!(stage.sent(late), b"served");
    // A timer of two seconds may be late by an eighth.
    for _ in 0..4 {
        stage.receive(busy, b"busy");
        stage.pass_ms(80);
    }
    let listener = stage.listener();
    assert!(stage.driver().is_closed(listener) && stage.reactor().connections().is_draining());
    // Over half of the time that is left.
    for _ in 0..46 {
        stage.receive(busy, b"busy");
        stage.pass_ms(90);
    }
    assert!(stage.driver().is_shut(early) && stage.driver().is_shut(late));
    for _ in 0..36 {
        stage.receive(busy, b"busy");
        stage.pass_ms(90);
    }
    assert!(!stage.driver().is_closed(busy));
    stage.pass_ms(600);
    assert!(stage.driver().is_abortive(busy) && stage.is_drained());
}

#[test]
fn an_abort_does_not_wait_until_others_have_noticed() {
    let mut stage = stage(&Conditions { not_ready_ms: 20_000, ..conditions(30_000) }, ignore);
    stage.accept();
    stage.drain();
    stage.pass_ms(100);
    assert!(!stage.is_drained());
    stage.abort();
    stage.settle();
    assert!(stage.is_drained());
    assert_eq!(closes(&mut stage), [CloseReason::DrainDeadline]);
}

#[test]
fn what_comes_together_with_the_order_is_served() {
    let mut stage = stage(&conditions(4000), echo);
    let client = stage.accept();
    stage.pass_ms(1000);
    stage.drain();
    stage.driver().receive(client, b"served");
    stage.settle();
    assert_eq!(stage.sent(client), b"served");
    assert!(!stage.driver().is_shut(client), "it has just said something");
}

/// A turn that comes late finds that there was no buffer for what a client has sent.
#[test]
fn who_waits_for_a_buffer_is_not_quiet() {
    let mut stage = stage(&conditions(4000), echo);
    let client = stage.accept();
    stage.drain();
    stage.settle();
    let receive = stage.driver().expect(Op::Receive, client);
    stage.driver().complete(receive, Err(Fault::NoBuffers));
    stage.driver().advance_us(200_000);
    stage.rest();
    stage.receive(client, b"served");
    assert_eq!(stage.sent(client), b"served");
    stage.pass_ms(300);
    assert!(stage.driver().is_shut(client), "quiet at last");
}

/// What it has sent comes behind more than a turn takes.
#[test]
fn who_has_not_been_listened_to_is_not_quiet() {
    let limits = limited(|limits| {
        (limits.buffers, limits.buffer_bytes) = (2048, 64);
        limits.turn_receives_max = 2048;
    });
    let mut stage = stage(&Conditions { drain_ms: 4000, ..limits }, echo);
    let (client, talks) = (stage.accept(), stage.accept());
    stage.drain();
    stage.settle();
    for _ in 0..COMPLETIONS_PER_TURN_MAX {
        stage.driver().receive(talks, b"x");
    }
    stage.driver().receive(client, b"served");
    stage.driver().advance_us(200_000);
    stage.settle();
    assert_eq!(stage.sent(client), b"served");
}

/// As a relay does, until it has its upstream.
#[test]
fn who_is_held_back_by_its_handler_is_not_quiet_and_neither_is_a_dial() {
    let relay = |ctx: &mut Ctx<'_, ()>, told: &Told, lease: Option<Lease>| match (told, lease) {
        (Told::Open(Origin::Accepted(_)), _) => {
            ctx.pause();
            ctx.dial(([192, 0, 2, 1], 80).into(), ()).expect("there is room");
        }
        (_, Some(lease)) => ctx.send(lease),
        _ => {}
    };
    let mut stage = stage(&conditions(4000), relay);
    stage.drain();
    let listener = stage.listener();
    let late = stage.driver().queue_client(listener);
    stage.settle();
    for _ in 0..20 {
        stage.rest();
        stage.driver().advance_us(100_000);
    }
    let (upstream, _) = stage.dials()[0];
    stage.answer_dial(upstream, Ok(()));
    let key = stage.handler().keys[0];
    stage.reactor().connections().resume_of(key);
    stage.settle();
    stage.receive(late, b"served");
    assert_eq!(stage.sent(late), b"served");
}

/// What one has sent waits in its socket, because another does not take what came before it.
#[test]
fn who_is_held_back_for_another_is_not_quiet() {
    let mut first = None;
    let pass_on = move |ctx: &mut Ctx<'_, ()>, told: &Told, lease: Option<Lease>| match told {
        Told::Open(_) => first = first.or(Some(ctx.key())),
        Told::Data(_) => {
            ctx.forward(first.expect("it came first"), lease.expect("data comes with a lease"));
        }
        _ => {}
    };
    let limits = limited(|limits| (limits.outbox_high_bytes, limits.outbox_low_bytes) = (16, 8));
    let mut stage = stage(&Conditions { drain_ms: 4000, ..limits }, pass_on);
    let (reader, writer) = (stage.accept(), stage.accept());
    stage.driver().receive_last(writer, &[b'x'; 64]);
    stage.rest();
    let send = stage.driver().expect(Op::Send, reader);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.rest();
    assert!(stage.driver().find(Op::Receive, writer).is_none(), "it is held back");
    stage.drain();
    for _ in 0..30 {
        stage.rest();
        stage.driver().advance_us(100_000);
    }
    assert!(!stage.driver().is_shut(writer) && !stage.driver().is_shut(reader));
    let watch = stage.driver().expect(Op::Watch, reader);
    stage.driver().complete(watch, Ok(4));
    stage.settle();
    stage.receive(writer, b"the rest");
    assert_eq!(stage.sent(reader).len(), 72);
}

#[test]
fn at_the_deadline_the_rest_is_aborted() {
    let mut stage = stage(&conditions(1000), echo);
    let client = stage.accept();
    stage.drain();
    for _ in 0..25 {
        stage.pass_ms(39);
        assert!(!stage.is_drained());
        stage.receive(client, b"busy");
    }
    stage.pass_ms(30);
    assert!(stage.is_drained());
    assert!(stage.driver().is_abortive(client));
    assert_eq!(closes(&mut stage), [CloseReason::DrainDeadline]);
    assert_eq!(stage.counters().drain_aborted, 1);
}

#[test]
fn an_abort_waits_for_nobody() {
    let mut stage = stage(&conditions(30_000), echo);
    for _ in 0..5 {
        stage.accept();
    }
    stage.abort();
    stage.settle();
    assert!(stage.is_drained());
    assert_eq!(closes(&mut stage), [CloseReason::DrainDeadline; 5]);
}

#[test]
fn clients_that_the_kernel_had_accepted_already_are_served() {
    let mut stage = stage(&conditions(30_000), echo);
    let listener = stage.listener();
    stage.drain();
    stage.driver().accept(listener);
    stage.rest();
    let many = stage.driver().expect(Op::AcceptMany, listener);
    let late = stage.driver().accept(listener);
    let cancel = stage.driver().expect_cancel(many);
    stage.driver().complete(cancel, Ok(0));
    stage.driver().complete(many, Err(Fault::Cancelled));
    stage.settle();
    stage.receive(late, b"served");
    assert_eq!(stage.sent(late), b"served");
    assert!(stage.driver().is_closed(listener) && !stage.is_drained());
    stage.end_of_stream(late);
    stage.pass_ms(20_000);
    assert!(stage.is_drained());
}

#[test]
fn clients_that_come_in_behind_an_abort_are_aborted_too() {
    let mut stage = stage(&conditions(30_000), ignore);
    let listener = stage.listener();
    stage.abort();
    stage.driver().accept(listener);
    stage.rest();
    stage.driver().accept(listener);
    stage.settle();
    assert!(stage.is_drained());
    assert_eq!(closes(&mut stage), [CloseReason::DrainDeadline; 2]);
}

#[test]
fn a_client_kept_aside_does_not_outlive_the_deadline() {
    let mut stage = stage(&limited(|limits| limits.accepted_max = 17), ignore);
    let listener = stage.listener();
    for _ in 0..19 {
        stage.driver().accept(listener);
    }
    stage.settle();
    stage.abort();
    stage.settle();
    assert!(stage.is_drained(), "{:?}", stage.reactor());
    assert_eq!(stage.driver().open_descriptors(), 0);
    assert_eq!(closes(&mut stage).len(), 19);
}

/// The kernel has told them that they are connected, and no completion has told us.
#[test]
fn clients_that_queue_when_the_drain_begins_are_served() {
    for cap in [4, 64] {
        let conditions = limited(|limits| {
            limits.accepted_max = cap;
            limits.backlog = 8;
        });
        let mut stage = stage(&conditions, echo);
        let listener = stage.listener();
        let first = stage.accept();
        let queued: Vec<_> = (0..6).map(|_| stage.driver().queue_client(listener)).collect();
        stage.drain();
        stage.settle();
        assert!(stage.driver().is_closed(listener));
        let served = queued.len().min(cap as usize - 1);
        assert_eq!(stage.admission().open() as usize, 1 + served, "never beyond the cap");
        assert_eq!(stage.driver().queued_clients(), queued.len() - served);
        for client in [first].iter().chain(&queued[..served]) {
            stage.receive(*client, b"served");
            assert_eq!(stage.sent(*client), b"served");
            stage.end_of_stream(*client);
        }
        stage.pass_ms(20_000);
        assert!(stage.is_drained(), "{:?}", stage.reactor());
        assert_eq!(stage.admission().open(), 0);
    }
}

/// One that a multishot accepted beyond its reservation stands before those with a place.
#[test]
fn who_has_a_place_does_not_wait_for_who_has_none() {
    let conditions = limited(|limits| (limits.accepted_max, limits.backlog) = (2, 1));
    let mut stage = stage(&conditions, ignore);
    let listener = stage.listener();
    let clients: Vec<_> = (0..3).map(|_| stage.driver().accept(listener)).collect();
    stage.settle();
    assert_eq!(stage.admission().open(), 2, "the third is kept aside");
    let queued: Vec<_> = (0..2).map(|_| stage.driver().queue_client(listener)).collect();
    // Both places come back in the turn that hears of the drain.
    for client in &clients[..2] {
        let receive = stage.driver().expect(Op::Receive, *client);
        stage.driver().complete(receive, Err(Fault::Reset));
    }
    stage.rest();
    for client in &clients[..2] {
        let close = stage.driver().expect(Op::Close, *client);
        stage.driver().complete(close, Ok(0));
    }
    stage.drain();
    stage.settle();
    for served in [clients[2], queued[0]] {
        assert!(stage.driver().find(Op::Receive, served).is_some(), "first come, first served");
    }
    assert_eq!((stage.admission().open(), stage.driver().queued_clients()), (2, 1));
    stage.pass_ms(60_000);
    assert!(stage.is_drained(), "{:?}", stage.reactor());
    assert_eq!(stage.admission().open(), 0);
}

#[test]
fn what_dials_again_when_it_is_aborted_does_not_go_on_for_ever() {
    let again = |ctx: &mut Ctx<'_, ()>, told: &Told, _| {
        if let Told::Close(_) = told {
            let refused = ctx.dial(([192, 0, 2, 1], 80).into(), ()).expect_err("not any more");
            assert_eq!(refused, DialRefused::Ending);
        }
    };
    let mut stage = stage(&conditions(30_000), again);
    stage.accept();
    stage.abort();
    stage.settle();
    assert!(stage.is_drained());
    assert_eq!(stage.counters().handler_panics, 0);
}

#[test]
fn a_failed_driver_ends_every_connection_and_closes_every_descriptor() {
    let mut panics = 0;
    let react = move |ctx: &mut Ctx<'_, ()>, told: &Told, _| {
        if let Told::Close(CloseReason::DriverFailed) = told {
            panics += 1;
            assert!(ctx.dial(([192, 0, 2, 1], 80).into(), ()).is_err());
            assert!(panics != 2, "one of them panics");
        }
    };
    let mut stage = stage(&conditions(30_000), react);
    for _ in 0..3 {
        stage.accept();
    }
    let dialed = stage.reactor().connections().dial(([192, 0, 2, 1], 80).into(), ());
    assert!(dialed.is_ok());
    stage.settle();
    stage.driver().fail_enter("completions were lost");
    let failed = stage.reactor().run().expect_err("the driver failed");
    assert_eq!(failed.cause, "completions were lost");
    assert_eq!(closes(&mut stage), [CloseReason::DriverFailed; 4]);
    assert_eq!(stage.driver().open_descriptors(), 0);
    assert_eq!((stage.admission().open(), stage.counters().closed), (0, 4));
    assert_eq!(stage.counters().handler_panics, 1);
}

/// The completions that bring them were never reaped.
#[test]
fn a_failed_driver_leaves_no_client_open_that_it_had_accepted() {
    let mut stage = stage(&conditions(30_000), ignore);
    let listener = stage.listener();
    stage.accept();
    let late = [stage.driver().accept(listener), stage.driver().accept(listener)];
    stage.driver().fail_enter("completions were lost");
    stage.reactor().run().expect_err("the driver failed");
    assert!(late.iter().all(|client| stage.driver().is_abortive(*client)), "they are told");
    assert_eq!((stage.driver().open_descriptors(), stage.admission().open()), (0, 0));
}

#[test]
fn who_was_announced_together_with_the_order_is_taken_in_if_still_there() {
    for gone in [false, true] {
        let mut stage = stage(&limited(|limits| limits.accepted_max = 4), ignore);
        let listener = stage.listener();
        let watch = stage.driver().expect(Op::WatchListener, listener);
        stage.driver().complete(watch, Ok(1));
        if !gone {
            stage.driver().queue_client(listener);
        }
        stage.drain();
        stage.settle();
        assert!(stage.driver().is_closed(listener));
        assert_eq!((stage.is_drained(), stage.admission().open()), (gone, u32::from(!gone)));
        stage.pass_ms(60_000);
        assert!(stage.is_drained(), "{:?}", stage.reactor());
        assert_eq!((stage.admission().open(), stage.driver().open_descriptors()), (0, 0));
    }
}

#[test]
fn a_drain_waits_for_the_last_notification() {
    use slipring_core::driver::Abilities;
    let abilities = Abilities { receive_cap: true, zero_copy: true };
    let limits = limited(|limits| limits.zero_copy_min_bytes = Some(1)).limits;
    let mut stage = stage(&Conditions { abilities, limits, ..conditions(100) }, echo);
    let client = stage.accept();
    stage.driver().receive(client, b"x");
    stage.rest();
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete_with_more(send, Ok(1));
    stage.drain();
    stage.pass_ms(1000);
    assert!(stage.driver().is_closed(client) && !stage.is_drained());
    stage.driver().notify(send, false);
    stage.settle();
    assert!(stage.is_drained());
}
