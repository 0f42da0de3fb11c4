//! `line_chat` as a process: who hears whom, and what becomes of those who do not listen.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

use support::{Serving, connect, read_one};

const CHAT: &str = env!("CARGO_BIN_EXE_line_chat");
const FREE: &[&str] = &["--listen", "127.0.0.1:0"];

struct Client {
    number: u64,
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    fn new(serving: &mut Serving, address: &mut Option<std::net::SocketAddr>) -> Self {
        let address = *address.get_or_insert_with(|| serving.address());
        let stream = connect(address);
        let lines = BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut client = Self { number: 0, stream, lines };
        let greeting = client.hears();
        let number = greeting.strip_prefix("you are ").and_then(|number| number.parse().ok());
        client.number = number.expect("a greeting");
        client
    }

    fn says(&mut self, line: &str) {
        writeln!(self.stream, "{line}").expect("taken");
    }

    #[track_caller]
    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line comes");
        line.trim_end().to_owned()
    }
}

#[test]
fn what_one_says_all_others_hear() {
    let mut serving = Serving::start(CHAT, &[FREE, &["--placement", "round-robin"]].concat());
    let mut address = None;
    let mut clients: Vec<_> = (0..6).map(|_| Client::new(&mut serving, &mut address)).collect();
    for speaker in 0..clients.len() {
        let said = format!("hello from {speaker}");
        clients[speaker].says(&said);
        let expected = format!("{}: {said}", clients[speaker].number);
        for (listener, client) in clients.iter_mut().enumerate() {
            if listener != speaker {
                assert_eq!(client.hears(), expected);
            }
        }
    }
    // Nobody has heard itself: the next that everybody hears is somebody else's.
    let gone = clients.remove(0);
    drop(gone);
    clients[0].says("last");
    let expected = format!("{}: last", clients[0].number);
    assert!(clients[1..].iter_mut().all(|client| client.hears() == expected));
    serving.signal("TERM");
    for mut client in clients {
        let mut rest = String::new();
        client.lines.read_to_string(&mut rest).expect("an end in order");
        assert_eq!(rest, "");
    }
    let (status, stderr, _) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Whoever does not read gets what its socket holds, and then learns how many lines it has missed: none is counted
/// twice.
#[test]
fn who_does_not_read_misses_lines_and_is_told_how_many() {
    const LINES: usize = 20_000;
    let mut serving = Serving::start(CHAT, FREE);
    let mut address = None;
    let mut slow = Client::new(&mut serving, &mut address);
    let mut quick = Client::new(&mut serving, &mut address);
    let mut speaker = Client::new(&mut serving, &mut address);
    let filler = "x".repeat(980);
    for number in 0..LINES {
        speaker.says(&format!("{number} {filler}"));
        // The speaker is as quick as the quick one reads.
        assert_eq!(quick.hears(), format!("{}: {number} {filler}", speaker.number));
    }
    speaker.says("end");
    let (mut heard, mut missed, mut times) = (0, 0, 0);
    loop {
        let line = slow.hears();
        if line == format!("{}: end", speaker.number) {
            break;
        }
        match line.strip_prefix("you missed ").and_then(|rest| rest.strip_suffix(" lines")) {
            Some(count) => {
                missed += count.parse::<usize>().expect("a number");
                times += 1;
            }
            None => {
                let expected = format!("{}: {} {filler}", speaker.number, heard + missed);
                assert_eq!(line, expected);
                heard += 1;
            }
        }
    }
    assert_eq!(heard + missed, LINES);
    assert!(missed > 0 && times > 0, "20 MB fit nowhere: {heard} heard");
}

#[test]
fn a_line_that_is_too_long_ends_its_client_alone() {
    let mut serving = Serving::start(CHAT, FREE);
    let mut address = None;
    let mut other = Client::new(&mut serving, &mut address);
    let mut long = Client::new(&mut serving, &mut address);
    long.says(&"x".repeat(5000));
    assert_eq!(read_one(&long.stream).unwrap_or(0), 0);
    let mut third = Client::new(&mut serving, &mut address);
    third.says("still here");
    assert_eq!(other.hears(), format!("{}: still here", third.number));
    // One who ends its direction leaves.
    third.stream.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_one(&third.stream).expect("an end in order"), 0);
}
