use super::*;
use crate::namespaces::tests::in_namespaces;

const RTM_GETLINK: u16 = 18;

#[test]
fn attributes_are_written_as_they_are_read() {
    let inner = Body::default().with(2, &1500_u32.to_ne_bytes());
    let body = Body::new(&[&[1, 2, 3, 4]]).with(3, b"lo\0").with(7, &[]).with_nested(8, &inner);
    assert_eq!(body.0.len() % 4, 0);
    let found: Vec<_> = body.attributes(4).map(|(kind, value)| (kind, value.to_vec())).collect();
    assert_eq!(found, [(3, b"lo\0".to_vec()), (7, vec![]), (8, inner.0)]);
    assert_eq!(body.attribute(4, 3), Some(&b"lo\0"[..]));
}

#[test]
fn what_is_no_attribute_ends_them() {
    for bytes in [&[][..], &[4, 0, 1], &[3, 0, 1, 0], &[9, 0, 1, 0, 0, 0, 0, 0], &[0, 0, 0, 0]] {
        assert_eq!(Attributes(bytes).count(), 0, "{bytes:?}");
    }
    assert_eq!(Attributes(&[5, 0, 1, 0, 7]).collect::<Vec<_>>(), [(1, &[7][..])]);
}

#[test]
fn what_is_no_message_is_an_error() {
    let header = |length: u32| [&length.to_ne_bytes()[..], &[0; 12]].concat();
    for bytes in [header(17), header(15), header(u32::MAX), vec![16, 0, 0, 0]] {
        let mut parts = Parts(&bytes);
        assert!(matches!(parts.next(), Some(Err(Errno::BADMSG))), "{bytes:?}");
        assert!(parts.next().is_none());
    }
    assert!(matches!(Parts(&header(16)).next(), Some(Ok((0, _)))));
}

#[test]
fn the_kernel_answers() {
    in_namespaces(&["--net"], || {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.list(RTM_GETLINK, 0, 16).unwrap();
        assert!(!links.is_empty() && links.iter().all(|link| link.kind == 16));
        let unknown =
            Message { kind: 19, flags: 0, body: Body::new(&[&[0; 4], &4242_u32.to_ne_bytes(), &[0; 8]]) };
        assert_eq!(netlink.change(&unknown), Err(Errno::NODEV));
        // The answers to one question are not those to the next.
        assert_eq!(netlink.list(RTM_GETLINK, 0, 16).unwrap(), links);
    });
}

/// A container with `CAP_NET_ADMIN` can send to the socket: its answers are none.
#[test]
fn evil_container_answers_for_the_kernel() {
    in_namespaces(&["--net"], || {
        let mut netlink = Netlink::open().unwrap();
        // The kernel gives the socket its address at the first question.
        netlink.list(RTM_GETLINK, 0, 16).unwrap();
        let own = SocketAddrNetlink::try_from(rustix::net::getsockname(&netlink.socket).unwrap()).unwrap();
        let other = Netlink::open().unwrap();
        // Success, and the end of a list, for the next question.
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let mut forged = 20_u32.to_ne_bytes().to_vec();
            forged.extend([kind.to_ne_bytes(), [0, 0]].concat());
            forged.extend([2_u32.to_ne_bytes(), [0; 4], [0; 4]].concat());
            sendto(&other.socket, &forged, SendFlags::empty(), &SocketAddrNetlink::new(own.pid(), 0))
                .unwrap();
        }
        let unknown =
            Message { kind: 19, flags: 0, body: Body::new(&[&[0; 4], &4242_u32.to_ne_bytes(), &[0; 8]]) };
        assert_eq!(netlink.change(&unknown), Err(Errno::NODEV));
    });
}
