//! DEVICE_GET_IRQ_INFO and DEVICE_SET_IRQS.

use std::os::fd::OwnedFd;

use chip_client::abi::MSIX_VECTORS;
use chip_client::vfio_user::wire::{
    IRQ_FLAG_EVENTFD, IRQ_SET_ACTION_MASK, IRQ_SET_ACTION_TRIGGER, IRQ_SET_ACTION_UNMASK, IRQ_SET_DATA_BOOL,
    IRQ_SET_DATA_EVENTFD, IRQ_SET_DATA_NONE, IrqInfo, PCI_ERR_IRQ, PCI_MSIX_IRQ, PCI_NUM_IRQS, PCI_REQ_IRQ,
    SetIrqs,
};
use rustix::io::Errno;

use crate::controller::Interrupts;

/// Vectors of an interrupt index.
pub(super) fn vectors(index: u32) -> Result<u32, Errno> {
    match index {
        PCI_MSIX_IRQ => Ok(MSIX_VECTORS.into()),
        // Accepted and never fired: a client that asks for them is not told off.
        PCI_ERR_IRQ | PCI_REQ_IRQ => Ok(1),
        _ if index < PCI_NUM_IRQS => Ok(0),
        _ => Err(Errno::INVAL),
    }
}

pub(super) fn info(index: u32) -> Result<IrqInfo, Errno> {
    let count = vectors(index)?;
    let flags = if count > 0 { IRQ_FLAG_EVENTFD } else { 0 };
    Ok(IrqInfo { argsz: super::wire_size(IrqInfo::LEN), flags, index, count })
}

/// `data` follows the fixed part.
pub(super) fn set(
    interrupts: &Interrupts,
    request: &SetIrqs,
    data: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Result<(), Errno> {
    let SetIrqs { flags, index, start, count, .. } = *request;
    let available = vectors(index)?;
    if start.checked_add(count).is_none_or(|end| end > available) {
        return Err(Errno::INVAL);
    }
    let kind = flags & (IRQ_SET_DATA_NONE | IRQ_SET_DATA_BOOL | IRQ_SET_DATA_EVENTFD);
    let action = flags & (IRQ_SET_ACTION_MASK | IRQ_SET_ACTION_UNMASK | IRQ_SET_ACTION_TRIGGER);
    let wanted_data = if kind == IRQ_SET_DATA_BOOL { count as usize } else { 0 };
    if flags != kind | action || data.len() != wanted_data {
        return Err(Errno::INVAL);
    }
    if kind != IRQ_SET_DATA_EVENTFD && !descriptors.is_empty() {
        return Err(Errno::INVAL);
    }
    let mine = index == PCI_MSIX_IRQ;
    let selected = |at: usize| kind == IRQ_SET_DATA_NONE || data.get(at).is_some_and(|byte| *byte != 0);
    match (kind, action) {
        (IRQ_SET_DATA_NONE, IRQ_SET_ACTION_TRIGGER) if count == 0 => {
            if mine {
                interrupts.disarm_all();
            }
            Ok(())
        }
        (IRQ_SET_DATA_EVENTFD, IRQ_SET_ACTION_TRIGGER) => {
            // All of them, or none: detach.
            if !descriptors.is_empty() && descriptors.len() != count as usize {
                return Err(Errno::INVAL);
            }
            if mine { interrupts.arm(start, count, descriptors) } else { Ok(()) }
        }
        (IRQ_SET_DATA_NONE | IRQ_SET_DATA_BOOL, IRQ_SET_ACTION_TRIGGER) => {
            if mine {
                interrupts.trigger(start, count, selected)
            } else {
                Ok(())
            }
        }
        (IRQ_SET_DATA_NONE | IRQ_SET_DATA_BOOL, IRQ_SET_ACTION_MASK | IRQ_SET_ACTION_UNMASK) => {
            let masked = action == IRQ_SET_ACTION_MASK;
            if mine { interrupts.mask(start, count, masked, selected) } else { Ok(()) }
        }
        _ => Err(Errno::INVAL),
    }
}
