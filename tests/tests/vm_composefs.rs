//! Trees with integrity at run time, in a guest whose kernel has fs-verity: `composefs-guest` mounts them, and is the host that alters its disk.

use std::process::Command;

use tests::disk_images::blank;
use tests::programs::{Programs, User};
use tests::vm::{self, boot, exec, shell};
use tests::work::Work;

/// Every check that the program has to report, attacks first.
const CHECKS: [&str; 16] = [
    "evil_host_flips_a_bit_of_an_object",
    "evil_host_flips_a_bit_of_the_probed_object",
    "evil_host_flips_a_bit_of_the_image",
    "evil_host_swaps_an_object",
    "evil_host_takes_verity_from_an_object",
    "evil_host_withholds_an_object",
    "evil_image_of_the_host",
    "evil_object_that_is_not_what_it_is_called",
    "evil_object_in_memory_is_another",
    "evil_writer_of_private_memory",
    "evil_image_marks_its_files_for_overlays",
    "a_tree_in_memory_reads_as_it_was_made",
    "a_tree_on_a_disk_reads_as_it_was_made",
    "a_tree_that_is_written_to_leaves_the_verified_one",
    "a_store_is_used_again",
    "a_store_without_fs_verity_is_refused",
];

#[test]
fn trees_are_what_their_digests_say() {
    let programs = Programs::built();
    let work = Work::create(User::Same);
    let disk = blank(&work, "objects", 64);
    let mut make = Command::new("/usr/sbin/mkfs.ext4");
    make.args(["-q", "-F", "-O", "^has_journal,verity", "-b", "4096"]).arg(&disk);
    let output = make.output().unwrap_or_else(|error| panic!("start mkfs.ext4 (package e2fsprogs): {error}"));
    assert!(output.status.success(), "{make:?}: {}", String::from_utf8_lossy(&output.stderr));
    let spec = vm::spec(&programs, &["composefs-guest"]).disk(&disk).modules(&["erofs", "overlay", "loop"]);
    let guest = boot(spec);
    eprintln!("{}", shell(&guest, "uname -r; ls /dev/vd* /dev/loop-control"));
    let said = exec(&guest, &["/bin/composefs-guest", "/dev/vda"]);
    let text = said.stdout.clone();
    for check in CHECKS {
        assert!(
            text.lines().any(|line| line == format!("ok {check}")),
            "{check} in:\n{text}\n{}\n{}",
            said.stderr,
            guest.serial()
        );
    }
    assert_eq!(said.status, 0, "{text}");
}
