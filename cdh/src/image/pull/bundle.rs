//! A bundle: `rootfs`, mounted, and `config.json` (OCI runtime specification 1.2), taken back as one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use serde_json::json;

use super::PullError;
use crate::Error;
use crate::composefs::mount::{Verified, detach};

const ROOT: &str = "rootfs";
const CONFIG: &str = "config.json";

/// A root with its configuration. Dropped, it is unmounted and both are gone, unless it is kept.
#[derive(Debug)]
pub struct Bundle {
    directory: OwnedFd,
    root: PathBuf,
    made: Made,
    kept: bool,
}

/// How far making it came.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    directory: bool,
    mounted: bool,
    config: bool,
}

impl Bundle {
    /// Mounts an image below an existing directory, no part of whose path is a symbolic link, and which holds neither of the two names.
    pub(super) fn make(
        path: &Path,
        image: &Verified,
        upper: (u64, u64),
        config: &[u8],
    ) -> Result<Self, Error> {
        let runtime = runtime_config(config)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if !path.is_absolute() {
            return Err(PullError::bundle("open", path)(rustix::io::Errno::INVAL).into());
        }
        let directory = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(PullError::bundle("open", path))?;
        let (root, made) = (path.join(ROOT), Made::default());
        let mut bundle = Self { directory, root, made, kept: false };
        bundle.fill(image, upper, &runtime, path)?;
        Ok(bundle)
    }

    fn fill(
        &mut self,
        image: &Verified,
        (bytes, files): (u64, u64),
        runtime: &[u8],
        path: &Path,
    ) -> Result<(), Error> {
        // Mounted at no path until all else is done.
        let root = image.mount()?.writable(bytes, files)?;
        rustix::fs::mkdirat(&self.directory, ROOT, Mode::from_raw_mode(0o755))
            .map_err(PullError::bundle("make rootfs in", path))?;
        self.made.directory = true;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, CONFIG, flags, Mode::from_raw_mode(0o644))
            .map_err(PullError::bundle("make config.json in", path))?;
        self.made.config = true;
        File::from(file).write_all(runtime).map_err(PullError::bundle("write config.json in", path))?;
        root.attach(&self.root)?;
        self.made.mounted = true;
        Ok(())
    }

    /// Where the root is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Leaves it to whoever asked for it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Each step may only fail when somebody else was here before; the others are taken all the same.
        if self.made.mounted {
            let _ = detach(&self.root);
        }
        if self.made.config {
            let _ = rustix::fs::unlinkat(&self.directory, CONFIG, AtFlags::empty());
        }
        if self.made.directory {
            let _ = rustix::fs::unlinkat(&self.directory, ROOT, AtFlags::REMOVEDIR);
        }
    }
}

#[derive(Default, Deserialize)]
struct ImageDocument {
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    created: Option<String>,
    architecture: String,
    os: String,
    #[serde(default)]
    config: Option<Execution>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

/// The labels of an image's configuration.
pub(super) fn labels(config: &[u8]) -> Result<BTreeMap<String, String>, PullError> {
    let image = document(config)?;
    Ok(image.config.unwrap_or_default().labels.unwrap_or_default())
}

fn document(config: &[u8]) -> Result<ImageDocument, PullError> {
    let expected = "the form of an OCI image configuration";
    serde_json::from_slice(config).map_err(|_| PullError::Configuration { expected })
}

/// The runtime configuration that an image's configuration makes (OCI image specification, `conversion.md`): arguments, environment,
/// directory, numeric user, annotations, a root, and nothing else. Names of users are not looked up, as upstream does not: an agent takes
/// all of this from its own specification, and only the root from here.
fn runtime_config(config: &[u8]) -> Result<Vec<u8>, PullError> {
    let image = document(config)?;
    let execution = image.config.unwrap_or_default();
    let mut arguments = execution.entrypoint.unwrap_or_default();
    arguments.extend(execution.cmd.unwrap_or_default());
    let mut environment = execution.env.unwrap_or_default();
    if !environment.iter().any(|variable| variable.starts_with("PATH=")) {
        environment.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    let directory = execution.working_dir.filter(|directory| !directory.is_empty());
    let directory = directory.unwrap_or_else(|| "/".to_owned());
    // GUARD: pull-working-directory -> evil_working_directory
    if !directory.starts_with('/') {
        return Err(PullError::Configuration { expected: "an absolute WorkingDir" });
    }
    let (uid, gid) = user(execution.user.as_deref().unwrap_or_default());
    // Labels win over what is derived (conversion.md).
    let derived = [
        ("org.opencontainers.image.os", Some(image.os)),
        ("org.opencontainers.image.architecture", Some(image.architecture)),
        ("org.opencontainers.image.author", image.author),
        ("org.opencontainers.image.created", image.created),
        ("org.opencontainers.image.stopSignal", execution.stop_signal),
    ];
    let mut annotations: BTreeMap<String, String> =
        derived.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    annotations.extend(execution.labels.unwrap_or_default());
    let namespaces: Vec<_> =
        ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind})).into();
    let runtime = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {"uid": uid, "gid": gid},
            "args": arguments,
            "env": environment,
            "cwd": directory,
            "noNewPrivileges": true,
        },
        "root": {"path": ROOT, "readonly": false},
        "annotations": annotations,
        "linux": {"namespaces": namespaces},
    });
    serde_json::to_vec(&runtime).map_err(|_| PullError::Configuration { expected: "texts" })
}

/// `uid[:gid]`; root's where it is a name.
fn user(text: &str) -> (u32, u32) {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    match (user.parse(), group.parse()) {
        (Ok(user), Ok(group)) => (user, group),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn configurations_become_those_of_runtimes() {
        let image = json!({"os": "linux", "architecture": "amd64", "config": {
            "User": "7:8", "Env": ["A=b"], "Entrypoint": ["/e"], "Cmd": ["c"], "WorkingDir": "/w",
            "Labels": {"x": "y", "org.opencontainers.image.os": "of the label"}, "StopSignal": "SIGTERM"}});
        let found = runtime_config(image.to_string().as_bytes()).unwrap();
        let found: Value = serde_json::from_slice(&found).unwrap();
        let process = &found["process"];
        assert_eq!(process["args"], json!(["/e", "c"]));
        assert_eq!(process["env"][0], "A=b");
        assert!(process["env"][1].as_str().unwrap().starts_with("PATH=/"));
        assert_eq!(process["cwd"], "/w");
        assert_eq!(process["user"], json!({"uid": 7, "gid": 8}));
        assert_eq!(found["root"], json!({"path": "rootfs", "readonly": false}));
        assert_eq!(found["annotations"]["x"], "y");
        assert_eq!(found["annotations"]["org.opencontainers.image.os"], "of the label");
        assert_eq!(found["annotations"]["org.opencontainers.image.stopSignal"], "SIGTERM");
        let least = json!({"os": "linux", "architecture": "amd64", "config": null}).to_string();
        let found: Value = serde_json::from_slice(&runtime_config(least.as_bytes()).unwrap()).unwrap();
        assert_eq!(found["process"]["cwd"], "/");
    }

    #[test]
    fn evil_working_directory() {
        let image = json!({"os": "linux", "architecture": "amd64", "config": {"WorkingDir": "../host"}});
        let error = runtime_config(image.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.code(), "PULL_CONFIGURATION");
    }
}
