//! What runtimes ask about the guest before they give it more.

use std::fs::File;
use std::io::{self, Read as _};

use protocol::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};

use super::{Machine, MachineError};

/// More than the number of a block's bytes takes.
const MAXIMUM_BYTES: u64 = 64;

impl Machine {
    /// What was asked for. `storage_handlers`: names of the storage drivers that there are.
    ///
    /// # Errors
    /// `MACHINE_BLOCK_SIZE`, `MACHINE_FILE`.
    pub fn details(
        &self,
        request: &GuestDetailsRequest,
        storage_handlers: Vec<String>,
    ) -> Result<GuestDetailsResponse, MachineError> {
        let details = AgentDetails {
            version: crate::INTERFACE_VERSION.to_owned(),
            init_daemon: rustix::process::getpid().is_init(),
            storage_handlers,
            supports_seccomp: true,
            extra_features: crate::EXTRA_FEATURES.map(str::to_owned).into(),
            ..AgentDetails::default()
        };
        Ok(GuestDetailsResponse {
            mem_block_size_bytes: if request.mem_block_size { self.block_size()? } else { 0 },
            support_mem_hotplug_probe: request.mem_hotplug_probe && self.probe_file().exists(),
            agent_details: Some(details).into(),
            ..GuestDetailsResponse::default()
        })
    }

    /// The size of a block of memory that comes or goes, in bytes; 0 if the kernel has no such blocks.
    fn block_size(&self) -> Result<u64, MachineError> {
        let path = self.sys.join("devices/system/memory/block_size_bytes");
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAXIMUM_BYTES).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(MachineError::file("read", &path))?,
        };
        u64::from_str_radix(text.trim(), 16).map_err(|_| MachineError::BlockSize)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    // COMPAT: GetGuestDetails same
    #[test]
    fn details_are_those_of_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::new(root.path(), root.path(), false);
        let ask = |mem_block_size, mem_hotplug_probe| {
            let request = GuestDetailsRequest { mem_block_size, mem_hotplug_probe, ..Default::default() };
            machine.details(&request, vec!["blk".to_owned()])
        };
        let found = ask(true, true).unwrap();
        assert_eq!((found.mem_block_size_bytes, found.support_mem_hotplug_probe), (0, false));
        let memory = root.path().join("devices/system/memory");
        fs::create_dir_all(&memory).unwrap();
        fs::write(memory.join("block_size_bytes"), "8000000\n").unwrap();
        fs::write(memory.join("probe"), "").unwrap();
        let found = ask(true, true).unwrap();
        assert_eq!((found.mem_block_size_bytes, found.support_mem_hotplug_probe), (0x800_0000, true));
        assert_eq!(found.agent_details.version, "4.1.0");
        assert_eq!(found.agent_details.storage_handlers, ["blk"]);
        assert_eq!(found.agent_details.extra_features, ["agent-policy", "seccomp"]);
        assert!(!found.agent_details.init_daemon && found.agent_details.supports_seccomp);
        let found = ask(false, false).unwrap();
        assert_eq!((found.mem_block_size_bytes, found.support_mem_hotplug_probe), (0, false));
        for text in ["", "\n", "x", "10000000000000000"] {
            fs::write(memory.join("block_size_bytes"), text).unwrap();
            let error = ask(true, false).unwrap_err();
            assert_eq!((error.code(), &*error.to_string()), ("MACHINE_BLOCK_SIZE", "Invalid block size"));
            assert!(ask(false, true).is_ok());
        }
    }
}
