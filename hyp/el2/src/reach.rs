//! What a VM's devices reach: its RAM as it is, or what its DMA maps hold.

use bulkhead_core::{
    addr::{Iova, PAGE_SIZE},
    stage2::S2Config,
};
use bulkhead_dma::{DmaSpace, Place};

use crate::dmamap::Maps;

/// One of the two, for all devices of a VM.
#[expect(clippy::large_enum_variant, reason = "one a VM, in place, without a heap")]
pub enum Reach {
    /// All of its RAM.
    Ram(DmaSpace),
    /// What its maps hold.
    Maps(Maps),
}

impl Reach {
    /// How SMMUs walk it.
    pub fn config(&self) -> S2Config {
        match self {
            Self::Ram(space) => space.config(),
            Self::Maps(maps) => maps.config(),
        }
    }

    /// Its DMA maps, if it has such.
    pub const fn maps(&self) -> Option<&Maps> {
        match self {
            Self::Ram(_) => None,
            Self::Maps(maps) => Some(maps),
        }
    }

    /// Says where an address lies that a device could not reach, as the end of a line.
    pub fn describe(&self, iova: Iova, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ram(space) => match space.place_of(iova) {
                Place::Inside => f.write_str(", inside its RAM"),
                Place::Below(bytes) => write!(f, ", {bytes:#x} bytes below its RAM"),
                Place::Past(bytes) => write!(f, ", {bytes:#x} bytes past its RAM"),
            },
            Self::Maps(maps) => match maps.find(iova) {
                None => f.write_str(", no map at or below it"),
                Some(found) => {
                    write!(f, ", map {} of channel {}", found.place, found.channel)?;
                    match found.past {
                        None => write!(f, ", {:#x} bytes into its lease", u64::from(found.page) * PAGE_SIZE),
                        Some(1) => f.write_str(", 1 page past its end"),
                        Some(pages) => write!(f, ", {pages} pages past its end"),
                    }
                }
            },
        }
    }
}
