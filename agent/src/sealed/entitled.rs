//! Which container an artifact is for: by what the guest verified and what was admitted, never by a name, an id or an annotation.

use initdata::{Container, ProcessRule, Root, Sha256Digest};

/// What is known of a container when it is made. Its id, hostname and annotations are the host's word and are not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// Its root, if this guest verified it.
    pub(super) root: Option<Root>,
    /// Device and inode of the directory that becomes its `/`.
    pub(super) place: (u64, u64),
    /// Digest of its first process as it will run.
    pub(super) process: Sha256Digest,
}

/// How a container came to be entitled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The digest of its process. Nothing said anything about its mounts.
    Process,
    /// Its index in the policy, which judged its mounts too.
    Policy,
}

impl Admission {
    /// Whether bound configuration means this container. `policy_index` is its index in the policy in force.
    pub(super) fn is(&self, named: &Container, policy_index: Option<u32>) -> Option<By> {
        // GUARD: sealed-verified-root -> evil_host_impersonates_container
        if self.root.as_ref() != Some(&named.root) {
            return None;
        }
        match &named.process {
            ProcessRule::Digest(digest) => (*digest == self.process).then_some(By::Process),
            ProcessRule::PolicyContainer(index) => (policy_index == Some(*index)).then_some(By::Policy),
            _ => None,
        }
    }
}

/// The index that the policy gave a container: `pstate` of the policy in force maps its id to it.
#[must_use]
pub(crate) fn policy_index(state: Option<&serde_json::Value>, container: &str) -> Option<u32> {
    let index = state?.get("pstate")?.get(container)?.as_u64()?;
    u32::try_from(index).ok()
}

#[cfg(test)]
mod tests {
    use initdata::ProcessIdentity;
    use serde_json::json;

    use super::*;

    fn root(byte: u8) -> Root {
        Root::Verity { root_hash: Sha256Digest::new([byte; 32]), salt: vec![1, 2], data_blocks: 4096 }
    }

    const PROCESS: ProcessIdentity<'static> = ProcessIdentity {
        args: &[b"/bin/serve", b"--model", b"/models/m"],
        env_names: &[b"PATH", b"MODE"],
        cwd: b"/",
        uid: 10,
        gid: 20,
        additional_gids: &[4, 5],
    };

    fn admission(root: Option<Root>, process: ProcessIdentity<'_>) -> Admission {
        Admission { root, place: (1, 2), process: process.digest() }
    }

    #[test]
    fn the_container_that_is_named_is_entitled() {
        let container = admission(Some(root(1)), PROCESS);
        let by_process = Container { root: root(1), process: ProcessRule::Digest(PROCESS.digest()) };
        assert_eq!(container.is(&by_process, None), Some(By::Process));
        let by_policy = Container { root: root(1), process: ProcessRule::PolicyContainer(3) };
        assert_eq!(container.is(&by_policy, Some(3)), Some(By::Policy));
    }

    #[test]
    fn evil_host_impersonates_container() {
        let named = Container { root: root(1), process: ProcessRule::Digest(PROCESS.digest()) };
        let altered = |process| admission(Some(root(1)), process);
        let salt =
            Root::Verity { root_hash: Sha256Digest::new([1; 32]), salt: vec![1, 3], data_blocks: 4096 };
        let blocks =
            Root::Verity { root_hash: Sha256Digest::new([1; 32]), salt: vec![1, 2], data_blocks: 4097 };
        let image = Root::Image(Sha256Digest::new([1; 32]));
        let composefs = Root::Composefs(Sha256Digest::new([1; 32]));
        let impostors = [
            // Roots: none verified, another one, the same hash with another salt, size or kind.
            admission(None, PROCESS),
            admission(Some(root(2)), PROCESS),
            admission(Some(salt), PROCESS),
            admission(Some(blocks), PROCESS),
            admission(Some(image), PROCESS),
            admission(Some(composefs), PROCESS),
            // Processes in the right root.
            altered(ProcessIdentity { args: &[b"/bin/sh"], ..PROCESS }),
            altered(ProcessIdentity {
                args: &[b"/bin/serve", b"--model", b"/models/m", b"--listen"],
                ..PROCESS
            }),
            altered(ProcessIdentity { args: &[b"/bin/serve --model", b"/models/m"], ..PROCESS }),
            altered(ProcessIdentity { env_names: &[b"PATH", b"MODE", b"LD_PRELOAD"], ..PROCESS }),
            altered(ProcessIdentity { env_names: &[b"PATH"], ..PROCESS }),
            altered(ProcessIdentity { cwd: b"/tmp", ..PROCESS }),
            altered(ProcessIdentity { uid: 0, ..PROCESS }),
            altered(ProcessIdentity { gid: 0, ..PROCESS }),
            altered(ProcessIdentity { additional_gids: &[4, 5, 0], ..PROCESS }),
            altered(ProcessIdentity { additional_gids: &[], ..PROCESS }),
        ];
        for (index, impostor) in impostors.iter().enumerate() {
            assert_eq!(impostor.is(&named, Some(0)), None, "impostor {index}");
        }
        // By the policy: no index, another one, or the right one on a root that nobody verified.
        let named = Container { root: root(1), process: ProcessRule::PolicyContainer(1) };
        let container = admission(Some(root(1)), PROCESS);
        assert_eq!(container.is(&named, None), None);
        assert_eq!(container.is(&named, Some(0)), None);
        assert_eq!(admission(None, PROCESS).is(&named, Some(1)), None);
        assert_eq!(admission(Some(root(2)), PROCESS).is(&named, Some(1)), None);
    }

    #[test]
    fn the_index_of_a_container_is_the_policys_word() {
        let state = json!({ "pstate": { "one": 1, "name": "two", "big": u64::MAX, "sandbox_name": "one" } });
        assert_eq!(policy_index(Some(&state), "one"), Some(1));
        for other in ["two", "name", "big", "sandbox_name", "pstate", ""] {
            assert_eq!(policy_index(Some(&state), other), None, "{other}");
        }
        assert_eq!(policy_index(None, "one"), None);
        assert_eq!(policy_index(Some(&json!([])), "one"), None);
    }
}
