//! A panic in any callback ends the connection it was called for, with a reset and a reason, and no other;
//! every connection is told its end exactly once.

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use slipring::{CloseReason, Connections, Ctx, Handler, Lease, Limits, Origin, Timeout};
use support::{Server, What, bounded, connect, expect_reset, ms, one_reactor, ping, try_connect};

/// Where a handler panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Open,
    Data,
    Eof,
    Writable,
    KeepAlive,
    Close,
}

/// Echoes. The `n`th connection panics where the `n`th place says.
struct Panics {
    places: Vec<Place>,
    opened: usize,
    on_start: bool,
}

impl Panics {
    fn panic_if(place: Option<Place>, here: Place) {
        assert!(place != Some(here), "asked to panic in {here:?}");
    }
}

impl Handler for Panics {
    type State = Option<Place>;

    fn on_start(&mut self, _connections: &mut Connections<Self::State>) {
        assert!(!self.on_start, "asked to panic at the start");
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Self::State>, _origin: Origin) {
        let place = self.places.get(self.opened).copied().unwrap_or(Place::Nowhere);
        self.opened += 1;
        *ctx.state() = Some(place);
        if place == Place::KeepAlive {
            ctx.set_keep_alive(Timeout::After(ms(50)));
        }
        Self::panic_if(Some(place), Place::Open);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, Self::State>, data: Lease) {
        Self::panic_if(*ctx.state(), Place::Data);
        if *ctx.state() == Some(Place::Writable) {
            ctx.send(vec![1; 4 << 20]);
        }
        ctx.send(data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        Self::panic_if(*ctx.state(), Place::Eof);
        ctx.close();
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        Self::panic_if(*ctx.state(), Place::Writable);
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        Self::panic_if(*ctx.state(), Place::KeepAlive);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Self::State>, _reason: CloseReason) {
        Self::panic_if(*ctx.state(), Place::Close);
    }
}

fn panicking(places: &[Place], on_start: bool) -> Server {
    let limits = Limits { outbox_bytes_max: 16 << 20, accepted_max: 1024, ..Limits::default() };
    let places = places.to_vec();
    Server::start(one_reactor().limits(limits), move |_| Panics {
        places: places.clone(),
        opened: 0,
        on_start,
    })
}

fn provoke(client: &TcpStream, place: Place) {
    let mut writer = client;
    match place {
        // The reset may be there before it.
        Place::Open | Place::KeepAlive => {}
        Place::Eof => client.shutdown(Shutdown::Write).expect("an open socket"),
        _ => writer.write_all(b"now").expect("the server takes it"),
    }
}

fn one_place(place: Place) {
    let server = panicking(&[Place::Nowhere, place, Place::Nowhere], false);
    let bystander = connect(server.address);
    ping(&bystander, b"before");
    for round in 0..2 {
        match try_connect(server.address) {
            Ok(client) if round == 0 => {
                provoke(&client, place);
                expect_reset(&client);
            }
            Ok(client) => ping(&client, b"the next one"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    ping(&bystander, b"after");
    let ends = server.journal.nth_close(0);
    assert_eq!(ends.1, CloseReason::HandlerPanic);
    drop(bystander);
    server.wait_until_over(3);
    let panics = |what| what == What::Close(CloseReason::HandlerPanic);
    assert_eq!(server.journal.count(panics), 1);
    assert_eq!(server.finish().handler_panics, 1);
}

#[test]
fn in_on_open() {
    bounded(|| one_place(Place::Open));
}

#[test]
fn in_on_data() {
    bounded(|| one_place(Place::Data));
}

#[test]
fn in_on_eof() {
    bounded(|| one_place(Place::Eof));
}

#[test]
fn in_on_writable() {
    bounded(|| one_place(Place::Writable));
}

#[test]
fn in_on_keep_alive() {
    bounded(|| one_place(Place::KeepAlive));
}

#[test]
fn in_on_close() {
    bounded(|| {
        let server = panicking(&[Place::Nowhere, Place::Close], false);
        let bystander = connect(server.address);
        ping(&bystander, b"before");
        let client = connect(server.address);
        ping(&client, b"all is well");
        drop(client);
        server.journal.nth_close(0);
        ping(&bystander, b"after");
        drop(bystander);
        server.wait_until_over(2);
        assert_eq!(server.finish().handler_panics, 1);
    });
}

#[test]
fn in_on_start() {
    bounded(|| {
        let server = panicking(&[], true);
        ping(&connect(server.address), b"served all the same");
        assert_eq!(server.finish().handler_panics, 1);
    });
}

/// Hundreds at once, in every place, beside a stream that must not notice.
#[test]
fn everywhere_at_once() {
    bounded(|| {
        let mut places = vec![Place::Nowhere];
        for _ in 0..40 {
            places.extend([Place::Open, Place::Data, Place::Eof, Place::Close, Place::Nowhere]);
        }
        let server = panicking(&places, false);
        let stream = connect(server.address);
        ping(&stream, b"the first");
        std::thread::scope(|scope| {
            scope.spawn(|| support::echo_pattern(&stream, 1, 16 << 20, 100_000));
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let Ok(mut client) = try_connect(server.address) else { continue };
                        // Any of the places may end it at any time.
                        let _ = client.write_all(b"now");
                        let _ = client.shutdown(Shutdown::Write);
                        let _ = std::io::Read::read_to_end(&mut client, &mut Vec::new());
                    }
                });
            }
        });
        server.wait_until_over(201);
        // Those of `Close` panic while they end in order.
        let panics = |what| what == What::Close(CloseReason::HandlerPanic);
        assert_eq!(server.journal.count(panics), 120);
        assert_eq!(server.finish().handler_panics, 160);
    });
}
