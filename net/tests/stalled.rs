//! A reactor that does not turn is named in the log, with the callback that blocks it and the slot it is called for.

mod support;

use std::fmt::Write as _;
use std::io::Write;
use std::net::Shutdown;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use slipring::{CloseReason, Conn, Connections, Ctx, Handler, Lease, Origin, Serve};
use support::{
    Server, bounded, connect, eventually, expect_eof, now, one_reactor, ping, read_bytes,
};

/// The watch looks ten times a second for those that have not turned for one.
const BLOCKS: Duration = Duration::from_millis(1300);

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what is logged.
struct Keeps;

impl tracing::Subscriber for Keeps {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        let mut write = |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "message" {
                let _ = write!(line, "{value:?}");
            }
        };
        event.record(&mut write);
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn lines() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn block() {
    let until = now() + BLOCKS;
    while now() < until {
        std::thread::park_timeout(until - now());
    }
}

/// Blocks when it starts, and for whoever has said `block`, in every callback from then on.
struct Blocks;

impl Handler for Blocks {
    type State = bool;

    fn on_start(&mut self, _: &mut Connections<bool>) {
        block();
    }

    fn on_open(&mut self, _: &mut Ctx<'_, bool>, _: Origin) {}

    fn on_data(&mut self, ctx: &mut Ctx<'_, bool>, data: Lease) {
        *ctx.state() = &data[..] == b"block";
        if *ctx.state() {
            block();
        }
        ctx.send(data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, bool>) {
        if *ctx.state() {
            block();
        }
        ctx.close();
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, bool>, _: CloseReason) {
        if *ctx.state() {
            block();
        }
    }
}

#[test]
fn the_log_says_which_callback_blocks_and_of_which_slot() {
    tracing::subscriber::set_global_default(Keeps).expect("nobody else listens");
    bounded(|| {
        let server = Server::start(one_reactor(), |_| Blocks);
        let named = |what: &str| {
            eventually(what, || {
                lines().iter().any(|line| {
                    line.starts_with("reactor 0 has not turned for 1.") && line.ends_with(what)
                })
            });
        };
        named(" s: on_start");
        let (other, mut client) = (connect(server.address), connect(server.address));
        ping(&other, b"hello");
        ping(&client, b"hello");
        let slot = server.journal.nth_open(1).key.index();
        client.write_all(b"block").expect("the kernel takes it");
        named(&format!(" s: on_data of slot {slot}"));
        assert_eq!(read_bytes(&client, 5), b"block");
        client.shutdown(Shutdown::Write).expect("an open socket");
        named(&format!(" s: on_eof of slot {slot}"));
        expect_eof(&client);
        drop(client);
        named(&format!(" s: on_close of slot {slot}"));
        ping(&other, b"still there");
        eventually("it turns again", || server.counters().stalls == 4);
        let stalls = lines().iter().filter(|line| line.contains("has not turned")).count();
        assert_eq!(stalls, 4, "each is told once: {:?}", lines());
        drop(other);
        server.finish();

        let serving = one_reactor().serve(blocking_tasks).expect("it starts");
        let mut client = connect(serving.addresses()[0]);
        let slot = client_slot(&client);
        client.write_all(b"block").expect("the kernel takes it");
        named(&format!(" s: on_turn, the task of slot {slot}"));
        named(" s: on_turn, a task beside");
        expect_eof(&client);
        drop(client);
        serving.handle().drain();
        serving.join().expect("a drain in order");
    });
}

/// Says which slot it has, and blocks for whoever has said `block`: in its own poll, then in that of a task beside.
async fn blocking_tasks(mut conn: Conn) {
    let slot = conn.key().index().to_be_bytes();
    conn.send(slot.to_vec()).await.expect("the client is there");
    if conn.recv().await.is_some() {
        block();
        // In a turn of its own.
        slipring::sleep(Duration::from_millis(1)).await;
        slipring::spawn_local(async { block() }).await.expect("it ends");
    }
}

fn client_slot(client: &std::net::TcpStream) -> u32 {
    let slot = read_bytes(client, 4);
    u32::from_be_bytes(slot.try_into().expect("as many as were read"))
}
