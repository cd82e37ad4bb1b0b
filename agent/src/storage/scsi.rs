//! `scsi`: a disk of virtio-scsi, by id and logical unit.

use super::{Site, StorageError};
use crate::hotplug::{BlockDevice, ScsiAddress};

pub(super) async fn find(site: &Site<'_>, source: &str) -> Result<BlockDevice, StorageError> {
    Ok(site.hotplug.block_by_scsi(&ScsiAddress::parse(source)?).await?)
}
