//! `scsi`: a disk of virtio-scsi, by id and logical unit.

use super::request::Request;
use super::{Site, StorageError};
use crate::hotplug::{BlockDevice, ScsiAddress};

pub(super) async fn find(site: &Site<'_>, request: &Request) -> Result<BlockDevice, StorageError> {
    Ok(site.hotplug.block_by_scsi(&ScsiAddress::parse(request.source())?).await?)
}
