//! Grants for a key broker: a key-encryption key to store there, and the rules by which it releases that key.

use sealed_artifact::digest::RecipientKeyDigest;
use sealed_artifact::grant::Grant;
use sealed_artifact::kbs::{BrokerName, KbsRecipient, MAXIMUM_RESOURCE_POLICY, merge, policy_fragment};
use serde_json::json;

use super::Request;
use crate::error::Failure;
use crate::files;
use crate::output::Report;

pub(super) fn add(request: Request<'_>, name: &str) -> Result<Report, Failure> {
    let arguments = &request.arguments.broker;
    let kek_out = arguments.kek_out.as_deref().ok_or(Failure::Usage {
        argument: "--kek-out",
        expected: "a file for the key that the broker is to keep",
        found: String::new(),
    })?;
    let recipient = recipient(name, arguments.broker_key.as_deref())?;
    let fragment = policy_fragment(request.store.core.digest(), &request.policy)?;
    let policy = match arguments.resource_policy.as_deref() {
        None => None,
        Some(path) => {
            let existing = if path.exists() {
                files::read_text("read the resource policy", path, MAXIMUM_RESOURCE_POLICY)?
            } else {
                String::new()
            };
            Some((path, merge(&existing, &fragment)?))
        }
    };
    let (grant, kek) = Grant::seal_kbs(&request.store.core, &request.key, &recipient, &request.policy)?;
    request.refuse_forgeable(&grant)?;
    // The key first: a grant whose key is nowhere opens never, a key without a grant opens nothing.
    files::create("write the key-encryption key", kek_out, 0o600, kek.expose_bytes())?;
    let resource = format!("kbs:///{}", fragment.path());
    let mut lines = vec![format!("broker     {}", recipient.name), format!("resource   {resource}")];
    let mut foreign_rules = None;
    if let Some((path, merged)) = policy {
        files::replace("write the resource policy", path, merged.text.as_bytes())?;
        foreign_rules = Some(merged.foreign_rules);
        if merged.foreign_rules {
            lines.push(format!(
                "WARNING    {} has rules of others: rules add up, and one of them may open this resource too",
                path.display()
            ));
        }
    }
    for unenforced in fragment.unenforced() {
        lines.push(format!("not judged by the broker: {} ({})", unenforced.member, unenforced.reason));
    }
    let unenforced: Vec<_> = fragment
        .unenforced()
        .iter()
        .map(|rule| json!({ "member": rule.member, "reason": rule.reason }))
        .collect();
    let more = json!({
        "broker": recipient.name.as_str(), "resource": resource, "kek": kek_out, "foreign_rules": foreign_rules, "unenforced": unenforced,
    });
    request.finish(&grant, &lines, more)
}

/// The broker of a name, and the key by which guests know it.
pub(crate) fn recipient(name: &str, key: Option<&str>) -> Result<KbsRecipient, Failure> {
    let name = BrokerName::parse(name)?;
    let Some(text) = key else { return Ok(KbsRecipient::without_tls(name)) };
    let refused =
        || Failure::Usage { argument: "--broker-key", expected: "64 hex digits", found: text.to_owned() };
    let digest: [u8; 32] =
        hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(refused)?;
    Ok(KbsRecipient { name, key: RecipientKeyDigest::new(digest) })
}
