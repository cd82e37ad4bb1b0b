//! Headers and fixed parts of vfio-user messages. What is accepted encodes to the same bytes.

#![no_main]

use chip_client::abi::Reader;
use chip_client::vfio_user::wire::{
    Command, DeviceInfo, DmaMap, DmaUnmap, HEADER_LEN, Header, IrqInfo, MAX_MESSAGE, RegionAccess,
    RegionInfo, SetIrqs, VersionHeader,
};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

macro_rules! same {
    ($type:ty, $bytes:expr) => {
        if let Ok(value) = <$type>::take(&mut Reader::new($bytes)) {
            let encoded = value.encode();
            assert_eq!(encoded, $bytes[..encoded.len()]);
        }
    };
}

fuzz_target!(|data: &[u8]| bounded(data.len(), || {
    if let Some(head) = data.first_chunk::<HEADER_LEN>()
        && let Ok(header) = Header::parse(head)
    {
        assert_eq!(header.encode(), *head);
        assert!(
            header.message_size <= MAX_MESSAGE
                && header.body_len() + HEADER_LEN == header.message_size as usize
        );
        if let Some(command) = Command::from_u16(header.command) {
            assert_eq!(command.as_u16(), header.command);
        }
    }
    same!(VersionHeader, data);
    same!(DmaMap, data);
    same!(DmaUnmap, data);
    same!(DeviceInfo, data);
    same!(RegionInfo, data);
    same!(IrqInfo, data);
    same!(SetIrqs, data);
    same!(RegionAccess, data);
}));
