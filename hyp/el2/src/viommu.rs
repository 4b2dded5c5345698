//! A VM's virtio IOMMU: the guest's requests to tables and streams, faults of its devices to the guest.

mod domains;
pub mod gate;
mod show;

use bulkhead_core::{
    addr::{AddrRange, Ipa},
    ledger::VmPlan,
    vplat::{self, GICD_BASE, UART_BASE, VIOMMU_INTID},
};
use bulkhead_dma::domain::DomainError;
use bulkhead_vdev::virtio_iommu::{Ability, Range, VirtioIommu};

pub use self::domains::TABLES;
use self::domains::{Acting, Tables};
use crate::{virtual_gic, vm::Vm};

/// Why a VM cannot have a virtio IOMMU.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
pub enum IommuError {
    /// The frame pool is too small.
    #[error("its virtio iommu needs {needed} frames of 4 KiB, {left} are left in the hypervisor's pool")]
    Pool {
        /// Frames for tables and what is known of them.
        needed: usize,
        /// Frames that nobody has.
        left: usize,
    },
    /// The settings do not go with the machine.
    #[error("its virtio iommu: {0}")]
    Domain(#[from] DomainError),
}

/// The virtio IOMMU of one VM.
pub struct VirtualIommu {
    device: VirtioIommu,
    tables: Tables,
}

impl VirtualIommu {
    /// A virtio IOMMU in its reset state, with room for all tables that there can be; every function reaches nothing.
    ///
    /// # Errors
    /// The pool does not suffice, or an SMMU cannot walk such tables.
    #[inline(never)]
    pub fn new(plan: &VmPlan, ram: AddrRange<Ipa>, bits: (u8, u8)) -> Result<Self, IommuError> {
        let tables = Tables::new(plan, ram, bits)?;
        let ability =
            Ability { last: (1 << bits.0) - 1, msi: Range { first: GICD_BASE.as_u64(), last: UART_BASE.as_u64() - 1 } };
        let endpoints = (0..plan.devices.len()).map(vplat::virtual_stream);
        Ok(Self { device: VirtioIommu::new(ability, endpoints), tables })
    }
}

/// Under the device's lock: no older level may follow.
fn tell_level(vm: &Vm, was_high: bool, is_high: bool) {
    if was_high != is_high {
        virtual_gic::set_level(vm, VIOMMU_INTID, is_high);
    }
}
