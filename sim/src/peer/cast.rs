//! All peers of a simulation: what has become of each, and whether their scripts are through.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use super::player::{Player, Shared};
use super::{End, PeerId, Script};
use crate::engine::Actor;
use crate::kernel::{FileId, Kernel, Owner};
use crate::sim::story::SharedStory;
use crate::trace::Party;

/// Peers named in a report that says who is stuck.
const NAMED_MAX: usize = 6;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Cast {
    players: Vec<Player>,
    /// Those that are not at rest, for a look at each step of the simulation; and clients among
    /// them.
    acting: usize,
    acting_clients: usize,
    served: BTreeMap<SocketAddr, Vec<PeerId>>,
    pub(crate) shared: Shared,
}

/// The cast, as its peers and their simulation have it.
pub(crate) type SharedCast = Rc<RefCell<Cast>>;

impl Cast {
    pub(crate) fn new(story: &SharedStory) -> SharedCast {
        let story = Rc::clone(story);
        let shared = Shared { failure: None, progress_us: 0, closing: false, story };
        let served = BTreeMap::new();
        Rc::new(RefCell::new(Self {
            players: Vec::new(),
            acting: 0,
            acting_clients: 0,
            served,
            shared,
        }))
    }

    fn next_id(&self) -> PeerId {
        PeerId(self.players.len() as u32)
    }

    /// One that will connect to `to`.
    pub(crate) fn add_client(&mut self, to: SocketAddr, script: Script) -> PeerId {
        let id = self.next_id();
        self.players.push(Player::client(id, to, script));
        self.acting += 1;
        self.acting_clients += 1;
        id
    }

    /// One that has been connected to, at `at`.
    pub(super) fn add_served(&mut self, at: SocketAddr, stream: FileId, script: Script) -> PeerId {
        let id = self.next_id();
        let player = Player::served(id, stream, script);
        self.acting += usize::from(!player.is_at_rest());
        self.players.push(player);
        self.served.entry(at).or_default().push(id);
        id
    }

    /// Lets one do what it can; in how long it has to look again, microseconds.
    pub(super) fn play(&mut self, kernel: &mut Kernel, me: u32, id: PeerId) -> Option<u64> {
        let player = &mut self.players[id.0 as usize];
        let before = player.is_at_rest();
        let in_us = player.play(kernel, Owner::Actor(me), &mut self.shared);
        let client = usize::from(player.is_client());
        match (before, player.is_at_rest()) {
            (false, true) => {
                self.acting -= 1;
                self.acting_clients -= client;
            }
            (true, false) => {
                self.acting += 1;
                self.acting_clients += client;
            }
            _ => {}
        }
        in_us
    }

    /// Whether every script is through, or has nothing to answer.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.acting == 0
    }

    /// The same of all peers that connect.
    pub(crate) fn are_clients_at_rest(&self) -> bool {
        self.acting_clients == 0
    }

    /// Whom the scripts wait for, in words.
    pub(crate) fn waiting(&self) -> String {
        let waiting: Vec<&Player> = self.players.iter().filter(|p| !p.is_at_rest()).collect();
        let mut words: Vec<String> =
            waiting.iter().take(NAMED_MAX).map(|player| player.waits_for()).collect();
        if waiting.len() > NAMED_MAX {
            words.push(format!("and {} more", waiting.len() - NAMED_MAX));
        }
        words.join("\n  ")
    }

    /// Peers that have connected.
    pub(crate) fn connected_clients(&self) -> u64 {
        let connected = |player: &&Player| player.is_client() && player.has_connected();
        self.players.iter().filter(connected).count() as u64
    }

    /// Of open connections those whose peers have ended their streams. None, if it cannot be told of all.
    pub(crate) fn left_behind(&self, kernel: &Kernel, open: &[Party]) -> Vec<Party> {
        let stay = self.players.iter().filter_map(Player::stays);
        let Some(stay) = stay.map(|stream| kernel.behind(stream)).collect::<Option<Vec<_>>>()
        else {
            return Vec::new();
        };
        open.iter().filter(|party| !stay.contains(party)).copied().collect()
    }

    /// Those that were connected to at an address, in the order in which they came.
    pub(crate) fn served(&self, at: SocketAddr) -> &[PeerId] {
        self.served.get(&at).map_or(&[], Vec::as_slice)
    }

    fn player(&self, id: PeerId) -> &Player {
        self.players.get(id.0 as usize).unwrap_or_else(|| panic!("{id} is of another simulation"))
    }

    pub(crate) fn received(&self, id: PeerId) -> Vec<u8> {
        self.player(id).received.clone()
    }

    pub(crate) fn end_of(&self, id: PeerId) -> Option<(End, u64)> {
        self.player(id).end
    }

    pub(crate) fn is_peer_through(&self, id: PeerId) -> bool {
        self.player(id).is_through()
    }
}

/// A peer that connects.
#[derive(Debug)]
pub(crate) struct Client {
    cast: SharedCast,
    id: PeerId,
}

impl Client {
    pub(crate) fn new(cast: &SharedCast, id: PeerId) -> Self {
        Self { cast: Rc::clone(cast), id }
    }
}

impl Actor for Client {
    fn look(&mut self, kernel: &mut Kernel, me: u32) {
        let in_us = self.cast.borrow_mut().play(kernel, me, self.id);
        if let Some(in_us) = in_us {
            kernel.look_in(me, in_us.max(1));
        }
    }
}
