//! Hashing and writing of a piece, beside the reading of the next.

use tokio::task::JoinHandle;

use super::died;
use crate::registry::error::RegistryError;
use crate::registry::progress::Meter;
use crate::registry::store::Partial;

pub(super) type Written = (Partial, Result<(), RegistryError>);

/// Writes one piece beside the reading of the next.
pub(super) enum Writer {
    Busy(JoinHandle<Written>, u64),
    Failed(Partial, RegistryError),
    Idle(Partial),
}

impl Writer {
    pub(super) async fn write(self, piece: Vec<u8>, meter: &Meter<'_>) -> Result<Self, RegistryError> {
        let (mut partial, written) = self.idle(meter).await?;
        if let Err(error) = written {
            return Ok(Self::Failed(partial, error));
        }
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let task = tokio::task::spawn_blocking(move || {
            let result = partial.write(&piece);
            (partial, result)
        });
        Ok(Self::Busy(task, length))
    }

    pub(super) async fn idle(self, meter: &Meter<'_>) -> Result<Written, RegistryError> {
        match self {
            Self::Idle(partial) => Ok((partial, Ok(()))),
            Self::Failed(partial, error) => Ok((partial, Err(error))),
            Self::Busy(task, length) => {
                let (partial, result) = task.await.map_err(died)?;
                if result.is_ok() {
                    meter.received(length);
                }
                Ok((partial, result))
            }
        }
    }
}
