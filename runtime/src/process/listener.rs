//! Whose listener is on a port, and on which addresses.
//!
//! Two questions after a server has answered: is it really our child (somebody else may have taken the port between
//! our proof that it was free and the child's bind), and can other machines reach it. Linux answers both; elsewhere they
//! stay open and nothing is said.

use std::net::IpAddr;

#[cfg(target_os = "linux")]
mod diag;

/// What is known of the listeners on a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listening {
    /// Addresses listened on.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether one of the sockets is held by a process of the group; `None` when the system does not say.
    pub(crate) ours: Option<bool>,
}

impl Listening {
    /// An address through which other machines can reach it.
    pub(crate) fn exposed(&self) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| match address {
                IpAddr::V4(v4) => !v4.is_loopback(),
                IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                    Some(v4) => !v4.is_loopback(),
                    None => !v6.is_loopback(),
                },
            })
    }
}

/// Looks. Blocks for some hundred microseconds; for milliseconds where the kernel has no `sock_diag`.
#[cfg(target_os = "linux")]
pub(crate) fn look(port: u16, leader: i32) -> Listening {
    let sockets = diag::listening(port).unwrap_or_else(|error| {
        tracing::debug!(%error, "sock_diag does not answer; reading /proc/net instead");
        from_proc(port)
    });
    let inodes: Vec<u64> = sockets.iter().map(|s| s.inode).collect();
    Listening {
        addresses: sockets.iter().map(|s| s.address).collect(),
        ours: (!inodes.is_empty()).then(|| group_holds(leader, &inodes)),
    }
}

#[cfg(target_os = "linux")]
fn from_proc(port: u16) -> Vec<Socket> {
    let files = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok());
    let mut sockets: Vec<Socket> = Vec::new();
    for text in texts {
        sockets.extend(text.lines().filter_map(parse).filter(|s| s.port == port));
    }
    sockets
}

/// Looks; other systems do not say.
#[cfg(not(target_os = "linux"))]
pub(crate) fn look(_port: u16, _leader: i32) -> Listening {
    Listening::default()
}

/// The leader first: it is the one in most cases, and then nobody else needs to be looked at.
#[cfg(target_os = "linux")]
fn group_holds(leader: i32, inodes: &[u64]) -> bool {
    if holds(leader, inodes) {
        return true;
    }
    let all = super::table::all().unwrap_or_default();
    all.iter()
        .filter(|p| p.group == leader && p.pid != leader)
        .any(|p| holds(p.pid, inodes))
}

#[cfg(target_os = "linux")]
fn holds(pid: i32, inodes: &[u64]) -> bool {
    let Ok(folder) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    folder
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter_map(|target| {
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse().ok()
        })
        .any(|inode: u64| inodes.contains(&inode))
}

#[cfg(any(target_os = "linux", test))]
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// A listening socket of `/proc/net/tcp` or `tcp6`: addresses are hexadecimal, 32-bit words in host order.
#[cfg(any(target_os = "linux", test))]
fn parse(line: &str) -> Option<Socket> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let words = (0..address.len() / 8)
        .map(|n| u32::from_str_radix(address.get(n * 8..n * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
    };
    Some(Socket {
        address,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(addresses: &[&str]) -> Listening {
        Listening {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ours: None,
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_listening_socket_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0";
        let socket = parse(line).unwrap();
        assert_eq!(socket.address, IpAddr::from([127, 0, 0, 1]));
        assert_eq!((socket.port, socket.inode), (8080, 4242));

        let line = "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4243 1";
        assert_eq!(parse(line).unwrap().address.to_string(), "::1");
    }

    #[test]
    fn connections_are_not_listeners() {
        let line = "   0: 0100007F:1F90 0100007F:0050 01 0:0 00:0 0 1000 0 4242 1";
        assert_eq!(parse(line), None);
    }

    #[test]
    fn any_address_but_loopback_is_exposed() {
        assert_eq!(
            on(&["127.0.0.1", "::1", "127.0.0.53", "::ffff:127.0.0.1"]).exposed(),
            None
        );
        for address in ["0.0.0.0", "::", "192.168.1.2", "::ffff:0.0.0.0"] {
            assert!(on(&["127.0.0.1", address]).exposed().is_some(), "{address}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn both_ways_of_asking_find_the_same_listener_and_its_owner() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let from_proc = from_proc(port);
        assert_eq!(from_proc.len(), 1);
        if let Ok(asked) = diag::listening(port) {
            assert_eq!(asked, from_proc);
        }
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(holds(me, &[from_proc[0].inode]));
        assert_eq!(look(port, me).ours, Some(true));
        drop(listener);
        assert_eq!(look(port, me), Listening::default());
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in "[ 0-9A-Fa-f:é]{0,120}") {
            let _ = parse(&line);
        }
    }
}
