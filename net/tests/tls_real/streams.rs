//! Bytes both ways, between both kinds of peer, and sessions that are resumed.

use super::*;

#[test]
fn what_is_received_is_sent_back() {
    bounded(|| {
        let serving = serve_echo(one_reactor(), server());
        let address = serving.addresses()[0];
        for (seed, (bytes, piece)) in
            [(1, 1), (1000, 7), (100_000, 1000), (4 << 20, 100_000), (1 << 20, 16_384)]
                .into_iter()
                .enumerate()
        {
            exchange(&mut stranger(address), &pattern(seed as u8, bytes), piece);
        }
        let clients: Vec<_> = (0..8)
            .map(|seed| {
                spawn(move || exchange(&mut stranger(address), &pattern(seed, 1 << 20), 50_000))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("its bytes came back"));
        end(serving);
    });
}

#[test]
fn what_is_received_lies_in_the_buffers_of_the_ring() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            let first = conn.recv().await.expect("no error").expect("bytes");
            let place = first.as_ptr().addr();
            // Bytes of plain memory beside it, for comparison.
            let own = first.adopt_beside(first.to_vec()).expect("room");
            let kept = conn.recv().await.expect("no error").expect("bytes");
            let distance = |to: usize| to.abs_diff(place);
            let (near, far) = (distance(kept.as_ptr().addr()), distance(own.as_ptr().addr()));
            tell.send((near, far)).expect("the test waits");
        });
        let mut client = stranger(serving.addresses()[0]);
        client.write_all(&[7; 1000]).expect("sent");
        client.write_all(&[8; 1000]).expect("sent");
        let (near, far) = told.recv_timeout(PATIENCE).expect("told");
        let ring = 1 << 26; // more than one_reactor's buffers take, and less than to the heap
        assert!(near < ring, "{near} bytes apart, {far} to the heap");
        assert!(far > near);
        end(serving);
    });
}

#[test]
fn our_client_speaks_to_a_server_of_another_kind() {
    bounded(|| {
        let (listener, address) = support::listener();
        let stranger = spawn(move || {
            let pair = pki::localhost();
            let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
            let ring = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(ring)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(chain.collect::<Result<_, _>>().expect("one"), key)
                .expect("a pair");
            let connection = ServerConnection::new(Arc::new(config)).expect("a server");
            let mut stream = StreamOwned::new(connection, support::accept(&listener));
            let mut bytes = vec![0; 200_000];
            stream.read_exact(&mut bytes).expect("all of it");
            stream.write_all(&bytes).expect("sent");
            assert_eq!(stream.read(&mut bytes).expect("announced"), 0);
            stream.conn.send_close_notify();
            stream.flush().expect("sent");
        });
        let client = pki::client().build().expect("a client");
        let serving = one_reactor().max_dialed(4).serve(async |_conn| {});
        let serving = serving.expect("it starts");
        let (tell, told) = mpsc::channel();
        let _running = serving.spawner().spawn(move || async move {
            let conn = slipring::dial(address).await.expect("somebody listens");
            let mut conn = client.connect(conn, "localhost").await.expect("both keep to it");
            let sent = pattern(9, 200_000);
            conn.send_all(&sent).await.expect("established");
            conn.shutdown().await.expect("established");
            let mut back = Vec::new();
            while let Some(data) = conn.recv().await.expect("announced") {
                back.extend_from_slice(&data);
            }
            tell.send(back == sent).expect("the test waits");
        });
        assert!(told.recv_timeout(PATIENCE).expect("told"), "other bytes came back");
        stranger.join().expect("it was content");
        end(serving);
    });
}

#[test]
fn sessions_are_resumed_on_every_reactor() {
    bounded(|| {
        let builder = support::two_reactors();
        let (serving, told) = reporting(builder, server(), async |conn, server, tell| {
            let mut conn = server.accept(conn).await.expect("a client");
            tell.send(conn.agreed().resumed).expect("the test waits");
            let data = conn.recv().await.expect("no error").expect("bytes");
            conn.send(data).await.expect("established");
            conn.shutdown().await.expect("established");
        });
        let shared = client_config();
        for round in 0..8 {
            let mut client =
                StreamOwned::new(connection_of(&shared), connect(serving.addresses()[0]));
            client.write_all(b"x").expect("sent");
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("announced");
            let resumed = told.recv_timeout(PATIENCE).expect("told");
            assert_eq!(resumed, round > 0, "client {round}");
        }
        end(serving);
    });
}
