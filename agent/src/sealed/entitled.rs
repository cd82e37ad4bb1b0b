//! Which container an artifact is for: by what the guest verified and what was admitted, never by a name, an id or an annotation.

use initdata::{Artifact, Container, ProcessRule, Root, Sha256Digest};
use policy_engine::InForce;

use super::error::SealedError;

/// What is known of a container when it is made. Its id, hostname and annotations are the host's word and are not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// Its root by every name that bound configuration may give it, if this guest verified it; else none.
    pub(super) roots: Vec<Root>,
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

/// Where the policy in force puts a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// Nowhere: there is no policy, or it gave its id no index.
    None,
    /// It is the container with this index of the policy that bound configuration brings along, whose indices `sealed.toml` means.
    Own(u32),
    /// It has this index in another policy, a listed one say. There the index may mean any container.
    Other(u32),
}

impl Seat {
    /// `own` is the policy that stands beside `sealed.toml`. `pstate` maps the ids of containers to their indices.
    pub(super) fn of(policy: Option<&InForce>, own: Option<&Sha256Digest>, container: &str) -> Self {
        let Some(policy) = policy else { return Self::None };
        let index = policy.state.get("pstate").and_then(|state| state.get(container)?.as_u64());
        match index.and_then(|index| u32::try_from(index).ok()) {
            None => Self::None,
            Some(index) if own.is_some_and(|own| *own.as_bytes() == policy.text_sha256) => Self::Own(index),
            Some(index) => Self::Other(index),
        }
    }
}

impl Admission {
    /// Whether bound configuration means this container.
    pub(super) fn is(&self, named: &Container, seat: Seat) -> Option<By> {
        // GUARD: sealed-verified-root -> evil_host_impersonates_container
        if !self.stands_on(named) {
            return None;
        }
        match &named.process {
            ProcessRule::Digest(digest) => (*digest == self.process).then_some(By::Process),
            ProcessRule::PolicyContainer(index) => (seat == Seat::Own(*index)).then_some(By::Policy),
            _ => None,
        }
    }

    /// Whether a policy that gave it an index says nothing about its root: of an image the policy does not judge the name, and of layers each by
    /// itself, which in another order are another root.
    pub(super) fn is_beyond_policy(&self) -> bool {
        self.roots.iter().any(|root| matches!(root, Root::Image(_) | Root::Composefs(_) | Root::Layers(_)))
    }

    fn stands_on(&self, named: &Container) -> bool {
        self.roots.contains(&named.root)
    }
}

/// Which artifacts, by their numbers, are for a container. None is the rule.
///
/// # Errors
/// A container that is nearly one that is named is not to be started: one with the index of another policy, or the right index on another root.
pub(super) fn entitled(
    artifacts: &[Artifact],
    admission: &Admission,
    seat: Seat,
) -> Result<Vec<(usize, By)>, SealedError> {
    for Artifact { name, container, .. } in artifacts {
        let ProcessRule::PolicyContainer(index) = container.process else { continue };
        // GUARD: sealed-own-policy -> evil_host_index_of_another_policy
        if seat == Seat::Other(index) && admission.stands_on(container) {
            return Err(SealedError::OtherPolicy { name: name.to_string(), index });
        }
    }
    let mine = artifacts.iter().enumerate().filter_map(|(number, artifact)| {
        let by = admission.is(&artifact.container, seat)?;
        Some((number, by))
    });
    let mine: Vec<_> = mine.collect();
    let is_seated = |artifact: &&Artifact| matches!(artifact.container.process, ProcessRule::PolicyContainer(index) if seat == Seat::Own(index));
    let mut seated = artifacts.iter().filter(is_seated);
    // Two artifacts may name two roots for one index: one of them is its own.
    if let Some(named) = seated.clone().next() {
        let is_known = seated.any(|artifact| admission.stands_on(&artifact.container));
        let found =
            if admission.roots.is_empty() { "one that the host provides" } else { "another verified one" };
        // GUARD: sealed-impostor -> evil_host_takes_the_place_of_a_named_container
        if !is_known {
            return Err(SealedError::Impostor { name: named.name.to_string(), found });
        }
    }
    Ok(mine)
}

#[cfg(test)]
mod tests {
    use initdata::{ProcessIdentity, VerityTree};
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
        Admission { roots: root.into_iter().collect(), place: (1, 2), process: process.digest() }
    }

    #[test]
    fn the_container_that_is_named_is_entitled() {
        let container = admission(Some(root(1)), PROCESS);
        let by_process = Container { root: root(1), process: ProcessRule::Digest(PROCESS.digest()) };
        assert_eq!(container.is(&by_process, Seat::None), Some(By::Process));
        assert_eq!(container.is(&by_process, Seat::Other(7)), Some(By::Process));
        let by_policy = Container { root: root(1), process: ProcessRule::PolicyContainer(3) };
        assert_eq!(container.is(&by_policy, Seat::Own(3)), Some(By::Policy));
    }

    #[test]
    fn evil_host_layers_in_another_order() {
        let tree = |byte| VerityTree {
            root_hash: Sha256Digest::new([byte; 32]),
            salt: vec![1, 2],
            data_blocks: 4096,
        };
        let layers = |trees: &[u8]| Root::Layers(trees.iter().copied().map(tree).collect());
        let named = Container { root: layers(&[1, 2]), process: ProcessRule::PolicyContainer(0) };
        assert!(admission(Some(layers(&[1, 2])), PROCESS).is(&named, Seat::Own(0)).is_some());
        let others =
            [layers(&[2, 1]), layers(&[1]), layers(&[2]), layers(&[1, 1]), layers(&[1, 2, 2]), root(1)];
        for other in others {
            assert_eq!(admission(Some(other.clone()), PROCESS).is(&named, Seat::Own(0)), None, "{other:?}");
        }
        // One layer alone is a list of one, and not the disk under it.
        let one = Container { root: root(1), process: ProcessRule::PolicyContainer(0) };
        assert_eq!(admission(Some(layers(&[1])), PROCESS).is(&one, Seat::Own(0)), None);
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
            assert_eq!(impostor.is(&named, Seat::Own(0)), None, "impostor {index}");
        }
        // By the policy: no index, another one, or the right one on a root that nobody verified.
        let named = Container { root: root(1), process: ProcessRule::PolicyContainer(1) };
        let container = admission(Some(root(1)), PROCESS);
        assert_eq!(container.is(&named, Seat::None), None);
        assert_eq!(container.is(&named, Seat::Own(0)), None);
        assert_eq!(container.is(&named, Seat::Other(1)), None);
        assert_eq!(admission(None, PROCESS).is(&named, Seat::Own(1)), None);
        assert_eq!(admission(Some(root(2)), PROCESS).is(&named, Seat::Own(1)), None);
    }

    /// Artifacts for the containers of the policy with these indices, on these roots.
    fn artifacts(named: &[(u32, u8)]) -> Vec<Artifact> {
        let artifact = |(number, (index, byte)): (usize, &(u32, u8))| {
            let hash = format!("sha256:{}", format!("{byte:02x}").repeat(32));
            format!(
                "[[artifact]]\nname = \"m{number}\"\nreference = \"registry.example/m:v1\"\ncore = \"{hash}\"\npath = \"/m{number}\"\n\
                 container = {{ verity = {{ root_hash = \"{hash}\", salt = \"0102\", data_blocks = 4096 }}, policy_container = {index} }}\n"
            )
        };
        let text: String = named.iter().enumerate().map(artifact).collect();
        let mut package = initdata::Package::new(initdata::Algorithm::Sha256);
        package.insert("sealed.toml", &format!("environment = \"test\"\n\n{text}")).unwrap();
        let unverified = initdata::Unverified::from_annotation(&package.pack().unwrap().annotation());
        let initdata = unverified.unwrap().insecure_unbound().unwrap();
        initdata.document().sealed().unwrap().artifacts.clone()
    }

    fn code(result: Result<Vec<(usize, By)>, SealedError>) -> &'static str {
        result.unwrap_err().code()
    }

    #[test]
    fn evil_host_takes_the_place_of_a_named_container() {
        let artifacts = artifacts(&[(0, 1), (0, 2), (5, 3)]);
        let on = |root| admission(root, PROCESS);
        let of = |root, seat| entitled(&artifacts, &on(root), seat);
        assert_eq!(of(Some(root(1)), Seat::Own(0)).unwrap(), [(0, By::Policy)]);
        assert_eq!(of(Some(root(2)), Seat::Own(0)).unwrap(), [(1, By::Policy)]);
        // The policy says that it is the one, and it stands on a root of the host, or on that of another container.
        let error = of(None, Seat::Own(0)).unwrap_err();
        assert_eq!(error.code(), "SEALED_IMPOSTOR");
        assert!(error.to_string().ends_with("found one that the host provides"), "{error}");
        assert_eq!(code(of(Some(root(3)), Seat::Own(0))), "SEALED_IMPOSTOR");
        assert_eq!(code(of(Some(root(1)), Seat::Own(5))), "SEALED_IMPOSTOR");
        // Whom nobody names is nobody's impostor.
        assert_eq!(of(None, Seat::Own(1)).unwrap(), []);
        assert_eq!(of(Some(root(1)), Seat::Own(1)).unwrap(), []);
        assert_eq!(of(Some(root(1)), Seat::None).unwrap(), []);
    }

    #[test]
    fn evil_host_index_of_another_policy() {
        let artifacts = artifacts(&[(0, 1)]);
        let on = |root| admission(root, PROCESS);
        let error = entitled(&artifacts, &on(Some(root(1))), Seat::Other(0)).unwrap_err();
        assert_eq!(error.code(), "SEALED_OTHER_POLICY");
        assert!(error.to_string().contains("container 0"), "{error}");
        // Other containers of that policy are as good as any.
        assert_eq!(entitled(&artifacts, &on(Some(root(1))), Seat::Other(1)).unwrap(), []);
        assert_eq!(entitled(&artifacts, &on(None), Seat::Other(0)).unwrap(), []);
    }

    #[test]
    fn the_index_of_a_container_is_the_policys_word() {
        let state = json!({ "pstate": { "one": 1, "name": "two", "big": u64::MAX, "sandbox_name": "one" } });
        let policy = InForce { text_sha256: [7; 32], state };
        let (own, other) = (Sha256Digest::new([7; 32]), Sha256Digest::new([8; 32]));
        assert_eq!(Seat::of(Some(&policy), Some(&own), "one"), Seat::Own(1));
        assert_eq!(Seat::of(Some(&policy), Some(&other), "one"), Seat::Other(1));
        assert_eq!(Seat::of(Some(&policy), None, "one"), Seat::Other(1));
        for other in ["two", "name", "big", "sandbox_name", "pstate", ""] {
            assert_eq!(Seat::of(Some(&policy), Some(&own), other), Seat::None, "{other}");
        }
        assert_eq!(Seat::of(None, Some(&own), "one"), Seat::None);
        let odd = InForce { state: json!([]), ..policy };
        assert_eq!(Seat::of(Some(&odd), Some(&own), "one"), Seat::None);
    }
}
