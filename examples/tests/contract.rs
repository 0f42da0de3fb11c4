//! What scripts rely on: the lines on stdout, signals, exit codes, and refusals of one line.

mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use support::{Serving, connect, now, ping, read_one, refusal};

const ECHO: &str = env!("CARGO_BIN_EXE_echo");
const PROXY: &str = env!("CARGO_BIN_EXE_proxy");
const FREE: &str = "127.0.0.1:0";

#[test]
fn one_line_for_each_listener_with_the_real_port() {
    let mut echo =
        Serving::start(ECHO, &["--listen", FREE, "--listen", FREE, "--listen", "[::1]:0"]);
    let addresses = [echo.address(), echo.address(), echo.address()];
    for (n, address) in addresses.into_iter().enumerate() {
        assert_ne!(address.port(), 0);
        assert_eq!(address.is_ipv6(), n == 2, "in the order of the options");
        ping(&connect(address), b"hello");
    }
    assert_ne!(addresses[0], addresses[1]);
    echo.signal("TERM");
    let (status, stderr, more) = echo.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(more.is_empty(), "more on stdout than its listeners: {more:?}");
    for word in ["tier: ", "limits: ", "connections", "memory bound: ", "MiB"] {
        assert!(stderr.contains(word), "`{word}` is not in what it says: {stderr}");
    }
}

#[test]
fn a_port_asked_for_is_the_port_printed() {
    let free = TcpListener::bind(FREE).and_then(|listener| listener.local_addr());
    let asked = free.expect("a free port");
    let mut echo = Serving::start(ECHO, &["--listen", &asked.to_string()]);
    assert_eq!(echo.address(), asked);
}

#[test]
fn signals_drain_and_exit_with_0() {
    for (program, more) in [(ECHO, vec![]), (PROXY, vec!["--to", "127.0.0.1:9"])] {
        for signal in ["TERM", "INT"] {
            let mut arguments = vec!["--listen", FREE, "--drain-deadline", "1s"];
            arguments.extend(&more);
            let mut serving = Serving::start(program, &arguments);
            let address = serving.address();
            if program == ECHO {
                let idle = connect(address);
                ping(&idle, b"hello");
                serving.signal(signal);
                assert_eq!(read_one(&idle).expect("an orderly end"), 0, "{signal}");
            } else {
                serving.signal(signal);
            }
            let (status, stderr, _) = serving.ended();
            assert_eq!(status.code(), Some(0), "{program} {signal}: {stderr}");
            TcpStream::connect(address).expect_err("nobody listens any more");
        }
    }
}

#[test]
fn a_busy_connection_finishes_before_the_exit() {
    let mut echo = Serving::start(ECHO, &["--listen", FREE]);
    let client = connect(echo.address());
    ping(&client, b"before");
    echo.signal("TERM");
    // Never silent for as long as an idle one.
    let until = now() + Duration::from_millis(500);
    while now() < until {
        ping(&client, b"meanwhile");
    }
    drop(client);
    let (status, stderr, _) = echo.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn clients_are_let_in_for_as_long_as_it_is_not_ready() {
    let mut echo = Serving::start(ECHO, &["--listen", FREE, "--not-ready", "700ms"]);
    let address = echo.address();
    let idle = connect(address);
    ping(&idle, b"hello");
    let started = now();
    echo.signal("TERM");
    while started.elapsed() < Duration::from_millis(500) {
        ping(&connect(address), b"still served");
    }
    ping(&idle, b"still there");
    assert_eq!(read_one(&idle).expect("an orderly end"), 0);
    assert!(started.elapsed() >= Duration::from_millis(698), "{:?}", started.elapsed());
    let refused = TcpStream::connect(address).expect_err("nobody listens any more");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(idle);
    let (status, stderr, _) = echo.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn a_second_signal_does_not_wait() {
    let long = ["--listen", FREE, "--drain-deadline", "1000h", "--not-ready", "999h"];
    let mut echo = Serving::start(ECHO, &long);
    let client = connect(echo.address());
    ping(&client, b"hello");
    echo.signal("TERM");
    let until = now() + Duration::from_millis(100);
    while now() < until {
        ping(&client, b"busy");
    }
    let started = now();
    echo.signal("INT");
    let (status, stderr, _) = echo.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(started.elapsed() < Duration::from_secs(1), "it waits all the same");
}

#[test]
fn the_idle_timeout_is_kept() {
    let mut echo = Serving::start(ECHO, &["--listen", FREE, "--idle-timeout", "300ms"]);
    let client = connect(echo.address());
    ping(&client, b"hello");
    let started = now();
    assert_eq!(read_one(&client).expect("an orderly end"), 0);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(298), "{took:?}");
    assert!(took < Duration::from_millis(900), "{took:?}");
}

#[test]
fn who_does_not_speak_within_the_first_byte_timeout_is_reset() {
    let mut echo = Serving::start(ECHO, &["--listen", FREE, "--first-byte-timeout", "300ms"]);
    let address = echo.address();
    let speaks = connect(address);
    ping(&speaks, b"hello");
    let started = now();
    let silent = connect(address);
    let error = read_one(&silent).expect_err("no orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(298), "{took:?}");
    assert!(took < Duration::from_millis(900), "{took:?}");
    ping(&speaks, b"still there");
}

#[test]
fn with_one_connection_at_most_the_second_client_waits() {
    let mut echo = Serving::start(ECHO, &["--listen", FREE, "--max-connections", "1"]);
    let address = echo.address();
    let first = connect(address);
    ping(&first, b"first");
    let mut second = connect(address);
    std::io::Write::write_all(&mut second, b"second").expect("the kernel takes it");
    second.set_read_timeout(Some(Duration::from_millis(100))).expect("an open socket");
    read_one(&second).expect_err("one at most is served");
    ping(&first, b"still");
    drop(first);
    second.set_read_timeout(Some(support::PATIENCE)).expect("an open socket");
    let mut back = [0; 6];
    second.read_exact(&mut back).expect("its turn has come");
    assert_eq!(&back, b"second");
}

#[test]
fn clients_are_let_in_at_the_rate_asked_for() {
    let mut echo = Serving::start(ECHO, &["--listen", FREE, "--accept-rate", "10:2"]);
    let started = now();
    let address = echo.address();
    let clients: Vec<TcpStream> = (0..5).map(|_| connect(address)).collect();
    clients.iter().for_each(|client| ping(client, b"hello"));
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(300),
        "three more than the burst came in within {took:?}"
    );
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(clients);
    echo.signal("TERM");
    let (status, stderr, _) = echo.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn who_finds_no_place_meets_what_was_asked_for() {
    let start = |on_full| {
        let one = ["--listen", FREE, "--max-connections", "1", "--on-full", on_full];
        let mut echo = Serving::start(ECHO, &one);
        let address = echo.address();
        let first = connect(address);
        ping(&first, b"first");
        (echo, address, first)
    };
    let (_echo, address, first) = start("reject");
    // The reset may come before the connect returns.
    if let Ok(second) = TcpStream::connect(address) {
        second.set_read_timeout(Some(support::PATIENCE)).expect("an open socket");
        let reset = read_one(&second).expect_err("it is reset");
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    }
    ping(&first, b"still");
    let (_echo, address, mut inside) = start("evict");
    // Whichever reactors the two are at: one of several that come is at another, most likely.
    for _ in 0..5 {
        let next = connect(address);
        assert_eq!(read_one(&inside).expect("an orderly end"), 0);
        ping(&next, b"its place");
        inside = next;
    }
}

#[test]
fn a_proxy_serves_by_those_that_are_there() {
    let mut upstreams =
        [Serving::start(ECHO, &["--listen", FREE]), Serving::start(ECHO, &["--listen", FREE])];
    let to: Vec<String> = upstreams.iter_mut().map(|u| u.address().to_string()).collect();
    let mut proxy = Serving::start(PROXY, &["--listen", FREE, "--to", &to.join(",")]);
    let address = proxy.address();
    for _ in 0..4 {
        ping(&connect(address), b"through one or the other");
    }
    // One of them goes: the other serves all.
    let [mut gone, _stays] = upstreams;
    gone.signal("TERM");
    assert_eq!(gone.ended().0.code(), Some(0));
    for _ in 0..4 {
        ping(&connect(address), b"through the other");
    }
    proxy.signal("TERM");
    let (status, stderr, _) = proxy.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Needs port 7000 of this machine, as the contract says.
#[test]
fn without_arguments_a_proxy_is_its_own_demonstration() {
    let demo = SocketAddr::from(([127, 0, 0, 1], 7000));
    if let Err(error) = TcpListener::bind(demo) {
        panic!("this test needs {demo}, which the contract names; end what listens there: {error}");
    }
    let mut proxy = Serving::start(PROXY, &[]);
    assert_eq!(proxy.address(), demo);
    for _ in 0..2 {
        ping(&connect(demo), b"anything");
    }
    proxy.signal("INT");
    let (status, stderr, more) = proxy.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(more.is_empty(), "{more:?}");
    assert!(stderr.contains("nc 127.0.0.1 7000"), "it does not say what to type: {stderr}");
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let cases: [(&str, &[&str], &str); 18] = [
        (ECHO, &["--listen", "localhost:7000"], "host name"),
        (ECHO, &["--listen", "127.0.0.1"], "port"),
        (ECHO, &["--accept-rate", "60/m"], "10/s"),
        (ECHO, &["--on-full", "drop"], "evict"),
        (ECHO, &["--listen", "127.0.0.1:99999"], "65535"),
        (ECHO, &["--cores", "a"], "list of CPUs"),
        (ECHO, &["--listen", FREE, "--cores", "1023"], "core 1023"),
        (ECHO, &["--max-connections", "0"], "at least 1"),
        (ECHO, &["--idle-timeout", "30"], "30s"),
        (ECHO, &["--drain-deadline", "never"], "30s"),
        (ECHO, &["--not-ready", "never"], "30s"),
        (ECHO, &["--listen", FREE, "--not-ready", "40s"], "drain for longer"),
        (ECHO, &["--poll", "sometimes"], "adaptive"),
        (ECHO, &["--no-such-option"], "--no-such-option"),
        (ECHO, &["--listen", FREE, "--buffers", "100"], "power of two"),
        (ECHO, &["--listen", "192.0.2.1:0"], "192.0.2.1"),
        (PROXY, &["--listen", FREE], "--to"),
        (PROXY, &["--listen", FREE, "--to", "127.0.0.1:1,,"], "empty entry"),
    ];
    for (program, arguments, word) in cases {
        let line = refusal(Command::new(program).args(arguments));
        assert!(line.contains(word), "{arguments:?}: `{word}` is not in: {line}");
    }
}

#[test]
fn a_taken_port_is_refused_in_one_line() {
    let taken = TcpListener::bind(FREE).expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let mut other = Serving::start(ECHO, &["--listen", FREE]);
    let others = other.address().to_string();
    // By a plain listener, and by one that shares its port among its reactors.
    for address in [&address, &others] {
        for (program, more) in [(ECHO, None), (PROXY, Some(["--to", "127.0.0.1:9"]))] {
            let more = more.into_iter().flatten();
            let line = refusal(Command::new(program).args(["--listen", address]).args(more));
            assert!(line.contains(address.as_str()) && line.contains("taken"), "{line}");
            assert!(line.contains("choose another port"), "{line}");
        }
    }
    let twice = refusal(Command::new(ECHO).args(["--listen", ":7999", "--listen", ":7999"]));
    assert!(twice.contains(":7999"), "{twice}");
}

fn with_descriptors(limit: u32, program: &str, arguments: &[&str]) -> Command {
    let line = format!("ulimit -Sn {limit} && ulimit -Hn {limit} && exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &line, "sh", program]).args(arguments);
    command
}

#[test]
fn too_few_descriptors_are_refused_in_one_line() {
    for program in [ECHO, PROXY] {
        let mut arguments = vec!["--listen", FREE, "--max-connections", "1000"];
        if program == PROXY {
            arguments.extend(["--to", "127.0.0.1:9"]);
        }
        let line = refusal(&mut with_descriptors(200, program, &arguments));
        for word in ["RLIMIT_NOFILE", "200", "--max-connections", "ulimit"] {
            assert!(line.contains(word), "`{word}` is not in: {line}");
        }
    }
    // Nobody asked for a number, but this few is no server.
    let line = refusal(&mut with_descriptors(40, ECHO, &["--listen", FREE]));
    assert!(line.contains("RLIMIT_NOFILE"), "{line}");
}

/// Without a number asked for, what the limit has room for is taken, and said.
#[test]
fn a_lower_limit_of_descriptors_means_fewer_connections() {
    let arguments = ["-c", "ulimit -Sn 500 && ulimit -Hn 500 && exec \"$@\"", "sh", ECHO];
    let mut echo = Serving::start("sh", &[&arguments[..], &["--listen", FREE]].concat());
    ping(&connect(echo.address()), b"hello");
    echo.signal("TERM");
    let (status, stderr, _) = echo.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let limits = stderr.lines().find_map(|line| line.strip_prefix("limits: ")).expect("its limits");
    let connections = limits.split(' ').next().and_then(|number| number.parse::<u32>().ok());
    let connections = connections.expect("a number first");
    assert!((64..500).contains(&connections), "{stderr}");
}

#[test]
fn help_and_version_are_no_errors() {
    for program in [ECHO, PROXY] {
        for option in ["--help", "--version"] {
            let output = Command::new(program).arg(option).output().expect("the binary is there");
            assert_eq!(output.status.code(), Some(0), "{program} {option}");
            assert!(!output.stdout.is_empty() && output.stderr.is_empty());
        }
    }
}
