//! The loopback interface up, by one message to the kernel (rtnetlink(7)).

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use crate::error::AgentError;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const HEADER: usize = 16;

/// Brings `lo` up.
pub(crate) fn up() -> Result<(), AgentError> {
    exchange().map_err(AgentError::system("bring the loopback interface up"))
}

fn exchange() -> Result<(), Errno> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 1024];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    status(answer.get(..length).unwrap_or_default())
}

/// `nlmsghdr`, `ifinfomsg`, and the name as an attribute.
fn request() -> Vec<u8> {
    let mut body = Vec::new();
    // Family, padding, device type, and no index: the name says which.
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&IFF_UP.to_ne_bytes());
    body.extend_from_slice(&IFF_UP.to_ne_bytes());
    body.extend_from_slice(&7_u16.to_ne_bytes());
    body.extend_from_slice(&IFLA_IFNAME.to_ne_bytes());
    body.extend_from_slice(b"lo\0\0");
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut message = Vec::new();
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend_from_slice(&1_u32.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// `nlmsgerr`: a negative number of an error, or 0.
fn status(answer: &[u8]) -> Result<(), Errno> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw_os_error(code.saturating_neg())),
        _ => Err(Errno::BADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_lengths_that_it_says() {
        let request = request();
        assert_eq!(request.len(), 40);
        assert_eq!(request.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)), Some(40));
    }

    #[test]
    fn answers_are_read() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![0; HEADER];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert_eq!(status(&answer(2, 0)), Ok(()));
        assert_eq!(status(&answer(2, -19)), Err(Errno::NODEV));
        assert_eq!(status(&answer(3, 0)), Err(Errno::BADMSG));
        assert_eq!(status(&[2, 0]), Err(Errno::BADMSG));
    }
}
