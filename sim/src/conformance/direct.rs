//! Descriptor tables of a ring: accepting into them, using what is in them, emptying them.

use slipring_core::sys::bare::{File, Operation, Setup, Target};

use super::arm::{Open, Peer};
use super::{Case, Need, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("direct-accept", "an accept into the table gives the lowest free place", accept),
    Case::new("direct-accept-many", "a multishot accept fills the table place by place", many),
    Case::new("direct-accept-full", "an accept into a full table loses the client", full),
    Case::new(
        "direct-accept-full-many",
        "a multishot accept into a full table loses one too",
        full_many,
    ),
    Case::new("direct-no-table", "without a table an accept into it loses the client", no_table),
    Case::new("direct-use", "a place is as good as a descriptor", use_it),
    Case::new("direct-empty", "an empty place is EBADF", empty),
    Case::new("direct-close", "emptying a place closes the file", close),
    Case::new("direct-close-empty", "an empty place cannot be emptied", close_empty),
    Case::new("direct-close-beyond", "a place beyond the table cannot be emptied", close_beyond),
    Case::new("direct-close-no-table", "without a table there is nothing to empty", close_no_table),
    Case::new(
        "direct-close-pending",
        "with a receive pending no FIN goes out until that ends",
        pending,
    ),
    Case::new("direct-close-order", "cancel first, then close: the FIN goes out at once", order),
    Case::new("direct-reuse", "a place is free once it was emptied, receive pending or not", reuse),
    Case::new("direct-cancel", "operations on a place can be cancelled by it", cancel),
    Case::new("direct-fill", "a descriptor that is put into a place can be closed", fill),
    Case::new("direct-fill-beyond", "a place beyond the table cannot be filled", fill_beyond),
    Case::new("direct-fill-again", "a place is free once its close was taken", fill_again),
    Case::new(
        "direct-close-beside",
        "emptying a place closes the file at once, whatever is pending on others",
        beside,
    )
    .needs(Need::PromptTables),
];

const TABLE: Setup = Setup { places: 2, ..Setup::SMALL };

fn accept_into(s: &mut Script<'_>, listener: u32, many: bool) -> u64 {
    let on = File::Descriptor(listener);
    s.push("accept", Operation::Accept { on, many, direct: true })
}

/// A connection at place 0, and its peer.
fn place(s: &mut Script<'_>) -> (File, Peer, u32) {
    s.arm.ring(TABLE);
    let (listener, _, peers) = s.listen_to(8, 1);
    accept_into(s, listener, false);
    s.take(1);
    (File::Direct(0), peers[0], listener)
}

fn accept(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    let before = s.arm.open_descriptors();
    let (listener, _, peers) = s.listen_to(8, 1);
    accept_into(s, listener, false);
    s.see(1);
    s.see_peer_open(peers[0]);
    let _ = before;
}

fn many(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    let (listener, _, _) = s.listen_to(8, 2);
    accept_into(s, listener, true);
    s.see(2);
}

fn full(s: &mut Script<'_>) {
    s.arm.ring(Setup { places: 1, ..Setup::SMALL });
    let (listener, _, peers) = s.listen_to(8, 2);
    for _ in 0..2 {
        accept_into(s, listener, false);
        s.see(1);
    }
    s.see_peer_open(peers[0]);
    s.see_peer(peers[1]);
}

fn full_many(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    let (listener, _, peers) = s.listen_to(8, 4);
    accept_into(s, listener, true);
    s.see(3);
    s.see_peer_open(peers[1]);
    s.see_peer(peers[2]);
    s.see_peer_open(peers[3]);
}

fn no_table(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, peers) = s.listen_to(8, 1);
    accept_into(s, listener, false);
    s.see(1);
    s.see_peer(peers[0]);
}

fn use_it(s: &mut Script<'_>) {
    let (on, peer, _) = place(s);
    let token = s.push("receive", Operation::Receive { on, many: true, cap: 0 });
    let _ = s.arm.write(peer, b"ping");
    s.see_bytes(token, 4);
    let manner = slipring_core::sys::bare::Manner::default();
    s.push("send", Operation::Send { on, bytes: b"pong".to_vec(), manner });
    s.see(1);
    s.push("shutdown", Operation::Shutdown { on });
    s.see(1);
    s.see_peer(peer);
}

fn empty(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    s.push("receive", Operation::Receive { on: File::Direct(1), many: true, cap: 0 });
    s.see(1);
}

fn close(s: &mut Script<'_>) {
    let (on, peer, _) = place(s);
    s.push("close", Operation::Close(on));
    s.see(1);
    s.see_peer(peer);
}

fn close_empty(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    s.push("close", Operation::Close(File::Direct(1)));
    s.see(1);
}

fn close_beyond(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    s.push("close", Operation::Close(File::Direct(2)));
    s.see(1);
}

fn close_no_table(s: &mut Script<'_>) {
    s.small_ring();
    s.push("close", Operation::Close(File::Direct(0)));
    s.see(1);
}

fn pending(s: &mut Script<'_>) {
    let (on, peer, _) = place(s);
    let token = s.push("receive", Operation::Receive { on, many: true, cap: 0 });
    s.see_quiet();
    s.push("close", Operation::Close(on));
    s.see(1);
    s.see_peer_open(peer);
    s.cancel(token);
    s.see_in_any_order(2);
    s.see_peer(peer);
}

fn order(s: &mut Script<'_>) {
    let (on, peer, _) = place(s);
    let token = s.push("receive", Operation::Receive { on, many: true, cap: 0 });
    s.see_quiet();
    s.cancel(token);
    s.see_in_any_order(2);
    s.push("close", Operation::Close(on));
    s.see(1);
    s.see_peer(peer);
}

fn reuse(s: &mut Script<'_>) {
    let (on, peer, listener) = place(s);
    let token = s.push("receive", Operation::Receive { on, many: true, cap: 0 });
    s.see_quiet();
    s.push("close", Operation::Close(on));
    s.see(1);
    accept_into(s, listener, false);
    s.see_quiet();
    let _ = s.arm.write(peer, b"still here");
    s.see_bytes(token, 10);
}

fn cancel(s: &mut Script<'_>) {
    let (on, _, _) = place(s);
    s.push("receive", Operation::Receive { on, many: true, cap: 0 });
    s.see_quiet();
    s.push("cancel", Operation::Cancel(Target::AllOn(on)));
    s.see_in_any_order(2);
}

/// A connection that is put into a place, and its peer.
fn put(s: &mut Script<'_>, place: u32) -> (File, Peer) {
    let (ours, peer) = s.arm.pair(Open::Wide);
    let filled = s.arm.fill(0, place, ours);
    s.say(format!("filling place {place}: {filled:?}"));
    s.arm.close(ours);
    (File::Direct(place), peer)
}

fn fill(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    let (on, peer) = put(s, 1);
    s.see_peer_open(peer);
    let manner = slipring_core::sys::bare::Manner::default();
    s.push("send", Operation::Send { on, bytes: b"pong".to_vec(), manner });
    s.see(1);
    s.push("close", Operation::Close(on));
    s.see(1);
    s.see_peer(peer);
}

fn fill_beyond(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    let (_, peer) = put(s, 2);
    s.see_peer(peer);
}

fn fill_again(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    let (on, before) = put(s, 0);
    s.push("close", Operation::Close(on));
    s.see(1);
    let (_, peer) = put(s, 0);
    s.see_peer(before);
    s.see_peer_open(peer);
}

fn beside(s: &mut Script<'_>) {
    s.arm.ring(TABLE);
    let ((busy, other), (on, peer)) = (put(s, 0), put(s, 1));
    s.push("receive", Operation::Receive { on: busy, many: true, cap: 0 });
    s.see_quiet();
    s.push("close", Operation::Close(on));
    s.see(1);
    s.see_peer(peer);
    s.see_peer_open(other);
}
