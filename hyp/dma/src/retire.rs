//! Memory leaves a DMA mapping in two steps: unmapped, then flushed (security rule 5).
//!
//! What was unmapped is [`Unflushed`]: an SMMU's TLB may still lead there. Only the proof of a completed flush, of
//! the same VMID and of every SMMU that walked the table, turns it into [`Flushed`], from which the value can be
//! taken. A flush that times out proves nothing: the value goes into [`Quarantined`], and stays.

use bulkhead_core::{
    ids::{SmmuId, Vmid},
    machine::SMMUS_MAX,
};
use thiserror::Error;

/// Proof that an SMMU dropped a VMID's translations after they were unmapped: its CMD_SYNC completed.
///
/// To be implemented only for what a driver makes after that.
pub trait FlushWitness {
    /// The SMMU that was flushed.
    fn smmu(&self) -> SmmuId;
    /// Whose translations it dropped.
    fn vmid(&self) -> Vmid;
}

/// Why a witness proves nothing here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RetireError {
    /// Another VM's translations were flushed.
    #[error("flush of vmid {flushed} does not free what vmid {owner} could reach", flushed = .flushed.as_u16(), owner = .owner.as_u16())]
    WrongVmid {
        /// Whose translations were flushed.
        flushed: Vmid,
        /// Whose must be.
        owner: Vmid,
    },
}

/// The SMMUs whose flush is still missing, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct SmmuSet(u16);

impl SmmuSet {
    const fn bit(smmu: SmmuId) -> u16 {
        const { assert!(SMMUS_MAX < 16) };
        if (smmu.0 as usize) < SMMUS_MAX { 1 << smmu.0 } else { 0 }
    }

    /// An SMMU that no machine has cannot be struck off: what it walked is never flushed.
    const fn insert(self, smmu: SmmuId) -> Self {
        let bit = Self::bit(smmu);
        Self(self.0 | if bit == 0 { 1 << 15 } else { bit })
    }

    const fn remove(self, smmu: SmmuId) -> Self {
        Self(self.0 & !Self::bit(smmu))
    }
}

/// Something that devices may still reach: unmapped, or about to be, and not flushed.
///
/// Dropping it leaks what it holds, which is safe.
#[derive(Debug)]
#[must_use = "memory that is not flushed cannot be used again"]
pub struct Unflushed<T> {
    value: T,
    vmid: Vmid,
    missing: SmmuSet,
}

impl<T> Unflushed<T> {
    /// `value`, which the SMMUs `walkers` could reach for `vmid`.
    pub fn new(value: T, vmid: Vmid, walkers: impl IntoIterator<Item = SmmuId>) -> Self {
        let missing = walkers.into_iter().fold(SmmuSet::default(), SmmuSet::insert);
        Self { value, vmid, missing }
    }

    /// Takes note of a flush. On error nothing has changed.
    pub fn witness(&mut self, witness: &impl FlushWitness) -> Result<(), RetireError> {
        if witness.vmid() != self.vmid {
            return Err(RetireError::WrongVmid { flushed: witness.vmid(), owner: self.vmid });
        }
        self.missing = self.missing.remove(witness.smmu());
        Ok(())
    }

    /// The value as flushed, or itself while the flush of an SMMU is missing.
    pub fn settle(self) -> Result<Flushed<T>, Self> {
        if self.missing == SmmuSet::default() { Ok(Flushed(self.value)) } else { Err(self) }
    }

    /// Gives up: a flush timed out.
    pub fn quarantine(self) -> Quarantined<T> {
        Quarantined { value: self.value, vmid: self.vmid }
    }
}

/// Something that no device can reach any more.
#[derive(Debug)]
pub struct Flushed<T>(T);

impl<T> Flushed<T> {
    /// The value, free for another use. Memory of a VM is scrubbed before another VM gets it (security rule 24).
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Something that a device may reach for ever: nothing takes it out again.
#[derive(Debug)]
pub struct Quarantined<T> {
    value: T,
    vmid: Vmid,
}

impl<T> Quarantined<T> {
    /// What is kept, to be named in messages.
    pub const fn kept(&self) -> &T {
        &self.value
    }

    /// The VMID that must not be used again either.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::ids::{SmmuId, Vmid};

    use super::{FlushWitness, RetireError, Unflushed};

    struct Witness(u8, u16);

    impl FlushWitness for Witness {
        fn smmu(&self) -> SmmuId {
            SmmuId(self.0)
        }
        fn vmid(&self) -> Vmid {
            vmid(self.1)
        }
    }

    fn vmid(number: u16) -> Vmid {
        Vmid::new(number).expect("not zero")
    }

    /// Misses nothing less than a page handed out while one of two SMMUs still translates to it.
    #[test]
    fn every_smmu_must_have_flushed() {
        let mut page = Unflushed::new(7, vmid(1), [SmmuId(0), SmmuId(7)]);
        page = page.settle().expect_err("nothing flushed");
        page.witness(&Witness(7, 1)).expect("its vmid");
        page = page.settle().expect_err("smmu 0 is missing");
        page.witness(&Witness(7, 1)).expect("its vmid");
        page.witness(&Witness(3, 1)).expect("its vmid");
        page = page.settle().expect_err("smmu 0 is still missing");
        page.witness(&Witness(0, 1)).expect("its vmid");
        assert_eq!(page.settle().expect("all flushed").into_inner(), 7);
    }

    #[test]
    fn a_flush_of_another_vm_proves_nothing() {
        let mut page = Unflushed::new((), vmid(1), [SmmuId(0)]);
        let wrong = RetireError::WrongVmid { flushed: vmid(2), owner: vmid(1) };
        assert_eq!(page.witness(&Witness(0, 2)), Err(wrong));
        assert!(page.settle().is_err());
    }

    #[test]
    fn what_no_smmu_walked_is_free_at_once_and_quarantine_names_its_vmid() {
        assert!(Unflushed::new((), vmid(1), []).settle().is_ok());
        let mut unknown = Unflushed::new((), vmid(1), [SmmuId(9)]);
        unknown.witness(&Witness(9, 1)).expect("its vmid");
        assert!(unknown.settle().is_err());
        let kept = Unflushed::new(5, vmid(3), [SmmuId(0)]).quarantine();
        assert_eq!((*kept.kept(), kept.vmid()), (5, vmid(3)));
    }
}
