//! Outboxes that share an arena against plain queues of bytes: order, conservation, nothing twice.

use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;
use slipring_core::outbox::{Outbox, Pieces};
use slipring_core::span::Span;
use slipring_core::sys::memory::Memory;

/// Outboxes of one arena: enough for their pieces to stand between each other.
const OUTBOXES: usize = 3;

/// The outboxes and their models: for each the pieces that wait, as bytes.
struct Pair {
    memory: Rc<Memory>,
    pieces: Pieces,
    outboxes: [Outbox; OUTBOXES],
    queues: [VecDeque<Vec<u8>>; OUTBOXES],
    next: u8,
    minted: usize,
    released: usize,
}

impl Pair {
    fn new() -> Self {
        Self {
            memory: Memory::new(1, 64, 1 << 24),
            pieces: Pieces::new(),
            outboxes: Default::default(),
            queues: Default::default(),
            next: 0,
            minted: 0,
            released: 0,
        }
    }

    fn append(&mut self, which: usize, length: usize) {
        let bytes: Vec<u8> = (0..length).map(|place| self.next.wrapping_add(place as u8)).collect();
        self.next = self.next.wrapping_add(length as u8);
        let span = self.memory.adopt(bytes.clone()).expect("room");
        self.minted += 1;
        let Self { memory, pieces, outboxes, released, .. } = self;
        outboxes[which].append(pieces, span, |span| {
            assert_eq!((span.length(), length), (0, 0), "released before it was sent");
            *released += 1;
            memory.release(span);
        });
        if length > 0 {
            self.queues[which].push_back(bytes);
        }
    }

    fn advance(&mut self, which: usize, bytes: usize) {
        let mut due = Vec::new();
        let mut left = bytes;
        let queue = &mut self.queues[which];
        while left > 0 {
            let first = queue.front_mut().expect("the model has as many");
            let part = left.min(first.len());
            left -= part;
            first.drain(..part);
            if first.is_empty() {
                queue.pop_front();
                due.push(part);
            }
        }
        let mut gone = Vec::new();
        let Self { memory, pieces, outboxes, .. } = self;
        outboxes[which].advance(pieces, bytes as u32, |span: Span| {
            gone.push(span.length() as usize);
            memory.release(span);
        });
        assert_eq!(gone, due, "those done with are released, in order");
        self.released += due.len();
    }

    fn clear(&mut self, which: usize) {
        let Self { memory, pieces, outboxes, released, .. } = self;
        outboxes[which].clear(pieces, |span| {
            *released += 1;
            memory.release(span);
        });
        self.queues[which].clear();
    }

    /// Every second span moves to another block.
    fn replace(&mut self, which: usize) {
        let Self { memory, pieces, outboxes, .. } = self;
        let mut number = 0;
        outboxes[which].replace_each(pieces, |span| {
            number += 1;
            if number % 2 == 0 {
                return span;
            }
            let copy = memory.lease(span).to_vec();
            memory.adopt(copy).expect("room")
        });
        assert_eq!(number, self.queues[which].len());
    }

    fn check(&self) {
        for (outbox, queue) in self.outboxes.iter().zip(&self.queues) {
            assert_eq!(outbox.pieces() as usize, queue.len());
            assert_eq!(outbox.bytes() as usize, queue.iter().map(Vec::len).sum::<usize>());
            assert_eq!(outbox.is_empty(), queue.is_empty());
            for limit in [0, 1, 2, usize::MAX] {
                let mut segments = Vec::new();
                let bytes = outbox.segments(&self.pieces, limit, &mut segments);
                let seen = segments.iter().map(|&it| self.memory.lease(self.memory.retain(it)));
                let seen: Vec<Vec<u8>> = seen.map(|lease| lease.to_vec()).collect();
                assert!(seen.iter().eq(queue.iter().take(limit)), "{seen:?}, not {queue:?}");
                assert_eq!(bytes as usize, seen.iter().map(Vec::len).sum::<usize>());
                // `segments` was compared with the queue: where one waits, it is the first of these.
                let only = segments.first().copied().filter(|_| queue.len() == 1);
                assert!(limit == 0 || outbox.only_segment(&self.pieces) == only, "{queue:?}");
            }
        }
        let waiting: usize = self.queues.iter().map(VecDeque::len).sum();
        assert_eq!(self.pieces.used() as usize, waiting);
        assert_eq!(self.released + waiting, self.minted, "a span is lost, or made up");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        length: usize,
    },
    /// Per mille of what waits.
    Advance {
        share: usize,
    },
    AdvanceFirst,
    Clear,
    Replace,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..9_usize).prop_map(|length| Step::Append { length }),
        2 => (0..=1000_usize).prop_map(|share| Step::Advance { share }),
        2 => Just(Step::AdvanceFirst),
        1 => Just(Step::Clear),
        1 => Just(Step::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn is_a_queue_of_bytes_whatever_its_neighbours_do(
        steps in prop::collection::vec((0..OUTBOXES, step()), 1..120),
    ) {
        let mut pair = Pair::new();
        for (which, step) in steps {
            match step {
                Step::Append { length } => pair.append(which, length),
                Step::Advance { share } => {
                    pair.advance(which, pair.outboxes[which].bytes() as usize * share / 1000);
                }
                Step::AdvanceFirst => {
                    pair.advance(which, pair.queues[which].front().map_or(0, Vec::len));
                }
                Step::Clear => pair.clear(which),
                Step::Replace => pair.replace(which),
            }
            pair.check();
        }
        for which in 0..OUTBOXES {
            pair.clear(which);
        }
        pair.check();
        assert_eq!(pair.memory.owned_bytes(), 0);
    }
}

#[test]
fn segments_come_after_what_is_in_the_list_already() {
    let mut pair = Pair::new();
    pair.append(0, 3);
    pair.append(0, 4);
    pair.append(1, 5);
    let mut segments = Vec::new();
    assert_eq!(pair.outboxes[1].segments(&pair.pieces, 2, &mut segments), 5);
    assert_eq!(pair.outboxes[0].segments(&pair.pieces, 2, &mut segments), 3);
    assert_eq!(segments.iter().map(|it| it.length).collect::<Vec<_>>(), [5, 3]);
}

#[test]
fn the_arena_grows_to_the_most_that_ever_waited_at_once() {
    let mut pair = Pair::new();
    for _ in 0..50 {
        for which in [0, 1, 0, 2] {
            pair.append(which, 2);
        }
        pair.clear(1);
        pair.advance(0, 4);
        pair.advance(2, 2);
    }
    pair.check();
    // Nothing else tells how many places it has.
    let places = format!("{:?}", pair.pieces).matches("Piece {").count();
    assert_eq!(places, 4);
}

#[test]
#[should_panic(expected = "more was sent than waited")]
fn no_more_can_be_taken_than_waits() {
    let mut pair = Pair::new();
    pair.append(0, 3);
    let Pair { pieces, outboxes, .. } = &mut pair;
    outboxes[0].advance(pieces, 4, |_| {});
}

#[test]
#[should_panic(expected = "a replaced span keeps its length")]
fn a_span_cannot_be_replaced_by_a_longer_one() {
    let mut pair = Pair::new();
    pair.append(0, 3);
    let Pair { memory, pieces, outboxes, .. } = &mut pair;
    outboxes[0].replace_each(pieces, |_| memory.adopt(vec![0; 4]).expect("room"));
}
