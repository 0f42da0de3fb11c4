//! Echo on tokio-uring: one task a connection, its buffer handed to and fro.

use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::{TcpListener, TcpStream};

async fn echo(stream: TcpStream) {
    let mut buffer = vec![0; slipring_peers::BUFFER_BYTES];
    loop {
        let (result, returned) = stream.read(buffer).await;
        let Ok(read @ 1..) = result else { return };
        let (result, slice) = stream.write_all(returned.slice(..read)).await;
        if result.is_err() {
            return;
        }
        buffer = slice.into_inner();
    }
}

fn main() -> std::io::Result<()> {
    let listener = slipring_peers::start()?;
    let mut ring = tokio_uring::uring_builder();
    ring.setup_single_issuer();
    tokio_uring::builder().entries(4096).uring_builder(&ring).start(async {
        let listener = TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio_uring::spawn(echo(stream));
        }
    })
}
