use std::path::Path;

use super::MountEntry;

const GOOD: &str = "77 1 0:9 / /mnt/model ro,nosuid,nodev,noexec,relatime - tmpfs innerkeep ro,size=4096k";

fn code(line: &str) -> Option<&'static str> {
    let entry = MountEntry::find(line.as_bytes(), 77).unwrap();
    entry.verify_landing(Path::new("/mnt/model")).err().map(|error| error.code())
}

/// The good line with one piece replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    GOOD.replacen(from, to, 1)
}

#[test]
fn landing_in_the_mount_table_is_accepted() {
    assert_eq!(code(GOOD), None);
    let optional = with("relatime - tmpfs", "relatime shared:3 master:1 - tmpfs");
    assert_eq!(code(&optional), None);
}

#[test]
fn entries_are_found_by_id_and_unescaped() {
    let table =
        format!("1 0 0:1 / / rw - ext4 /dev/vda rw\nrubbish\n{}\n", with("/mnt/model", "/a\\040b\\134"));
    let entry = MountEntry::find(table.as_bytes(), 77).unwrap();
    assert_eq!(entry.mount_point, Path::new("/a b\\"));
    assert_eq!(entry.fs_type, "tmpfs");
    assert!(MountEntry::find(table.as_bytes(), 78).is_none());
    assert!(MountEntry::find(b"77 1 0:9 / /x ro - tmpfs", 77).is_none());
}

#[test]
fn evil_mount_elsewhere_is_refused() {
    assert_eq!(code(&with("/mnt/model", "/mnt/other")), Some("MEM-014"));
}

#[test]
fn evil_foreign_mount_is_refused() {
    assert_eq!(code(&with("- tmpfs", "- fuse")), Some("MEM-014"));
    assert_eq!(code(&with("innerkeep", "tmpfs")), Some("MEM-014"));
    assert_eq!(code(&with("0:9 / ", "0:9 /sub ")), Some("MEM-014"));
}

#[test]
fn evil_writable_superblock_is_refused() {
    assert_eq!(code(&with("innerkeep ro,", "innerkeep rw,")), Some("MEM-014"));
    assert_eq!(code(&with("innerkeep ro,size", "innerkeep rw,errors=remount-ro,size")), Some("MEM-014"));
}

#[test]
fn evil_mount_options_are_refused() {
    for option in ["ro,", "nosuid,", "nodev,", "noexec,"] {
        assert_eq!(code(&with(option, "")), Some("MEM-014"), "{option}");
    }
}
