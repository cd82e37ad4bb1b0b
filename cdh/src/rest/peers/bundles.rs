//! Containers by the files that upstream's guest agent keeps: `ID/config.json` below its run directory, as policy let it pass.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Deserialize;

use super::{ContainerId, Containers, NAME, is_within};

/// Most directories that are looked at.
const MAXIMUM_BUNDLES: usize = 1024;
/// Longest specification.
const MAXIMUM_SPECIFICATION_BYTES: u64 = 4 << 20;

/// The directory of bundles.
#[derive(Clone, Debug)]
pub struct Bundles(PathBuf);

#[derive(Deserialize)]
struct Specification {
    #[serde(default)]
    annotations: HashMap<String, String>,
    linux: Linux,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath", default)]
    cgroups_path: String,
}

impl Bundles {
    /// Bundles below `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// A container and its control group; none if its specification has no name for it, which policy would have judged.
    fn read(&self, id: &str) -> Option<(ContainerId, String)> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(CWD, self.0.join(id).join("config.json"), flags, Mode::empty()).ok()?;
        let file = fs::File::from(file);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        file.take(MAXIMUM_SPECIFICATION_BYTES + 1).read_to_end(&mut text).ok()?;
        if u64::try_from(text.len()).ok()? > MAXIMUM_SPECIFICATION_BYTES {
            return None;
        }
        let specification: Specification = serde_json::from_slice(&text).ok()?;
        let container = ContainerId::new(id, specification.annotations.get(NAME)?)?;
        // `slice:prefix:name` is `slice/prefix/name`, and none is the id, as in the guest agent.
        let place = specification.linux.cgroups_path.replace(':', "/");
        let names: Vec<&str> = place.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        let place = if names.is_empty() { id.to_owned() } else { names.join("/") };
        Some((container, format!("/{place}")))
    }
}

impl Containers for Bundles {
    fn of_cgroup(&self, cgroup: &str) -> Vec<ContainerId> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let names: Vec<String> = entries
            .take(MAXIMUM_BUNDLES + 1)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        // One more than can be looked at: somebody's container would be left out.
        if names.len() > MAXIMUM_BUNDLES {
            return Vec::new();
        }
        let found = names.iter().filter_map(|name| self.read(name));
        found.filter(|(_, of)| is_within(cgroup, of)).map(|(container, _)| container).collect()
    }
}
