//! The guest's network as the host wants it: links, addresses, routes, neighbours, packet filters, names of servers.
//!
//! ```text
//!  UpdateInterface ─▶ link of the device, by address, by name ─▶ down? address, name, MTU, addresses, flags, up
//!  UpdateRoutes    ─▶ those without a gateway, then the others                     each step is one message to
//!  AddARPNeighbors ─▶ neighbours                                                   the kernel, which answers it
//!       └─ a step fails, or the caller is gone ─▶ what was there before is there again
//! ```
//! The network is the host's: whatever it configures, it could also do outside of the guest. What it does not get is the guest's own
//! loopback interface, where workload and guest components speak to each other.

mod before;
pub mod dns;
mod error;
mod interfaces;
mod iptables;
mod link;
mod netlink;
mod route;
mod routes;
mod value;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::status::RpcError;
use protocol::types::{ARPNeighbor, Interface, Route};
use tokio::task::spawn_blocking;

use before::Before;
pub use error::NetworkError;
pub use iptables::{Filters, FiltersBefore};
use netlink::Netlink;

use crate::reaper::Reaper;

/// The network of this process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Network {
    proc: PathBuf,
    /// One change at a time: a swap of names is several.
    turn: Arc<Mutex<()>>,
    programs: iptables::Programs,
    /// One change of packet filters at a time.
    filters: Arc<tokio::sync::Mutex<()>>,
}

/// What was there before a request that succeeded, for [`Network::undo`].
#[derive(Debug)]
#[must_use]
pub struct Changed(Before);

impl Network {
    /// `proc` is where `/proc` is.
    #[must_use]
    pub fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            turn: Arc::default(),
            programs: iptables::Programs::of(Path::new("/")),
            filters: Arc::default(),
        }
    }

    /// Makes a link what the host says: its addresses are added, nothing else that it has is removed. `device` is the name of the link of
    /// the device that the request names, where it names one.
    ///
    /// # Errors
    /// [`NetworkError::LinkNotFound`], for which runtimes try again; the others.
    pub async fn update_interface(
        &self,
        request: &Interface,
        device: Option<&str>,
    ) -> Result<Changed, NetworkError> {
        let (wanted, proc) = (interfaces::Wanted::read(request, device)?, self.proc.clone());
        self.work(move |netlink| interfaces::update(netlink, &wanted, &proc)).await.map(Changed)
    }

    /// Every link with its addresses.
    ///
    /// # Errors
    /// `NETWORK_…`.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetworkError> {
        self.work(interfaces::list).await
    }

    /// Sets routes of the main table; others stay.
    ///
    /// # Errors
    /// `NETWORK_…`.
    pub async fn update_routes(&self, request: &[Route]) -> Result<Changed, NetworkError> {
        let wanted = request.iter().map(routes::NamedRoute::read).collect::<Result<Vec<_>, _>>()?;
        self.work(move |netlink| routes::update(netlink, &wanted)).await.map(Changed)
    }

    /// The main table.
    ///
    /// # Errors
    /// `NETWORK_…`.
    pub async fn routes(&self) -> Result<Vec<Route>, NetworkError> {
        self.work(routes::list).await
    }

    /// Sets neighbours; others stay.
    ///
    /// # Errors
    /// `NETWORK_…`.
    pub async fn add_neighbours(&self, request: &[ARPNeighbor]) -> Result<Changed, NetworkError> {
        let wanted = request.iter().map(routes::NamedNeighbour::read).collect::<Result<Vec<_>, _>>()?;
        self.work(move |netlink| routes::add_neighbours(netlink, &wanted)).await.map(Changed)
    }

    /// What was changed stays, unless the caller no longer waits: then what was before is there again.
    ///
    /// # Errors
    /// [`RpcError::Deadline`] then.
    pub async fn settle(&self, changed: Changed, is_late: bool) -> Result<(), RpcError> {
        // GUARD: network-late -> evil_host_is_gone_before_the_network_is_set
        if is_late {
            self.undo(changed).await?;
            return Err(RpcError::Deadline);
        }
        Ok(())
    }

    /// Brings back what was there before a request.
    ///
    /// # Errors
    /// `NETWORK_KERNEL`; what could be brought back is.
    pub async fn undo(&self, changed: Changed) -> Result<(), NetworkError> {
        let bring_back = NetworkError::kernel("bring back what was before");
        self.work(move |netlink| changed.0.restore(netlink).map_err(bring_back)).await
    }

    /// Packet filters as text.
    ///
    /// # Errors
    /// `IPTABLES_…`.
    pub async fn filters(&self, reaper: &Reaper, filters: Filters) -> Result<Vec<u8>, NetworkError> {
        let _turn = self.filters.lock().await;
        self.programs.save(reaper, filters).await
    }

    /// Sets packet filters: the tables that the text names. Answers what the program said.
    ///
    /// # Errors
    /// `IPTABLES_…`.
    pub async fn set_filters(
        &self,
        reaper: &Reaper,
        filters: Filters,
        text: &[u8],
    ) -> Result<(Vec<u8>, FiltersBefore), NetworkError> {
        let _turn = self.filters.lock().await;
        self.programs.restore(reaper, filters, text).await
    }

    /// Sets packet filters back.
    ///
    /// # Errors
    /// `IPTABLES_…`.
    pub async fn undo_filters(&self, reaper: &Reaper, before: &FiltersBefore) -> Result<(), NetworkError> {
        let _turn = self.filters.lock().await;
        self.programs.put_back(reaper, before).await
    }

    /// In a thread where waiting for the kernel holds nobody up, one after the other.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let turn = Arc::clone(&self.turn);
        let work = move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut Netlink::open().map_err(NetworkError::kernel("open a socket for netlink"))?)
        };
        spawn_blocking(work).await.map_err(|_| NetworkError::Lost)?
    }
}

/// A step failed: what was before is there again, or the error says that it is not.
fn undone(netlink: &mut Netlink, before: &Before, cause: NetworkError) -> NetworkError {
    match before.restore(netlink) {
        Ok(()) => cause,
        Err(source) => NetworkError::NotUndone { cause: Box::new(cause), source },
    }
}

fn at_most(what: &'static str, most: usize, found: usize) -> Result<(), NetworkError> {
    // GUARD: network-list -> a_list_for_the_host_has_an_end
    if found > most {
        return Err(NetworkError::TooMany { what, most, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
