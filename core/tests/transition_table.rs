//! The machine against the table in its own header: every cell is walked, so the comment cannot lie.
//!
//! A cell is walked with bytes in the outbox and without. A completion goes in where the operation can
//! be in flight, and in the cells that say `-` it cannot: that is checked, too.

use std::rc::Rc;

use slipring_core::connection::{Action, Connection, Input, Rules, Side, State, Surroundings};
use slipring_core::outbox::Pieces;
use slipring_core::span::Span;
use slipring_core::sys::memory::Memory;
use slipring_core::token::{Descriptor, Key, Op};
use slipring_core::{CloseReason, Fault, Limits, Timeouts};

const SOURCE: &str = include_str!("../src/connection.rs");

const STATES: [&str; 6] =
    ["Opening", "Established", "HalfClosed(Ours)", "HalfClosed(Theirs)", "Draining", "Closing"];
const INPUTS: [&str; 16] = [
    "Connected",
    "Connect failed",
    "Received",
    "End of stream",
    "No buffer",
    "Receive failed",
    "Sent",
    "Send blocked",
    "Send failed",
    "Watched",
    "Shutdown done",
    "Shutdown failed",
    "Timer",
    "Asked to shut down",
    "Asked to close",
    "Asked to abort",
];
const BYTES: u32 = 5;
const DIAL_DEADLINE_MS: u64 = 4_000;
const START_MS: u64 = 1_000;

#[derive(Debug)]
struct Cell {
    input: &'static str,
    state: &'static str,
    after: &'static str,
}

/// The cells of the table in the header, all of them.
fn table() -> Vec<Cell> {
    let mut rows = SOURCE
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .filter(|line| line.contains('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let head = rows.next().expect("the header has a table");
    assert_eq!(head[1..], STATES, "the columns");
    let mut cells = Vec::new();
    let mut inputs = Vec::new();
    for row in rows {
        assert_eq!(row.len(), 1 + STATES.len(), "cells of the row {:?}", row[0]);
        inputs.push(row[0]);
        for (state, &after) in STATES.into_iter().zip(&row[1..]) {
            assert!([".", "-"].contains(&after) || STATES.contains(&after), "unknown: {after:?}");
            cells.push(Cell { input: row[0], state, after });
        }
    }
    assert_eq!(inputs, INPUTS, "the rows");
    cells
}

fn name(state: State) -> &'static str {
    match state {
        State::Opening { .. } => "Opening",
        State::Established => "Established",
        State::HalfClosed { side: Side::Ours, .. } => "HalfClosed(Ours)",
        State::HalfClosed { side: Side::Theirs, .. } => "HalfClosed(Theirs)",
        State::Draining { .. } => "Draining",
        State::Closing { .. } => "Closing",
    }
}

/// A connection, and what it needs around it.
struct Stand {
    connection: Connection,
    memory: Rc<Memory>,
    pieces: Pieces,
    rules: Rules,
    now_ms: u64,
}

impl Stand {
    fn new(dialed: bool) -> Self {
        let rules = Rules::new(&Limits::default(), &Timeouts::default(), true, false);
        let connection = if dialed {
            let mut connection = Connection::dialing(DIAL_DEADLINE_MS, &rules, START_MS);
            connection.connecting(Descriptor(3));
            connection
        } else {
            Connection::accepted(Descriptor(3), &rules, START_MS)
        };
        let (memory, pieces) = (Memory::new(1, 64, 1 << 10), Pieces::new());
        let mut stand = Self { connection, memory, pieces, rules, now_ms: START_MS };
        stand.poll();
        stand
    }

    fn append(&mut self) {
        let span = self.memory.adopt(vec![7; BYTES as usize]).expect("room");
        let Self { connection, memory, pieces, rules, now_ms } = self;
        let release = |span: Span| memory.release(span);
        connection.append(span, Surroundings { pieces, release, rules, now_ms: *now_ms });
        self.poll();
    }

    fn handle(&mut self, input: Input) {
        let Self { connection, memory, pieces, rules, now_ms } = self;
        let release = |span: Span| memory.release(span);
        connection.handle(input, Surroundings { pieces, release, rules, now_ms: *now_ms });
    }

    /// Carries out what is wanted.
    fn poll(&mut self) {
        while let Some(action) = self.connection.poll_action(&self.rules) {
            match action {
                Action::Send => {
                    let bytes = self.connection.outbox.bytes();
                    self.connection.begin_send(bytes, &self.rules, || true);
                }
                Action::Free(_) => return,
                _ => {}
            }
        }
    }

    fn in_flight(&self, op: Op) -> bool {
        let (_, _, activation) = self.connection.token(op, Key::new(0, 0)).decode();
        self.connection.expects(op, activation)
    }

    fn step(&mut self, input: Input) {
        self.handle(input);
        self.poll();
    }

    /// What waits goes out, and what has to follow it.
    fn flush(&mut self) {
        if self.in_flight(Op::Watch) {
            self.step(Input::Watched { room: true, reads: true, more: false });
        }
        if self.in_flight(Op::Send) {
            self.step(Input::Sent { result: Ok(BYTES), more: false });
        }
        if self.in_flight(Op::Shutdown) {
            self.step(Input::ShutdownDone(Ok(())));
        }
    }
}

/// A connection that stands in `cell.state`, where `cell.input` can come if it ever can.
fn stand_in(cell: &Cell, bytes: bool) -> Stand {
    let connects = cell.input.starts_with("Connect");
    let dialed = cell.state == "Opening" || (cell.state == "Closing" && connects);
    let mut stand = Stand::new(dialed);
    if cell.state == "HalfClosed(Theirs)" {
        stand.step(Input::EndOfStream);
    }
    if bytes {
        stand.append();
    }
    if cell.input == "Watched" && stand.in_flight(Op::Send) {
        stand.step(Input::Sent { result: Err(Fault::WouldBlock), more: false });
    }
    match cell.state {
        "Opening" | "Established" | "HalfClosed(Theirs)" => {}
        "HalfClosed(Ours)" => stand.step(Input::Shutdown),
        "Draining" => stand.step(Input::Close(CloseReason::LocalClosed)),
        "Closing" => {
            if cell.input.starts_with("Shutdown") {
                stand.step(Input::Shutdown);
            }
            stand.step(Input::Abort(CloseReason::Aborted));
        }
        other => unreachable!("no setup for {other}"),
    }
    if cell.input == "Timer" && cell.state == "Draining" && !bytes {
        // Its deadline is the one of the wait for the peer's FIN.
        stand.flush();
    }
    assert_eq!(name(stand.connection.state()), cell.state, "the setup of {cell:?}");
    stand
}

fn input_of(cell: &Cell) -> Input {
    let sent = |result| Input::Sent { result, more: false };
    match cell.input {
        "Connected" => Input::Connected(Ok(())),
        "Connect failed" => Input::Connected(Err(Fault::Refused)),
        "Received" => Input::Received { bytes: BYTES, more: true },
        "End of stream" => Input::EndOfStream,
        "No buffer" => Input::ReceiveEnded(Fault::NoBuffers),
        "Receive failed" => Input::ReceiveEnded(Fault::Reset),
        "Sent" => sent(Ok(BYTES)),
        "Send blocked" => sent(Err(Fault::WouldBlock)),
        "Send failed" => sent(Err(Fault::BrokenPipe)),
        "Watched" => Input::Watched { room: true, reads: true, more: false },
        "Shutdown done" => Input::ShutdownDone(Ok(())),
        "Shutdown failed" => Input::ShutdownDone(Err(Fault::NotConnected)),
        "Timer" => Input::TimerExpired,
        "Asked to shut down" => Input::Shutdown,
        "Asked to close" => Input::Close(CloseReason::LocalClosed),
        "Asked to abort" => Input::Abort(CloseReason::Aborted),
        other => unreachable!("no input called {other}"),
    }
}

/// Which operation the input completes, and whether it is one that needs bytes to be sent, or none.
fn completes(cell: &Cell) -> Option<(Op, Option<bool>)> {
    Some(match cell.input {
        "Connected" | "Connect failed" => (Op::Connect, None),
        "Received" | "End of stream" | "No buffer" | "Receive failed" => (Op::Receive, None),
        "Sent" | "Send blocked" | "Send failed" => (Op::Send, Some(true)),
        "Watched" => (Op::Watch, Some(true)),
        "Shutdown done" | "Shutdown failed" => (Op::Shutdown, Some(false)),
        _ => return None,
    })
}

/// What is wrong with the cell, if anything.
fn walk(cell: &Cell, bytes: bool) -> Option<String> {
    let mut stand = stand_in(cell, bytes);
    if let Some((op, needs)) = completes(cell) {
        let comes = cell.after != "-" && needs.is_none_or(|needs| needs == bytes);
        assert_eq!(stand.in_flight(op), comes, "whether {op:?} is in flight in {cell:?}");
        if !comes && cell.after != "-" {
            return None; // The other variant is this cell's.
        }
    }
    let input = input_of(cell);
    if cell.input == "Timer" && cell.state != "Closing" {
        stand.now_ms = stand.connection.deadline_ms(&stand.rules) - 1;
        stand.step(input);
        assert_eq!(name(stand.connection.state()), cell.state, "early: {cell:?}");
        stand.now_ms += 1;
    }
    stand.handle(input);
    if (cell.input, cell.state) == ("End of stream", "Draining") {
        stand.poll();
        stand.flush();
    }
    let after = if [".", "-"].contains(&cell.after) { cell.state } else { cell.after };
    let state = name(stand.connection.state());
    stand.poll();
    (state != after).then(|| format!("{cell:?}, bytes waiting: {bytes}: it is {state}"))
}

#[test]
fn every_cell_of_the_table_is_what_the_machine_does() {
    let cells = table();
    assert_eq!(cells.len(), STATES.len() * INPUTS.len());
    let wrong: Vec<_> = cells
        .iter()
        .flat_map(|cell| [false, true].map(|bytes| walk(cell, bytes)))
        .flatten()
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn asked_to_shut_down_while_opening_it_half_closes_once_it_is_open() {
    let mut stand = Stand::new(true);
    stand.append();
    stand.step(Input::Shutdown);
    assert!(!stand.connection.may_send());
    stand.step(Input::Connected(Ok(())));
    assert_eq!(name(stand.connection.state()), "HalfClosed(Ours)");
    assert!(stand.in_flight(Op::Send) && stand.in_flight(Op::Receive));
    stand.flush();
    assert_eq!(name(stand.connection.state()), "HalfClosed(Ours)", "the peer may still send");
}
