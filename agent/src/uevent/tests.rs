use initdata::Waiter as _;
use proptest::prelude::*;
use rustix::net::{SendFlags, sendto};

use super::*;

const DISK: &[u8] = b"add@/devices/pci0000:00/0000:00:04.0/virtio1/block/vda\0ACTION=add\0DEVPATH=/devices/pci0000:00/0000:00:04.0/virtio1/block/vda\0SUBSYSTEM=block\0MAJOR=254\0MINOR=0\0DEVNAME=vda\0DEVTYPE=disk\0SEQNUM=1234\0";

#[test]
fn an_event_of_the_kernel_is_read() {
    let event = Uevent::parse(DISK).unwrap();
    assert_eq!(event.action, Action::Add);
    assert_eq!(event.subsystem, "block");
    assert_eq!(event.device_name.as_deref(), Some("vda"));
    assert_eq!(event.device_path, "/devices/pci0000:00/0000:00:04.0/virtio1/block/vda");
}

#[test]
fn evil_host_event_of_another_form() {
    let many: String = (0..=MAXIMUM_VARIABLES).map(|n| format!("K{n}=v\0")).collect();
    let long = "x".repeat(MAXIMUM_BYTES);
    for bytes in [
        &b""[..],
        b"\0",
        b"libudev\0\xfe\xed\xca\xfe\0",
        b"add@/devices/a\0ACTION=add\0DEVPATH=/devices/a\0SUBSYSTEM=block",
        b"add@/devices/a\0ACTION=remove\0DEVPATH=/devices/a\0SUBSYSTEM=block\0",
        b"add@/devices/a\0ACTION=add\0DEVPATH=/devices/b\0SUBSYSTEM=block\0",
        b"add@/devices/a\0ACTION=add\0DEVPATH=/devices/a\0SUBSYSTEM=block\0SUBSYSTEM=net\0",
        b"add@/devices/../../etc\0ACTION=add\0DEVPATH=/devices/../../etc\0SUBSYSTEM=block\0",
        b"add@devices/a\0ACTION=add\0DEVPATH=devices/a\0SUBSYSTEM=block\0",
        b"add@/devices/a\0ACTION=add\0DEVPATH=/devices/a\0",
        b"add@/devices/a\0ACTION=add\0DEVPATH=/devices/a\0SUBSYSTEM=block\0nonsense\0",
        b"add@/devices/\xff\0ACTION=add\0DEVPATH=/devices/\xff\0SUBSYSTEM=block\0",
        format!("add@/a\0ACTION=add\0DEVPATH=/a\0SUBSYSTEM=block\0{many}").as_bytes(),
        format!("add@/a\0ACTION=add\0DEVPATH=/a\0SUBSYSTEM=block\0X={long}\0").as_bytes(),
    ] {
        assert_eq!(Uevent::parse(bytes), None, "{}", String::from_utf8_lossy(bytes));
    }
}

/// A process may send to the group of the kernel, if it is privileged, or to this socket, if it is not: its events are none.
#[test]
fn evil_process_forges_an_event() {
    let mut news = DiskNews::listen().unwrap();
    let address = rustix::net::getsockname(&news.socket).unwrap();
    let address = SocketAddrNetlink::try_from(address).unwrap();
    let flags = SocketFlags::CLOEXEC;
    let forger = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT)).unwrap();
    bind(&forger, &SocketAddrNetlink::new(0, 0)).unwrap();
    let Ok(_) = sendto(&forger, DISK, SendFlags::empty(), &address) else {
        // The kernel does not even let it through: nobody but the kernel reaches the socket.
        return;
    };
    news.socket.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(news.socket.receive().unwrap(), News::Nothing);
    sendto(&forger, DISK, SendFlags::empty(), &address).unwrap();
    news.wait(Duration::from_millis(1)).unwrap();
    assert_eq!(news.heard(), 0);
}

#[test]
fn evil_process_sends_to_the_group() {
    let sender = |pid| Some(SocketAddrAny::from(SocketAddrNetlink::new(pid, KERNEL_GROUP)));
    assert!(matches!(read(DISK, DISK.len(), sender(0)), News::Event(_)));
    assert_eq!(read(DISK, DISK.len(), sender(1)), News::Nothing);
    assert_eq!(read(DISK, DISK.len(), None), News::Nothing);
    assert_eq!(read(DISK, DISK.len() + 1, sender(0)), News::Nothing, "cut");
}

#[test]
fn waiting_ends_without_news() {
    let mut news = DiskNews::listen().unwrap();
    news.wait(Duration::ZERO).unwrap();
    news.wait(Duration::from_millis(5)).unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_none(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Some(event) = Uevent::parse(&bytes) {
            prop_assert!(event.device_path.starts_with('/'));
        }
    }

    #[test]
    fn changed_events_are_an_event_or_none(at in 0..DISK.len(), byte in any::<u8>()) {
        let mut bytes = DISK.to_vec();
        bytes[at] = byte;
        if let Some(event) = Uevent::parse(&bytes) {
            prop_assert!(!event.device_path.contains(".."));
        }
    }
}
