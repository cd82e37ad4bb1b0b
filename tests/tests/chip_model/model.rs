//! What a chip must answer, in as few words as possible: written from the specification (chip interface, sections 7 and 8), not from either
//! implementation. No cryptography: a wrapped key is a note of what it was wrapped for.

use std::collections::BTreeMap;

/// A stable code, as the driver reports it.
pub type Code = &'static str;

/// Tier that the chip is provisioned for.
pub const TIER: &str = "development";
/// Bulk bytes of a session (§7.5).
pub const BUDGET: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    KeyRelease,
    DmaSealed,
    DmaDirect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    Classical,
    Hybrid,
}

/// What a guest offers and accepts, and where somebody else stands in for the chip or the guest.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub path: Path,
    pub hybrid_offered: bool,
    pub no_evidence: bool,
    pub emulated_dma: bool,
    pub wrong_root: bool,
    pub wrong_chip: bool,
    pub emulation_accepted: bool,
}

/// The conditions of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub opaque: bool,
    pub evidence: bool,
    pub environment: Option<&'static str>,
    pub family: Option<&'static str>,
    pub link_mode: Option<Path>,
    pub min_counter: u64,
}

/// A core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    pub number: usize,
    pub sealer: Option<usize>,
    pub family: &'static str,
    pub counter: u64,
    pub environment: &'static str,
}

/// The sealer's signature that is sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    Absent,
    Valid,
    Forged,
    OfAnotherSealer,
}

/// What is sent to be unwrapped.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub core: Core,
    pub core_garbled: bool,
    pub signature: Signature,
    /// What the key was wrapped for.
    pub granted_core: usize,
    pub granted_policy: usize,
    pub granted_suite: Suite,
    /// What the submission says.
    pub stated_epoch: u64,
    pub wrapping_garbled: bool,
}

/// A bulk job.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The core whose payload it is.
    pub core: usize,
    /// The core that the handle is of.
    pub handle: usize,
    pub bytes: u64,
    pub tags_garbled: bool,
    pub ciphertext_garbled: bool,
}

/// The chip.
#[derive(Clone, Debug)]
pub struct Chip {
    pub allows_no_evidence: bool,
    pub allows_emulated_dma: bool,
    pub epoch: u64,
    /// By sealer and family.
    pub floors: BTreeMap<(usize, &'static str), u64>,
}

/// A session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub path: Path,
    pub suite: Suite,
    pub presented: Option<usize>,
    pub handles: u32,
    pub bytes_left: u64,
}

impl Chip {
    /// Both sides' judgement of a handshake.
    pub fn open(&self, offer: &Offer) -> Result<Session, Code> {
        // The guest's own rule: no private DMA without evidence of the device, unless emulated on both sides.
        if offer.path == Path::DmaDirect && !offer.emulated_dma {
            return Err("CHIP_REQUIREMENT");
        }
        if (offer.no_evidence && !self.allows_no_evidence)
            || (offer.emulated_dma && !self.allows_emulated_dma)
        {
            return Err("CHIP_INSECURE_REFUSED");
        }
        // Then the guest judges the answer.
        if offer.wrong_root {
            return Err("CHIP_CHAIN_UNTRUSTED");
        }
        if offer.wrong_chip {
            return Err("CHIP_OTHER_CHIP");
        }
        if !offer.emulation_accepted {
            return Err("CHIP_INSECURE_REFUSED");
        }
        let suite = if offer.hybrid_offered { Suite::Hybrid } else { Suite::Classical };
        Ok(Session { path: offer.path, suite, presented: None, handles: 0, bytes_left: BUDGET })
    }

    /// PRESENT of a policy by number, or of bytes that are none.
    pub fn present(&self, session: &mut Session, offer: &Offer, policy: Option<usize>) -> Result<(), Code> {
        // The driver sends no empty evidence for a guest that claims to have some.
        if !offer.no_evidence {
            return Err("CHIP_EVIDENCE_MISSING");
        }
        session.presented = Some(policy.ok_or("CHIP_POLICY_MALFORMED")?);
        Ok(())
    }

    /// UNWRAP: the order of §8.1.
    pub fn unwrap(
        &mut self,
        session: &mut Session,
        policies: &[Policy],
        request: &Request,
    ) -> Result<(), Code> {
        let core = &request.core;
        if request.core_garbled {
            return Err("CHIP_CORE_MALFORMED");
        }
        let signed = match (request.signature, core.sealer) {
            (Signature::Absent, _) => false,
            (Signature::Valid, Some(_)) => true,
            _ => return Err("CHIP_SIGNATURE_INVALID"),
        };
        let floor =
            core.sealer.and_then(|sealer| self.floors.get(&(sealer, core.family))).copied().unwrap_or(0);
        if core.counter < floor {
            return Err("CHIP_ROLLBACK");
        }
        let presented = session.presented.ok_or("CHIP_POLICY_MALFORMED")?;
        self.evaluate(session, policies.get(presented).ok_or("CHIP_POLICY_MALFORMED")?, core)?;
        if request.stated_epoch != self.epoch {
            return Err("CHIP_EPOCH");
        }
        if request.granted_suite == Suite::Hybrid && session.suite == Suite::Classical {
            return Err("CHIP_SUITE");
        }
        if request.wrapping_garbled
            || request.granted_core != core.number
            || request.granted_policy != presented
        {
            return Err("CHIP_UNWRAP_FAILED");
        }
        if let (true, Some(sealer)) = (signed, core.sealer) {
            let floor = self.floors.entry((sealer, core.family)).or_insert(core.counter);
            *floor = core.counter.max(*floor);
        }
        if session.path != Path::KeyRelease {
            session.handles += 1;
        }
        Ok(())
    }

    fn evaluate(&self, session: &Session, policy: &Policy, core: &Core) -> Result<(), Code> {
        if policy.evidence || !self.allows_no_evidence {
            return Err("CHIP_EVIDENCE_REQUIRED");
        }
        let environment = policy.environment.is_none_or(|one| one == core.environment && one == TIER);
        let family = policy.family.is_none_or(|one| one == core.family);
        let link_mode = policy.link_mode.is_none_or(|one| one == session.path);
        let counter = core.counter >= policy.min_counter;
        if policy.opaque || (environment && family && link_mode && counter) {
            Ok(())
        } else {
            Err("CHIP_POLICY_DENIED")
        }
    }

    /// LOAD_TAGS and UNSEAL of a whole payload over `dma-sealed`.
    pub fn unseal(&self, session: &mut Session, job: &Job) -> Result<(), Code> {
        if job.tags_garbled || job.core != job.handle {
            return Err("CHIP_TAGS_MISMATCH");
        }
        if job.ciphertext_garbled {
            return Err("CHIP_SEGMENT_AUTH");
        }
        session.bytes_left -= job.bytes;
        Ok(())
    }
}
