//! `blk`: a virtio disk, by PCI path or by name.

use super::{Site, StorageError};
use crate::hotplug::{BlockDevice, BlockName, PciPath};

pub(super) async fn find(site: &Site<'_>, source: &str) -> Result<BlockDevice, StorageError> {
    if source.starts_with('/') {
        return Ok(site.hotplug.block_by_name(&BlockName::of_node(source)?).await?);
    }
    Ok(site.hotplug.block_by_pci(&PciPath::parse(source)?).await?)
}
