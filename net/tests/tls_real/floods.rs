//! Handshakes that never end: their deadline, their cap, and everybody else.

use super::*;

#[test]
fn a_hello_that_trickles_is_cut_off_at_the_deadline() {
    bounded(|| {
        let server = pki::server().handshake_timeout(ms(500)).build().expect("a server");
        let (serving, told) = reporting(one_reactor(), server, async |conn, server, tell| {
            let error = server.accept(conn).await.expect_err("it never gets there");
            tell.send(error).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        let begun = now();
        for byte in hello() {
            if client.write_all(&[byte]).is_err() || hears_within(&client, ms(20)) {
                break;
            }
        }
        let took = begun.elapsed();
        support::assert_kept("the handshake's deadline", took, ms(500));
        let error = told.recv_timeout(PATIENCE).expect("told");
        assert!(matches!(error, TlsError::Timeout), "{error:?}");
        end(serving);
    });
}

/// Clients that connect and say nothing, those that say half, and those that say all and fall silent.
#[test]
fn a_thousand_half_handshakes_keep_nobody_out() {
    bounded_by(Duration::from_secs(60), || {
        let server = pki::server().handshake_timeout(Duration::from_secs(4)).handshakes_max(16);
        let builder = one_reactor().max_connections(2000);
        let serving = serve_echo(builder, server.build().expect("a server"));
        let address = serving.addresses()[0];
        let mut established = stranger(address);
        exchange(&mut established, b"hello", 5);

        let hello = hello();
        let half: Vec<TcpStream> = (0..1000)
            .map(|number| {
                let mut client = connect(address);
                let length = [0, 1, hello.len() / 2, hello.len()][number % 4];
                client.write_all(&hello[..length]).expect("sent");
                client
            })
            .collect();
        let begun = now();
        exchange(&mut established, &pattern(1, 100_000), 10_000);
        // 250 have said all: a place is free within a second or so, however many are silent.
        exchange(&mut established, &pattern(2, 100_000), 10_000);
        assert!(begun.elapsed() < Duration::from_secs(2), "established ones wait");
        for mut client in &half {
            // An end or a reset; a silent one is not waited for longer than a read may take.
            match client.read_to_end(&mut Vec::new()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("left open"),
                _ => {}
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "the deadline is 4 s");
        exchange(&mut stranger(address), b"hello", 5);
        exchange(&mut established, b"still here", 10);
        drop(established);
        let handle = serving.handle();
        eventually("all are gone", || {
            let counters = support::sum(&handle.counters());
            counters.accepted >= 1002 && counters.accepted == counters.closed
        });
        end(serving);
    });
}

#[test]
fn who_comes_while_others_are_silent_gets_in() {
    bounded_by(Duration::from_secs(30), || {
        let server = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(4);
        let serving = serve_echo(one_reactor(), server.build().expect("a server"));
        let address = serving.addresses()[0];
        let silent = silent(8, address, &hello());
        let begun = now();
        exchange(&mut stranger(address), b"hello", 5);
        // Two rounds of four have their second each; the deadline would be 20 s.
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        drop(silent);
        end(serving);
    });
}

#[test]
fn a_server_that_is_full_keeps_nobody_from_another() {
    bounded_by(Duration::from_secs(30), || {
        let small = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(1);
        let small = small.build().expect("a server");
        let clients = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (serving, told) = reporting(one_reactor(), server(), move |conn, large, tell| {
            let number = clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let server = if number < 3 { small.clone() } else { large };
            async move {
                let Err(error) = echo(conn, server).await else { return };
                // Who comes last is not waited for.
                let _ = tell.send(error);
            }
        });
        let address = serving.addresses()[0];
        let silent = silent(3, address, &hello());
        let mut client = stranger(address);
        exchange(&mut client, b"hello", 5);
        assert!(told.try_recv().is_err(), "it waited for a place of the other");
        let first = told.recv_timeout(PATIENCE).expect("told");
        assert!(matches!(first, TlsError::HandshakeCap { cap: 1 }), "{first:?}");
        client.conn.send_close_notify();
        client.flush().expect("sent");
        assert_eq!(client.read(&mut [0]).expect("announced"), 0);
        drop((silent, told));
        end(serving);
    });
}

/// What they are to be sent never finds room: no more than those who are silent do they keep their places.
#[test]
fn who_waits_for_room_in_a_handshake_keeps_nobody_out() {
    bounded(|| {
        let server = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(1);
        let server = server.build().expect("a server");
        let limits = Limits { accepted_max: 64, owned_bytes_max: 256, ..Limits::default() };
        let builder = one_reactor().limits(limits);
        let (serving, told) = reporting(builder, server, async |conn, server, tell| {
            let error = server.accept(conn).await.expect_err("no room for a certificate");
            // Who comes last is not waited for.
            let _ = tell.send(error);
        });
        let clients = silent(3, serving.addresses()[0], &hello());
        for _ in 0..2 {
            let error = told.recv_timeout(PATIENCE).expect("told");
            assert!(matches!(error, TlsError::HandshakeCap { cap: 1 }), "{error:?}");
        }
        drop((clients, told));
        end(serving);
    });
}
