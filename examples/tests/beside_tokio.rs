//! `beside_tokio`: questions and answers go both ways between two runtimes of one process, and both end.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use support::{Serving, connect, refusal};

const BESIDE_TOKIO: &str = env!("CARGO_BIN_EXE_beside_tokio");

fn say(mut stream: &TcpStream, name: &str) -> String {
    stream.write_all(name.as_bytes()).expect("sent");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    answer
}

#[test]
fn names_are_counted_over_all_clients_and_the_end_is_in_order() {
    let mut serving = Serving::start(BESIDE_TOKIO, &["127.0.0.1:0"]);
    let address = serving.address();
    let clients: Vec<_> = (0..4).map(|_| connect(address)).collect();
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(say(client, "anna\n"), format!("{}\n", n + 1));
    }
    // In pieces, and two at once.
    assert_eq!(say(&clients[0], "bo\nan"), "1\n");
    assert_eq!(say(&clients[0], "na\n"), "5\n");
    serving.signal("INT");
    let (status, stderr, more) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(more, ["6 lines, 2 names"]);
    drop(clients);
    TcpStream::connect(address).expect_err("nobody listens any more");
}

#[test]
fn who_never_ends_a_line_is_cut_off() {
    let mut serving = Serving::start(BESIDE_TOKIO, &["127.0.0.1:0"]);
    let mut client = connect(serving.address());
    client.write_all(&[b'a'; 1000]).expect("sent");
    let error = support::read_one(&client).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn what_cannot_start_says_why() {
    let mut command = std::process::Command::new(BESIDE_TOKIO);
    refusal(command.arg("nowhere"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut command = std::process::Command::new(BESIDE_TOKIO);
    refusal(command.arg(taken.local_addr().expect("its address").to_string()));
}
