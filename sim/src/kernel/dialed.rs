//! What the network has of connections that the rings have dialed: for whoever counts them against a cap.

use std::net::SocketAddr;

use super::stream::Phase;
use super::{FileId, Kernel, Kind, Owner};
use crate::trace::Party;

/// A connection that a ring has dialed, or dials.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialed {
    /// Its own address.
    pub(crate) from: SocketAddr,
    /// Where it leads.
    pub(crate) to: SocketAddr,
    pub(crate) is_connecting: bool,
    /// Whose it is, once an operation was begun on it.
    pub(crate) party: Option<Party>,
}

impl Kernel {
    /// The connections that rings have dialed, under way and open, but for those that end on this side: by a FIN or a
    /// reset, or because nobody has them any more.
    pub(crate) fn dialed(&self) -> impl Iterator<Item = Dialed> + '_ {
        self.files.iter().flatten().filter_map(|file| {
            let Kind::Stream(stream) = &file.kind else { return None };
            let is_connecting = stream.phase == Phase::Connecting;
            let is_there = is_connecting || stream.phase == Phase::Connected;
            let is_ours = file.owner == Owner::Rings && file.references > 0;
            let ends = stream.has_sent_fin() || stream.is_dead();
            let dialed =
                Dialed { from: stream.local, to: stream.remote, is_connecting, party: file.party };
            (is_ours && is_there && !ends).then_some(dialed)
        })
    }

    /// Whether one of them is just ending on this side: it is not among those, and its owner still counts it.
    pub(crate) fn is_any_dialed_ending(&self) -> bool {
        self.files.iter().flatten().any(|file| {
            let Kind::Stream(stream) = &file.kind else { return false };
            let is_ours = file.owner == Owner::Rings && file.references > 0;
            is_ours
                && stream.phase == Phase::Connected
                && (stream.has_sent_fin() || stream.is_dead())
        })
    }

    /// The peer of a ring's stream has ended it.
    pub(super) fn note_end(&mut self, id: FileId) {
        let Some(file) = self.file(id) else { return };
        if let (Owner::Rings, Kind::Stream(stream)) = (file.owner, &file.kind) {
            let at = stream.local;
            self.ends.iter_mut().for_each(|ends| ends.push(at));
        }
    }
}
