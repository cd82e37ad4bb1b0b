//! `nvdimm`: persistent memory.

use super::{Site, StorageError};
use crate::hotplug::{BlockDevice, BlockName};

pub(super) async fn find(site: &Site<'_>, source: &str) -> Result<BlockDevice, StorageError> {
    let name = BlockName::of_node_with(source, "pmem", "/dev/pmem and a number")?;
    Ok(site.hotplug.block_by_name(&name).await?)
}
