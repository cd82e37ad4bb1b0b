//! A piece of a broker's resource policy (Rego v1) that opens one resource path to the guests that a policy describes.

use super::ResourcePath;
use super::rego::Body;
use crate::digest::CoreDigest;
use crate::error::ArtifactError;
use crate::policy::{Choice, EvidenceRules, Policy, PolicyDocument, PolicyRules, SnpRules, TcbLayout};

/// A member of the policy that a broker cannot enforce: its input has no such fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unenforced {
    /// The member.
    pub member: &'static str,
    /// Why, and who judges it instead.
    pub reason: &'static str,
}

/// The piece for one path, markers included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFragment {
    path: ResourcePath,
    text: String,
    unenforced: Vec<Unenforced>,
}

impl PolicyFragment {
    /// The path that it opens.
    #[must_use]
    pub const fn path(&self) -> ResourcePath {
        self.path
    }

    /// The text, from its first marker to its last.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the broker does not enforce of the policy.
    #[must_use]
    pub fn unenforced(&self) -> &[Unenforced] {
        &self.unenforced
    }
}

/// The fragment for a core under a policy. It allows exactly one path, to guests whose claims meet every rule about
/// evidence that claims can express, and to nobody else.
///
/// # Errors
/// `POLICY_WEAK` for an opaque policy and for one that demands nothing of the guest: there is nothing that a broker could
/// compare, and a path that is open to every guest is not made by a program.
pub fn policy_fragment(core: CoreDigest, policy: &PolicyDocument) -> Result<PolicyFragment, ArtifactError> {
    let path = ResourcePath::new(core, policy.digest());
    let weak = |first| ArtifactError::PolicyWeak { first, more: 0 };
    let Policy::Rules(rules) = policy.policy() else {
        return Err(weak("WEAK_OPAQUE"));
    };
    let evidence = rules.evidence.as_ref().ok_or_else(|| weak("WEAK_NO_EVIDENCE"))?;
    let unenforced = unenforced(rules, evidence);
    let text = text(path, evidence, &unenforced);
    Ok(PolicyFragment { path, text, unenforced })
}

fn text(path: ResourcePath, evidence: &EvidenceRules, unenforced: &[Unenforced]) -> String {
    let id = path.id();
    let [repository, core, policy] = path.segments();
    let mut text = format!(
        "# BEGIN innerkeep {id}\n\
         # Key-encryption key of core sha256:{core}\n\
         # under policy {policy}.\n\
         # Written by innerkeep: what is changed between these markers is lost at the next grant.\n"
    );
    if !unenforced.is_empty() {
        text += "# The policy demands more than a broker can compare:\n";
    }
    for Unenforced { member, reason } in unenforced {
        text += &format!("#   {member}: {reason}\n");
    }
    let members: Vec<String> = unenforced.iter().map(|one| format!("\"{}\"", one.member)).collect();
    text += &format!("innerkeep_{id}_unenforced := [{}]\n", members.join(", "));
    let mut bodies = Vec::new();
    if let Some(tdx) = &evidence.tdx {
        let mut body = Body::default();
        body.tdx(evidence, tdx);
        bodies.push(body);
    }
    if let Some(snp) = &evidence.snp {
        let mut body = Body::default();
        body.snp(evidence, snp);
        bodies.push(body);
    }
    for body in bodies {
        text += &format!(
            "\nallow if {{\n    \
                 data.plugin == \"resource\"\n    \
                 data[\"resource-path\"] == [\n        \"{repository}\",\n        \"{core}\",\n        \"{policy}\"\n    ]\n    \
                 evidence := input.submods.cpu0[\"ear.veraison.annotated-evidence\"]\n\
             {}}}\n",
            body.text()
        );
    }
    text + &format!("# END innerkeep {id}\n")
}

fn unenforced(rules: &PolicyRules, evidence: &EvidenceRules) -> Vec<Unenforced> {
    let mut found = Vec::new();
    let mut add = |demanded: bool, member, reason| {
        if demanded {
            found.push(Unenforced { member, reason });
        }
    };
    let opener = "a fact of the core and of the guest's tier: the guest compares it before it opens";
    add(!rules.environment.is_any(), "environment", opener);
    add(!rules.family.is_any(), "family", "a fact of the core: the guest compares it before it opens");
    let counter = "a fact of the core: the guest compares it before it opens";
    add(rules.min_counter.value() > 0, "min_counter", counter);
    add(!rules.link_mode.is_any(), "link_mode", "a broker releases a key; there is no link to a chip");
    let chain = "not among the claims; the broker trusts the roots of its own verifier";
    add(!evidence.certificate_chain.is_any(), "certificate_chain", chain);
    let manifest = "not among the claims; the guest compares it when it unpacks";
    add(!evidence.unsigned_manifest.is_any(), "unsigned_manifest", manifest);
    if let Some(snp) = &evidence.snp {
        unenforced_snp(snp, &mut add);
    }
    found
}

fn unenforced_snp(snp: &SnpRules, add: &mut impl FnMut(bool, &'static str, &'static str)) {
    let absent = "not among the claims";
    add(!snp.author_key_digest.is_any(), "author_key_digest", absent);
    add(!snp.generation.is_any(), "generation", "not among the claims: components are compared by name");
    let bits = "bit 21 and those above it are not among the claims; the others are compared";
    add(!matches!(snp.guest_policy, Choice::Any), "guest_policy", bits);
    add(!snp.id_key_digest.is_any(), "id_key_digest", absent);
    add(snp.min_crl_number > 0, "min_crl_number", absent);
    let [fmc, ..] = snp.min_tcb.0;
    let turin = TcbLayout::of(&snp.generation) == Some(TcbLayout::Turin);
    add(turin && fmc > 0, "min_tcb", "the component fmc is not among the claims; the others are compared");
}
