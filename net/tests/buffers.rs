//! The buffer ring is a shared, small thing: with few buffers all make progress, a reader that does not read
//! takes a bounded part of memory, and hundreds of them do not stop one that does.

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use slipring::{CloseReason, Ctx, Handler, Lease, Limits, Timeout, Timeouts};
use support::{
    Echo, Halting, Journal, Rng, Server, What, alone, bounded, connect, connect_narrow, ms, now,
    one_reactor, ping, read_bytes, read_pattern, resident_bytes, stuff,
};

const PROBES: usize = 200;

/// Messages there and back, one after the other; the slowest but one in a hundred.
fn probe(stream: &TcpStream) -> Duration {
    let mut times: Vec<Duration> = (0..PROBES)
        .map(|_| {
            let sent = now();
            ping(stream, &[42; 500]);
            sent.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[PROBES * 99 / 100 - 1]
}

#[test]
fn sixteen_buffers_serve_five_hundred_busy_connections() {
    bounded(|| {
        let _alone = alone();
        let limits = Limits { buffers: 16, buffer_bytes: 2048, ..Limits::default() };
        let limits = Limits { accepted_max: 600, ..limits };
        let server = Server::start(one_reactor().limits(limits), |_| Echo);
        let address = server.address;
        std::thread::scope(|scope| {
            for thread in 0..5 {
                scope.spawn(move || {
                    let mut rng = Rng::new(thread);
                    let clients: Vec<_> = (0..100).map(|_| connect(address)).collect();
                    for round in 0..10_u8 {
                        // All write before any reads: 500 messages at once.
                        let sizes: Vec<usize> = clients.iter().map(|_| rng.up_to(8000)).collect();
                        for (mut client, &size) in clients.iter().zip(&sizes) {
                            client.write_all(&vec![round; size]).expect("the server takes it");
                        }
                        for (client, &size) in clients.iter().zip(&sizes) {
                            assert_eq!(read_bytes(client, size), vec![round; size]);
                        }
                    }
                });
            }
        });
        let counters = server.finish();
        assert_eq!(counters.accepted, 500);
        assert!(counters.receives_parked > 0, "16 buffers were never too few");
        // Waiting for a buffer is no loop: turns stay in proportion to messages.
        assert!(counters.turns < 500 * 10 * 20, "{} turns", counters.turns);
    });
}

#[test]
fn a_reader_that_does_not_read_costs_bounded_memory_and_others_nothing() {
    bounded(|| {
        let _alone = alone();
        let limits = Limits {
            accepted_max: 64,
            buffers: 64,
            buffer_bytes: 16 << 10,
            owned_bytes_max: 2 << 20,
            ..Limits::default()
        };
        let before = resident_bytes();
        let server = Server::start(one_reactor().limits(limits), |_| Echo);
        let bound = server.running().memory_bound();
        let lazy: Vec<_> = (0..20).map(|_| connect(server.address)).collect();
        let taken: Vec<u64> = std::thread::scope(|scope| {
            let stuffers: Vec<_> =
                lazy.iter().map(|client| scope.spawn(move || stuff(client, 1))).collect();
            stuffers.into_iter().map(|s| s.join().expect("a stuffer")).collect()
        });
        let total: u64 = taken.iter().sum();
        let grown = resident_bytes().saturating_sub(before);
        assert!(total > 2 * bound, "only {total} bytes are under way, the bound is {bound}");
        // The clients' own buffers and stacks are in it too.
        assert!(grown < bound + (16 << 20), "grown by {grown} B, the bound is {bound} B");
        let slowest = probe(&connect(server.address));
        assert!(slowest < ms(50), "others wait for {slowest:?}");
        // They were only lazy: what they sent still comes back.
        for (client, &taken) in lazy.iter().zip(&taken) {
            client.shutdown(Shutdown::Write).expect("an open socket");
            assert_eq!(read_pattern(client, 1).expect("all of it"), taken);
        }
        server.finish();
    });
}

/// Clients that stop reading with as many bytes on their way as fit.
fn stall(server: &Server, count: usize) -> Vec<TcpStream> {
    let clients: Vec<_> = (0..count).map(|_| connect_narrow(server.address)).collect();
    for client in &clients {
        client.set_nonblocking(true).expect("an open socket");
    }
    let block = vec![1; 64 << 10];
    // Until nobody's socket takes more for a while.
    let mut quiet = 0;
    while quiet < 50 {
        let mut taken = 0;
        for mut client in &clients {
            while let Ok(bytes) = client.write(&block) {
                taken += bytes;
            }
        }
        quiet = if taken == 0 { quiet + 1 } else { 0 };
        std::thread::park_timeout(ms(2));
    }
    clients
}

#[test]
fn three_hundred_stalled_readers_do_not_stop_a_probe() {
    bounded(|| {
        let _alone = alone();
        let limits = Limits { accepted_max: 512, ..Limits::default() };
        let server = Server::start(one_reactor().limits(limits), |_| Echo);
        let stalled = stall(&server, 300);
        let slowest = probe(&connect(server.address));
        assert!(slowest < ms(50), "the probe waits for {slowest:?}");
        drop(stalled);
        server.wait_until_over(301);
        ping(&connect(server.address), b"all is back");
        let counters = server.finish();
        assert!(counters.buffers_spilled > 0, "300 readers held no buffer that was needed");
    });
}

/// While they come to their stall, what they stream is in all buffers there are.
#[test]
fn three_hundred_that_stream_leave_a_probe_its_buffers() {
    bounded(|| {
        let _alone = alone();
        let limits = Limits { accepted_max: 512, ..Limits::default() };
        let server = Server::start(one_reactor().limits(limits), |_| Echo);
        let clients: Vec<_> = (0..300).map(|_| connect_narrow(server.address)).collect();
        for client in &clients {
            client.set_nonblocking(true).expect("an open socket");
        }
        let block = vec![1; 1 << 20];
        for mut client in &clients {
            while client.write(&block).is_ok() {}
        }
        let slowest = probe(&connect(server.address));
        assert!(slowest < ms(20), "the probe waits for {slowest:?}");
        drop(clients);
        let counters = server.finish();
        assert!(counters.receives_parked > 0, "there were buffers enough");
    });
}

/// Spilling has a bound too. Once that is reached, others wait, until the stalled ones' deadline.
#[test]
fn stalled_readers_that_hold_everything_go_at_their_deadline() {
    bounded(|| {
        let _alone = alone();
        let limits = Limits {
            accepted_max: 512,
            buffers: 16,
            buffer_bytes: 4096,
            owned_bytes_max: 64 << 10,
            ..Limits::default()
        };
        let timeouts = Timeouts { write_stall: Timeout::After(ms(1500)), ..Timeouts::default() };
        let server = Server::start(one_reactor().limits(limits).timeouts(timeouts), |_| Echo);
        let stalled = stall(&server, 100);
        ping(&connect(server.address), b"there is a way");
        drop(stalled);
        server.wait_until_over(101);
        let stalls = |what| what == What::Close(CloseReason::WriteStall);
        assert!(server.journal.count(stalls) > 0, "nobody stalled");
        server.finish();
    });
}

/// Notes how full its connection's outbox ever was.
struct Watches {
    journal: Journal,
    most: u32,
}

impl Handler for Watches {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
        let key = ctx.key();
        self.most = self.most.max(ctx.outbox_bytes(key));
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, ()>, _reason: CloseReason) {
        self.journal.note(0, ctx.key(), What::Note(u64::from(self.most)));
    }
}

/// Reading stops at the high watermark: beyond it comes no more than one share of a turn, and what the
/// kernel had delivered by then.
#[test]
fn an_outbox_stays_near_its_watermark() {
    bounded(|| {
        let _alone = alone();
        let limits = Limits { accepted_max: 64, ..Limits::default() };
        let most = u64::from(limits.outbox_high_bytes + 2 * limits.turn_bytes_max);
        let journal = Journal::new();
        let notes = journal.clone();
        let server = Server::start_with(one_reactor().limits(limits), Journal::new(), move |_| {
            Watches { journal: notes.clone(), most: 0 }
        });
        let client = connect_narrow(server.address);
        let taken = stuff(&client, 1);
        assert!(taken > 1 << 20, "only {taken} bytes were taken");
        drop(client);
        let note = journal.nth(0, |_| true, "the outbox");
        let What::Note(seen) = note.what else { unreachable!("nothing else is noted") };
        assert!(seen >= u64::from(limits.outbox_high_bytes), "never full: {seen}");
        assert!(seen <= most, "{seen} bytes in an outbox");
        server.finish();
    });
}

/// Only a few buffers are with the kernel until they do not suffice.
#[test]
fn a_burst_finds_the_buffers_that_a_calm_server_keeps_back() {
    bounded(|| {
        let gate = Arc::new(Barrier::new(2));
        let halting = Halting { gate: Arc::clone(&gate) };
        let server = Server::start(one_reactor(), move |_| halting.clone());
        let clients: Vec<_> = (0..200).map(|_| connect(server.address)).collect();
        clients.iter().for_each(|client| ping(client, b"hello"));
        assert_eq!(server.counters().receives_parked, 0, "one after the other needs few");
        for round in 0..20_u8 {
            let mut halted = connect(server.address);
            halted.write_all(&[0]).expect("a connection");
            gate.wait();
            for mut client in &clients {
                client.write_all(&[round + 1; 100]).expect("a connection");
            }
            gate.wait();
            for client in &clients {
                assert_eq!(read_bytes(client, 100), [round + 1; 100]);
            }
        }
        drop(clients);
        // 200 at once: 32, then 64, then 128 were too few.
        let parked = server.finish().receives_parked;
        assert!((1..=400).contains(&parked), "{parked} receives were parked");
    });
}
