//! Request lines of the REST front: method, path and query. What is accepted has one spelling of its path, and its data within the cap.

#![no_main]

use cdh::rest::query::MAXIMUM_QUERY_BYTES;
use cdh::rest::{Route, read_request};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let Ok((route, data)) = bounded(text.len(), || read_request(method, path, query)) else { return };
    let spelled = match &route {
        Route::Info => "/info".to_owned(),
        Route::Token => "/aa/token".to_owned(),
        Route::Evidence => "/aa/evidence".to_owned(),
        Route::AdditionalEvidence => "/aa/additional-evidence".to_owned(),
        Route::Event => "/aa/aael".to_owned(),
        Route::Resource(parts) => format!("/cdh/resource/{}", parts.join("/")),
    };
    assert_eq!(spelled, path);
    assert_eq!(route.method(), method);
    if let Some(data) = data {
        assert!(data.len() <= MAXIMUM_QUERY_BYTES);
        let hex: String = data.iter().map(|byte| format!("%{byte:02X}")).collect();
        if let Ok(text) = std::str::from_utf8(&data) {
            let again = read_request(method, path, Some(&format!("runtime_data={hex}")));
            // Written in three characters each, the same bytes may be too many.
            if let Ok((_, Some(again))) = again {
                assert_eq!(again, text.as_bytes());
            }
        }
    }
});
