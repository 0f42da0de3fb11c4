//! Many handshakes in one turn: whose place it is, and what they keep while they wait.

use super::*;

/// The ClientHello in two records: the first one with four bytes of it, which make nobody sign anything.
fn hello_in_two_records() -> (Vec<u8>, Vec<u8>) {
    let whole = hello();
    let record = |bytes: &[u8]| {
        let length = (bytes.len() as u16).to_be_bytes();
        [&whole[..3], &length, bytes].concat()
    };
    (record(&whole[5..9]), record(&whole[9..]))
}

#[test]
fn a_place_is_for_a_whole_hello_and_not_for_a_first_record() {
    bounded_by(Duration::from_secs(30), || {
        let server = pki::server().handshake_timeout(Duration::from_secs(20)).handshakes_max(2);
        let serving = serve_echo(one_reactor(), server.build().expect("a server"));
        let address = serving.addresses()[0];
        let (begins, goes_on) = hello_in_two_records();
        let mut slow = silent(4, address, &begins);
        exchange(&mut stranger(address), b"hello", 5);
        for client in &mut slow {
            client.write_all(&goes_on).expect("sent");
            let mut first = [0];
            client.read_exact(&mut first).expect("nobody gave it up");
            assert_eq!(first, [22], "a ServerHello");
        }
        drop(slow);
        end(serving);
    });
}

/// So many clients send the rest of their handshakes, then one who is established a ping, and all of that comes in one
/// turn. When each handshake was done, how many before the ping came, and the counters.
fn handshakes_that_go_on_together(
    builder: Builder,
    count: usize,
) -> (Vec<Duration>, usize, Counters) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let (serving, told) = reporting(builder, server(), move |conn, server, tell| {
        let wait = Arc::clone(&wait);
        async move {
            let mut conn = server.accept(conn).await.expect("a client");
            tell.send((false, slipring::now())).expect("the test waits");
            while let Ok(Some(data)) = conn.recv().await {
                tell.send((true, slipring::now())).expect("the test waits");
                if &data[..] == b"block" {
                    // The reactor, on purpose.
                    let wait = wait.lock().expect("nobody panics");
                    wait.recv_timeout(PATIENCE).expect("the test goes on");
                }
            }
        }
    });
    let address = serving.addresses()[0];
    let mut blocker = stranger(address);
    blocker.conn.complete_io(&mut blocker.sock).expect("a handshake");
    told.recv_timeout(PATIENCE).expect("told");
    let mut clients: Vec<Stranger> = (0..count).map(|_| stranger(address)).collect();
    for client in &mut clients {
        client.conn.write_tls(&mut client.sock).expect("sent");
    }
    for client in &mut clients {
        while client.conn.is_handshaking() {
            client.conn.read_tls(&mut client.sock).expect("received");
            client.conn.process_new_packets().expect("an honest server");
        }
    }
    blocker.write_all(b"block").expect("sent");
    told.recv_timeout(PATIENCE).expect("told");
    for client in &mut clients {
        while client.conn.wants_write() {
            client.conn.write_tls(&mut client.sock).expect("sent");
        }
    }
    blocker.write_all(b"ping").expect("sent");
    go.send(()).expect("the reactor waits");
    let all: Vec<(bool, Duration)> =
        (0..=count).map(|_| told.recv_timeout(PATIENCE).expect("told")).collect();
    let before = all.iter().position(|(is_ping, _)| *is_ping).expect("it comes");
    let done = all.iter().filter(|(is_ping, _)| !is_ping).map(|(_, at)| *at).collect();
    drop((blocker, clients, told));
    (done, before, end(serving))
}

/// What it costs is spread over several turns.
#[test]
fn few_handshakes_go_on_in_a_turn() {
    bounded(|| {
        let (times, ..) = handshakes_that_go_on_together(one_reactor(), 32);
        for turn in times.chunk_by(|one, next| one == next) {
            assert!(turn.len() <= 4, "{} in one turn", turn.len());
        }
    });
}

#[test]
fn what_waits_until_its_handshake_may_go_on_keeps_no_buffer() {
    bounded(|| {
        let limits =
            Limits { accepted_max: 256, buffers: 64, buffer_bytes: 4096, ..Limits::default() };
        let builder = one_reactor().limits(limits);
        let (times, before, counters) = handshakes_that_go_on_together(builder, 200);
        assert!(counters.receives_parked > 0, "64 buffers were never too few");
        assert!(before <= 80, "a ping waits for {before} of {} handshakes", times.len());
    });
}
