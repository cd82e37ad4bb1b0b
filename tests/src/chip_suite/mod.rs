//! One suite for the driver, whatever the way to the device: a vfio-user socket, or a PCI function through the kernel's VFIO.
//!
//! Each case opens the device anew. What happens between driver and device is seen, and spoilt, by a `watched::Watched` backing in
//! between; the chip itself is obedient.

mod cases;
mod jobs;
mod key_memory;
mod material;
mod watched;

use chip_client::address::DeviceAddress;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use material::Material;

/// The way to a device, and what to do with it.
#[derive(Debug)]
pub struct Suite {
    /// Where the chip is.
    pub chip: DeviceAddress,
    /// An artifact for it.
    pub material: Material,
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Whether only the kernel's VFIO has what it looks at.
    pub kernel_only: bool,
    run: fn(&Suite),
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All cases.
pub const CASES: &[Case] = &[
    everywhere("identity_leads_to_the_root", cases::identity_leads_to_the_root),
    everywhere("rings_go_round", cases::rings_go_round),
    everywhere("interrupts_arrive_on_both_vectors", cases::interrupts_arrive_on_both_vectors),
    everywhere("lost_interrupts_are_survived", cases::lost_interrupts_are_survived),
    everywhere("released_key_opens_the_artifact", jobs::released_key_opens_the_artifact),
    everywhere("unseal_through_shared_memory", jobs::unseal_through_shared_memory),
    everywhere("unseal_into_the_landing", jobs::unseal_into_the_landing),
    everywhere("function_reset_and_recovery", cases::function_reset_and_recovery),
    everywhere("reset_in_the_middle_of_a_job", jobs::reset_in_the_middle_of_a_job),
    everywhere("destination_unmapped_under_a_job", jobs::destination_unmapped_under_a_job),
    everywhere("source_unmapped_under_a_job", jobs::source_unmapped_under_a_job),
    everywhere("changed_map_reaches_the_device", jobs::changed_map_reaches_the_device),
    everywhere("wrong_place_is_an_error", cases::wrong_place_is_an_error),
    kernel("device_has_one_owner", cases::device_has_one_owner),
    kernel("key_memory_cannot_be_mapped", key_memory::key_memory_cannot_be_mapped),
];

const fn everywhere(name: &'static str, run: fn(&Suite)) -> Case {
    Case { name, kernel_only: false, run }
}

const fn kernel(name: &'static str, run: fn(&Suite)) -> Case {
    Case { name, kernel_only: true, run }
}

impl Case {
    /// Whether it can be run on this way to the device.
    pub fn fits(&self, chip: &DeviceAddress) -> bool {
        !self.kernel_only || matches!(chip, DeviceAddress::Pci(_))
    }

    /// Runs it; whether all went well, and what is to be told.
    pub fn run(&self, suite: &Suite) -> (bool, Value) {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(suite))) {
            Ok(()) => (true, json!({ "case": self.name, "ok": true })),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                (false, json!({ "case": self.name, "ok": false, "found": text }))
            }
        }
    }
}
