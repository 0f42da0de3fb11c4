//! Rare events that a good run has to reach: a simulation that never gets there tests nothing there.

macro_rules! marks {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A rare event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Mark {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Mark] = &[$(Mark::$name),+];

            /// What it is, in words.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Mark::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

marks! {
    /// A multishot receive ended together with bytes.
    MultishotEndedWithData,
    /// A multishot accept ended together with a client.
    MultishotEndedWithClient,
    /// A receive ended at its cap.
    ReceiveCapped,
    /// A cancel found its target gone.
    CancelTooLate,
    /// What was cancelled completed all the same.
    CancelLostRace,
    /// A cancelled operation ended before its cancel was answered.
    EndBeforeCancel,
    /// A cancel was answered before the operation ended.
    CancelBeforeEnd,
    /// A notification came after the close of its socket.
    NotificationAfterClose,
    /// Two zero-copy sends of one connection were notified of out of order.
    NotificationsReordered,
    /// A zero-copy send was copied.
    ZeroCopyCopied,
    /// A zero-copy send failed for want of pinned memory.
    ZeroCopyUnpinned,
    /// A reset met a zero-copy send whose bytes had not gone.
    ResetUnderZeroCopy,
    /// Completions overflowed the queue and were flushed into it later.
    OverflowFlushed,
    /// A multishot was ended by an overflow.
    OverflowEndedMultishot,
    /// The data share had no room for all that one connection can want.
    DataShareFull,
    /// Not even the whole queue had room for all that one connection can want.
    QueueFull,
    /// A close was pushed on the management share while the data share was full.
    CloseOnManagementShare,
    /// An enter was interrupted with submissions in the queue.
    EnterInterrupted,
    /// An enter took only some of the submissions.
    EnterPartial,
    /// A receive found no buffer when it was armed.
    NoBufferAtArming,
    /// A receive ran out of buffers in the middle.
    NoBufferMidStream,
    /// The buffer ring's counter wrapped.
    BufferCounterWrapped,
    /// Buffers came back in another order than they went.
    BuffersReordered,
    /// A stalled reader's buffers were spilled.
    BuffersSpilled,
    /// A connection's completions were put off to the next turn.
    CompletionsDeferred,
    /// A connection with much to move was put off to the next turn, since others had little.
    LargePutOff,
    /// Accepting paused for want of descriptors, and resumed.
    AcceptPausedAndResumed,
    /// A multishot accept was recalled near the cap.
    AcceptRecalled,
    /// A client was accepted alone near the cap.
    AcceptedAlone,
    /// A client waited in the backlog and came in later.
    ClientWaited,
    /// A listener dropped a SYN because its backlog was full.
    BacklogFull,
    /// A drain took a queued client in.
    DrainTookQueued,
    /// A client was let in between the order of a drain and the end of accepting.
    AcceptedNotReady,
    /// A drain's deadline aborted a connection.
    DrainAborted,
    /// A listener closed on queued clients.
    QueuedClientsReset,
    /// A send met a full socket.
    SendBlocked,
    /// A watch for room was told of the peer's FIN instead.
    WatchToldOfFin,
    /// A send was short.
    SendShort,
    /// A send found no place for its segments between two enters.
    VectorsFull,
    /// A send met a reset connection.
    SendAfterReset,
    /// A send failed for want of memory.
    SendFailed,
    /// A connection ended with an errno that is no reset's.
    PeerLost,
    /// A receive that brought nothing gave a buffer back.
    EmptyBuffer,
    /// A half-close met a reset connection.
    ShutdownAfterReset,
    /// Bytes were read before the reset behind them.
    DataBeforeReset,
    /// A close with unread bytes became a reset.
    CloseWithUnread,
    /// Both sides sent their FIN at the same time.
    SimultaneousClose,
    /// A dial was refused.
    DialRefused,
    /// A dial timed out.
    DialTimedOut,
    /// A dial was given up after it had succeeded in the kernel.
    DialWonTooLate,
    /// A descriptor's number was used again.
    DescriptorReused,
    /// A slot was used again.
    SlotReused,
    /// A generation wrapped.
    GenerationWrapped,
    /// An activation wrapped.
    ActivationWrapped,
    /// A handler panicked.
    HandlerPanicked,
    /// A handler panicked while being told of the end.
    PanickedAtEnd,
    /// What a handler keeps of a connection could not be made.
    StateNotMade,
    /// What a handler kept of a connection panicked as it was dropped.
    StateEndedBadly,
    /// An idle deadline passed.
    IdleTimeout,
    /// A half-closed deadline passed.
    HalfClosedTimeout,
    /// A write-stall deadline passed.
    WriteStall,
    /// An outbox overflowed.
    OutboxOverflow,
    /// A keep-alive fell due.
    KeepAlive,
    /// One reactor rang another for a permit.
    PermitRung,
    /// A client was handed over to another reactor.
    HandedOver,
    /// An idle connection was moved to another reactor.
    Moved,
    /// A connection that was to move was needed where it was.
    MoveGivenUp,
    /// A connection that had left came back: its handler had found something to do, or the mailbox was full.
    MoveTurnedBack,
    /// A client stayed where it was because the other's mailbox was full.
    MailboxFull,
    /// A client was taken out of the mailbox of a reactor that had failed or stalled.
    OrphanTaken,
    /// A reactor had too much, and accepted nobody for a while.
    Strained,
    /// A reactor with too much closed an idle connection.
    IdleShed,
    /// A reactor did not turn for a second.
    ReactorStalled,
    /// A client was accepted in the name of a reactor that did not turn.
    StoodIn,
    /// A client was reset for want of a place.
    ClientRefused,
    /// An idle connection was closed for a client that waited.
    IdleEvicted,
    /// One was closed for a client of another reactor.
    EvictedForOther,
    /// A client waited for a token of an accept rate.
    AcceptPaced,
    /// A client found no place in the table of its ring, and kept its descriptor.
    TableFull,
    /// A place of a ring's table was used again.
    PlaceReused,
    /// A client in the table of a ring was looked at for bytes that its peer had not taken.
    PlaceAsked,
    /// A place of a ring's table was emptied at once: when the ring failed, or since its client had moved.
    PlaceEmptiedAtOnce,
    /// A connection that was to move to another reactor was in the table of its ring.
    MovedOutOfTable,
    /// The ring of a reactor failed.
    DriverFailed,
    /// The deadline of a phase passed.
    PhaseTimeout,
}

/// A set of marks, with how often each was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    counts: Vec<u64>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { counts: vec![0; Mark::ALL.len()] }
    }
}

impl Marks {
    /// Meets one.
    pub(crate) fn meet(&mut self, mark: Mark) {
        self.counts[mark as usize] += 1;
    }

    /// How often one was met.
    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.counts[mark as usize]
    }

    /// Takes in those of another run.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Those never met.
    #[must_use]
    pub fn missed(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }
}
