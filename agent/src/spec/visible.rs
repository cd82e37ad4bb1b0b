//! What a container really sees, between its creation and its start: sources of mounts are looked at before they are mounted, and a host that
//! shares a file system can put a link there in between. The kernel's list of mounts says what came of it.

use std::path::{Path, PathBuf};

use oci_spec::runtime as run;

use super::{Facts, SpecError, floor, mounts};

/// Most mounts of a namespace that are looked at.
const MAXIMUM_MOUNTS: usize = 16 * 1024;
/// File systems that no container sees.
const NEVER: [&str; 9] =
    ["binder", "binfmt_misc", "bpf", "configfs", "debugfs", "efivarfs", "pstore", "securityfs", "tracefs"];

/// File systems that are made for a container, each with a number that nobody else has.
const OWN: [&str; 5] = ["devpts", "hugetlbfs", "mqueue", "proc", "tmpfs"];
/// File systems of which there is one: what a container sees of it is decided by its namespaces.
const COMMON: [&str; 3] = ["cgroup", "cgroup2", "sysfs"];

/// A mount: which part of which file system is where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    device: String,
    root: PathBuf,
    point: PathBuf,
    kind: String,
}

/// A place in a file system, whatever it is mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    device: String,
    path: PathBuf,
}

/// The mounts of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts(Vec<Entry>);

impl Mounts {
    /// Reads the text of `/proc/PID/mountinfo`.
    ///
    /// # Errors
    /// `SPEC_VALUE`: a text of another form. `SPEC_TOO_MANY`.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let lines: Vec<&str> = text.lines().take(MAXIMUM_MOUNTS + 1).collect();
        super::within(AT, lines.len(), MAXIMUM_MOUNTS)?;
        let wrong = || SpecError::Value { at: AT.to_owned(), expected: "lines of the kernel" };
        lines.into_iter().map(entry).collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }

    /// Where a path is: the mount that covers it, the last one of several.
    fn place(&self, path: &Path) -> Option<Place> {
        let covers = self.0.iter().filter(|entry| path.starts_with(&entry.point));
        let entry = covers.max_by_key(|entry| entry.point.components().count())?;
        let rest = path.strip_prefix(&entry.point).ok()?;
        Some(Place { device: entry.device.clone(), path: entry.root.join(rest) })
    }

    /// A tree and what is mounted in it.
    fn places(&self, tree: &Path) -> Vec<Place> {
        let inside = self.0.iter().filter(|entry| entry.point.starts_with(tree));
        let inside = inside.map(|entry| Place { device: entry.device.clone(), path: entry.root.clone() });
        self.place(tree).into_iter().chain(inside).collect()
    }
}

const AT: &str = "mounts of the container";

/// ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS…] - TYPE …
fn entry(line: &str) -> Option<Entry> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(2);
    let device = fields.next()?.to_owned();
    let root = unescape(fields.next()?)?;
    let point = unescape(fields.next()?)?;
    let kind = file_system.split(' ').next()?.to_owned();
    Some(Entry { device, root, point, kind })
}

/// Spaces, tabs, line ends and backslashes are written as three octal digits.
fn unescape(text: &str) -> Option<PathBuf> {
    let mut parts = text.split('\\');
    let mut path = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3)?;
        path.push(char::from(u8::from_str_radix(digits, 8).ok()?));
        path.push_str(rest);
    }
    Some(PathBuf::from(path))
}

/// Holds the mounts of a container's namespace against the floor. `guest` are those of the agent's namespace.
///
/// # Errors
/// `SPEC_FLOOR`: the container sees a part of what the guest keeps to itself.
pub fn check(guest: &Mounts, container: &Mounts, facts: &Facts) -> Result<(), SpecError> {
    let refused = |what| SpecError::Floor { at: AT.to_owned(), what };
    let never: Vec<Place> = facts.protected.iter().flat_map(|tree| guest.places(tree)).collect();
    let shared: Vec<PathBuf> = floor::shared(facts).collect();
    let own = |point: &Path| shared.iter().any(|tree| point.starts_with(tree));
    let allowed: Vec<Place> = shared.iter().flat_map(|tree| guest.places(tree)).collect();
    let hidden: Vec<Place> = floor::DIRECTORIES
        .iter()
        .filter_map(|tree| guest.place(Path::new(tree)))
        .chain(
            guest
                .0
                .iter()
                .filter(|entry| !own(&entry.point) && in_ours(&entry.point))
                .map(|entry| Place { device: entry.device.clone(), path: entry.root.clone() }),
        )
        .collect();
    for entry in &container.0 {
        // GUARD: visible-type -> evil_host_brings_a_file_system_of_the_kernel_along
        if NEVER.contains(&entry.kind.as_str()) {
            return Err(refused("see such a file system"));
        }
        let touches = |place: &Place| {
            place.device == entry.device
                && (entry.root.starts_with(&place.path) || place.path.starts_with(&entry.root))
        };
        // GUARD: visible-landing -> evil_host_swaps_a_source_for_what_has_landed
        if never.iter().any(touches) {
            return Err(refused("see what the guest keeps to itself"));
        }
        let is_own =
            allowed.iter().any(|place| place.device == entry.device && entry.root.starts_with(&place.path));
        // GUARD: visible-directories -> evil_host_swaps_a_source_for_a_link
        if !is_own && hidden.iter().any(touches) {
            return Err(refused("see what the guest keeps to itself"));
        }
    }
    Ok(())
}

/// Holds the mounts of a container's namespace against its specification, as it was prepared: the root, what was to be bound, and file systems
/// that the container has for itself. `guest` are the mounts of the agent's namespace after the container was made.
///
/// # Errors
/// `SPEC_FLOOR`: a source was another one when it was mounted than when it was looked at.
pub fn check_ordered(guest: &Mounts, container: &Mounts, spec: &run::Spec) -> Result<(), SpecError> {
    let root = spec.root().as_ref().map(|root| guest.places(root.path()));
    let binds = spec.mounts().iter().flatten().filter(|mount| mount.typ().as_deref() == Some("bind"));
    let binds = binds.filter_map(|mount| Some((mount, mount.source().as_ref()?)));
    let bound = binds.flat_map(|(mount, source)| {
        let with_inner = mount.options().iter().flatten().any(|option| option == "rbind");
        if with_inner { guest.places(source) } else { guest.place(source).into_iter().collect() }
    });
    let ordered: Vec<Place> = root.into_iter().flatten().chain(bound).collect();
    let linux = spec.linux().as_ref();
    let covered = linux.into_iter().flat_map(|linux| [linux.masked_paths(), linux.readonly_paths()]);
    let covered: Vec<&str> =
        covered.flatten().flatten().map(String::as_str).chain(mounts::PROC_FILES).collect();
    for entry in &container.0 {
        // The image's own links decide where in it something is mounted.
        // GUARD: visible-proc -> evil_image_links_a_mount_onto_proc
        if !may_be_there(entry, &covered) {
            return Err(SpecError::Floor { at: AT.to_owned(), what: "mount on files of the kernel" });
        }
        let is_part = |place: &Place| place.device == entry.device && entry.root.starts_with(&place.path);
        let is_new = || !guest.0.iter().any(|other| other.device == entry.device);
        let kind = entry.kind.as_str();
        let explained =
            ordered.iter().any(is_part) || COMMON.contains(&kind) || (OWN.contains(&kind) && is_new());
        // GUARD: visible-ordered -> evil_host_swaps_a_source_for_another_part_of_the_guest
        if !explained {
            return Err(SpecError::Floor { at: AT.to_owned(), what: "see what was not ordered" });
        }
    }
    Ok(())
}

/// Whether `/proc` is the kernel's, and covered only where it is to be.
fn may_be_there(entry: &Entry, covered: &[&str]) -> bool {
    let proc = Path::new("/proc");
    if entry.point == proc {
        return entry.kind == "proc";
    }
    !entry.point.starts_with(proc) || covered.iter().any(|path| entry.point == Path::new(path))
}

fn in_ours(point: &Path) -> bool {
    floor::DIRECTORIES.iter().any(|tree| point.starts_with(tree))
}

#[cfg(test)]
mod tests;
