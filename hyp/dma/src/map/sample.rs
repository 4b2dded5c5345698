//! Sampled maps: what devices reach of their loads, by the access flags that SMMUs set (IHI 0070 3.13.2).
//!
//! One map of a channel in [`SAMPLED_EVERY`] is sampled where every SMMU of the VM sets access flags. Its loads store
//! leaves without the flag, and its unloads look which have it. Such a map goes the long ways of load and unload; no
//! other map's leaf is ever looked at.
//!
//! An unload takes a leaf out by an atomic exchange (DDI 0487 D8.5.1.1): nothing that the SMMU sets before is lost. What
//! it sets later is set by an atomic update of the descriptor that it has read (D8.5.1.2), which is not there any more:
//! it walks again and finds nothing. Stale translations are the flush's business, as with every map.
//!
//! Neither bound is exact: the SMMU may set a flag for a speculative access (D8.5.1.2), and it need not show the flag of
//! an access before the next CMD_SYNC (IHI 0070 3.13.4).

use super::{Channel, Counters, record::Kind};
use crate::tree::ZERO;

/// Of so many maps of a channel that hold pages, the first is sampled.
pub const SAMPLED_EVERY: u64 = 64;

/// Sampled pages that make a share.
const ENOUGH: u64 = 64;

/// AF of a leaf (DDI 0487 D8.3.1).
pub(super) const ACCESS_FLAG: u64 = 1 << 10;
const VALID: u64 = 1;

impl Channel<'_> {
    /// Samples maps that are created from now on. Every SMMU of the VM sets access flags: another would fault for the
    /// leaves of sampled loads.
    pub const fn sample(&mut self) {
        self.is_sampling = true;
    }

    /// Pages that unloads of sampled maps took out, and those of them that were reached; `None` where none is sampled.
    pub const fn sampled(&self) -> Option<(u64, u64)> {
        if self.is_sampling { Some((self.counted.sampled, self.counted.touched)) } else { None }
    }

    /// Of `pages` pages that are loaded, those that an SMMU is likely to have translations of: all of them until enough
    /// were sampled, then the share of those that devices reached.
    pub const fn in_use(&self, pages: u64) -> u64 {
        let Counters { sampled, touched, .. } = self.counted;
        if sampled < ENOUGH { pages } else { pages.saturating_mul(touched) / sampled }
    }

    /// The kind of the next map of pages.
    #[inline(always)]
    pub(super) const fn kind_of_pages(&self) -> Kind {
        if self.is_sampling && self.counted.created.is_multiple_of(SAMPLED_EVERY) { Kind::Sampled } else { Kind::Pages }
    }

    /// Takes out `used` leaves of a sampled load, and counts those that were reached.
    pub(super) fn clear_sampled(&mut self, pieces: u32, used: u32) {
        for entry in self.pieces.entries(pieces).take(used as usize) {
            let old = entry.exchange(ZERO);
            // Boundaries leave gaps.
            if old & VALID != 0 {
                self.counted.sampled += 1;
                self.counted.touched += u64::from(old & ACCESS_FLAG != 0);
            }
        }
    }
}
