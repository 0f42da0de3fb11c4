//! The store against a count of references: what is shown is what was put in, every buffer is somewhere,
//! none is in two places, and who breaks the rules is told.

use std::rc::Rc;

use proptest::prelude::*;
use proptest::sample::Index;
use slipring_core::Lease;
use slipring_core::span::{BufferId, Segment, Span};
use slipring_core::sys::memory::Memory;

const BUFFERS: u32 = 4;
const BUFFER_BYTES: u32 = 48;
const OWNED_MAX: u64 = 200;

/// A reference that somebody holds, as it is or as a lease, and what it must show.
enum Held {
    Span(Span, Vec<u8>),
    Lease(Lease, Vec<u8>),
}

/// A store and its model: who has a buffer, and what the references must show.
struct Pair {
    memory: Rc<Memory>,
    published: Vec<u16>,
    held: Vec<Held>,
    /// Where the next bytes made up begin.
    next: u8,
}

impl Pair {
    fn new() -> Self {
        let memory = Memory::new(BUFFERS, BUFFER_BYTES, OWNED_MAX);
        Self { memory, published: Vec::new(), held: Vec::new(), next: 0 }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.next = self.next.wrapping_add(41);
        (0..length).map(|place| self.next.wrapping_add(place as u8)).collect()
    }

    fn publish(&mut self) {
        let returned = self.memory.buffers_free() - self.memory.buffers_published();
        let number = self.memory.take_returned();
        assert_eq!(number.is_some(), returned > 0);
        if let Some(number) = number {
            assert!(!self.published.contains(&number), "{number} is published twice");
            assert!(u32::from(number) < BUFFERS);
            self.published.push(number);
        }
    }

    fn claim(&mut self, which: Index, length: usize) {
        if self.published.is_empty() {
            return;
        }
        let number = self.published.swap_remove(which.index(self.published.len()));
        let bytes = self.bytes(length);
        let half = length / 2;
        self.memory.fill(number, 0, &bytes[..half]);
        self.memory.fill(number, half as u32, &bytes[half..]);
        let span = self.memory.claim(number, length as u32);
        let segment = Segment { buffer: BufferId::ring(number), offset: 0, length: length as u32 };
        assert_eq!(span.segment(), segment);
        self.held.push(Held::Span(span, bytes));
    }

    fn adopt(&mut self, length: usize) {
        let bytes = self.bytes(length);
        let room = OWNED_MAX - self.memory.owned_bytes();
        match self.memory.adopt(bytes.clone()) {
            Ok(span) => {
                assert!(length as u64 <= room, "more than may be owned");
                self.held.push(Held::Span(span, bytes));
            }
            Err(back) => {
                assert!(length as u64 > room, "refused, and there is room");
                assert_eq!(back, bytes);
            }
        }
    }

    fn spill(&mut self, span: Span, bytes: Vec<u8>) {
        let (segment, owned) = (span.segment(), self.memory.owned_bytes());
        let fits = owned + u64::from(segment.length) <= OWNED_MAX;
        let span = match self.memory.spill(span) {
            Ok(copy) => {
                assert!(segment.buffer.is_ring() && fits && !copy.buffer().is_ring());
                assert_eq!(copy.length(), segment.length);
                copy
            }
            Err(span) => {
                assert!(!segment.buffer.is_ring() || !fits, "refused, and there is room");
                assert_eq!(span.segment(), segment, "given back as it was");
                assert_eq!(self.memory.owned_bytes(), owned);
                span
            }
        };
        self.held.push(Held::Span(span, bytes));
    }

    fn use_one(&mut self, which: Index, how: Use, part: Index) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.swap_remove(which.index(self.held.len()));
        match (held, how) {
            (Held::Span(span, _), Use::Release) => self.memory.release(span),
            (Held::Lease(lease, _), Use::Release) => drop(lease),
            (Held::Span(span, bytes), Use::Twice) => {
                let second = self.memory.retain(span.segment());
                assert_eq!(second, span);
                self.held.extend([span, second].map(|span| Held::Span(span, bytes.clone())));
            }
            (Held::Lease(lease, bytes), Use::Twice) => {
                self.held.push(Held::Lease(lease.clone(), bytes.clone()));
                self.held.push(Held::Lease(lease, bytes));
            }
            (Held::Span(span, bytes), Use::Spill) => self.spill(span, bytes),
            (Held::Span(span, bytes), _) => {
                self.held.push(Held::Lease(self.memory.lease(span), bytes));
            }
            (Held::Lease(mut lease, mut bytes), how) => {
                let place = part.index(bytes.len() + 1);
                match how {
                    Use::Advance => {
                        lease.advance(place);
                        bytes.drain(..place);
                    }
                    Use::Truncate => {
                        // Beyond the end it does nothing.
                        lease.truncate(place + 3);
                        bytes.truncate(place + 3);
                    }
                    Use::Write => {
                        // If it may be written, what the others show stays as it was.
                        if let Some(mut writing) = lease.bytes_mut() {
                            writing.iter_mut().for_each(|byte| *byte ^= 0x55);
                            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
                        }
                    }
                    _ => {
                        let front = lease.split_to(place);
                        let rest = bytes.split_off(place);
                        self.held.push(Held::Lease(front, std::mem::replace(&mut bytes, rest)));
                    }
                }
                self.held.push(Held::Lease(lease, bytes));
            }
        }
    }

    fn check(&self) {
        let memory = &self.memory;
        assert_eq!(memory.buffers_published() as usize, self.published.len());
        assert!(memory.owned_bytes() <= OWNED_MAX);
        for held in &self.held {
            match held {
                Held::Span(span, bytes) => {
                    assert_eq!(*memory.lease(memory.retain(span.segment())), **bytes);
                }
                Held::Lease(lease, bytes) => assert_eq!(**lease, **bytes),
            }
        }
    }

    /// Counts the buffers somebody refers to by where the references lie.
    fn check_places(&self, ring: &[*const u8]) {
        let place = |held: &Held| match held {
            Held::Lease(lease, _) => lease.as_ptr(),
            Held::Span(span, _) => self.memory.lease(self.memory.retain(span.segment())).as_ptr(),
        };
        let bytes = BUFFER_BYTES as usize;
        let of = |start: &*const u8| {
            let range = start.addr()..=start.addr() + bytes;
            self.held.iter().any(|held| range.contains(&place(held).addr()))
        };
        let in_use = ring.iter().filter(|start| of(start)).count();
        let free = self.memory.buffers_free() as usize;
        assert_eq!(free + in_use, BUFFERS as usize, "a buffer is lost, or in two places");
    }
}

#[derive(Debug, Clone, Copy)]
enum Use {
    Release,
    Twice,
    /// Of a span; a lease is split.
    Spill,
    /// Of a span; a lease is split.
    Lease,
    /// Of a lease; a span becomes one.
    Advance,
    /// Of a lease; a span becomes one.
    Truncate,
    /// Of a lease; a span becomes one.
    Write,
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Claim(Index, usize),
    Adopt(usize),
    Use(Index, Use, Index),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        4 => Just(Use::Release),
        1 => Just(Use::Twice),
        1 => Just(Use::Spill),
        2 => Just(Use::Lease),
        1 => Just(Use::Advance),
        1 => Just(Use::Truncate),
        2 => Just(Use::Write),
    ];
    prop_oneof![
        3 => Just(Step::Publish),
        3 => (any::<Index>(), 0..=BUFFER_BYTES as usize)
            .prop_map(|(which, length)| Step::Claim(which, length)),
        1 => (0..120_usize).prop_map(Step::Adopt),
        7 => (any::<Index>(), how, any::<Index>())
            .prop_map(|(which, how, part)| Step::Use(which, how, part)),
        1 => Just(Step::Settle),
    ]
}

/// Where each buffer starts: all are claimed and given back.
fn starts(memory: &Rc<Memory>) -> Vec<*const u8> {
    let numbers: Vec<u16> = std::iter::from_fn(|| memory.take_returned()).collect();
    assert_eq!(numbers.len(), BUFFERS as usize);
    numbers.into_iter().map(|number| memory.lease(memory.claim(number, 1)).as_ptr()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn shows_what_was_put_in_and_loses_no_buffer(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut pair = Pair::new();
        let ring = starts(&pair.memory);
        for step in steps {
            match step {
                Step::Publish => pair.publish(),
                Step::Claim(which, length) => pair.claim(which, length),
                Step::Adopt(length) => pair.adopt(length),
                Step::Use(which, how, part) => pair.use_one(which, how, part),
                Step::Settle => pair.memory.settle(),
            }
            pair.check();
            pair.check_places(&ring);
        }
        for held in std::mem::take(&mut pair.held) {
            match held {
                Held::Span(span, _) => pair.memory.release(span),
                Held::Lease(lease, _) => drop(lease),
            }
        }
        assert_eq!(pair.memory.buffers_free(), BUFFERS);
        assert_eq!(pair.memory.owned_bytes(), 0);
    }
}

// ------------------------------------------------------------------------------------------- bounds

#[test]
fn the_bound_on_owned_bytes_is_the_last_byte_that_fits() {
    let memory = Memory::new(1, 64, 10);
    let six = memory.adopt(vec![1; 6]).expect("6 of 10");
    assert_eq!(memory.adopt(vec![2; 5]), Err(vec![2; 5]));
    let four = memory.adopt(vec![3; 4]).expect("10 of 10");
    assert_eq!(memory.owned_bytes(), 10);
    let second = memory.retain(six.segment());
    memory.release(six);
    assert_eq!(memory.owned_bytes(), 10, "still referred to");
    memory.release(second);
    assert_eq!(memory.owned_bytes(), 4);
    memory.release(four);
    assert_eq!(memory.owned_bytes(), 0);
}

#[test]
fn bytes_that_live_for_ever_count_towards_no_bound() {
    let memory = Memory::new(1, 64, 0);
    let span = memory.borrow_static(b"for ever");
    assert_eq!((memory.owned_bytes(), span.length()), (0, 8));
    assert_eq!(&*memory.lease(span), b"for ever");
    assert_eq!(memory.owned_bytes(), 0);
}

#[test]
fn the_first_buffer_published_is_the_lowest_and_the_last_returned_the_next() {
    let memory = Memory::new(3, 64, 0);
    assert_eq!((memory.take_returned(), memory.take_returned()), (Some(0), Some(1)));
    let span = memory.claim(1, 5);
    memory.release(span);
    assert_eq!((memory.take_returned(), memory.take_returned()), (Some(1), Some(2)));
    assert_eq!(memory.take_returned(), None);
}

#[test]
fn a_spilled_span_frees_its_buffer_once_nobody_else_has_it() {
    let memory = Memory::new(1, 64, 64);
    let number = memory.take_returned().expect("one");
    memory.fill(number, 0, b"hello");
    let span = memory.claim(number, 5);
    let other = memory.lease(memory.retain(span.segment()));
    let copy = memory.spill(span).expect("room");
    assert_eq!(memory.buffers_free(), 0, "the other still reads it");
    drop(other);
    assert_eq!((memory.buffers_free(), memory.owned_bytes()), (1, 5));
    let given = memory.adopt(b"given".to_vec()).expect("room");
    assert_eq!((memory.owned_bytes(), memory.spilled_bytes()), (10, 5));
    assert_eq!(&*memory.lease(copy), b"hello");
    assert_eq!((memory.owned_bytes(), memory.spilled_bytes()), (5, 0));
    memory.release(given);
}

// ------------------------------------------------------------------------------------------- misuse

fn one() -> Rc<Memory> {
    Memory::new(1, 64, 64)
}

#[test]
#[should_panic(expected = "1 to 32768 buffers")]
fn a_store_without_buffers_is_refused() {
    let _ = Memory::new(0, 64, 0);
}

#[test]
#[should_panic(expected = "the kernel filled a buffer it did not have")]
fn a_buffer_that_is_not_published_cannot_be_claimed() {
    let _ = one().claim(0, 1);
}

#[test]
#[should_panic(expected = "the kernel filled more than a buffer")]
fn no_more_than_a_buffer_can_be_claimed() {
    let memory = one();
    memory.take_returned();
    let _ = memory.claim(0, 65);
}

#[test]
#[should_panic(expected = "not the kernel's buffer")]
fn a_held_buffer_is_not_written_to() {
    let memory = one();
    memory.take_returned();
    let _held = memory.claim(0, 1);
    memory.fill(0, 0, b"x");
}

#[test]
#[should_panic(expected = "wrote past the end of a buffer")]
fn a_buffer_is_not_written_past_its_end() {
    let memory = one();
    memory.take_returned();
    memory.fill(0, 60, b"hello");
}

#[test]
#[should_panic(expected = "retained a buffer nobody holds")]
fn a_released_buffer_cannot_be_retained() {
    let memory = one();
    memory.take_returned();
    let span = memory.claim(0, 1);
    let segment = span.segment();
    memory.release(span);
    let _ = memory.retain(segment);
}

#[test]
#[should_panic(expected = "released a buffer nobody held")]
fn a_span_of_another_store_cannot_be_released() {
    let (memory, other) = (one(), one());
    other.take_returned();
    memory.release(other.claim(0, 1));
}

#[test]
#[should_panic(expected = "looked past the end of a buffer")]
fn a_span_of_a_store_with_longer_buffers_is_not_shown() {
    let (memory, other) = (one(), Memory::new(1, 128, 0));
    for store in [&memory, &other] {
        store.take_returned();
    }
    let _held = memory.claim(0, 1);
    let _ = memory.lease(other.claim(0, 128)).len();
}

#[test]
#[should_panic(expected = "advanced past the end of a span")]
fn a_lease_cannot_be_advanced_past_its_end() {
    let memory = one();
    memory.lease(memory.adopt(vec![1; 3]).expect("room")).advance(4);
}

#[test]
#[should_panic(expected = "advanced past the end of a span")]
fn a_lease_cannot_be_split_past_its_end() {
    let memory = one();
    let _ = memory.lease(memory.adopt(vec![1; 3]).expect("room")).split_to(4);
}

#[test]
fn no_more_are_published_than_the_window_takes() {
    let memory = Memory::new(8, 64, 0);
    let mut published = Vec::new();
    assert_eq!(memory.publish_up_to(3, |number| published.push(number)), 3);
    assert_eq!((published.as_slice(), memory.buffers_free()), ([0, 1, 2].as_slice(), 8));
    assert_eq!(memory.publish_up_to(3, |_| unreachable!("the window is full")), 0);
    let span = memory.claim(1, 64);
    assert_eq!(memory.publish_up_to(3, |number| published.push(number)), 1);
    memory.release(span);
    assert_eq!(memory.publish_up_to(100, |number| published.push(number)), 5);
    assert_eq!(published, [0, 1, 2, 3, 1, 4, 5, 6, 7], "the last returned comes first");
    assert_eq!(memory.buffers_published(), 8);
}

#[test]
fn a_lease_that_is_spilled_shows_the_same_and_keeps_no_buffer() {
    let memory = Memory::new(1, 64, 100);
    let fill = |memory: &Rc<Memory>, text: &[u8]| {
        let number = memory.take_returned().expect("a buffer is free");
        memory.fill(number, 0, text);
        memory.lease(memory.claim(number, text.len() as u32))
    };
    let mut lease = fill(&memory, b"hello");
    lease.advance(1);
    let copy = lease.spill().expect("there is room");
    assert_eq!((&*copy, memory.buffers_free(), memory.owned_bytes()), (&b"ello"[..], 1, 4));
    let again = copy.spill().expect("it is in plain memory already");
    assert_eq!((&*again, memory.owned_bytes()), (&b"ello"[..], 4));
    // Beyond the bound it stays where it is.
    let full = memory.adopt(vec![0; 96]).expect("the rest of the bound");
    let kept = fill(&memory, b"x").spill().expect_err("there is no room");
    assert_eq!((&*kept, memory.buffers_free()), (&b"x"[..], 0));
    memory.release(full);
    drop((kept, again));
    assert_eq!((memory.buffers_free(), memory.owned_bytes()), (1, 0));
}

// ------------------------------------------------------------------------------------------ writing

fn received(memory: &Rc<Memory>, bytes: &[u8]) -> Lease {
    let number = memory.take_returned().expect("a buffer is free");
    memory.fill(number, 0, bytes);
    memory.lease(memory.claim(number, bytes.len() as u32))
}

fn owned(memory: &Rc<Memory>, bytes: &[u8]) -> Lease {
    memory.lease(memory.adopt(bytes.to_vec()).expect("room"))
}

#[test]
fn the_only_lease_of_a_buffer_is_written_through_where_it_stands() {
    for make in [received, owned] {
        let memory = one();
        let mut lease = make(&memory, b"hello world");
        lease.advance(6);
        let place = lease.as_ptr();
        lease.bytes_mut().expect("the only one").make_ascii_uppercase();
        assert_eq!((&*lease, lease.as_ptr()), (&b"WORLD"[..], place));
        // Written again after it was read, and read again.
        lease.bytes_mut().expect("still the only one")[0] = b'w';
        lease.truncate(2);
        assert_eq!(&*lease, b"wO");
        assert_eq!(lease.bytes_mut().expect("the rest").len(), 2);
        drop(lease);
        memory.settle();
        assert_eq!((memory.buffers_free(), memory.owned_bytes()), (1, 0));
    }
}

#[test]
fn a_lease_is_not_written_through_while_another_shows_its_buffer() {
    for make in [received, owned] {
        let memory = one();
        let mut lease = make(&memory, b"hello world");
        let mut copy = lease.clone();
        assert!(lease.bytes_mut().is_none() && copy.bytes_mut().is_none(), "a clone shows it");
        drop(copy);
        let mut front = lease.split_to(5);
        assert!(lease.bytes_mut().is_none(), "the other part is of the same buffer");
        assert!(front.bytes_mut().is_none(), "the other part is of the same buffer");
        drop(lease);
        front.bytes_mut().expect("alone again").make_ascii_uppercase();
        assert_eq!(&*front, b"HELLO");
    }
}

#[test]
fn a_lease_is_not_written_through_while_a_driver_keeps_its_bytes() {
    let memory = one();
    memory.take_returned();
    let span = memory.claim(0, 8);
    // What a zero-copy send does until its notification, and an outbox until the result.
    let kept = memory.retain(span.segment());
    let mut lease = memory.lease(span);
    assert!(lease.bytes_mut().is_none());
    memory.release(kept);
    assert!(lease.bytes_mut().is_some());
}

#[test]
fn bytes_that_live_for_ever_are_not_written() {
    let memory = one();
    let mut lease = memory.lease(memory.borrow_static(b"for ever"));
    assert!(lease.bytes_mut().is_none());
}

#[test]
fn the_copy_that_was_spilled_is_written_like_any_block() {
    let memory = one();
    memory.take_returned();
    memory.fill(0, 0, b"two");
    let copy = memory.spill(memory.claim(0, 3)).expect("room");
    let mut lease = memory.lease(copy);
    lease.bytes_mut().expect("the only one")[0] = b'T';
    assert_eq!(&*lease, b"Two");
}

/// Who kept a segment (a plain value) has no claim on the buffer, and gets none while it is written to.
#[test]
fn nobody_is_given_a_reference_to_what_is_being_written() {
    for owned in [false, true] {
        let memory = one();
        memory.take_returned();
        let span = match owned {
            true => memory.adopt(vec![0; 8]).expect("room"),
            false => memory.claim(0, 8),
        };
        let segment = span.segment();
        let mut lease = memory.lease(span);
        let writing = lease.bytes_mut().expect("the only one");
        let second = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = memory.retain(segment);
        }));
        assert!(second.is_err(), "a second reference was had");
        drop(writing);
        memory.release(memory.retain(segment));
        assert!(lease.bytes_mut().is_some(), "and afterwards it is as before");
    }
}

#[test]
fn own_bytes_become_a_lease_beside_another_within_the_bound() {
    let memory = Memory::new(1, 64, 10);
    let lease = received(&memory, b"received");
    let own = lease.adopt_beside(b"together".to_vec()).expect("8 of 10");
    assert_eq!((&*own, memory.owned_bytes()), (&b"together"[..], 8));
    assert_eq!(lease.adopt_beside(vec![7; 3]).expect_err("11 of 10"), vec![7; 3]);
    drop(lease);
    drop(own);
    assert_eq!((memory.buffers_free(), memory.owned_bytes()), (1, 0));
}
