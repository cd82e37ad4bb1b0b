use std::os::unix::fs::{MetadataExt as _, symlink};

use rustix::fs::{FileType, Mode, mknodat};
use tempfile::TempDir;

use super::read::{MAXIMUM_ENTRIES, MAXIMUM_PLAIN_BYTES};
use super::*;
use crate::namespaces::tests::in_namespaces;

/// The directory that runtimes share, a volume as kubelet makes it, and where sealed files go.
struct Scene {
    directory: TempDir,
    mounts: Vec<Mount>,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("shared/con-secrets/..2026");
        fs::create_dir_all(&data).unwrap();
        symlink("..2026", data.with_file_name("..data")).unwrap();
        let scene = Self { directory, mounts: Vec::new() };
        scene.write("password", "sealed.a.b.c");
        scene.write("user", "admin");
        scene
    }

    fn shared(&self) -> PathBuf {
        self.directory.path().join("shared")
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("own/con")
    }

    fn volume(&self) -> PathBuf {
        self.shared().join("con-secrets")
    }

    /// A file of the volume, with the link by which it is known.
    fn write(&self, name: &str, text: &str) {
        let path = self.volume().join("..2026").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
        symlink(format!("..data/{name}"), self.volume().join(name)).unwrap();
    }

    fn gather(&mut self, sources: &[PathBuf]) -> Result<Option<SecretFiles>, FilesError> {
        let options = ["rbind", "rw", "rprivate"].map(str::to_owned).to_vec();
        let mounts = sources.iter().map(|source| Mount {
            destination: "/etc/secrets".to_owned(),
            source: source.display().to_string(),
            type_: "bind".to_owned(),
            options: options.clone(),
            ..Mount::default()
        });
        self.mounts = mounts.collect();
        let (shared, place) = (self.shared(), self.place());
        SecretFiles::gather(&mut self.mounts, &shared, &place)
    }

    fn code(&mut self) -> &'static str {
        let volume = self.volume();
        let code = self.gather(&[volume]).unwrap_err().code();
        assert!(!self.place().exists(), "nothing is left");
        code
    }
}

fn secret(text: &str) -> Plaintext {
    Plaintext::take_from(&mut text.as_bytes().to_vec()).unwrap()
}

fn mounted(place: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(place.to_str().unwrap())
}

#[test]
fn a_volume_with_a_sealed_file_is_replaced_and_filled() {
    in_namespaces(&["--mount"], || {
        let mut scene = Scene::new();
        let volume = scene.volume();
        fs::create_dir(volume.join("more")).unwrap();
        fs::write(volume.join("more/note"), "x").unwrap();
        let files = scene.gather(&[volume]).unwrap().unwrap();
        let mount = &scene.mounts[0];
        assert_eq!(mount.source, scene.place().join("0").display().to_string());
        assert_eq!(mount.options, ["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"]);
        assert_eq!(files.texts().collect::<Vec<_>>(), [b"sealed.a.b.c"]);

        let inside = PathBuf::from(&mount.source);
        let read = |name: &str| fs::read_to_string(inside.join(name)).unwrap();
        let names: Vec<_> = ["more", "password", "user"].map(|name| inside.join(name)).to_vec();
        let mut found: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        assert_eq!(found, names);
        assert_eq!([read("password"), read("user"), read("more/note")], ["", "admin", "x"]);

        assert!(files.fill(0, &secret("hunter2")).unwrap());
        assert_eq!(read("password"), "hunter2");
        let stat = fs::metadata(inside.join("password")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o440, rustix::process::getuid().as_raw()));
        drop(files);
        assert!(!scene.place().exists() && !mounted(&scene.place()));
    });
}

/// Rotation: whoever reads meanwhile has the old secret or the new one, never a part.
#[test]
fn another_secret_takes_the_place_as_one_step() {
    in_namespaces(&["--mount"], || {
        let mut scene = Scene::new();
        let volume = scene.volume();
        let files = scene.gather(&[volume]).unwrap().unwrap();
        let path = PathBuf::from(&scene.mounts[0].source).join("password");
        let (first, second) = ("a".repeat(4096), "b".repeat(8192));
        assert!(files.fill(0, &secret(&first)).unwrap());
        let (mut held, number) = (File::open(&path).unwrap(), fs::metadata(&path).unwrap().ino());
        assert!(!files.fill(0, &secret(&first)).unwrap(), "the same again is no change");
        assert_eq!(fs::metadata(&path).unwrap().ino(), number);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = [0_usize; 2];
                while seen[1] == 0 {
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(text == first || text == second, "{} bytes", text.len());
                    seen[usize::from(text == second)] += 1;
                }
            });
            assert!(files.fill(0, &secret(&second)).unwrap());
            reader.join().unwrap();
        });
        let mut text = String::new();
        held.read_to_string(&mut text).unwrap();
        assert_eq!(text, first, "who has it open reads it to its end");
    });
}

#[test]
fn a_file_that_is_mounted_itself_is_filled_once() {
    in_namespaces(&["--mount"], || {
        let mut scene = Scene::new();
        let source = scene.volume().join("..data/password");
        let files = scene.gather(&[source]).unwrap().unwrap();
        let path = PathBuf::from(&scene.mounts[0].source);
        let number = fs::metadata(&path).unwrap().ino();
        assert!(files.fill(0, &secret("hunter2")).unwrap());
        assert!(!files.fill(0, &secret("hunter3")).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "hunter2");
        assert_eq!(fs::metadata(&path).unwrap().ino(), number, "a mount shows this one for ever");
    });
}

#[test]
fn other_mounts_are_left_as_they_are() {
    let mut scene = Scene::new();
    let plain = scene.shared().join("con-config");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("a"), "unsealed.a").unwrap();
    // Deeper than upstream looks, what runtimes give everybody, and what is no file.
    fs::create_dir(plain.join("b")).unwrap();
    fs::write(plain.join("b/c"), "sealed.a").unwrap();
    let hosts = scene.shared().join("con-hosts");
    fs::write(&hosts, "sealed.a").unwrap();
    let elsewhere = scene.directory.path().join("elsewhere");
    fs::write(&elsewhere, "sealed.a").unwrap();
    mknodat(rustix::fs::CWD, plain.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let sources = [plain, hosts, elsewhere];
    assert!(scene.gather(&sources).unwrap().is_none());
    let kept: Vec<_> = scene.mounts.iter().map(|mount| PathBuf::from(&mount.source)).collect();
    assert_eq!(kept, sources);
    assert!(scene.mounts.iter().all(|mount| mount.options == ["rbind", "rw", "rprivate"]));
    assert!(!scene.place().exists());
}

#[test]
fn evil_host_links_a_sealed_file_out_of_its_mount() {
    in_namespaces(&["--mount"], || {
        let mut scene = Scene::new();
        let (volume, own) = (scene.volume(), scene.directory.path().join("of-the-guest"));
        fs::write(&own, "kept by the guest").unwrap();
        fs::write(own.with_file_name("sealed"), "sealed.of.the.guest").unwrap();
        symlink(&own, volume.join("absolute")).unwrap();
        symlink("../../of-the-guest", volume.join("relative")).unwrap();
        symlink("../../sealed", volume.join("text")).unwrap();
        symlink("/proc/self/environ", volume.join("kernel")).unwrap();
        symlink("loop", volume.join("loop")).unwrap();
        let files = scene.gather(&[volume]).unwrap().unwrap();
        assert_eq!(files.texts().count(), 1);
        let mut found: Vec<_> = fs::read_dir(&scene.mounts[0].source)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, ["password", "user"], "what leads out is not there");
    });
}

/// What the floor refuses is not read before it is asked: a link out of what is shared would come back as a copy.
#[test]
fn evil_host_links_a_mount_with_a_sealed_file_out_of_what_is_shared() {
    in_namespaces(&["--mount"], || {
        let mut scene = Scene::new();
        let own = scene.directory.path().join("of-the-guest");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("bait"), "sealed.x").unwrap();
        fs::write(own.join("kept"), "kept by the guest").unwrap();
        let shared = scene.shared();
        symlink(&own, shared.join("absolute")).unwrap();
        symlink("../of-the-guest", shared.join("relative")).unwrap();
        symlink("/proc", shared.join("kernel")).unwrap();
        // Files of all containers, by the directory itself.
        fs::write(shared.join("password"), "sealed.x").unwrap();
        symlink(".", shared.join("all")).unwrap();
        let written = [
            "absolute",
            "relative",
            "absolute/bait",
            "../of-the-guest",
            "kernel/1",
            "",
            ".",
            "all",
            "con-secrets/..",
        ];
        let sources = written.map(|path| shared.join(path));
        assert!(scene.gather(&sources).unwrap().is_none());
        let kept: Vec<_> = scene.mounts.iter().map(|mount| PathBuf::from(&mount.source)).collect();
        assert_eq!(kept, sources, "for the floor to refuse");
    });
}

#[test]
fn evil_host_sealed_files_without_end() {
    in_namespaces(&["--mount"], || {
        let mut scene = Scene::new();
        for number in 0..MAXIMUM_FILES {
            scene.write(&format!("another{number}"), "sealed.x");
        }
        assert_eq!(scene.code(), "SEALED_FILE_TOO_MANY");

        let mut scene = Scene::new();
        scene.write("long", &format!("sealed.{}", "x".repeat(cdh::sealed_secret::MAXIMUM_SEALED_BYTES)));
        assert_eq!(scene.code(), "SEALED_FILE_TOO_MANY");

        let mut scene = Scene::new();
        scene.write("long", &"x".repeat(MAXIMUM_PLAIN_BYTES + 1));
        assert_eq!(scene.code(), "SEALED_FILE_TOO_MANY");

        let mut scene = Scene::new();
        (0..9).for_each(|number| scene.write(&format!("b{number}"), &"x".repeat(MAXIMUM_PLAIN_BYTES)));
        assert_eq!(scene.code(), "SEALED_FILE_TOO_MANY");

        let mut scene = Scene::new();
        let more = scene.volume().join("more");
        fs::create_dir(&more).unwrap();
        (0..=MAXIMUM_ENTRIES).for_each(|number| fs::write(more.join(number.to_string()), "").unwrap());
        assert_eq!(scene.code(), "SEALED_FILE_TOO_MANY");

        let mut scene = Scene::new();
        fs::create_dir_all(scene.volume().join("a/b/c/d/e/f")).unwrap();
        assert_eq!(scene.code(), "SEALED_FILE_TOO_MANY");

        // A directory that leads back into itself has an end, too.
        let mut scene = Scene::new();
        symlink(".", scene.volume().join("self")).unwrap();
        assert_eq!(scene.code(), "SEALED_FILE_TOO_MANY");
    });
}
