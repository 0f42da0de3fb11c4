//! Bugs on purpose: each is a mistake somebody could make in this crate, and has to be found by simulation.
//!
//! A canary sings in builds with the feature `canaries` only, and only the one that was asked for
//! (`sing`). Without the feature `sings` is a constant, and nothing of a canary is left in the code. No
//! optimised build without debug assertions can carry the feature: it does not compile.
//!
//! What a canary proves: that a simulation which passes would not have passed with that mistake. Where one
//! stands, the code reads as if the condition were not there.

#[cfg(all(feature = "canaries", not(debug_assertions)))]
compile_error!(
    "the feature `canaries` puts deliberate bugs into slipring: it is for simulation in builds with debug \
     assertions (`--profile canary`) and never for a release"
);

/// Whether what a canary is about is this.
macro_rules! is_about {
    (tasks tasks) => {
        true
    };
    (upstreams upstreams) => {
        true
    };
    ($what:ident $($about:ident)?) => {
        false
    };
}

macro_rules! canaries {
    ($($(#[doc = $doc:literal])+ $name:ident $(of $about:ident)?,)+) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Canary {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Canary {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// Whether it is about tasks: only runs whose services are tasks can find it.
            #[must_use]
            pub const fn is_of_tasks(self) -> bool {
                match self { $(Self::$name => is_about!(tasks $($about)?),)+ }
            }

            /// Whether it is about upstreams: only runs of those can find it.
            #[must_use]
            pub const fn is_of_upstreams(self) -> bool {
                match self { $(Self::$name => is_about!(upstreams $($about)?),)+ }
            }

            /// The mistake, in words.
            #[must_use]
            pub const fn mistake(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

canaries! {
    /// A key is good for whatever lives in its slot.
    NoGenerationCheck,
    /// A slot's generation stays as it is when its value is removed.
    GenerationNotCounted,
    /// A slot is freed while zero-copy notifications are awaited.
    FreedBeforeNotification,
    /// A descriptor is closed while operations on it are in flight.
    ClosedInFlight,
    /// The memory of a zero-copy send is released at its result.
    ZeroCopyReleasedAtResult,
    /// A receive is armed again after a failure only, not after an end with bytes.
    RearmedAfterFailureOnly,
    /// A short send counts as a whole one.
    ShortSendAsWhole,
    /// A second send is pushed while one is in flight.
    TwoSends,
    /// The FIN is sent with bytes still in the outbox.
    FinBeforeFlush,
    /// The FIN is sent again.
    FinTwice,
    /// The buffer ring's counter does not wrap.
    CounterWithoutWrap,
    /// A buffer is returned twice.
    ReturnedTwice,
    /// Bytes that nobody wants keep their buffer.
    DiscardedKept,
    /// The timer of a freed slot stays armed.
    TimerLeftArmed,
    /// A connection that finds the queue full is not asked again.
    FullQueueForgets,
    /// A client that a cancelled accept brings is dropped.
    CancelledAcceptDrops,
    /// A half-close closes.
    HalfCloseCloses,
    /// The idle deadline is not kept.
    IdleForgotten,
    /// A peer that takes nothing is waited for.
    StallForgotten,
    /// The linger deadline is not set.
    LingerForgotten,
    /// The dial deadline is not kept.
    DialForgotten,
    /// Accepting that paused for want of descriptors stays paused.
    AcceptStaysPaused,
    /// A receive that waits for a buffer waits for ever.
    ParkedForgotten,
    /// A connection that was to leave, and is needed here after all, is not read from.
    StayerForgotten,
    /// A connection that arrives from another reactor counts as heard from just now: its idle timeout begins anew.
    ArrivesFresh,
    /// A connection held back for another's outbox is not let go when that one ends.
    FeederForgotten,
    /// Of those that feed one outbox, only the last is held back for it.
    FeederReplaced,
    /// An outbox that was high stays high.
    HighForEver,
    /// The place of a connection that ended is not given back.
    PermitLeaked,
    /// One connection more than allowed is accepted.
    CapExceeded,
    /// Listeners accept as many as the process may hold, whatever their own cap.
    ListenerCapIgnored,
    /// The place of a connection that ended is given back to the process, and not to its listener.
    ListenerPlaceLeaked,
    /// What a multishot accept had reserved is not given back.
    ReservationLeaked,
    /// Completions that were put off come after later ones.
    DeferredOvertaken,
    /// The end of a stream overtakes bytes that were put off.
    EndOvertakesBytes,
    /// The place of a dialed connection that ended is not given back.
    DialPlaceLeaked,
    /// The outbox of an aborted connection keeps its bytes.
    OutboxLeaked,
    /// A torn stream ends like a whole one.
    TornEndsInOrder,
    /// Bytes that were moved to plain memory keep their buffer too.
    SpilledKept,
    /// Rings of other threads are heard once.
    HeardOnce,
    /// Nobody watches for a full socket to empty.
    WatchForgotten,
    /// What ends a watch at once is watched for once more, and so on.
    WatchSpins,
    /// A handler's panic is not counted.
    PanicUncounted,
    /// A shorter idle timeout leaves the timer where it stands.
    NearerForgotten,
    /// A deadline comes after a third of its time.
    DeadlineEarly,
    /// A slow reader is taken for one that stalls.
    ProgressIgnored,
    /// Nobody looks for progress before the time of a stall has passed.
    LooksForgotten,
    /// A short send waits for a watch that was there before.
    ShortWaits,
    /// Room that came before the word that there was none is forgotten.
    RoomForgotten,
    /// A connection's share of a turn is good for two.
    ShareForTwoTurns,
    /// A buffer that comes back empty is kept.
    EmptyBufferKept,
    /// A peer that cannot be reached any more has merely nothing to say.
    LostPeerIgnored,
    /// A reactor that sleeps is not told of its mail.
    MailUnannounced,
    /// A reactor that had too much accepts nobody for ever.
    HeldForEver,
    /// A connection that has ended still counts for its source.
    SourceLeaked,
    /// A client that finds the other's mailbox full is forgotten.
    FullMailboxForgets,
    /// The deadline of a phase is not kept.
    PhaseForgotten,
    /// Bytes move the deadline of a phase.
    PhaseExtendedByBytes,
    /// A listener that waits for a token of its rate waits for ever.
    PacedForEver,
    /// A reactor sleeps as if its turn had taken no time.
    Oversleeps,
    /// A connection with much to move that is put off to the next turn is forgotten.
    LargeForgotten,
    /// A receive that waits for a buffer and will bring much waits for ever.
    LargeParkedForgotten,
    /// A listener that closes an idle connection for a client does so once.
    EvictionForgotten,
    /// A listener that finds nobody idle does not look again.
    NobodyIdleForEver,
    /// A listener that was borrowed for a reactor that does not turn is not given back.
    BorrowKept,
    /// A client that is turned away keeps its place.
    TurnedAwayKeepsPlace,
    /// A reactor that has nobody idle for a client that waits asks no other.
    AsksNobody,
    /// A place that was made for another's client counts as being made for ever.
    MadeForEver,
    /// A drain stops accepting at once, whatever time those who send clients have to notice.
    NotReadySkipped,
    /// A reactor that is not ready does not drain.
    NotReadyForEver,
    /// In a drain, one whose bytes wait for a buffer counts as quiet.
    UnheardIsQuiet,
    /// A callback that is over is still named.
    CallStillNamed,
    /// A place of the ring's table is given away as soon as the close of what is there is queued.
    PlaceFreeAtPush,
    /// A place of the ring's table is not free again once what was there is closed.
    PlaceKept,
    /// The address of a connection that is over is told of the next one in its slot.
    AddressKept,
    /// Who waits in the place of another is not written down.
    WakerNotReplaced of tasks,
    /// Who is woken while it is polled is not polled again.
    WakeLostInPoll of tasks,
    /// What came and was not taken goes with its connection.
    InboxDroppedAtClose of tasks,
    /// A lease that a task puts back is dropped.
    PutBackDropped of tasks,
    /// A send takes half of its bytes.
    SendTakesHalf of tasks,
    /// A connection that was unread is not read from again.
    UnreadForEver of tasks,
    /// A connection whose task takes nothing is read from all the same.
    UnreadNotPaused of tasks,
    /// The timer of a dropped sleep stays armed.
    SleepLeftArmed of tasks,
    /// A timer that was armed short of its deadline is not armed again.
    SleepNotArmedAgain of tasks,
    /// The time that a sleep ends at is rounded down.
    SleepRoundedDown of tasks,
    /// A task that panicked is waited for by the drain.
    PanickedStillServes of tasks,
    /// A cancel is good for whatever task is in that place.
    TaskGenerationIgnored of tasks,
    /// A task that is cancelled while it is polled goes on.
    CancelInPollForgotten of tasks,
    /// Who wakes from another thread does not ring.
    RemoteWakeUnrung of tasks,
    /// The connections of a task that panics are closed in order.
    PanicClosesInOrder of tasks,
    /// A task that panics as it is dropped is not counted.
    TaskPanicUncounted of tasks,
    /// A half that sends is dropped without a FIN.
    HalfWithoutFin of tasks,
    /// Who waits for room is not told of the end.
    WriterNotToldOfEnd of tasks,
    /// What is left of an ended connection stays behind its handle.
    RemainKept of tasks,
    /// Tasks that did not have their turn wait until something happens.
    RestOfTurnForgotten of tasks,
    /// Who waits for the order to drain stays on the list when the wait is dropped.
    DrainWaiterKept of tasks,
    /// A dropped dial goes on.
    DroppedDialGoesOn of tasks,
    /// A drain does not wait for tasks that serve.
    DrainForgetsTasks of tasks,
    /// What came before a relay began is dropped.
    RelayForgetsInbox of tasks,
    /// A relay that is dropped closes its connections in order.
    DroppedRelayCloses of tasks,
    /// The token of a cap is not given back.
    CapTokenKept of upstreams,
    /// A token that is passed to another reactor is lost on the way.
    PassedTokenLost of upstreams,
    /// The permit of a probe that was dropped is not given back.
    ProbePermitKept of upstreams,
    /// Calls pass while the breaker is open.
    OpenLetsPass of upstreams,
    /// A kept connection that has ended is given out.
    StaleGivenOut of upstreams,
    /// Who waits for a connection of a pool is not woken.
    PoolWaiterNotWoken of upstreams,
    /// A request that must not be carried out twice is made again.
    RepeatsAnything of upstreams,
    /// Repeats are made whatever the budget says.
    BudgetIgnored of upstreams,
    /// A connection on which an answer is awaited goes back to its pool.
    UncleanKept of upstreams,
    /// Dials to an endpoint do not wait for each other.
    DialsUncounted of upstreams,
    /// A pool that nobody has any more keeps its connections.
    AbandonedPoolKept of upstreams,
    /// A call that has ended counts as being in flight.
    InFlightKept of upstreams,
    /// A request is made again with an endpoint that it was made with.
    TriedForgotten of upstreams,
    /// The breaker is not told of failures.
    FailuresUntold of upstreams,
}

#[cfg(feature = "canaries")]
mod cage {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Canary;

    const SILENT: u8 = u8::MAX;
    static SINGING: AtomicU8 = AtomicU8::new(SILENT);

    /// From now on this one sings, in the whole process; or none.
    pub fn sing(canary: Option<Canary>) {
        SINGING.store(canary.map_or(SILENT, |canary| canary as u8), Ordering::Relaxed);
    }

    /// Whether this one sings.
    #[inline]
    #[must_use]
    pub fn sings(canary: Canary) -> bool {
        SINGING.load(Ordering::Relaxed) == canary as u8
    }
}

#[cfg(feature = "canaries")]
pub use cage::{sing, sings};

/// Whether this one sings: not in this build.
#[must_use]
#[cfg(not(feature = "canaries"))]
#[inline(always)]
pub const fn sings(_: Canary) -> bool {
    false
}
