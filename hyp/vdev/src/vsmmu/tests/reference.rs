//! The architecture's words, done one after the other, with no thought for cost: what the fuzzer compares with.

mod commands;

use std::collections::BTreeMap;

use super::*;

/// An SMMUv3 with stage 1 alone, and the RAM that it reaches.
pub struct Reference {
    /// Words by their offset in the frame.
    pub registers: BTreeMap<u64, u32>,
    pub ram: Vec<u8>,
    pub host: Notes,
    pub interrupts: Interrupts,
}

impl Reference {
    pub fn new() -> Self {
        let mut registers: BTreeMap<_, _> = (0..0xc0).step_by(4).map(|at| (at, 0)).collect();
        registers.extend([(0x0, 0x0d40_301a), (0x4, 0x0107_0008), (0xc, 0x400), (0x14, 0x12)]);
        registers.retain(|at, _| !matches!(at, 0xa8 | 0xac));
        registers.extend([(0x1_00a8, 0), (0x1_00ac, 0)]);
        Self {
            registers,
            ram: vec![0; usize::try_from(RAM_BYTES).expect("small")],
            host: Notes::default(),
            interrupts: Interrupts::empty(),
        }
    }

    pub fn get(&self, at: u64) -> u32 {
        self.registers.get(&at).copied().unwrap_or_default()
    }

    fn bits(&self, at: u64, shift: u32, bits: u32) -> u32 {
        self.get(at) >> shift & ((1 << bits) - 1)
    }

    fn address(&self, at: u64) -> u64 {
        (u64::from(self.get(at + 4)) << 32 | u64::from(self.get(at))) & 0x00ff_ffff_ffff_ffff
    }

    fn place(&self, at: u64, bytes: u64) -> Option<usize> {
        let offset = at.checked_sub(RAM)?;
        (offset.checked_add(bytes)? <= RAM_BYTES).then(|| usize::try_from(offset).expect("small"))
    }

    fn load(&self, at: u64) -> Option<u64> {
        let place = self.place(at, 8)?;
        Some(u64::from_le_bytes(self.ram[place..place + 8].try_into().expect("eight")))
    }

    pub fn store(&mut self, at: u64, bytes: &[u8]) -> Option<()> {
        let place = self.place(at, u64::try_from(bytes.len()).expect("few"))?;
        self.ram[place..place + bytes.len()].copy_from_slice(bytes);
        Some(())
    }

    /// Whether a bit of CR0 or IRQ_CTRL is clear, in the register and in its acknowledgement.
    fn is_off(&self, at: u64, bit: u32) -> bool {
        self.bits(at, bit, 1) == 0 && self.bits(at + 4, bit, 1) == 0
    }

    pub fn write(&mut self, at: u64, value: u32) {
        let (smmu, eventq, cmdq) = (self.is_off(0x20, 0), self.is_off(0x20, 2), self.is_off(0x20, 3));
        let (gerror_irq, eventq_irq) = (self.is_off(0x50, 0), self.is_off(0x50, 2));
        let gbpa = self.get(0x44);
        let mut keep = |is_allowed: bool, mask: u32| {
            if is_allowed {
                self.registers.insert(at, value & mask);
            }
        };
        match at {
            0x20 => self.write_cr0(value & 0b1101),
            0x28 => keep(true, 0xfff),
            0x2c => keep(smmu, 0b10),
            0x44 if value >> 31 == 1 && value & 1 << 20 != gbpa => {
                self.registers.insert(0x44, value & 1 << 20);
                if self.bits(0x24, 0, 1) == 0 && self.configure(0, u32::MAX, false).is_err() {
                    self.registers.insert(0x44, value & 0x8010_0000);
                }
            }
            0x50 => self.registers.extend([(0x50, value & 0b101), (0x54, value & 0b101)]),
            0x64 => keep(true, 0x1b5),
            0x68 => keep(gerror_irq, !3),
            0x6c => keep(gerror_irq, 0x00ff_ffff),
            0x70 => keep(gerror_irq, !0),
            0x74 => keep(gerror_irq, 0x3f),
            0x80 => keep(smmu, !0x3f),
            0x84 => keep(smmu, 0x40ff_ffff),
            0x88 => keep(smmu, 0x3_07ff),
            0x90 => keep(cmdq, !0),
            0x94 => keep(cmdq, 0x40ff_ffff),
            0x98 => keep(true, 0xf_ffff),
            0x9c => keep(cmdq, 0x7f0f_ffff),
            0xa0 => keep(eventq, !0),
            0xa4 => keep(eventq, 0x40ff_ffff),
            0x1_00a8 => keep(eventq, 0x800f_ffff),
            0x1_00ac => keep(true, 0x800f_ffff),
            0xb0 => keep(eventq_irq, !3),
            0xb4 => keep(eventq_irq, 0x00ff_ffff),
            0xb8 => keep(eventq_irq, !0),
            0xbc => keep(eventq_irq, 0x3f),
            _ => {}
        }
        for (index, size) in
            [(0x98, self.cmdq()), (0x9c, self.cmdq()), (0x1_00a8, self.eventq()), (0x1_00ac, self.eventq())]
        {
            let value = self.get(index);
            self.registers.insert(index, value & 0xfff0_0000 | value & (2 * size - 1));
        }
    }

    fn write_cr0(&mut self, value: u32) {
        self.registers.insert(0x20, value);
        let was_on = self.bits(0x24, 0, 1);
        let is_stuck = value & 1 != was_on && self.configure(0, u32::MAX, value & 1 == 1).is_err();
        self.registers.insert(0x24, if is_stuck { value & !1 | was_on } else { value });
    }

    /// Entries of the command queue.
    fn cmdq(&self) -> u32 {
        1 << self.bits(0x90, 0, 5).min(8)
    }

    fn eventq(&self) -> u32 {
        1 << self.bits(0xa0, 0, 5).min(7)
    }

    fn slot(&self, base: u64, size: u32, index: u32, bytes: u64) -> u64 {
        let alignment = (u64::from(size) * bytes).max(32);
        self.address(base) / alignment * alignment + u64::from(index % size) * bytes
    }

    fn error(&mut self, bit: u32) {
        if (self.get(0x60) ^ self.get(0x64)) & bit == 0 {
            self.registers.insert(0x60, self.get(0x60) ^ bit);
            if self.bits(0x50, 0, 1) == 1
                && !self.interrupt(Interrupts::GERROR, 0x68)
                && (self.get(0x60) ^ self.get(0x64)) & 0x80 == 0
            {
                self.registers.insert(0x60, self.get(0x60) ^ 0x80);
            }
        }
    }

    /// Whether the message was not aborted.
    fn interrupt(&mut self, wire: Interrupts, cfg: u64) -> bool {
        self.interrupts |= wire;
        let at = self.address(cfg) & !3;
        at == 0 || self.store(at, &self.get(cfg + 8).to_le_bytes()).is_some()
    }

    /// Commands until none is left, or one cannot be done.
    pub fn drain(&mut self) {
        while self.bits(0x24, 3, 1) == 1 && (self.get(0x60) ^ self.get(0x64)) & 1 == 0 {
            let (size, consumer) = (self.cmdq(), self.get(0x9c));
            let index = consumer & 0xf_ffff;
            if index == self.get(0x98) {
                break;
            }
            let at = self.slot(0x90, size, index, 16);
            let command = self.load(at).zip(self.load(at + 8)).ok_or(2);
            let outcome = command.and_then(|(low, high)| self.command(low, high));
            match outcome {
                Ok(message) => {
                    self.registers.insert(0x9c, consumer & 0x7f00_0000 | (index + 1) & (2 * size - 1));
                    if let Some((at, data)) = message {
                        // The one departure: no wire beside a message.
                        if at == 0 {
                            self.interrupts |= Interrupts::CMD_SYNC;
                        } else if self.store(at, &data.to_le_bytes()).is_none() {
                            self.error(1 << 4);
                        }
                    }
                }
                Err(code) => {
                    self.registers.insert(0x9c, index | code << 24);
                    self.error(1);
                }
            }
        }
    }

    pub fn record(&mut self, mut event: [u64; 4]) {
        if self.bits(0x24, 2, 1) == 0 || (self.get(0x60) ^ self.get(0x64)) & 4 != 0 {
            return;
        }
        if event[0] & 0xff == 4
            && let Err((number, at)) = self.entry(u32::try_from(event[0] >> 32).expect("32 bits"))
        {
            if number == 2 && self.bits(0x2c, 1, 1) == 0 {
                return;
            }
            event[0] = event[0] / 256 * 256 + number;
            if number == 3 {
                event[3] = at;
            }
        }
        let (size, producer, consumer) = (self.eventq(), self.get(0x1_00a8), self.get(0x1_00ac));
        let (write, read) = (producer & 0xf_ffff, consumer & 0xf_ffff);
        if write % size == read % size && write != read {
            self.registers.insert(0x1_00a8, write | !consumer & 1 << 31);
            return;
        }
        let bytes: Vec<u8> = event.iter().flat_map(|word| word.to_le_bytes()).collect();
        if self.store(self.slot(0xa0, size, write, 32), &bytes).is_none() {
            return self.error(4);
        }
        self.registers.insert(0x1_00a8, producer & 1 << 31 | (write + 1) & (2 * size - 1));
        if write == read && self.bits(0x50, 2, 1) == 1 && !self.interrupt(Interrupts::EVENTQ, 0xb0) {
            self.error(1 << 5);
        }
    }
}
