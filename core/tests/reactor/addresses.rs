//! Who is at either end and how it goes: asked once, kept as long as the connection has a key, never asked of a
//! descriptor that is being closed, and never at all unless a handler asks.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use slipring_core::token::{Descriptor, Op};
use slipring_core::{CloseReason, Ctx, Fault, Key, TcpInfo};
use slipring_sim::Conditions;

use crate::support::{Noted, Told, ignore, limited, stage};

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

/// What a handler saw at the end of each connection: peer, this end, how it went.
type Seen = Rc<RefCell<Vec<(Option<SocketAddr>, Option<SocketAddr>, Option<TcpInfo>)>>>;

/// A handler that asks for both addresses as a connection opens, if it is to, and for everything at its end.
fn logging(conditions: &Conditions, asks: bool) -> (Noted, Seen) {
    let seen = Seen::default();
    let log = Rc::clone(&seen);
    let stage = stage(conditions, move |ctx: &mut Ctx<'_, ()>, told, _| match told {
        Told::Open(_) if asks => {
            let _ = (ctx.peer(), ctx.local());
        }
        Told::Close(_) => {
            let (peer, local) = (ctx.peer(), ctx.local());
            log.borrow_mut().push((peer, local, ctx.info()));
        }
        _ => {}
    });
    (stage, seen)
}

fn peer_of(stage: &mut Noted, key: Key) -> Option<SocketAddr> {
    stage.reactor().connections().peer_of(key)
}

/// Ends it from here, to the last completion; its slot is free.
fn end(stage: &mut Noted, number: usize) {
    let key = stage.handler().keys[number];
    stage.reactor().connections().abort_of(key);
    stage.settle();
    assert_eq!(stage.reactor().connections().origin(key), None);
}

#[test]
fn an_address_is_asked_for_once_and_known_at_the_end() {
    let (mut stage, seen) = logging(&Conditions::default(), true);
    let client = stage.accept();
    let key = stage.handler().keys[0];
    assert_eq!(stage.driver().questions(), 2);
    let port = 49_152 + client.0 as u16;
    for _ in 0..3 {
        assert_eq!(peer_of(&mut stage, key), Some(address(2, port)));
        assert_eq!(stage.reactor().connections().local_of(key), Some(address(1, 7000)));
    }
    end(&mut stage, 0);
    assert_eq!(stage.driver().questions(), 2, "what was known was asked again, or after the close");
    assert_eq!(seen.take(), [(Some(address(2, port)), Some(address(1, 7000)), None)]);
    assert_eq!(peer_of(&mut stage, key), None, "a key that is over finds nothing");
}

#[test]
fn who_did_not_ask_in_time_is_told_nothing_at_the_end() {
    let (mut stage, seen) = logging(&Conditions::default(), false);
    stage.accept();
    end(&mut stage, 0);
    assert_eq!(seen.take(), [(None, None, None)]);
    assert_eq!(stage.driver().questions(), 0);
}

#[test]
fn nobody_is_asked_whom_nobody_asks_for() {
    let mut stage = stage(&Conditions::default(), ignore);
    for _ in 0..3 {
        let client = stage.accept();
        stage.receive(client, b"hello");
        stage.end_of_stream(client);
    }
    assert_eq!(stage.driver().questions(), 0);
}

#[test]
fn the_next_in_a_slot_has_an_address_of_its_own() {
    let (mut stage, seen) = logging(&limited(|limits| limits.accepted_max = 1), true);
    let mut peers = Vec::new();
    for number in 0..3 {
        let client = stage.accept();
        assert_eq!(stage.handler().keys[number].index(), stage.handler().keys[0].index());
        peers.push(address(2, 49_152 + client.0 as u16));
        end(&mut stage, number);
    }
    let told: Vec<_> = seen.take().into_iter().filter_map(|(peer, ..)| peer).collect();
    assert_eq!(told, peers);
}

#[test]
fn between_the_push_of_its_close_and_its_end_a_descriptor_is_nobodys() {
    let (mut stage, _) = logging(&Conditions::default(), false);
    let client = stage.accept();
    let key = stage.handler().keys[0];
    stage.reactor().connections().abort_of(key);
    assert!(peer_of(&mut stage, key).is_some(), "it is open still");
    assert!(stage.reactor().connections().info_of(key).is_some());
    stage.rest();
    let receive = stage.driver().expect(Op::Receive, client);
    let cancel = stage.driver().expect_cancel(receive);
    stage.driver().complete(receive, Err(Fault::Cancelled));
    stage.driver().complete(cancel, Ok(0));
    stage.rest();
    // A question to the driver would be a panic now.
    let _ = stage.driver().expect(Op::Close, client);
    assert!(peer_of(&mut stage, key).is_some(), "asked for before");
    assert_eq!(stage.reactor().connections().local_of(key), None);
    assert_eq!(stage.reactor().connections().info_of(key), None);
    stage.settle();
}

#[test]
fn what_cannot_be_told_is_asked_again() {
    let (mut stage, _) = logging(&Conditions::default(), false);
    let client = stage.accept();
    let key = stage.handler().keys[0];
    stage.driver().set_peer(client, Err(Fault::DescriptorsOfProcess));
    assert_eq!((peer_of(&mut stage, key), stage.driver().questions()), (None, 1));
    let v6: SocketAddr = "[2001:db8::7]:80".parse().expect("an address");
    stage.driver().set_peer(client, Ok(v6));
    assert_eq!((peer_of(&mut stage, key), stage.driver().questions()), (Some(v6), 2));
}

#[test]
fn how_it_goes_is_asked_each_time() {
    let (mut stage, _) = logging(&Conditions::default(), false);
    let client = stage.accept();
    let key = stage.handler().keys[0];
    for rtt_us in [17, 18] {
        let mut info = TcpInfo::default();
        info.rtt_us = rtt_us;
        stage.driver().set_info(client, info.clone());
        assert_eq!(stage.reactor().connections().info_of(key), Some(info));
    }
}

/// A dial that was begun, and its socket.
fn dialing(stage: &mut Noted) -> (Key, Descriptor) {
    let key = stage.reactor().connections().dial(address(7, 80), ()).expect("room for a dial");
    assert_eq!(peer_of(stage, key), Some(address(7, 80)), "before it has a socket");
    stage.settle();
    (key, stage.dials()[0].0)
}

#[test]
fn a_dialed_connection_has_the_address_that_was_dialed() {
    let (mut stage, seen) = logging(&Conditions::default(), false);
    let (key, socket) = dialing(&mut stage);
    assert_eq!(peer_of(&mut stage, key), Some(address(7, 80)));
    assert_eq!(stage.reactor().connections().local_of(key), None, "it has none yet");
    assert_eq!(stage.reactor().connections().info_of(key), None, "nothing goes yet");
    assert_eq!(stage.driver().questions(), 0);
    stage.answer_dial(socket, Ok(()));
    assert_eq!(peer_of(&mut stage, key), Some(address(7, 80)));
    assert_eq!(stage.driver().questions(), 0);
    assert_eq!(stage.reactor().connections().local_of(key), Some(address(1, 7000)));
    end(&mut stage, 0);
    assert_eq!(seen.take(), [(Some(address(7, 80)), Some(address(1, 7000)), None)]);
}

#[test]
fn a_dial_that_fails_says_where_to() {
    let (mut stage, seen) = logging(&Conditions::default(), false);
    let (_, socket) = dialing(&mut stage);
    stage.answer_dial(socket, Err(Fault::Refused));
    assert_eq!(seen.take(), [(Some(address(7, 80)), None, None)]);
    // One that does not even get a socket, too.
    stage.driver().fail_open_socket(Fault::DescriptorsOfProcess);
    stage.reactor().connections().dial(address(8, 80), ()).expect("room for a dial");
    stage.settle();
    assert_eq!(seen.take(), [(Some(address(8, 80)), None, None)]);
    let failed = |fault| Told::Close(CloseReason::DialFailed(fault));
    let told: Vec<_> = stage.handler().take_told().into_iter().map(|(_, told)| told).collect();
    assert_eq!(told, [failed(Fault::Refused), failed(Fault::DescriptorsOfProcess)]);
}

/// Those that never asked keep nothing, whoever else has: accepted connections beside a dialed one.
#[test]
fn beside_one_that_is_known_others_are_not() {
    let (mut stage, seen) = logging(&Conditions::default(), false);
    stage.accept();
    let (_, socket) = dialing(&mut stage);
    stage.answer_dial(socket, Ok(()));
    stage.accept();
    for number in [0, 2] {
        end(&mut stage, number);
    }
    assert_eq!(seen.take(), [(None, None, None), (None, None, None)]);
}
