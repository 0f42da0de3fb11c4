//! Two machines and the bytes between them.

use slipring::tls::{Machine, Plain, TlsClient, TlsError, TlsServer};

/// One machine, and what it has told its application.
pub(crate) struct End {
    pub(crate) machine: Machine,
    pub(crate) received: Vec<u8>,
    pub(crate) error: Option<TlsError>,
    /// Records that were opened where they lay, and those that were put together.
    pub(crate) here: usize,
    pub(crate) whole: usize,
}

impl End {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, received: Vec::new(), error: None, here: 0, whole: 0 }
    }

    /// Hands in one piece. What the machine says after an error has to stay the same.
    pub(crate) fn handle(&mut self, bytes: &mut [u8]) {
        let mut plain = Vec::new();
        let outcome = self.machine.handle_received(bytes, &mut plain);
        for plain in plain {
            match plain {
                Plain::Here(range) => {
                    self.here += 1;
                    self.received.extend_from_slice(&bytes[range]);
                }
                Plain::Whole(bytes) => {
                    self.whole += 1;
                    self.received.extend_from_slice(&bytes);
                }
            }
        }
        match (outcome, &self.error) {
            (Ok(()), None) => {}
            (Err(error), None) => self.error = Some(error),
            (Err(error), Some(first)) => assert_eq!(error.to_string(), first.to_string()),
            (Ok(()), Some(first)) => panic!("forgot that it failed: {first}"),
        }
    }

    /// All that it has to send.
    pub(crate) fn outgoing(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.machine.poll_outgoing()).flatten().collect()
    }
}

/// How the bytes are cut on their way: the length of the next piece, of at most so many.
pub(crate) type Cut<'a> = &'a mut dyn FnMut(usize) -> usize;

pub(crate) struct Link {
    pub(crate) client: End,
    pub(crate) server: End,
}

impl Link {
    pub(crate) fn new(client: &TlsClient, server: &TlsServer) -> Self {
        Self::to("localhost", client, server)
    }

    pub(crate) fn to(name: &str, client: &TlsClient, server: &TlsServer) -> Self {
        Self {
            client: End::new(Machine::client(client, name).expect("a name")),
            server: End::new(Machine::server(server).expect("a server")),
        }
    }

    /// Carries bytes across until neither has any.
    pub(crate) fn carry(&mut self, cut: Cut<'_>) {
        loop {
            let (up, down) = (self.client.outgoing(), self.server.outgoing());
            if up.is_empty() && down.is_empty() {
                return;
            }
            deliver(up, &mut self.server, cut);
            deliver(down, &mut self.client, cut);
        }
    }

    /// The same in one piece each.
    pub(crate) fn carry_whole(&mut self) {
        self.carry(&mut |left| left);
    }

    /// After the handshake, which has to succeed.
    pub(crate) fn established(client: &TlsClient, server: &TlsServer) -> Self {
        let mut link = Self::new(client, server);
        link.carry_whole();
        link.expect_agreed();
        link
    }

    pub(crate) fn expect_agreed(&self) {
        for (end, who) in [(&self.client, "client"), (&self.server, "server")] {
            assert!(end.error.is_none(), "{who}: {:?}", end.error);
            assert!(end.machine.agreed().is_some(), "{who} has not agreed");
        }
    }

    /// The errors of both, of which there is at least one.
    pub(crate) fn refused(mut self) -> (Option<TlsError>, Option<TlsError>) {
        self.carry_whole();
        assert!(self.client.error.is_some() || self.server.error.is_some(), "nobody objected");
        (self.client.error, self.server.error)
    }
}

pub(crate) fn deliver(mut bytes: Vec<u8>, to: &mut End, cut: Cut<'_>) {
    let mut rest = bytes.as_mut_slice();
    while !rest.is_empty() {
        let length = cut(rest.len()).clamp(1, rest.len());
        let (piece, after) = rest.split_at_mut(length);
        to.handle(piece);
        rest = after;
    }
}

/// Bytes that tell their place.
pub(crate) fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|place| (place / 251) as u8 ^ (place % 251) as u8 ^ seed).collect()
}
