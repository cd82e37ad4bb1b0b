//! What a peer is told of an error: upstream's words, then our code and cause.

use ttrpc::{Code, get_status};

use crate::Error;

/// Longest text of a status.
const MAXIMUM_STATUS_BYTES: usize = 512;

/// The status on the wire: everything that upstream has no word for is INTERNAL, as there.
pub(super) fn status(words: &str, error: &Error) -> ttrpc::Error {
    let code = match error.code() {
        "CDH_PEER_DENIED" => Code::PERMISSION_DENIED,
        "CDH_BUSY" => Code::RESOURCE_EXHAUSTED,
        "CDH_REQUEST_TOO_LARGE" => Code::INVALID_ARGUMENT,
        "CDH_JOB_UNKNOWN" => Code::NOT_FOUND,
        _ => Code::INTERNAL,
    };
    let mut text = format!("{}{words}: {}: {}", protocol::hub::ERROR_PREFIX, error.code(), chain(error));
    let end = text.floor_char_boundary(MAXIMUM_STATUS_BYTES);
    text.truncate(end);
    ttrpc::Error::RpcStatus(get_status(code, text))
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub_error::HubError;

    #[test]
    fn a_status_is_short_and_on_one_line() {
        let reason = "é\n".repeat(600);
        let error = Error::from(HubError::ConfigInvalid { reason });
        let ttrpc::Error::RpcStatus(status) = status("Get Resource failed", &error) else {
            panic!("a status")
        };
        assert!(
            status
                .message()
                .starts_with("[CDH] [ERROR]: Get Resource failed: CDH_CONFIG_INVALID: cdh.toml: é ")
        );
        assert!(status.message().len() <= MAXIMUM_STATUS_BYTES && !status.message().contains('\n'));
        assert_eq!(status.code(), Code::INTERNAL);
    }
}
