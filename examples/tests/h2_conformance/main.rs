//! HTTP/2 of `hyper_hello` over real sockets, frame by frame: does it keep RFC 9113, and HPACK of RFC 7541?
//!
//! Is: a table of rules (rules.rs), each played on a connection of its own by a client that says anything (peer.rs),
//! and, below, the rules that take a conversation: windows, pings, the end by a drain, and floods. Is not a test of
//! hyper's client side, nor of TLS, which carries the same bytes.
//!
//! ```text
//! settings and their ACKs -> the rule's bytes -> ping, ping -> another request -> what has come, against the table
//! ```
//!
//! Why pings: they are answered in the order of frames, so an answer to one says that what stood before it was read,
//! and nothing is waited for by time.
//!
//! It prints which sections it checked, and where h2, on which hyper stands, deviates:
//! `cargo test -p slipring-examples --test h2_conformance -- --nocapture`.

#![expect(clippy::print_stdout, reason = "what was checked is a report of this test")]

mod peer;
mod rules;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peer::*;
use rules::{Outcome, Rule, rules};
use support::Serving;

const HYPER: &str = env!("CARGO_BIN_EXE_hyper_hello");
const FREE: &[&str] = &["--listen", "127.0.0.1:0"];

/// Other requests stand here: above all streams of the rules.
const PROBE: u32 = 99;
/// Pings after which a RST_STREAM that has not come is none.
const ROUNDS_MAX: u32 = 100;

fn serving() -> (Serving, SocketAddr) {
    let mut serving = Serving::start(HYPER, FREE);
    let address = serving.address();
    (serving, address)
}

#[track_caller]
fn drained(mut serving: Serving) {
    serving.signal("TERM");
    let (status, stderr, _) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// A client who does nothing unusual is served.
#[track_caller]
fn serves_others(address: SocketAddr) {
    let mut peer = Peer::open(address, &[]);
    peer.send(&get(1, "others"));
    assert_eq!(peer.whole_answer(1), hello("others"));
}

// -------------------------------------------------------------------------------------- the table

/// Says what the rule has, and what came of it if that is not `expected`.
fn play(address: SocketAddr, rule: &Rule, expected: Outcome) -> Result<(), String> {
    let held = [(INITIAL_WINDOW_SIZE, 0)];
    let mut peer = Peer::open(address, if rule.is_held { &held } else { &[] });
    if rule.is_after_answer {
        peer.send(&get(1, "you"));
        assert_eq!(peer.whole_answer(1), hello("you"));
    }
    let before = peer.frames.len();
    peer.try_send(&rule.sends);
    let mut goes_on = peer.round();
    if let Outcome::Resets(..) = expected {
        // It may come behind the answers to a few pings.
        let is_reset =
            |peer: &Peer| peer.frames[before..].iter().any(|frame| frame.kind == RST_STREAM);
        for _ in 0..ROUNDS_MAX {
            if !goes_on || is_reset(&peer) {
                break;
            }
            goes_on = peer.round();
        }
    }
    let code_of = |kind, at| {
        let frame = peer.frames[before..].iter().find(|frame| frame.kind == kind);
        frame.map(|frame| (frame.stream, frame.number(at)))
    };
    let (reset, gone) = (code_of(RST_STREAM, 0), code_of(GOAWAY, 4));
    let is_expected = match expected {
        Outcome::Ends(codes) => !goes_on && gone.is_some_and(|(_, code)| codes.contains(&code)),
        Outcome::Resets(on, codes) => {
            goes_on && reset.is_some_and(|(stream, code)| stream == on && codes.contains(&code))
        }
        Outcome::Answers(_) | Outcome::GoesOn => goes_on && reset.is_none(),
    };
    if !is_expected || goes_on != gone.is_none() {
        return Err(format!("goes on: {goes_on}, RST_STREAM: {reset:?}, GOAWAY: {gone:?}"));
    }
    if let Outcome::Answers(stream) = expected {
        assert_eq!(peer.whole_answer(stream), hello("you"), "{}", rule.says);
    }
    if goes_on {
        peer.send(&get(PROBE, "probe"));
        if rule.is_held {
            peer.send(&window_update(PROBE, 1000));
        }
        assert_eq!(peer.whole_answer(PROBE), hello("probe"), "{}", rule.says);
        assert!(peer.round(), "{}: it ended later", rule.says);
    }
    Ok(())
}

#[test]
fn each_rule_of_the_table() {
    let (serving, address) = serving();
    let (mut sections, mut failed) = (BTreeMap::<_, u32>::new(), Vec::new());
    for rule in rules() {
        let Rule { section, says, allows, but, .. } = &rule;
        *sections.entry(*section).or_default() += 1;
        if let Err(came) = play(address, &rule, but.map_or(*allows, |(outcome, _)| outcome)) {
            failed.push(format!("{section}, {says}: {allows:?}, or pinned {but:?}; came: {came}"));
        }
        if let Some((outcome, why)) = but {
            println!("{section}, {says}: not {allows:?} but {outcome:?} ({why})");
        }
    }
    let sections: Vec<_> =
        sections.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    println!("sections, and their rules: {}", sections.join(", "));
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    serves_others(address);
    drained(serving);
}

// ---------------------------------------------------------------------------------- conversations

/// 3.4.
#[test]
fn what_is_no_preface_is_not_served() {
    let (serving, address) = serving();
    for bytes in
        [&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
    {
        let mut peer = Peer::silent(address);
        peer.send(&[bytes, &settings(&[]), &get(1, "you")].concat());
        // GOAWAY may be left out; the end may not.
        let said = String::from_utf8_lossy(&peer.ended_with()).into_owned();
        assert!(!said.contains("200 OK") && !said.contains("hello"), "{said}");
    }
    let mut peer = Peer::silent(address);
    for piece in
        [PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[]), &get(1, "you")].concat().chunks(7)
    {
        peer.send(piece);
    }
    assert_eq!(peer.whole_answer(1), hello("you"));
    drop(peer);
    drained(serving);
}

/// 3.4: h2 deviates. SETTINGS have to be the first frame; it takes any, and goes by the defaults until they come.
#[test]
fn a_preface_without_settings_is_served_all_the_same() {
    let (serving, address) = serving();
    let mut peer = Peer::silent(address);
    peer.send(&[PREFACE, &get(1, "you")].concat());
    assert_eq!(peer.whole_answer(1), hello("you"));
    drop(peer);
    drained(serving);
}

/// 6.5.3: each SETTINGS has its ACK. 6.7: each PING has its payload back.
#[test]
fn settings_and_pings_are_answered() {
    let (serving, address) = serving();
    let mut peer = Peer::open(address, &[]);
    let payloads: Vec<[u8; 8]> = (1..=5).map(|number| [number; 8]).collect();
    for payload in &payloads {
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 1000)]));
        peer.send(&frame(PING, 0xfe, 0, payload));
    }
    let before = peer.frames.len();
    assert!(peer.round(), "it ended");
    let came = |kind| {
        let frames = peer.frames[before..].iter().filter(move |frame| frame.is(kind, 0));
        frames.inspect(|frame| assert!(frame.has(ACK), "{frame:?}")).map(|frame| &frame.payload[..])
    };
    assert_eq!(came(SETTINGS).collect::<Vec<_>>(), [&[][..]; 5]);
    assert_eq!(came(PING).take(5).collect::<Vec<_>>(), payloads);
    drop(peer);
    drained(serving);
}

/// 5.1.2.
#[test]
fn streams_beyond_those_that_may_be_are_refused() {
    let (serving, address) = serving();
    let mut peer = Peer::open(address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let setting = peer.frames[0]
        .payload
        .chunks(6)
        .find(|bytes| bytes[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
    let most = u32::from_be_bytes(setting.expect("a limit")[2..].try_into().expect("four"));
    assert!((100..=1000).contains(&most), "{most}");
    for number in 0..=most {
        peer.send(&get(2 * number + 1, "you"));
    }
    let refused = peer.until(|frame| frame.kind == RST_STREAM);
    assert_eq!((refused.stream, refused.number(0)), (2 * most + 1, REFUSED_STREAM));
    peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 1000)]));
    for number in 0..most {
        assert_eq!(peer.whole_answer(2 * number + 1), hello("you"));
    }
    // There is room again, for who was refused too (8.7).
    peer.send(&get(2 * most + 3, "you"));
    assert_eq!(peer.whole_answer(2 * most + 3), hello("you"));
    drop(peer);
    drained(serving);
}

/// 10.5.1.
#[test]
fn more_headers_than_it_takes_cost_that_request_only() {
    let (serving, address) = serving();
    let mut peer = Peer::open(address, &[]);
    let much = "x".repeat(1000);
    let block = request("you", &[("x-much", &much[..]); 20]);
    let (first, rest) = block.split_at(FRAME_BYTES_MAX);
    peer.send(&frame(HEADERS, END_STREAM, 1, first));
    let mut pieces = rest.chunks(FRAME_BYTES_MAX).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        peer.send(&frame(CONTINUATION, flags, 1, piece));
    }
    let refused = peer.until(|frame| frame.stream == 1);
    assert!(refused.kind == HEADERS && refused.payload[0] != hello("").first_byte, "{refused:?}");
    peer.send(&get(3, "you"));
    assert_eq!(peer.whole_answer(3), hello("you"));
    drop(peer);
    drained(serving);
}

/// 6.9.1, 6.9.2: a stream's window, and one that a setting makes less than nothing.
#[test]
fn an_answer_waits_for_its_streams_window() {
    let (serving, address) = serving();
    let mut peer = Peer::open(address, &[(INITIAL_WINDOW_SIZE, 1000)]);
    let name = "n".repeat(3000);
    peer.send(&get(1, &name));
    assert_eq!(peer.body_after(1, 1000), 1000);
    // Others have their own.
    peer.send(&get(3, "you"));
    assert_eq!(peer.whole_answer(3), hello("you"));
    peer.send(&window_update(1, 500));
    assert_eq!(peer.body_after(1, 1500), 1500);
    peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 400)]));
    peer.send(&window_update(1, 600));
    assert_eq!(peer.body_after(1, 1500), 1500);
    peer.send(&window_update(1, 1));
    assert_eq!(peer.body_after(1, 1501), 1501);
    peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 3000)]));
    assert_eq!(peer.whole_answer(1), hello(&name));
    drop(peer);
    drained(serving);
}

/// 6.9.1: the window of the connection, which no setting changes (6.9.2).
#[test]
fn answers_wait_for_the_connections_window() {
    let (serving, address) = serving();
    let mut peer = Peer::open(address, &[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    let name = "n".repeat(3000);
    let streams: Vec<u32> = (0..30).map(|number| 2 * number + 1).collect();
    streams.iter().for_each(|&stream| peer.send(&get(stream, &name)));
    let total = |peer: &Peer| -> usize {
        streams.iter().map(|&stream| peer.answer(stream).body.len()).sum()
    };
    while total(&peer) < WINDOW {
        assert!(peer.next().is_some(), "it ended");
    }
    assert!(peer.round(), "it ended");
    assert_eq!(total(&peer), WINDOW);
    peer.send(&window_update(0, 1 << 20));
    for &stream in &streams {
        assert_eq!(peer.whole_answer(stream), hello(&name));
    }
    drop(peer);
    drained(serving);
}

// -------------------------------------------------------------------------------------------- ends

/// 6.8: who goes away has what it asked for.
#[test]
fn a_client_that_goes_away_has_its_answers() {
    let (serving, address) = serving();
    let mut peer = Peer::open(address, &[(INITIAL_WINDOW_SIZE, 0)]);
    peer.send(&[get(1, "you"), frame(GOAWAY, 0, 0, &[0; 8])].concat());
    assert!(peer.round(), "it ended with an answer due");
    peer.send(&window_update(1, 1000));
    assert_eq!(peer.whole_answer(1), hello("you"));
    assert!(matches!(peer.ended(), None | Some(NO_ERROR)) && !peer.was_reset);
    drop(peer);
    drained(serving);
}

/// 6.8: a server that is told to end says so twice, and answers what was asked before the second time.
#[test]
fn a_drain_says_goaway_and_answers_what_was_begun() {
    let (mut serving, address) = serving();
    let mut peer = Peer::open(address, &[(INITIAL_WINDOW_SIZE, 0)]);
    peer.send(&get(1, "begun"));
    peer.until(|frame| frame.is(HEADERS, 1));
    serving.signal("TERM");
    let warning = peer.until(|frame| frame.is(GOAWAY, 0));
    assert_eq!((warning.number(0), warning.number(4)), (u32::MAX >> 1, NO_ERROR));
    let ping = peer.until(|frame| frame.is(PING, 0) && !frame.has(ACK));
    // On its way when the warning came.
    peer.send(&get(3, "late"));
    peer.until(|frame| frame.is(HEADERS, 3));
    peer.send(&frame(PING, ACK, 0, &ping.payload));
    let last = peer.until(|frame| frame.is(GOAWAY, 0));
    assert_eq!((last.number(0), last.number(4)), (3, NO_ERROR));
    // Too late: to be asked of another server.
    peer.send(&get(5, "too-late"));
    peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 1000)]));
    assert_eq!(peer.whole_answer(1), hello("begun"));
    assert_eq!(peer.whole_answer(3), hello("late"));
    assert_eq!(peer.ended(), Some(NO_ERROR));
    assert!(!peer.was_reset && peer.answer(5) == Answer::default());
    drop(peer);
    let (status, stderr, _) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// 6.8: GOAWAY before the end, though nothing is under way. Who has not asked anything yet is not known to speak
/// HTTP/2, and has the end alone: the RFC says SHOULD.
#[test]
fn a_drain_says_goaway_to_who_is_idle() {
    let (mut serving, address) = serving();
    let (mut idle, mut new) = (Peer::open(address, &[]), Peer::open(address, &[]));
    idle.send(&get(1, "you"));
    assert_eq!(idle.whole_answer(1), hello("you"));
    serving.signal("TERM");
    let warning = idle.until(|frame| frame.is(GOAWAY, 0));
    assert_eq!((warning.number(0), warning.number(4)), (u32::MAX >> 1, NO_ERROR));
    let ping = idle.until(|frame| frame.is(PING, 0) && !frame.has(ACK));
    idle.send(&frame(PING, ACK, 0, &ping.payload));
    assert_eq!(idle.ended(), Some(NO_ERROR));
    assert!(idle.frames.iter().any(|frame| frame.is(GOAWAY, 0) && frame.number(0) == 1));
    assert_eq!(new.ended(), None);
    assert!(!idle.was_reset && !new.was_reset);
    drop((idle, new));
    let (status, stderr, _) = serving.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

// ------------------------------------------------------------------------------------------ floods

/// Sends each of `pieces` as long as the server takes them; others are served meanwhile. How it ended the connection.
fn flood(address: SocketAddr, pieces: impl ExactSizeIterator<Item = Vec<u8>>) -> Option<u32> {
    let mut peer = Peer::open(address, &[]);
    let half = pieces.len() / 2;
    for (number, piece) in pieces.enumerate() {
        if number == half {
            serves_others(address);
        }
        if !peer.try_send(&piece) {
            break;
        }
    }
    serves_others(address);
    peer.ended()
}

/// 10.5: a header block that does not end.
#[test]
fn a_flood_of_continuations_ends_its_own_connection_only() {
    let (serving, address) = serving();
    for payload in [vec![], field("x", "y"), field("x-much", &"x".repeat(10_000))] {
        let begin = frame(HEADERS, END_STREAM, 1, &request("you", &[]));
        let more = frame(CONTINUATION, 0, 1, &payload).repeat(10);
        let pieces = (0..1000).map(|number| if number == 0 { begin.clone() } else { more.clone() });
        let code = flood(address, pieces);
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{} bytes each", payload.len());
    }
    drained(serving);
}

/// 10.5: streams that are opened and reset at once.
#[test]
fn a_flood_of_resets_ends_its_own_connection_only() {
    let (serving, address) = serving();
    let reset = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let pieces = (0..100).map(|piece| {
        let streams = (0..500).map(|number| 2 * (500 * piece + number) + 1);
        streams.flat_map(|stream| [get(stream, "you"), reset(stream)]).flatten().collect()
    });
    assert_eq!(flood(address, pieces), Some(ENHANCE_YOUR_CALM));
    drained(serving);
}
