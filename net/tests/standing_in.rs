//! A handler that blocks for three seconds: those whose connections are on another reactor notice nothing, and those
//! who come meanwhile are served by the others, whichever listener the kernel gave them to.

mod support;

use std::io::Write;
use std::time::Duration;

use slipring::{Ctx, Handler, Lease, Placement};
use support::{Server, What, bounded, connect, eventually, now, ping, read_bytes, two_reactors};

const BLOCKS: Duration = Duration::from_secs(3);
/// The watch notices after a second, give or take a tenth, and the clients are found within 20 ms. The rest is for
/// a busy machine.
const SERVED_WITHIN: Duration = Duration::from_millis(2500);
const CLIENTS: usize = 40;

/// Echoes; `block` is answered after a while.
struct Blocks;

impl Handler for Blocks {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        if &data[..] == b"block" {
            let until = now() + BLOCKS;
            while now() < until {
                std::thread::park_timeout(until - now());
            }
        }
        ctx.send(data);
    }
}

fn opened_by(server: &Server, reactor: usize) -> usize {
    let entries = server.journal.entries();
    let opened =
        |entry: &&support::Entry| matches!(entry.what, What::Open(_)) && entry.reactor == reactor;
    entries.iter().filter(opened).count()
}

#[test]
fn a_handler_that_blocks_holds_up_its_own_connections_only() {
    bounded(|| {
        // So that the kernel's choice is not corrected: the stalled one's listener gets its share.
        let builder = two_reactors().placement(Placement::Kernel).max_connections(4096);
        let server = Server::start(builder, |_| Blocks);
        let blocker = connect(server.address);
        ping(&blocker, b"hello");
        let stalled = usize::from(opened_by(&server, 1) == 1);
        let other = loop {
            let client = connect(server.address);
            let before = opened_by(&server, 1 - stalled);
            ping(&client, b"hello");
            if opened_by(&server, 1 - stalled) > before || before > 0 {
                break client;
            }
        };
        let before = opened_by(&server, stalled);

        let begun = now();
        (&blocker).write_all(b"block").expect("the kernel takes it");
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect(server.address)).collect();
        for mut client in &clients {
            client.write_all(b"hello").expect("the kernel takes it");
        }
        // Another reactor's connection, all the while.
        let mut longest = Duration::ZERO;
        while begun.elapsed() < Duration::from_millis(500) {
            let sent = now();
            ping(&other, b"meanwhile");
            longest = longest.max(sent.elapsed());
        }
        assert!(
            longest < Duration::from_millis(250),
            "a ping of the other reactor took {longest:?}"
        );
        for client in &clients {
            assert_eq!(read_bytes(client, 5), b"hello");
        }
        let took = begun.elapsed();
        assert!(took < SERVED_WITHIN, "those who came meanwhile waited for {took:?}");
        assert_eq!(opened_by(&server, stalled), before, "clients went to the one that blocks");

        assert_eq!(read_bytes(&blocker, 5), b"block");
        assert!(begun.elapsed() >= BLOCKS);
        eventually("it turns again", || server.counters().stalls == 1);
        eventually("the other has accepted for it", || server.counters().stood_in > 0);
        // And has its share again.
        eventually("it gets clients", || {
            ping(&connect(server.address), b"hello");
            opened_by(&server, stalled) > before
        });
        drop((clients, blocker, other));
        server.finish();
    });
}
