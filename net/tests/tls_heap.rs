//! What sealed records leave behind: memory that the next ones find again, without a page fault.
//!
//! In a process of its own, since an allocator learns from whatever else a process does.

#![cfg(target_env = "gnu")]

use std::fs;
use std::thread;

use slipring::tls::{Identity, Machine, TlsClient, TlsServer};

/// Records of a turn: those of 64 connections that send 16 KiB each.
const RECORDS: usize = 64;
const PLAIN: [u8; 16 << 10] = [7; 16 << 10];
const PAGE: usize = 4 << 10;

/// Page faults of this thread so far that needed no disk.
fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").expect("this is Linux");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    fields.split(' ').nth(7).and_then(|field| field.parse().ok()).expect("a count")
}

/// A server's side, past its handshake.
fn established() -> Machine {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("a pair");
    let server = TlsServer::builder().identity(identity).build().expect("a server");
    let client = TlsClient::builder().roots_pem(certificate.as_bytes()).build().expect("a client");
    let mut client = Machine::client(&client, "localhost").expect("a name");
    let mut server = Machine::server(&server).expect("a server");
    let mut plain = Vec::new();
    while client.agreed().is_none() || server.agreed().is_none() {
        for _ in 0..2 {
            while let Some(mut bytes) = client.poll_outgoing() {
                server.handle_received(&mut bytes, &mut plain).expect("honest");
            }
            std::mem::swap(&mut client, &mut server);
        }
    }
    while server.poll_outgoing().is_some() {}
    server
}

/// On a thread, as reactors are: their heaps are not the one that the process began with.
#[test]
fn records_are_sealed_into_memory_that_was_used_before() {
    let turns = 20;
    #[expect(clippy::disallowed_methods, reason = "a thread of the test's own")]
    let faults = thread::spawn(move || {
        let mut server = established();
        let mut turn = || {
            let seal = |_| {
                server.seal(&PLAIN).expect("established");
                server.poll_outgoing().expect("a record")
            };
            drop((0..RECORDS).map(seal).collect::<Vec<_>>());
        };
        turn();
        let before = faults();
        (0..turns).for_each(|_| turn());
        faults() - before
    });
    let faults = faults.join().expect("it seals");
    let pages = (RECORDS * PLAIN.len() / PAGE) as u64;
    assert!(faults < pages, "{faults} faults in {turns} turns of {pages} pages");
}
