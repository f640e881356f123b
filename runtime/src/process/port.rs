//! Free ports for HTTP servers, as free of races as a port can be that somebody else will bind.
//!
//! A port is chosen outside the range from which the system serves outgoing connections and `bind(0)`, proven free by
//! binding it on every loopback address, kept bound until the child is about to be spawned, and kept in a set until
//! the instance is gone, so that no two instances of this gateway meet. Nor do two gateways: as long as the instance
//! lives its gateway holds the UDP port of that number, which no MCP server wants, and which another gateway must have
//! to choose it. What is left is the time between the spawn and the server's own bind, and programs that are no gateway;
//! [`super::listener`] then checks whose listener it is.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::brood::Brood;

/// Below the ephemeral ranges of Linux (32768) and macOS (49152) and of Kubernetes node ports (30000).
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const TRIES: usize = 200;
/// From one look whether a released port is free to the next, and how many; the server itself tells if it never is.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: usize = 500;

/// The ports in use by instances of this gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports(Arc<Mutex<HashSet<u16>>>);

/// A port nobody else here will get; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    port: u16,
    held: Vec<TcpListener>,
    /// Keeps other gateways away. Nothing is ever sent or read.
    token: Option<UdpSocket>,
    ports: Ports,
}

impl Ports {
    /// Reserves a port.
    pub(crate) fn reserve(&self) -> io::Result<Reservation> {
        for _ in 0..TRIES {
            let port = rand::random_range(PORTS);
            if !self.0.lock().insert(port) {
                continue;
            }
            let mut reservation = Reservation {
                port,
                held: Vec::new(),
                token: None,
                ports: self.clone(),
            };
            if reservation.hold().is_ok() {
                return Ok(reservation);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "no free port was found in {}–{}",
                PORTS.start,
                PORTS.end - 1
            ),
        ))
    }
}

impl Reservation {
    fn hold(&mut self) -> io::Result<()> {
        let port = self.port;
        self.token = Some(UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?);
        self.held
            .push(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?);
        match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
            Ok(listener) => self.held.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // No IPv6 on this machine.
            Err(_) => {}
        }
        Ok(())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets the child bind it. To be called right before the spawn; blocks for a moment.
    ///
    /// Another child that was born while the port was held has a copy of it until it has become its program, and would keep
    /// the server from binding.
    pub(crate) fn release_to_child(&mut self) {
        self.held.clear();
        for _ in 0..LOOKS {
            if Brood::between_spawns(|| TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).is_ok())
            {
                return;
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.held.clear();
        self.ports.0.lock().remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::process::Command;

    use super::*;

    /// Children that one test bears have copies of what another has open.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn reservations_differ_and_are_given_back() {
        let _alone = ALONE.lock();
        let ports = Ports::default();
        let all: Vec<_> = (0..100).map(|_| ports.reserve().unwrap()).collect();
        let distinct: HashSet<u16> = all.iter().map(Reservation::port).collect();
        assert_eq!(distinct.len(), all.len());
        drop(all);
        assert!(ports.0.lock().is_empty());
    }

    #[test]
    fn another_gateway_does_not_choose_a_port_whose_server_has_yet_to_bind_it() {
        let _alone = ALONE.lock();
        let mut one = Ports::default().reserve().unwrap();
        one.release_to_child();
        let mut other = Reservation {
            port: one.port(),
            held: Vec::new(),
            token: None,
            ports: Ports::default(),
        };
        assert!(other.hold().is_err());
        drop(one);
        other.hold().unwrap();
    }

    #[test]
    fn a_reserved_port_cannot_be_bound_by_others_until_it_is_released() {
        let _alone = ALONE.lock();
        let mut one = Ports::default().reserve().unwrap();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, one.port())).is_err());
        one.release_to_child();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, one.port())).is_ok());
    }

    /// A child has copies of everything open here until it has become its program.
    #[test]
    fn a_released_port_is_free_at_once_while_other_children_are_born() {
        let _alone = ALONE.lock();
        let (brood, ports) = (Brood::default(), Ports::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let done = AtomicBool::new(false);
        let bear = || {
            let _inside = runtime.enter();
            while !done.load(Ordering::Relaxed) {
                let born = brood.spawn(|| Command::new("true").kill_on_drop(true).spawn());
                drop(born.unwrap());
            }
        };
        let taken = thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(bear);
            }
            let taken = (0..500).filter(|_| {
                let mut one = ports.reserve().unwrap();
                one.release_to_child();
                TcpListener::bind((Ipv4Addr::LOCALHOST, one.port())).is_err()
            });
            let taken = taken.count();
            done.store(true, Ordering::Relaxed);
            taken
        });
        assert_eq!(taken, 0, "of 500");
    }
}
