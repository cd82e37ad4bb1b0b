//! `mmioblk`: a disk of virtio-mmio, which has no address but its name.

use super::{Site, StorageError};
use crate::hotplug::{BlockDevice, BlockName};

pub(super) async fn find(site: &Site<'_>, source: &str) -> Result<BlockDevice, StorageError> {
    let name = BlockName::of_node_with(source, "vd", "/dev/vd and letters")?;
    Ok(site.hotplug.block_by_name(&name).await?)
}
