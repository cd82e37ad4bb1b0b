//! What a container may ask for and this agent does not give it: refused, where it would otherwise start without what it counts on.

use protocol::agent::CreateContainerRequest;
use protocol::status::RpcError;

use crate::devices::TRUSTED_STORE;
use crate::hub::DataHub;
use crate::sealed::sealed_value;

/// An annotation that asks for devices by name.
const CDI: &str = "cdi.k8s.io/";
/// The annotation that tells the sandbox's own container, and the value that does.
const CONTAINER_TYPE: (&str, &str) = ("io.katacontainers.pkg.oci.container_type", "pod_sandbox");

/// Refuses what is not there.
///
/// # Errors
/// `CDH_ABSENT`, `CDI_ABSENT`, `SHARED_MOUNTS_ABSENT`.
pub(super) fn refuse(request: &CreateContainerRequest, hub: &DataHub) -> Result<(), RpcError> {
    let failed = |code, text: &str| RpcError::Failed(code, text.to_owned());
    let is_sealed = request.OCI.Process.Env.iter().any(|entry| sealed_value(entry).is_some());
    // GUARD: sealed-variable -> evil_host_sealed_variable_without_a_hub
    if is_sealed && let Err(error) = hub.require() {
        return Err(failed(error.code(), &format!("process.env: a sealed value: {error}")));
    }
    let mut devices = request.OCI.Linux.Devices.iter();
    let is_asked = devices.any(|device| device.Path == TRUSTED_STORE);
    let is_plugged = request.devices.iter().any(|device| device.container_path == TRUSTED_STORE);
    // GUARD: trusted-store-plugged -> evil_host_trusted_store_by_numbers_alone
    if is_asked && !is_plugged {
        return Err(failed(
            "DEVICE_MISSING",
            "linux.devices: a trusted store, and no disk that was plugged in for it",
        ));
    }
    // GUARD: trusted-store -> evil_host_trusted_store_without_a_hub
    if is_asked && let Err(error) = hub.require() {
        return Err(failed(error.code(), &format!("linux.devices: a trusted store: {error}")));
    }
    let annotations = &request.OCI.Annotations;
    let is_sandbox = annotations.get(CONTAINER_TYPE.0).is_some_and(|kind| kind == CONTAINER_TYPE.1);
    // GUARD: cdi-devices -> evil_host_devices_by_name_that_nobody_gives
    if !is_sandbox && annotations.keys().any(|key| key.starts_with(CDI)) {
        return Err(failed(
            "CDI_ABSENT",
            "annotations: devices by name, and no descriptions of devices in this guest",
        ));
    }
    // GUARD: shared-mounts -> evil_host_mount_of_another_container
    if !request.shared_mounts.is_empty() {
        return Err(failed("SHARED_MOUNTS_ABSENT", "shared_mounts: no container has a mount of another one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::agent::Device;
    use protocol::oci::{Linux, LinuxDevice, Process, Spec};

    fn code(spec: Spec) -> Option<&'static str> {
        code_with(spec, &[])
    }

    /// With disks that were plugged in, by their paths in the container.
    fn code_with(spec: Spec, plugged: &[&str]) -> Option<&'static str> {
        let plugged =
            plugged.iter().map(|&path| Device { container_path: path.to_owned(), ..Device::default() });
        let request = CreateContainerRequest {
            OCI: Some(spec).into(),
            devices: plugged.collect(),
            ..CreateContainerRequest::default()
        };
        refuse(&request, &DataHub::absent("none")).err().map(|error| match error {
            RpcError::Failed(code, _) => code,
            other => panic!("{other:?}"),
        })
    }

    // COMPAT: CreateContainer stricter: what needs a hub that is not there is refused (`CDH_ABSENT`), not left out
    #[test]
    fn evil_host_sealed_variable_without_a_hub() {
        let with = |entry: &str| {
            let process = Process { Env: vec!["A=b".to_owned(), entry.to_owned()], ..Process::default() };
            code(Spec { Process: Some(process).into(), ..Spec::default() })
        };
        assert_eq!(with("KEY=sealed.fakejwsheader.x.y"), Some("CDH_ABSENT"));
        assert_eq!(with("KEY=unsealed.x"), None);
        assert_eq!(with("sealed.x"), None);
    }

    // COMPAT: CreateContainer stricter: mounts of another container are refused (`SHARED_MOUNTS_ABSENT`), not left out
    #[test]
    fn evil_host_mount_of_another_container() {
        let mount = protocol::agent::SharedMount { src_ctr: "other".to_owned(), ..Default::default() };
        let request = CreateContainerRequest { shared_mounts: vec![mount], ..Default::default() };
        assert!(matches!(
            refuse(&request, &DataHub::absent("none")),
            Err(RpcError::Failed("SHARED_MOUNTS_ABSENT", _))
        ));
    }

    fn with_device(path: &str) -> Spec {
        let device = LinuxDevice { Path: path.to_owned(), ..LinuxDevice::default() };
        let linux = Linux { Devices: vec![device], ..Linux::default() };
        Spec { Linux: Some(linux).into(), ..Spec::default() }
    }

    #[test]
    fn evil_host_trusted_store_without_a_hub() {
        assert_eq!(code_with(with_device(TRUSTED_STORE), &[TRUSTED_STORE]), Some("CDH_ABSENT"));
        assert_eq!(code(with_device("/dev/fuse")), None);
    }

    /// Numbers of the host may be those of any disk here.
    #[test]
    fn evil_host_trusted_store_by_numbers_alone() {
        assert_eq!(code(with_device(TRUSTED_STORE)), Some("DEVICE_MISSING"));
        assert_eq!(code_with(with_device(TRUSTED_STORE), &["/dev/other"]), Some("DEVICE_MISSING"));
    }

    // COMPAT: CreateContainer stricter: devices by name are refused (`CDI_ABSENT`), not left out
    #[test]
    fn evil_host_devices_by_name_that_nobody_gives() {
        let with = |pairs: &[(&str, &str)]| {
            let annotations = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            code(Spec { Annotations: annotations.collect(), ..Spec::default() })
        };
        assert_eq!(with(&[("cdi.k8s.io/gpu", "vendor.com/gpu=0")]), Some("CDI_ABSENT"));
        assert_eq!(with(&[("cdi.k8s.io/gpu", "x"), CONTAINER_TYPE]), None);
        assert_eq!(with(&[("other", "x")]), None);
    }
}
