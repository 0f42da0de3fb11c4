//! Toxiproxy's eight, measured.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::{Proxy, faults, took};
use crate::support::{
    SLACK, assert_kept, bounded, connect, end, expect_eof, expect_reset, hears_within, ms, now,
    one_reactor, read_bytes, serve, spawn, try_connect,
};

#[test]
fn latency_comes_on_top_in_one_direction() {
    bounded(|| {
        let proxy = Proxy::of("io direction=from latency=120ms jitter=30ms");
        let (mut client, mut server) = proxy.ends();
        client.write_all(b"there").expect("sent");
        let ((), there) = took(|| assert_eq!(read_bytes(&server, 5), b"there"));
        assert!(there < ms(100), "nothing holds this direction: {there:?}");
        for _ in 0..3 {
            server.write_all(b"back").expect("sent");
            let ((), back) = took(|| assert_eq!(read_bytes(&client, 4), b"back"));
            assert!(back >= ms(119) && back < ms(150) + SLACK, "{back:?}");
        }
        drop(server);
        let ((), fin) = took(|| expect_eof(&client));
        assert!(fin >= ms(119), "the FIN too: {fin:?}");
        drop(client);
        assert!(proxy.relayed().is_orderly());
        proxy.end();
    });
}

#[test]
fn latency_holds_no_throughput_back() {
    bounded(|| {
        let proxy = Proxy::of("io latency=50ms");
        let (mut client, server) = proxy.ends();
        let writer = spawn(move || {
            client.write_all(&vec![7; 4 << 20]).expect("it is read");
            client
        });
        let (read, time) = took(|| read_bytes(&server, 4 << 20));
        assert!(read.iter().all(|byte| *byte == 7));
        // 1 MiB for each 50 ms, so some 200 ms.
        assert!(time < ms(400) + SLACK, "{time:?}");
        drop((writer.join().expect("it wrote"), server));
        proxy.end();
    });
}

#[test]
fn bandwidth_is_kept_within_a_tenth() {
    bounded(|| {
        const RATE: u64 = 1 << 20;
        const BYTES: usize = 2 << 20;
        let proxy = Proxy::of("io direction=to bandwidth=1MiB/s burst=64KiB");
        let (mut client, server) = proxy.ends();
        let writer = spawn(move || {
            client.write_all(&vec![7; BYTES]).expect("it is read");
            client
        });
        let (_, time) = took(|| read_bytes(&server, BYTES));
        let expected = Duration::from_secs_f64((BYTES - (64 << 10)) as f64 / RATE as f64);
        assert!(time > expected.mul_f64(0.9) && time < expected.mul_f64(1.1), "{time:?}");
        drop((writer.join().expect("it wrote"), server));
        proxy.end();
    });
}

#[test]
fn a_reset_behind_bytes_comes_behind_exactly_these() {
    bounded(|| {
        let proxy = Proxy::of("io direction=from reset=100000B");
        let (client, mut server) = proxy.ends();
        let writer = spawn(move || {
            // More than that, and all at once.
            let _ = server.write_all(&[7; 300_000]);
            expect_reset_of_writer(&server);
        });
        assert_eq!(expect_reset(&client), 100_000);
        writer.join().expect("it was reset too");
        assert!(!proxy.relayed().is_orderly());
        proxy.end();
    });
}

/// A reset that a writer sees may have been told to its write.
fn expect_reset_of_writer(mut stream: &std::net::TcpStream) {
    let read = stream.read(&mut [0]);
    assert!(!matches!(read, Ok(1..)), "{read:?}");
}

#[test]
fn a_reset_waits_for_a_reader_that_is_slow() {
    bounded(|| {
        let proxy = Proxy::of("io direction=from reset=3MiB");
        let (mut client, mut server) = proxy.ends();
        let writer = spawn(move || {
            let _ = server.write_all(&vec![7; 4 << 20]);
            server
        });
        // The kernel's buffers are full by then, and most of it is not sent.
        assert!(hears_within(&client, ms(500)));
        assert!(!hears_nothing_more(&mut client));
        assert_eq!(1 + 1 + expect_reset(&client), 3 << 20);
        drop(writer.join().expect("it wrote"));
        proxy.end();
    });
}

/// Pauses, and takes a byte.
fn hears_nothing_more(client: &mut std::net::TcpStream) -> bool {
    std::thread::park_timeout(ms(300));
    client.read(&mut [0]).expect("there is more") == 0
}

#[test]
fn a_reset_at_a_time_comes_then() {
    bounded(|| {
        let proxy = Proxy::of("io direction=to reset=200ms");
        let ((client, server), begin) = (proxy.ends(), now());
        assert_eq!((expect_reset(&client), expect_reset(&server)), (0, 0));
        assert_kept("the reset", begin.elapsed() + ms(20), ms(200));
        proxy.end();
    });
}

#[test]
fn limited_data_is_exactly_that_and_a_fin() {
    bounded(|| {
        let proxy = Proxy::of("io direction=from close=70000B");
        let (mut client, mut server) = proxy.ends();
        let writer = spawn(move || {
            let _ = server.write_all(&[7; 90_000]);
            server
        });
        let mut read = Vec::new();
        client.read_to_end(&mut read).expect("an end in order");
        assert_eq!(read.len(), 70_000);
        drop((client, writer.join().expect("it wrote")));
        assert!(proxy.relayed().is_orderly());
        proxy.end();
    });
}

#[test]
fn slices_come_in_pieces() {
    bounded(|| {
        let proxy = Proxy::of("io direction=from slice=10B..20B pause=20ms");
        let (mut client, mut server) = proxy.ends();
        let begin = now();
        server.write_all(&[7; 200]).expect("sent");
        let (mut pieces, mut bytes, mut buffer) = (Vec::new(), 0, [0; 400]);
        while bytes < 200 {
            let piece = client.read(&mut buffer).expect("it comes");
            pieces.push(piece);
            bytes += piece;
        }
        assert!(pieces.len() >= 8, "at most a few come together: {pieces:?}");
        assert!(begin.elapsed() >= ms(9 * 20 - 5), "{:?}", begin.elapsed());
        drop((client, server));
        proxy.end();
    });
}

#[test]
fn a_timeout_lets_nothing_pass_and_closes() {
    bounded(|| {
        let proxy = Proxy::of("io stall close=250ms");
        let ((mut client, mut server), begin) = (proxy.ends(), now());
        client.write_all(b"there").expect("sent");
        server.write_all(b"back").expect("sent");
        expect_eof(&server);
        expect_eof(&client);
        assert_kept("the close", begin.elapsed() + ms(20), ms(250));
        drop((client, server));
        assert!(proxy.relayed().is_orderly());
        proxy.end();
    });
}

#[test]
fn a_stall_ends_and_all_comes() {
    bounded(|| {
        let proxy = Proxy::of("io direction=to stall=5B for=300ms");
        let (mut client, server) = proxy.ends();
        client.write_all(b"there, and more").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(read_bytes(&server, 5), b"there");
        let ((), time) = took(|| assert_eq!(read_bytes(&server, 10), b", and more"));
        assert!(time >= ms(290) && time < ms(300) + SLACK, "{time:?}");
        expect_eof(&server);
        drop((client, server));
        proxy.end();
    });
}

#[test]
fn a_slow_close_delays_the_fin_and_not_the_bytes() {
    bounded(|| {
        let proxy = Proxy::of("io direction=from slow-close=300ms");
        let (client, mut server) = proxy.ends();
        server.write_all(b"bytes").expect("sent");
        server.shutdown(Shutdown::Write).expect("half-closed");
        let (read, time) = took(|| read_bytes(&client, 5));
        assert_eq!(read, b"bytes");
        assert!(time < ms(200), "{time:?}");
        let ((), fin) = took(|| expect_eof(&client));
        assert!(fin >= ms(250) && fin < ms(300) + SLACK, "{fin:?}");
        drop((client, server));
        assert!(proxy.relayed().is_orderly());
        proxy.end();
    });
}

#[test]
fn down_resets_who_comes_until_it_is_up_again() {
    bounded(|| {
        let faults = faults("accept listener=front fail");
        let in_service = faults.clone();
        let serving = serve(one_reactor(), move |client| {
            let faults = in_service.clone();
            async move {
                let Some(client) = faults.accepting(client, "front").await else { return };
                let _ = super::support::echo(client).await;
            }
        });
        let address = serving.addresses()[0];
        // The reset may come before the connect returns.
        if let Ok(client) = try_connect(address) {
            assert_eq!(expect_reset(&client), 0);
        }
        assert_eq!(faults.hits(), [1]);
        faults
            .set_rules("accept listener=front delay=200ms".parse().expect("rules"))
            .expect("sound");
        let mut client = connect(address);
        let ((), time) = took(|| {
            client.write_all(b"late").expect("sent");
            assert_eq!(read_bytes(&client, 4), b"late");
        });
        assert!(time >= ms(190) && time < ms(200) + SLACK, "{time:?}");
        assert_eq!(faults.hits(), [1]);
        faults.turn_off();
        let mut client = connect(address);
        client.write_all(b"x").expect("sent");
        assert_eq!(read_bytes(&client, 1), b"x");
        assert_eq!((faults.hits(), faults.is_on()), (vec![1], false));
        drop(client);
        end(serving);
    });
}
