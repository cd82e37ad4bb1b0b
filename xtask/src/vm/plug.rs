//! What comes while a guest runs: memory, network devices.

use super::guest::Guest;
use serde_json::json;

impl Guest {
    /// Puts memory into a free slot. The guest has to put it to use.
    ///
    /// # Errors
    ///
    /// QEMU refuses: no slot is free, say.
    pub fn add_memory(&mut self, name: &str, mib: u64) -> anyhow::Result<()> {
        let (backend, size) = (format!("{name}-memory"), mib << 20);
        // Shared, as all of the guest's memory: back ends reach it by its file.
        let object =
            json!({ "qom-type": "memory-backend-memfd", "id": backend, "size": size, "share": true });
        self.qmp("object-add", &object)?;
        self.qmp("device_add", &json!({ "driver": "pc-dimm", "id": name, "memdev": backend })).map(drop)
    }

    /// Plugs a network device in behind a root port. At its other end is QEMU's own network, which reaches nobody.
    ///
    /// # Errors
    ///
    /// QEMU refuses.
    pub fn add_network(&mut self, name: &str, port: &str, hardware: &str) -> anyhow::Result<()> {
        let network = format!("{name}-net");
        self.qmp("netdev_add", &json!({ "type": "user", "id": network, "restrict": true, "ipv6": false }))?;
        let device = json!({
            "driver": "virtio-net-pci", "id": name, "netdev": network, "bus": port, "mac": hardware, "romfile": "",
        });
        self.qmp("device_add", &device).map(drop)
    }
}
