//! Where a container's group of processes is.

use std::path::{Path, PathBuf};

use protocol::ids::ContainerId;

use super::SpecError;

/// Deepest place.
const MAXIMUM_DEPTH: usize = 16;
/// Longest name of a directory.
const MAXIMUM_NAME_BYTES: usize = 255;
/// The agent's own group: helpers are below it.
pub const AGENT_GROUP: &str = "innerkeep";

/// A place below the root of the control groups: relative, at least one name, no `..`. It is never the root, nor the
/// agent's own group: what removes a container's group kills everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CgroupPath(PathBuf);

impl CgroupPath {
    /// Takes `linux.cgroupsPath`. Empty is the container's id; `slice:prefix:name` of systemd is `slice/prefix/name`, as in
    /// upstream's agent.
    ///
    /// # Errors
    /// `SPEC_CGROUP_PATH`.
    pub fn parse(path: &str, container: &ContainerId) -> Result<Self, SpecError> {
        let path = if path.is_empty() { container.as_str() } else { path };
        let path = path.replace(':', "/");
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        // GUARD: cgroup-path -> evil_host_cgroup_path_of_the_agent
        if names.is_empty() || names.len() > MAXIMUM_DEPTH || !names.iter().all(|name| is_name(name)) {
            return Err(SpecError::CgroupPath);
        }
        // GUARD: cgroup-path-own -> evil_host_cgroup_path_of_the_agent
        if names.first() == Some(&AGENT_GROUP) {
            return Err(SpecError::CgroupPath);
        }
        Ok(Self(names.iter().collect()))
    }

    /// The place, relative to the root of the control groups.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The place as the specification has it, with a leading slash.
    #[must_use]
    pub fn absolute(&self) -> PathBuf {
        Path::new("/").join(&self.0)
    }

    /// Whether one of the two lies in the other, or they are the same: two containers may not.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }
}

/// A name that is no file of the kernel's.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'@' | b'\\');
    let of_kernel =
        ["cgroup.", "cpu.", "cpuset.", "io.", "memory.", "pids.", "hugetlb.", "rdma.", "misc.", "irq."];
    name != ".."
        && name.len() <= MAXIMUM_NAME_BYTES
        && name.bytes().all(plain)
        && !of_kernel.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<CgroupPath, SpecError> {
        CgroupPath::parse(path, &ContainerId::parse("abc").unwrap())
    }

    #[test]
    fn paths_of_runtimes_are_taken() {
        for (path, expected) in [
            ("", "abc"),
            ("/kubepods/burstable/podx/abc", "kubepods/burstable/podx/abc"),
            ("a/./b//c", "a/b/c"),
            ("kubepods-pod1.slice:cri-containerd:abc", "kubepods-pod1.slice/cri-containerd/abc"),
            ("/kubepods.slice/kubepods-pod_1.slice/x.scope", "kubepods.slice/kubepods-pod_1.slice/x.scope"),
        ] {
            assert_eq!(parse(path).unwrap().as_path(), Path::new(expected));
        }
        assert_eq!(parse("a/b").unwrap().absolute(), Path::new("/a/b"));
        assert!(parse("a").unwrap().overlaps(&parse("a/b").unwrap()));
        assert!(!parse("a/b").unwrap().overlaps(&parse("a/bc").unwrap()));
    }

    #[test]
    fn evil_host_cgroup_path_of_the_agent() {
        let deep = "a/".repeat(MAXIMUM_DEPTH + 1);
        let long = "a".repeat(MAXIMUM_NAME_BYTES + 1);
        for path in [
            "/",
            "//",
            ".",
            "/./",
            ":",
            "::",
            "..",
            "/..",
            "/a/..",
            "a:..:b",
            "/a/../../b",
            "/a\0",
            "/a b",
            "/a\n",
            "/cgroup.procs",
            "/a/memory.max",
            "/é",
            "/innerkeep",
            "/./innerkeep/0",
            "innerkeep:0:x",
            &deep,
            &long,
        ] {
            assert_eq!(parse(path).unwrap_err().code(), "SPEC_CGROUP_PATH", "{path:?}");
        }
    }
}
