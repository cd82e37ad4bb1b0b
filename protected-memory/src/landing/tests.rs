use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, ftruncate, mkdirat, openat};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{
    AttachTarget, Complete, DetachedMount, Filling, Landing, LandingError, LandingPolicy, SwapPolicy,
    TeeState,
};
use crate::sys::child::unshare;
use crate::sys::mapping::Mapping;
use crate::testing::{
    contents, fork, insecure, isolated, landing, name, pattern, plan, plenty, swap, vm_flags, wait,
};
use crate::{Class, HUGE_PAGE_BYTES, PageClass};

const LEN: usize = HUGE_PAGE_BYTES + 4096 + 17;

fn fill(landing: &mut Landing<Filling>) {
    for file in landing.files_mut() {
        let pattern = pattern(usize::try_from(file.size()).unwrap());
        thread::scope(|scope| {
            for mut window in file.segments(64 << 10).unwrap() {
                let from = usize::try_from(window.offset()).unwrap();
                let part = &pattern[from..from + window.len()];
                scope.spawn(move || window.bytes_mut().copy_from_slice(part));
            }
        });
    }
}

/// A descriptor that only reads: it does not stand in the way of completion and sees what happens to the pages.
fn witness(landing: &Landing<Filling>, index: usize) -> OwnedFd {
    let file = landing.state.tmpfs.open_file(landing.state.files[index].name()).unwrap();
    assert_ne!(contents(&file).iter().filter(|byte| **byte != 0).count(), 0, "nothing to wipe");
    file
}

fn assert_wiped(witness: &OwnedFd, len: usize) {
    let bytes = contents(witness);
    assert_eq!(bytes.len(), len);
    assert!(bytes.iter().all(|byte| *byte == 0), "plaintext is left");
}

/// What a device does with the descriptor that it was sent.
fn device_writes(file: &OwnedFd, len: usize) {
    let mut written = 0;
    while written < len {
        written += rustix::io::pwrite(file, &pattern(len)[written..], written as u64).unwrap();
    }
}

fn complete(mut landing: Landing<Filling>) -> Landing<Complete> {
    fill(&mut landing);
    landing.complete().unwrap()
}

#[test]
fn landed_files_are_readable_and_equal() {
    isolated(|| {
        let (mut namespaces, landing) = landing(&[LEN as u64, 1, 0]);
        let landed = complete(landing);
        for (index, len) in [LEN, 1, 0].into_iter().enumerate() {
            let mut bytes = Vec::new();
            landed.open(index).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == pattern(len));
            assert!(landed.map(index).unwrap().bytes() == pattern(len));
        }
        assert_eq!(landed.open(3).unwrap_err().code(), "MEM-008");
        let mount = namespaces.attach(&landed, &name("model")).unwrap();
        assert!(fs::read(mount.file(&name("file-0"))).unwrap() == pattern(LEN));
        assert_eq!(
            landed.files().map(|(name, size)| (name.as_str(), size)).collect::<Vec<_>>(),
            [("file-0", LEN as u64), ("file-1", 1), ("file-2", 0)]
        );
    });
}

#[test]
fn landing_is_in_no_mount_table_before_it_is_complete_and_attached() {
    /// How many processes see a mount with this label.
    fn seen_by(label: &str) -> usize {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let processes = processes.filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().is_ok());
        let tables =
            processes.filter_map(|process| fs::read_to_string(process.path().join("mountinfo")).ok());
        tables.filter(|table| table.contains(label)).count()
    }
    isolated(|| {
        let (mut namespaces, mut landing) = landing(&[LEN as u64]);
        let own = |needle: &str| fs::read_to_string("/proc/self/mountinfo").unwrap().contains(needle);
        assert!(!own("innerkeep"));
        fill(&mut landing);
        assert!(!own("innerkeep"));
        let landed = landing.complete().unwrap();
        assert!(!own("innerkeep"));
        let label = format!("landing-of-{}", std::process::id());
        assert_eq!(seen_by(&label), 0);
        let mount = namespaces.attach(&landed, &name(&label)).unwrap();
        assert!(own("innerkeep") && own(&label));
        assert_eq!(seen_by(&label), 1, "seen by this process and no other");
        assert!(mount.path().is_dir());
    });
}

#[test]
fn dropped_landing_is_wiped() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64, 9]);
        fill(&mut landing);
        let witnesses = [witness(&landing, 0), witness(&landing, 1)];
        drop(landing);
        assert_wiped(&witnesses[0], LEN);
        assert_wiped(&witnesses[1], 9);
    });
}

#[test]
fn dropped_landing_that_a_device_filled_is_wiped() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let device = landing.file_mut(0).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
        device_writes(&device, LEN);
        drop(landing);
        assert_wiped(&device, LEN);
    });
}

#[test]
fn landing_that_fails_to_complete_is_wiped_whole() {
    isolated(|| {
        // The file of one payload is kept by a device: the other, filled by threads, is wiped too.
        let (_namespaces, mut landing) = landing(&[LEN as u64, LEN as u64]);
        fill(&mut landing);
        let witness = witness(&landing, 0);
        let _kept = landing.file_mut(1).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
        assert_eq!(landing.complete().unwrap_err().code(), "MEM-010");
        assert_wiped(&witness, LEN);
    });
}

#[test]
fn evil_device_keeps_descriptor_is_refused_and_wiped() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let device = landing.file_mut(0).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
        device_writes(&device, LEN);
        let error = landing.complete().unwrap_err();
        assert_eq!((error.code(), error.class()), ("MEM-010", Class::DeviceFault));
        assert_wiped(&device, LEN);
    });
}

#[test]
fn evil_device_keeps_mapping_is_refused_and_wiped() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let device = landing.file_mut(0).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
        device_writes(&device, LEN);
        let mapping = Mapping::writable(device.as_fd(), LEN, HUGE_PAGE_BYTES).unwrap();
        drop(device);
        let memory = mapping.device_memory();
        let mut seen = vec![0; LEN];
        memory.copy_out(0, &mut seen).unwrap();
        assert!(seen == pattern(LEN));
        let error = landing.complete().unwrap_err();
        assert_eq!((error.code(), error.class()), ("MEM-010", Class::DeviceFault));
        memory.copy_out(0, &mut seen).unwrap();
        assert!(seen.iter().all(|byte| *byte == 0), "plaintext is left");
    });
}

#[test]
fn evil_device_in_another_process_keeps_memory_is_refused_and_wiped() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let device = landing.file_mut(0).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
        device_writes(&device, LEN);
        let witness = witness(&landing, 0);
        let (read, write) = rustix::pipe::pipe().unwrap();
        let other = fork(move || {
            rustix::io::read(&read, &mut [0; 1]).unwrap();
            drop(device);
            0
        });
        let error = landing.complete().unwrap_err();
        assert_eq!(error.code(), "MEM-010");
        assert_wiped(&witness, LEN);
        rustix::io::write(&write, b"x").unwrap();
        assert_eq!(wait(other).code(), Some(0));
    });
}

#[test]
fn device_that_lets_go_lands() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let file = landing.file_mut(0).unwrap();
        let page_class = file.page_class();
        let region = file.dma_region();
        assert_eq!((region.offset(), region.len(), region.page_class()), (0, LEN as u64, page_class));
        assert!(region.address().unwrap().is_multiple_of(4096));
        let device = region.fd().try_clone_to_owned().unwrap();
        device_writes(&device, LEN);
        drop(device);
        let landed = landing.complete().unwrap();
        assert!(landed.map(0).unwrap().bytes() == pattern(LEN));
    });
}

#[test]
fn evil_device_truncates_landing_is_refused() {
    isolated(|| {
        for found in [0, LEN as u64 - 1, LEN as u64 + 1] {
            let (_namespaces, mut landing) = landing(&[LEN as u64]);
            let device = landing.file_mut(0).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
            device_writes(&device, LEN);
            ftruncate(&device, found).unwrap();
            drop(device);
            let error = landing.complete().unwrap_err();
            assert_eq!((error.code(), error.class()), ("MEM-011", Class::DeviceFault));
            assert!(error.to_string().contains(&format!("expected {LEN} bytes, found {found}")), "{error}");
        }
    });
}

#[test]
fn evil_device_truncates_landing_cannot_kill_the_wipe() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let device = landing.file_mut(0).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
        ftruncate(&device, 0).unwrap();
        drop(landing);
    });
}

#[test]
fn evil_device_file_is_refused_to_the_cpu() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[8]);
        let file = landing.file_mut(0).unwrap();
        assert_eq!(file.window().unwrap().len(), 8);
        file.dma_region();
        assert_eq!(file.window().unwrap_err().code(), "MEM-009");
        assert_eq!(file.segments(4).unwrap_err().code(), "MEM-009");
    });
}

#[test]
fn complete_landing_is_read_only_as_superblock() {
    isolated(|| {
        let (_namespaces, landing) = landing(&[LEN as u64]);
        let landed = complete(landing);
        let tmpfs = &landed.state.tmpfs;
        let refused = |result: std::io::Result<OwnedFd>| {
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        };
        refused(tmpfs.open_file_writable(&name("file-0")));
        refused(tmpfs.create_file(&name("new")));
        let file = landed.open(0).unwrap();
        assert!(file.set_len(0).is_err());
        // Not by a mapping of a descriptor that only reads.
        assert!(Mapping::writable(file.as_fd(), LEN, 1).is_err());
        // Not by opening the descriptor anew.
        let reopened = fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        assert_eq!(reopened.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    });
}

#[test]
fn superblock_stays_writable_while_a_writer_lives() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        fill(&mut landing);
        let Landing { state: Filling { mut files, tmpfs }, .. } = landing;
        let busy = || assert_eq!(tmpfs.make_read_only().unwrap_err().code(), "MEM-010");
        busy();
        let descriptor = tmpfs.open_file_writable(&name("file-0")).unwrap();
        files.remove(0).give_up_writing().unwrap();
        busy();
        let mapping = Mapping::writable(descriptor.as_fd(), LEN, 1).unwrap();
        drop(descriptor);
        busy();
        drop(mapping);
        tmpfs.make_read_only().unwrap();
    });
}

#[test]
fn superblock_that_is_still_writable_is_refused() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        fill(&mut landing);
        let witness = witness(&landing, 0);
        let Landing { state: Filling { files, tmpfs }, .. } = landing;
        // As if the remount had reported success and done nothing.
        let files = files.into_iter().map(|file| file.give_up_writing().unwrap()).collect();
        let complete = Complete { files, tmpfs, wiped: false };
        assert_eq!(complete.verify_file(0).unwrap_err().code(), "MEM-012");
        drop(complete);
        assert_wiped(&witness, LEN);
    });
}

#[test]
fn first_mount_is_attached_where_the_kernel_clones_none() {
    isolated(|| {
        let (_namespaces, landing) = landing(&[LEN as u64]);
        let landed = complete(landing);
        let room = tempfile::tempdir().unwrap();
        let mount = DetachedMount::new(landed.state.tmpfs.first_mount().unwrap());
        let attachment = mount.attach(AttachTarget::path(room.path())).unwrap();
        assert!(fs::read(attachment.path().join("file-0")).unwrap() == pattern(LEN));
        assert!(landed.map(0).unwrap().bytes() == pattern(LEN));
        let reader = OwnedFd::from(landed.open(0).unwrap());
        landed.release().unwrap();
        assert_wiped(&reader, LEN);
        attachment.detach().unwrap();
    });
}

#[test]
fn landing_attaches_in_the_mount_namespace_of_a_container() {
    isolated(|| {
        let (_namespaces, landing) = landing(&[LEN as u64]);
        let landed = complete(landing);
        let room = tempfile::tempdir().unwrap();
        let (container, helper) = (room.path().join("container"), room.path().join("helper"));
        for path in [&container, &helper] {
            fs::create_dir(path).unwrap();
        }
        let (ready, tell_ready) = rustix::pipe::pipe().unwrap();
        let (go, tell_go) = rustix::pipe::pipe().unwrap();
        let path = container.clone();
        let contained = fork(move || {
            unshare(UnshareFlags::NEWNS).unwrap();
            rustix::io::write(&tell_ready, b"x").unwrap();
            rustix::io::read(&go, &mut [0; 1]).unwrap();
            i32::from(fs::read(path.join("file-0")).unwrap() != pattern(LEN))
        });
        rustix::io::read(&ready, &mut [0; 1]).unwrap();
        let namespace = fs::File::open(format!("/proc/{}/ns/mnt", contained.as_raw_nonzero())).unwrap();
        let mount = landed.mount().unwrap();
        let one_shot = fork(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).unwrap();
            let root = fs::File::open(room.path()).unwrap();
            let attachment =
                mount.attach(AttachTarget::in_root(root.as_fd(), Path::new("/container"))).unwrap();
            i32::from(attachment.path() != container)
        });
        assert_eq!(wait(one_shot).code(), Some(0));
        assert!(!container.join("file-0").exists(), "seen outside the container");
        rustix::io::write(&tell_go, b"x").unwrap();
        assert_eq!(wait(contained).code(), Some(0));
    });
}

#[test]
fn released_landing_is_wiped() {
    isolated(|| {
        let (mut namespaces, landing) = landing(&[LEN as u64]);
        let landed = complete(landing);
        let reader = OwnedFd::from(landed.open(0).unwrap());
        let mount = namespaces.attach(&landed, &name("model")).unwrap();
        let through_mount = OwnedFd::from(fs::File::open(mount.file(&name("file-0"))).unwrap());
        landed.release().unwrap();
        assert_wiped(&reader, LEN);
        assert_wiped(&through_mount, LEN);
        // The mount that was attached is read-only itself, whatever the superblock is.
        let error = fs::OpenOptions::new().write(true).open(mount.file(&name("file-0"))).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    });
}

#[test]
fn released_landing_that_a_device_filled_is_wiped() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let device = landing.file_mut(0).unwrap().dma_region().fd().try_clone_to_owned().unwrap();
        device_writes(&device, LEN);
        drop(device);
        let landed = landing.complete().unwrap();
        let reader = OwnedFd::from(landed.open(0).unwrap());
        drop(landed);
        assert_wiped(&reader, LEN);
    });
}

#[test]
fn evil_symlink_in_attach_target_is_refused() {
    isolated(|| {
        let (mut namespaces, landing) = landing(&[1]);
        let landed = complete(landing);
        let room = tempfile::tempdir().unwrap();
        fs::create_dir(room.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", room.path().join("link")).unwrap();
        fs::create_dir(room.path().join("real/below")).unwrap();
        let code = |path: &str| match landed.attach(AttachTarget::path(&room.path().join(path))) {
            Ok(attachment) => {
                attachment.detach().unwrap();
                "attached"
            }
            Err(error) => error.code(),
        };
        assert_eq!(code("link"), "MEM-013");
        assert_eq!(code("link/below"), "MEM-013");
        assert_eq!(code("missing"), "MEM-013");
        assert_eq!(code("real"), "attached");
        assert_eq!(namespaces.attach(&landed, &name("a")).unwrap().path().file_name().unwrap(), "a");
    });
}

#[test]
fn evil_attach_target_outside_root_is_refused() {
    isolated(|| {
        let (_namespaces, landing) = landing(&[1]);
        let landed = complete(landing);
        let room = tempfile::tempdir().unwrap();
        for directory in ["root", "outside", "root/inside"] {
            mkdirat(CWD, room.path().join(directory), Mode::RWXU).unwrap();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, room.path().join("root"), flags, Mode::empty()).unwrap();
        let attach = |path| landed.attach(AttachTarget::in_root(root.as_fd(), Path::new(path)));
        assert_eq!(attach("../outside").unwrap_err().code(), "MEM-013");
        let attachment = attach("/../inside").unwrap();
        assert_eq!(attachment.path(), room.path().join("root/inside"));
        attachment.detach().unwrap();
    });
}

#[test]
fn evil_mount_over_the_target_is_noticed() {
    isolated(|| {
        let (mut namespaces, landing) = landing(&[1]);
        let landed = complete(landing);
        let first = namespaces.attach(&landed, &name("a")).unwrap();
        // The label is taken; and a second landing over the first is a second mount with its own id.
        assert_eq!(namespaces.attach(&landed, &name("a")).unwrap_err().code(), "MEM-064");
        let target = AttachTarget::path(first.path());
        first.attachment().verify(target).unwrap();
        let second = landed.attach(target).unwrap();
        assert_ne!(first.attachment().mount_id(), second.mount_id());
        assert_eq!(first.attachment().verify(target).unwrap_err().code(), "MEM-014");
        second.detach().unwrap();
        first.attachment().verify(target).unwrap();
    });
}

#[test]
fn landing_pages_are_not_dumped_nor_forked() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[LEN as u64]);
        let address = landing.file_mut(0).unwrap().window().unwrap().bytes_mut().as_ptr().addr();
        let flags = vm_flags(address);
        assert!(flags.iter().any(|flag| flag == "dd"), "{flags:?}");
        assert!(flags.iter().any(|flag| flag == "dc"), "{flags:?}");
    });
}

#[test]
fn landing_pages_are_reported() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[4 * HUGE_PAGE_BYTES as u64]);
        fill(&mut landing);
        let address = landing.file_mut(0).unwrap().window().unwrap().bytes_mut().as_ptr().addr();
        let supported = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
            .is_ok_and(|text| !text.contains("[deny]"));
        let expected = if supported { PageClass::Huge2M } else { PageClass::Base4K };
        assert_eq!(landing.report().page_class, expected);
        if expected == PageClass::Huge2M {
            assert!(address.is_multiple_of(HUGE_PAGE_BYTES));
        }
        assert_eq!(landing.report().swap_areas, 0);
    });
}

#[test]
fn swap_counts_only_where_noswap_is_refused() {
    isolated(|| {
        let _namespaces = crate::confine::enter_private_namespaces().unwrap();
        let facts = super::HostFacts::new(1 << 40, swap(1));
        let strict = LandingPolicy { swap: SwapPolicy::Refuse, ..insecure() };
        match Landing::create_with_facts(&plan(&[1]), strict, TeeState::None, &facts) {
            Ok(landing) => assert!(landing.report().noswap),
            Err(error) => assert!(matches!(error, LandingError::SwapOn { areas: 1 }), "{error}"),
        }
        let landing = Landing::create_with_facts(&plan(&[1]), insecure(), TeeState::None, &facts).unwrap();
        let report = landing.report();
        assert_eq!(report.insecure.contains(&super::InsecureChoice::Swap), !report.noswap);
    });
}

#[test]
fn landing_without_the_right_to_mount_says_so() {
    isolated(|| {
        if !rustix::process::geteuid().is_root() {
            let error =
                Landing::create_with_facts(&plan(&[1]), insecure(), TeeState::None, &plenty()).unwrap_err();
            assert_eq!(
                (error.code(), error.to_string().as_str()),
                ("MEM-006", "private tmpfs: fsopen failed")
            );
        }
    });
}

#[test]
fn landing_prints_no_contents() {
    isolated(|| {
        let (_namespaces, mut landing) = landing(&[16]);
        fill(&mut landing);
        let text = format!("{landing:?}");
        assert!(text.contains("file-0") && !text.contains("bytes"), "{text}");
        let landed = landing.complete().unwrap();
        assert_eq!(format!("{:?}", landed.map(0).unwrap()), "LandedBytes(..)");
    });
}
