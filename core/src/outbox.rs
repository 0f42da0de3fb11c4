//! Bytes waiting to be sent, as a list of spans.
//!
//! An [`Outbox`] is sixteen bytes of a connection: the ends of a list and its length. The pieces themselves
//! stand in one arena per reactor, [`Pieces`], so that a connection with nothing to send owns no memory for
//! it, and a busy one allocates nothing. It touches no bytes: spans come in at the back, segments go to the
//! driver from the front, and what the kernel took is dropped, span by span, into a `release` function.
//!
//! At most one send is in flight; the outbox does not change at the front meanwhile. Adding at the back is
//! always allowed: bounds are the machine's business, which asks `bytes` and `pieces`.

use std::hint::cold_path;

use crate::span::{Segment, Span};

/// Index of a piece, plus one: zero says "none".
type Link = u32;

#[derive(Debug)]
struct Piece {
    span: Option<Span>,
    next: Link,
}

/// The pieces of all outboxes of a reactor.
#[derive(Debug, Default)]
pub struct Pieces {
    pieces: Vec<Piece>,
    free: Link,
}

impl Pieces {
    /// An arena without pieces; it grows to the most that ever waited at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Pieces in use. Counted here, for audits: a message need not.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.pieces.iter().filter(|piece| piece.span.is_some()).count() as u32
    }

    #[inline]
    fn put(&mut self, span: Span) -> Link {
        let Some(index) = self.free.checked_sub(1) else { return self.grow(span.into_segment()) };
        let piece = &mut self.pieces[index as usize];
        self.free = piece.next;
        *piece = Piece { span: Some(span), next: 0 };
        index + 1
    }

    #[cold]
    fn grow(&mut self, segment: Segment) -> Link {
        self.pieces.push(Piece { span: Some(Span::mint(segment)), next: 0 });
        self.pieces.len() as Link
    }

    /// Takes the piece out; its span and its successor.
    #[inline]
    fn take(&mut self, link: Link) -> (Span, Link) {
        let piece = &mut self.pieces[link as usize - 1];
        let span = piece.span.take().expect("a listed piece has a span");
        let next = std::mem::replace(&mut piece.next, self.free);
        self.free = link;
        (span, next)
    }

    #[inline]
    fn segment(&self, link: Link) -> Segment {
        let span = self.pieces[link as usize - 1].span.as_ref();
        span.expect("a listed piece has a span").segment()
    }

    #[inline]
    fn span(&mut self, link: Link) -> &mut Span {
        self.pieces[link as usize - 1].span.as_mut().expect("a listed piece has a span")
    }
}

/// What one connection has to send.
#[derive(Debug, Default)]
pub struct Outbox {
    first: Link,
    last: Link,
    bytes: u32,
    pieces: u32,
}

impl Outbox {
    /// Bytes waiting, those in flight included.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Spans waiting, those in flight included.
    #[inline]
    #[must_use]
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Whether nothing waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces == 0
    }

    /// An outbox of the same size that names the same pieces: to put questions to, and nothing else.
    pub(crate) fn look_alike(&self) -> Self {
        Self { ..*self }
    }

    /// Appends a span. An empty one is handed to `release` at once.
    ///
    /// # Panics
    /// If more than 4 GiB would wait.
    #[inline]
    pub fn append(&mut self, pieces: &mut Pieces, span: Span, release: impl FnOnce(Span)) {
        if span.length() == 0 {
            return release(span);
        }
        self.bytes = self.bytes.checked_add(span.length()).expect("an outbox is below 4 GiB");
        self.pieces += 1;
        let link = pieces.put(span);
        match self.last {
            0 => self.first = link,
            last => pieces.pieces[last as usize - 1].next = link,
        }
        self.last = link;
    }

    /// The segment, if but one waits.
    #[inline]
    #[must_use]
    pub fn only_segment(&self, pieces: &Pieces) -> Option<Segment> {
        match self.pieces {
            1 => Some(pieces.segment(self.first)),
            _ => None,
        }
    }

    /// Writes the first `limit` segments to `into`; returns their bytes.
    #[inline]
    pub fn segments(&self, pieces: &Pieces, limit: usize, into: &mut Vec<Segment>) -> u32 {
        let mut link = self.first;
        let mut bytes = 0;
        while link != 0 && into.len() < limit {
            let segment = pieces.segment(link);
            bytes += segment.length;
            into.push(segment);
            link = pieces.pieces[link as usize - 1].next;
        }
        bytes
    }

    /// The kernel took the first `bytes`.
    ///
    /// # Panics
    /// If fewer were waiting.
    #[inline]
    pub fn advance(&mut self, pieces: &mut Pieces, bytes: u32, mut release: impl FnMut(Span)) {
        assert!(bytes <= self.bytes, "more was sent than waited");
        self.bytes -= bytes;
        // One piece, taken whole, is what a message in, a message out makes.
        if self.bytes == 0 && self.pieces == 1 {
            let (span, _) = pieces.take(self.first);
            *self = Self::default();
            return release(span);
        }
        cold_path();
        self.drop_front(pieces, bytes, release);
    }

    #[inline(never)]
    fn drop_front(&mut self, pieces: &mut Pieces, bytes: u32, mut release: impl FnMut(Span)) {
        let mut left = bytes;
        while left > 0 {
            let span = pieces.span(self.first);
            if span.length() > left {
                return span.advance(left);
            }
            left -= span.length();
            release(self.pop(pieces));
        }
    }

    #[inline]
    fn pop(&mut self, pieces: &mut Pieces) -> Span {
        let (span, next) = pieces.take(self.first);
        self.first = next;
        self.pieces -= 1;
        if next == 0 {
            self.last = 0;
        }
        span
    }

    /// Empties it without sending.
    pub fn clear(&mut self, pieces: &mut Pieces, mut release: impl FnMut(Span)) {
        while self.first != 0 {
            release(self.pop(pieces));
        }
        self.bytes = 0;
    }

    /// Replaces each span by what `change` makes of it: the same bytes in another place.
    ///
    /// # Panics
    /// If a span comes back with another length.
    pub fn replace_each(&mut self, pieces: &mut Pieces, mut change: impl FnMut(Span) -> Span) {
        let mut link = self.first;
        while link != 0 {
            let piece = &mut pieces.pieces[link as usize - 1];
            let span = piece.span.take().expect("a listed piece has a span");
            let length = span.length();
            let changed = change(span);
            assert!(changed.length() == length, "a replaced span keeps its length");
            piece.span = Some(changed);
            link = piece.next;
        }
    }
}

const _: () = assert!(std::mem::size_of::<Outbox>() == 16);
const _: () = assert!(std::mem::size_of::<Piece>() == 16);
