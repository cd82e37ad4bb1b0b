//! `/dev/tdx_guest`: TDREPORTs.

use std::sync::Arc;

use rustix::io::Errno;

use super::{delivered, refusal};
use crate::cuse::wire::Span;
use crate::cuse::{Answer, Call, Driver};
use crate::tee::{REPORT_DATA_BYTES, Tee};

/// `TDX_CMD_GET_REPORT0`: 64 bytes of report data, behind them room for the report.
const GET_REPORT0: u32 = 0xc440_5401;
const DATA: u64 = 64;
const REPORT: u64 = 1024;

/// The driver.
#[derive(Debug)]
pub(crate) struct TdxGuest(pub(crate) Arc<Tee>);

impl Driver for TdxGuest {
    fn ioctl(&self, call: &Call<'_>) -> Answer {
        if call.command != GET_REPORT0 {
            return Answer::refused(Errno::NOTTY);
        }
        let Ok(data) = <&[u8; REPORT_DATA_BYTES]>::try_from(call.input) else {
            let Some(behind) = call.argument.checked_add(DATA) else { return Answer::refused(Errno::FAULT) };
            return Answer::Again {
                input: vec![Span { address: call.argument, length: DATA }],
                output: vec![Span { address: behind, length: REPORT }],
            };
        };
        if let Some(error) = refusal(self.0.faults()) {
            return Answer::refused(error);
        }
        match self.0.td_report(data) {
            Ok(report) => delivered(self.0.faults(), 0, report),
            Err(error) => Answer::refused(Errno::from_raw_os_error(error.code())),
        }
    }
}

#[cfg(test)]
mod tests {
    use evidence::abi::td_report::TdReport;

    use super::*;
    use crate::testing::{fault, launched, platform};

    fn call(input: &[u8]) -> Call<'_> {
        Call { command: GET_REPORT0, argument: 0x1000, input, room: 1024 }
    }

    #[test]
    fn the_report_shows_this_guest() {
        let (_directory, state) = platform();
        let plan = format!("{}nth = 2\n", fault("td-report-other-data"));
        let (tee, _) = launched(&state, "initdata_digest = \"abcd\"\n", &plan);
        let driver = TdxGuest(Arc::clone(&tee));
        let spans = |address, length| vec![Span { address, length }];
        let again = Answer::Again { input: spans(0x1000, 64), output: spans(0x1040, 1024) };
        assert_eq!(driver.ioctl(&call(&[])), again);
        let report = || match driver.ioctl(&call(&[7; 64])) {
            Answer::Done { result: 0, output } => TdReport::parse(&output).unwrap(),
            other => panic!("{other:?}"),
        };
        let found = report();
        assert_eq!((found.report_data.0, found.rtmr), ([7; 64], tee.registers()));
        assert_eq!(found.mr_config_id.0.get(..3).unwrap(), [0xab, 0xcd, 0]);
        assert_eq!(report().report_data.0, [0xf8; 64]);
    }

    #[test]
    fn what_the_driver_refuses() {
        let (_directory, state) = platform();
        let driver = |launch: &str, plan: &str| TdxGuest(launched(&state, launch, plan).0);
        let tdx = driver("", &format!("{}value = 11\n", fault("device-error")));
        assert_eq!(tdx.ioctl(&Call { command: 1, ..call(&[]) }), Answer::refused(Errno::NOTTY));
        assert_eq!(tdx.ioctl(&Call { argument: u64::MAX, ..call(&[]) }), Answer::refused(Errno::FAULT));
        assert_eq!(tdx.ioctl(&call(&[0; 64])), Answer::refused(Errno::AGAIN));
        assert_eq!(driver("tee = \"snp\"\n", "").ioctl(&call(&[0; 64])), Answer::refused(Errno::IO));
    }
}
