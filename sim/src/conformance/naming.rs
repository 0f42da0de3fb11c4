//! What sockets are asked: who is at either end, and how it goes, while they are connected and afterwards.

use std::net::SocketAddr;

use slipring_core::Fault;
use slipring_core::sys::bare::{File, Operation};

use super::arm::Peer;
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("name", "a connected socket knows both of its ends", connected),
    Case::new("name-fin", "after the peer's FIN it knows them still", fin),
    Case::new("name-fins", "after the FINs of both it knows them still", fins),
    Case::new("name-reset", "after the peer's reset it knows them still", reset),
    Case::new("name-fresh", "who never was connected has nobody at the other end", fresh),
    Case::new("name-refused", "who was refused knows whom it dialed", refused),
    Case::new("name-dialed", "a dialed socket knows whom it dialed", dialed),
    Case::new("info-bytes", "bytes are counted as they come and as they are acknowledged", bytes),
    Case::new("info-fin", "a FIN counts as a byte that came", counted_fin),
    Case::new("info-reset", "after a reset the counts are as they were", counted_reset),
];

fn word(told: Result<SocketAddr, Fault>, meant: Option<SocketAddr>) -> String {
    match told {
        Ok(address) if Some(address) == meant => "as it should be".to_owned(),
        Ok(_) => "another".to_owned(),
        Err(fault) => format!("{fault:?}"),
    }
}

/// Says what a socket knows of its ends, which are those of this peer the other way round.
fn see_names(s: &mut Script<'_>, ours: u32, ends: Option<(SocketAddr, SocketAddr)>) {
    let (peer, local) = s.arm.names(ours);
    let (peer, local) = (word(peer, ends.map(|ends| ends.0)), word(local, ends.map(|ends| ends.1)));
    s.say(format!("the other end: {peer}; this end: {local}"));
}

fn pair(s: &mut Script<'_>) -> (u32, Peer, Option<(SocketAddr, SocketAddr)>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let ends = s.arm.ends_of(peer);
    (ours, peer, ends)
}

fn connected(s: &mut Script<'_>) {
    let (ours, _, ends) = pair(s);
    see_names(s, ours, ends);
}

fn fin(s: &mut Script<'_>) {
    let (ours, peer, ends) = pair(s);
    s.arm.finish(peer);
    s.arm.ended(ours);
    see_names(s, ours, ends);
}

fn fins(s: &mut Script<'_>) {
    let (ours, peer, ends) = pair(s);
    s.arm.finish(peer);
    s.arm.ended(ours);
    s.shut(ours);
    s.see(1);
    s.see_peer(peer);
    see_names(s, ours, ends);
}

fn reset(s: &mut Script<'_>) {
    let (ours, peer, ends) = pair(s);
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    see_names(s, ours, ends);
}

fn fresh(s: &mut Script<'_>) {
    let ours = s.arm.socket();
    let (peer, _) = s.arm.names(ours);
    s.say(format!("the other end: {}", word(peer, None)));
}

fn refused(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, to) = s.arm.listen(1, None);
    s.arm.close(listener);
    let ours = s.arm.socket();
    s.push("connect", Operation::Connect { on: File::Descriptor(ours), to });
    s.take(1);
    let (peer, _) = s.arm.names(ours);
    s.say(format!("the other end: {}", word(peer, Some(to))));
}

fn dialed(s: &mut Script<'_>) {
    s.small_ring();
    let (_, to) = s.arm.listen(1, None);
    let ours = s.arm.socket();
    s.push("connect", Operation::Connect { on: File::Descriptor(ours), to });
    s.take(1);
    let (peer, _) = s.arm.names(ours);
    s.say(format!("the other end: {}", word(peer, Some(to))));
}

/// Says how many bytes came and were acknowledged.
fn see_counts(s: &mut Script<'_>, ours: u32) {
    match s.arm.info(ours) {
        Ok(info) => s.say(format!("{} came, {} arrived", info.received_bytes, info.acked_bytes)),
        Err(fault) => s.say(format!("{fault:?}")),
    }
}

/// Five bytes this way, seven that way.
fn talk(s: &mut Script<'_>) -> (u32, Peer) {
    let (ours, peer, _) = pair(s);
    let _ = s.arm.write(peer, b"hello");
    s.arm.arrived(ours, 5);
    s.send(ours, b"welcome");
    s.take(1);
    s.arm.acked(ours, 7);
    (ours, peer)
}

fn bytes(s: &mut Script<'_>) {
    let (ours, _) = talk(s);
    see_counts(s, ours);
}

fn counted_fin(s: &mut Script<'_>) {
    let (ours, peer) = talk(s);
    s.arm.finish(peer);
    s.arm.ended(ours);
    see_counts(s, ours);
}

fn counted_reset(s: &mut Script<'_>) {
    let (ours, peer) = talk(s);
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    see_counts(s, ours);
}
