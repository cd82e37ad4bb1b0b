//! Disks and places for disks, as runtimes lay them out: at a slot that is known beforehand, behind a port, on a SCSI bus, as persistent memory.

use super::Spec;
use serde_json::json;
use std::path::Path;

/// The SCSI bus, and how its disks name it.
const SCSI: (&str, &str) = ("scsi", "scsi.0");

impl Spec {
    /// A raw disk of virtio-blk at this slot of the root bus (0x10 to 0x1e are free): PCI path `SLOT`.
    #[must_use]
    pub fn disk_at(self, image: &Path, slot: u8) -> Self {
        let name = format!("slot{slot:02x}");
        self.drive(&name, image)
            .qemu(&["-device", &format!("virtio-blk-pci,drive={name},id={name},addr={slot:02x}")])
    }

    /// An empty port at this slot: what is plugged into its bus `portSLOT` has the PCI path `SLOT/00`.
    #[must_use]
    pub fn port(self, slot: u8) -> Self {
        let device = format!("pcie-root-port,id=port{slot:02x},addr={slot:02x},chassis={slot},slot={slot}");
        self.qemu(&["-device", &device])
    }

    /// A SCSI bus of virtio, with these disks: id, logical unit, image. More can be plugged into `scsi.0`.
    #[must_use]
    pub fn scsi(mut self, disks: &[(u32, u32, &Path)]) -> Self {
        self = self.qemu(&["-device", &format!("virtio-scsi-pci,id={}", SCSI.0)]);
        for (id, unit, image) in disks {
            let name = format!("{}-{id}-{unit}", SCSI.0);
            let device =
                format!("scsi-hd,drive={name},id={name},bus={},channel=0,scsi-id={id},lun={unit}", SCSI.1);
            self = self.drive(&name, image).qemu(&["-device", &device]);
        }
        self.modules(&["virtio_scsi", "sd_mod"])
    }

    /// A file of so many MiB as persistent memory: `/dev/pmem0`.
    #[must_use]
    pub fn nvdimm(self, image: &Path, mib: u32) -> Self {
        let memory =
            format!("memory-backend-file,id=pmem0,share=on,mem-path={},size={mib}M", image.display());
        self.qemu(&["-machine", "nvdimm=on", "-m", "slots=4,maxmem=4G"])
            .qemu(&["-object", &memory, "-device", "nvdimm,id=nvdimm0,memdev=pmem0"])
            .modules(&["nfit", "nd_pmem"])
    }

    fn drive(self, name: &str, image: &Path) -> Self {
        let drive = json!({
            "driver": "raw", "node-name": name,
            "file": { "driver": "file", "filename": image },
        });
        self.qemu(&["-blockdev", &drive.to_string()])
    }
}
