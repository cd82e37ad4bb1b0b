//! What a container really sees, between its creation and its start: sources of mounts are looked at before they are mounted, and a host that
//! shares a file system can put a link there in between. The kernel's list of mounts says what came of it.

use std::path::{Path, PathBuf};

use super::{Facts, SpecError, floor};

/// Most mounts of a namespace that are looked at.
const MAXIMUM_MOUNTS: usize = 16 * 1024;
/// File systems that no container sees.
const NEVER: [&str; 9] =
    ["binder", "binfmt_misc", "bpf", "configfs", "debugfs", "efivarfs", "pstore", "securityfs", "tracefs"];

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

fn in_ours(point: &Path) -> bool {
    floor::DIRECTORIES.iter().any(|tree| point.starts_with(tree))
}

#[cfg(test)]
mod tests {
    use protocol::ids::ContainerId;

    use super::*;

    const GUEST: &str = "\
1 0 0:1 / / rw - rootfs rootfs rw
2 1 0:2 / /run rw shared:1 - tmpfs tmpfs rw
3 2 0:3 / /run/kata-containers/shared/containers rw - virtiofs kataShared rw
4 2 8:0 / /run/kata-containers/other/rootfs ro - ext4 /dev/sda ro
5 2 8:16 / /run/kata-containers/abc/rootfs ro - ext4 /dev/sdb ro
6 2 0:9 / /run/kata-containers/sandbox/shm rw - tmpfs shm rw
7 1 0:7 / /mnt/landing\\040one ro - tmpfs tmpfs ro
";
    const CONTAINER: &str = "\
50 40 8:16 / / ro - ext4 /dev/sdb ro
51 50 0:50 / /proc rw - proc proc rw
52 50 0:51 / /dev rw - tmpfs tmpfs rw
53 50 0:20 / /sys ro - sysfs sysfs ro
54 50 0:9 / /dev/shm rw - tmpfs shm rw
55 50 0:3 /abc-hosts /etc/hosts rw - virtiofs kataShared rw
56 50 0:2 /kata-containers/sandbox/resolv.conf /etc/resolv.conf rw - tmpfs tmpfs rw
57 51 0:5 /null /proc/kcore rw - devtmpfs dev rw
";

    fn check_with(more: &str) -> Result<(), &'static str> {
        let id = ContainerId::parse("abc").unwrap();
        let mut facts = Facts::new(id, PathBuf::from("/run/kata-containers/abc"), true);
        facts.protected.push(PathBuf::from("/mnt/landing one"));
        let guest = Mounts::parse(GUEST).unwrap();
        let container = Mounts::parse(&format!("{CONTAINER}{more}")).unwrap();
        check(&guest, &container, &facts).map_err(|error| error.code())
    }

    #[test]
    fn an_ordinary_container_sees_what_it_may() {
        assert_eq!(check_with(""), Ok(()));
        assert_eq!(
            check_with("60 50 0:2 /kata-containers/sandbox/ephemeral/x /data rw - tmpfs tmpfs rw\n"),
            Ok(())
        );
    }

    #[test]
    fn evil_host_swaps_a_source_for_a_link() {
        for mount in [
            "0:2 / /data rw - tmpfs tmpfs rw",
            "0:2 /innerkeep/sockets /data rw - tmpfs tmpfs rw",
            "0:2 /kata-containers /data rw - tmpfs tmpfs rw",
            "0:2 /kata-containers/other /data rw - tmpfs tmpfs rw",
            "0:2 /kata-containers/abc/config.json /data rw - tmpfs tmpfs rw",
            "8:0 / /data ro - ext4 /dev/sda ro",
            "8:0 /etc /data ro - ext4 /dev/sda ro",
        ] {
            assert_eq!(check_with(&format!("60 50 {mount}\n")), Err("SPEC_FLOOR"), "{mount}");
        }
    }

    #[test]
    fn evil_host_swaps_a_source_for_what_has_landed() {
        assert_eq!(check_with("60 50 0:7 / /data ro - tmpfs tmpfs ro\n"), Err("SPEC_FLOOR"));
        assert_eq!(check_with("60 50 0:7 /weights /data ro - tmpfs tmpfs ro\n"), Err("SPEC_FLOOR"));
    }

    #[test]
    fn evil_host_brings_a_file_system_of_the_kernel_along() {
        for kind in NEVER {
            assert_eq!(check_with(&format!("60 50 0:77 / /data/x rw - {kind} x rw\n")), Err("SPEC_FLOOR"));
        }
    }

    #[test]
    fn lines_of_another_form_are_refused() {
        for text in ["x", "1 2 0:1 / /a\\04 rw - tmpfs x rw", "1 2 0:1 / rw - tmpfs", "\n"] {
            let read = Mounts::parse(text);
            assert!(read.is_err() || text.ends_with("tmpfs"), "{text:?}");
        }
    }
}
