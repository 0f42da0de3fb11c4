//! The binaries that speak HTTP, as processes: both versions, many requests, and a drain that fails none of them.

#![expect(clippy::disallowed_methods, reason = "clients under load are threads")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request, StatusCode};
use slipring::adapters::hyper::ReactorExecutor;
use slipring::{Runtime, Serve};
use support::{PATIENCE, Serving, connect, now};

const HYPER: &str = env!("CARGO_BIN_EXE_hyper_hello");
const AXUM: &str = env!("CARGO_BIN_EXE_axum_hello");
const FREE: &[&str] = &["--listen", "127.0.0.1:0"];

/// A response as a plain client sees it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    closes: bool,
    body: String,
}

/// Reads one response; `None` if the stream ends before its first byte.
fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) if head.is_empty() => return None,
            Err(error) if head.is_empty() && error.kind() == ErrorKind::ConnectionReset => {
                return None;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => {
                assert_eq!(read.expect("a response goes on"), 1, "half a head");
                head.extend(byte);
            }
        }
    }
    let head = String::from_utf8(head).expect("plain text").to_ascii_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = value("content-length: ").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).expect("its body");
    Some(Answer {
        status: head[9..12].parse().expect("a status"),
        closes: value("connection: close").is_some(),
        body: String::from_utf8(body).expect("plain text"),
    })
}

fn ask(stream: &mut TcpStream, path: &str) -> Option<Answer> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").expect("taken");
    answer(stream)
}

fn hello(name: &str) -> Answer {
    Answer { status: 200, closes: false, body: format!("hello {name}\n") }
}

fn drained(mut serving: Serving) {
    serving.signal("TERM");
    let (status, stderr, _) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Runs a client of HTTP/2 on a reactor of the test's own.
fn http2<S, F>(address: SocketAddr, run: S)
where
    S: FnOnce(SendRequest<Full<Bytes>>) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let builder = Runtime::builder().cores([0]).max_connections(0).max_dialed(1);
    let runtime = builder.serve(async |_nobody| {}).expect("it starts");
    let done = runtime.spawner().spawn(move || async move {
        let conn = slipring::dial(address).await.expect("it listens");
        let (requests, driver) = hyper::client::conn::http2::handshake(ReactorExecutor, conn)
            .await
            .expect("a handshake");
        drop(slipring::spawn_local(driver));
        slipring::timeout(PATIENCE, run(requests)).await.expect("in time");
    });
    done.join().expect("the client does not panic");
    runtime.handle().abort();
    runtime.join().expect("an end in order");
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://test{path}")).body(Full::default()).expect("valid")
}

async fn whole(response: hyper::Response<hyper::body::Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("plain text"))
}

#[test]
fn one_connection_carries_many_requests() {
    let mut serving = Serving::start(HYPER, FREE);
    let mut stream = connect(serving.address());
    for number in 0..500 {
        let path = format!("/{number}");
        assert_eq!(ask(&mut stream, &path), Some(hello(&number.to_string())));
    }
    // All asked for at once.
    let requests: String =
        (0..200).map(|number| format!("GET /{number} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
    stream.write_all(requests.as_bytes()).expect("taken");
    for number in 0..200 {
        assert_eq!(answer(&mut stream), Some(hello(&number.to_string())));
    }
    drop(stream);
    drained(serving);
}

#[test]
fn the_same_port_speaks_http2() {
    let mut serving = Serving::start(HYPER, FREE);
    http2(serving.address(), async |requests| {
        let mut streams = slipring::Scope::new();
        for client in 0..16 {
            let mut requests = requests.clone();
            streams.spawn(async move {
                for number in 0..50 {
                    requests.ready().await.expect("open");
                    let path = format!("/{client}-{number}");
                    let response = requests.send_request(get(&path)).await.expect("answered");
                    let expected = (StatusCode::OK, format!("hello {client}-{number}\n"));
                    assert_eq!(whole(response).await, expected);
                }
            });
        }
        streams.join_all().await.expect("all of them");
    });
    drained(serving);
}

#[test]
fn a_router_of_axum_serves_both_and_shares_its_state() {
    let mut serving = Serving::start(AXUM, FREE);
    let address = serving.address();
    for name in ["a", "b", "c"] {
        // Each on a connection of its own, as a rule on another reactor.
        assert_eq!(ask(&mut connect(address), &format!("/hello/{name}")), Some(hello(name)));
    }
    let mut stream = connect(address);
    assert_eq!(ask(&mut stream, "/count").map(|answer| answer.body), Some("3\n".to_owned()));
    assert_eq!(ask(&mut stream, "/nowhere").map(|answer| answer.status), Some(404));
    let body = "0123456789".repeat(20_000);
    let head =
        format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).expect("taken");
    stream.write_all(body.as_bytes()).expect("taken");
    assert_eq!(answer(&mut stream).map(|answer| answer.body), Some(body.clone()));
    http2(address, async move |mut requests| {
        let request = Request::builder().method(Method::POST).uri("http://test/echo");
        let request = request.body(Full::from(body.clone())).expect("valid");
        let response = requests.send_request(request).await.expect("answered");
        assert_eq!(whole(response).await, (StatusCode::OK, body));
        let response = requests.send_request(get("/count")).await.expect("answered");
        assert_eq!(whole(response).await.1, "3\n");
    });
    drop(stream);
    drained(serving);
}

// ------------------------------------------------------------------------------------------ drains

/// Whether the server has said that it will answer no more.
fn has_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("an open socket");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("an open socket");
    !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Asks on one connection until the server takes no more; how many were answered.
fn ask_until_drained(address: SocketAddr, path: &str) -> u64 {
    let mut stream = connect(address);
    let end = now() + PATIENCE;
    let mut answered = 0;
    while !has_ended(&stream) {
        assert!(now() < end, "it goes on for ever");
        let answer = ask(&mut stream, path).expect("a request without an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello you\n"));
        answered += 1;
        if answer.closes {
            assert_eq!(stream.read(&mut [0]).expect("an end in order"), 0);
            break;
        }
    }
    answered
}

#[test]
fn a_drain_under_load_fails_no_request_of_http1() {
    for (program, path) in [(HYPER, "/you"), (AXUM, "/hello/you")] {
        let mut serving = Serving::start(program, FREE);
        let address = serving.address();
        let clients: Vec<_> =
            (0..8).map(|_| std::thread::spawn(move || ask_until_drained(address, path))).collect();
        std::thread::park_timeout(Duration::from_millis(300));
        serving.signal("TERM");
        for client in clients {
            assert!(client.join().expect("no request failed") > 10);
        }
        let (status, stderr, _) = serving.ended();
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}

/// Nothing moves while it waits, for longer than a drain takes a connection for quiet.
#[test]
fn a_drain_waits_for_an_answer_that_takes_its_time() {
    let mut serving = Serving::start(AXUM, FREE);
    let address = serving.address();
    let mut waiting: Vec<_> = (0..4).map(|_| connect(address)).collect();
    for stream in &mut waiting {
        stream.write_all(b"GET /wait/1500 HTTP/1.1\r\nhost: test\r\n\r\n").expect("taken");
    }
    let http2 = std::thread::spawn(move || {
        http2(address, async |mut requests| {
            let response = requests.send_request(get("/wait/1500")).await.expect("answered");
            assert_eq!(whole(response).await.1, "here I am\n");
        });
    });
    std::thread::park_timeout(Duration::from_millis(200));
    serving.signal("TERM");
    let expected = Answer { status: 200, closes: true, body: "here I am\n".to_owned() };
    for stream in &mut waiting {
        assert_eq!(answer(stream).as_ref(), Some(&expected));
        assert_eq!(stream.read(&mut [0]).expect("an end in order"), 0);
    }
    http2.join().expect("answered");
    let (status, stderr, _) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn a_drain_under_load_fails_no_request_of_http2() {
    let mut serving = Serving::start(HYPER, FREE);
    let address = serving.address();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                http2(address, async |requests| {
                    let mut streams = slipring::Scope::new();
                    for _ in 0..8 {
                        streams.spawn(ask_until_refused(requests.clone()));
                    }
                    drop(requests);
                    streams.join_all().await.expect("no request failed");
                });
            })
        })
        .collect();
    std::thread::park_timeout(Duration::from_millis(300));
    serving.signal("TERM");
    clients.into_iter().for_each(|client| client.join().expect("no request failed"));
    let (status, stderr, _) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Asks until the server says that it takes no more: what it has not begun may be asked of another.
async fn ask_until_refused(mut requests: SendRequest<Full<Bytes>>) {
    let mut answered = 0;
    while requests.ready().await.is_ok() {
        match requests.send_request(get("/you")).await {
            Ok(response) => {
                assert_eq!(whole(response).await, (StatusCode::OK, "hello you\n".to_owned()));
                answered += 1;
            }
            Err(error) => {
                let source = std::error::Error::source(&error);
                let http2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
                let is_refused = http2.is_some_and(h2::Error::is_go_away);
                assert!(is_refused || error.is_canceled() || error.is_closed(), "{error:?}");
                break;
            }
        }
    }
    assert!(answered > 10, "{answered} were answered");
}
