//! A TCP relay that can be cut as a network is: nothing passes, nothing is closed,
//! and what was underway goes on when it is mended.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A relay to one address; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    cut: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens at `at` and passes everything on to `to`.
    ///
    /// # Errors
    /// `at` cannot be listened on.
    pub async fn start(at: SocketAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(at)
            .await
            .with_context(|| format!("a relay at {at}"))?;
        let address = listener.local_addr()?;
        let cut = Arc::new(watch::Sender::new(false));
        let cutting = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, to, cutting.subscribe()));
            }
        });
        Ok(Self { address, cut, task })
    }

    /// Cuts it, or mends it.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: TcpStream, to: SocketAddr, mut cut: watch::Receiver<bool>) {
    if whole(&mut cut).await.is_none() {
        return;
    }
    // Refused: the near end is closed as well.
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    for stream in [&near, &far] {
        if stream.set_nodelay(true).is_err() {
            return;
        }
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let other = cut.clone();
    // One end's close is the other's: what is left of the connection is of no use.
    tokio::select! {
        () = one_way(near_read, far_write, cut) => {}
        () = one_way(far_read, near_write, other) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        if whole(&mut cut).await.is_none() {
            return;
        }
        match read {
            Ok(0) | Err(_) => return,
            Ok(length) if to.write_all(&buffer[..length]).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Waits until nothing is cut; `None` when the relay has ended.
async fn whole(cut: &mut watch::Receiver<bool>) -> Option<()> {
    cut.wait_for(|cut| !cut).await.ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_cut_is_held_back_and_arrives_when_it_is_mended() {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let relay = Relay::start(any, far.local_addr().unwrap()).await.unwrap();
        let mut near = TcpStream::connect(relay.address).await.unwrap();
        let (mut end, _) = far.accept().await.unwrap();
        near.write_all(b"a").await.unwrap();
        let mut one = [0];
        end.read_exact(&mut one).await.unwrap();
        relay.cut(true);
        near.write_all(b"b").await.unwrap();
        let mut late = TcpStream::connect(relay.address).await.unwrap();
        late.write_all(b"c").await.unwrap();
        let nothing = tokio::time::Duration::from_millis(100);
        let came = tokio::time::timeout(nothing, end.read_exact(&mut one)).await;
        assert!(came.is_err(), "cut");
        relay.cut(false);
        end.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"b");
        let (mut second, _) = far.accept().await.unwrap();
        second.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"c");
    }

    #[tokio::test]
    async fn a_far_end_that_refuses_closes_the_near_one() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = gone.local_addr().unwrap();
        drop(gone);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let relay = Relay::start(any, to).await.unwrap();
        let mut near = TcpStream::connect(relay.address).await.unwrap();
        assert_eq!(near.read(&mut [0]).await.unwrap_or_default(), 0);
    }
}
