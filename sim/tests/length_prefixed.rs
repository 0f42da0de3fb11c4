//! How to test a protocol of one's own: frames with a length before them, a server that answers
//! each in capitals, and a bug in it on purpose. docs/simulation.md walks through this file.
//!
//! The bug passes a test that sends a frame and awaits its answer, and would pass it over loopback
//! for years: four bytes that are sent together arrive together, nearly always.

use slipring_core::{Ctx, Handler, Lease};
use slipring_sim::{Failure, Knobs, Script, Sim, SimBuilder, check, explore};

/// Four bytes of length, big-endian, before the frame's own.
const HEADER: usize = 4;
/// A frame longer than this ends its connection.
const FRAME_MAX: usize = 64 << 10;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Answers each frame in capitals.
#[derive(Debug)]
struct Capitals {
    /// Makes frames of what has come of a connection and not been answered: the part that is wrong
    /// or right.
    next_frame: fn(&mut Vec<u8>) -> Next,
}

/// What stands at the front of a connection's bytes.
#[derive(Debug)]
enum Next {
    Frame(Vec<u8>),
    /// More has to come.
    Wait,
    /// No client of ours.
    Refuse,
}

impl Handler for Capitals {
    type State = Vec<u8>;

    fn on_data(&mut self, ctx: &mut Ctx<'_, Vec<u8>>, data: Lease) {
        ctx.state().extend_from_slice(&data);
        loop {
            match (self.next_frame)(ctx.state()) {
                Next::Frame(body) => ctx.send(frame(&body.to_ascii_uppercase())),
                Next::Wait => return,
                Next::Refuse => return ctx.abort(),
            }
        }
    }
}

/// As it should be.
fn carefully(bytes: &mut Vec<u8>) -> Next {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Next::Wait };
    let length = u32::from_be_bytes(*header) as usize;
    if length > FRAME_MAX {
        return Next::Refuse;
    }
    let Some(body) = rest.get(..length).map(<[u8]>::to_vec) else { return Next::Wait };
    bytes.drain(..HEADER + length);
    Next::Frame(body)
}

/// As it was written first: the body may come in pieces, but the header, so it thinks, is there or
/// not.
fn hastily(bytes: &mut Vec<u8>) -> Next {
    if bytes.is_empty() {
        return Next::Wait;
    }
    // The bug: of a header that has not come in full, what is missing counts as zeros.
    let mut header = [0; HEADER];
    let there = bytes.len().min(HEADER);
    header[..there].copy_from_slice(&bytes[..there]);
    let length = u32::from_be_bytes(header) as usize;
    if length > FRAME_MAX {
        return Next::Refuse;
    }
    let Some(body) = bytes.get(there..there + length).map(<[u8]>::to_vec) else {
        return Next::Wait;
    };
    bytes.drain(..there + length);
    Next::Frame(body)
}

/// Two frames and their answers, then both sides leave.
fn conversation() -> Script {
    Script::new()
        .send(frame(b"hello"))
        .expect(frame(b"HELLO"))
        .send(frame(b"good bye"))
        .expect(frame(b"GOOD BYE"))
        .shutdown()
        .expect_end()
}

/// The test of the protocol, for any version of it and any seed.
fn converse(seed: u64, next_frame: fn(&mut Vec<u8>) -> Next) -> Result<(), Failure> {
    let mut sim = Sim::new(seed, |_reactor| Capitals { next_frame });
    sim.connect(conversation());
    sim.connect(
        Script::new()
            .send([frame(b"a"), frame(b""), frame(b"bc")].concat())
            .expect([frame(b"A"), frame(b""), frame(b"BC")].concat()),
    );
    sim.try_finish()
}

#[test]
fn a_naive_test_passes_bug_and_all() {
    for seed in 0..100 {
        let builder = SimBuilder::new(seed).faults(Knobs::calm());
        let mut sim = builder.start(|_reactor| Capitals { next_frame: hastily });
        sim.connect(conversation());
        sim.finish();
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "shows what a report looks like")]
fn the_simulator_finds_the_bug() {
    let failure = explore(0..50, |seed| converse(seed, hastily)).expect("a seed that finds it");
    println!("{failure}");
    assert!(failure.seed < 10, "one of the first seeds: {}", failure.seed);
    let again = converse(failure.seed, hastily);
    assert_eq!(again, Err(failure), "the same seed, the same failure");
}

#[test]
fn the_corrected_handler_passes_a_thousand_seeds() {
    check(1_000, |seed| {
        if let Err(failure) = converse(seed, carefully) {
            panic!("{failure}");
        }
    });
}

#[test]
fn who_announces_too_much_is_refused() {
    check(100, |seed| {
        let mut sim = Sim::new(seed, |_reactor| Capitals { next_frame: carefully });
        sim.connect(Script::new().send((FRAME_MAX as u32 + 1).to_be_bytes()).expect_reset());
        sim.finish();
    });
}
