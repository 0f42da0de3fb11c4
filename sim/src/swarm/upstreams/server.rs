//! An endpoint: a listener that comes and goes, and connections on which requests are answered, or not.
//!
//! A request is a `Q`, its number and seven bytes of nothing; an answer is an `A`, that number, a length and so many
//! bytes. What is no answer is an `X`.

use std::net::SocketAddr;

use super::ledger::Ledger;
use super::terms::Temper;
use crate::dice::Dice;
use crate::engine::Actor;
use crate::kernel::{FileId, Kernel, Owner, Reading};

/// Bytes of a request.
pub(super) const REQUEST_BYTES: usize = 16;
/// Bytes of an answer before what it says.
pub(super) const HEAD_BYTES: usize = 11;
const BACKLOG: usize = 128;

/// A request as it is sent.
pub(super) fn request(number: u64) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0] = b'Q';
    bytes[1..9].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn answer(number: u64, length: u16) -> Vec<u8> {
    let mut bytes = vec![b'A'];
    bytes.extend(number.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.resize(HEAD_BYTES + usize::from(length), number as u8);
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Up,
    /// Nobody listens, and whoever was there is reset, or told of an end.
    Refusing,
    /// No SYN is answered, and nobody on a connection hears anything.
    Mute,
    /// Connections come about, and nobody accepts them.
    Late,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stay,
    Fin,
    Reset,
    /// What nobody asked for, that much later.
    Stray(u64),
    /// Something was behind it already.
    Extra,
    /// It is never given.
    Never,
}

#[derive(Debug)]
struct Reply {
    bytes: Vec<u8>,
    sent: usize,
    next_us: u64,
    piece: usize,
    pause_us: u64,
    then: Then,
}

#[derive(Debug)]
struct Talk {
    stream: FileId,
    from: SocketAddr,
    unread: Vec<u8>,
    reply: Option<Reply>,
    idle_since_us: u64,
    stray_us: Option<u64>,
    /// A stray byte is on its way.
    has_strayed: bool,
    ends_us: Option<u64>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Server {
    at: SocketAddr,
    listener: Option<FileId>,
    ledger: Ledger,
    dice: Dice,
    temper: Temper,
    mood: Mood,
    until_us: u64,
    talks: Vec<Talk>,
}

impl Server {
    pub(super) fn new(
        kernel: &mut Kernel,
        me: u32,
        (at, temper): (SocketAddr, Temper),
        ledger: &Ledger,
        mut dice: Dice,
    ) -> Self {
        let until_us =
            if temper.is_steady { u64::MAX } else { dice.log_between(1, temper.flaps_us) };
        let listener = Some(kernel.listen(at, BACKLOG, Owner::Actor(me)));
        let ledger = ledger.clone();
        Self { at, listener, ledger, dice, temper, mood: Mood::Up, until_us, talks: Vec::new() }
    }

    fn change(&mut self, kernel: &mut Kernel, me: u32, mood: Mood) {
        self.mood = mood;
        match mood {
            Mood::Refusing => {
                if let Some(listener) = self.listener.take() {
                    kernel.stop_listening(listener);
                }
                for talk in self.talks.drain(..) {
                    kernel.leave(talk.stream, self.dice.coin());
                }
            }
            Mood::Up | Mood::Mute | Mood::Late => {
                let at = self.at;
                let listener = *self
                    .listener
                    .get_or_insert_with(|| kernel.listen(at, BACKLOG, Owner::Actor(me)));
                kernel.set_mute(listener, mood == Mood::Mute);
            }
        }
    }

    fn go_with_time(&mut self, kernel: &mut Kernel, me: u32) {
        if self.ledger.open().is_healed {
            self.until_us = u64::MAX;
            self.temper = Temper { trouble: 0, idle_us: None, ..self.temper };
            if self.mood != Mood::Up {
                self.change(kernel, me, Mood::Up);
            }
        } else if kernel.now_us >= self.until_us {
            self.until_us = kernel.now_us + self.dice.log_between(1_000, self.temper.flaps_us);
            let mood = match self.mood {
                Mood::Up => self.dice.pick(&[Mood::Refusing, Mood::Mute, Mood::Late]),
                _ => Mood::Up,
            };
            self.change(kernel, me, mood);
        }
    }

    /// How this request is answered.
    fn reply(&mut self, number: u64, now_us: u64) -> Reply {
        let dice = &mut self.dice;
        let length = if dice.permille(300) { dice.log_between(1, 2_000) } else { 8 };
        let mut bytes = answer(number, length as u16);
        let mut reply = Reply {
            sent: 0,
            next_us: 0,
            piece: bytes.len(),
            pause_us: 0,
            then: Then::Stay,
            bytes: Vec::new(),
        };
        if dice.permille(self.temper.trouble) {
            match dice.below(8) {
                0 => reply.next_us = now_us + dice.log_between(1_000, 4_000_000),
                1 => {
                    reply.piece = dice.between(1, 8) as usize;
                    reply.pause_us = dice.log_between(100, 300_000);
                }
                2 | 3 => {
                    bytes.truncate(dice.below(bytes.len() as u32) as usize);
                    reply.then = dice.pick(&[Then::Fin, Then::Reset, Then::Never]);
                }
                4 => reply.then = Then::Never,
                5 => reply.then = Then::Stray(dice.log_between(1, 200_000)),
                6 => {
                    bytes.extend([b'X'; 5]);
                    (reply.piece, reply.then) = (bytes.len(), Then::Extra);
                }
                _ => reply.then = dice.pick(&[Then::Fin, Then::Reset]),
            }
            // Either some of it, or nothing.
            if reply.then == Then::Never && bytes.len() == HEAD_BYTES + length as usize {
                bytes.clear();
            }
        }
        reply.bytes = bytes;
        reply
    }

    /// Plays one connection; whether it goes on, and in how long it wants to look again.
    fn play(&mut self, kernel: &mut Kernel, talk: &mut Talk) -> Option<Option<u64>> {
        let is_over = self.hear(kernel, talk);
        self.take_requests(kernel.now_us, talk);
        if is_over && talk.ends_us.is_none() {
            // Most close at once; some leave the other side waiting.
            let late_us =
                if self.dice.permille(200) { self.dice.log_between(1, 2_000_000) } else { 0 };
            talk.ends_us = Some(kernel.now_us + late_us);
        }
        if self.is_healed()
            && let Some(ends_us) = &mut talk.ends_us
        {
            *ends_us = kernel.now_us;
        }
        if talk.ends_us.is_some_and(|ends_us| ends_us <= kernel.now_us) {
            kernel.leave(talk.stream, false);
            return None;
        }
        if !self.speak(kernel, talk) {
            return None;
        }
        let now_us = kernel.now_us;
        let idle_us = self.temper.idle_us.filter(|_| talk.reply.is_none());
        let closes_us = idle_us.map(|idle_us| talk.idle_since_us + idle_us);
        if closes_us.is_some_and(|closes_us| closes_us <= now_us) {
            kernel.leave(talk.stream, self.dice.permille(300));
            return None;
        }
        let next = [
            closes_us,
            talk.ends_us,
            talk.stray_us,
            talk.has_strayed.then_some(now_us + 2_000),
            talk.reply.as_ref().map(|reply| reply.next_us).filter(|next_us| *next_us > now_us),
        ];
        Some(next.into_iter().flatten().min().map(|at_us| at_us.saturating_sub(now_us).max(1)))
    }

    fn is_healed(&self) -> bool {
        self.ledger.open().is_healed
    }

    /// Reads what there is; whether the other side has ended.
    fn hear(&mut self, kernel: &mut Kernel, talk: &mut Talk) -> bool {
        loop {
            match kernel.read(talk.stream, kernel.knobs.peer_reads as usize) {
                Reading::Bytes(bytes) => talk.unread.extend(bytes),
                Reading::Wait => return false,
                Reading::End | Reading::Failed(_) => return true,
            }
        }
    }

    fn take_requests(&mut self, now_us: u64, talk: &mut Talk) {
        while talk.unread.len() >= REQUEST_BYTES {
            let bytes: Vec<u8> = talk.unread.drain(..REQUEST_BYTES).collect();
            let number = u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"));
            if bytes[0] != b'Q' {
                let complaint = format!("the server at {} cannot read what came", self.at);
                return self.ledger.open().complain(complaint);
            }
            self.ledger.open().deliver(number);
            if talk.reply.as_ref().is_some_and(|reply| reply.then != Then::Extra) {
                let from = talk.from;
                self.ledger.open().complain(format!(
                    "request {number} came from {from} while another one was not answered"
                ));
            }
            talk.reply = Some(self.reply(number, now_us));
        }
    }

    /// Sends what is due; false once it is over.
    fn speak(&mut self, kernel: &mut Kernel, talk: &mut Talk) -> bool {
        let (now_us, is_healed) = (kernel.now_us, self.is_healed());
        if talk.has_strayed && kernel.stream(talk.stream).is_none_or(|stream| stream.unsent() == 0)
        {
            self.ledger.open().note_unfit(talk.from, now_us);
            talk.has_strayed = false;
        }
        // In the middle of an answer it would be one that is wrong.
        if talk.reply.is_some() {
            talk.stray_us = None;
        }
        if talk.stray_us.is_some_and(|stray_us| stray_us <= now_us) {
            talk.stray_us = None;
            talk.has_strayed = kernel.write(talk.stream, b"XXXXX").is_ok();
        }
        let Some(reply) = &mut talk.reply else { return true };
        if is_healed {
            (reply.next_us, reply.piece, reply.pause_us) = (0, reply.bytes.len().max(1), 0);
        }
        while reply.sent < reply.bytes.len() && reply.next_us <= now_us {
            let end = (reply.sent + reply.piece).min(reply.bytes.len());
            match kernel.write(talk.stream, &reply.bytes[reply.sent..end]) {
                Ok(taken) => reply.sent += taken,
                Err(libc::EAGAIN) => return true,
                Err(_) => {
                    kernel.leave(talk.stream, false);
                    return false;
                }
            }
            if reply.pause_us > 0 {
                reply.next_us = now_us + reply.pause_us;
            }
        }
        if reply.sent < reply.bytes.len() {
            return true;
        }
        let then = reply.then;
        match then {
            // Whoever waits for it is still there, and gets nothing.
            Then::Never if !is_healed => return true,
            Then::Never => {
                kernel.leave(talk.stream, false);
                return false;
            }
            Then::Fin | Then::Reset => {
                kernel.leave(talk.stream, then == Then::Reset);
                return false;
            }
            Then::Stray(in_us) => talk.stray_us = Some(now_us + in_us),
            Then::Extra => talk.has_strayed = true,
            Then::Stay => {}
        }
        talk.reply = None;
        talk.idle_since_us = now_us;
        true
    }
}

impl Actor for Server {
    fn look(&mut self, kernel: &mut Kernel, me: u32) {
        self.go_with_time(kernel, me);
        let mut soonest_us = (self.until_us < u64::MAX).then(|| self.until_us - kernel.now_us);
        if let Some(listener) = self.listener.filter(|_| matches!(self.mood, Mood::Up)) {
            while let Some(stream) = kernel.accept(listener, Owner::Actor(me)) {
                let from = kernel.stream(stream).map_or(self.at, |stream| stream.remote);
                self.talks.push(Talk {
                    stream,
                    from,
                    unread: Vec::new(),
                    reply: None,
                    idle_since_us: kernel.now_us,
                    stray_us: None,
                    has_strayed: false,
                    ends_us: None,
                });
            }
        }
        if self.mood != Mood::Mute {
            let talks = std::mem::take(&mut self.talks);
            for mut talk in talks {
                let Some(in_us) = self.play(kernel, &mut talk) else { continue };
                soonest_us = [soonest_us, in_us].into_iter().flatten().min();
                self.talks.push(talk);
            }
        }
        if let Some(in_us) = soonest_us {
            kernel.look_in(me, in_us.max(1));
        }
    }
}
