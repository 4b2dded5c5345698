//! One function's configuration space as the guest sees it (PCI 3.0 6.1, type 0 header).

use super::{
    BARS, Bar, BarWidth, VirtualFunction,
    capability::{self, Capability},
};
use crate::mmio::Width;
use bulkhead_core::addr::{AddrRange, Ipa};

const MEMORY: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
const INTX_DISABLE: u16 = 1 << 10;
/// Status, as bits of the 32-bit register at 4.
const INTERRUPT_STATUS: u32 = 1 << 19;
const CAPABILITIES_LIST: u32 = 1 << 20;
/// PCI Express: Device Capabilities, Device Control.
const DEVICE_CAPABILITIES: u8 = 4;
const DEVICE_CONTROL: u8 = 8;
const FLR_CAPABLE: u32 = 1 << 28;
const INITIATE_FLR: u32 = 1 << 15;

/// What a write to one function has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Change {
    /// BARs or memory decode: what is mapped may differ.
    pub(super) has_moved: bool,
    pub(super) bus_master: Option<bool>,
    pub(super) intx_disable: Option<bool>,
    pub(super) has_reset: bool,
}

/// A function and its virtual registers.
#[derive(Clone, Debug)]
pub(super) struct Function {
    description: VirtualFunction,
    command: u16,
    /// Cache Line Size: kept for the guest, without effect.
    cache_line: u8,
    /// Interrupt Line: kept for the guest, without effect.
    interrupt_line: u8,
    /// By BAR, its virtual address.
    addresses: [u64; BARS],
    /// By BAR, where it is mapped.
    pub(super) mapped: [Option<AddrRange<Ipa>>; BARS],
}

impl Function {
    pub(super) const fn new(description: VirtualFunction) -> Self {
        Self { description, command: 0, cache_line: 0, interrupt_line: 0, addresses: [0; BARS], mapped: [None; BARS] }
    }

    /// Registers as after power-on. What is mapped stays for [`super::bar::remap`] to take away.
    pub(super) const fn reset(&mut self) {
        self.command = 0;
        self.cache_line = 0;
        self.interrupt_line = 0;
        self.addresses = [0; BARS];
    }

    pub(super) const fn description(&self) -> &VirtualFunction {
        &self.description
    }

    pub(super) const fn decodes_memory(&self) -> bool {
        self.command & MEMORY != 0
    }

    pub(super) const fn is_bus_master(&self) -> bool {
        self.command & BUS_MASTER != 0
    }

    /// Its BARs with their virtual addresses.
    pub(super) fn bars(&self) -> impl Iterator<Item = (Option<Bar>, u64)> {
        self.description.bars.into_iter().zip(self.addresses)
    }

    /// The 32-bit register at `register`, a multiple of 4.
    pub(super) fn read(&self, register: u16, physical: impl Fn(u16) -> u32) -> u32 {
        let description = &self.description;
        match register {
            0x00 => description.vendor_device,
            0x04 => {
                let list = if description.capabilities.is_empty() { 0 } else { CAPABILITIES_LIST };
                u32::from(self.command) | list | (physical(0x04) & INTERRUPT_STATUS)
            }
            0x08 => description.class_revision,
            // Header type 0, one function; no BIST, no latency timer.
            0x0c => self.cache_line.into(),
            0x10..=0x24 => self.read_bar(usize::from(register - 0x10) / 4),
            0x2c => description.subsystem,
            0x34 => description.capabilities.first().map_or(0, |first| first.offset.into()),
            0x3c => u32::from(self.interrupt_line) | u32::from(description.pin) << 8,
            0x40..=0xfc => self.read_capability(register, physical),
            _ => 0,
        }
    }

    fn read_capability(&self, register: u16, physical: impl Fn(u16) -> u32) -> u32 {
        let list = &self.description.capabilities;
        let found = list.iter().enumerate().find_map(|(n, &entry)| Some((n, entry, entry.position(register)?)));
        let Some((n, entry, position)) = found else { return 0 };
        let next = list.get(n + 1).map_or(0, |next: &Capability| next.offset);
        entry.show(position, physical(register), next)
    }

    /// The BAR that the `index`-th BAR register belongs to, and whether it is its upper half.
    fn bar_at(&self, index: usize) -> Option<(usize, Bar, bool)> {
        let at = |index: usize| self.description.bars.get(index).copied().flatten();
        if let Some(bar) = at(index) {
            return Some((index, bar, false));
        }
        let below = index.checked_sub(1)?;
        at(below).filter(|bar| bar.width() == BarWidth::Bits64).map(|bar| (below, bar, true))
    }

    fn read_bar(&self, index: usize) -> u32 {
        let Some((owner, bar, is_upper)) = self.bar_at(index) else { return 0 };
        let address = self.addresses.get(owner).copied().unwrap_or(0);
        if is_upper { (address >> 32) as u32 } else { (address & 0xffff_ffff) as u32 | bar.flags() }
    }

    /// Writes the bytes of `width` at `register`.
    pub(super) fn write(&mut self, register: u16, width: Width, value: u64, physical: impl Fn(u16) -> u32) -> Change {
        let (word, lane) = (register & !3, u64::from(register & 3));
        let merge = |old: u32| (width.insert(old.into(), lane, value) & 0xffff_ffff) as u32;
        match word {
            0x04 => self.write_command((merge(self.command.into()) & 0xffff) as u16),
            0x0c => {
                self.cache_line = (merge(self.cache_line.into()) & 0xff) as u8;
                Change::default()
            }
            0x10..=0x24 => {
                let index = usize::from(word - 0x10) / 4;
                self.write_bar(index, merge(self.read_bar(index)))
            }
            0x3c => {
                self.interrupt_line = (merge(self.interrupt_line.into()) & 0xff) as u8;
                Change::default()
            }
            0x40..=0xfc if merge(0) & INITIATE_FLR != 0 && self.can_reset(word, physical) => {
                let change = Change { has_moved: true, bus_master: Some(false), has_reset: true, intx_disable: None };
                self.reset();
                change
            }
            _ => Change::default(),
        }
    }

    fn write_command(&mut self, value: u16) -> Change {
        let new = value & (MEMORY | BUS_MASTER | INTX_DISABLE);
        let changed = self.command ^ new;
        self.command = new;
        Change {
            has_moved: changed & MEMORY != 0,
            bus_master: (changed & BUS_MASTER != 0).then_some(new & BUS_MASTER != 0),
            intx_disable: (changed & INTX_DISABLE != 0).then_some(new & INTX_DISABLE != 0),
            has_reset: false,
        }
    }

    fn write_bar(&mut self, index: usize, value: u32) -> Change {
        let Some((owner, bar, is_upper)) = self.bar_at(index) else { return Change::default() };
        let Some(address) = self.addresses.get_mut(owner) else { return Change::default() };
        let merged = if is_upper {
            (*address & 0xffff_ffff) | u64::from(value) << 32
        } else {
            (*address & !0xffff_ffff) | u64::from(value)
        };
        let new = merged & bar.writable();
        let has_moved = *address != new;
        *address = new;
        Change { has_moved, ..Change::default() }
    }

    /// Whether `register` is Device Control of a function that resets by FLR.
    fn can_reset(&self, register: u16, physical: impl Fn(u16) -> u32) -> bool {
        self.description.capabilities.iter().any(|entry| {
            let is_control = entry.id == capability::EXPRESS && entry.position(register) == Some(DEVICE_CONTROL);
            is_control && physical(u16::from(entry.offset) + u16::from(DEVICE_CAPABILITIES)) & FLR_CAPABLE != 0
        })
    }
}
