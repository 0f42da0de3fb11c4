//! Faults on real sockets: each of Toxiproxy's eight as its peers see it, and what a relay with faults still promises.

#[path = "faults/dials.rs"]
mod dials;
#[path = "faults/effects.rs"]
mod effects;
#[path = "faults/promises.rs"]
mod promises;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use slipring::faults::Faults;
use slipring::{Conn, Relayed, Serving, dial};

use crate::support::{self, PATIENCE, accept, connect, end, now, one_reactor, reporting};

fn faults(rules: &str) -> Faults {
    Faults::new(rules.parse().expect("rules"), 11).expect("they make sense")
}

/// A relay with faults, and how its relays ended.
struct Proxy {
    serving: Serving,
    told: mpsc::Receiver<Relayed>,
    upstream: TcpListener,
}

impl Proxy {
    fn start(faults: &Faults) -> Self {
        let (listener, upstream) = support::listener();
        let faults = faults.clone();
        let builder = one_reactor().max_dialed(16);
        let (serving, told) = reporting(builder, move |client: Conn, tell: mpsc::Sender<_>| {
            let faults = faults.clone();
            async move {
                let server = dial(upstream).await.expect("it listens");
                let relayed = faults.relay(client, server, "front", "web").await;
                // Nobody may wait for it.
                let _ = tell.send(relayed);
            }
        });
        Self { serving, told, upstream: listener }
    }

    fn of(rules: &str) -> Self {
        Self::start(&faults(rules))
    }

    fn address(&self) -> SocketAddr {
        self.serving.addresses()[0]
    }

    /// A client, and what it was relayed to.
    #[track_caller]
    fn ends(&self) -> (TcpStream, TcpStream) {
        let client = connect(self.address());
        (client, accept(&self.upstream))
    }

    #[track_caller]
    fn relayed(&self) -> Relayed {
        self.told.recv_timeout(PATIENCE).expect("it ended")
    }

    fn end(self) {
        end(self.serving);
    }
}

/// How long that took.
fn took<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let began = now();
    let done = act();
    (done, began.elapsed())
}
