//! One VM's virtual PCI host bridge: ECAM of bus 0 with the VM's own functions.
//!
//! The n-th function that was [added](Vpci::add) is device `FIRST_PCI_DEVICE + n`, function 0. Everything else is absent
//! and reads all ones. Nothing that a guest writes reaches a physical register by itself: the bridge keeps virtual
//! registers and tells EL2 by [`Effect`]s what to do. BARs are virtual (security rule 20): a value that a guest writes
//! only says where in its own IPA space the function's registers appear, and only while memory decode is on, the range
//! lies whole in the VM's PCI window and covers no BAR of a function before it (see [`bar`](self)).
//!
//! Capabilities come from an allow-list: PCI Express (its writes dropped, save a function level reset) and, of virtio,
//! the vendor-specific ones. MSI, MSI-X and power management are hidden; extended configuration space reads 0.

mod bar;
mod capability;
mod config;
#[cfg(test)]
mod tests;

pub use bar::{Bar, BarError, BarWidth};
pub use capability::{CAPABILITIES_MAX, Capability};

use crate::mmio::Width;
use bulkhead_core::{
    addr::{Ipa, PhysAddr},
    vplat::{DEVICES_MAX, FIRST_PCI_DEVICE},
};
use config::Function;
use heapless::Vec;

/// BAR registers of a function.
pub const BARS: usize = 6;

/// Reads the physical configuration space of the functions behind the bridge.
pub trait FunctionConfig {
    /// The 32-bit register at `offset` (a multiple of 4, below 4096) of the bridge's `function`-th function.
    fn read32(&self, function: usize, offset: u16) -> u32;
}

/// A physical function as the bridge needs to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualFunction {
    /// Configuration register 0x00: vendor id 15:0, device id 31:16.
    pub vendor_device: u32,
    /// Configuration register 0x08: revision 7:0, class code 31:8.
    pub class_revision: u32,
    /// Configuration register 0x2c: subsystem vendor id 15:0, subsystem id 31:16.
    pub subsystem: u32,
    /// Memory BARs by their (first) register; `None` for absent, I/O and the upper half of a 64-bit one.
    pub bars: [Option<Bar>; BARS],
    /// The capabilities to show, in the order of the list.
    pub capabilities: Vec<Capability, CAPABILITIES_MAX>,
    /// Virtual Interrupt Pin: 1 to 4 for INTA to INTD, 0 for none. EL2 chooses it.
    pub pin: u8,
}

impl VirtualFunction {
    /// Reads ids and capabilities from the configuration space of `function`; BARs and pin are the caller's to know.
    pub fn probe(config: &impl FunctionConfig, function: usize, bars: [Option<Bar>; BARS], pin: u8) -> Self {
        let read = |offset| config.read32(function, offset);
        Self {
            vendor_device: read(0x00),
            class_revision: read(0x08),
            subsystem: read(0x2c),
            bars,
            capabilities: capability::probe(read),
            pin,
        }
    }
}

/// What EL2 does after a write. Effects come in the order in which they are to be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Take this range out of the VM's stage 2.
    Unmap {
        /// Whose BAR it was.
        function: usize,
        /// Start, page-aligned.
        ipa: Ipa,
        /// Size, a multiple of the page size.
        size_bytes: u64,
    },
    /// Map the function's registers into the VM's stage 2 as device memory.
    Map {
        /// Whose BAR it is.
        function: usize,
        /// Start, page-aligned.
        ipa: Ipa,
        /// Start of the physical BAR, page-aligned.
        phys: PhysAddr,
        /// Size, a multiple of the page size.
        size_bytes: u64,
    },
    /// Set the physical Bus Master Enable bit; on only if the function's stream is attached.
    BusMaster {
        /// The function.
        function: usize,
        /// Wanted state.
        is_on: bool,
    },
    /// Set the physical Interrupt Disable bit.
    IntxDisable {
        /// The function.
        function: usize,
        /// Wanted state.
        is_disabled: bool,
    },
    /// Reset the function by FLR and restore its physical BARs. Bus mastering is off and its BARs are unmapped by now.
    FunctionReset {
        /// The function.
        function: usize,
    },
}

/// The bridge has no device number left: the function was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {DEVICES_MAX} PCI functions in one VM")]
pub struct BridgeFull;

/// The virtual host bridge of one VM. Not locked: EL2 holds one lock around it.
#[derive(Clone, Debug, Default)]
pub struct Vpci {
    functions: Vec<Function, DEVICES_MAX>,
}

impl Vpci {
    /// A bridge without functions.
    pub const fn new() -> Self {
        Self { functions: Vec::new() }
    }

    /// Puts a function behind the bridge; returns its place, which is its device number less `FIRST_PCI_DEVICE`.
    ///
    /// # Errors
    /// [`BridgeFull`]; nothing has changed.
    pub fn add(&mut self, function: VirtualFunction) -> Result<usize, BridgeFull> {
        let place = self.functions.len();
        self.functions.push(Function::new(function)).map_err(|_| BridgeFull)?;
        Ok(place)
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Whether the guest has set Bus Master Enable of a function.
    pub fn is_bus_master(&self, function: usize) -> bool {
        self.functions.get(function).is_some_and(Function::is_bus_master)
    }

    /// The guest reads ECAM at `offset`. Absent functions, unaligned and 8-byte accesses read all ones.
    pub fn read(&self, offset: u64, width: Width, config: &impl FunctionConfig) -> u64 {
        let Some((place, register)) = locate(offset, width) else { return width.mask() };
        let Some(function) = self.functions.get(place) else { return width.mask() };
        let word = function.read(register & !3, |offset| config.read32(place, offset));
        width.extract(u64::from(word), u64::from(register & 3))
    }

    /// The guest writes `value` at `offset` of ECAM. `apply` gets each effect in order, at most
    /// 2 x [`BARS`] x `DEVICES_MAX` + 3 of them.
    pub fn write(
        &mut self,
        offset: u64,
        width: Width,
        value: u64,
        config: &impl FunctionConfig,
        mut apply: impl FnMut(Effect),
    ) {
        let Some((place, register)) = locate(offset, width) else { return };
        let Some(function) = self.functions.get_mut(place) else { return };
        let read = |offset| config.read32(place, offset);
        let change = function.write(register, width, value, read);
        self.settle(place, change, &mut apply);
    }

    /// All functions as after power-on: bus mastering off, no BAR mapped. EL2 resets the physical functions itself.
    pub fn reset(&mut self, mut apply: impl FnMut(Effect)) {
        for place in 0..self.functions.len() {
            apply(Effect::BusMaster { function: place, is_on: false });
            if let Some(function) = self.functions.get_mut(place) {
                function.reset();
            }
        }
        bar::remap(&mut self.functions, &mut apply);
        for place in 0..self.functions.len() {
            apply(Effect::IntxDisable { function: place, is_disabled: false });
        }
    }

    /// Turns a change of one function's virtual registers into effects: bus mastering ends before its BARs go, and
    /// starts after they have come.
    fn settle(&mut self, function: usize, change: config::Change, apply: &mut impl FnMut(Effect)) {
        if change.bus_master == Some(false) {
            apply(Effect::BusMaster { function, is_on: false });
        }
        if change.has_moved {
            bar::remap(&mut self.functions, apply);
        }
        if let Some(is_disabled) = change.intx_disable {
            apply(Effect::IntxDisable { function, is_disabled });
        }
        if change.has_reset {
            apply(Effect::FunctionReset { function });
        }
        if change.bus_master == Some(true) {
            apply(Effect::BusMaster { function, is_on: true });
        }
    }
}

/// The function's place and the register (0 to 4095) that ECAM has at `offset`; `None` for what cannot be a
/// configuration access or is no function's.
fn locate(offset: u64, width: Width) -> Option<(usize, u16)> {
    if width == Width::Double || !width.is_aligned(offset) {
        return None;
    }
    let register = u16::try_from(offset & 0xfff).ok()?;
    let device = usize::try_from(offset >> 15).ok()?;
    let function = offset >> 12 & 7;
    if function != 0 {
        return None;
    }
    Some((device.checked_sub(usize::from(FIRST_PCI_DEVICE))?, register))
}
