//! Echo on compio: its io_uring driver, one task a connection, its buffer handed to and fro.

use compio::BufResult;
use compio::buf::{IntoInner as _, IoBuf as _};
use compio::io::{AsyncRead as _, AsyncWriteExt as _};
use compio::net::{TcpListener, TcpStream};

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(slipring_peers::BUFFER_BYTES);
    loop {
        let BufResult(result, returned) = stream.read(buffer).await;
        let Ok(read @ 1..) = result else { return };
        let BufResult(result, slice) = stream.write_all(returned.slice(..read)).await;
        if result.is_err() {
            return;
        }
        buffer = slice.into_inner();
        buffer.clear();
    }
}

fn main() -> std::io::Result<()> {
    let listener = slipring_peers::start()?;
    compio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            compio::runtime::spawn(echo(stream)).detach();
        }
    })
}
