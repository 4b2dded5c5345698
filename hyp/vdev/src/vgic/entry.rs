//! Between the bitmaps and the list registers: flush before entry, sync after exit.

use super::{Effects, Entry, LRS_MAX, ListRegisters, PRIVATE, SHARED, Vgic, bits, hcr, numbers};

/// What EL2 writes before entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "the list registers are not in hardware yet"]
pub struct Flush {
    /// The list registers to write: those in use now or before.
    pub write: u16,
    /// ICH_HCR_EL2, of the bits in [`hcr`]; the rest 0, which zeroes EOIcount too.
    pub hcr: u64,
    /// What else follows.
    pub effects: Effects,
}

impl Vgic {
    /// Takes the state out of `vcpu`'s list registers, as they were read after the exit.
    ///
    /// A second call in the same exit changes nothing.
    pub fn sync(&mut self, vcpu: usize, lrs: &ListRegisters) -> Effects {
        let Some(cpu) = self.cpus.get_mut(vcpu) else { return Effects::default() };
        let resident = cpu.resident;
        if resident == 0 && !cpu.is_recalled {
            return Effects::default();
        }
        let owned = cpu.active;
        let (mut pending, mut active) = (0, 0);
        for entry in lrs.entries() {
            let bit = super::intid_bit(entry.intid).unwrap_or(0) & resident;
            pending |= if entry.pending { bit } else { 0 };
            active |= if entry.active { bit } else { 0 };
        }
        if lrs.used == 0 {
            // They were given up unread (a vCPU that went off): as they were flushed, so that nothing is lost.
            (pending, active) = (cpu.lr_pending, cpu.lr_active);
        }
        let hw = (pending | active) & cpu.lr_hw;
        let latch = pending & cpu.lr_soft & !cpu.cancel_pending;
        // Those active outside the list registers that the guest has ended, one a count (IHI 0069 12.4.8, EOIcount).
        let spilled = cpu.lr_spilled & cpu.active;
        cpu.active |= active & !cpu.cancel_active;
        cpu.bank.latch |= latch & PRIVATE;
        cpu.bank.hw_live |= hw & PRIVATE;
        self.spi.latch |= latch & SHARED;
        self.spi.hw_live |= hw & SHARED;
        cpu.resident = 0;
        (cpu.lr_pending, cpu.lr_active, cpu.lr_soft, cpu.lr_hw, cpu.lr_spilled) = (0, 0, 0, 0, 0);
        (cpu.cancel_pending, cpu.cancel_active) = (0, 0);
        cpu.is_dirty = true;
        self.end_spilled(vcpu, spilled, lrs.eoi_count);
        self.retake_busy(vcpu, resident | owned);
        let kick = self.acknowledge_recall(vcpu) | self.hand_over(vcpu, resident | owned);
        Effects { kick, ..self.release_hw(vcpu) }
    }

    /// Puts what `vcpu` should see into `lrs`, most urgent first when there is not room for all.
    ///
    /// Syncs first if the list registers are still in use, so `lrs` must have been read since the exit.
    pub fn flush(&mut self, vcpu: usize, lrs: &mut ListRegisters) -> Flush {
        let effects = self.sync(vcpu, lrs);
        let Some(active) = self.cpus.get(vcpu).map(|cpu| cpu.active) else { return Flush::default() };
        let ready = self.ready(vcpu);
        let room = usize::from(lrs.count());
        let (mut chosen, mut hcr) = (ready | active, hcr::EN);
        if chosen.count_ones() as usize > room {
            chosen = self.choose(vcpu, ready, active, room);
            // Not for one that is active too: it waits for its own end. At least one chosen one is pending.
            if ready & !active & !chosen != 0 {
                hcr |= hcr::NPIE;
            }
            if active & !chosen != 0 {
                hcr |= hcr::LRENPIE | hcr::TDIR;
            }
        }
        let write = self.load(vcpu, lrs, chosen, ready);
        Flush { write, hcr, effects }
    }

    /// Ends the `count` most urgent of `spilled`: the guest deactivates in the order of nesting.
    fn end_spilled(&mut self, vcpu: usize, mut spilled: u64, count: u8) {
        for _ in 0..count.min(31) {
            let Some(bit) = self.most_urgent(vcpu, spilled) else { return };
            spilled &= !bit;
            if let Some(cpu) = self.cpus.get_mut(vcpu) {
                cpu.active &= !bit;
            }
        }
    }

    /// At most `room` of the two sets. Active ones come first, but one place stays for what is pending, so that the
    /// guest always has something to take before the next maintenance interrupt.
    fn choose(&self, vcpu: usize, ready: u64, active: u64, room: usize) -> u64 {
        let fresh = ready & !active;
        let mut chosen = 0;
        for _ in 0..room.saturating_sub(usize::from(fresh != 0)) {
            chosen |= self.most_urgent(vcpu, active & !chosen).unwrap_or(0);
        }
        while (chosen.count_ones() as usize) < room {
            let Some(bit) = self.most_urgent(vcpu, fresh & !chosen) else { break };
            chosen |= bit;
        }
        chosen
    }

    fn most_urgent(&self, vcpu: usize, set: u64) -> Option<u64> {
        bits(set).min_by_key(|&intid| self.priority(vcpu, intid)).and_then(super::intid_bit)
    }

    /// Moves the state of `chosen` from the bitmaps into the list registers.
    fn load(&mut self, vcpu: usize, lrs: &mut ListRegisters, chosen: u64, ready: u64) -> u16 {
        let Some(cpu) = self.cpus.get(vcpu) else { return 0 };
        let edge = cpu.bank.edge | self.spi.edge;
        let latch = cpu.bank.latch | self.spi.latch;
        let group1 = cpu.bank.group1 | self.spi.group1;
        let hw_live = cpu.bank.hw_live | self.spi.hw_live;
        let active = cpu.active & chosen;
        // Pending again while active: what the guest may take next needs an exit when the active one ends, unless the
        // list register itself can hold both (not when linked, IHI 0069 12.4.9; not for a line, which may fall).
        let again = active & self.deliverable(vcpu);
        let both = again & ready & edge & !hw_live;
        let pending = (ready & chosen & !active) | both;
        let hw = hw_live & chosen & !again;
        let line = pending & self.spi.level & !edge & !hw;
        let eoi = (again & !both) | line;

        let old = core::mem::take(&mut lrs.used);
        for n in numbers(old) {
            lrs.lr[n % LRS_MAX] = 0;
        }
        lrs.eoi_count = 0;
        for (n, (slot, intid)) in lrs.lr.iter_mut().zip(bits(chosen)).enumerate() {
            let bit = 1u64 << (intid & 63);
            let physical = if hw & bit == 0 { None } else { self.physical.get(intid as usize).copied() };
            let entry = Entry {
                intid,
                pending: pending & bit != 0,
                active: active & bit != 0,
                physical,
                eoi: eoi & bit != 0,
                group1: group1 & bit != 0,
                priority: self.priority(vcpu, intid),
            };
            *slot = entry.to_raw();
            lrs.used |= 1 << n;
        }

        let soft = pending & latch;
        self.spi.latch &= !soft;
        self.spi.hw_live &= !hw;
        if let Some(cpu) = self.cpus.get_mut(vcpu) {
            cpu.bank.latch &= !soft;
            cpu.bank.hw_live &= !hw;
            cpu.active &= !active;
            cpu.resident = chosen;
            cpu.lr_pending = pending;
            cpu.lr_active = active;
            cpu.lr_soft = soft;
            cpu.lr_hw = hw;
            cpu.lr_spilled = cpu.active;
            cpu.is_dirty = false;
        }
        self.spi_busy |= chosen & SHARED;
        old | lrs.used
    }
}
