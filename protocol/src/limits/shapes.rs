//! Which members of a request are repeated, nested or large, and how much of each is taken. A test holds the table against the descriptors: every
//! member that is repeated or a message is here. A message that is not named has texts and numbers alone ([`FLAT`]).

use super::{
    ANNOTATION_BYTES, ENTROPY_BYTES, FLAT, FRAME_BYTES, Shape, TEXT_BYTES, entries, many, numbers, one,
    sized, texts,
};

pub(crate) static STRING_USER: Shape = Shape(&[texts(3, "additionalGids", 1024)]);
pub(crate) static DEVICE: Shape = Shape(&[texts(5, "options", 128)]);
pub(crate) static STORAGE: Shape =
    Shape(&[texts(2, "driver_options", 128), texts(5, "options", 128), one(7, "fs_group", &FLAT)]);
pub(crate) static USER: Shape = Shape(&[numbers(3, "AdditionalGids", 65536)]);
pub(crate) static LINUX_CAPABILITIES: Shape = Shape(&[
    texts(1, "Bounding", 128),
    texts(2, "Effective", 128),
    texts(3, "Inheritable", 128),
    texts(4, "Permitted", 128),
    texts(5, "Ambient", 128),
]);
pub(crate) static PROCESS: Shape = Shape(&[
    one(2, "ConsoleSize", &FLAT),
    one(3, "User", &USER),
    texts(4, "Args", 8192),
    texts(5, "Env", 8192),
    one(7, "Capabilities", &LINUX_CAPABILITIES),
    many(8, "Rlimits", 32, &FLAT),
]);
pub(crate) static MOUNT: Shape = Shape(&[texts(4, "options", 128)]);
pub(crate) static HOOK: Shape = Shape(&[texts(2, "Args", 8192), texts(3, "Env", 8192)]);
pub(crate) static HOOKS: Shape = Shape(&[
    many(1, "Prestart", 64, &HOOK),
    many(2, "Poststart", 64, &HOOK),
    many(3, "Poststop", 64, &HOOK),
    many(4, "CreateRuntime", 64, &HOOK),
    many(5, "CreateContainer", 64, &HOOK),
    many(6, "StartContainer", 64, &HOOK),
]);
pub(crate) static LINUX_BLOCK_IO: Shape = Shape(&[
    many(3, "WeightDevice", 256, &FLAT),
    many(4, "ThrottleReadBpsDevice", 256, &FLAT),
    many(5, "ThrottleWriteBpsDevice", 256, &FLAT),
    many(6, "ThrottleReadIOPSDevice", 256, &FLAT),
    many(7, "ThrottleWriteIOPSDevice", 256, &FLAT),
]);
pub(crate) static LINUX_NETWORK: Shape = Shape(&[many(2, "Priorities", 64, &FLAT)]);
pub(crate) static LINUX_RESOURCES: Shape = Shape(&[
    many(1, "Devices", 1024, &FLAT),
    one(2, "Memory", &FLAT),
    one(3, "CPU", &FLAT),
    one(4, "Pids", &FLAT),
    one(5, "BlockIO", &LINUX_BLOCK_IO),
    many(6, "HugepageLimits", 32, &FLAT),
    one(7, "Network", &LINUX_NETWORK),
]);
pub(crate) static LINUX_SYSCALL: Shape = Shape(&[texts(1, "Names", 1024), many(4, "Args", 16, &FLAT)]);
pub(crate) static LINUX_SECCOMP: Shape =
    Shape(&[texts(2, "Architectures", 64), texts(3, "Flags", 32), many(4, "Syscalls", 1024, &LINUX_SYSCALL)]);
pub(crate) static LINUX: Shape = Shape(&[
    many(1, "UIDMappings", 340, &FLAT),
    many(2, "GIDMappings", 340, &FLAT),
    entries(3, "Sysctl", 256, TEXT_BYTES),
    one(4, "Resources", &LINUX_RESOURCES),
    many(6, "Namespaces", 16, &FLAT),
    many(7, "Devices", 1024, &FLAT),
    one(8, "Seccomp", &LINUX_SECCOMP),
    texts(10, "MaskedPaths", 1024),
    texts(11, "ReadonlyPaths", 1024),
    one(13, "IntelRdt", &FLAT),
]);
pub(crate) static SPEC: Shape = Shape(&[
    one(2, "Process", &PROCESS),
    one(3, "Root", &FLAT),
    many(5, "Mounts", 1024, &MOUNT),
    one(6, "Hooks", &HOOKS),
    entries(7, "Annotations", 1024, ANNOTATION_BYTES),
    one(8, "Linux", &LINUX),
    one(9, "Solaris", &FLAT),
    one(10, "Windows", &FLAT),
]);
pub(crate) static CREATE_CONTAINER_REQUEST: Shape = Shape(&[
    one(3, "string_user", &STRING_USER),
    many(4, "devices", 1024, &DEVICE),
    many(5, "storages", 1024, &STORAGE),
    one(6, "OCI", &SPEC),
    many(8, "shared_mounts", 256, &FLAT),
]);
pub(crate) static EXEC_PROCESS_REQUEST: Shape =
    Shape(&[one(3, "string_user", &STRING_USER), one(4, "process", &PROCESS)]);
pub(crate) static UPDATE_CONTAINER_REQUEST: Shape = Shape(&[one(2, "resources", &LINUX_RESOURCES)]);
pub(crate) static UPDATE_EPHEMERAL_MOUNTS_REQUEST: Shape = Shape(&[many(1, "storages", 1024, &STORAGE)]);
pub(crate) static WRITE_STREAM_REQUEST: Shape = Shape(&[sized(3, "data", FRAME_BYTES)]);
pub(crate) static INTERFACE: Shape = Shape(&[many(3, "IPAddresses", 256, &FLAT)]);
pub(crate) static UPDATE_INTERFACE_REQUEST: Shape = Shape(&[one(1, "interface", &INTERFACE)]);
pub(crate) static ROUTES: Shape = Shape(&[many(1, "Routes", 4096, &FLAT)]);
pub(crate) static UPDATE_ROUTES_REQUEST: Shape = Shape(&[one(1, "routes", &ROUTES)]);
pub(crate) static ARP_NEIGHBOR: Shape = Shape(&[one(1, "toIPAddress", &FLAT)]);
pub(crate) static ARP_NEIGHBORS: Shape = Shape(&[many(1, "ARPNeighbors", 4096, &ARP_NEIGHBOR)]);
pub(crate) static ADD_ARP_NEIGHBORS_REQUEST: Shape = Shape(&[one(1, "neighbors", &ARP_NEIGHBORS)]);
pub(crate) static SET_IP_TABLES_REQUEST: Shape = Shape(&[sized(2, "data", FRAME_BYTES)]);
pub(crate) static KERNEL_MODULE: Shape = Shape(&[texts(2, "parameters", 64)]);
pub(crate) static CREATE_SANDBOX_REQUEST: Shape = Shape(&[
    texts(2, "dns", 256),
    many(3, "storages", 1024, &STORAGE),
    many(7, "kernel_modules", 64, &KERNEL_MODULE),
]);
pub(crate) static RESEED_RANDOM_DEV_REQUEST: Shape = Shape(&[sized(2, "data", ENTROPY_BYTES)]);
pub(crate) static MEM_HOTPLUG_BY_PROBE_REQUEST: Shape = Shape(&[numbers(1, "memHotplugProbeAddr", 4096)]);
pub(crate) static COPY_FILE_REQUEST: Shape = Shape(&[sized(8, "data", FRAME_BYTES)]);
pub(crate) static ADD_SWAP_REQUEST: Shape = Shape(&[numbers(1, "PCIPath", 32)]);
pub(crate) static SET_POLICY_REQUEST: Shape = Shape(&[sized(1, "policy", FRAME_BYTES)]);
