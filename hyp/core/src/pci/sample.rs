//! Configuration space for tests: functions behind bridges, with the registers that hardware keeps and clears.

use std::{vec, vec::Vec};

use super::{ConfigSpace, registers as reg};
use crate::ids::PciFunction;

/// A function of the fake, and what is behind it when it is a bridge.
#[derive(Clone)]
pub struct Function {
    place: u8,
    registers: Vec<u32>,
    writable: Vec<u32>,
    below: Vec<Self>,
    /// Offset of Device Control where a write of bit 15 resets.
    flr: Option<u16>,
    /// Reads that still answer with all ones after a reset.
    silent_reads: core::cell::Cell<u32>,
    /// Resets seen.
    pub resets: u32,
}

impl core::fmt::Debug for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Function {:#x}, BAR bits {:#x?}", self.place, &self.writable[4..10])
    }
}

impl Function {
    fn new(device: u8, function: u8, ids: u32, header_type: u32) -> Self {
        let mut new = Self {
            place: device << 3 | function,
            registers: vec![0; 1024],
            writable: vec![0; 1024],
            below: vec![],
            flr: None,
            silent_reads: core::cell::Cell::new(0),
            resets: 0,
        };
        new.keep(reg::IDS, ids, 0);
        // Firmware left it decoding and mastering.
        new.keep(reg::COMMAND, 0x7, 0x0547);
        new.keep(0x0c, header_type << 16, 0);
        new
    }

    /// A device with these IDs (device 31:16, vendor 15:0).
    pub fn endpoint(device: u8, function: u8, ids: u32) -> Self {
        Self::new(device, function, ids, 0).with(reg::ROM, 0xfebf_0001, 0xfffe_0001).with(reg::CLASS, 0x0200_0003, 0)
    }

    /// A bridge with a 64-bit prefetchable window.
    pub fn bridge(device: u8, function: u8, below: Vec<Self>) -> Self {
        let mut bridge = Self::new(device, function, 0x000c_1b36, 1);
        bridge.keep(reg::CLASS, 0x0604_0000, 0);
        bridge.keep(reg::BUSES, 0x0003_0201, 0x00ff_ffff);
        bridge.keep(reg::MEMORY_WINDOW, 0, 0xfff0_fff0);
        bridge.keep(reg::PREFETCH_WINDOW, 0x0001_0001, 0xfff0_fff0);
        bridge.keep(reg::PREFETCH_BASE_HIGH, 0, u32::MAX);
        bridge.keep(reg::PREFETCH_LIMIT_HIGH, 0, u32::MAX);
        bridge.below = below;
        bridge
    }

    /// A root port, with or without access control services.
    pub fn root_port(device: u8, has_acs: bool, below: Vec<Self>) -> Self {
        let port = Self::bridge(device, 0, below).capability(0x54, reg::CAP_EXPRESS, &[0x0042_0000, 0x8000, 0]);
        if has_acs { port.with(0x100, 0x0001_000d, 0).with(0x104, 0x1f, 0x1f << 16) } else { port }
    }

    fn keep(&mut self, offset: u16, value: u32, writable: u32) {
        self.registers[usize::from(offset / 4)] = value;
        self.writable[usize::from(offset / 4)] = writable;
    }

    /// With a register.
    pub fn with(mut self, offset: u16, value: u32, writable: u32) -> Self {
        self.keep(offset, value, writable);
        self
    }

    /// With a memory BAR below 4 GiB.
    pub fn bar32(self, number: u16, size: u32) -> Self {
        self.with(reg::BAR0 + number * 4, 0xdead_0000 & !(size - 1), !(size - 1))
    }

    /// With a prefetchable 64-bit BAR.
    pub fn bar64(self, number: u16, size: u64) -> Self {
        let mask = !(size - 1);
        let low = u32::try_from(mask & 0xffff_ffff).expect("masked");
        let high = u32::try_from(mask >> 32).expect("shifted");
        self.with(reg::BAR0 + number * 4, 0xc, low).with(reg::BAR0 + number * 4 + 4, 0, high)
    }

    /// With an I/O BAR.
    pub fn io(self, number: u16, size: u32) -> Self {
        self.with(reg::BAR0 + number * 4, 0xc001, !(size - 1) & !3)
    }

    /// With an interrupt pin.
    pub fn pin(self, pin: u32) -> Self {
        self.with(reg::INTERRUPT, pin << 8, 0xff)
    }

    /// With a capability whose first 16 bits the list owns; `words` starts with the upper half of its first register.
    pub fn capability(mut self, offset: u16, id: u8, words: &[u32]) -> Self {
        let next = self.registers[usize::from(reg::CAPABILITIES / 4)];
        self.keep(reg::CAPABILITIES, u32::from(offset), 0);
        self.registers[1] |= u32::from(reg::STATUS_CAPABILITIES) << 16;
        let first = words.first().copied().unwrap_or(0) & 0xffff_0000;
        self.keep(offset, first | next << 8 | u32::from(id), 0);
        for (word, offset) in words.iter().skip(1).zip((offset + 4..).step_by(4)) {
            self.keep(offset, *word, 0);
        }
        self
    }

    /// With a function-level reset in the PCI Express capability at `offset`.
    pub fn flr(mut self, offset: u16, flags: u32) -> Self {
        self = self.capability(offset, reg::CAP_EXPRESS, &[flags << 16, reg::DEVICE_CAPS_FLR, 0x2810]);
        self.writable[usize::from(offset + 8) / 4] = 0xffff;
        self.flr = Some(offset + 8);
        self
    }

    /// At another device number.
    pub fn moved_to(mut self, device: u8) -> Self {
        self.place = device << 3;
        self
    }

    /// Several functions in one device.
    pub fn multi(mut self) -> Self {
        self.registers[3] |= 0x80_0000;
        self
    }

    fn is_bridge(&self) -> bool {
        self.registers[3] >> 16 & 0x7f == 1
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.registers[1] &= 0xffff_0000;
        for number in 0..6 {
            let place = usize::from(reg::BAR0 / 4) + number;
            self.registers[place] &= !self.writable[place];
        }
        self.silent_reads.set(2);
    }
}

/// QEMU's e1000e: three memory BARs, one for I/O, no reset of its own.
pub fn e1000e(device: u8) -> Function {
    Function::endpoint(device, 0, 0x10d3_8086)
        .bar32(0, 0x2_0000)
        .bar32(1, 0x2_0000)
        .io(2, 32)
        .bar32(3, 0x4000)
        .pin(1)
        .capability(0xc8, reg::CAP_POWER, &[0, reg::POWER_NO_SOFT_RESET])
        .capability(0xd0, reg::CAP_MSI, &[])
        .capability(0xe0, reg::CAP_EXPRESS, &[0x0092_0000, 0])
        .capability(0xa0, reg::CAP_MSIX, &[0x0004_0000, 3, 0x2003])
}

/// QEMU's virtio-net-pci on the root bus: one small BAR, one 64-bit BAR.
pub fn virtio(device: u8) -> Function {
    Function::endpoint(device, 0, 0x1041_1af4).bar32(1, 0x1000).bar64(4, 0x4000).pin(1).capability(
        0x98,
        reg::CAP_MSIX,
        &[0x0003_0000, 1, 0x801],
    )
}

/// The segment 0.
pub struct FakeBus {
    /// Functions of bus 0.
    pub root: Vec<Function>,
}

impl FakeBus {
    fn find(functions: &[Function], bus: u8, at: u8, place: u8) -> Option<&Function> {
        if bus == at {
            return functions.iter().find(|function| function.place == place);
        }
        functions.iter().filter(|function| function.is_bridge()).find_map(|bridge| {
            let [_, secondary, subordinate, _] = bridge.registers[6].to_le_bytes();
            let leads_there = secondary > bus && (secondary..=subordinate).contains(&at);
            leads_there.then(|| Self::find(&bridge.below, secondary, at, place)).flatten()
        })
    }

    fn find_mut(functions: &mut [Function], bus: u8, at: u8, place: u8) -> Option<&mut Function> {
        if bus == at {
            return functions.iter_mut().find(|function| function.place == place);
        }
        functions.iter_mut().filter(|function| function.is_bridge()).find_map(|bridge| {
            let [_, secondary, subordinate, _] = bridge.registers[6].to_le_bytes();
            let leads_there = secondary > bus && (secondary..=subordinate).contains(&at);
            leads_there.then(|| Self::find_mut(&mut bridge.below, secondary, at, place)).flatten()
        })
    }

    /// The function, where its configuration space answers.
    pub fn function(&self, function: PciFunction) -> Option<&Function> {
        let [place, _] = function.routing_id().to_le_bytes();
        Self::find(&self.root, 0, function.bus(), place)
    }
}

impl ConfigSpace for FakeBus {
    fn read32(&self, function: PciFunction, offset: u16) -> u32 {
        assert!(offset.is_multiple_of(4) && offset < 4096, "read of {offset:#x}");
        let Some(found) = self.function(function) else { return u32::MAX };
        let silent = found.silent_reads.get();
        if silent > 0 {
            found.silent_reads.set(silent - 1);
            return u32::MAX;
        }
        found.registers[usize::from(offset / 4)]
    }

    fn write32(&mut self, function: PciFunction, offset: u16, value: u32) {
        assert!(offset.is_multiple_of(4) && offset < 4096, "write of {offset:#x}");
        if offset != reg::COMMAND {
            let masters = self.root.iter().any(|f| !f.is_bridge() && f.registers[1] & 4 != 0);
            assert!(!masters, "{function} is programmed while a device of the root bus masters the bus");
        }
        let [place, _] = function.routing_id().to_le_bytes();
        let Some(found) = Self::find_mut(&mut self.root, 0, function.bus(), place) else { return };
        if (reg::BAR0..reg::BAR0 + 24).contains(&offset) && !found.is_bridge() {
            assert_eq!(found.registers[1] & 3, 0, "{function}: BAR written while it decodes");
        }
        if found.flr == Some(offset) && value & reg::DEVICE_CONTROL_FLR != 0 {
            return found.reset();
        }
        let place = usize::from(offset / 4);
        let writable = found.writable[place];
        found.registers[place] = found.registers[place] & !writable | value & writable;
    }
}
