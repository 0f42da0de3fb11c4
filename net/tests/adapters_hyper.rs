//! HTTP by hyper on reactors' connections, on the real kernel: both sides of it, bodies, back-pressure, timers.

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::rt::Timer as _;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use slipring::adapters::hyper::{ReactorExecutor, ReactorTimer};
use slipring::{Conn, Serve};
use support::{
    Check, PATIENCE, Pattern, Rng, assert_kept, bounded, connect, end, ms, now, one_reactor,
    read_bytes, serve,
};

/// A body of so many bytes of a pattern, in frames of any length. What makes it is not `Send`.
struct Patterned {
    pattern: Pattern,
    rng: Rng,
    left: usize,
    made: Rc<std::cell::Cell<usize>>,
}

impl Patterned {
    fn new(seed: u64, bytes: usize, made: Rc<std::cell::Cell<usize>>) -> Self {
        Self { pattern: Pattern::new(seed), rng: Rng::new(seed), left: bytes, made }
    }
}

impl Body for Patterned {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let count = self.rng.up_to(40_000).min(self.left);
        self.left -= count;
        self.made.set(self.made.get() + count);
        let bytes = self.pattern.take(count);
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }
}

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>;

/// Sends a body back; or, asked for `/SEED/BYTES`, makes one.
async fn answer(request: Request<Incoming>) -> Result<Response<AnyBody>, Infallible> {
    if request.method() == Method::POST {
        return Ok(Response::new(AnyBody::new(request.into_body())));
    }
    let numbers: Vec<u64> =
        request.uri().path().split('/').filter_map(|number| number.parse().ok()).collect();
    let body = match numbers[..] {
        [seed, bytes] => Pattern::new(seed).take(bytes as usize),
        _ => Vec::new(),
    };
    Ok(Response::new(AnyBody::new(Full::from(body).map_err(|never| match never {}))))
}

async fn http1(conn: Conn) {
    let mut http = hyper::server::conn::http1::Builder::new();
    let http = http.timer(ReactorTimer).header_read_timeout(ms(300)).half_close(true);
    let _ = http.serve_connection(conn, service_fn(answer)).await;
}

async fn http2(conn: Conn) {
    let mut http = hyper::server::conn::http2::Builder::new(ReactorExecutor);
    let http = http.timer(ReactorTimer).keep_alive_interval(Some(ms(200)));
    let _ = http.keep_alive_timeout(ms(200)).serve_connection(conn, service_fn(answer)).await;
}

/// The requests of a client that is hyper too, on a reactor of its own.
fn client<T, S, F>(address: SocketAddr, run: S) -> T
where
    T: Send + 'static,
    S: FnOnce(Conn) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let builder = one_reactor().max_dialed(4);
    let serving = builder.serve(async |_conn: Conn| {}).expect("it starts");
    let result = serving.spawner().spawn(move || async move {
        let conn = slipring::dial(address).await.expect("it listens");
        slipring::timeout(PATIENCE, run(conn)).await.expect("in time")
    });
    let result = result.join().expect("the client does not panic");
    end(serving);
    result
}

async fn check(seed: u64, bytes: usize, mut body: Incoming) {
    let mut check = Check::new(seed);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.expect("a whole body").into_data() {
            check.next(&data);
        }
    }
    assert_eq!(check.bytes, bytes as u64);
}

const SIZES: [usize; 8] = [0, 1, 100, 16_384, 65_535, 65_536, 300_000, 3 << 20];

// ------------------------------------------------------------------------------------------ HTTP/1

#[test]
fn bodies_go_there_and_back_over_one_connection_of_http1() {
    bounded(|| {
        let serving = serve(one_reactor(), http1);
        client(serving.addresses()[0], async |conn| {
            let (mut requests, driver) =
                hyper::client::conn::http1::handshake(conn).await.expect("a handshake");
            let driver = slipring::spawn_local(driver);
            for (seed, bytes) in SIZES.into_iter().enumerate() {
                let seed = seed as u64;
                let body = Patterned::new(seed, bytes, Rc::default());
                let request = Request::post("/").header("host", "test").body(body).expect("valid");
                requests.ready().await.expect("kept alive");
                let response = requests.send_request(request).await.expect("answered");
                assert_eq!(response.status(), StatusCode::OK);
                check(seed, bytes, response.into_body()).await;
            }
            drop(requests);
            driver.await.expect("it ends").expect("in order");
        });
        end(serving);
    });
}

/// The head of a response and its body of so many bytes, from a plain socket.
fn read_response(stream: &std::net::TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_bytes(stream, 1));
    }
    let head = String::from_utf8(head).expect("plain text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).expect("a length");
    (head, read_bytes(stream, length))
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    bounded(|| {
        let serving = serve(one_reactor(), http1);
        let mut stream = connect(serving.addresses()[0]);
        let mut rng = Rng::new(1);
        let sizes: Vec<usize> = (0..300).map(|_| rng.up_to(5_000)).collect();
        let requests: String = (sizes.iter().enumerate())
            .map(|(seed, bytes)| format!("GET /{seed}/{bytes} HTTP/1.1\r\nhost: test\r\n\r\n"))
            .collect();
        let mut writing = stream.try_clone().expect("a descriptor");
        let writer = support::spawn(move || {
            for piece in requests.as_bytes().chunks(777) {
                writing.write_all(piece).expect("taken");
            }
            // Whatever is asked for before the end of the stream is answered.
            writing.shutdown(std::net::Shutdown::Write).expect("open");
        });
        for (seed, bytes) in sizes.into_iter().enumerate() {
            let (head, body) = read_response(&stream);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(body == Pattern::new(seed as u64).take(bytes), "the body of another request");
        }
        writer.join().expect("the writer");
        assert_eq!(stream.read(&mut [0]).expect("an end in order"), 0);
        end(serving);
    });
}

/// The head has to come within 300 ms: by the reactor's clock.
#[test]
fn a_head_that_does_not_come_times_out() {
    bounded(|| {
        let serving = serve(one_reactor(), http1);
        let mut stream = connect(serving.addresses()[0]);
        let started = now();
        stream.write_all(b"GET / HTTP/1.1\r\nho").expect("sent");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("an end in order");
        assert_kept("a head", started.elapsed(), ms(300));
        end(serving);
    });
}

/// A client that reads nothing: the body is made only as far as there is room for it.
#[test]
fn a_client_that_does_not_read_holds_the_body_back() {
    const BYTES: usize = 64 << 20;
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let serving = one_reactor().serve(move |conn: Conn| {
            let tell = tell.clone();
            async move {
                let made = Rc::new(std::cell::Cell::new(0));
                let body = Rc::clone(&made);
                let service = service_fn(move |_request: Request<Incoming>| {
                    let body = Patterned::new(3, BYTES, Rc::clone(&body));
                    async { Ok::<_, Infallible>(Response::new(body)) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let mut connection = std::pin::pin!(http.serve_connection(conn, service));
                let mut looked = std::pin::pin!(slipring::sleep(ms(300)));
                std::future::poll_fn(|cx| {
                    if looked.as_mut().poll(cx).is_ready() {
                        tell.send(made.get()).expect("the test waits");
                        looked.set(slipring::sleep(Duration::from_secs(60)));
                        let _ = looked.as_mut().poll(cx);
                    }
                    connection.as_mut().poll(cx).map(drop)
                })
                .await;
            }
        });
        let serving = serving.expect("it starts");
        let mut stream = connect(serving.addresses()[0]);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let made = told.recv_timeout(PATIENCE).expect("told");
        assert!(made < BYTES / 2, "{made} bytes were made for a client that reads nothing");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read_bytes(&stream, 1));
        }
        assert_eq!(support::read_pattern(&stream, 3).expect("read"), BYTES as u64);
        end(serving);
    });
}

// ------------------------------------------------------------------------------------------ HTTP/2

#[test]
fn streams_go_side_by_side_over_one_connection_of_http2() {
    bounded(|| {
        let serving = serve(one_reactor(), http2);
        client(serving.addresses()[0], async |conn| {
            let (requests, driver) = hyper::client::conn::http2::handshake(ReactorExecutor, conn)
                .await
                .expect("a handshake");
            let driver = slipring::spawn_local(driver);
            let mut streams = slipring::Scope::new();
            for seed in 0..64_u64 {
                let mut requests = requests.clone();
                streams.spawn(async move {
                    let bytes = SIZES[seed as usize % SIZES.len()] / 4;
                    let body = Patterned::new(seed, bytes, Rc::default());
                    let request = Request::post("http://test/").body(body).expect("valid");
                    requests.ready().await.expect("open");
                    let response = requests.send_request(request).await.expect("answered");
                    check(seed, bytes, response.into_body()).await;
                });
            }
            streams.join_all().await.expect("all of them");
            drop(requests);
            driver.await.expect("it ends").expect("in order");
        });
        end(serving);
    });
}

/// One stream's body is not read by its client: the others go on, and then it does.
#[test]
fn a_stream_that_is_not_read_does_not_stop_the_others() {
    bounded(|| {
        let serving = serve(one_reactor(), http2);
        client(serving.addresses()[0], async |conn| {
            let (mut requests, driver) = hyper::client::conn::http2::Builder::new(ReactorExecutor)
                .initial_stream_window_size(100_000)
                .initial_connection_window_size(1 << 20)
                .handshake(conn)
                .await
                .expect("a handshake");
            let driver = slipring::spawn_local(driver);
            let get = |path: &str| {
                let uri = format!("http://test{path}");
                Request::get(uri).body(Full::<Bytes>::default()).expect("valid")
            };
            let unread = requests.send_request(get("/1/500000")).await.expect("answered");
            for seed in 2..40 {
                requests.ready().await.expect("open");
                let path = format!("/{seed}/200000");
                let response = requests.send_request(get(&path)).await.expect("answered");
                check(seed, 200_000, response.into_body()).await;
            }
            check(1, 500_000, unread.into_body()).await;
            drop(requests);
            driver.await.expect("it ends").expect("in order");
        });
        end(serving);
    });
}

/// It is pinged after 200 ms, and has 200 more to answer: two sleeps on the reactor's clock.
#[test]
fn a_client_of_http2_that_answers_no_ping_is_given_up() {
    bounded(|| {
        let serving = serve(one_reactor(), http2);
        let mut stream = connect(serving.addresses()[0]);
        let started = now();
        // The preface, empty settings; what comes is read, and never answered.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_kept("a ping and its answer", started.elapsed(), ms(400));
        end(serving);
    });
}

// ------------------------------------------------------------------------------------------ timers

#[test]
fn a_timer_keeps_its_deadlines_and_may_be_reset() {
    bounded(|| {
        let serving = one_reactor().serve(async |_conn: Conn| {}).expect("it starts");
        let slept = serving.spawner().spawn(|| async {
            let timer = ReactorTimer;
            let started = timer.now();
            timer.sleep(ms(40)).await;
            let first = timer.now() - started;
            timer.sleep_until(started + ms(100)).await;
            let second = timer.now() - started;
            let mut sleep = timer.sleep(Duration::from_secs(3600));
            std::future::poll_fn(|cx| {
                assert!(sleep.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            timer.reset(&mut sleep, started + ms(150));
            sleep.await;
            (first, second, timer.now() - started)
        });
        let (first, second, third) = slept.join().expect("it ends");
        assert_kept("a sleep", first, ms(40));
        assert_kept("a deadline", second, ms(100));
        assert_kept("one that was reset", third, ms(150));
        end(serving);
    });
}

#[test]
#[should_panic(expected = "called outside of a reactor's tasks")]
fn a_timer_outside_of_a_reactor_says_so() {
    drop(ReactorTimer.sleep(ms(1)));
}

/// A sleep is `Send`, since hyper wants it to be; it is of no use elsewhere, and says so.
#[test]
fn a_sleep_on_another_reactor_says_so() {
    bounded(|| {
        let serving = support::two_reactors().serve(async |_conn: Conn| {}).expect("it starts");
        let (send, sent) = mpsc::channel();
        let spawner = serving.spawner();
        let begun = spawner.spawn_on(0, move || async move {
            let mut sleep = ReactorTimer.sleep(Duration::from_secs(3600));
            std::future::poll_fn(|cx| {
                assert!(sleep.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            send.send(sleep).expect("the test waits");
        });
        begun.join().expect("it has begun");
        let sleep = sent.recv().expect("sent");
        let ended = spawner.spawn_on(1, move || sleep).join();
        assert_eq!(ended, Err(slipring::JoinError::Panicked));
        serving.handle().drain();
        let counters = serving.join().expect("a drain in order");
        assert_eq!(counters.iter().map(|counters| counters.handler_panics).sum::<u64>(), 1);
    });
}
