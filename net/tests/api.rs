//! What a handler may do during a call: send to any connection in any form, hold and cut leases, hold reading
//! back, and name connections that are no more.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::marker::PhantomData;
use std::net::Shutdown;

use slipring::{CloseReason, Ctx, Handler, Key, Lease, Limits, Origin, Outgoing, SendRefused};
use support::{
    Journal, Pattern, Server, What, bounded, connect, expect_eof, expect_reset, hears_within, ms,
    one_reactor, ping, read_bytes, read_pattern,
};

enum Event {
    Open(Origin),
    Data(Lease),
    Eof,
    Writable,
    Close,
}

/// A handler that is one function of all events.
struct By<S, F> {
    on: F,
    state: PhantomData<S>,
}

fn by<S, F: FnMut(&mut Ctx<'_, S>, Event)>(on: F) -> By<S, F> {
    By { on, state: PhantomData }
}

impl<S: Default + 'static, F: FnMut(&mut Ctx<'_, S>, Event)> Handler for By<S, F> {
    type State = S;

    fn on_open(&mut self, ctx: &mut Ctx<'_, S>, origin: Origin) {
        (self.on)(ctx, Event::Open(origin));
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, S>, data: Lease) {
        (self.on)(ctx, Event::Data(data));
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, S>) {
        (self.on)(ctx, Event::Eof);
        ctx.close();
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, S>) {
        (self.on)(ctx, Event::Writable);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, S>, _reason: CloseReason) {
        (self.on)(ctx, Event::Close);
    }
}

/// Whatever one says, all the others hear: each lease goes to many, and lives until the last has sent it.
#[test]
fn one_speaks_and_all_others_hear() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| {
            let mut room: Vec<Key> = Vec::new();
            by::<(), _>(move |ctx, event| match event {
                Event::Open(_) => room.push(ctx.key()),
                Event::Data(data) => {
                    let speaker = ctx.key();
                    for &other in room.iter().filter(|&&key| key != speaker) {
                        ctx.send_to(other, data.clone());
                    }
                }
                Event::Close => room.retain(|&key| key != ctx.key()),
                Event::Eof | Event::Writable => {}
            })
        });
        let mut clients: Vec<_> = (0..10).map(|_| connect(server.address)).collect();
        server.journal.nth_open(9);
        for round in 0..10 {
            let said = Pattern::new(round as u64).take(5000);
            clients[round].write_all(&said).expect("the server takes it");
            for (_, other) in clients.iter().enumerate().filter(|&(n, _)| n != round) {
                assert_eq!(read_bytes(other, 5000), said);
            }
            assert!(!hears_within(&clients[round], ms(1)), "the speaker hears itself");
        }
        drop(clients);
        server.wait_until_over(10);
        assert_eq!(server.finish().handler_panics, 0);
    });
}

#[test]
fn all_forms_of_bytes_keep_their_order() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| {
            by::<(), _>(move |ctx, event| {
                let Event::Data(mut data) = event else { return };
                ctx.send("<");
                ctx.send(b"static ");
                ctx.send(data.split_to(1));
                ctx.send(Vec::new());
                ctx.send(vec![b'o'; 3]);
                let copy = data.clone();
                ctx.send(data);
                ctx.send("|");
                ctx.send(copy);
                ctx.send(">");
            })
        });
        let mut client = connect(server.address);
        for _ in 0..100 {
            client.write_all(b"abc").expect("the server takes it");
            assert_eq!(read_bytes(&client, 18), b"<static aooobc|bc>");
        }
        drop(client);
        server.finish();
    });
}

#[test]
fn leases_are_cut_and_put_together_again() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| {
            by::<(), _>(move |ctx, event| {
                let Event::Data(mut data) = event else { return };
                // Every byte a lease of its own, of one buffer; sent in order, with none left out.
                while data.len() > 1 {
                    let half = data.len() / 2;
                    let front = data.split_to(half);
                    let mut again = front.clone();
                    again.truncate(half / 2);
                    let mut rest = front;
                    rest.advance(half / 2);
                    ctx.send(again);
                    ctx.send(rest);
                }
                ctx.send(data);
            })
        });
        support::echo_pattern(&connect(server.address), 1, 4 << 20, 70_000);
        assert_eq!(server.finish().handler_panics, 0);
    });
}

/// What a handler keeps stays as it was received, though the ring is small and others use it.
#[test]
fn held_leases_keep_their_bytes() {
    bounded(|| {
        let limits = Limits { buffers: 16, buffer_bytes: 1024, ..Limits::default() };
        let limits = Limits { accepted_max: 64, ..limits };
        let server = Server::start(one_reactor().limits(limits), |_| {
            by::<Vec<Lease>, _>(move |ctx, event| {
                let Event::Data(data) = event else { return };
                match data.last() {
                    Some(b'.') => {
                        for held in std::mem::take(ctx.state()) {
                            ctx.send(held);
                        }
                        ctx.send(data);
                    }
                    Some(b'+') => {
                        ctx.state().push(data);
                        ctx.send("k");
                    }
                    _ => ctx.send(data),
                }
            })
        });
        let mut holder = connect(server.address);
        let other = connect(server.address);
        let mut said = Vec::new();
        for n in 0..8 {
            let mut piece = Pattern::new(n).take(600);
            piece.push(b'+');
            holder.write_all(&piece).expect("the server takes it");
            assert_eq!(read_bytes(&holder, 1), b"k");
            said.extend(piece);
            // The rest of the ring is used over and over.
            for _ in 0..50 {
                ping(&other, &[b'x'; 3000]);
            }
        }
        holder.write_all(b".").expect("the server takes it");
        said.push(b'.');
        assert_eq!(read_bytes(&holder, said.len()), said);
        drop((holder, other));
        server.wait_until_over(2);
        server.finish();
    });
}

/// What was refused comes back whole.
#[track_caller]
fn assert_back(refused: Result<(), SendRefused>, full: bool, bytes: &[u8]) {
    let back = match refused {
        Err(SendRefused::Full(back)) if full => back,
        Err(SendRefused::Ended(back)) if !full => back,
        other => panic!("full: {full}, but: {other:?}"),
    };
    assert_eq!(back.len(), bytes.len());
    let same = match &back {
        Outgoing::Lease(lease) => **lease == *bytes,
        Outgoing::Owned(owned) => owned == bytes,
        Outgoing::Static(constant) => *constant == bytes,
    };
    assert!(same, "other bytes came back");
}

#[test]
fn refused_bytes_come_back() {
    const LARGE: &[u8] = &[7; 2000];
    bounded(|| {
        let limits = Limits {
            accepted_max: 64,
            outbox_bytes_max: 1000,
            outbox_high_bytes: 1000,
            outbox_low_bytes: 500,
            owned_bytes_max: 1500,
            ..Limits::default()
        };
        let server = Server::start(one_reactor().limits(limits), |_| {
            by::<(), _>(move |ctx, event| {
                let Event::Data(data) = event else { return };
                let key = ctx.key();
                assert_back(ctx.try_send_to(key, LARGE.to_vec()), true, LARGE);
                assert_back(ctx.try_send_to(key, LARGE), true, LARGE);
                // Exactly what fits, then not one more.
                ctx.try_send_to(key, vec![1; 600]).expect("it fits");
                assert_back(ctx.try_send_to(key, vec![2; 401]), true, &[2; 401]);
                ctx.try_send_to(key, vec![3; 400]).expect("it fits");
                assert_eq!(ctx.outbox_bytes(key), 1000);
                assert!(ctx.is_outbox_high(key));
                assert_back(ctx.try_send_to(key, b"4"), true, b"4");
                ctx.try_send_to(key, data).expect("leases are bounded by the ring");
                ctx.shutdown();
                assert_back(ctx.try_send_to(key, "5"), false, b"5");
            })
        });
        let mut client = connect(server.address);
        client.write_all(b"!").expect("the server takes it");
        let expected = [&[1; 600][..], &[3; 400], b"!"].concat();
        assert_eq!(read_bytes(&client, 1001), expected);
        expect_eof(&client);
        drop(client);
        assert_eq!(server.finish().handler_panics, 0);
    });
}

#[test]
fn owned_bytes_of_all_connections_are_bounded() {
    bounded(|| {
        let limits = Limits { accepted_max: 64, owned_bytes_max: 10_000, ..Limits::default() };
        let server = Server::start(one_reactor().limits(limits), |_| {
            let mut room: Vec<Key> = Vec::new();
            by::<(), _>(move |ctx, event| match event {
                Event::Open(_) => room.push(ctx.key()),
                Event::Data(_) => {
                    ctx.try_send_to(room[0], vec![1; 6000]).expect("it fits");
                    assert_back(ctx.try_send_to(room[1], vec![2; 6000]), true, &[2; 6000]);
                    ctx.try_send_to(room[1], vec![3; 4000]).expect("it fits");
                }
                _ => {}
            })
        });
        let first = connect(server.address);
        server.journal.nth_open(0);
        let mut second = connect(server.address);
        for _ in 0..10 {
            // They are free again once sent.
            second.write_all(b"!").expect("the server takes it");
            assert_eq!(read_bytes(&first, 6000), [1; 6000]);
            assert_eq!(read_bytes(&second, 4000), [3; 4000]);
        }
        drop((first, second));
        assert_eq!(server.finish().handler_panics, 0);
    });
}

#[test]
fn an_outbox_that_overflows_ends_its_connection_alone() {
    bounded(|| {
        let limits = Limits { accepted_max: 64, outbox_bytes_max: 1 << 20, ..Limits::default() };
        let server = Server::start(one_reactor().limits(limits), |_| {
            by::<(), _>(move |ctx, event| {
                let Event::Data(data) = event else { return };
                if *data == *b"flood" {
                    for _ in 0..3 {
                        ctx.send(vec![1; 1 << 19]);
                    }
                }
                ctx.send(data);
            })
        });
        let other = connect(server.address);
        ping(&other, b"before");
        let mut client = connect(server.address);
        client.write_all(b"flood").expect("the server takes it");
        expect_reset(&client);
        assert_eq!(server.journal.nth_close(0).1, CloseReason::OutboxOverflow);
        ping(&other, b"after");
        drop(other);
        server.finish();
    });
}

/// A paused connection is not read, its peer is held back by the kernel; a resumed one has lost nothing.
#[test]
fn reading_is_held_back_and_goes_on() {
    bounded(|| {
        let journal = Journal::new();
        let note = journal.clone();
        let server = Server::start_with(one_reactor(), journal, move |_| {
            let mut first: Option<Key> = None;
            let note = note.clone();
            by::<u64, _>(move |ctx, event| match event {
                Event::Open(_) if first.is_none() => {
                    first = Some(ctx.key());
                    ctx.pause();
                }
                Event::Data(data) if Some(ctx.key()) == first => {
                    *ctx.state() += data.len() as u64;
                    ctx.send(data);
                }
                // The second one directs: resume, or pause again.
                Event::Data(data) => {
                    let first = first.expect("it came first");
                    let received = ctx.state_of(first).copied().expect("it is open");
                    note.note(0, first, What::Note(received));
                    match &*data {
                        b"r" => ctx.resume_of(first),
                        _ => ctx.pause_of(first),
                    }
                    ctx.send(data);
                }
                _ => {}
            })
        });
        let paused = connect(server.address);
        server.journal.nth_open(0);
        let director = connect(server.address);
        let taken = support::stuff(&paused, 1);
        ping(&director, b"r");
        let before = server.journal.nth(0, |what| matches!(what, What::Note(_)), "a look").what;
        assert_eq!(before, What::Note(0), "a paused connection was read");
        let mut check = support::Check::new(1);
        check.next(&read_bytes(&paused, 300_000));
        ping(&director, b"p");
        ping(&director, b"r");
        paused.shutdown(Shutdown::Write).expect("an open socket");
        check.next(&read_bytes(&paused, taken as usize - 300_000));
        expect_eof(&paused);
        drop((paused, director));
        server.finish();
    });
}

/// A source that sends as long as there is room, and is told when there is more.
#[test]
fn writable_is_told_when_a_high_outbox_is_low() {
    const BYTES: u64 = 32 << 20;
    bounded(|| {
        #[derive(Default)]
        struct Source {
            pattern: Option<Pattern>,
            sent: u64,
        }
        let server = Server::start(one_reactor(), |_| {
            by::<Source, _>(move |ctx, event| {
                let key = ctx.key();
                match event {
                    Event::Open(_) => ctx.state().pattern = Some(Pattern::new(3)),
                    Event::Writable => assert!(!ctx.is_outbox_high(key)),
                    _ => return,
                }
                while !ctx.is_outbox_high(key) {
                    let source = ctx.state();
                    if source.sent == BYTES {
                        return ctx.close();
                    }
                    source.sent += 1 << 14;
                    let piece = source.pattern.as_mut().expect("just made").take(1 << 14);
                    ctx.send(piece);
                }
                assert!(ctx.outbox_bytes(key) <= (64 << 10) + (1 << 14));
            })
        });
        for _ in 0..2 {
            let client = connect(server.address);
            assert_eq!(read_pattern(&client, 3).expect("all of it"), BYTES);
        }
        let writable = server.journal.count(|what| what == What::Writable);
        assert!(writable > 2 * 32, "told only {writable} times");
        assert_eq!(server.finish().handler_panics, 0);
    });
}

/// A key outlives its connection, and then names nobody: not even who sits in the same slot.
#[test]
fn stale_keys_do_nothing() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| {
            let mut gone: Vec<Key> = Vec::new();
            by::<u32, _>(move |ctx, event| match event {
                Event::Open(_) => {
                    *ctx.state() = 42;
                    assert!(!gone.contains(&ctx.key()), "a key was given twice");
                }
                Event::Data(data) => {
                    for &stale in &gone {
                        assert!(ctx.state_of(stale).is_none());
                        assert!(ctx.origin(stale).is_none());
                        assert_eq!(ctx.outbox_bytes(stale), 0);
                        assert!(!ctx.is_outbox_high(stale));
                        ctx.send_to(stale, "to nobody");
                        assert_back(ctx.try_send_to(stale, "to nobody"), false, b"to nobody");
                        ctx.forward(stale, "to nobody");
                        ctx.pause_of(stale);
                        ctx.shutdown_of(stale);
                        ctx.close_of(stale);
                        ctx.abort_of(stale);
                        ctx.set_idle_timeout_of(stale, slipring::Timeout::After(ms(1)));
                    }
                    assert_eq!(*ctx.state(), 42);
                    ctx.send(data);
                }
                Event::Close => gone.push(ctx.key()),
                _ => {}
            })
        });
        for n in 0..20 {
            let client = connect(server.address);
            ping(&client, b"untouched");
            ping(&client, b"and still");
            assert!(!hears_within(&client, ms(2)), "a stale key reached another");
            drop(client);
            server.journal.nth_close(n);
        }
        // All of them sat in few slots: otherwise nothing was tested.
        let mut slots = BTreeMap::new();
        for entry in server.journal.entries() {
            *slots.entry(entry.key.index()).or_insert(0) += 1;
        }
        assert!(slots.len() < 20, "every connection had a slot of its own");
        assert_eq!(server.finish().handler_panics, 0);
    });
}

#[test]
fn dials_end_at_their_limit() {
    bounded(|| {
        let (upstream, to) = support::listener();
        let server = Server::start(one_reactor().max_dialed(2), move |_| {
            by::<Option<u32>, _>(move |ctx, event| match event {
                Event::Open(Origin::Accepted(_)) => {
                    let dialed = [1, 2, 3].map(|n| ctx.dial(to, Some(n)).is_ok());
                    ctx.send(dialed.map(u8::from).to_vec());
                }
                Event::Open(Origin::Dialed) => {
                    let number = ctx.state().expect("what the dial gave it");
                    ctx.send(vec![number as u8]);
                    ctx.close();
                }
                _ => {}
            })
        });
        for round in 1..=2 {
            let client = connect(server.address);
            assert_eq!(read_bytes(&client, 3), [1, 1, 0]);
            let mut heard = [support::accept(&upstream), support::accept(&upstream)]
                .map(|stream| read_bytes(&stream, 1)[0]);
            heard.sort_unstable();
            assert_eq!(heard, [1, 2]);
            drop(client);
            server.wait_until_over(round);
        }
        assert_eq!(server.finish().dialed, 4);
    });
}
