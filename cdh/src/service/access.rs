//! Who is served.

use attestation_agent::service::{ListedPeer, Peer, Placement, ServiceError};

use crate::hub_error::HubError;

/// Processes of the image: those of the hub's own user and of root, and those that bound configuration lists.
#[derive(Clone, Debug)]
pub struct Access {
    own: u32,
    listed: Vec<ListedPeer>,
}

impl Access {
    /// For a hub of user `own`.
    #[must_use]
    pub const fn new(own: u32, listed: Vec<ListedPeer>) -> Self {
        Self { own, listed }
    }

    /// Whether a peer is served.
    ///
    /// # Errors
    ///
    /// `CDH_PEER_DENIED`.
    pub fn permit(&self, peer: &Peer) -> Result<(), HubError> {
        let denied = |wanted| Err(ServiceError::Denied { what: "the data hub", wanted }.into());
        // GUARD: hub-never-a-container -> evil_container_asks_the_hub
        if peer.placement != Placement::Image {
            return denied("a process of the image");
        }
        let listed = self.listed.iter().any(|it| it.socket == peer.socket && it.uid == peer.uid);
        // GUARD: hub-listed-peer -> evil_user_asks_the_hub
        if !listed && peer.uid != self.own && peer.uid != 0 {
            return denied("innerkeep.peers");
        }
        Ok(())
    }

    /// Mode of the socket: open to other users only if one of them is listed.
    #[must_use]
    pub fn socket_mode(&self) -> u32 {
        let foreign = self.listed.iter().any(|listed| listed.uid != 0 && listed.uid != self.own);
        if foreign { 0o666 } else { 0o600 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, placement: Placement) -> Peer {
        Peer { socket: "/run/cdh.sock".to_owned(), uid, cgroup: "/a".to_owned(), placement }
    }

    fn access() -> Access {
        Access::new(5, vec![ListedPeer { socket: "/run/cdh.sock".to_owned(), uid: 7 }])
    }

    fn code(peer: &Peer) -> &'static str {
        access().permit(peer).map_or_else(|error| error.code(), |()| "OK")
    }

    #[test]
    fn own_user_root_and_listed_peers_are_served() {
        for uid in [0, 5, 7] {
            assert_eq!(code(&peer(uid, Placement::Image)), "OK", "{uid}");
        }
        assert_eq!(access().socket_mode(), 0o666);
        assert_eq!(Access::new(5, Vec::new()).socket_mode(), 0o600);
    }

    #[test]
    fn evil_container_asks_the_hub() {
        for uid in [0, 5, 7] {
            assert_eq!(code(&peer(uid, Placement::Container)), "CDH_PEER_DENIED", "{uid}");
        }
    }

    #[test]
    fn evil_user_asks_the_hub() {
        assert_eq!(code(&peer(8, Placement::Image)), "CDH_PEER_DENIED");
        let elsewhere = Peer { socket: "/run/other.sock".to_owned(), ..peer(7, Placement::Image) };
        assert_eq!(code(&elsewhere), "CDH_PEER_DENIED");
    }
}
