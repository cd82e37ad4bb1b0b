//! The chip against a small reference model: random commands and faults through the driver to the emulator's process, and after each the one
//! status that the model expects. Seeds are printed; `INNERKEEP_MODEL_SEED` repeats one.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod model;
mod world;

use chip_client::ChipError;
use chip_client::session::{Open, Presented, Session};
use chip_client::unseal::{Handle, UnsealJob};
use model::{Code, Path, Suite};
use sealed_artifact::names::PayloadIndex;
use std::collections::BTreeMap;
use tests::payload::Random;
use world::{World, code};

/// Sessions of one schedule.
const SESSIONS: usize = 120;

#[test]
fn chip_answers_as_the_model_does() {
    let chosen = std::env::var("INNERKEEP_MODEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = match chosen {
        Some(seed) => vec![seed],
        None if tests::long_run() => (0..40).map(|_| Random::fresh().1).collect(),
        None => vec![1, Random::fresh().1],
    };
    for seed in seeds {
        println!("INNERKEEP_MODEL_SEED={seed}");
        Schedule::new(seed).run();
    }
}

struct Schedule {
    world: World,
    chip: model::Chip,
    random: Random,
    policies: Vec<model::Policy>,
    met: BTreeMap<Code, usize>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let world = World::make();
        let chip = model::Chip {
            allows_no_evidence: true,
            allows_emulated_dma: true,
            epoch: 1,
            floors: BTreeMap::new(),
        };
        let policies = world.policies.iter().map(|(facts, _)| *facts).collect();
        Self { world, chip, random: Random::new(seed), policies, met: BTreeMap::new() }
    }

    fn run(mut self) {
        for number in 0..SESSIONS {
            match self.random.below(12) {
                0 => self.power_cut(),
                1 => self.world.driver().function_reset().unwrap(),
                2 => self.world.driver().zeroize().unwrap(),
                3 => self.fault(),
                4 => assert_eq!(self.world.driver().identify().unwrap().key_epoch, self.chip.epoch),
                _ => {}
            }
            let offer = self.offer();
            self.session(number, &offer);
        }
        println!("{:?}", self.met);
        // A schedule that never met the common refusals tests nothing.
        for expected in ["OK", "CHIP_POLICY_DENIED", "CHIP_ROLLBACK", "CHIP_SIGNATURE_INVALID"] {
            assert!(self.met.contains_key(expected), "never met {expected}: {:?}", self.met);
        }
    }

    #[track_caller]
    fn same<T>(&mut self, what: &str, expected: Result<(), Code>, found: &Result<T, ChipError>) -> bool {
        let expected = expected.err().unwrap_or("OK");
        *self.met.entry(expected).or_default() += 1;
        assert_eq!(code(found), expected, "{what}: {:?}", found.as_ref().err());
        expected == "OK"
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.random.below(one_in) == 0
    }

    fn offer(&mut self) -> model::Offer {
        let path = [Path::KeyRelease, Path::KeyRelease, Path::DmaSealed, Path::DmaSealed, Path::DmaDirect]
            [self.random.below(5)];
        let mut offer = model::Offer {
            path,
            hybrid_offered: !self.chance(3),
            no_evidence: !self.chance(10),
            emulated_dma: path == Path::DmaDirect && !self.chance(8),
            wrong_root: false,
            wrong_chip: false,
            emulation_accepted: true,
        };
        match self.random.below(20) {
            0 => offer.wrong_root = true,
            1 => offer.wrong_chip = true,
            2 => offer.emulation_accepted = false,
            _ => {}
        }
        offer
    }

    fn power_cut(&mut self) {
        let modes = (!self.chance(5), !self.chance(5));
        (self.chip.allows_no_evidence, self.chip.allows_emulated_dma) = modes;
        self.world.restart(modes.0, modes.1, None);
    }

    fn request(&mut self, presented: usize) -> model::Request {
        let number = self.random.below(self.world.artifacts.len());
        let core = self.world.artifacts[number].facts;
        let fault = self.random.below(16);
        let another =
            |random: &mut Random, bound: usize, not: usize| (not + 1 + random.below(bound - 1)) % bound;
        let (artifacts, policies) = (self.world.artifacts.len(), self.policies.len());
        model::Request {
            core,
            core_garbled: fault == 0,
            signature: match fault {
                1 => model::Signature::Forged,
                2 => model::Signature::OfAnotherSealer,
                3 => model::Signature::Valid,
                _ if core.sealer.is_some() && !self.chance(4) => model::Signature::Valid,
                _ => model::Signature::Absent,
            },
            granted_core: if fault == 4 { another(&mut self.random, artifacts, number) } else { number },
            granted_policy: if fault == 5 {
                another(&mut self.random, policies, presented)
            } else {
                presented
            },
            granted_suite: if self.chance(2) { Suite::Classical } else { Suite::Hybrid },
            stated_epoch: if fault == 6 { 2 } else { self.chip.epoch },
            wrapping_garbled: fault == 7,
        }
    }

    /// One session: open, present, a few commands, an end of some kind.
    fn session(&mut self, number: usize, offer: &model::Offer) {
        let expected = self.chip.open(offer);
        // The driver goes out of the world while the session holds it.
        let _ = self.world.driver();
        let mut driver = self.world.driver.take().unwrap();
        let policy = if self.chance(12) { None } else { Some(self.random.below(self.policies.len())) };
        {
            let requirement = self.world.requirement(offer);
            let found = Session::open(&mut driver, &requirement);
            if self.same(&format!("session {number}: open {offer:?}"), expected.map(drop), &found) {
                let mut facts = expected.unwrap();
                if let Some(session) = self.present(number, found.unwrap(), &mut facts, offer, policy) {
                    self.commands(number, session, &mut facts);
                }
            }
        }
        self.world.driver = Some(driver);
    }

    fn present<'d>(
        &mut self,
        number: usize,
        session: Session<'d, Open>,
        facts: &mut model::Session,
        offer: &model::Offer,
        policy: Option<usize>,
    ) -> Option<Session<'d, Presented>> {
        let expected = self.chip.present(facts, offer, policy);
        let preimage = policy
            .map_or(&b"{\"@type\":\"no policy\"}"[..], |policy| self.world.policies[policy].1.preimage());
        let found = session.present(preimage, |_| Ok(Vec::new()));
        self.same(&format!("session {number}: present {policy:?}"), expected, &found).then(|| found.unwrap())
    }

    fn commands(&mut self, number: usize, mut session: Session<'_, Presented>, facts: &mut model::Session) {
        let mut handles: Vec<(usize, Handle)> = Vec::new();
        for step in 0..self.random.below(8) {
            let what = format!("session {number}, step {step} ({facts:?})");
            match self.random.below(6) {
                0 => {
                    let status = session.status().unwrap();
                    assert_eq!(
                        (status.handles, status.key_epoch, status.bytes_left),
                        (facts.handles, self.chip.epoch, facts.bytes_left),
                        "{what}"
                    );
                }
                1 => self.floors(&what, &mut session),
                2 if !handles.is_empty() && facts.path == Path::DmaSealed => {
                    let (core, handle) = handles[self.random.below(handles.len())];
                    if !self.unseal(&what, &mut session, facts, core, handle) {
                        // The driver ends a session after a job that failed.
                        return;
                    }
                }
                _ => handles.extend(self.unwrap(&what, &mut session, facts)),
            }
        }
        if !self.chance(3) {
            session.close().unwrap();
        }
    }

    fn unwrap(
        &mut self,
        what: &str,
        session: &mut Session<'_, Presented>,
        facts: &mut model::Session,
    ) -> Option<(usize, Handle)> {
        let request = self.request(facts.presented.unwrap());
        let expected = self.chip.unwrap(facts, &self.policies, &request);
        let what = format!("{what}: {request:?}");
        let garbled = self.world.artifacts[request.core.number].core.bytes()[1..].to_vec();
        let sent = self.world.request(&request, &garbled);
        if facts.path == Path::KeyRelease {
            let found = session.release_key(&sent);
            if self.same(&what, expected, &found) {
                let key = &self.world.artifacts[request.core.number].key;
                assert!(found.unwrap().expose_bytes() == key.expose_bytes(), "{what}: another key");
            }
            return None;
        }
        let found = session.unwrap_grant(&sent);
        self.same(&what, expected, &found).then(|| (request.core.number, found.unwrap()))
    }

    fn unseal(
        &mut self,
        what: &str,
        session: &mut Session<'_, Presented>,
        facts: &mut model::Session,
        core: usize,
        handle: Handle,
    ) -> bool {
        let fault = self.random.below(6);
        let payload = if fault == 0 { self.random.below(self.world.artifacts.len()) } else { core };
        let artifact = &self.world.artifacts[payload];
        let bytes = artifact.plaintext.bytes().len();
        let job = model::Job {
            core: payload,
            handle: core,
            bytes: bytes.try_into().unwrap(),
            tags_garbled: fault == 1,
            ciphertext_garbled: fault == 2,
        };
        let expected = self.chip.unseal(facts, &job);
        let mut tags = artifact.tags.clone();
        tags[3] ^= u8::from(job.tags_garbled);
        let flipped = self.random.below(bytes);
        let mut read = |offset: u64, buffer: &mut [u8]| {
            let offset = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&artifact.ciphertext[offset..offset + buffer.len()]);
            if job.ciphertext_garbled && (offset..offset + buffer.len()).contains(&flipped) {
                buffer[flipped - offset] ^= 1;
            }
            Ok(())
        };
        let mut destination = vec![0; bytes];
        let real = UnsealJob {
            handle,
            core: &artifact.core,
            payload: PayloadIndex::new(0),
            tag_table: &tags,
            staging: world::STAGING,
        };
        let found = session.unseal_sealed(&real, &mut read, &mut destination, &mut |_| ());
        let right = if expected.is_ok() {
            destination == artifact.plaintext.bytes()
        } else {
            destination.iter().all(|byte| *byte == 0)
        };
        assert!(right, "{what}: the destination is neither plaintext nor wiped");
        self.same(&format!("{what}: {job:?}"), expected, &found)
    }

    fn floors(&self, what: &str, session: &mut Session<'_, Presented>) {
        let found: BTreeMap<_, _> = session
            .floors()
            .unwrap()
            .floors
            .into_iter()
            .map(|floor| ((floor.sealer, floor.family), floor.counter))
            .collect();
        let digest = |number: usize| *self.world.sealers[number].public_key().digest().as_bytes();
        let expected: BTreeMap<_, _> = self
            .chip
            .floors
            .iter()
            .map(|((sealer, family), counter)| ((digest(*sealer), (*family).to_owned()), *counter))
            .collect();
        assert_eq!(found, expected, "{what}: floors");
    }

    /// A chip that misbehaves once. The driver must say how, and the next session is as if nothing had been.
    fn fault(&mut self) {
        // Kind, command, further fields of the plan, what the driver says; in a session that opens, presents, asks STATUS and FLOORS.
        const FAULTS: [(&str, Option<&str>, &str, Code); 17] = [
            ("forged-completion", Some("STATUS"), "", "CHIP_COMPLETION_FORGED"),
            ("bad-tag", Some("PRESENT"), "", "CHIP_COMPLETION_FORGED"),
            ("bad-tag", Some("FLOORS"), "", "CHIP_COMPLETION_FORGED"),
            ("corrupt-output", Some("PRESENT"), "", "CHIP_COMPLETION_FORGED"),
            ("wrong-status", Some("STATUS"), "value = 33\n", "CHIP_COMPLETION_FORGED"),
            ("wrong-length", Some("PRESENT"), "", "CHIP_LENGTH_LIE"),
            ("wrong-cid", Some("STATUS"), "", "CHIP_COMPLETION_UNKNOWN"),
            ("wrong-head", Some("FLOORS"), "", "CHIP_RING_HEAD"),
            ("gone", Some("STATUS"), "", "CHIP_GONE"),
            ("disconnect", Some("STATUS"), "", "CHIP_GONE"),
            ("wrong-chain", None, "", "CHIP_CHAIN_UNTRUSTED"),
            ("wrong-static-key", None, "", "CHIP_STATIC_KEY"),
            ("wrong-signature", None, "", "CHIP_SESSION_SIGNATURE"),
            ("lost-completion", Some("FLOORS"), "", "CHIP_TIMEOUT"),
            ("missing-interrupt", None, "times = 0\n", "OK"),
            ("spurious-interrupt", None, "times = 0\n", "OK"),
            ("interrupt-storm", Some("STATUS"), "", "OK"),
        ];
        let (kind, command, more, expected) = FAULTS[self.random.below(FAULTS.len())];
        let command = command.map_or(String::new(), |command| format!("command = \"{command}\"\n"));
        (self.chip.allows_no_evidence, self.chip.allows_emulated_dma) = (true, true);
        self.world.restart(true, true, Some(&format!("[[fault]]\nkind = \"{kind}\"\n{command}{more}")));
        let offer = model::Offer {
            path: Path::KeyRelease,
            hybrid_offered: true,
            no_evidence: true,
            emulated_dma: false,
            wrong_root: false,
            wrong_chip: false,
            emulation_accepted: true,
        };
        let _ = self.world.driver();
        let mut driver = self.world.driver.take().unwrap();
        let found = (|| {
            let mut session = Session::open(&mut driver, &self.world.requirement(&offer))?
                .present(self.world.policies[0].1.preimage(), |_| Ok(Vec::new()))?;
            session.status()?;
            session.floors()?;
            session.close()
        })();
        let expected = if expected == "OK" { Ok(()) } else { Err(expected) };
        self.same(&format!("fault {kind} {command}"), expected, &found);
        // A chip that went away is reached anew.
        if ["gone", "disconnect"].contains(&kind) {
            drop(driver);
            self.world.restart(true, true, None);
        } else {
            self.world.driver = Some(driver);
        }
    }
}
