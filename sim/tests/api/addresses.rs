//! What a handler learns of its connections: whose they are, and how they go.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use slipring::{CloseReason, Ctx, Handler, Lease, Origin};
use slipring_sim::{Script, Sim, check};

/// An echo with a log of its clients. It counts the bytes that come from each.
struct Logs {
    log: Rc<RefCell<Vec<(SocketAddr, CloseReason)>>>,
}

impl Handler for Logs {
    type State = u64;

    fn on_open(&mut self, ctx: &mut Ctx<'_, u64>, _: Origin) {
        assert!(ctx.peer().is_some() && ctx.local().is_some());
        assert_eq!(ctx.info().expect("it is open").acked_bytes, 0);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, u64>, data: Lease) {
        *ctx.state() += data.len() as u64;
        let came = *ctx.state();
        let info = ctx.info().expect("it is open");
        assert!(info.received_bytes >= came, "{info:?}: {came} bytes came");
        assert!(info.acked_bytes <= came && info.send_mss_bytes > 0, "{info:?}");
        assert!(info.rtt_us >= info.min_rtt_us && info.min_rtt_us > 0, "{info:?}");
        ctx.send(data);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, u64>, reason: CloseReason) {
        assert_eq!(ctx.info(), None, "its descriptor is gone");
        self.log.borrow_mut().push((ctx.peer().expect("it was asked for"), reason));
    }
}

#[test]
fn a_log_of_connections_names_each_client_however_it_ends() {
    let mut resets = 0;
    check(200, |seed| {
        let logs = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&logs);
        let mut sim = Sim::new(seed, move |_| Logs { log: Rc::clone(&log) });
        sim.connect(Script::new().send(b"hello").expect(b"hello").shutdown().expect_end());
        sim.run();
        sim.connect(Script::new().send(b"more").reset());
        sim.run();
        sim.finish();
        let logs = logs.take();
        assert_eq!(logs.len(), 2);
        assert_ne!(logs[0].0, logs[1].0, "each has a port of its own");
        resets += usize::from(logs[1].1 == CloseReason::Reset);
    });
    assert!(resets > 100, "{resets}");
}
