//! Listening sockets by `sock_diag(7)`: one question to the kernel instead of reading a table of all connections, which
//! costs milliseconds on the way of a cold start.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket,
    sockopt::{Timeout, set_socket_timeout},
};

use super::Socket;

const TCP: u8 = 6;
const LISTEN: u32 = 1 << 10;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `nlmsghdr`
const HEADER: usize = 16;
/// The kernel answers at once or not at all.
const PATIENCE: Duration = Duration::from_millis(200);

/// The TCP sockets that listen on a port, on whatever address.
pub(super) fn listening(port: u16) -> io::Result<Vec<Socket>> {
    let kernel = socket(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        Some(netlink::SOCK_DIAG),
    )?;
    set_socket_timeout(&kernel, Timeout::Recv, Some(PATIENCE))?;
    let mut found = ask(&kernel, AddressFamily::INET, port)?;
    // A kernel without IPv6 has no listeners there.
    found.extend(ask(&kernel, AddressFamily::INET6, port).unwrap_or_default());
    Ok(found)
}

fn ask(kernel: &OwnedFd, family: AddressFamily, port: u16) -> io::Result<Vec<Socket>> {
    send(kernel, &question(family, port), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let (read, _) = recv(kernel.as_fd(), &mut buffer[..], RecvFlags::empty())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                DONE => return Ok(found),
                ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => found.extend(answer(body).filter(|s| s.port == port)),
            }
            rest = next;
        }
    }
}

/// `nlmsghdr`, then `inet_diag_req_v2` with all but family, protocol, state and source port left open.
fn question(family: AddressFamily, port: u16) -> [u8; 72] {
    let mut bytes = [0; 72];
    let mut put = |at: usize, what: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + what.len()) {
            place.copy_from_slice(what);
        }
    };
    put(0, &72_u32.to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST_DUMP.to_ne_bytes());
    put(
        HEADER,
        &[u8::try_from(family.as_raw()).unwrap_or_default(), TCP],
    );
    put(HEADER + 4, &LISTEN.to_ne_bytes());
    put(HEADER + 8, &port.to_be_bytes());
    bytes
}

/// The first message of a buffer: its kind, its body, what comes after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(take(bytes, 0)?)).ok()?;
    let kind = u16::from_ne_bytes(take(bytes, 4)?);
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// `inet_diag_msg`
fn answer(body: &[u8]) -> Option<Socket> {
    let address = match *body.first()? {
        family if u16::from(family) == AddressFamily::INET.as_raw() => {
            IpAddr::from(Ipv4Addr::from(take::<4>(body, 8)?))
        }
        _ => IpAddr::from(Ipv6Addr::from(take::<16>(body, 8)?)),
    };
    Some(Socket {
        address,
        port: u16::from_be_bytes(take(body, 4)?),
        inode: u32::from_ne_bytes(take(body, 68)?).into(),
    })
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
