//! Images are unpacked, and registries spoken to, by helpers, too: each in its pen, with nothing but the socket of the hub that wants something of
//! it. It gives up the rest by itself, before it reads the first byte of a stranger's ([`cdh::worker`]).

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cdh::image::policy::Cause;
use cdh::worker::{Process, Trade, Workers};

use super::EngineError;
use super::operation::Operation;
use super::pen::Pens;
use super::wire::{Order, Task};
use crate::reaper::Reaper;
use crate::zygote::Nursery;

/// Starts them.
pub(super) struct Helpers {
    pub(super) nursery: Option<Arc<Nursery>>,
    pub(super) reaper: Arc<Reaper>,
    pub(super) pens: Arc<Pens>,
}

#[async_trait]
impl Workers for Helpers {
    async fn start(&self, trade: Trade, socket: OwnedFd) -> Result<Box<dyn Process>, Cause> {
        let none = EngineError::Unavailable { why: "this process started none" };
        let nursery = self.nursery.as_deref().ok_or(none)?;
        let pen = self.pens.make().map_err(EngineError::system("make a helper's control group"))?;
        let order = Order { state: PathBuf::new(), id: String::new(), task: Task::Work(trade) };
        let action = match trade {
            Trade::Unpack => "unpack",
            Trade::Fetch => "fetch",
        };
        let operation = Operation::begin(nursery, &self.reaper, pen, action, &order, vec![socket]).await?;
        Ok(Box::new(Helper(operation)))
    }
}

/// One of them. Dropped, it is killed with its pen, and reaped as all children are.
struct Helper(Operation);

#[async_trait]
impl Process for Helper {
    async fn end(self: Box<Self>) -> Result<(), Cause> {
        Ok(self.0.ended().await?)
    }
}
