//! Echo on monoio: its io_uring driver, one task a connection, its buffer handed to and fro.

use monoio::buf::IoBuf as _;
use monoio::io::{AsyncReadRent as _, AsyncWriteRentExt as _};
use monoio::net::{TcpListener, TcpStream};

async fn echo(mut stream: TcpStream) {
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
    let mut runtime =
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(echo(stream));
        }
    })
}
