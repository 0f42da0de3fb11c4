//! Idle connections go to a reactor that has less to do, with all that is known of them, and nobody notices.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use slipring::{
    Builder, CloseReason, Ctx, Handler, Lease, Luggage, Origin, Placement, Timeout, Timeouts,
};
use support::{Server, bounded, connect, eventually, ms, now, read_bytes, two_reactors};

/// Answers each byte with the number of the reactor, and of the byte on its connection.
struct Counting {
    reactor: usize,
    /// Connections of so many of the first slots are not let go.
    keeps: u32,
}

impl Handler for Counting {
    type State = u8;

    fn on_open(&mut self, ctx: &mut Ctx<'_, u8>, _: Origin) {
        assert!(ctx.peer().is_some() && ctx.local().is_some());
    }

    /// Wherever it is by then.
    fn on_close(&mut self, ctx: &mut Ctx<'_, u8>, _: CloseReason) {
        assert!(ctx.peer().is_some() && ctx.local().is_some(), "its addresses did not come along");
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, u8>, data: Lease) {
        for _ in data.iter() {
            *ctx.state() += 1;
            let count = *ctx.state();
            ctx.send(vec![self.reactor as u8, count]);
        }
    }

    fn on_leave(&mut self, ctx: &mut Ctx<'_, u8>) -> Option<Luggage> {
        (ctx.key().index() >= self.keeps).then(|| Box::new(std::mem::take(ctx.state())) as Luggage)
    }

    fn on_arrive(&mut self, ctx: &mut Ctx<'_, u8>, luggage: Luggage) {
        *ctx.state() = *luggage.downcast::<u8>().expect("what was given along");
    }
}

/// Says a byte; which reactor answered, and the number it has of the byte.
fn ask(mut client: &TcpStream) -> (u8, u8) {
    client.write_all(b"?").expect("the server takes a byte");
    let answer = read_bytes(client, 2);
    (answer[0], answer[1])
}

/// A server whose second reactor has lost all of its clients, and those of the first.
fn lopsided(builder: Builder) -> (Server, Vec<TcpStream>) {
    lopsided_with(builder, |reactor| Counting { reactor, keeps: 0 })
}

fn lopsided_with(
    builder: Builder,
    make: impl Fn(usize) -> Counting + Send + Sync + 'static,
) -> (Server, Vec<TcpStream>) {
    let server = Server::start(builder, make);
    let clients: Vec<_> = (0..200).map(|_| connect(server.address)).collect();
    let mut stay = Vec::new();
    for client in clients {
        match ask(&client) {
            (0, 1) => stay.push(client),
            (_, count) => assert_eq!(count, 1),
        }
    }
    assert!(stay.len() >= 80, "they were to be spread: {}", stay.len());
    (server, stay)
}

/// Which reactor has how many; each knows how many bytes its clients have sent.
fn shares(clients: &[TcpStream], count: u8) -> [usize; 2] {
    let mut shares = [0; 2];
    for client in clients {
        let (reactor, counted) = ask(client);
        assert_eq!(counted, count, "its state did not come along");
        shares[usize::from(reactor)] += 1;
    }
    shares
}

#[test]
fn what_is_left_is_spread_again_and_its_state_comes_along() {
    spread_again(|| two_reactors().rebalance(true));
}

/// Each out of the table of one ring and into that of the other.
#[test]
fn what_has_no_descriptor_is_spread_again_too() {
    if support::can_be_direct() {
        spread_again(|| two_reactors().rebalance(true).direct_descriptors(true));
    }
}

fn spread_again(builder: impl FnOnce() -> Builder + Send + 'static) {
    bounded(|| {
        let (server, clients) = lopsided(builder());
        // Half of what one has more, a part at a time, until the other has clearly as many.
        eventually("they are even", || {
            let [first, second] = [0, 1].map(|reactor| server.handle.counters()[reactor].open());
            let all_told = first + second == clients.len() as u64;
            all_told && first.abs_diff(second) <= 8 + 1
        });
        let [first, second] = shares(&clients, 2);
        assert!(first.abs_diff(second) <= 8 + 1, "{first} and {second}");
        // Nobody goes to and fro: those are as many as had to go.
        assert_eq!(server.counters().moved_out, second as u64);
        assert_eq!(shares(&clients, 3), [first, second]);
        let count = clients.len() as u64;
        drop(clients);
        eventually("all are over", || {
            server.handle.counters().iter().all(|counters| counters.open() == 0)
        });
        let counters = server.finish();
        assert_eq!((counters.accepted, counters.moved_in), (200, second as u64));
        assert_eq!(counters.handler_panics, 0);
        assert!(count >= counters.moved_in);
    });
}

#[test]
fn who_talks_stays() {
    bounded(|| {
        let (server, clients) = lopsided(two_reactors().rebalance(true));
        let until = now() + ms(2500);
        let mut count = 1;
        while now() < until {
            count += 1;
            assert_eq!(shares(&clients, count), [clients.len(), 0]);
            std::thread::park_timeout(ms(200));
        }
        assert_eq!(server.counters().moved_out, 0);
        drop(clients);
        server.finish();
    });
}

#[test]
fn who_was_put_where_it_is_stays_and_so_do_all_by_default() {
    bounded(|| {
        for builder in [two_reactors(), two_reactors().rebalance(true).placement(Placement::Kernel)]
        {
            let server = Server::start(builder, |reactor| Counting { reactor, keeps: 0 });
            let all: Vec<_> = (0..60).map(|_| connect(server.address)).collect();
            let clients: Vec<_> = all.into_iter().filter(|client| ask(client) == (0, 1)).collect();
            assert!(clients.len() > 8, "the kernel gave the first reactor {}", clients.len());
            std::thread::park_timeout(ms(2500));
            assert_eq!(shares(&clients, 2), [clients.len(), 0]);
            assert_eq!(server.counters().moved_out, 0);
            drop(clients);
            server.finish();
        }
    });
}

#[test]
fn an_idle_timeout_goes_on_where_it_was() {
    bounded(|| {
        let idle = Timeout::After(Duration::from_secs(4));
        let timeouts = Timeouts { idle, ..Timeouts::default() };
        let (server, clients) = lopsided(two_reactors().rebalance(true).timeouts(timeouts));
        let since = now();
        eventually("some have moved", || server.counters().moved_out > 20);
        eventually("all are over", || {
            server.handle.counters().iter().all(|counters| counters.open() == 0)
        });
        let took = since.elapsed();
        assert!(took > ms(3500), "they were ended for moving: {took:?}");
        assert!(took < ms(4900), "an idle timeout of 4 s began anew: {took:?}");
        drop(clients);
        server.finish();
    });
}

/// Those in the first slots stay: they are asked once, and then the others are.
#[test]
fn who_is_kept_by_the_handler_stays_and_does_not_keep_others() {
    bounded(|| {
        let builder = two_reactors().rebalance(true);
        let (server, clients) = lopsided_with(builder, |reactor| Counting { reactor, keeps: 70 });
        eventually("others go", || server.counters().moved_out > 10);
        assert!(server.counters().moves_given_up > 0, "nobody was asked to stay");
        let [first, second] = shares(&clients, 2);
        assert!(first >= 70 && second > 0, "{first} and {second}");
        drop(clients);
        server.finish();
    });
}

#[test]
fn a_handler_that_keeps_all_of_them_keeps_them() {
    bounded(|| {
        let builder = two_reactors().rebalance(true);
        let (server, clients) = lopsided_with(builder, |reactor| Counting { reactor, keeps: 1000 });
        eventually("they are asked", || server.counters().moves_given_up > 0);
        assert_eq!(shares(&clients, 2), [clients.len(), 0]);
        assert_eq!(server.counters().moved_out, 0);
        drop(clients);
        server.finish();
    });
}
