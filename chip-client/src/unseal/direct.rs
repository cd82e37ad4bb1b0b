//! `dma-direct`: the chip writes plaintext into the landing file.

use protected_memory::dma::DmaRegion;
use protected_memory::landing::FillingFile;
use sealed_artifact::layout::Layout;

use super::lanes::Lanes;
use super::staging::{Shape, Staging};
use super::{Progress, ReadCiphertext, UnsealJob};
use crate::abi::{DataPath, Opcode, Sgl};
use crate::backing::DmaAccess;
use crate::error::{ChipError, DeviceError};
use crate::iova::DmaMapping;
use crate::session::{Inner, Presented, Session};

impl Session<'_, Presented> {
    /// Unseals a payload by DMA into a landing file, on path `dma-direct`.
    ///
    /// On success the chip has confirmed that it let go of the file. Complete the landing, then compare
    /// [`verify_payload_digest`](super::verify_payload_digest), then attach. After an error drop the landing: it is
    /// wiped.
    ///
    /// # Errors
    ///
    /// The session has another path; lengths that are not the core's; `SEGMENT_AUTH`, `TAGS_MISMATCH`, `RANGE` of the
    /// chip; `CHIP_KEEPS_MEMORY`. Every error ends the session.
    pub fn unseal_direct(
        &mut self,
        job: &UnsealJob<'_>,
        read: &mut ReadCiphertext<'_>,
        file: &mut FillingFile,
        progress: &mut Progress<'_>,
    ) -> Result<(), ChipError> {
        self.inner.require_path("unsealing into private memory", DataPath::DmaDirect)?;
        let layout = job.layout(file.size())?;
        self.inner.unseal_region(job, &layout, read, &file.dma_region(), progress)
    }
}

impl Inner<'_> {
    /// Unseals into memory that is mapped for the chip, and takes it back.
    pub(super) fn unseal_region(
        &mut self,
        job: &UnsealJob<'_>,
        layout: &Layout,
        read: &mut ReadCiphertext<'_>,
        region: &DmaRegion<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), ChipError> {
        let shape = Shape::new(layout.segment_size().as_usize(), self.driver.bulk_depth(), false);
        let mapper = self.driver.mapper().clone();
        let staging = Staging::allocate(&mapper, job.staging, shape, job.tag_table.len())?;
        let mapping = match region.len() {
            0 => None,
            _ => Some(mapper.map(region, DmaAccess::ReadWrite)?),
        };
        let run = register(self, mapping.as_ref()).and_then(|()| {
            let mut lanes = Lanes { inner: self, job, staging: &staging, shape };
            run(&mut lanes, layout, read, mapping.as_ref(), progress)
        });
        // On failure the controller stops first, so that nothing is written into memory that is given back.
        let run = run.map_err(|e| self.end(e));
        let held = |source: ChipError| ChipError::from(DeviceError::KeepsMemory { source: Box::new(source) });
        let released = mapping.map_or(Ok(()), DmaMapping::unmap).map_err(held);
        run?;
        // GUARD: direct-unmap-confirmed -> evil_device_does_not_confirm_the_unmap
        released.map_err(|e| self.end(e))?;
        staging.release()
    }
}

/// Makes the file the only place where the chip may write plaintext.
fn register(inner: &mut Inner<'_>, mapping: Option<&DmaMapping>) -> Result<(), ChipError> {
    let mut body = Vec::new();
    mapping.map_or_else(Sgl::default, |m| Sgl::single(m.iova().0, m.len())).put(&mut body);
    inner.call(Opcode::Register, &body, 0).map(drop)
}

fn run(
    lanes: &mut Lanes<'_, '_, '_>,
    layout: &Layout,
    read: &mut ReadCiphertext<'_>,
    mapping: Option<&DmaMapping>,
    progress: &mut Progress<'_>,
) -> Result<(), ChipError> {
    lanes.load_tags()?;
    let base = mapping.map_or(0, |m| m.iova().0);
    let destination = |_, batch: &super::lanes::Batch| base.saturating_add(batch.offset);
    lanes.run(layout, read, progress, destination, |_| 0, |_, _| Ok(()))
}
