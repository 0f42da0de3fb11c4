//! The table: a rule of RFC 9113 or RFC 7541, bytes that keep or break it, and what has to come of them.
//!
//! Is data: main.rs plays it. A section without a name is one of RFC 9113; `7541:` stands before those of HPACK.
//!
//! | outcome | the RFC says |
//! |---|---|
//! | `Ends` | connection error: GOAWAY with one of these codes, then the end (5.4.1) |
//! | `Resets` | stream error: RST_STREAM with one of these codes, and the connection goes on (5.4.2) |
//! | `Answers` | a request like any other |
//! | `GoesOn` | nothing for the client to see |
//!
//! What h2, on which hyper stands, does otherwise is pinned by `but`, with what that means. Where the RFC has a stream
//! error and h2 one of the connection, the table says so by `Ends`: 5.4.1 lets an endpoint choose it.

use crate::peer::*;
use Outcome::{Answers, Ends, GoesOn, Resets};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ends(&'static [u32]),
    Resets(u32, &'static [u32]),
    Answers(u32),
    GoesOn,
}

pub(crate) struct Rule {
    pub(crate) section: &'static str,
    pub(crate) says: &'static str,
    /// What the RFC allows.
    pub(crate) allows: Outcome,
    /// What comes of it instead, and what that means.
    pub(crate) but: Option<(Outcome, &'static str)>,
    /// Whether the client has opened no window for streams: answers are under way then, for as long as it likes.
    pub(crate) is_held: bool,
    /// Whether stream 1 has been answered and is closed.
    pub(crate) is_after_answer: bool,
    pub(crate) sends: Vec<u8>,
}

impl Rule {
    fn held(self) -> Self {
        Self { is_held: true, ..self }
    }

    fn after_answer(self) -> Self {
        Self { is_after_answer: true, ..self }
    }

    fn but(self, outcome: Outcome, why: &'static str) -> Self {
        Self { but: Some((outcome, why)), ..self }
    }

    /// h2 has one code for whatever it cannot read.
    fn but_less_exact(self) -> Self {
        self.but(PROTOCOL, "a less exact code: the connection ends as it should")
    }
}

fn rule(section: &'static str, says: &'static str, allows: Outcome, sends: Vec<u8>) -> Rule {
    Rule { section, says, allows, but: None, is_held: false, is_after_answer: false, sends }
}

const PROTOCOL: Outcome = Ends(&[PROTOCOL_ERROR]);
const FRAME_SIZE: Outcome = Ends(&[FRAME_SIZE_ERROR]);
const FLOW_CONTROL: Outcome = Ends(&[FLOW_CONTROL_ERROR]);
const COMPRESSION: Outcome = Ends(&[COMPRESSION_ERROR]);
const MALFORMED: Outcome = Resets(1, &[PROTOCOL_ERROR]);
/// What is found while a field is read ends the connection, not the stream alone (5.4.1).
const MALFORMED_ENDS: Outcome = PROTOCOL;
const LENIENT: &str = "h2 takes it for a request like any other";

pub(crate) fn rules() -> Vec<Rule> {
    let tables = [frames(), streams(), data(), headers(), settings_frames(), others(), windows()];
    tables.into_iter().chain([requests(), compression()]).flatten().collect()
}

/// A request whose body, or whose trailers, are to come.
fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("you", &[]))
}

fn block(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &request("you", fields))
}

// ------------------------------------------------------------------------------ what holds for all

fn frames() -> Vec<Rule> {
    let request = request("you", &[]);
    let (front, back) = request.split_at(9);
    let in_two = |between: &[u8], stream: u32| {
        let first = frame(HEADERS, END_STREAM, 1, front);
        [first, between.to_vec(), frame(CONTINUATION, END_HEADERS, stream, back)].concat()
    };
    let unknown = frame(0x77, 0xff, 0, b"whatever this is");
    vec![
        rule("4.1", "an unknown type of frame is ignored", GoesOn, unknown.clone()),
        rule(
            "4.1",
            "unknown flags are ignored",
            Answers(1),
            frame(HEADERS, WHOLE | 0xd2, 1, &request),
        ),
        rule("4.1", "the reserved bit is ignored", Answers(1), get(1 | 1 << 31, "you")),
        rule("4.2", "2^14 bytes are no frame too many", GoesOn, {
            [begun(1), frame(DATA, END_STREAM, 1, &[0; FRAME_BYTES_MAX])].concat()
        })
        .held(),
        rule("4.2", "HEADERS larger than MAX_FRAME_SIZE", FRAME_SIZE, {
            frame(HEADERS, WHOLE, 1, &[0; FRAME_BYTES_MAX + 1])
        }),
        rule("4.2", "DATA larger than MAX_FRAME_SIZE", FRAME_SIZE, {
            [begun(1), frame(DATA, 0, 1, &[0; FRAME_BYTES_MAX + 1])].concat()
        })
        .held(),
        rule("4.3", "a header block in two frames is one", Answers(1), in_two(&[], 1)),
        rule(
            "4.3",
            "another frame within a header block",
            PROTOCOL,
            in_two(&frame(PING, 0, 0, &[0; 8]), 1),
        ),
        rule("4.3", "a header block that goes on for another stream", PROTOCOL, in_two(&[], 3)),
        rule("4.3", "HEADERS within a header block", PROTOCOL, in_two(&get(3, "you"), 1)),
        rule(
            "5.5",
            "an unknown type of frame within a header block",
            PROTOCOL,
            in_two(&unknown, 1),
        ),
        rule(
            "6.10",
            "CONTINUATION without HEADERS",
            PROTOCOL,
            frame(CONTINUATION, END_HEADERS, 1, back),
        ),
        rule("6.10", "CONTINUATION on stream 0", PROTOCOL, in_two(&[], 0)),
        rule("6.10", "CONTINUATION behind END_HEADERS", PROTOCOL, {
            [get(1, "you"), frame(CONTINUATION, END_HEADERS, 1, back)].concat()
        }),
    ]
}

fn streams() -> Vec<Rule> {
    let reset = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let data = |stream| frame(DATA, END_STREAM, stream, b"text");
    let priority = |stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 9]);
    vec![
        rule("5.1", "DATA on an idle stream", PROTOCOL, data(1)),
        rule("5.1", "RST_STREAM on an idle stream", PROTOCOL, reset(1)),
        rule("5.1", "WINDOW_UPDATE on an idle stream", PROTOCOL, window_update(1, 1)),
        rule("5.1", "PRIORITY on an idle stream", GoesOn, priority(1)),
        rule("5.1", "DATA on a half-closed stream", Ends(&[STREAM_CLOSED]), {
            [get(1, "you"), data(1)].concat()
        })
        .held()
        .but_less_exact(),
        rule("5.1", "HEADERS on a half-closed stream", Ends(&[STREAM_CLOSED]), {
            [get(1, "you"), get(1, "you")].concat()
        })
        .held()
        .but_less_exact(),
        rule("5.1", "WINDOW_UPDATE on a half-closed stream", Answers(1), {
            [get(1, "you"), window_update(1, 1000)].concat()
        })
        .held(),
        rule("5.1", "RST_STREAM on a half-closed stream", GoesOn, {
            [get(1, "you"), reset(1)].concat()
        })
        .held(),
        rule("5.1", "DATA on a stream that was reset", Resets(1, &[STREAM_CLOSED]), {
            [begun(1), reset(1), data(1)].concat()
        })
        .held(),
        rule("5.1", "DATA on a closed stream", Resets(1, &[STREAM_CLOSED]), data(1)).after_answer(),
        rule("5.1", "HEADERS on a closed stream", Ends(&[STREAM_CLOSED, PROTOCOL_ERROR]), {
            get(1, "you")
        })
        .after_answer(),
        rule("5.1", "WINDOW_UPDATE on a closed stream", GoesOn, window_update(1, 1)).after_answer(),
        rule("5.1", "RST_STREAM on a closed stream", GoesOn, reset(1)).after_answer(),
        rule("5.1", "PRIORITY on a closed stream", GoesOn, priority(1)).after_answer(),
        rule("5.1.1", "a stream of an even number", PROTOCOL, get(2, "you")),
        rule("5.1.1", "a stream below one that was opened", PROTOCOL, {
            [get(5, "you"), get(3, "you")].concat()
        }),
        rule("5.1.1", "numbers may be left out", Answers(71), get(71, "you")),
    ]
}

// ------------------------------------------------------------------------------- a frame at a time

fn data() -> Vec<Rule> {
    vec![
        rule("6.1", "DATA on stream 0", PROTOCOL, frame(DATA, 0, 0, b"text")),
        rule("6.1", "padding as long as the payload", PROTOCOL, {
            [begun(1), frame(DATA, PADDED | END_STREAM, 1, &[4, 0, 0, 0])].concat()
        })
        .held(),
        rule("6.1", "padding without its length", FRAME_SIZE, {
            [begun(1), frame(DATA, PADDED | END_STREAM, 1, &[])].concat()
        })
        .held()
        .but_less_exact(),
        rule("6.1", "DATA of padding alone", GoesOn, {
            [begun(1), frame(DATA, PADDED | END_STREAM, 1, &[3, 0, 0, 0])].concat()
        })
        .held(),
    ]
}

fn headers() -> Vec<Rule> {
    let block = request("you", &[]);
    let padded = |length: u8| [&[length][..], &block, &[0; 5]].concat();
    let with_priority = |on: u32| [&on.to_be_bytes()[..], &[9], &block].concat();
    let reset = |stream, payload: &[u8]| frame(RST_STREAM, 0, stream, payload);
    let priority = |stream, payload: &[u8]| frame(PRIORITY, 0, stream, payload);
    vec![
        rule("6.2", "HEADERS on stream 0", PROTOCOL, get(0, "you")),
        rule("6.2", "padded HEADERS", Answers(1), frame(HEADERS, WHOLE | PADDED, 1, &padded(5))),
        rule(
            "6.2",
            "padding longer than HEADERS",
            PROTOCOL,
            frame(HEADERS, WHOLE | PADDED, 1, &padded(255)),
        ),
        rule("6.2", "HEADERS with a priority", Answers(1), {
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &with_priority(0))
        }),
        rule("6.2", "HEADERS too short for their priority", FRAME_SIZE, {
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0; 4])
        })
        .but_less_exact(),
        rule("5.3.2", "HEADERS of a stream that depends on itself", Answers(1), {
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &with_priority(1))
        })
        .but(MALFORMED, "as RFC 7540 has it, 5.3.1"),
        rule("6.3", "PRIORITY on stream 0", PROTOCOL, priority(0, &[0; 5])),
        rule("6.3", "PRIORITY of another length than 5", FRAME_SIZE, priority(1, &[0; 4]))
            .but_less_exact(),
        rule("6.4", "RST_STREAM on stream 0", PROTOCOL, reset(0, &[0; 4])),
        rule("6.4", "RST_STREAM of another length than 4", FRAME_SIZE, {
            [begun(1), reset(1, &[0; 5])].concat()
        })
        .held()
        .but_less_exact(),
        rule("7", "an unknown error code is nothing special", GoesOn, {
            [begun(1), reset(1, &[0xff; 4])].concat()
        })
        .held(),
    ]
}

fn settings_frames() -> Vec<Rule> {
    let largest_window = (1 << 31) - 1;
    vec![
        rule(
            "6.5",
            "SETTINGS with ACK and a payload",
            FRAME_SIZE,
            frame(SETTINGS, ACK, 0, &[0; 6]),
        )
        .but_less_exact(),
        rule("6.5", "SETTINGS on a stream", PROTOCOL, frame(SETTINGS, 0, 1, &[])),
        rule("6.5", "SETTINGS of half a setting", FRAME_SIZE, frame(SETTINGS, 0, 0, &[0; 7]))
            .but_less_exact(),
        rule("6.5.2", "ENABLE_PUSH above 1", PROTOCOL, settings(&[(ENABLE_PUSH, 2)])),
        rule("6.5.2", "INITIAL_WINDOW_SIZE above 2^31-1", FLOW_CONTROL, {
            settings(&[(INITIAL_WINDOW_SIZE, largest_window + 1)])
        })
        .but_less_exact(),
        rule("6.5.2", "the largest INITIAL_WINDOW_SIZE", GoesOn, {
            settings(&[(INITIAL_WINDOW_SIZE, largest_window)])
        }),
        rule("6.5.2", "MAX_FRAME_SIZE below 2^14", PROTOCOL, {
            settings(&[(MAX_FRAME_SIZE, (1 << 14) - 1)])
        }),
        rule(
            "6.5.2",
            "MAX_FRAME_SIZE above 2^24-1",
            PROTOCOL,
            settings(&[(MAX_FRAME_SIZE, 1 << 24)]),
        ),
        rule("6.5.2", "the largest MAX_FRAME_SIZE", GoesOn, {
            settings(&[(MAX_FRAME_SIZE, (1 << 24) - 1)])
        }),
        rule(
            "6.5.2",
            "an unknown setting is ignored",
            GoesOn,
            settings(&[(0xabc, 7), (0xffff, u32::MAX)]),
        ),
        rule("6.5.3", "of a setting that stands twice the last holds", Answers(1), {
            let twice = settings(&[(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 1000)]);
            [twice, get(1, "you")].concat()
        }),
    ]
}

fn others() -> Vec<Rule> {
    let promise = [&2_u32.to_be_bytes()[..], &request("you", &[])].concat();
    vec![
        rule("6.6", "PUSH_PROMISE of a client", PROTOCOL, {
            [begun(1), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat()
        })
        .held(),
        rule("6.7", "PING of another length than 8", FRAME_SIZE, frame(PING, 0, 0, &[0; 6]))
            .but_less_exact(),
        rule("6.7", "PING on a stream", PROTOCOL, frame(PING, 0, 1, &[0; 8])),
        rule("6.7", "the answer to no PING", GoesOn, frame(PING, ACK, 0, &[7; 8])),
        rule("6.8", "GOAWAY on a stream", PROTOCOL, frame(GOAWAY, 0, 1, &[0; 8])),
    ]
}

fn windows() -> Vec<Rule> {
    let most = (1 << 31) - 1;
    vec![
        rule("6.9", "WINDOW_UPDATE of 0 for the connection", PROTOCOL, window_update(0, 0)),
        rule("6.9", "WINDOW_UPDATE of 0 for a stream", PROTOCOL, {
            [begun(1), window_update(1, 0)].concat()
        })
        .held(),
        rule("6.9", "WINDOW_UPDATE of another length than 4", FRAME_SIZE, {
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])
        })
        .but_less_exact(),
        rule("6.9.1", "a window of the connection above 2^31-1", FLOW_CONTROL, {
            [window_update(0, most), window_update(0, most)].concat()
        }),
        rule("6.9.1", "a stream's window above 2^31-1", Resets(1, &[FLOW_CONTROL_ERROR]), {
            [begun(1), window_update(1, most), window_update(1, most)].concat()
        })
        .held(),
        rule("6.9.2", "a setting that makes a stream's window too large", FLOW_CONTROL, {
            let larger = settings(&[(INITIAL_WINDOW_SIZE, 1)]);
            [begun(1), window_update(1, most), larger].concat()
        })
        .held(),
    ]
}

// --------------------------------------------------------------------------------------- messages

fn requests() -> Vec<Rule> {
    let method = (":method", "GET");
    let scheme = (":scheme", "http");
    let path = (":path", "/you");
    let only = |all: &[(&str, &str)]| frame(HEADERS, WHOLE, 1, &fields(all));
    let with = |name: &str, value: &str| block(1, WHOLE, &[(name, value)]);
    let trailers = |flags: u8, all: &[(&str, &str)]| {
        [begun(1), frame(HEADERS, flags, 1, &fields(all))].concat()
    };
    let connect = (":method", "CONNECT");
    vec![
        rule("8.1", "trailers", GoesOn, trailers(WHOLE, &[("x-sum", "1")])).held(),
        rule("8.1", "trailers that do not end the stream", MALFORMED, {
            trailers(END_HEADERS, &[("x-sum", "1")])
        })
        .held(),
        rule("8.1", "pseudo-headers in trailers", MALFORMED, trailers(WHOLE, &[(":path", "/")]))
            .held()
            .but(GoesOn, LENIENT),
        rule("8.1.1", "a body shorter than its content-length", MALFORMED, {
            let begun = block(1, END_HEADERS, &[("content-length", "5")]);
            [begun, frame(DATA, END_STREAM, 1, b"four")].concat()
        })
        .held(),
        rule("8.1.1", "a body longer than its content-length", MALFORMED, {
            let begun = block(1, END_HEADERS, &[("content-length", "5")]);
            [begun, frame(DATA, END_STREAM, 1, b"sixsix")].concat()
        })
        .held(),
        rule(
            "8.1.1",
            "no body where content-length has one",
            MALFORMED,
            with("content-length", "5"),
        ),
        rule("8.2", "a name in capitals", MALFORMED_ENDS, with("X-Name", "value")),
        rule("8.2.1", "a space in a name", MALFORMED_ENDS, with("x name", "value")),
        rule("8.2.1", "a colon in a name", MALFORMED_ENDS, with("x:name", "value")),
        rule("8.2.1", "an empty name", MALFORMED_ENDS, with("", "value")),
        rule("8.2.1", "a NUL in a value", MALFORMED_ENDS, with("x-name", "va\0lue")),
        rule("8.2.1", "a line feed in a value", MALFORMED_ENDS, with("x-name", "va\nlue")),
        rule("8.2.1", "a carriage return in a value", MALFORMED_ENDS, with("x-name", "va\rlue")),
        rule("8.2.1", "a value that begins with a space", MALFORMED, with("x-name", " value"))
            .but(GoesOn, LENIENT),
        rule("8.2.1", "a value that ends with a tab", MALFORMED, with("x-name", "value\t"))
            .but(GoesOn, LENIENT),
        rule("8.2.2", "connection", MALFORMED, with("connection", "close")),
        rule("8.2.2", "keep-alive", MALFORMED, with("keep-alive", "timeout=5")),
        rule("8.2.2", "proxy-connection", MALFORMED, with("proxy-connection", "close")),
        rule("8.2.2", "transfer-encoding", MALFORMED, with("transfer-encoding", "chunked")),
        rule("8.2.2", "upgrade", MALFORMED, with("upgrade", "websocket")),
        rule("8.2.2", "te other than trailers", MALFORMED, with("te", "gzip")),
        rule("8.2.2", "te: trailers", Answers(1), with("te", "trailers")),
        rule("8.3", "an unknown pseudo-header", MALFORMED_ENDS, with(":name", "value")),
        rule(
            "8.3",
            "a pseudo-header of responses",
            MALFORMED,
            only(&[method, scheme, path, (":status", "200")]),
        ),
        rule(
            "8.3",
            "a pseudo-header behind others",
            MALFORMED,
            only(&[method, scheme, ("x-name", "value"), path]),
        ),
        rule("8.3", "a pseudo-header twice", MALFORMED, only(&[method, scheme, path, path])),
        rule("8.3.1", "no :method", MALFORMED, only(&[scheme, path])),
        rule("8.3.1", "no :scheme", MALFORMED, only(&[method, path])),
        rule("8.3.1", "no :path", MALFORMED, only(&[method, scheme])).but(GoesOn, LENIENT),
        rule("8.3.1", "an empty :path", MALFORMED, only(&[method, scheme, (":path", "")])),
        rule(
            "8.3.1",
            "no :authority, which need not be",
            Answers(1),
            only(&[method, scheme, path]),
        ),
        rule(
            "8.5",
            "CONNECT with a :path",
            MALFORMED,
            only(&[connect, path, (":authority", "test:1")]),
        ),
        rule("8.5", "CONNECT without an :authority", MALFORMED, only(&[connect]))
            .but(GoesOn, LENIENT),
    ]
}

// ------------------------------------------------------------------------------------------- HPACK

fn compression() -> Vec<Rule> {
    let with = |bytes: &[u8]| [&request("you", &[]), bytes].concat();
    let whole = |stream: u32, block: &[u8]| frame(HEADERS, WHOLE, stream, block);
    // `:authority`, Huffman-coded: www.example.com, as in RFC 7541, C.4.1.
    let huffman = b"\x82\x86\x44\x03/yo\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    vec![
        rule("7541:5.1", "a number that takes too many bytes", COMPRESSION, {
            whole(
                1,
                &with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            )
        })
        .but_less_exact(),
        rule(
            "7541:5.2",
            "a text longer than its block",
            COMPRESSION,
            whole(1, &with(&[0, 0x7f, 0x7f, b'x'])),
        )
        .but_less_exact(),
        rule("7541:5.2", "texts in Huffman's code", GoesOn, whole(1, huffman)),
        rule("7541:5.2", "the code for the end within a text", COMPRESSION, {
            whole(1, &with(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]))
        })
        .but_less_exact(),
        rule("7541:5.2", "padding of eight bits", COMPRESSION, {
            whole(1, &with(&[0, 1, b'x', 0x82, 0x1f, 0xff]))
        })
        .but_less_exact(),
        rule(
            "7541:5.2",
            "padding with zeros",
            COMPRESSION,
            whole(1, &with(&[0, 1, b'x', 0x81, 0x18])),
        )
        .but_less_exact(),
        rule("7541:6.1", "the index 0", COMPRESSION, whole(1, &with(&[0x80]))).but_less_exact(),
        rule("7541:2.3.3", "an index beyond both tables", COMPRESSION, whole(1, &with(&[0xbe])))
            .but_less_exact(),
        rule("7541:2.3.3", "a field that another stream put into the table", Answers(3), {
            // `:path: /you`, indexed (RFC 7541, 6.2.1); 62 is the youngest of the dynamic table.
            let first = whole(1, b"\x82\x86\x44\x04/you");
            [first, whole(3, &[0x82, 0x86, 0xbe])].concat()
        }),
        rule("7541:4.2", "a table made smaller, ahead of the fields", Answers(1), {
            whole(1, &[&[0x20][..], &request("you", &[])].concat())
        }),
        rule(
            "7541:4.2",
            "a table made smaller, behind a field",
            COMPRESSION,
            whole(1, &with(&[0x20])),
        )
        .but_less_exact(),
        rule("7541:6.3", "a table larger than the setting", COMPRESSION, {
            whole(1, &[&[0x3f, 0xe2, 0x1f][..], &request("you", &[])].concat())
        })
        .but_less_exact(),
    ]
}
