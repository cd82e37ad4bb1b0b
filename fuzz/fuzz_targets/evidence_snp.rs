//! SNP reports of all versions. Accepted bytes are the encoding, and the report survives its JSON form.

#![no_main]

use evidence::abi::json::SnpEvidence;
use evidence::abi::snp::SnpReport;
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(report) = bounded(data.len(), || SnpReport::parse(data)) else { return };
    assert_eq!(report.encode(), data);
    assert_eq!(report.cpuid.is_some(), report.version > 2);
    assert_eq!(report.mitigations.is_some(), report.version > 4);
    for tcb in [report.current_tcb, report.reported_tcb, report.committed_tcb, report.launch_tcb] {
        assert!(tcb.is_at_least(tcb));
        let _ = tcb.to_string();
    }
    if let Some(generation) = report.generation() {
        let again = evidence::abi::snp::Tcb::parse(report.reported_tcb.encode(), generation);
        assert_eq!(again, Ok(report.reported_tcb));
    }
    let evidence = SnpEvidence { report, certificates: None };
    assert_eq!(SnpEvidence::parse(evidence.encode().as_bytes()), Ok(evidence));
});
