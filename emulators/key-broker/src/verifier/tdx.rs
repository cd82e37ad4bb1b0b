//! TDX: quote, collateral by FMSPC, event log.

use dcap_qvl::configs::RustCryptoConfig;
use evidence::Octets;
use evidence::abi::event_log::EventLog;
use evidence::abi::json::TdxEvidence;
use evidence::abi::tdx::{QuoteVersion, TdExtension, TdxQuote};
use evidence::verify::replay::replay;
use evidence::verify::tdx::{Appraisal, TcbStatus, VerifiedTdx, verify as verify_quote};
use serde_json::{Map, Value, json};

use super::{
    Bound, Claims, Untrusted, Verifier, date, eventlog, form, require_init_data, require_report_data,
    root_set,
};

/// What Trustee's verifier accepts; policies judge the status, and debug, by the claims.
fn appraisal() -> Appraisal {
    Appraisal {
        accepted_statuses: vec![
            TcbStatus::ConfigurationNeeded,
            TcbStatus::OutOfDate,
            TcbStatus::OutOfDateConfigurationNeeded,
            TcbStatus::SWHardeningNeeded,
            TcbStatus::ConfigurationAndSWHardeningNeeded,
            TcbStatus::TDRelaunchAdvised,
            TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
        ],
        cached_keys: true,
        debug: true,
        dynamic_platform: true,
        smt: true,
    }
}

pub(super) fn verify(verifier: &Verifier, evidence: &[u8], bound: Bound<'_>) -> Result<Claims, Untrusted> {
    let evidence = TdxEvidence::parse(evidence)?;
    let fmspc = fmspc(&evidence.quote)?;
    let collateral = verifier.collateral.tdx(&fmspc).ok_or_else(|| Untrusted::NoCollateral(fmspc.clone()))?;
    let root = verifier.roots.tdx.as_ref().ok_or_else(|| form("trust roots", "a root for TDX", "none"))?;
    let verified = verify_quote(&evidence.quote, collateral, root, &appraisal(), bound.now)?;
    let body = &verified.quote.body;
    require_report_data(&Octets::<64>::fitted(bound.report_data).0, &body.report_data.0)?;
    require_init_data(bound.init_data, &body.mr_config_id)?;
    let mut claims = claims(&verified);
    let log = evidence.event_log.filter(|log| !log.is_empty());
    if let Some(log) = log {
        let log = EventLog::parse(&log)?;
        let vouched = replay(&log, &body.rtmr)?;
        claims.insert("uefi_event_logs".to_owned(), vouched.into_iter().map(eventlog::claims).collect());
    } else {
        crate::log::note("tdx evidence without an event log: nothing says what the registers mean");
    }
    Ok(Claims {
        init_data: Some(body.mr_config_id.to_string()),
        report_data: body.report_data.to_string(),
        claims: Value::Object(claims),
    })
}

/// Family, model and stepping in the quote's certificate: which collateral to try. The certificate is verified afterwards.
fn fmspc(quote: &[u8]) -> Result<String, Untrusted> {
    // The stricter parser first: it has the limits.
    TdxQuote::parse(quote)?;
    let failed =
        |error: anyhow::Error| form("PCK certificate of the quote", "an FMSPC", format_args!("{error:#}"));
    let quote = dcap_qvl::quote::Quote::parse(quote).map_err(&failed)?;
    let fmspc = dcap_qvl::intel::quote_fmspc_with::<RustCryptoConfig>(&quote).map_err(failed)?;
    Ok(hex::encode(fmspc))
}

fn claims(verified: &VerifiedTdx) -> Map<String, Value> {
    let mut claims = Map::new();
    let quote = quote(&verified.quote);
    let attributes = u64::from_le_bytes(verified.quote.body.td_attributes.0);
    let bit = |bit: u32| attributes >> bit & 1 == 1;
    let entries = [
        ("quote", quote),
        (
            "td_attributes",
            json!({
                "debug": bit(0), "septve_disable": bit(28), "protection_keys": bit(30), "key_locker": bit(31), "perfmon": bit(63),
            }),
        ),
        ("tcb_status", format!("{:?}", verified.tcb_status).into()),
        // Verification at the real time succeeded: nothing was over.
        ("collateral_expiration_status", "0".into()),
        ("advisory_ids", verified.advisory_ids.clone().into()),
        ("tcb_eval_num", verified.tcb_evaluation_number.into()),
        ("pck_crl_num", verified.pck_crl_number.into()),
        ("root_ca_crl_num", verified.root_crl_number.into()),
        ("latest_issue_date", date(verified.latest_issue_date).into()),
        ("earliest_expiration_date", date(verified.earliest_expiration_date).into()),
        ("root_key_id", verified.root_key_id.to_string().into()),
        ("fmspc", verified.fmspc.to_string().into()),
        ("trust_roots", root_set(verified.roots).into()),
    ];
    claims.extend(entries.map(|(name, value)| (name.to_owned(), value)));
    claims
}

fn quote(quote: &TdxQuote) -> Value {
    let version = match quote.header.version {
        QuoteVersion::V4 => "0400",
        QuoteVersion::V5 => "0500",
    };
    let body = &quote.body;
    let mut members = Map::new();
    let mut field = |name: &str, value: String| members.insert(name.to_owned(), value.into());
    field("tcb_svn", body.tee_tcb_svn.to_string());
    field("mr_seam", body.mr_seam.to_string());
    field("mrsigner_seam", body.mr_signer_seam.to_string());
    field("seam_attributes", body.seam_attributes.to_string());
    field("td_attributes", body.td_attributes.to_string());
    field("xfam", body.xfam.to_string());
    field("mr_td", body.mr_td.to_string());
    field("mr_config_id", body.mr_config_id.to_string());
    field("mr_owner", body.mr_owner.to_string());
    field("mr_owner_config", body.mr_owner_config.to_string());
    for (index, register) in body.rtmr.iter().enumerate() {
        field(&format!("rtmr_{index}"), register.to_string());
    }
    field("report_data", body.report_data.to_string());
    let (kind, size) = match &body.extension {
        TdExtension::Td10 => ("0200", 584u32),
        TdExtension::Td15(td15) | TdExtension::Td15Extended(td15, _) => {
            field("tee_tcb_svn2", td15.tee_tcb_svn2.to_string());
            field("mr_servicetd", td15.mr_service_td.to_string());
            if matches!(body.extension, TdExtension::Td15(_)) { ("0300", 648) } else { ("0400", 885) }
        }
    };
    let mut quote_claims = json!({
        "header": {
            "version": version,
            "att_key_type": "0200",
            "tee_type": "81000000",
            "reserved": quote.header.service_svns.to_string(),
            "vendor_id": "939a7233f79c4ca9940a0db3957f0607",
            "user_data": quote.header.user_data.to_string(),
        },
        "body": members,
    });
    if let (QuoteVersion::V5, Some(object)) = (quote.header.version, quote_claims.as_object_mut()) {
        object.insert("type".to_owned(), kind.into());
        object.insert("size".to_owned(), hex::encode(size.to_le_bytes()).into());
    }
    quote_claims
}
