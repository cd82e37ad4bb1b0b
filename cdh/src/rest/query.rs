//! The query of a request, as forms are encoded: `key=value&…`, `+` for a blank, `%XX` for a byte. Of a key that comes twice the last one
//! counts, as upstream. What cannot be decoded is refused: upstream puts replacement characters there, and attests them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::rest::RestError;

/// Most pairs.
const MAXIMUM_PAIRS: usize = 16;
/// Longest query; the head of a request is no longer either.
pub const MAXIMUM_QUERY_BYTES: usize = 32 * 1024;

/// The pairs of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; none is an empty one.
    ///
    /// # Errors
    ///
    /// `REST_QUERY`.
    pub fn parse(query: Option<&str>) -> Result<Self, RestError> {
        let bad = |expected| RestError::Query { expected };
        let query = query.unwrap_or_default();
        // GUARD: rest-query-cap -> evil_container_oversize_query
        if query.len() > MAXIMUM_QUERY_BYTES
            || query.bytes().filter(|byte| *byte == b'&').count() >= MAXIMUM_PAIRS
        {
            return Err(bad("at most 32 KiB and 16 pairs"));
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(key)?, decoded(value)?))
        });
        pairs.collect::<Option<_>>().map(Self).ok_or(bad("%XX for bytes, and UTF-8 behind them"))
    }

    /// The last value of a key.
    #[must_use]
    pub fn last(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `runtime_data`: the bytes of its text, or with `encoding=base64` those behind base64url without padding.
    ///
    /// # Errors
    ///
    /// `REST_QUERY`.
    pub fn runtime_data(&self) -> Result<Vec<u8>, RestError> {
        let bad = |expected| RestError::Query { expected };
        let data = self.last("runtime_data").ok_or(bad("runtime_data"))?;
        match self.last("encoding") {
            None => Ok(data.as_bytes().to_vec()),
            Some("base64") => URL_SAFE_NO_PAD.decode(data).map_err(|_| bad("base64url without padding")),
            Some(_) => Err(bad("encoding base64, or none")),
        }
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => (nibble(rest.next()?)? << 4) | nibble(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(query: &str) -> Result<Vec<u8>, &'static str> {
        Query::parse(Some(query)).and_then(|query| query.runtime_data()).map_err(|error| error.code())
    }

    #[test]
    fn runtime_data_is_read_as_upstream_reads_it() {
        assert_eq!(data("runtime_data=abc").unwrap(), b"abc");
        assert_eq!(data("runtime_data=a+b%2Bc%26").unwrap(), b"a b+c&");
        assert_eq!(data("runtime_data=%c3%A9").unwrap(), "\u{e9}".as_bytes());
        assert_eq!(data("runtime_data").unwrap(), b"");
        assert_eq!(data("&&runtime_data=a=b&").unwrap(), b"a=b");
        assert_eq!(data("runtime_data=-_8&encoding=base64").unwrap(), [0xfb, 0xff]);
        assert_eq!(data("other=1&runtime_data=x").unwrap(), b"x");
        assert_eq!(data("runtime_data=first&runtime_data=last").unwrap(), b"last");
        assert_eq!(data("encoding=hex&runtime_data=YQ&encoding=base64").unwrap(), b"a");
    }

    #[test]
    fn evil_container_query_that_two_readers_read_differently() {
        for query in [
            "",
            "Runtime_data=a",
            "runtime_data=%",
            "runtime_data=%4",
            "runtime_data=%zz",
            "runtime_data=%+4",
            "runtime_data=%ff",
            "%ff=1&runtime_data=a",
            "runtime_data=a&encoding=hex",
            "runtime_data=a&encoding=",
            "runtime_data=YQ==&encoding=base64",
            "runtime_data=Yf&encoding=base64",
            "runtime_data=%2B/8&encoding=base64",
        ] {
            assert_eq!(data(query), Err("REST_QUERY"), "{query}");
        }
    }

    #[test]
    fn evil_container_oversize_query() {
        let long = |length: usize| format!("runtime_data={}", "a".repeat(length - 13));
        assert_eq!(data(&long(MAXIMUM_QUERY_BYTES)).unwrap().len(), MAXIMUM_QUERY_BYTES - 13);
        assert_eq!(data(&long(MAXIMUM_QUERY_BYTES + 1)), Err("REST_QUERY"));
        let pairs = |count: usize| format!("runtime_data=a{}", "&x=y".repeat(count - 1));
        assert_eq!(data(&pairs(MAXIMUM_PAIRS)), Ok(b"a".to_vec()));
        assert_eq!(data(&pairs(MAXIMUM_PAIRS + 1)), Err("REST_QUERY"));
    }

    proptest::proptest! {
        #[test]
        fn every_text_arrives_as_it_was_sent(text in ".{0,64}", before in "[a-z]{0,4}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let query = format!("runtime_data={before}&runtime_data={encoded}");
            proptest::prop_assert_eq!(data(&query).unwrap(), text.as_bytes());
        }

        #[test]
        fn every_bytes_arrive_as_they_were_sent(bytes in proptest::collection::vec(0_u8.., 0..64)) {
            let query = format!("encoding=base64&runtime_data={}", URL_SAFE_NO_PAD.encode(&bytes));
            proptest::prop_assert_eq!(data(&query).unwrap(), bytes);
        }

        #[test]
        fn no_query_is_a_panic(query in "[a-z=&%+0-9]{0,64}") {
            let _ = data(&query);
        }
    }
}
