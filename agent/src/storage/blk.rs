//! `blk`: a virtio disk, by PCI path or by name.

use super::request::Request;
use super::{Site, StorageError};
use crate::hotplug::{BlockDevice, BlockName, PciPath};

pub(super) async fn find(site: &Site<'_>, request: &Request) -> Result<BlockDevice, StorageError> {
    if request.source().starts_with('/') {
        return Ok(site.hotplug.block_by_name(&BlockName::of_node(request.source())?).await?);
    }
    Ok(site.hotplug.block_by_pci(&PciPath::parse(request.source())?).await?)
}
