//! Where agents call. The address is kept from the process's start to its end, because pods know it for as long as they
//! live; whoever calls a replica that does not lead is hung up on at once, and tries the next.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// A bound address.
#[derive(Debug)]
pub(super) struct Home {
    listener: std::net::TcpListener,
}

impl Home {
    /// Takes a bound listener.
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        let listener = listener.into_std()?;
        Ok(Self { listener })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// For a leader; to be dropped when its term is over.
    pub(super) fn listener(&self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.listener.try_clone()?)
    }

    /// Hangs up on everybody, for as long as it is polled.
    pub(super) async fn refuse(&self) {
        let Ok(listener) = self.listener() else {
            return std::future::pending().await;
        };
        loop {
            match listener.accept().await {
                Ok((caller, _)) => drop(caller),
                // As when file descriptors have run out.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::Home;

    #[tokio::test]
    async fn a_caller_is_hung_up_on_until_somebody_leads_here() {
        let bound = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = Home::new(bound).unwrap();
        let address = home.address().unwrap();
        let hung_up = async {
            let mut caller = TcpStream::connect(address).await.unwrap();
            // A reset is as good as an end.
            caller.read(&mut [0]).await.unwrap_or(0)
        };
        tokio::select! {
            () = home.refuse() => unreachable!("it refuses until it is dropped"),
            read = hung_up => assert_eq!(read, 0),
        }
        let leader = home.listener().unwrap();
        let (caller, answered) = tokio::join!(TcpStream::connect(address), leader.accept());
        assert_eq!(caller.unwrap().local_addr().unwrap(), answered.unwrap().1);
    }
}
