//! Names out of a file that somebody else writes, while it is being changed.
//!
//! ```text
//!   lookup --> is a look at the file under way? --- yes: wait for that one
//!                      | no
//!                      v
//!              unblock: stat --> as it was: nothing
//!                         |
//!                         +----> another: read, parse --> good: it counts from now on
//!                                                  |
//!                                                  +----> not good: what was good still counts, and a word in the log
//! ```
//!
//! Is: the file's content and when it is read again; `hosts/format.rs` is how it is written. Is not: a watch by the
//! kernel (inotify): that needs a descriptor and sees nothing of a mounted configuration that is swapped beneath it.
//!
//! Why one look at a time: on a file system that hangs, each would keep a thread for blocking work, until there is none
//! left for anybody else.
//!
//! *Half-written files.* One that is put in place by `rename` is never seen half. One that is written to where it lies
//! may be: it is read again as long as it changes under the reader, once more after it was new (its file system's clock
//! may not have ticked since), and when it is suddenly empty that counts only at the second look.

mod format;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::places::Places;
use super::promise::{Promise, Shared};
use super::stamp::Stamp;
use super::{Lookup, Query, QueryError, Source};
use crate::failure::Resolve;
use crate::policy::names::Answer;
use crate::tasks::unblock;

/// How often the file is looked at, by default.
pub(super) const EVERY: Duration = Duration::from_secs(2);
const EVERY_MIN: Duration = Duration::from_millis(1);
/// What is longer is not a file of hosts.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How often a file that changes as it is read is read again.
const READS_MAX: usize = 3;
/// How often it is read under one stamp.
const READS_UNTIL_SETTLED: u8 = 2;

/// A file in the format of `/etc/hosts`, and a bit more, which is read again when it has changed.
///
/// ```text
/// # address            names                    settings
/// 192.0.2.1            web.example web          # on the port that is asked for
/// 192.0.2.2:8080       web.example web          # on a port of its own
/// [2001:db8::1]:8080   web.example tier=1       # only when nobody of tier 0 is up (default 0)
/// 192.0.2.3:8080       web.example weight=5     # five times its share (default 1)
/// 192.0.2.4:8080       _http._tcp.example.com   # for srv:_http._tcp.example.com: places with a port only
/// ```
///
/// All lines of a name count together. Words of a line are parted by spaces or tabs; a word with `=` is a setting of
/// the line. A file that breaks the format does not count as a whole: what was good before still does, and so it is if
/// the file vanishes. [`fault`](Self::fault) and a warning in the log (`tracing`), once for each change, tell. As long
/// as there was nothing good, look-ups fail with [`ServerFailure`](Resolve::ServerFailure).
///
/// It is looked at every 2 s † while names are asked for, by [`unblock`](crate::unblock): that is the TTL of its
/// answers. Put a new file in its place by `rename`, and no half of it is ever seen.
///
/// Its clones are the same source.
#[derive(Clone, Debug)]
pub struct HostsFile {
    reader: Arc<Reader>,
    every: Duration,
}

impl HostsFile {
    /// The file of this path. It is not touched before a name is asked for.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { reader: Arc::new(Reader::new(path.into(), Strictness::Whole)), every: EVERY }
    }

    /// Looks at it so often. At least every millisecond; default 2 s †.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(EVERY_MIN);
        self
    }

    /// Reads it now, to know before anything is started whether it is good. Blocks: not for a reactor's thread.
    ///
    /// # Errors
    /// [`HostsFileError`].
    pub fn read(&self) -> Result<(), HostsFileError> {
        self.reader.look();
        self.fault().map_or(Ok(()), Err)
    }

    /// What was wrong with the file when it was looked at last.
    #[must_use]
    pub fn fault(&self) -> Option<HostsFileError> {
        self.reader.lock().fault.clone()
    }
}

impl Source for HostsFile {
    fn lookup(&self, query: &Query) -> Lookup {
        let (reader, query, every) = (Arc::clone(&self.reader), query.clone(), self.every);
        Box::pin(async move {
            look(&reader).await;
            reader.answer(&query, every)
        })
    }
}

/// Has the file looked at, or waits for whoever does so.
async fn look(reader: &Arc<Reader>) {
    loop {
        let (shared, promise) = reader.join_look();
        let Some(promise) = promise else {
            match shared.wait().await {
                Some(()) => return,
                // It was taken out of the line before a thread began it.
                None => continue,
            }
        };
        let work = {
            let reader = Arc::clone(reader);
            move || {
                reader.look();
                promise.say(());
            }
        };
        if let Err(error) = unblock(work).await {
            tracing::warn!(path = %reader.path.display(), %error, "a file of hosts was not looked at");
        }
        return;
    }
}

/// What a line that breaks the format does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// The whole file does not count.
    Whole,
    /// It is passed over, as glibc does. And a file that is not there is an empty one.
    #[cfg(feature = "dns")]
    Line,
}

/// The file, read from any thread that may block.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    strictness: Strictness,
    seen: Mutex<Seen>,
    looking: Mutex<Option<Shared<()>>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What counts.
    places: Option<Arc<Places>>,
    /// Of what was read last, and how often it was read since it is that.
    stamp: Option<Stamp>,
    reads: u8,
    fault: Option<HostsFileError>,
}

impl Reader {
    pub(super) fn new(path: PathBuf, strictness: Strictness) -> Self {
        Self { path, strictness, seen: Mutex::default(), looking: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nothing that can panic runs while it is locked.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer(&self, query: &Query, ttl: Duration) -> Result<Answer, Resolve> {
        self.places().ok_or(Resolve::ServerFailure)?.answer(query, ttl)
    }

    pub(super) fn places(&self) -> Option<Arc<Places>> {
        self.lock().places.clone()
    }

    /// The look under way; one's own to make, if there was none.
    fn join_look(&self) -> (Shared<()>, Option<Promise<()>>) {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = looking.as_ref().filter(|shared| !shared.is_over()) {
            return (shared.clone(), None);
        }
        let promise = Promise::new();
        let shared = promise.shared().clone();
        *looking = Some(shared.clone());
        (shared, Some(promise))
    }

    /// Looks whether the file is another, and reads it then. Blocks.
    pub(super) fn look(&self) {
        let settled = {
            let seen = self.lock();
            seen.stamp.filter(|_| seen.reads >= READS_UNTIL_SETTLED)
        };
        let found = self.read_unless(settled);
        let mut seen = self.lock();
        match found {
            Ok(Found::AsBefore) => {}
            Ok(Found::Content { bytes, stamp }) => {
                let is_new = stamp.is_none() || seen.stamp != stamp;
                seen.reads = if is_new { 1 } else { seen.reads.saturating_add(1) };
                seen.stamp = stamp;
                match format::parse(&bytes, self.strictness) {
                    Ok(places) => self.take(&mut seen, places, is_new),
                    Err((line, fault)) => self.complain(&mut seen, Some(line), fault, is_new),
                }
            }
            #[cfg(feature = "dns")]
            Err(HostsFault::Missing) if self.strictness == Strictness::Line => {
                seen.stamp = None;
                self.take(&mut seen, Places::default(), false);
            }
            Err(fault) => {
                seen.stamp = None;
                self.complain(&mut seen, None, fault, false);
            }
        }
    }

    fn take(&self, seen: &mut Seen, places: Places, is_new: bool) {
        let had_some = seen.places.as_ref().is_some_and(|places| !places.is_empty());
        if places.is_empty() && had_some && is_new {
            return;
        }
        if seen.fault.take().is_some() {
            tracing::info!(path = %self.path.display(), "the file of hosts is good again");
        }
        seen.places = Some(Arc::new(places));
    }

    fn complain(&self, seen: &mut Seen, line: Option<usize>, fault: HostsFault, is_new: bool) {
        let error = HostsFileError { path: self.path.clone(), line, fault };
        if is_new || seen.fault.as_ref() != Some(&error) {
            let meanwhile = match seen.places {
                Some(_) => "what it said before still counts",
                None => "its names are not known",
            };
            tracing::warn!(%error, "a file of hosts does not count; {meanwhile}");
        }
        seen.fault = Some(error);
    }

    fn read_unless(&self, settled: Option<Stamp>) -> Result<Found, HostsFault> {
        let mut bytes = Vec::new();
        for _ in 0..READS_MAX {
            // Before it is opened: that of a pipe would wait for whoever writes it.
            let stamp = stamp(&self.path)?;
            if settled == Some(stamp) {
                return Ok(Found::AsBefore);
            }
            let file = File::open(&self.path)?;
            bytes.clear();
            (&file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(HostsFault::TooLong);
            }
            if Stamp::of(&file.metadata()?) == stamp {
                return Ok(Found::Content { bytes, stamp: Some(stamp) });
            }
        }
        // It changes faster than it can be read. The next look reads it again.
        Ok(Found::Content { bytes, stamp: None })
    }
}

/// What a look at the file brought.
enum Found {
    AsBefore,
    Content { bytes: Vec<u8>, stamp: Option<Stamp> },
}

fn stamp(path: &Path) -> Result<Stamp, HostsFault> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(HostsFault::NotAFile);
    }
    Ok(Stamp::of(&metadata))
}

/// Why a file of hosts does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {fault}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct HostsFileError {
    path: PathBuf,
    line: Option<usize>,
    fault: HostsFault,
}

impl HostsFileError {
    /// Which file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first line that is not good, from 1, if it is a line.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> &HostsFault {
        &self.fault
    }
}

/// What is wrong with a file of hosts, or a line of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostsFault {
    /// There is no such file.
    #[error("there is no such file; write one, or correct the path")]
    Missing,
    /// The system does not let it be read.
    #[error("it cannot be read: {error}; let this process read it")]
    Unreadable {
        /// What the system says.
        error: String,
    },
    /// A directory, a pipe or a device.
    #[error("it is not a regular file; name one")]
    NotAFile,
    /// More than 16 MiB.
    #[error("it is longer than {} MiB; this is not a file of hosts", FILE_BYTES_MAX >> 20)]
    TooLong,
    /// A line that is not UTF-8, its comment aside.
    #[error("the line is not UTF-8; write names in punycode")]
    NotText,
    /// A line that does not begin with an address.
    #[error(
        "{word:?} is no address; begin the line with one, as in 192.0.2.1, 192.0.2.1:80 or [2001:db8::1]:80"
    )]
    Address {
        /// What it begins with.
        word: String,
    },
    /// An address that nobody is called by.
    #[error("there is no name behind the address; write one, or take the line out")]
    NameMissing,
    /// A word that is no name.
    #[error("{0}")]
    Name(#[from] QueryError),
    /// A word with `=` that says nothing.
    #[error(
        "{word:?} is no setting; there are tier=N with N up to 65535, and weight=N from 1 to 65535"
    )]
    Setting {
        /// The word.
        word: String,
    },
}

impl From<io::Error> for HostsFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Unreadable { error: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests;
