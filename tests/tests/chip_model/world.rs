//! The real thing: the emulator's process, the driver, real artifacts, grants and signatures, each with its description for the model.

use crate::model::{self, Path, Policy, Signature, Suite};
use chip_client::ChipError;
use chip_client::abi::{DataPath, InsecureFlags};
use chip_client::chain::{ChipId, ChipIdentity, TrustRoot};
use chip_client::driver::{Driver, DriverOptions, RingMemory};
use chip_client::session::{ExpectedChip, Requirement, SealerProof, SuiteRequirement, UnwrapRequest};
use chip_client::vfio_user::{VfioUserDevice, VfioUserTimeouts};
use protected_memory::dma::SharedMemoryProvider;
use sealed_artifact::core::Core;
use sealed_artifact::grant::{Grant, GrantSuite};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::names::{
    Counter, EnvironmentTag, Family, MediaType, PayloadName, SegmentIndex, SegmentSize,
};
use sealed_artifact::policy::PolicyDocument;
use sealed_artifact::seal::{SealInput, SealRequest, Sealer};
use sealed_artifact::signature::SealerSigningKey;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use tests::args;
use tests::payload::Payload;
use tests::scene::Scene;

/// Bytes of each payload: two segments, the last one short.
pub const PAYLOAD_BYTES: usize = 65_536 + 1_000;
/// Where staging lies. Rings lie in private memory, as `dma-direct` demands.
pub const STAGING: SharedMemoryProvider = SharedMemoryProvider::Emulated;

/// An artifact in memory.
pub struct Artifact {
    pub facts: model::Core,
    pub core: Core,
    pub key: ContentKey,
    pub plaintext: Payload,
    pub ciphertext: Vec<u8>,
    pub tags: Vec<u8>,
}

/// All that takes part.
pub struct World {
    pub scene: Scene,
    pub driver: Option<Driver>,
    pub root: TrustRoot,
    pub other_root: TrustRoot,
    pub identity: ChipIdentity,
    pub artifacts: Vec<Artifact>,
    pub policies: Vec<(Policy, PolicyDocument)>,
    pub sealers: Vec<SealerSigningKey>,
}

impl World {
    pub fn make() -> Self {
        let scene = Scene::start();
        // Another maker.
        drop(scene.another_chip("stranger", "other-ca"));
        let read = |path: &std::path::Path| TrustRoot::from_trusted(&std::fs::read(path).unwrap()).unwrap();
        let (root, other_root) = (read(&scene.root), read(&scene.work.join("other-ca/root.pem")));
        let mut driver = connect(&scene);
        let identity = ChipIdentity::verify(&root, &driver.chain().unwrap()).unwrap();
        let sealers: Vec<_> = (0..2).map(|_| SealerSigningKey::generate().unwrap()).collect();
        let mut artifacts = Vec::new();
        for sealer in [Some(0), Some(1), None] {
            for (family, environment) in
                [("acme/a", "development"), ("acme/b", "development"), ("acme/a", "production")]
            {
                for counter in [1, 2, 5] {
                    let number = artifacts.len();
                    let facts = model::Core { number, sealer, family, counter, environment };
                    artifacts.push(Artifact::seal(facts, &sealers));
                }
            }
        }
        Self {
            scene,
            driver: Some(driver),
            root,
            other_root,
            identity,
            artifacts,
            policies: policies(),
            sealers,
        }
    }

    /// The driver, up.
    pub fn driver(&mut self) -> &mut Driver {
        let scene = &self.scene;
        let driver = self.driver.get_or_insert_with(|| connect(scene));
        // A session that was dropped, or a fault, stopped the controller.
        if driver.is_down() {
            driver.recover().unwrap();
        }
        driver
    }

    /// A power cut, then on again with these modes and this misbehaviour.
    pub fn restart(&mut self, no_evidence: bool, emulated_dma: bool, plan: Option<&str>) {
        self.driver = None;
        let mut arguments: Vec<OsString> = Vec::new();
        if no_evidence {
            arguments.extend(args!["--insecure-no-evidence"]);
        }
        if emulated_dma {
            arguments.extend(args!["--insecure-emulated-dma"]);
        }
        if let Some(plan) = plan {
            arguments.extend(args!["--fault-plan", self.scene.work.write("plan.toml", plan)]);
        }
        self.scene.restart_chip(&arguments);
    }

    /// A request as it is described.
    pub fn request<'a>(&'a self, facts: &model::Request, garbled_core: &'a [u8]) -> UnwrapRequest<'a> {
        let artifact = &self.artifacts[facts.core.number];
        let granted = &self.artifacts[facts.granted_core];
        let suite = match facts.granted_suite {
            Suite::Classical => GrantSuite::P384,
            Suite::Hybrid => GrantSuite::XWing,
        };
        let recipient = self.identity.recipient(suite).unwrap();
        let grant =
            Grant::seal(&granted.core, &granted.key, &recipient, &self.policies[facts.granted_policy].1)
                .unwrap();
        let sign =
            |key: &SealerSigningKey, core: &Core| sealed_artifact::signature::Signature::sign(core, key);
        let mut request = UnwrapRequest::new(&artifact.core, &grant, None);
        let signature = match (facts.signature, facts.core.sealer) {
            (Signature::Absent, _) => None,
            (Signature::OfAnotherSealer, own) => {
                // A valid signature of somebody whom the core does not name.
                let other = own.map_or(0, |own| 1 - own);
                let twin = self.artifacts.iter().find(|one| one.facts.sealer == Some(other)).unwrap();
                Some(sign(&self.sealers[other], &twin.core).unwrap())
            }
            (_, own) => {
                let twin = self.artifacts.iter().find(|one| one.facts.sealer == own.or(Some(0))).unwrap();
                let core = if own.is_some() { &artifact.core } else { &twin.core };
                Some(sign(&self.sealers[own.unwrap_or(0)], core).unwrap())
            }
        };
        request.sealer = signature.map(|signature| {
            let fields: serde_json::Value = serde_json::from_slice(&signature.encode()).unwrap();
            let decode = |name: &str| {
                base64::Engine::decode(
                    &base64::engine::general_purpose::STANDARD,
                    fields[name].as_str().unwrap(),
                )
                .unwrap()
            };
            let mut proof = SealerProof { spki: decode("key"), signature: decode("signature") };
            if facts.signature == Signature::Forged {
                proof.signature[50] ^= 1;
            }
            proof
        });
        request.key_epoch = facts.stated_epoch;
        if facts.wrapping_garbled {
            request.wrapped[7] ^= 1;
        }
        if facts.core_garbled {
            request.core = garbled_core;
        }
        request
    }

    /// What is demanded of a session, as it is described.
    pub fn requirement<'a>(&'a self, offer: &model::Offer) -> Requirement<'a> {
        let mut guest = InsecureFlags::NO_TEE;
        let mut accepted = InsecureFlags::NO_EVIDENCE.union(InsecureFlags::EMULATED_DMA);
        if offer.emulation_accepted {
            accepted = accepted.union(InsecureFlags::EMULATED_CHIP);
        }
        if offer.no_evidence {
            guest = guest.union(InsecureFlags::NO_EVIDENCE);
        }
        if offer.emulated_dma {
            guest = guest.union(InsecureFlags::EMULATED_DMA);
        }
        Requirement {
            root: if offer.wrong_root { &self.other_root } else { &self.root },
            chip: ExpectedChip::Exactly(if offer.wrong_chip {
                ChipId::new([7; 32])
            } else {
                self.identity.id()
            }),
            path: match offer.path {
                Path::KeyRelease => DataPath::KeyRelease,
                Path::DmaSealed => DataPath::DmaSealed,
                Path::DmaDirect => DataPath::DmaDirect,
            },
            suite: if offer.hybrid_offered {
                SuiteRequirement::AtLeastClassical
            } else {
                SuiteRequirement::ClassicalOnly
            },
            guest_insecure: guest,
            accepted_insecure: accepted,
        }
    }
}

impl Artifact {
    fn seal(facts: model::Core, sealers: &[SealerSigningKey]) -> Self {
        let request = SealRequest {
            counter: Counter::new(facts.counter),
            environment: EnvironmentTag::parse(facts.environment).unwrap(),
            family: Family::parse(facts.family).unwrap(),
            inputs: vec![SealInput {
                media_type: MediaType::parse("application/octet-stream").unwrap(),
                name: PayloadName::parse("model.bin").unwrap(),
                size: PAYLOAD_BYTES.try_into().unwrap(),
            }],
            payload_digests: true,
            sealer: facts.sealer.map(|number| sealers[number].public_key().digest()),
            segment_size: SegmentSize::MINIMUM,
        };
        let sealer = Sealer::new(&request).unwrap();
        let plaintext = Payload::random(facts.number.try_into().unwrap(), PAYLOAD_BYTES);
        let mut ciphertext = plaintext.bytes().to_vec();
        for (index, segment) in (0..).zip(ciphertext.chunks_mut(65_536)) {
            sealer.payloads()[0].seal_in_place(SegmentIndex::new(index), segment).unwrap();
        }
        let sealed = sealer.finish().unwrap();
        let tags = sealed.tag_tables[0].bytes().to_vec();
        Self { facts, core: sealed.core, key: sealed.content_key, plaintext, ciphertext, tags }
    }
}

fn connect(scene: &Scene) -> Driver {
    let device = VfioUserDevice::connect(&scene.chip.socket, VfioUserTimeouts::default()).unwrap();
    let mut options = DriverOptions::new(RingMemory::Private);
    // Only a lost completion waits so long.
    options.command_timeout = Duration::from_secs(3);
    Driver::open(Arc::new(device), options).unwrap()
}

/// The policies, each with its description.
fn policies() -> Vec<(Policy, PolicyDocument)> {
    let any = Policy {
        opaque: false,
        evidence: false,
        environment: None,
        family: None,
        link_mode: None,
        min_counter: 0,
    };
    let variants = [
        any,
        Policy { environment: Some("development"), family: Some("acme/a"), ..any },
        Policy { environment: Some("production"), ..any },
        Policy { family: Some("acme/b"), ..any },
        Policy { link_mode: Some(Path::KeyRelease), ..any },
        Policy { link_mode: Some(Path::DmaSealed), ..any },
        Policy { min_counter: 2, ..any },
        Policy { evidence: true, ..any },
        Policy { opaque: true, ..any },
    ];
    let choice = |value: Option<&str>| {
        value.map_or("\"any\"".to_owned(), |value| format!("{{ exactly = \"{value}\" }}"))
    };
    let document = |policy: &Policy| {
        if policy.opaque {
            return "type = \"opaque\"\nbytes = \"aW5uZXJrZWVw\"\n".to_owned();
        }
        let link_mode = policy.link_mode.map(|path| match path {
            Path::KeyRelease => "key-release",
            Path::DmaSealed => "dma-sealed",
            Path::DmaDirect => "dma-direct",
        });
        let evidence = if policy.evidence {
            "[evidence]\ncertificate_chain = \"any\"\ndebug = { exactly = false }\ninitdata = \"any\"\nunsigned_manifest = \"any\"\n\
             [evidence.tdx]\nmin_pck_crl_number = 1\nmin_root_crl_number = 1\nmin_tcb_evaluation = 1\nmin_tee_tcb_svn = \"05000000000000000000000000000000\"\n\
             mrtd = \"any\"\nrtmr0 = \"any\"\nrtmr1 = \"any\"\nrtmr2 = \"any\"\nrtmr3 = \"any\"\n"
        } else {
            ""
        };
        format!(
            "environment = {}\nfamily = {}\nlink_mode = {}\nmin_counter = {}\n{evidence}",
            choice(policy.environment),
            choice(policy.family),
            choice(link_mode),
            policy.min_counter
        )
    };
    variants
        .into_iter()
        .map(|policy| (policy, PolicyDocument::from_toml(&document(&policy)).unwrap()))
        .collect()
}

/// The code of an outcome; `OK` for success.
pub fn code<T>(outcome: &Result<T, ChipError>) -> &'static str {
    outcome.as_ref().map_or_else(ChipError::code, |_| "OK")
}
