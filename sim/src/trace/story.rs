//! The story of a failure: of all that happened, what is worth reading.
//!
//! A failure names its subject in its text, `peer 12` or `reactor 0 slot 3/1`, wherever it was noticed: by a
//! peer, by the kernel's rules or by the reactor's own audit. The story is then that of one connection, both
//! of its sides: what was asked of its descriptor, what came of it, and what arrived where. A client that
//! nobody has accepted gets the story of the listener where it queues. A failure that names nobody gets the
//! last of everything.

use std::collections::BTreeSet;

use super::words::duration;
use super::{NO_FILE, Party, Record, What};

/// Lines about the subject of a failure.
const LINES_ABOUT: usize = 40;
/// Lines about everybody, when nobody was named.
const LINES_OF_ALL: usize = 60;

/// A peer of a run, by its number: the stream it talks on, and whose connection is on the other side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) stream: u64,
    pub(crate) party: Option<Party>,
}

/// What a story is about: both sides of a connection.
#[derive(Debug, Default)]
struct Subject {
    parties: BTreeSet<Party>,
    files: BTreeSet<u64>,
    /// Where it queues, if nobody has accepted it: the listeners as their reactors name them.
    listeners: BTreeSet<Party>,
}

/// What happened last, a line each, to whomever the failure names; otherwise to all.
pub(crate) fn tell(records: &[Record], peers: &[Peer], failure: &str) -> Vec<String> {
    let subject = Subject::named_in(failure, records, peers);
    let (kept, lines, about) = match &subject {
        Some(subject) => {
            let kept: Vec<&Record> = records.iter().filter(|one| subject.concerns(one)).collect();
            (kept, LINES_ABOUT, format!("about {}", subject.name(peers)))
        }
        None => {
            // Reactors enter to look for completions as well: nothing is in that.
            let idle = |record: &&Record| record.what == What::Entered && record.number == 0;
            let kept = records.iter().filter(|record| !idle(record)).collect();
            (kept, LINES_OF_ALL, "about everybody".to_owned())
        }
    };
    let from = kept.len().saturating_sub(lines);
    let mut story = vec![format!("the last {} of {} lines {about}", kept.len() - from, kept.len())];
    let owners = Owners::new(records, peers);
    let mut before_us = None;
    for record in &kept[from..] {
        let name = |file: u64| owners.name(file);
        let gap_us = before_us.map_or(0, |before_us| record.at_us - before_us);
        let gap = if gap_us == 0 { String::new() } else { format!("+{}", duration(gap_us)) };
        let at_ms = record.at_us as f64 / 1e3;
        let (who, deed) = (record.who(name), record.deed(name));
        story.push(format!("{at_ms:>12.3} ms {gap:>12}  {who:<20}  {deed}"));
        before_us = Some(record.at_us);
    }
    story
}

impl Subject {
    /// Whom a text names, if it names anybody that there was.
    fn named_in(text: &str, records: &[Record], peers: &[Peer]) -> Option<Self> {
        let mut subject = Self::default();
        if let Some(peer) = peer_in(text).and_then(|number| peers.get(number)) {
            subject.files.insert(peer.stream);
            subject.parties.extend(peer.party);
        } else {
            let (ring, index, generation) = slot_in(text)?;
            let here = |party: &Party| party.ring == ring && party.index() == index;
            let mut lives = records.iter().rev().filter_map(Record::party).filter(here);
            let newest = lives.next()?;
            let named = |party: &Party| Some(party.generation()) == generation;
            let known = named(&newest) || lives.any(|party| named(&party));
            let generation = generation.filter(|_| known).unwrap_or(newest.generation());
            let key = u64::from(index) << 32 | u64::from(generation);
            subject.parties.insert(Party { ring, key });
        }
        subject.grow(records);
        if subject.parties.is_empty() {
            subject.find_listeners(records);
        }
        Some(subject)
    }

    fn find_listeners(&mut self, records: &[Record]) {
        let queued = records.iter().filter(|record| record.what == What::Queued);
        let here = queued.filter(|record| self.files.contains(&(record.number as u64)));
        let files: BTreeSet<u64> = here.map(|record| record.subject).collect();
        let pushed = records.iter().filter(|record| files.contains(&record.file));
        self.listeners = pushed.filter_map(Record::listener).collect();
    }

    /// Takes in the other names of what it has: the socket of a connection, the other end of a socket.
    fn grow(&mut self, records: &[Record]) {
        loop {
            let size = self.parties.len() + self.files.len();
            for record in records {
                match (record.what, record.party()) {
                    (What::Pushed, Some(party)) if record.file != NO_FILE => {
                        if self.parties.contains(&party) {
                            self.files.insert(record.file);
                        } else if self.files.contains(&record.file) {
                            self.parties.insert(party);
                        }
                    }
                    (What::Connected, _) => {
                        let ends = [record.subject, record.number as u64];
                        if ends.iter().any(|end| self.files.contains(end)) {
                            self.files.extend(ends);
                        }
                    }
                    _ => {}
                }
            }
            if self.parties.len() + self.files.len() == size {
                return;
            }
        }
    }

    fn concerns(&self, record: &Record) -> bool {
        match record.what {
            What::Queued => self.files.contains(&(record.number as u64)),
            What::Connected
            | What::Arrived
            | What::FinArrived
            | What::ResetArrived
            | What::Released
            | What::PeerBegins
            | What::PeerEnds => self.files.contains(&record.subject),
            _ => {
                record.party().is_some_and(|party| self.parties.contains(&party))
                    || record.listener().is_some_and(|name| self.listeners.contains(&name))
            }
        }
    }

    fn name(&self, peers: &[Peer]) -> String {
        let talking =
            peers.iter().enumerate().filter(|(_, peer)| self.files.contains(&peer.stream));
        let peers = talking.map(|(number, _)| format!("peer {number}"));
        let names: Vec<String> = peers.chain(self.parties.iter().map(Party::to_string)).collect();
        names.join(" and ")
    }
}

/// Whose sockets they are.
struct Owners<'a> {
    peers: &'a [Peer],
    files: std::collections::BTreeMap<u64, Party>,
}

impl<'a> Owners<'a> {
    fn new(records: &[Record], peers: &'a [Peer]) -> Self {
        let pushed = records.iter().filter(|record| record.file != NO_FILE);
        let files = pushed.filter_map(|record| Some((record.file, record.party()?))).collect();
        Self { peers, files }
    }

    fn name(&self, file: u64) -> String {
        if let Some(party) = self.files.get(&file) {
            return party.to_string();
        }
        match self.peers.iter().position(|peer| peer.stream == file) {
            Some(number) => format!("peer {number}"),
            None => format!("socket {file}"),
        }
    }
}

/// The words and numbers of a text, without what is between them.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect()
}

/// The number after the word `peer`, the first.
fn peer_in(text: &str) -> Option<usize> {
    let words = words(text);
    let mut pairs = words.windows(2).filter(|pair| pair[0] == "peer");
    pairs.find_map(|pair| pair[1].parse().ok())
}

/// Reactor, slot and perhaps the generation of the first `reactor R slot I/G`, whatever stands between.
fn slot_in(text: &str) -> Option<(u16, u32, Option<u32>)> {
    let words = words(text);
    words.windows(4).enumerate().find_map(|(place, four)| {
        if four[0] != "reactor" || four[2] != "slot" {
            return None;
        }
        let generation = words.get(place + 4).and_then(|word| word.parse().ok());
        Some((four[1].parse().ok()?, four[3].parse().ok()?, generation))
    })
}

#[cfg(test)]
mod tests {
    use super::super::NO_RING;
    use super::*;
    use slipring_core::token::{Key, Op, Token};

    fn pushed(at_us: u64, ring: u16, slot: u32, life: u32, file: u64) -> Record {
        let subject = Token::new(Op::Send, Key::new(slot, life), 0).to_bits();
        Record { at_us, ring, what: What::Pushed, subject, number: 5, file }
    }

    fn happened(at_us: u64, what: What, file: u64, number: i64) -> Record {
        Record { at_us, ring: NO_RING, what, subject: file, number, file: NO_FILE }
    }

    /// Peer 0 on socket 20 talks to slot 1/4 on socket 21, peer 1 on 30 to slot 1/5 on 31.
    fn records() -> (Vec<Record>, Vec<Peer>) {
        let records = vec![
            happened(10, What::Connected, 20, 21),
            pushed(20, 0, 1, 4, 21),
            happened(1_500, What::Arrived, 20, 300),
            happened(1_600, What::Connected, 30, 31),
            pushed(1_700, 0, 1, 5, 31),
            happened(1_800, What::ResetArrived, 31, 0),
        ];
        let peers = [(20, Some(Party::of(0, Key::new(1, 4)))), (30, None)];
        (records, peers.map(|(stream, party)| Peer { stream, party }).to_vec())
    }

    #[test]
    fn a_failure_that_names_a_peer_is_told_of_both_its_sides() {
        let (records, peers) = records();
        let story = tell(&records, &peers, "peer 0 read a whole stream of 7 bytes");
        assert_eq!(
            story,
            [
                "the last 3 of 3 lines about peer 0 and reactor 0 slot 1/4",
                "       0.010 ms               peer 0                is connected to reactor 0 slot 1/4",
                "       0.020 ms       +10 us  reactor 0 slot 1/4    send #0 is pushed, on descriptor 5",
                "       1.500 ms     +1.48 ms  peer 0                <- 300 bytes",
            ]
        );
        let story = tell(&records, &peers, "peer 1: nothing is known of who was behind");
        assert_eq!(story[0], "the last 3 of 3 lines about peer 1 and reactor 0 slot 1/5");
        assert!(story[3].ends_with("reactor 0 slot 1/5    <- RST"), "{story:?}");
    }

    #[test]
    fn a_client_that_nobody_accepted_is_told_of_with_its_listener() {
        let (mut records, mut peers) = records();
        let accept = |index| Token::new(Op::AcceptMany, Key::new(index, 0), 0).to_bits();
        records.push(Record { subject: accept(0), file: 9, ..pushed(2_000, 1, 0, 0, 9) });
        records.push(Record { subject: accept(1), file: 8, ..pushed(2_100, 1, 0, 0, 8) });
        records.push(happened(2_200, What::Queued, 9, 41));
        records.push(happened(2_200, What::Connected, 40, 41));
        peers.push(Peer { stream: 40, party: None });
        let story = tell(&records, &peers, "peer 2 was never served");
        assert_eq!(story[0], "the last 3 of 3 lines about peer 2");
        assert!(story[1].ends_with("multishot accept of listener 0 #0 is pushed, on descriptor 5"));
    }

    #[test]
    fn a_slot_is_the_one_of_its_generation_or_the_newest() {
        let (records, peers) = records();
        let about = |failure: &str| tell(&records, &peers, failure).remove(0);
        assert!(about("reactor 0 slot 1/4: two FINs").ends_with("peer 0 and reactor 0 slot 1/4"));
        assert!(about("reactor 0: slot 1: no timer").ends_with("peer 1 and reactor 0 slot 1/5"));
        assert!(about("reactor 0: slot 1: 77 pieces").ends_with("peer 1 and reactor 0 slot 1/5"));
    }

    #[test]
    fn a_failure_that_names_nobody_is_told_of_all() {
        let (records, peers) = records();
        for text in ["the drain did not end", "peer 9 is not there", "reactor 0 slot 8/1: neither"]
        {
            let story = tell(&records, &peers, text);
            assert_eq!(story[0], "the last 6 of 6 lines about everybody");
            assert_eq!(story.len(), 7);
        }
    }
}
