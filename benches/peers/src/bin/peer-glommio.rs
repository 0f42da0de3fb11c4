//! Echo on glommio: one executor, one task and one buffer a connection.

use std::os::fd::{FromRawFd as _, IntoRawFd as _};

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; slipring_peers::BUFFER_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn main() -> std::io::Result<()> {
    let listener = slipring_peers::start()?;
    let cpu = slipring_peers::Options::parse_and_pin()?.cpu;
    let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).ring_depth(4096).make();
    let executor = executor.map_err(|error| std::io::Error::other(error.to_string()))?;
    let served: glommio::Result<(), ()> = executor.run(async move {
        // SAFETY: the descriptor is a listening socket that its owner just gave up.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            let stream = listener.accept().await?;
            glommio::spawn_local(echo(stream)).detach();
        }
    });
    served.map_err(|error| std::io::Error::other(error.to_string()))
}
