//! The driver that does nothing hands out what was prepared, and takes every send.

use slipring_core::driver::Driver as _;
use slipring_core::reactor::Reactor;
use slipring_core::token::Descriptor;
use slipring_core::{Ctx, Handler, Lease, Limits, Listen, Poll, Team, Timeouts};
use slipring_sim::Null;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

#[test]
fn an_echo_runs_over_it() {
    let limits = Limits { accepted_max: 64, backlog: 16, buffers: 64, ..Limits::default() };
    let team = Team::new((1, &[Listen::new()]), limits, Timeouts::default(), Poll::Off, 0);
    let setup = team.setup(0, vec![Descriptor(3)]);
    let mut reactor = Reactor::new(Null::new(&limits), Echo, setup);
    reactor.start();
    reactor.driver().connect(10);
    for _ in 0..3 {
        reactor.turn().expect("it never fails");
    }
    assert_eq!(reactor.driver().receiving(), 10);
    let pushed = reactor.driver().pushed();
    for _ in 0..100 {
        reactor.driver().deliver(10, 64);
        reactor.turn().expect("it never fails");
    }
    reactor.turn().expect("it never fails");
    let counters = reactor.counters();
    assert_eq!((counters.bytes_received, counters.bytes_sent), (64_000, 64_000));
    assert_eq!(reactor.driver().pushed() - pushed, 1000, "one send for each message");
    assert_eq!(reactor.driver().memory().buffers_free(), 64);
}
