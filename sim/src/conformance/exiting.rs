//! The end of a ring: what it held of files is let go of, but not before its close returns.

use slipring_core::sys::bare::{File, Operation, Setup};

use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "exit-receive",
        "a ring that exits ends its operations, and closes what only they held",
        pending,
    ),
    Case::new("exit-table", "a ring that exits closes what is in its table", table),
    Case::new(
        "exit-descriptor",
        "a descriptor that a ring accepted is the process's, and stays",
        descriptor,
    ),
    Case::new(
        "exit-listener",
        "a listener that only an accept held is closed with the ring",
        listener,
    ),
];

fn pending(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.receive(ours);
    s.see_quiet();
    s.close(ours);
    s.see(1);
    s.arm.exit(0);
    s.see_peer(peer);
}

fn table(s: &mut Script<'_>) {
    s.arm.ring(Setup { places: 1, ..Setup::SMALL });
    let (listener, _, peers) = s.listen_to(8, 1);
    let on = File::Descriptor(listener);
    s.push("accept", Operation::Accept { on, many: false, direct: true });
    s.see(1);
    s.arm.exit(0);
    s.see_peer(peers[0]);
}

fn descriptor(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, peers) = s.listen_to(8, 1);
    s.accept(listener, false);
    s.see(1);
    s.arm.exit(0);
    s.see_peer_open(peers[0]);
}

fn listener(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, at) = s.arm.listen(8, None);
    s.accept(listener, true);
    s.see_quiet();
    s.close(listener);
    s.see(1);
    s.arm.exit(0);
    // It takes a while: who comes until then is reset.
    let mut refused = false;
    for _ in 0..super::script::PIECES_MAX {
        let client = s.arm.dial(at);
        if let super::Dialed::Failed(libc::ECONNREFUSED) = s.arm.dialed(client, super::Time::Long) {
            refused = true;
            break;
        }
        s.arm.read(client, 1, super::Time::Quiet);
    }
    s.say(if refused { "refused" } else { "still there" });
}
