//! From ring to ring: completions and files, and what becomes of them when the other side cannot take them.

use slipring_core::sys::bare::{File, Operation, Setup};

use super::arm::{Peer, Time};
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "message",
        "a message is a completion of the other ring, seen when that enters",
        message,
    ),
    Case::new("message-self", "a ring can send itself a message", to_self),
    Case::new("message-closed", "a closed ring cannot be sent to", closed),
    Case::new("message-no-ring", "what is no ring cannot be sent to", no_ring),
    Case::new("message-overflow", "a message to a full queue waits behind it", overflow),
    Case::new("pass", "a file that is passed is another reference to it", pass),
    Case::new("pass-into", "a file can be passed into a place that is named", pass_into),
    Case::new("pass-over", "passing into a taken place closes what was there", pass_over),
    Case::new("pass-full", "a full table takes no file; the sender keeps its own", pass_full),
    Case::new("pass-no-table", "a ring without a table takes no file", pass_no_table),
    Case::new("pass-beyond", "a place beyond the table takes no file", pass_beyond),
    Case::new("pass-empty", "an empty place has nothing to pass", pass_empty),
    Case::new("pass-self", "a ring does not pass files to itself", pass_self),
    Case::new("pass-closed", "a closed ring takes no file; the sender keeps its own", pass_closed),
    Case::new("pass-no-ring", "what is no ring takes no file", pass_no_ring),
    Case::new("pass-overflow", "a full completion queue keeps no file back", pass_overflow),
];

const TABLE: Setup = Setup { places: 1, ..Setup::SMALL };

/// Two rings with a table of one place each; a connection at the first's, and its peer.
fn two_rings(s: &mut Script<'_>, second: Setup) -> Peer {
    s.arm.ring(TABLE);
    s.arm.ring(second);
    let (listener, _, peers) = s.listen_to(8, 1);
    let on = File::Descriptor(listener);
    s.push("accept", Operation::Accept { on, many: false, direct: true });
    s.take(1);
    peers[0]
}

fn send_message(s: &mut Script<'_>, to: u32) {
    let token = s.token("message");
    s.push("sender", Operation::Message { to, token, result: 7 });
}

fn pass_it(s: &mut Script<'_>, to: u32, into: Option<u32>) {
    let token = s.token("passed");
    s.push("sender", Operation::Pass { to, place: 0, into, token });
}

/// Whether the sender's place can still be used.
fn see_kept(s: &mut Script<'_>, peer: Peer) {
    let manner = slipring_core::sys::bare::Manner::default();
    let bytes = b"kept".to_vec();
    s.push("send", Operation::Send { on: File::Direct(0), bytes, manner });
    s.see(1);
    s.see_peer_open(peer);
}

fn message(s: &mut Script<'_>) {
    s.small_ring();
    let other = s.small_ring();
    send_message(s, s.arm.ring_descriptor(other));
    s.see(1);
    s.see_at(other, 1);
}

fn to_self(s: &mut Script<'_>) {
    let own = s.small_ring();
    send_message(s, s.arm.ring_descriptor(own));
    s.see_in_any_order(2);
}

fn closed(s: &mut Script<'_>) {
    s.small_ring();
    let other = s.small_ring();
    let to = s.arm.ring_descriptor(other);
    s.arm.exit(other);
    send_message(s, to);
    s.see(1);
}

fn no_ring(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    send_message(s, ours);
    s.see(1);
}

fn overflow(s: &mut Script<'_>) {
    s.small_ring();
    let other = s.arm.ring(Setup { submissions: 2, completions: 2, ..Setup::SMALL });
    for name in ["first", "second"] {
        s.push_at(other, name, Operation::Nop);
    }
    s.arm.enter(other, 0, Time::Long);
    send_message(s, s.arm.ring_descriptor(other));
    s.see(1);
    s.see_at(other, 2);
    s.see_at(other, 1);
}

fn pass(s: &mut Script<'_>) {
    let peer = two_rings(s, TABLE);
    pass_it(s, s.arm.ring_descriptor(1), None);
    s.see(1);
    s.see_at(1, 1);
    s.push("close", Operation::Close(File::Direct(0)));
    s.see(1);
    s.see_peer_open(peer);
    s.push_at(1, "close", Operation::Close(File::Direct(0)));
    s.see_at(1, 1);
    s.see_peer(peer);
}

fn pass_into(s: &mut Script<'_>) {
    let peer = two_rings(s, Setup { places: 4, ..Setup::SMALL });
    pass_it(s, s.arm.ring_descriptor(1), Some(2));
    s.see(1);
    s.see_at(1, 1);
    let on = File::Direct(2);
    s.push_at(1, "receive", Operation::Receive { on, many: false, cap: 0 });
    let _ = s.arm.write(peer, b"hello");
    s.see_at(1, 1);
}

fn pass_over(s: &mut Script<'_>) {
    let peer = two_rings(s, TABLE);
    let (listener, _, peers) = s.listen_to(8, 1);
    let on = File::Descriptor(listener);
    s.push_at(1, "accept", Operation::Accept { on, many: false, direct: true });
    s.see_at(1, 1);
    pass_it(s, s.arm.ring_descriptor(1), Some(0));
    s.see(1);
    s.see_at(1, 1);
    s.see_peer(peers[0]);
    s.see_peer_open(peer);
}

fn pass_full(s: &mut Script<'_>) {
    let peer = two_rings(s, TABLE);
    for _ in 0..2 {
        pass_it(s, s.arm.ring_descriptor(1), None);
        s.see(1);
    }
    see_kept(s, peer);
}

fn pass_no_table(s: &mut Script<'_>) {
    let peer = two_rings(s, Setup::SMALL);
    pass_it(s, s.arm.ring_descriptor(1), None);
    s.see(1);
    pass_it(s, s.arm.ring_descriptor(1), Some(0));
    s.see(1);
    see_kept(s, peer);
}

fn pass_beyond(s: &mut Script<'_>) {
    let peer = two_rings(s, TABLE);
    pass_it(s, s.arm.ring_descriptor(1), Some(1));
    s.see(1);
    see_kept(s, peer);
}

fn pass_empty(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    s.arm.ring(TABLE);
    pass_it(s, s.arm.ring_descriptor(1), None);
    s.see(1);
    s.see_quiet_at(1);
}

fn pass_self(s: &mut Script<'_>) {
    let peer = two_rings(s, TABLE);
    pass_it(s, s.arm.ring_descriptor(0), None);
    s.see(1);
    see_kept(s, peer);
}

fn pass_closed(s: &mut Script<'_>) {
    let peer = two_rings(s, TABLE);
    let to = s.arm.ring_descriptor(1);
    s.arm.exit(1);
    pass_it(s, to, None);
    s.see(1);
    see_kept(s, peer);
}

fn pass_no_ring(s: &mut Script<'_>) {
    let peer = two_rings(s, TABLE);
    let (ours, _) = s.pair();
    pass_it(s, ours, None);
    s.see(1);
    see_kept(s, peer);
}

fn pass_overflow(s: &mut Script<'_>) {
    let peer = two_rings(s, Setup { submissions: 2, completions: 2, ..TABLE });
    for name in ["first", "second"] {
        s.push_at(1, name, Operation::Nop);
    }
    s.arm.enter(1, 0, Time::Long);
    pass_it(s, s.arm.ring_descriptor(1), None);
    s.see(1);
    s.see_at(1, 2);
    s.see_at(1, 1);
    see_kept(s, peer);
}
