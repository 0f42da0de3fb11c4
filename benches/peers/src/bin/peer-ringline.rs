//! Echo on ringline: its io_uring backend, received buffers forwarded in place.
//!
//! It makes the listening socket itself and does not tell the port the kernel picked, so a free one
//! is looked for first.

use std::net::TcpListener;

use ringline::{AsyncEventHandler, ConfigBuilder, ConnCtx, RinglineBuilder};
use slipring_peers::{BACKLOG, Options, announce};

/// Connections it makes room for: what the benches open, and some.
const CONNECTIONS: u32 = 12_000;

struct Echo;

async fn echo(connection: ConnCtx) {
    connection.enable_recv_forward();
    loop {
        connection.recv_ready().await;
        let Ok(sent) = connection.forward_held() else { return };
        let Ok(1..) = sent.await else { return };
    }
}

impl AsyncEventHandler for Echo {
    fn on_accept(&self, connection: ConnCtx) -> impl Future<Output = ()> + 'static {
        echo(connection)
    }

    fn create_for_worker(_worker: usize) -> Self {
        Self
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse_and_pin()?;
    let address = TcpListener::bind(options.listen)?.local_addr()?;
    let config = ConfigBuilder::new()
        .workers(1)
        .pin_to_core(true)
        .core_offset(options.cpu)
        .sq_entries(4096)
        .recv_buffer(1024, 16 * 1024)
        .max_connections(CONNECTIONS)
        .backlog(BACKLOG)
        .tcp_nodelay(true)
        .build()?;
    let (_shutdown, workers) = RinglineBuilder::new(config).bind(address).launch::<Echo>()?;
    announce(address)?;
    for worker in workers {
        worker.join().expect("a worker does not panic")?;
    }
    Ok(())
}
