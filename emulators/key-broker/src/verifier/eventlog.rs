//! Entries of a replayed event log, as claims. Entries that no register vouches for are not told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::abi::event_log::{LogAlgorithm, LogEntry};
use serde_json::{Map, Value, json};

/// One entry.
pub(super) fn claims(entry: &LogEntry) -> Value {
    let digests: Vec<Value> = entry
        .digests
        .iter()
        .map(|(algorithm, digest)| json!({"alg": algorithm_name(*algorithm), "digest": hex::encode(digest)}))
        .collect();
    json!({
        "index": entry.index,
        "type_name": type_name(entry.event_type),
        "digests": digests,
        "event": STANDARD.encode(&entry.data),
        "digest_matches_event": entry.digest_is_over_data(),
        "details": details(entry),
    })
}

/// What is in the data, where the digest is over it and it can be read.
fn details(entry: &LogEntry) -> Value {
    let mut details = Map::new();
    if !entry.digest_is_over_data() {
        return Value::Object(details);
    }
    if let Some(event) = entry.aael() {
        let content: Value =
            serde_json::from_str(event.content()).unwrap_or_else(|_json| event.content().into());
        details.insert("unicode_name".to_owned(), "AAEL".into());
        details.insert("string".to_owned(), event.text().into());
        details.insert(
            "data".to_owned(),
            json!({"domain": event.domain(), "operation": event.operation(), "content": content}),
        );
    } else if let Ok(text) = std::str::from_utf8(&entry.data)
        && !text.is_empty()
        && !text.trim_end_matches('\0').chars().any(char::is_control)
    {
        details.insert("string".to_owned(), text.trim_end_matches('\0').into());
    }
    Value::Object(details)
}

const fn algorithm_name(algorithm: LogAlgorithm) -> &'static str {
    match algorithm {
        LogAlgorithm::Sha256 => "SHA-256",
        LogAlgorithm::Sha384 => "SHA-384",
        LogAlgorithm::Sha512 => "SHA-512",
        LogAlgorithm::Sm3 => "SM3-256",
    }
}

/// Names of the TCG PC Client specification; a number for all others.
fn type_name(event_type: u32) -> String {
    let name = match event_type {
        0x0 => "EV_PREBOOT_CERT",
        0x1 => "EV_POST_CODE",
        0x3 => "EV_NO_ACTION",
        0x4 => "EV_SEPARATOR",
        0x5 => "EV_ACTION",
        0x6 => "EV_EVENT_TAG",
        0x7 => "EV_S_CRTM_CONTENTS",
        0x8 => "EV_S_CRTM_VERSION",
        0x9 => "EV_CPU_MICROCODE",
        0xa => "EV_PLATFORM_CONFIG_FLAGS",
        0xb => "EV_TABLE_OF_DEVICES",
        0xc => "EV_COMPACT_HASH",
        0xd => "EV_IPL",
        0xe => "EV_IPL_PARTITION_DATA",
        0xf => "EV_NONHOST_CODE",
        0x10 => "EV_NONHOST_CONFIG",
        0x11 => "EV_NONHOST_INFO",
        0x12 => "EV_OMIT_BOOT_DEVICE_EVENTS",
        0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
        0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
        0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
        0x8000_0006 => "EV_EFI_GPT_EVENT",
        0x8000_0007 => "EV_EFI_ACTION",
        0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
        0x8000_000a => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000_000b => "EV_EFI_HANDOFF_TABLES2",
        0x8000_000c => "EV_EFI_VARIABLE_BOOT2",
        0x8000_0010 => "EV_EFI_HCRTM_EVENT",
        0x8000_00e0 => "EV_EFI_VARIABLE_AUTHORITY",
        0x8000_00e1 => "EV_EFI_SPDM_FIRMWARE_BLOB",
        0x8000_00e2 => "EV_EFI_SPDM_FIRMWARE_CONFIG",
        other => return format!("{other:#010x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evidence::abi::aael::AaelEvent;
    use evidence::abi::event_log::EV_EVENT_TAG;

    #[test]
    fn events_of_the_agent_are_opened() {
        let event = AaelEvent::new("example.org", "PullImage", r#"{"image":"a:1"}"#).unwrap();
        let found = claims(&LogEntry::new(4, EV_EVENT_TAG, event.encode()));
        assert_eq!(found["type_name"], "EV_EVENT_TAG");
        assert_eq!(found["details"]["unicode_name"], "AAEL");
        assert_eq!(found["details"]["data"]["content"]["image"], "a:1");
        assert_eq!(found["digests"][0]["alg"], "SHA-384");
        let text = claims(&LogEntry::new(3, 0xd, b"grub_cmd: boot\0".to_vec()));
        assert_eq!(
            (&text["type_name"], &text["details"]["string"]),
            (&"EV_IPL".into(), &"grub_cmd: boot".into())
        );
    }

    #[test]
    fn evil_host_changes_data_that_no_digest_covers() {
        let mut entry = LogEntry::new(2, 0x8000_0006, b"text".to_vec());
        entry.data = b"lies".to_vec();
        let found = claims(&entry);
        assert_eq!((&found["digest_matches_event"], &found["details"]), (&false.into(), &json!({})));
    }
}
