//! Two VMs, their virtual SMMUs, one physical one, and the devices behind it.

use std::ops::Range;

use bulkhead_core::{
    addr::{Iova, PAGE_SIZE, PhysAddr},
    ids::{SmmuId, Vmid},
    stage2::S2Config,
};
use bulkhead_dma::flush::{Costs, Stage1Batch, Stage1Mode, Stage1Policy};
use bulkhead_smmu::{
    Config, Platform, Smmu,
    model::{DmaAccess, Model, ModelConfig, Mutant, Mutation, Outcome},
};
use bulkhead_vdev::{
    mmio::Width,
    vsmmu::{Ability, Next, Vsmmu},
};

use crate::{
    guest::{CMDQ, DATA, EVENTQ, PAGES, Ram, SLOTS, STRTAB, VA},
    streams::{Streams, VIRTUAL, physical},
};

/// Calls that one store takes at most: a command is a step, and what it configures some more for each stream.
const CALLS: usize = 256 * (1 + 8 * VIRTUAL.len()) / 64 + 2;
const PROD: u64 = 0x98;
const CONS: u64 = 0x9c;

/// One of the VMs.
pub struct Vm {
    /// Its virtual SMMU.
    pub device: Vsmmu,
    batch: Stage1Batch,
    policy: Stage1Policy,
    /// Its memory, and the first frame of it.
    pub ram: Ram,
    pub first: PhysAddr,
    vmid: Vmid,
    put: u64,
    /// What each slot of each table leads to, and where it may still lead until a SYNC.
    maps: [[Option<u64>; SLOTS]; 2],
    old: Vec<(usize, usize, u64)>,
    free: Vec<u64>,
    /// The table of each context, and the context of each stream.
    tables: [usize; 2],
    contexts: [Option<usize>; 2],
}

/// See the module.
pub struct World {
    pub model: Model,
    pub smmu: Smmu<Mutant<Model>>,
    pub vms: [Vm; 2],
    /// Events for a guest that it was not handed yet.
    pub events: Vec<[u64; 4]>,
    random: u64,
}

impl World {
    /// Both guests' drivers have probed; every stream is in its first context.
    pub fn new(config: ModelConfig, mode: Stage1Mode, mutation: Mutation, seed: u64) -> Self {
        let model = Model::new(config);
        let platform = Mutant::new(model.clone(), Mutation::None);
        let mut smmu = Smmu::take_over(platform, SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
        let features = *smmu.features();
        let vms = [0, 1].map(|vm| {
            let (ram, first, table) = Ram::new(&model);
            let vmid = Vmid::new([1, 2][vm]).expect("not zero");
            let s2 = S2Config { vmid, root: table.root(), ipa_bits: 39, output_bits: 40 };
            for stream in VIRTUAL {
                model.grant(physical(vm, stream), first, PAGES * PAGE_SIZE);
                smmu.attach(physical(vm, stream), &s2).expect("attach");
            }
            let has_range_invalidation = features.has_range_invalidation;
            let ability = Ability { has_asid16: true, is_terminate_only: true, has_range_invalidation, oas_bits: 39 };
            Vm {
                device: Vsmmu::new(ability),
                batch: Stage1Batch::new(),
                policy: Stage1Policy::new(mode, has_range_invalidation, Costs::START),
                ram,
                first,
                vmid,
                put: 0,
                maps: [[None; SLOTS]; 2],
                old: Vec::new(),
                free: (DATA..PAGES).collect(),
                tables: [0, 1],
                contexts: [Some(0), Some(0)],
            }
        });
        let mut world =
            Self { model, smmu, vms, events: Vec::new(), random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 };
        for vm in 0..2 {
            let own = &mut world.vms[vm];
            own.ram.link();
            for (context, stream) in VIRTUAL.into_iter().enumerate() {
                own.ram.point(context, context);
                own.ram.use_context(stream, Some(0));
            }
            for (offset, value) in [(0x80, STRTAB), (0x90, CMDQ | 8), (0xa0, EVENTQ | 5)] {
                world.write(vm, offset, Width::Double, value);
            }
            for (offset, value) in [(0x88, 8), (0x20, 0b1101)] {
                world.write(vm, offset, Width::Word, value);
            }
        }
        world.smmu.platform().set(mutation);
        world
    }

    /// A guest's store to a register.
    pub fn write(&mut self, vm: usize, offset: u64, width: Width, value: u64) {
        // What the guest stored before is seen by its device from here on.
        self.model.clone().barrier();
        for _ in 0..CALLS {
            let Vm { device, batch, policy, ram, vmid, .. } = &mut self.vms[vm];
            let mut host = Streams { smmu: &mut self.smmu, vm, vmid: *vmid, batch, policy };
            let next = device.write(offset, width, value, ram, &mut host);
            ram.release();
            if next == Next::Done {
                return;
            }
        }
        panic!("no end");
    }

    /// Commands and a CMD_SYNC by one store of PROD: what was unmapped before is free when they are consumed.
    fn send(&mut self, vm: usize, commands: &[[u64; 2]]) -> Result<(), String> {
        let own = &mut self.vms[vm];
        for [low, high] in commands.iter().chain([&[0x46, 0]]) {
            let slot = CMDQ + own.put % 256 * 16;
            own.ram.store(slot, *low);
            own.ram.store(slot + 8, *high);
            own.put += 1;
        }
        let prod = own.put % 512;
        self.write(vm, PROD, Width::Word, prod);
        let own = &mut self.vms[vm];
        if own.device.read(CONS, Width::Word) != prod {
            return Err("the queue stands still".into());
        }
        own.free.extend(own.old.drain(..).map(|(_, _, page)| page));
        Ok(())
    }

    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).expect("31 bits") % below
    }

    /// One operation at random. Every page that a device reached has to be one that its guest reckons with.
    pub fn step(&mut self) -> Result<(), String> {
        let vm = self.random(2);
        self.step_of(vm)
    }

    /// One operation of this VM.
    pub fn step_of(&mut self, vm: usize) -> Result<(), String> {
        let which = self.random(2);
        match self.random(32) {
            0..8 => {
                let slot = self.random(SLOTS);
                self.map(vm, which, slot);
                Ok(())
            }
            8..14 => {
                let (slot, pages) = (self.random(SLOTS), 1 + self.random(6));
                self.unmap(vm, which, slot, pages)
            }
            14 => {
                let context = self.random(3);
                let own = &mut self.vms[vm];
                own.contexts[which] = (context < 2).then_some(context);
                own.ram.use_context(VIRTUAL[which], own.contexts[which]);
                self.send(vm, &[[0x03 | u64::from(VIRTUAL[which]) << 32, 1]])
            }
            15 => {
                let table = self.random(2);
                self.look(vm, 0..SLOTS / 4)?;
                let own = &mut self.vms[vm];
                own.tables[which] = table;
                own.ram.point(which, table);
                // CMD_CFGI_CD, CD_ALL, STE: each has a descriptor forgotten.
                let opcode = [0x05, 0x06, 0x03][self.random(3)];
                let mut commands = VIRTUAL.map(|stream| [opcode | u64::from(stream) << 32, 1]).to_vec();
                if self.random(2) == 0 {
                    // One translation as well, of nobody's.
                    commands.push([0x12 | 0xff << 48, VA]);
                }
                self.send(vm, &commands)?;
                self.look(vm, 0..SLOTS / 4)
            }
            _ => {
                let slot = self.random(SLOTS);
                self.device(vm, which, slot)
            }
        }
    }

    /// What the model saw the driver do.
    pub fn check(&self) -> Result<(), String> {
        let violations = self.model.violations();
        if violations.is_empty() { Ok(()) } else { Err(format!("{violations:x?}")) }
    }

    /// Every address of this VM, by both of its streams.
    pub fn check_others(&mut self, vm: usize) -> Result<(), String> {
        self.look(vm, 0..SLOTS)
    }

    fn map(&mut self, vm: usize, table: usize, slot: usize) {
        let own = &mut self.vms[vm];
        if own.maps[table][slot].is_none()
            && let Some(page) = own.free.pop()
        {
            own.maps[table][slot] = Some(page);
            own.ram.map(table, slot, Some(page));
            self.model.clone().barrier();
        }
    }

    fn unmap(&mut self, vm: usize, table: usize, slot: usize, pages: usize) -> Result<(), String> {
        let (end, how) = ((slot + pages).min(SLOTS), self.random(8));
        self.look(vm, slot..end)?;
        let own = &mut self.vms[vm];
        let is_moved = how == 7;
        if is_moved {
            own.ram.replace_leaves(table);
        }
        for slot in slot..end {
            if let Some(page) = own.maps[table][slot].take() {
                own.old.push((table, slot, page));
                own.ram.map(table, slot, None);
            }
        }
        // As Linux: each page, a range, or the whole ASID; a while later all at once.
        let asid = (table as u64 + 1) << 48;
        let va = |slot: usize| VA + slot as u64 * PAGE_SIZE;
        let count = (end - slot) as u64;
        let has_ranges = self.smmu.features().has_range_invalidation;
        let mut commands = self.beside();
        match how {
            0 => commands.push([0x11 | asid, 0]),
            1 => commands.push([0x10, 0]),
            2..5 if has_ranges && count > 1 => {
                commands.push([0x12 | (count - 1) << 12 | asid, va(slot) + (1 << 10 | 1)]);
            }
            _ => commands.extend((slot..end).map(|slot| [0x12 | asid, va(slot) + 1])),
        }
        if is_moved {
            // Of what is above the last level one address is enough.
            let other = self.random(SLOTS);
            commands.push([0x12 | asid, va(other)]);
        }
        self.send(vm, &commands)?;
        if is_moved { self.look(vm, 0..SLOTS) } else { self.look(vm, slot..end) }
    }

    /// Both devices of a VM use these slots.
    fn look(&mut self, vm: usize, slots: Range<usize>) -> Result<(), String> {
        (0..VIRTUAL.len()).try_for_each(|which| slots.clone().try_for_each(|slot| self.device(vm, which, slot)))
    }

    /// Commands that others of the guest's CPUs have put there before: now and then more ASIDs, or more pages here and
    /// there, than are told apart.
    fn beside(&mut self) -> Vec<[u64; 2]> {
        let kind = self.random(8);
        let count = if kind < 2 { self.random(48) } else { 0 };
        let one = |world: &mut Self| {
            let (asid, page) = (3 + world.random(16) as u64, 2 * world.random(1 << 20) as u64);
            match kind {
                0 => [0x11 | asid << 48, 0],
                _ => [0x12 | asid << 48, VA + page * PAGE_SIZE + (asid & 1)],
            }
        };
        (0..count).map(|_| one(self)).collect()
    }

    fn device(&mut self, vm: usize, which: usize, slot: usize) -> Result<(), String> {
        let stream = physical(vm, VIRTUAL[which]);
        let va = Iova::new(VA + slot as u64 * PAGE_SIZE);
        let outcome = self.model.dma(stream, va, DmaAccess::Write);
        let own = &self.vms[vm];
        let page = own.contexts[which].and_then(|context| own.maps[own.tables[context]][slot]);
        let expected = page.map(|page| Outcome::Translated(PhysAddr::new(own.first.as_u64() + page * PAGE_SIZE)));
        let is_right = expected.map_or(outcome.is_contained(), |expected| outcome == expected);
        self.smmu.poll_events(64, |_, _| {});
        // A budget's worth of faults is left to every stream.
        self.model.sleep(100_000);
        if is_right { Ok(()) } else { Err(format!("vm {vm}, {stream}, slot {slot}: {outcome:?}, not {expected:?}")) }
    }
}
