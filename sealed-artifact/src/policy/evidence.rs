//! What a policy demands of the guest's evidence. Judging evidence is not done here.

use super::choice::{Choice, Hex, InitdataDigest};
use super::generation::{Generation, TcbLayout};
use crate::error::{ArtifactError, Found, limit};
use crate::json::Value;

/// Whether a guest that can be debugged is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugRule {
    /// Accepted.
    Any,
    /// Refused.
    Forbidden,
}

/// Rules about the guest; a TEE type without rules is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRules {
    /// Fingerprint of the platform's certificate chain.
    pub certificate_chain: Choice<Hex<32>>,
    /// Guests that can be debugged.
    pub debug: DebugRule,
    /// Digest bound in MRCONFIGID or HOST_DATA.
    pub initdata: Choice<InitdataDigest>,
    /// Rules for SEV-SNP.
    pub snp: Option<SnpRules>,
    /// Rules for TDX.
    pub tdx: Option<TdxRules>,
    /// Manifest digest of the unsigned layers.
    pub unsigned_manifest: Choice<Hex<32>>,
}

/// Rules for SEV-SNP reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpRules {
    /// Digest of the author key.
    pub author_key_digest: Choice<Hex<48>>,
    /// Generation of the processor. Not "any" where `min_tcb` is not zero, and then of one TCB layout.
    pub generation: Choice<Generation>,
    /// Guest policy.
    pub guest_policy: Choice<Hex<8>>,
    /// Digest of the id key.
    pub id_key_digest: Choice<Hex<48>>,
    /// Highest VMPL of the report.
    pub max_vmpl: u8,
    /// Launch measurement.
    pub measurement: Choice<Hex<48>>,
    /// Lowest number of the revocation list; above 0, one has to be presented.
    pub min_crl_number: u64,
    /// Lowest reported TCB, componentwise, in the layout of `generation`; its unused bytes are zero.
    pub min_tcb: Hex<8>,
}

/// Rules for TDX quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxRules {
    /// Lowest number of the revocation list for PCK certificates.
    pub min_pck_crl_number: u64,
    /// Lowest number of the root's revocation list; its numbers are a series of their own.
    pub min_root_crl_number: u64,
    /// Lowest TCB-evaluation number of the collateral.
    pub min_tcb_evaluation: u64,
    /// Lowest TEE TCB SVN, componentwise.
    pub min_tee_tcb_svn: Hex<16>,
    /// Build-time measurement.
    pub mrtd: Choice<Hex<48>>,
    /// Runtime measurement registers 0 to 3.
    pub rtmr: [Choice<Hex<48>>; 4],
}

const RTMR: [&str; 4] = ["rtmr0", "rtmr1", "rtmr2", "rtmr3"];

impl EvidenceRules {
    pub(super) fn from_value(value: Value) -> Result<Self, ArtifactError> {
        let mut members = value.into_members("evidence")?;
        let rules = Self {
            certificate_chain: Choice::from_value("certificate_chain", members.take("certificate_chain")?)?,
            debug: debug_from_value(members.take("debug")?)?,
            initdata: Choice::from_value("initdata", members.take("initdata")?)?,
            snp: members.take_optional("snp").map(SnpRules::from_value).transpose()?,
            tdx: members.take_optional("tdx").map(TdxRules::from_value).transpose()?,
            unsigned_manifest: Choice::from_value("unsigned_manifest", members.take("unsigned_manifest")?)?,
        };
        members.finish()?;
        // GUARD: evidence-names-a-tee -> evil_evidence_rules_without_a_tee_are_refused
        if rules.snp.is_none() && rules.tdx.is_none() {
            let expected = "rules for at least one of snp and tdx";
            return Err(ArtifactError::Malformed { what: "evidence", expected, found: Found::text("none") });
        }
        Ok(rules)
    }

    pub(super) fn to_value(&self) -> Value {
        let debug = match self.debug {
            DebugRule::Any => Value::text("any"),
            DebugRule::Forbidden => Value::object([("exactly", Value::Bool(false))]),
        };
        Value::object_of([
            ("certificate_chain", Some(self.certificate_chain.to_value())),
            ("debug", Some(debug)),
            ("initdata", Some(self.initdata.to_value())),
            ("snp", self.snp.as_ref().map(SnpRules::to_value)),
            ("tdx", self.tdx.as_ref().map(TdxRules::to_value)),
            ("unsigned_manifest", Some(self.unsigned_manifest.to_value())),
        ])
    }
}

fn debug_from_value(value: Value) -> Result<DebugRule, ArtifactError> {
    if value == Value::text("any") {
        Ok(DebugRule::Any)
    } else if value == Value::object([("exactly", Value::Bool(false))]) {
        Ok(DebugRule::Forbidden)
    } else {
        Err(value.malformed("debug", "\"any\" or {\"exactly\":false}"))
    }
}

impl SnpRules {
    fn from_value(value: Value) -> Result<Self, ArtifactError> {
        let mut members = value.into_members("snp")?;
        let max_vmpl = members.take("max_vmpl")?.into_integer("max_vmpl")?;
        limit("max_vmpl", 0, 3, max_vmpl)?;
        let rules = Self {
            author_key_digest: Choice::from_value("author_key_digest", members.take("author_key_digest")?)?,
            generation: Choice::from_value("generation", members.take("generation")?)?,
            guest_policy: Choice::from_value("guest_policy", members.take("guest_policy")?)?,
            id_key_digest: Choice::from_value("id_key_digest", members.take("id_key_digest")?)?,
            max_vmpl: u8::try_from(max_vmpl).unwrap_or_default(),
            measurement: Choice::from_value("measurement", members.take("measurement")?)?,
            min_crl_number: members.take("min_crl_number")?.into_integer("min_crl_number")?,
            min_tcb: Hex::from_value("min_tcb", members.take("min_tcb")?)?,
        };
        members.finish()?;
        // GUARD: min-tcb-has-a-layout -> evil_minimum_tcb_without_one_layout_is_refused
        rules.require_tcb_layout()?;
        Ok(rules)
    }

    /// Refuses a minimum whose bytes mean one thing on one processor and another on the next.
    fn require_tcb_layout(&self) -> Result<(), ArtifactError> {
        if self.min_tcb.is_zero() || TcbLayout::of(&self.generation).is_some_and(|it| it.fits(&self.min_tcb))
        {
            return Ok(());
        }
        Err(ArtifactError::Malformed {
            what: "min_tcb",
            expected: "zero, or a generation that is not \"any\", of one TCB layout, and zero in its unused bytes",
            found: Found::value(format_args!("{} with generation {}", self.min_tcb, self.generation)),
        })
    }

    fn to_value(&self) -> Value {
        Value::object([
            ("author_key_digest", self.author_key_digest.to_value()),
            ("generation", self.generation.to_value()),
            ("guest_policy", self.guest_policy.to_value()),
            ("id_key_digest", self.id_key_digest.to_value()),
            ("max_vmpl", Value::integer(u64::from(self.max_vmpl))),
            ("measurement", self.measurement.to_value()),
            ("min_crl_number", Value::integer(self.min_crl_number)),
            ("min_tcb", self.min_tcb.to_value()),
        ])
    }
}

impl TdxRules {
    fn from_value(value: Value) -> Result<Self, ArtifactError> {
        let mut members = value.into_members("tdx")?;
        let mut rtmr = [Choice::Any, Choice::Any, Choice::Any, Choice::Any];
        for (register, name) in rtmr.iter_mut().zip(RTMR) {
            *register = Choice::from_value(name, members.take(name)?)?;
        }
        let rules = Self {
            min_pck_crl_number: members.take("min_pck_crl_number")?.into_integer("min_pck_crl_number")?,
            min_root_crl_number: members.take("min_root_crl_number")?.into_integer("min_root_crl_number")?,
            min_tcb_evaluation: members.take("min_tcb_evaluation")?.into_integer("min_tcb_evaluation")?,
            min_tee_tcb_svn: Hex::from_value("min_tee_tcb_svn", members.take("min_tee_tcb_svn")?)?,
            mrtd: Choice::from_value("mrtd", members.take("mrtd")?)?,
            rtmr,
        };
        members.finish()?;
        Ok(rules)
    }

    fn to_value(&self) -> Value {
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &self.rtmr;
        Value::object([
            ("min_pck_crl_number", Value::integer(self.min_pck_crl_number)),
            ("min_root_crl_number", Value::integer(self.min_root_crl_number)),
            ("min_tcb_evaluation", Value::integer(self.min_tcb_evaluation)),
            ("min_tee_tcb_svn", self.min_tee_tcb_svn.to_value()),
            ("mrtd", self.mrtd.to_value()),
            ("rtmr0", rtmr0.to_value()),
            ("rtmr1", rtmr1.to_value()),
            ("rtmr2", rtmr2.to_value()),
            ("rtmr3", rtmr3.to_value()),
        ])
    }
}
