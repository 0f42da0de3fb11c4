//! Who is at either end of a connection, and how it goes, on the real kernel: over IPv4 and IPv6, accepted and dialed,
//! with a descriptor and without, after the peer has reset, and once all is over.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};

use slipring::{
    Builder, CloseReason, Connections, Ctx, Handler, Lease, Limits, Origin, Runtime, TcpInfo,
};
use support::{
    PATIENCE, Server, accept, alone, bounded, can_be_direct, connect, descriptors, echo_pattern,
    eventually, listener, one_reactor, ping, refusing, reset, spawn,
};

/// Runs a test with none of the others beside it: one of them counts descriptors.
fn singly(test: impl FnOnce() + Send + 'static) {
    bounded(|| {
        let _alone = alone();
        test();
    });
}

/// What a handler was told at a moment.
#[derive(Debug)]
struct Seen {
    when: &'static str,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    info: Option<TcpInfo>,
}

/// An echo that asks everything, from every callback but those it is told to leave out.
struct Asks {
    tell: Sender<Seen>,
    not_in: &'static str,
    dials: Option<SocketAddr>,
    /// Passed twice by whoever sends an `!`, before anything is asked.
    gate: Option<Arc<Barrier>>,
}

impl Asks {
    fn ask(&self, ctx: &mut Ctx<'_, ()>, when: &'static str) {
        if when != self.not_in {
            let (info, peer, local) = (ctx.info(), ctx.peer(), ctx.local());
            // The test may have seen enough.
            let _ = self.tell.send(Seen { when, peer, local, info });
        }
    }
}

impl Handler for Asks {
    type State = ();

    fn on_start(&mut self, connections: &mut Connections<()>) {
        if let Some(to) = self.dials {
            connections.dial(to, ()).expect("room for a dial");
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _: Origin) {
        self.ask(ctx, "open");
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        if let Some(gate) = self.gate.as_ref().filter(|_| *data == *b"!") {
            gate.wait();
            gate.wait();
        }
        self.ask(ctx, "data");
        ctx.send(data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, ()>) {
        self.ask(ctx, "eof");
        ctx.close();
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, ()>, _: CloseReason) {
        self.ask(ctx, "close");
    }
}

/// What the handler is told, one after the other.
struct Told(Receiver<Seen>);

impl Told {
    /// The next, which is of this moment.
    #[track_caller]
    fn next(&self, when: &str) -> Seen {
        let seen = self.0.recv_timeout(PATIENCE).expect("a handler is told something");
        assert_eq!(seen.when, when, "{seen:?}");
        seen
    }

    /// The same, with both addresses as they should be; how it goes.
    #[track_caller]
    fn expect(&self, when: &str, peer: SocketAddr, local: SocketAddr) -> Option<TcpInfo> {
        let seen = self.next(when);
        assert_eq!((seen.peer, seen.local), (Some(peer), Some(local)), "{when}");
        seen.info
    }
}

fn start(builder: Builder, not_in: &'static str) -> (Server, Told) {
    start_with(builder, not_in, None, None)
}

fn start_with(
    builder: Builder,
    not_in: &'static str,
    dials: Option<SocketAddr>,
    gate: Option<Arc<Barrier>>,
) -> (Server, Told) {
    let (tell, told) = channel();
    let builder = match dials {
        Some(_) => builder.limits(Limits { dialed_max: 1, accepted_max: 8, ..Limits::default() }),
        None => builder,
    };
    let make = move |_| Asks { tell: tell.clone(), not_in, dials, gate: gate.clone() };
    (Server::start(builder, make), Told(told))
}

fn listening_at(address: &str) -> Builder {
    let address = address.parse().expect("an address");
    Runtime::builder().cores([support::cores()[0]]).listen(address).max_connections(8)
}

fn own(client: &TcpStream) -> SocketAddr {
    client.local_addr().expect("an open socket")
}

/// A connection that comes, says something twice and ends.
fn whole_life(builder: Builder) {
    let (server, told) = start(builder, "");
    let client = connect(server.address);
    let (peer, local) = (own(&client), server.address);
    let fresh = told.expect("open", peer, local).expect("it is open");
    assert!(fresh.rtt_us > 0 && fresh.send_mss_bytes > 0, "{fresh:?}");
    assert_eq!((fresh.received_bytes, fresh.retransmits, fresh.lost_segments), (0, 0, 0));
    assert!(fresh.congestion_window_segments > 0, "{fresh:?}");
    ping(&client, b"hello");
    let first = told.expect("data", peer, local).expect("it is open");
    assert_eq!((first.received_bytes, first.acked_bytes), (5, 0));
    ping(&client, b"again");
    // The second message has acknowledged the echo of the first.
    let second = told.expect("data", peer, local).expect("it is open");
    assert_eq!((second.received_bytes, second.acked_bytes), (10, 5));
    assert!(second.delivery_bytes_per_s > 0 && second.min_rtt_us > 0, "{second:?}");
    assert!(second.min_rtt_us <= second.rtt_us && second.rtt_us < 10_000_000, "{second:?}");
    drop(client);
    let last = told.expect("eof", peer, local).expect("it is open");
    assert!(last.received_bytes >= 10 && last.acked_bytes >= 5, "{last:?}");
    assert!(told.expect("close", peer, local).is_none(), "its descriptor is gone");
    server.finish();
}

#[test]
fn a_client_of_ipv4() {
    singly(|| whole_life(one_reactor()));
}

#[test]
fn a_client_of_ipv6() {
    singly(|| whole_life(listening_at("[::1]:0")));
}

/// As the kernel has it, which is for whoever writes it down to make canonical.
#[test]
fn a_client_of_ipv4_at_a_listener_of_ipv6() {
    singly(|| {
        let (server, told) = start(listening_at("[::]:0"), "");
        let client = connect(([127, 0, 0, 1], server.address.port()).into());
        let seen = told.next("open");
        let canonical = |address: Option<SocketAddr>| {
            address.map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
        };
        assert!(seen.peer.is_some_and(|peer| peer.is_ipv6()));
        assert_eq!(canonical(seen.peer), Some(own(&client)));
        assert_eq!(canonical(seen.local), client.peer_addr().ok());
        drop(client);
        server.finish();
    });
}

#[test]
fn a_client_without_a_descriptor() {
    singly(|| {
        if can_be_direct() {
            whole_life(one_reactor().direct_descriptors(true));
        }
    });
}

/// Asked for the first time when it is in the table; others go on meanwhile, and nothing is left behind.
#[test]
fn what_is_in_the_table_is_asked_for_through_the_ring() {
    singly(|| {
        if !can_be_direct() {
            return;
        }
        let (server, told) = start(one_reactor().direct_descriptors(true), "open");
        let client = connect(server.address);
        ping(&client, b"hello");
        let info = told.expect("data", own(&client), server.address).expect("it is open");
        assert_eq!(info.received_bytes, 5);
        let before = descriptors();
        let address = server.address;
        let many: Vec<_> = (0..8)
            .map(|seed| spawn(move || echo_pattern(&connect(address), seed, 1 << 20, 50_000)))
            .collect();
        many.into_iter().for_each(|one| one.join().expect("every byte comes back"));
        eventually("all but one are over", || server.counters().closed == 8);
        assert_eq!(descriptors(), before, "each was for the moment");
        drop(client);
        server.wait_until_over(9);
        let all: Vec<Seen> = told.0.try_iter().collect();
        assert!(all.iter().all(|seen| seen.peer.is_some()), "each was asked about in time");
        assert!(all.len() > 8 * 2);
        server.finish();
    });
}

#[test]
fn a_dialed_connection() {
    singly(|| {
        let (upstream, to) = listener();
        let (server, told) = start_with(one_reactor(), "", Some(to), None);
        let served = accept(&upstream);
        let local = served.peer_addr().expect("it is connected");
        assert!(told.expect("open", to, local).is_some());
        ping(&served, b"hello");
        let info = told.expect("data", to, local).expect("it is open");
        assert_eq!(info.received_bytes, 5);
        reset(served);
        assert!(told.expect("close", to, local).is_none());
        server.finish();
    });
}

#[test]
fn a_dial_that_is_refused() {
    singly(|| {
        let (_bound, to) = refusing();
        let (server, told) = start_with(one_reactor(), "", Some(to), None);
        let seen = told.next("close");
        assert_eq!((seen.peer, seen.local, seen.info), (Some(to), None, None));
        server.finish();
    });
}

/// Between a reset and its discovery: getpeername(2) would refuse.
fn already_reset(builder: Builder) {
    let gate = Arc::new(Barrier::new(2));
    let (server, told) = start_with(builder, "open", None, Some(Arc::clone(&gate)));
    let client = connect(server.address);
    let peer = own(&client);
    std::io::Write::write_all(&mut &client, b"!").expect("the server takes a byte");
    gate.wait();
    reset(client);
    gate.wait();
    let info = told.expect("data", peer, server.address).expect("its descriptor is open");
    assert_eq!(info.received_bytes, 1);
    assert!(told.expect("close", peer, server.address).is_none());
    server.finish();
}

#[test]
fn a_client_that_has_reset() {
    singly(|| {
        already_reset(one_reactor());
        already_reset(listening_at("[::1]:0"));
    });
}

#[test]
fn a_client_without_a_descriptor_that_has_reset() {
    singly(|| {
        if can_be_direct() {
            already_reset(one_reactor().direct_descriptors(true));
        }
    });
}

#[test]
fn who_did_not_ask_in_time_is_told_nothing_at_the_end() {
    singly(|| {
        let (tell, told) = channel();
        let server = Server::start(one_reactor(), move |_| Late(tell.clone()));
        drop(connect(server.address));
        let seen = told.recv_timeout(PATIENCE).expect("it ends");
        assert_eq!((seen.peer, seen.local, seen.info), (None, None, None));
        server.finish();
    });
}

/// Asks at the end only.
struct Late(Sender<Seen>);

impl Handler for Late {
    type State = ();

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {}

    fn on_close(&mut self, ctx: &mut Ctx<'_, ()>, _: CloseReason) {
        let (peer, local, info) = (ctx.peer(), ctx.local(), ctx.info());
        let _ = self.0.send(Seen { when: "close", peer, local, info });
    }
}

/// A second listener tells where a client came to.
#[test]
fn this_end_is_that_of_the_listener() {
    singly(|| {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (server, told) = start(one_reactor().listen(any), "");
        let addresses = server.running().addresses().to_vec();
        assert_ne!(addresses[0], addresses[1]);
        for address in addresses {
            let client = connect(address);
            let peer = own(&client);
            told.expect("open", peer, address);
            drop(client);
            told.expect("eof", peer, address);
            told.expect("close", peer, address);
        }
        server.finish();
    });
}
