//! Quotes and TD reports. Accepted bytes are the encoding; padding is zeros, and only the guest drops it.

#![no_main]

use evidence::abi::td_report::TdReport;
use evidence::abi::tdx::{MAXIMUM_PADDING_BYTES, TdxQuote};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(report) = bounded(data.len(), || TdReport::parse(data)) {
        assert_eq!(report.encode(), data);
    }
    match bounded(data.len(), || TdxQuote::without_padding(data)) {
        Ok(quote) => {
            let (front, padding) = data.split_at(quote.len());
            assert_eq!(front, quote);
            assert!(padding.len() <= MAXIMUM_PADDING_BYTES + 16_384 && padding.iter().all(|byte| *byte == 0));
            TdxQuote::parse(quote).expect("a quote without its padding");
        }
        Err(_) => assert!(TdxQuote::parse(data).is_err()),
    }
    let Ok(quote) = bounded(data.len(), || TdxQuote::parse(data)) else { return };
    assert_eq!(quote.encode(), data);
    assert!(data.starts_with(&quote.signed_bytes()));
    assert_eq!(TdxQuote::parse(&quote.encode()).as_ref(), Ok(&quote));
    assert!(TdxQuote::parse(&[data, &[0]].concat()).is_err(), "a verifier takes nothing after a quote");
    let _ = quote.body.is_debug();
});
