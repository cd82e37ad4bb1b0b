//! A guest as arguments of QEMU.

use super::super::tools::Tools;
use super::super::{backend, wire};
use super::Spec;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Where the initramfs of a machine with a TPM lies: above the kernel, below everything else.
const INITRAMFS: u64 = 256 << 20;

impl Spec {
    /// QEMU for this guest, whose sockets and files are in `work`.
    pub(super) fn command(&self, tools: &Tools, work: &Path) -> Command {
        let mut qemu = tools.qemu();
        let at = |name: &str| work.join(name).to_string_lossy().into_owned();
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", &self.cpus.to_string()]);
        // Shared, since back ends reach the guest's memory by its file.
        let memory = format!("{}M", self.memory_mib);
        let at_most = match self.more_memory {
            None => memory.clone(),
            Some((slots, mib)) => format!("{memory},slots={slots},maxmem={}M", self.memory_mib + mib),
        };
        qemu.args(["-m", &at_most, "-machine", "q35,memory-backend=m"]);
        qemu.args(["-object", &format!("memory-backend-memfd,id=m,size={memory},share=on")]);
        // In front of every device that is to be behind it. Without caching-mode QEMU refuses chips.
        qemu.args(["-device", "intel-iommu,caching-mode=on,intremap=on"]);
        qemu.args(["-kernel".into(), tools.kernel.clone().into_os_string()]);
        // The kernel waits for ten ticks of a timer and panics without them; a busy machine without hardware virtualisation loses them.
        let mut words = format!("console=ttyS0 quiet panic=-1 no_timer_check{}", self.cmdline);
        if self.tpm.is_none() {
            qemu.args(["-initrd", &at("initramfs")]);
        } else {
            // QEMU would put it where SeaBIOS puts its tables, which are longer with those of a TPM.
            let size = std::fs::metadata(work.join("initramfs")).map_or(0, |found| found.len());
            let file = at("initramfs");
            qemu.args(["-device", &format!("loader,file={file},addr={INITRAMFS:#x},force-raw=on")]);
            words.push_str(&format!(" initrdmem={INITRAMFS:#x},{size}"));
        }
        qemu.args(["-append", &words]);
        qemu.args(["-serial", &format!("file:{}", at("serial.log"))]);
        qemu.args([
            "-chardev",
            &format!("socket,id=qmp,path={}", at("qmp.sock")),
            "-object",
            "monitor-qmp,id=monitor,chardev=qmp",
        ]);
        qemu.args(["-device", "virtio-serial-pci"]);
        qemu.args(["-chardev", &format!("socket,id=control,path={}", at("control.sock"))]);
        qemu.args(["-device", &format!("virtserialport,chardev=control,name={}", wire::PORT)]);
        for (index, chip) in self.chips.iter().enumerate() {
            let mut device = json!({
                "driver": "vfio-user-pci", "id": format!("chip{index}"),
                "socket": { "type": "unix", "path": chip.socket },
            });
            if chip.removable {
                let port = format!("port{index}");
                qemu.args(["-device", &format!("pcie-root-port,id={port},chassis={index},slot={index}")]);
                if let Some(device) = device.as_object_mut() {
                    device.insert("bus".to_owned(), port.into());
                }
            }
            qemu.args(["-device", &device.to_string()]);
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let drive = json!({
                "driver": "raw", "node-name": format!("disk{index}"),
                "file": { "driver": "file", "filename": disk },
            });
            qemu.args(["-blockdev", &drive.to_string()]);
            qemu.args(["-device", &format!("virtio-blk-pci,drive=disk{index},id=vd{index}")]);
        }
        if let Some((socket, _)) = &self.tpm {
            qemu.args(["-chardev", &format!("socket,id=tpm,path={}", socket.display())]);
            qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
        }
        if self.vsock {
            qemu.args(["-chardev", &format!("socket,id=vsock,path={}", at(backend::VSOCK_SOCKET))]);
            qemu.args(["-device", "vhost-user-vsock-pci,chardev=vsock"]);
        }
        if self.share.is_some() {
            qemu.args(["-chardev", &format!("socket,id=share,path={}", at(backend::SHARE_SOCKET))]);
            qemu.args(["-device", "vhost-user-fs-pci,chardev=share,tag=out"]);
        }
        qemu.args(&self.extra);
        qemu
    }
}
