//! The load generator against servers that are right, and against servers that are wrong in one way
//! each: it must find every one of them, say what it found, and end in time.
//!
//! The servers are threads of this process on loopback, the load is the real binary. Nothing is
//! asserted about speed, only that something was measured.

#![expect(
    clippy::disallowed_methods,
    reason = "servers of threads, one of which stalls on purpose"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// No run of the load in here may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

const MESSAGE: usize = 64;

/// A listener whose connections are served by a thread each, until it is dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves every connection by `serve`, which ends it by returning or failing.
    fn start(serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let serve = Arc::clone(&serve);
                // How it ended is the load's to tell.
                thread::spawn(move || serve(stream).is_ok());
            }
        });
        Self { address, stop, accepting: Some(accepting) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it from accept.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

fn echo(stream: TcpStream) -> std::io::Result<()> {
    echo_with(stream, |_, _| true)
}

/// Echoes what `change` makes of each chunk; it is told the chunk's position in the stream, and
/// answers whether to go on.
fn echo_with(
    mut stream: TcpStream,
    change: impl Fn(usize, &mut Vec<u8>) -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut position = 0;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let mut chunk = buffer[..len].to_vec();
        let goes_on = change(position, &mut chunk);
        stream.write_all(&chunk)?;
        if !goes_on {
            return Ok(());
        }
        position += len;
    }
}

/// How a run of the load ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn number(&self, key: &str) -> f64 {
        let (_, value) = self.out.split_once(&format!("\"{key}\":")).expect(key);
        value.split([',', '}']).next().and_then(|text| text.parse().ok()).expect(key)
    }

    fn error_count(&self) -> f64 {
        ["refused", "reset", "early_eof", "timeout", "no_port", "no_descriptor", "other"]
            .map(|kind| self.number(kind))
            .iter()
            .sum()
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!((self.error_count(), self.number("corrupted")), (0.0, 0.0), "{self:?}");
        assert!(self.number("completed") > 0.0 && self.number("p50") > 0.0, "{self:?}");
        assert!(self.out.ends_with("}\n") && self.out.lines().count() == 1, "{self:?}");
    }

    #[track_caller]
    fn assert_found(&self, kind: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.number(kind) > 0.0, "{kind}: {self:?}");
    }
}

/// Runs the load to its end; kills it, and fails, when it takes too long.
fn load(address: impl ToString, arguments: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_load"))
        .arg(address.to_string())
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take());
    let (send, receive) = mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut text, mut error_text) = (String::new(), String::new());
        out.read_to_string(&mut text).expect("text");
        err.as_mut().expect("piped").read_to_string(&mut error_text).expect("text");
        drop(send.send((text, error_text)));
    });
    let texts = receive.recv_timeout(PATIENCE);
    if texts.is_err() {
        child.kill().expect("it runs");
    }
    let status = child.wait().expect("it is a child");
    reader.join().expect("it only reads");
    let (out, err) = texts.expect("the load ends in time");
    Ended { code: status.code(), out, err }
}

/// A short closed loop on a server, as JSON.
fn short(server: &Server, arguments: &str) -> Ended {
    let usual = format!("--size {MESSAGE} --seconds 0.3 --warmup 0.1 --timeout 5 --json");
    load(server.address, &format!("{usual} {arguments}"))
}

#[test]
fn a_right_server_is_measured() {
    let server = Server::start(echo);
    for arguments in ["--connections 1", "--connections 20 --depth 8"] {
        let ended = short(&server, arguments);
        ended.assert_clean();
        assert!(ended.out.starts_with("{\"mode\":\"closed\","), "{ended:?}");
        assert!(ended.number("bytes") >= ended.number("completed") * MESSAGE as f64 * 0.9);
        let latencies = ["p50", "p90", "p99", "p999", "max"].map(|key| ended.number(key));
        assert!(latencies.is_sorted(), "{ended:?}");
        assert!(ended.err.is_empty() && ended.number("cpu_s") > 0.0, "{ended:?}");
    }
}

#[test]
fn sizes_from_one_byte_to_many_buffers_come_back_whole() {
    let server = Server::start(echo);
    for arguments in [
        "--connections 3 --depth 8 --size 1",
        "--connections 2 --depth 3 --size 4097",
        "--connections 4 --depth 2 --size 4194304",
    ] {
        let usual = "--seconds 0.3 --warmup 0 --timeout 10 --json";
        load(server.address, &format!("{arguments} {usual}")).assert_clean();
    }
}

#[test]
fn the_text_names_the_figures() {
    let server = Server::start(echo);
    let arguments = format!(
        "--connections 2 --size 64 --seconds 0.2 --warmup 0 --server-pid {}",
        std::process::id()
    );
    let ended = load(server.address, &arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for figure in ["messages", "MB/s", "p99.9", "mean", "CPU", "us each", "unanswered", "errors"] {
        assert!(ended.out.contains(figure), "{figure}: {ended:?}");
    }
}

#[test]
fn the_server_cpu_is_told_when_asked_for() {
    let server = Server::start(echo);
    let ended = short(&server, &format!("--connections 4 --server-pid {}", std::process::id()));
    ended.assert_clean();
    assert!(ended.number("server_cpu_us_per_message") > 0.0, "{ended:?}");
    let ended = short(&server, "--connections 4");
    assert!(ended.out.contains("\"server_cpu_us_per_message\":null"), "{ended:?}");
}

#[test]
fn one_changed_byte_is_found() {
    let server = Server::start(|stream| {
        echo_with(stream, |position, chunk| {
            if position <= 1000 && 1000 < position + chunk.len() {
                chunk[1000 - position] ^= 1;
            }
            true
        })
    });
    let ended = short(&server, "--connections 3");
    ended.assert_found("corrupted");
    assert_eq!((ended.number("corrupted"), ended.error_count()), (3.0, 0.0), "{ended:?}");
    // With a new connection for each, the byte is in the middle of every message.
    let ended = load(
        server.address,
        "--connections 3 --size 1500 --seconds 0.2 --warmup 0 --churn --json --timeout 5",
    );
    ended.assert_found("corrupted");
    assert_eq!(ended.number("completed"), 0.0, "{ended:?}");
}

#[test]
fn bytes_that_come_twice_are_found() {
    let twice = |position, chunk: &mut Vec<u8>| {
        if position >= 1000 {
            chunk.extend_from_within(..);
        }
        true
    };
    let server = Server::start(move |stream| echo_with(stream, twice));
    short(&server, "--connections 2").assert_found("corrupted");
    short(&server, "--connections 2 --depth 8").assert_found("corrupted");
}

#[test]
fn a_lost_byte_is_found() {
    let lossy = |position, chunk: &mut Vec<u8>| {
        if position == 0 {
            chunk.pop();
        }
        true
    };
    let server = Server::start(move |stream| echo_with(stream, lossy));
    short(&server, "--connections 2 --depth 2").assert_found("corrupted");
    // Nothing follows that would show it: the message is never complete.
    short(&server, "--connections 2 --timeout 0.2").assert_found("timeout");
}

#[test]
fn messages_in_another_order_are_found() {
    let server = Server::start(|mut stream| {
        let mut two = [0; 2 * MESSAGE];
        loop {
            stream.read_exact(&mut two)?;
            two.rotate_left(MESSAGE);
            stream.write_all(&two)?;
        }
    });
    short(&server, "--connections 2 --depth 2").assert_found("corrupted");
}

#[test]
fn bytes_of_another_connection_are_found() {
    let waiting = Mutex::new(None::<TcpStream>);
    let server = Server::start(move |mut stream| {
        let first = waiting.lock().expect("nobody panics").take();
        let Some(mut first) = first else {
            *waiting.lock().expect("nobody panics") = Some(stream);
            return Ok(());
        };
        let (mut one, mut other) = ([0; MESSAGE], [0; MESSAGE]);
        first.read_exact(&mut one)?;
        stream.read_exact(&mut other)?;
        stream.write_all(&one)?;
        first.write_all(&other)?;
        echo(stream)
    });
    let ended = short(&server, "--connections 2 --timeout 0.3");
    ended.assert_found("corrupted");
    assert_eq!(ended.number("completed"), 0.0, "{ended:?}");
}

#[test]
fn an_early_end_is_found() {
    let server = Server::start(|stream| echo_with(stream, |position, _| position < 10 * MESSAGE));
    let ended = short(&server, "--connections 3");
    ended.assert_found("early_eof");
    assert_eq!(ended.error_count(), 3.0, "{ended:?}");
    let half = |_, chunk: &mut Vec<u8>| {
        chunk.truncate(MESSAGE / 2);
        false
    };
    let server = Server::start(move |stream| echo_with(stream, half));
    short(&server, "--connections 3 --churn").assert_found("early_eof");
}

#[test]
fn a_reset_is_found() {
    let server = Server::start(|mut stream| {
        stream.read_exact(&mut [0; MESSAGE])?;
        // Closing with this setting, or with bytes unread, resets.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    });
    short(&server, "--connections 3").assert_found("reset");
    short(&server, "--connections 3 --churn").assert_found("reset");
}

#[test]
fn no_answer_is_a_timeout() {
    let silent = |mut stream: TcpStream| {
        while stream.read(&mut [0; 4096])? > 0 {}
        Ok(())
    };
    let server = Server::start(silent);
    let ended = short(&server, "--connections 3 --timeout 0.2");
    ended.assert_found("timeout");
    assert_eq!((ended.error_count(), ended.number("completed")), (3.0, 0.0), "{ended:?}");
    assert!(ended.out.contains("\"p50\":null"), "{ended:?}");
    short(&server, "--connections 3 --timeout 0.2 --churn").assert_found("timeout");
    // Longer than the run: it waits for the last answers.
    let ended = short(&server, "--connections 3 --timeout 0.7");
    ended.assert_found("timeout");
    assert_eq!(ended.number("unanswered"), 3.0, "{ended:?}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = Server::start(echo);
    let arguments = "--connections 7 --rate 400 --size 64 --seconds 1 --warmup 0.2 --json";
    let ended = load(server.address, arguments);
    ended.assert_clean();
    assert!(ended.out.starts_with("{\"mode\":\"open\","), "{ended:?}");
    let completed = ended.number("completed") + ended.number("unanswered");
    assert!((300.0..=500.0).contains(&completed), "{ended:?}");
}

#[test]
fn an_open_loop_counts_the_waiting_behind_a_stall() {
    let stalled = AtomicBool::new(false);
    let server = Server::start(move |stream| {
        echo_with(stream, |position, _| {
            if position > 50 * MESSAGE && !stalled.swap(true, Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(300));
            }
            true
        })
    });
    let arguments = "--connections 1 --rate 500 --size 64 --seconds 0.8 --warmup 0 --json";
    let ended = load(server.address, arguments);
    ended.assert_clean();
    // One answer was late by the stall; the 150 that were due meanwhile waited 150 ms on average.
    assert!(ended.number("p90") > 100_000.0 && ended.number("mean") > 15_000.0, "{ended:?}");
}

#[test]
fn an_open_loop_tells_what_a_slow_server_left_unanswered() {
    let server = Server::start(|stream| {
        echo_with(stream, |_, _| {
            thread::sleep(Duration::from_millis(20));
            true
        })
    });
    let ended = short(&server, "--connections 2 --rate 2000");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.number("unanswered") > 300.0, "{ended:?}");
    assert!(ended.number("p50") > 50_000.0, "{ended:?}");
    let ended = short(&server, "--connections 2 --rate 2000 --churn");
    assert!(ended.number("unanswered") > 300.0, "{ended:?}");
}

#[test]
fn churn_connects_for_every_message() {
    let server = Server::start(echo);
    let ended = short(&server, "--connections 8 --churn");
    ended.assert_clean();
    assert!(ended.out.starts_with("{\"mode\":\"churn\","), "{ended:?}");
    let ended = short(&server, "--connections 8 --churn --rate 200");
    ended.assert_clean();
    assert!(ended.number("completed") + ended.number("unanswered") <= 110.0, "{ended:?}");
    let arguments = "--connections 2 --size 1000000 --seconds 0.3 --warmup 0 --churn --json";
    load(server.address, arguments).assert_clean();
}

#[test]
fn churn_goes_on_and_ends_in_time_when_the_server_goes_away() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = thread::spawn(move || {
        for _ in 0..20 {
            let (stream, _) = listener.accept().expect("somebody connects");
            drop(echo(stream));
        }
    });
    let arguments = "--connections 4 --size 64 --seconds 0.5 --warmup 0 --churn --json";
    let ended = load(address, arguments);
    server.join().expect("it only echoes");
    ended.assert_found("refused");
    assert!(ended.number("completed") >= 15.0, "{ended:?}");
}

#[test]
fn what_cannot_start_is_refused_in_one_line() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("it is bound")
    };
    let usual = "--connections 2 --size 64 --seconds 0.2";
    let server = Server::start(echo);
    for (address, arguments, cause) in [
        (gone.to_string(), usual.to_owned(), "refused"),
        (gone.to_string(), format!("{usual} --churn"), "refused"),
        (server.address.to_string(), "--connections 2 --size 64".to_owned(), "--seconds"),
        (server.address.to_string(), format!("{usual} --rate -1"), "--rate"),
        (server.address.to_string(), format!("{usual} --cpu 9999"), "CPU 9999"),
        (server.address.to_string(), format!("{usual} --server-pid 4294967295"), "--server-pid"),
        ("nowhere".to_owned(), usual.to_owned(), "HOST:PORT"),
    ] {
        let ended = load(address, &arguments);
        assert_eq!(ended.code, Some(2), "{arguments}: {ended:?}");
        assert!(ended.out.is_empty() && ended.err.lines().count() == 1, "{ended:?}");
        assert!(ended.err.contains(cause) && ended.err.contains("; "), "{cause}: {ended:?}");
    }
}
