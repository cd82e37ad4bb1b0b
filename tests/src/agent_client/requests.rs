//! Requests as runtimes make them.

use protocol::agent::{
    CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest, ReadStreamRequest,
    RemoveContainerRequest, SignalProcessRequest, StartContainerRequest, WaitProcessRequest,
    WriteStreamRequest,
};
use protocol::oci::{
    Linux, LinuxCapabilities, LinuxDeviceCgroup, LinuxNamespace, LinuxResources, Mount, POSIXRlimit, Process,
    Root, Spec,
};
use xtask::vm::Guest;

use crate::vm::shell;

/// Where host and guest share files.
pub const SHARED: &str = "/run/kata-containers/shared/containers";
/// Those of containers that ask for nothing.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Makes a root with busybox for a container, in the guest, where a shared file system would show it; its path.
#[track_caller]
pub fn rootfs(guest: &Guest, container: &str) -> String {
    let root = format!("{SHARED}/{container}/rootfs");
    let line = format!(
        "mkdir -p {root}/bin {root}/proc {root}/sys {root}/dev {root}/tmp {root}/etc {root}/root && \
         cp /bin/busybox {root}/bin/ && chroot {root} /bin/busybox --install -s /bin && \
         echo root:x:0:0:root:/root:/bin/sh > {root}/etc/passwd && \
         echo user:x:1000:1000:user:/srv/user:/bin/sh >> {root}/etc/passwd"
    );
    shell(guest, &line);
    root
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A process as containerd describes one.
pub fn process(args: &[&str]) -> Process {
    let kept = strings(&CAPABILITIES);
    let capabilities = LinuxCapabilities {
        Bounding: kept.clone(),
        Effective: kept.clone(),
        Permitted: kept,
        ..LinuxCapabilities::default()
    };
    Process {
        User: Some(protocol::oci::User::default()).into(),
        Args: strings(args),
        Env: strings(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
        Cwd: "/".to_owned(),
        Capabilities: Some(capabilities).into(),
        Rlimits: vec![POSIXRlimit {
            Type: "RLIMIT_NOFILE".to_owned(),
            Hard: 1024,
            Soft: 1024,
            ..POSIXRlimit::default()
        }],
        NoNewPrivileges: true,
        ..Process::default()
    }
}

fn mount(destination: &str, source: &str, kind: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: source.to_owned(),
        type_: kind.to_owned(),
        options: strings(options),
        ..Mount::default()
    }
}

fn device_rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        Allow: allow,
        Type: kind.to_owned(),
        Major: major,
        Minor: minor,
        Access: access.to_owned(),
        ..LinuxDeviceCgroup::default()
    }
}

/// What a runtime sends for a container with this root: paths of namespaces blanked, network and pid namespaces left out.
pub fn oci_spec(container: &str, root: &str, args: &[&str]) -> Spec {
    let mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let namespaces = ["ipc", "uts", "mount"]
        .map(|kind| LinuxNamespace { Type: kind.to_owned(), ..LinuxNamespace::default() });
    let rules = vec![
        device_rule(false, "", 0, 0, "rwm"),
        device_rule(true, "c", 1, 3, "rwm"),
        device_rule(true, "c", 1, 5, "rwm"),
        device_rule(true, "c", 1, 7, "rwm"),
        device_rule(true, "c", 1, 8, "rwm"),
        device_rule(true, "c", 1, 9, "rwm"),
        device_rule(true, "c", 5, 0, "rwm"),
        device_rule(true, "c", 5, 2, "rwm"),
        device_rule(true, "c", 136, -1, "rwm"),
    ];
    let linux = Linux {
        Resources: Some(LinuxResources { Devices: rules, ..LinuxResources::default() }).into(),
        CgroupsPath: format!("/kubepods/besteffort/pod1/{container}"),
        Namespaces: namespaces.into(),
        MaskedPaths: strings(&[
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ]),
        ReadonlyPaths: strings(&[
            "/proc/asound",
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]),
        ..Linux::default()
    };
    Spec {
        Version: "1.1.0".to_owned(),
        Process: Some(process(args)).into(),
        Root: Some(Root { Path: root.to_owned(), ..Root::default() }).into(),
        Mounts: mounts,
        Linux: Some(linux).into(),
        ..Spec::default()
    }
}

/// A sandbox with this name.
pub fn sandbox(id: &str) -> CreateSandboxRequest {
    CreateSandboxRequest {
        hostname: "sandbox-host".to_owned(),
        sandbox_id: id.to_owned(),
        ..CreateSandboxRequest::default()
    }
}

/// A container with this root and program; its first process has the container's id, as containerd has it.
pub fn create(container: &str, root: &str, args: &[&str]) -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: container.to_owned(),
        exec_id: container.to_owned(),
        OCI: Some(oci_spec(container, root, args)).into(),
        ..CreateContainerRequest::default()
    }
}

/// Starts it.
pub fn start(container: &str) -> StartContainerRequest {
    StartContainerRequest { container_id: container.to_owned(), ..StartContainerRequest::default() }
}

/// Removes it.
pub fn remove(container: &str) -> RemoveContainerRequest {
    RemoveContainerRequest { container_id: container.to_owned(), ..RemoveContainerRequest::default() }
}

/// Another process in it.
pub fn exec(container: &str, exec: &str, args: &[&str]) -> ExecProcessRequest {
    ExecProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        process: Some(process(args)).into(),
        ..ExecProcessRequest::default()
    }
}

/// A signal; an empty exec id is the first process.
pub fn signal(container: &str, exec: &str, signal: u32) -> SignalProcessRequest {
    SignalProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        signal,
        ..SignalProcessRequest::default()
    }
}

/// The end of a process.
pub fn wait(container: &str, exec: &str) -> WaitProcessRequest {
    WaitProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        ..WaitProcessRequest::default()
    }
}

/// A read of a stream.
pub fn read(container: &str, exec: &str, length: u32) -> ReadStreamRequest {
    ReadStreamRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        len: length,
        ..ReadStreamRequest::default()
    }
}

/// Bytes for standard input.
pub fn write(container: &str, exec: &str, data: &[u8]) -> WriteStreamRequest {
    WriteStreamRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        data: data.to_vec(),
        ..WriteStreamRequest::default()
    }
}
