//! `redis_get` as a process, against a server of the test's own that speaks the part of the protocol it needs.

#![expect(clippy::disallowed_methods, reason = "its server is a thread")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread::JoinHandle;

use support::refusal;

const GET: &str = env!("CARGO_BIN_EXE_redis_get");

/// Serves one client: each answer for the next key. What was asked for.
fn server(answers: &'static [&'static [u8]]) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut lines = BufReader::new(stream.try_clone().expect("a descriptor"));
        let keys = answers.iter().map(|answer| {
            let key = key(&mut lines);
            // A byte at a time: the client has to put them together.
            answer.chunks(1).for_each(|byte| stream.write_all(byte).expect("taken"));
            key
        });
        let keys = keys.collect();
        let mut rest = Vec::new();
        lines.read_to_end(&mut rest).expect("an end in order");
        assert!(rest.is_empty(), "more was asked for");
        keys
    });
    (address, serving)
}

/// Reads `GET KEY` as an array of two strings.
fn key(lines: &mut BufReader<TcpStream>) -> String {
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    };
    let words: Vec<String> = std::iter::repeat_with(&mut next).take(5).collect();
    assert_eq!(
        (&words[..4], words[4].len()),
        (
            &["*2".to_owned(), "$3".to_owned(), "GET".to_owned(), format!("${}", words[4].len())][..],
            words[4].len(),
        )
    );
    words[4].clone()
}

fn get(address: SocketAddr, keys: &[&str]) -> Output {
    let mut command = Command::new(GET);
    command.args(["--server", &address.to_string()]).args(keys);
    command.output().expect("the binary is there")
}

#[test]
fn values_come_in_the_order_of_their_keys() {
    let (address, serving) = server(&[b"$5\r\nhello\r\n", b"$-1\r\n", b"$3\r\n\r\n!\r\n"]);
    let output = get(address, &["greeting", "nothing", "with spaces"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"hello\n\n\r\n!\n");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(serving.join().expect("the server"), ["greeting", "nothing", "with spaces"]);
}

#[test]
fn an_error_of_the_server_is_shown() {
    let (address, serving) = server(&[b"-WRONGTYPE not a string\r\n", b"$1\r\nx\r\n"]);
    let output = get(address, &["a list", "a string"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"x\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("WRONGTYPE"), "{output:?}");
    serving.join().expect("the server");
}

#[test]
fn what_cannot_be_asked_is_refused_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = free.expect("a free port").to_string();
    let line = refusal(Command::new(GET).args(["--server", &nobody, "key"]));
    assert!(line.contains("refused"), "{line}");
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = mute.local_addr().expect("it is bound").to_string();
    let arguments = ["--server", &address, "--timeout", "100ms", "key"];
    let line = refusal(Command::new(GET).args(arguments));
    assert!(line.contains("in time"), "{line}");
    let line = refusal(Command::new(GET).args(["--server", &nobody]));
    assert!(line.contains("KEY"), "{line}");
}
