//! What a peer may ask for (specification §1).

use serde::Deserialize;

use crate::report_data::{Claim, REPORT_DATA_BYTES, RawReportData};
use crate::service::error::ServiceError;
use crate::service::peer::{Peer, Placement};

/// Most runtime data of a workload.
pub const MAXIMUM_RUNTIME_DATA_BYTES: usize = 64 * 1024;

/// The permission to have chosen bytes attested, for one request. Only the check of a peer makes one.
#[derive(Debug)]
pub struct RawPermission(());

impl RawPermission {
    /// The permission is gone with the request.
    pub(crate) fn use_up(self) {
        let Self(()) = self;
    }

    /// For tests of what it permits.
    #[cfg(test)]
    pub(crate) const fn for_tests() -> Self {
        Self(())
    }
}

/// A peer that bound configuration lists: by the socket on which it comes and its user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedPeer {
    /// Path of the socket.
    pub socket: String,
    /// User id.
    pub uid: u32,
}

impl ListedPeer {
    fn is(&self, peer: &Peer) -> bool {
        self.socket == peer.socket && self.uid == peer.uid
    }
}

/// Who may do what. The default: nobody may have anything attested or exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// Peers that choose report data.
    pub raw_report_data: Vec<ListedPeer>,
    /// Peers that get a token together with its private key.
    pub token_key_export: Vec<ListedPeer>,
    /// Whether everybody else gets evidence in the workload form.
    pub workload_evidence: bool,
}

impl AccessRules {
    /// What a peer that hands over `runtime_data` has attested.
    ///
    /// # Errors
    /// `ATTEST_PEER_DENIED`, `ATTEST_REQUEST_TOO_LARGE`.
    pub fn claim(&self, peer: &Peer, runtime_data: &[u8]) -> Result<Claim, ServiceError> {
        if let Ok(permission) = self.raw_permission(peer) {
            let raw = RawReportData::new(permission, runtime_data).map_err(|found| {
                ServiceError::TooLarge { what: "RuntimeData", maximum: REPORT_DATA_BYTES, found }
            })?;
            return Ok(Claim::Raw(raw));
        }
        // GUARD: workload-evidence-off -> evil_peer_evidence_without_permission
        if !self.workload_evidence {
            return Err(ServiceError::Denied { what: "evidence", wanted: "workload_evidence" });
        }
        // GUARD: runtime-data-cap -> evil_peer_oversize_runtime_data
        if runtime_data.len() > MAXIMUM_RUNTIME_DATA_BYTES {
            return Err(ServiceError::TooLarge {
                what: "RuntimeData",
                maximum: MAXIMUM_RUNTIME_DATA_BYTES,
                found: runtime_data.len(),
            });
        }
        Ok(Claim::Workload { identity: peer.identity(), runtime_data: runtime_data.to_vec() })
    }

    fn raw_permission(&self, peer: &Peer) -> Result<RawPermission, ServiceError> {
        let denied = ServiceError::Denied { what: "chosen report data", wanted: "raw_report_data_peers" };
        let listed = self.raw_report_data.iter().any(|listed| listed.is(peer));
        // GUARD: raw-listed-peer -> evil_peer_raw_report_data, evil_workload_attests_own_kbs_key
        if !listed {
            return Err(denied);
        }
        // GUARD: raw-never-a-container -> evil_container_raw_report_data
        if peer.placement != Placement::Image {
            return Err(denied);
        }
        Ok(RawPermission(()))
    }

    /// Whether a peer may have a token's private key.
    ///
    /// # Errors
    /// `ATTEST_PEER_DENIED`.
    pub fn may_export_token_key(&self, peer: &Peer) -> Result<(), ServiceError> {
        let denied = ServiceError::Denied { what: "a token with its key", wanted: "token_key_export" };
        let listed = self.token_key_export.iter().any(|listed| listed.is(peer));
        // GUARD: token-listed-peer -> evil_peer_exports_token_key
        if !listed {
            return Err(denied);
        }
        // GUARD: token-never-a-container -> evil_container_exports_token_key
        if peer.placement != Placement::Image {
            return Err(denied);
        }
        Ok(())
    }

    /// Whether a peer may extend registers: whoever is part of the image.
    ///
    /// # Errors
    /// `ATTEST_PEER_DENIED`.
    pub fn may_extend(&self, peer: &Peer) -> Result<(), ServiceError> {
        // GUARD: extend-never-a-container -> evil_container_extends_a_register
        if peer.placement != Placement::Image {
            return Err(ServiceError::Denied { what: "measurement", wanted: "a process of the image" });
        }
        Ok(())
    }

    /// Mode of the socket: open to other users only if one of them may ask for something.
    #[must_use]
    pub fn socket_mode(&self) -> u32 {
        let mut listed = self.raw_report_data.iter().chain(&self.token_key_export);
        if self.workload_evidence || listed.any(|listed| listed.uid != 0) { 0o666 } else { 0o600 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report_data::WorkloadIdentity;

    const SOCKET: &str = "/run/aa.sock";

    fn peer(uid: u32, placement: Placement) -> Peer {
        Peer { socket: SOCKET.to_owned(), uid, cgroup: "/pod/c1".to_owned(), placement }
    }

    fn rules(workload_evidence: bool) -> AccessRules {
        let listed = vec![ListedPeer { socket: SOCKET.to_owned(), uid: 7 }];
        AccessRules { raw_report_data: listed.clone(), token_key_export: listed, workload_evidence }
    }

    fn code<T>(result: Result<T, ServiceError>) -> &'static str {
        result.map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn the_listed_process_of_the_image_chooses_its_bytes() {
        let claim = rules(false).claim(&peer(7, Placement::Image), b"abc").unwrap();
        assert_eq!(claim.form(), "raw");
        assert_eq!(
            code(rules(false).claim(&peer(7, Placement::Image), &[0; 65])),
            "ATTEST_REQUEST_TOO_LARGE"
        );
    }

    #[test]
    fn evil_peer_raw_report_data() {
        let elsewhere = Peer { socket: "/run/other.sock".to_owned(), ..peer(7, Placement::Image) };
        for peer in [peer(8, Placement::Image), peer(0, Placement::Image), elsewhere] {
            let claim = rules(true).claim(&peer, b"abc").unwrap();
            assert_eq!(claim.form(), "workload");
            assert_ne!(claim.report_data().as_bytes().first_chunk(), Some(b"abc"));
            assert_eq!(code(rules(false).claim(&peer, b"abc")), "ATTEST_PEER_DENIED");
        }
    }

    #[test]
    fn evil_container_raw_report_data() {
        let container = peer(7, Placement::Container);
        let claim = rules(true).claim(&container, b"abc").unwrap();
        let identity = WorkloadIdentity::of(SOCKET, 7, "/pod/c1");
        assert_eq!(claim, Claim::Workload { identity, runtime_data: b"abc".to_vec() });
        assert_eq!(code(rules(false).claim(&container, b"abc")), "ATTEST_PEER_DENIED");
    }

    #[test]
    fn evil_peer_evidence_without_permission() {
        assert_eq!(code(AccessRules::default().claim(&peer(0, Placement::Image), b"")), "ATTEST_PEER_DENIED");
    }

    #[test]
    fn evil_peer_oversize_runtime_data() {
        let data = vec![0; MAXIMUM_RUNTIME_DATA_BYTES + 1];
        assert_eq!(code(rules(true).claim(&peer(8, Placement::Image), &data)), "ATTEST_REQUEST_TOO_LARGE");
    }

    #[test]
    fn evil_container_exports_token_key() {
        assert_eq!(code(rules(true).may_export_token_key(&peer(7, Placement::Image))), "OK");
        assert_eq!(
            code(rules(true).may_export_token_key(&peer(7, Placement::Container))),
            "ATTEST_PEER_DENIED"
        );
    }

    #[test]
    fn evil_container_extends_a_register() {
        assert_eq!(code(rules(true).may_extend(&peer(1, Placement::Image))), "OK");
        assert_eq!(code(rules(true).may_extend(&peer(0, Placement::Container))), "ATTEST_PEER_DENIED");
    }

    #[test]
    fn the_socket_is_open_to_those_who_may_ask() {
        assert_eq!(AccessRules::default().socket_mode(), 0o600);
        assert_eq!(rules(false).socket_mode(), 0o666);
    }
}
