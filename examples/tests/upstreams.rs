//! The proxy beside upstreams that die, hang and come back: what its clients see of it.

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use support::{PATIENCE, Serving, connect, now, ping, refusal, spawn};

const ECHO: &str = env!("CARGO_BIN_EXE_echo");
const PROXY: &str = env!("CARGO_BIN_EXE_proxy");
const FREE: &str = "127.0.0.1:0";

fn echo_at(address: &str) -> (Serving, SocketAddr) {
    let mut echo = Serving::start(ECHO, &["--listen", address, "--cores", "0"]);
    let address = echo.address();
    (echo, address)
}

fn proxy_to(to: &[SocketAddr], more: &[&str]) -> (Serving, SocketAddr) {
    let to: Vec<String> = to.iter().map(ToString::to_string).collect();
    let to = to.join(",");
    let mut arguments = vec!["--listen", FREE, "--to", &to];
    arguments.extend(more);
    let mut proxy = Serving::start(PROXY, &arguments);
    let address = proxy.address();
    (proxy, address)
}

/// A client as users are: connects, asks, is answered. How long that took, if it was.
fn ask(address: SocketAddr) -> std::io::Result<Duration> {
    use std::io::{Read, Write};
    let begun = now();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"hello");
    Ok(begun.elapsed())
}

/// Two hundred clients a second, from four threads, until it is over. How many were served, and what went wrong.
fn clients(address: SocketAddr, is_over: &AtomicBool, quiet: &RwLock<()>) -> (usize, Vec<String>) {
    let (served, errors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    {
                        let _asking = quiet.read().expect("nobody panics");
                        match ask(address) {
                            Ok(_) => drop(served.fetch_add(1, Ordering::SeqCst)),
                            Err(error) => {
                                errors.lock().expect("nobody panics").push(error.to_string());
                            }
                        }
                    }
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            });
        }
    });
    (served.into_inner(), errors.into_inner().expect("nobody panics"))
}

/// An upstream of threads, which stops listening the moment it is dropped. A process that is killed with an accept of
/// io_uring under way listens on for some milliseconds, until the kernel has taken its ring apart; who is let in by
/// that is reset, and no proxy can know whether what it had sent was read.
struct Plain {
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Plain {
    fn at(address: SocketAddr) -> (Self, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an open socket");
        socket.bind(&address.into()).expect("the port is free again");
        socket.listen(128).expect("a bound socket");
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true).expect("an open socket");
        let address = listener.local_addr().expect("it is bound");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let listening = spawn(move || {
            while !over.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => drop(spawn(move || echo(stream))),
                    Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
                }
            }
        });
        (Self { is_over, listening: Some(listening) }, address)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.listening.take().map(JoinHandle::join);
    }
}

fn echo(mut stream: TcpStream) {
    use std::io::{Read, Write};
    let mut bytes = [0; 64];
    let _ = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn upstreams_that_are_killed_and_come_back_cost_no_client_an_error() {
    let free = FREE.parse().expect("an address");
    let mut upstreams: Vec<_> = (0..3).map(|_| Some(Plain::at(free))).collect();
    let addresses: Vec<_> = upstreams.iter().flatten().map(|(_, address)| *address).collect();
    let (mut proxy, address) = proxy_to(&addresses, &[]);
    // Who is in the middle of an answer when its upstream is killed loses that answer, whoever relays it: so nobody is.
    let (is_over, quiet) = (AtomicBool::new(false), RwLock::new(()));
    let (served, errors) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| clients(address, &is_over, &quiet));
        for round in 0..12 {
            let which = round % 3;
            {
                let _nobody_asks = quiet.write().expect("nobody panics");
                upstreams[which] = None;
            }
            std::thread::park_timeout(Duration::from_millis(250));
            upstreams[which] = Some(Plain::at(addresses[which]));
            std::thread::park_timeout(Duration::from_millis(250));
        }
        is_over.store(true, Ordering::SeqCst);
        clients.join().expect("clients do not panic")
    });
    proxy.signal("TERM");
    let (status, stderr, _) = proxy.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let first = errors.first();
    assert!(
        errors.is_empty(),
        "{} beside {served}: {first:?}; the proxy said: {stderr}",
        errors.len()
    );
    assert!(served > 500, "only {served} were served");
}

#[test]
fn with_all_but_one_dead_nobody_is_refused() {
    let free = FREE.parse().expect("an address");
    let mut upstreams: Vec<_> = (0..4).map(|_| Some(Plain::at(free))).collect();
    let addresses: Vec<_> = upstreams.iter().flatten().map(|(_, address)| *address).collect();
    let (_proxy, address) = proxy_to(&addresses, &[]);
    upstreams.truncate(1);
    for client in 0..200 {
        ask(address).unwrap_or_else(|error| panic!("client {client}: {error}"));
    }
}

#[test]
fn when_all_were_dead_clients_are_served_within_two_seconds_of_their_return() {
    let (echo, upstream) = Plain::at(FREE.parse().expect("an address"));
    let (_proxy, address) = proxy_to(&[upstream], &[]);
    ask(address).expect("it is there");
    drop(echo);
    for _ in 0..50 {
        ask(address).expect_err("nobody is there");
    }
    let (_echo, _) = Plain::at(upstream);
    let back = now();
    while ask(address).is_err() {
        assert!(back.elapsed() < Duration::from_secs(2), "not served {:?} after", back.elapsed());
    }
}

/// A listener whose backlog is full: who connects gets no answer.
fn black_hole() -> (TcpListener, Vec<Socket>, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(1).expect("a bound socket");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("it is bound");
    let mut fillers = Vec::new();
    for _ in 0..16 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let is_full = filler.connect_timeout(&address.into(), Duration::from_millis(100)).is_err();
        fillers.push(filler);
        if is_full {
            return (listener, fillers, address);
        }
    }
    panic!("a backlog of 1 takes more than 16 connections");
}

#[test]
fn a_black_hole_costs_one_connect_timeout_and_is_avoided_then() {
    let (_listener, _fillers, hole) = black_hole();
    let (_echo, live) = echo_at(FREE);
    let (_proxy, address) =
        proxy_to(&[live, hole], &["--connect-timeout", "400ms", "--cores", "0"]);
    let slow = (0..100).map(|_| ask(address).expect("one lives"));
    let slow = slow.filter(|took| *took >= Duration::from_millis(390)).count();
    assert!(slow <= 1, "{slow} of 100 clients waited for the black hole");
}

#[test]
fn a_drain_that_waits_for_a_client_accuses_no_reactor_that_has_ended() {
    let (_listener, _fillers, hole) = black_hole();
    let (mut proxy, address) =
        proxy_to(&[hole], &["--connect-timeout", "1500ms", "--retries", "0"]);
    let client = connect(address);
    // It is accepted, and being served, before the drain begins.
    std::thread::park_timeout(Duration::from_millis(100));
    proxy.signal("TERM");
    let (status, stderr, _) = proxy.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("connect timeout"), "{stderr}");
    assert!(!stderr.contains("has not turned"), "{stderr}");
    drop(client);
}

#[test]
fn the_log_says_who_is_left_alone_who_is_back_and_which_name_leads_nowhere() {
    let (dead, gone) = Plain::at(FREE.parse().expect("an address"));
    drop(dead);
    let (_echo, live) = echo_at(FREE);
    let to = format!("{live},{gone},nobody.example:1");
    // Whatever the name servers here know.
    let more = ["--fault", "resolve notfound", "--cores", "0"];
    let mut proxy = Serving::start(PROXY, &[&["--listen", FREE, "--to", &to][..], &more].concat());
    let address = proxy.address();
    for _ in 0..100 {
        ask(address).expect("one lives");
    }
    let _back = Plain::at(gone);
    // A probe every half second.
    std::thread::park_timeout(Duration::from_millis(1500));
    proxy.signal("TERM");
    let (_, stderr, _) = proxy.ended();
    let says = |words: [&str; 2]| {
        let is_there = stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(is_there, "{words:?} is not in one line of: {stderr}");
    };
    says(["left alone until it can be reached", &gone.to_string()]);
    says(["is used again", &gone.to_string()]);
    says(["leads nowhere", "nobody.example:1"]);
}

#[test]
fn names_and_algorithms_are_taken() {
    let (_echo, upstream) = echo_at(FREE);
    let to = format!("localhost:{}", upstream.port());
    for balance in ["p2c", "round-robin", "random", "ewma", "maglev"] {
        let more = ["--balance", balance, "--health-interval", "200ms", "--retries", "1"];
        let mut arguments = vec!["--listen", FREE, "--to", &to, "--upstream-max", "8"];
        arguments.extend(more);
        let mut proxy = Serving::start(PROXY, &arguments);
        ping(&connect(proxy.address()), b"by name");
    }
}

#[test]
fn no_more_connections_than_the_upstream_may_have_and_the_others_wait() {
    let (_echo, upstream) = echo_at(FREE);
    let (_proxy, address) = proxy_to(&[upstream], &["--upstream-max", "2"]);
    let first = [connect(address), connect(address)];
    first.iter().for_each(|client| ping(client, b"in"));
    let third = connect(address);
    std::io::Write::write_all(&mut &third, b"waiting").expect("the kernel takes it");
    third.set_read_timeout(Some(Duration::from_millis(200))).expect("an open socket");
    support::read_one(&third).expect_err("it waits");
    drop(first);
    third.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    let mut answer = [0; 7];
    std::io::Read::read_exact(&mut &third, &mut answer).expect("its turn has come");
    assert_eq!(&answer, b"waiting");
}

#[test]
fn a_client_that_is_relayed_costs_little_memory() {
    const CLIENTS: u64 = 200;
    let (_echo, upstream) = echo_at(FREE);
    let (proxy, address) = proxy_to(&[upstream], &["--cores", "0"]);
    let first = connect(address);
    // So that every buffer of the ring was touched before.
    (0..600).for_each(|_| ping(&first, b"hello"));
    let before = proxy.resident_kib();
    // One after the other: what it takes to connect is given back, to be used by the next.
    let come = |_| {
        let client = connect(address);
        ping(&client, b"hello");
        client
    };
    let clients: Vec<_> = (0..CLIENTS).map(come).collect();
    let each = proxy.resident_kib().saturating_sub(before) / CLIENTS;
    assert!(each <= 10, "{each} KiB for each of {} clients", clients.len());
}

#[test]
fn trouble_can_be_made() {
    let (_echo, upstream) = echo_at(FREE);
    let slow = ["--fault", "io direction=from latency=150ms", "--fault", "connect delay=100ms"];
    let (_proxy, address) = proxy_to(&[upstream], &slow);
    assert!(ask(address).expect("slow, and whole") >= Duration::from_millis(250));
    let (_proxy, address) = proxy_to(&[upstream], &["--fault", "connect refuse", "--retries", "0"]);
    ask(address).expect_err("nobody is reached");
    let (_proxy, address) = proxy_to(&[upstream], &["--fault", "io direction=from reset=3B"]);
    ask(address).expect_err("it is cut off");
    let bad = ["--listen", FREE, "--to", "127.0.0.1:9", "--fault", "io latency=fast"];
    let line = refusal(Command::new(PROXY).args(bad));
    assert!(line.contains("fast"), "{line}");
}

#[test]
fn what_cannot_be_an_upstream_is_refused_in_one_line() {
    for (to, says) in [
        ("example.com", "port"),
        ("example.com:0", "port 0"),
        ("a:1,,b:2", "empty entry"),
        ("http://example.com:80", "URL"),
        ("127.0.0.1:9,127.0.0.1:9", "--to names 127.0.0.1:9 twice"),
    ] {
        let line = refusal(Command::new(PROXY).args(["--listen", FREE, "--to", to]));
        assert!(line.contains(says), "{to}: {line}");
    }
    for (option, value, says) in [
        ("--connect-timeout", "0s", "1 ms"),
        ("--connect-timeout", "2h", "an hour"),
        ("--health-interval", "0s", "1 ms"),
    ] {
        let line = ["--listen", FREE, "--to", "127.0.0.1:9", option, value];
        let line = refusal(Command::new(PROXY).args(line));
        assert!(line.contains(says) && line.contains(option), "{line}");
    }
}

#[test]
fn a_proxy_to_itself_is_refused_before_it_listens() {
    let free = TcpListener::bind(FREE).expect("a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    for (listen, to) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.2"),
        ("0.0.0.0", "localhost"),
        ("[::1]", "[::1]"),
    ] {
        let (listen, itself) = (format!("{listen}:{port}"), format!("{to}:{port}"));
        let to = format!("192.0.2.1:9,{itself}");
        let line = refusal(Command::new(PROXY).args(["--listen", &listen, "--to", &to]));
        assert!(line.contains(&itself) && line.contains("name another"), "{line}");
    }
}
