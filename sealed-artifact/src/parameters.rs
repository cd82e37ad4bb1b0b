//! Parameters: what every key of an artifact is bound to.

use crate::digest::{ParametersDigest, SealerKeyDigest};
use crate::error::{ArtifactError, Found, limit};
use crate::json::Value;
use crate::layout::Layout;
use crate::names::{
    ArtifactId, Counter, EnvironmentTag, Family, MediaType, PayloadIndex, PayloadName, SegmentSize,
};

pub(crate) const TYPE: &str = "innerkeep parameters v1";
pub(crate) const SUITE: &str = "AES-256-GCM HKDF-SHA-512";
/// Largest number of payloads in one artifact.
pub const MAXIMUM_PAYLOADS: u64 = 256;

/// One payload as the parameters describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadParameters {
    /// Media type of the plaintext.
    pub media_type: MediaType,
    /// File name of the plaintext.
    pub name: PayloadName,
    /// Where the segments lie; holds size and segment size.
    pub layout: Layout,
}

/// The parameters of an artifact, within all limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    counter: Counter,
    environment: EnvironmentTag,
    family: Family,
    id: ArtifactId,
    payloads: Vec<PayloadParameters>,
    sealer: Option<SealerKeyDigest>,
}

impl Parameters {
    /// Parameters from trusted parts.
    pub(crate) fn new(
        id: ArtifactId,
        family: Family,
        counter: Counter,
        environment: EnvironmentTag,
        sealer: Option<SealerKeyDigest>,
        payloads: Vec<PayloadParameters>,
    ) -> Result<Self, ArtifactError> {
        let parameters = Self { counter, environment, family, id, payloads, sealer };
        parameters.refuse_bad_payload_list()?;
        Ok(parameters)
    }

    /// Rollback counter.
    #[must_use]
    pub fn counter(&self) -> Counter {
        self.counter
    }

    /// Environment tag.
    #[must_use]
    pub fn environment(&self) -> &EnvironmentTag {
        &self.environment
    }

    /// Rollback family.
    #[must_use]
    pub fn family(&self) -> &Family {
        &self.family
    }

    /// Random id of the artifact.
    #[must_use]
    pub fn id(&self) -> ArtifactId {
        self.id
    }

    /// The payloads in order.
    #[must_use]
    pub fn payloads(&self) -> &[PayloadParameters] {
        &self.payloads
    }

    /// Digest of the sealer's public key, when the core is to be signed.
    #[must_use]
    pub fn sealer(&self) -> Option<SealerKeyDigest> {
        self.sealer
    }

    /// SHA-256 of the canonical encoding; keys derive from it.
    #[must_use]
    pub fn digest(&self) -> ParametersDigest {
        ParametersDigest::of(&self.to_value().encode())
    }

    fn refuse_bad_payload_list(&self) -> Result<(), ArtifactError> {
        limit("payloads in one artifact", 1, MAXIMUM_PAYLOADS, count(&self.payloads))?;
        let mut names: Vec<&PayloadName> = self.payloads.iter().map(|payload| &payload.name).collect();
        names.sort_unstable();
        let repeated = names.windows(2).find_map(|pair| match pair {
            [first, second] if first == second => Some(first.as_str()),
            _ => None,
        });
        // GUARD: distinct-payload-names -> evil_two_payloads_of_one_name_are_refused
        if let Some(name) = repeated {
            let expected = "payload names that differ from each other";
            return Err(ArtifactError::Malformed { what: "parameters", expected, found: Found::text(name) });
        }
        Ok(())
    }

    pub(crate) fn to_value(&self) -> Value {
        let payloads = self.payloads.iter().map(|payload| {
            Value::object([
                ("media_type", Value::text(payload.media_type.as_str())),
                ("name", Value::text(payload.name.as_str())),
                ("segment_size", Value::integer(payload.layout.segment_size().bytes())),
                ("size", Value::integer(payload.layout.size())),
            ])
        });
        Value::object_of([
            ("@type", Some(Value::text(TYPE))),
            ("counter", Some(Value::integer(self.counter.value()))),
            ("environment", Some(Value::text(self.environment.as_str()))),
            ("family", Some(Value::text(self.family.as_str()))),
            ("id", Some(Value::hex(self.id.as_bytes()))),
            ("payloads", Some(Value::Array(payloads.collect()))),
            ("sealer", self.sealer.map(|sealer| Value::text(sealer.to_string()))),
            ("suite", Some(Value::text(SUITE))),
        ])
    }

    pub(crate) fn from_value(value: Value) -> Result<Self, ArtifactError> {
        let mut members = value.into_members("parameters")?;
        members.take_type(TYPE)?;
        let counter = Counter::new(members.take("counter")?.into_integer("counter")?);
        let environment = EnvironmentTag::parse(&members.take("environment")?.into_text("environment")?)?;
        let family = Family::parse(&members.take("family")?.into_text("family")?)?;
        let id = ArtifactId::new(members.take("id")?.into_hex("id")?);
        let payloads = members.take("payloads")?.into_array("parameters.payloads")?;
        limit("payloads in one artifact", 1, MAXIMUM_PAYLOADS, count(&payloads))?;
        let payloads = (0..).zip(payloads).map(|(index, value)| payload_from_value(index, value));
        let payloads = payloads.collect::<Result<Vec<_>, _>>()?;
        let sealer = match members.take_optional("sealer") {
            Some(value) => Some(SealerKeyDigest::parse(&value.into_text("sealer")?)?),
            None => None,
        };
        let suite = members.take("suite")?.into_text("suite")?;
        // GUARD: payload-suite -> evil_unknown_suite_is_refused
        if suite != SUITE {
            return Err(ArtifactError::Malformed {
                what: "suite",
                expected: SUITE,
                found: Found::text(&suite),
            });
        }
        members.finish()?;
        Self::new(id, family, counter, environment, sealer, payloads)
    }
}

fn payload_from_value(index: u32, value: Value) -> Result<PayloadParameters, ArtifactError> {
    let mut members = value.into_members("parameters.payloads")?;
    let media_type = MediaType::parse(&members.take("media_type")?.into_text("media_type")?)?;
    let name = PayloadName::parse(&members.take("name")?.into_text("payload name")?)?;
    let segment_size = SegmentSize::parse(members.take("segment_size")?.into_integer("segment_size")?)?;
    let size = members.take("size")?.into_integer("size")?;
    members.finish()?;
    let layout = Layout::new(PayloadIndex::new(index), size, segment_size)?;
    Ok(PayloadParameters { media_type, name, layout })
}

/// Length of a slice as the format counts.
pub(crate) fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}
