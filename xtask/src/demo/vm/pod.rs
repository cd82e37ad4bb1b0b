//! A pod in the guest: its container reads the sealed model, and the host, which started it, does not.

use super::super::actors::PreparedModel;
use super::super::refusals::Judge;
use super::beside::{self, Secrets};
use super::images::{ADDRESS, HARDWARE, Images};
use super::runtime::{Answer, Runtime};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use xtask::vm::{Guest, VerityRoot};

/// Where the model may be found: below what the host offers.
pub const REFERENCE: &str = "registry.example/demo/model:latest";
/// The directory in the container that it appears in.
pub const PLACE: &str = "/models/model";
/// The tag of the file system that the host shares.
pub const TAG: &str = "out";
/// Where the guest has it.
const SHARED: &str = "/run/kata-containers/shared/containers";
/// The root that the host made, below what it shares.
pub const FOREIGN_ROOT: &str = "evil/rootfs";
/// The disk with the root: the second one, behind initdata.
const DISK: &str = "/dev/vdb";
const CONTAINER: &str = "server";
/// The container on the image with sealed layers.
const LAYERS: &str = "layers";
/// The first process says by this status that it was told to end, and had read the model that was sealed.
const READ_IT: i64 = 42;
/// Until a process has read the model.
const PATIENCE: Duration = Duration::from_secs(180);

/// The file that was sealed.
#[derive(Clone, Debug)]
pub struct Model {
    name: String,
    sha256: String,
}

impl Model {
    /// What was prepared.
    pub fn of(model: &PreparedModel) -> anyhow::Result<Self> {
        let name = model.path.file_name().and_then(|name| name.to_str()).context("a model with a name")?;
        Ok(Self { name: name.to_owned(), sha256: model.sha256.clone() })
    }
}

/// The program of the container: it hashes the model, compares, says so where only the guest sees it, and waits to be ended.
pub fn args(model: &Model) -> [String; 3] {
    let Model { name, sha256 } = model;
    let script = format!(
        "echo -n \"$PASSWORD\" | sha256sum > /dev/shm/secret; \
         sha256sum {PLACE}/{name} > /dev/shm/seen || exit 8; read sum rest < /dev/shm/seen; echo the sum is $sum; \
         test $sum = {sha256} || exit 9; trap 'exit {READ_IT}' TERM; touch /dev/shm/served; while :; do sleep 0.1; done"
    );
    ["sh".to_owned(), "-c".to_owned(), script]
}

/// That of the image with sealed layers: it shows which image it is.
const SHOW: [&str; 3] =
    ["sh", "-c", "cat /mark > /dev/shm/seen; touch /dev/shm/served; while :; do sleep 0.1; done"];

/// The containers that policy lets pass: index and program, by name.
pub fn containers(model: &Model) -> Value {
    let args = args(model);
    let mut containers: Value = [CONTAINER, "pulled", beside::STALE, beside::STRANGER]
        .into_iter()
        .enumerate()
        .map(|(index, name)| (name.to_owned(), json!({ "index": index, "args": args })))
        .collect();
    containers[LAYERS] = json!({ "index": 4, "args": SHOW });
    containers
}

/// What was seen.
pub struct Seen {
    /// What the container computed, hex.
    pub sha256: String,
    /// The same of its secret.
    pub secret: String,
    /// The line of its table of mounts.
    pub mount: String,
    /// Milliseconds that the agent needed to land the artifact.
    pub landed_ms: u64,
}

/// A pod that is being driven.
pub struct Pod<'a> {
    guest: &'a Guest,
    runtime: &'a mut Runtime,
    model: &'a Model,
    root: &'a VerityRoot,
}

impl<'a> Pod<'a> {
    /// The sandbox. From now on the guest sees what the host shares.
    pub fn create(
        guest: &'a Guest,
        runtime: &'a mut Runtime,
        model: &'a Model,
        root: &'a VerityRoot,
    ) -> anyhow::Result<Self> {
        let storage = json!({ "driver": "virtio-fs", "source": TAG, "fstype": "virtiofs", "place": SHARED });
        runtime.ok(&json!({ "call": "create_sandbox", "id": "pod1", "storages": [storage] }))?;
        let (name, mask) = ("eth0", "24");
        runtime.ok(&json!({ "call": "update_interface", "name": name, "hardware": HARDWARE, "address": ADDRESS, "mask": mask }))?;
        Ok(Self { guest, runtime, model, root })
    }

    /// The container that bound configuration names: it is started when its artifact is there, and reads it.
    pub fn serve(&mut self) -> anyhow::Result<Seen> {
        let options = self.root.options();
        let create =
            self.create_request(CONTAINER, &format!("/run/kata-containers/{CONTAINER}/rootfs"), &options);
        self.runtime.ok(&create)?;
        self.runtime.ok(&json!({ "call": "start_container", "id": CONTAINER }))?;
        let metrics = self.runtime.ok(&json!({ "call": "get_metrics" }))?;
        let metrics = metrics["metrics"].as_str().unwrap_or_default();
        let ready = "innerkeep_sealed_artifact_stage{artifact=\"model\",stage=\"ready\",code=\"\"} 1";
        ensure!(metrics.contains(ready), "the artifact is not ready by the agent's own figures: {metrics}");
        self.seen(CONTAINER)
    }

    /// What a container has read.
    fn seen(&self, id: &str) -> anyhow::Result<Seen> {
        let process = self.process(id)?;
        let end = Instant::now() + PATIENCE;
        while !self.holds(&format!("test -e /proc/{process}/root/dev/shm/served"))? {
            ensure!(Instant::now() < end, "the container did not read the model:\n{}", self.guest.serial());
            ensure!(self.holds(&format!("test -d /proc/{process}/root/dev"))?, "the container ended early");
            std::thread::sleep(Duration::from_millis(100));
        }
        let seen = self.guest.shell(&format!("cat /proc/{process}/root/dev/shm/seen"))?;
        let mount = self.guest.shell(&format!("grep ' {PLACE} ' /proc/{process}/mountinfo"))?;
        let secret = self.guest.shell(&format!("cat /proc/{process}/root/dev/shm/secret"))?;
        let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Seen {
            sha256: first(&seen),
            secret: first(&secret),
            mount: mount.trim().to_owned(),
            landed_ms: self.log("artifact landed", "ms")?.as_u64().context("how long landing took")?,
        })
    }

    /// Another container, on an image that the guest pulls itself: the host only says its name. It reads the same model, and a secret that the
    /// host carries sealed.
    pub fn pulled(&mut self, images: &Images, secrets: &Secrets) -> anyhow::Result<Seen> {
        let create = self.pulled_request("pulled", &images.name(), &secrets.own);
        self.runtime.ok(&create)?;
        self.runtime.ok(&json!({ "call": "start_container", "id": "pulled" }))?;
        let seen = self.seen("pulled")?;
        self.runtime.ok(&json!({ "call": "remove_container", "id": "pulled" }))?;
        Ok(seen)
    }

    /// A container on an image whose layers are sealed: it says which image it is.
    pub fn sealed_layers(&mut self, images: &Images) -> anyhow::Result<String> {
        self.runtime.ok(&self.image_request(LAYERS, &SHOW, &images.sealed(), &[]))?;
        self.runtime.ok(&json!({ "call": "start_container", "id": LAYERS }))?;
        let process = self.process(LAYERS)?;
        let end = Instant::now() + PATIENCE;
        while !self.holds(&format!("test -e /proc/{process}/root/dev/shm/served"))? {
            ensure!(
                Instant::now() < end,
                "the container with sealed layers does not run:\n{}",
                self.guest.serial()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let seen = self.guest.shell(&format!("cat /proc/{process}/root/dev/shm/seen"))?;
        self.runtime.ok(&json!({ "call": "remove_container", "id": LAYERS }))?;
        Ok(seen)
    }

    /// The container on the signed image, with a secret that nobody sealed for it: it is not started.
    pub fn evil_secrets(
        &mut self,
        images: &Images,
        secrets: &Secrets,
        judge: &mut Judge<'_>,
    ) -> anyhow::Result<()> {
        let attacks = [
            ("the host alters the sealed secret", &secrets.altered, "SEGMENT_AUTH"),
            ("a secret that somebody else sealed", &secrets.strangers, "ORIGIN_UNPROVEN"),
        ];
        for (attack, secret, code) in attacks {
            self.runtime.ok(&self.pulled_request("pulled", &images.name(), secret))?;
            let process = self.process("pulled")?;
            let start = json!({ "call": "start_container", "id": "pulled" });
            self.refused(judge, attack, &start, "INTERNAL", code)?;
            ensure!(!self.holds(&format!("test -e /proc/{process}/root/dev/shm/secret"))?, "the program ran");
            self.runtime.ok(&json!({ "call": "remove_container", "id": "pulled" }))?;
        }
        Ok(())
    }

    /// Containers whose artifacts the guest does not take, whatever the host offers: each waits for its own, and is not started.
    pub fn evil_artifacts(
        &mut self,
        images: &Images,
        second: &mut Runtime,
        judge: &mut Judge<'_>,
    ) -> anyhow::Result<()> {
        for name in [beside::STALE, beside::STRANGER] {
            let args = args(self.model);
            self.runtime.ok(&self.image_request(name, &args, &images.name(), &[]))?;
        }
        let start = |name: &str| json!({ "call": "start_container", "id": name });
        // Both at once: each call waits for what may still come.
        let (stale, stranger) = std::thread::scope(|scope| {
            let other = scope.spawn(|| second.call(&start(beside::STRANGER)));
            let own = self.runtime.call(&start(beside::STALE));
            (own, other.join())
        });
        let stranger = stranger.map_err(|_| anyhow::anyhow!("the second runtime panicked"))?;
        let attacks = [
            ("an artifact older than initdata permits", stale?, "ROLLBACK"),
            ("an artifact that a stranger sealed", stranger?, "ORIGIN_UNPROVEN"),
        ];
        for (attack, answer, code) in attacks {
            ensure!(
                answer.status != "OK"
                    && answer.text.contains("SEALED_NOT_READY")
                    && answer.text.contains(code),
                "{attack}: expected {code}, found {}: {}\n{}",
                answer.status,
                answer.text,
                self.guest.serial()
            );
            judge.told(attack, &answer.status, &answer.text);
        }
        for name in [beside::STALE, beside::STRANGER] {
            let process = self.process(name)?;
            ensure!(!self.holds(&format!("test -e /proc/{process}/root/dev/shm/seen"))?, "the program ran");
            self.runtime.ok(&json!({ "call": "remove_container", "id": name }))?;
        }
        Ok(())
    }

    /// The same request, for images that nobody signed, or that somebody changed, and once more when the name means another image.
    pub fn evil_images(&mut self, images: &Images, judge: &mut Judge<'_>) -> anyhow::Result<()> {
        let attacks = [
            ("the host asks for an image that nobody signed", "unsigned", "IMAGE_UNSIGNED"),
            ("the registry turns a bit in a layer of a signed image", "tampered", "REGISTRY_DIGEST"),
            ("the registry moves the tag to another image, which nobody signed", "v1", "IMAGE_UNSIGNED"),
        ];
        for (attack, tag, code) in attacks {
            if tag == "v1" {
                images.move_tag()?;
            }
            let create = self.pulled_request("pulled", &images.tagged(tag), "none");
            self.refused(judge, attack, &create, "INTERNAL", code)?;
            ensure!(!self.holds("test -e /run/kata-containers/pulled")?, "the container was made");
        }
        Ok(())
    }

    fn pulled_request(&self, id: &str, image: &str, secret: &str) -> Value {
        self.image_request(id, &args(self.model), image, &[format!("PASSWORD={secret}")])
    }

    /// A container on an image, whose name in the policy is its own.
    fn image_request(&self, id: &str, args: &[impl AsRef<str>], image: &str, env: &[String]) -> Value {
        let root = format!("/run/kata-containers/{id}/rootfs");
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let annotations =
            json!({ "io.kubernetes.cri.container-name": id, "io.kubernetes.cri.image-name": image });
        let option = format!("image_guest_pull={}", json!({ "metadata": annotations }));
        json!({
            "call": "create_container", "id": id, "root": root, "args": args, "env": env, "annotations": annotations,
            "storages": [{ "driver": "image_guest_pull", "source": image, "fstype": "overlay", "place": root,
                "driver_options": [option] }],
        })
    }

    /// What the host tries while the container runs, and how the container ends.
    pub fn attacks(&mut self, judge: &mut Judge<'_>) -> anyhow::Result<()> {
        let exec =
            json!({ "call": "exec_process", "id": CONTAINER, "exec": "thief", "args": ["cat", PLACE] });
        self.refused(
            judge,
            "the host executes a program in the container",
            &exec,
            "PERMISSION_DENIED",
            "ExecProcessRequest is blocked by policy",
        )?;
        let answer = self.runtime.call(&json!({ "call": "read_stdout", "id": CONTAINER, "length": 4096 }))?;
        ensure!(
            answer.status == "OK" && answer.reply["bytes"] == 0,
            "the stream was read: {} {}",
            answer.status,
            answer.reply
        );
        judge.told(
            "the host reads what the container printed",
            "OK",
            "0 bytes: denied, told as runtimes expect it, as the end of the stream",
        );
        let text = "package agent_policy\n\ndefault ExecProcessRequest := true\n";
        let replace = json!({ "call": "set_policy", "text": text });
        self.refused(
            judge,
            "the host replaces the policy",
            &replace,
            "FAILED_PRECONDITION",
            "POLICY_NOT_LISTED",
        )?;
        let outside = format!("{SHARED}/../../innerkeep/planted");
        let copy = json!({ "call": "copy_file", "path": outside, "data": "planted" });
        self.refused(
            judge,
            "the host copies a file outside of its directory",
            &copy,
            "INTERNAL",
            "prefix from",
        )?;
        ensure!(!self.holds("test -e /run/innerkeep/planted")?, "the file was copied");
        self.runtime.ok(&json!({ "call": "signal_process", "id": CONTAINER, "signal": 15 }))?;
        let ended = self.runtime.ok(&json!({ "call": "wait_process", "id": CONTAINER }))?;
        ensure!(ended["exit"] == READ_IT, "the container ended with {}", ended["exit"]);
        self.runtime.ok(&json!({ "call": "remove_container", "id": CONTAINER }))?;
        Ok(())
    }

    /// Containers that are the named one in everything that the host says, and not in what the guest verifies.
    pub fn impostors(&mut self, judge: &mut Judge<'_>) -> anyhow::Result<()> {
        let foreign = self.create_request("server2", &format!("{SHARED}/{FOREIGN_ROOT}"), &[]);
        self.runtime.ok(&foreign)?;
        let process = self.process("server2")?;
        let start = json!({ "call": "start_container", "id": "server2" });
        let attack = "an impersonating container: same name, same program, a root of the host";
        self.refused(judge, attack, &start, "FAILED_PRECONDITION", "SEALED_IMPOSTOR")?;
        ensure!(
            !self.holds(&format!("grep -q ' {PLACE} ' /proc/{process}/mountinfo"))?,
            "the impostor has the artifact"
        );
        self.runtime.ok(&json!({ "call": "remove_container", "id": "server2" }))?;

        let hash = &self.root.root_hash;
        let flipped: String = hash.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
        let options: Vec<_> =
            self.root.options().iter().map(|option| option.replace(hash, &flipped)).collect();
        let other = self.create_request("server3", "/run/kata-containers/server3/rootfs", &options);
        let attack = "the same disk under another root hash";
        self.refused(judge, attack, &other, "INTERNAL", "STORAGE_")?;
        ensure!(!self.holds("test -e /run/kata-containers/server3")?, "the container was made");
        Ok(())
    }

    fn create_request(&self, id: &str, root: &str, options: &[String]) -> Value {
        let disk =
            json!({ "driver": "blk", "source": DISK, "fstype": "ext4", "place": root, "options": options });
        json!({
            "call": "create_container", "id": id, "root": root, "args": args(self.model),
            "annotations": { "io.kubernetes.cri.container-name": "server" },
            "storages": if options.is_empty() { json!([]) } else { json!([disk]) },
        })
    }

    fn refused(
        &mut self,
        judge: &mut Judge<'_>,
        attack: &str,
        call: &Value,
        status: &str,
        reason: &str,
    ) -> anyhow::Result<()> {
        let Answer { status: found, text, .. } = self.runtime.call(call)?;
        ensure!(
            found == status && text.contains(reason),
            "{attack}: expected {status} and {reason}, found {found}: {text}\n{}",
            self.guest.serial()
        );
        judge.told(attack, status, &text);
        Ok(())
    }

    /// The first process of a container, as the guest numbers it.
    fn process(&self, id: &str) -> anyhow::Result<u32> {
        let group = format!("/sys/fs/cgroup/kubepods/besteffort/pod1/{id}/cgroup.procs");
        let text = self.guest.shell(&format!("head -n1 {group}"))?;
        text.trim().parse().with_context(|| format!("the first process of {id}: {text:?}"))
    }

    fn holds(&self, line: &str) -> anyhow::Result<bool> {
        Ok(self.guest.sh(line)?.status == 0)
    }

    /// A member of the agent's last line with this text.
    fn log(&self, text: &str, member: &str) -> anyhow::Result<Value> {
        let serial = self.guest.serial();
        let lines = serial.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        let mut lines = lines.filter(|line| line["msg"] == text);
        let line = lines.next().with_context(|| format!("no line {text:?} of the agent"))?;
        Ok(line[member].clone())
    }
}

/// Makes the root of the host, in what it shares.
pub fn foreign_root(tools: &xtask::vm::Tools, share: &Path) -> anyhow::Result<()> {
    VerityRoot::populate(tools, &share.join(FOREIGN_ROOT), &[PLACE])
}
