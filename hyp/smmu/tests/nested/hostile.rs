//! A guest that does as it likes with its SMMU, and what has to hold whatever it does.

use bulkhead_core::{
    addr::{Iova, PhysAddr},
    ids::StreamId,
};
use bulkhead_smmu::{
    StreamState,
    model::{DmaAccess, Outcome},
};
use bulkhead_vdev::mmio::Width;

use crate::{
    guest::{CMDQ, PAGES, RAM, SLOTS, VA},
    reference,
    streams::{VIRTUAL, physical},
    world::World,
};

/// Which VM it is; the other one behaves.
pub const HOSTILE: usize = 0;

/// How a guest has everything forgotten: configuration, then translations.
#[derive(Clone, Copy, Debug)]
pub struct Forget(pub u8, pub u8);

impl Forget {
    fn commands(self) -> Vec<[u64; 2]> {
        let mut commands = match self.0 % 4 {
            0 => vec![[0x04, 31]],
            // 32 streams from 0 on.
            1 => vec![[0x04, 4]],
            // The first of each table's 2, whatever the bits below it are.
            2 => VIRTUAL.map(|stream| [0x04 | u64::from(stream | 1) << 32, 0]).to_vec(),
            _ => VIRTUAL.map(|stream| [0x03 | u64::from(stream) << 32, u64::from(self.0 >> 7)]).to_vec(),
        };
        commands.push(match self.1 % 4 {
            0 => [0x10, 0],
            1 => [0x30, 0],
            // VMIDs are not looked at.
            2 => [0x10 | 0xffff << 32, 0],
            // By address, of any ASID: every address, and what is above the last level.
            _ => [0x13 | 31 << 12 | 31 << 20, 1 << 10 | 1 << 8],
        });
        commands.push([0x46, 0]);
        commands
    }
}

impl World {
    /// A store to a register by the hostile guest.
    pub fn hostile_write(&mut self, offset: u64, width: Width, value: u64) {
        self.write(HOSTILE, offset, width, value);
    }

    fn register(&self, offset: u64) -> u64 {
        self.vms[HOSTILE].device.read(offset, Width::Word)
    }

    /// Where the next command goes; `None` where that is no RAM.
    fn next_slot(&self) -> Option<u64> {
        let register = self.vms[HOSTILE].device.read(0x90, Width::Double);
        let entries = 1 << (register & 0x1f).min(8);
        let base = register & 0x00ff_ffff_ffff_ffe0 & !(entries * 16 - 1);
        let at = base + self.register(0x98) % entries * 16;
        self.vms[HOSTILE].ram.load(at + 8).map(|_| at)
    }

    /// Puts a command where the producer is, and moves it on, if `is_told`.
    pub fn hostile_command(&mut self, [low, high]: [u64; 2], is_told: bool) {
        let Some(at) = self.next_slot() else { return };
        let ram = &self.vms[HOSTILE].ram;
        ram.store(at, low);
        ram.store(at + 8, high);
        if is_told {
            self.write(HOSTILE, 0x98, Width::Word, self.register(0x98) + 1);
        }
    }

    /// A transaction of a device of the hostile VM.
    pub fn hostile_dma(&mut self, which: usize, va: u64, access: DmaAccess) -> Outcome {
        let outcome = self.model.dma(physical(HOSTILE, VIRTUAL[which]), Iova::new(va), access);
        let Self { smmu, events, .. } = self;
        smmu.poll_events(64, |event, _| events.extend(event.for_guest(StreamId(VIRTUAL[which]))));
        // A budget's worth of faults is left to every stream.
        self.model.sleep(100_000);
        outcome
    }

    /// Events go to the hostile guest's own queue, wherever that is.
    pub fn hand_events(&mut self) {
        let own = &mut self.vms[HOSTILE];
        for event in self.events.drain(..) {
            own.device.record(event, &mut own.ram);
        }
        own.ram.release();
    }

    /// The hostile guest has everything forgotten and waits for its CMD_SYNC. Where its queue stands still it sets it up
    /// again; translation stays as on or off as it was.
    ///
    /// From then on its devices reach what its registers and its memory say.
    pub fn settle(&mut self, how: Forget) -> Result<(), String> {
        let is_running = self.register(0x24) & 8 != 0 && (self.register(0x60) ^ self.register(0x64)) & 1 == 0;
        if !is_running || self.register(0x98) != self.register(0x9c) & 0xf_ffff || self.next_slot().is_none() {
            let on = self.register(0x20);
            self.write(HOSTILE, 0x20, Width::Word, on & !8);
            self.write(HOSTILE, 0x64, Width::Word, self.register(0x60));
            self.write(HOSTILE, 0x90, Width::Double, CMDQ | 8);
            self.write(HOSTILE, 0x98, Width::Word, 0);
            self.write(HOSTILE, 0x9c, Width::Word, 0);
            self.write(HOSTILE, 0x20, Width::Word, on | 8);
        }
        for which in 0..VIRTUAL.len() {
            // Before each of them: two tables of one ASID may share what is cached (3.17).
            for command in how.commands() {
                self.hostile_command(command, true);
            }
            if self.register(0x98) != self.register(0x9c) {
                return Err(format!("{how:?}: the queue stands still"));
            }
            let slots = (0..SLOTS as u64).step_by(5).map(|slot| VA + slot * 4096);
            let pages = (0..PAGES).step_by(7).map(|page| RAM + page * 4096);
            for va in slots.chain(pages).chain([0, RAM + PAGES * 4096, 0x20_0000]) {
                for access in [DmaAccess::Write, DmaAccess::Read] {
                    self.check_hostile(which, va | 0x18, access)?;
                }
            }
        }
        self.hand_events();
        Ok(())
    }

    fn check_hostile(&mut self, which: usize, va: u64, access: DmaAccess) -> Result<(), String> {
        let (own, stream) = (&self.vms[HOSTILE], VIRTUAL[which]);
        let expected = reference::reached(&own.device, &own.ram, stream, va, access);
        let expected = expected.map(|ipa| Outcome::Translated(PhysAddr::new(own.first.as_u64() + ipa - RAM)));
        let outcome = self.hostile_dma(which, va, access);
        if expected.map_or(outcome.is_contained(), |expected| outcome == expected) {
            Ok(())
        } else {
            Err(format!("stream {stream}, {va:#x}: {outcome:x?}, not {expected:x?}"))
        }
    }

    /// The hardware was told nothing that it refused, every stream does what it is to do, and the other VM saw nothing.
    pub fn check_all(&mut self) -> Result<(), String> {
        let commands = self.smmu.counters().commands;
        if (commands.refused, commands.timeouts) != (0, 0) {
            return Err(format!("the physical queue: {commands:?}"));
        }
        if let Some(stream) = self.smmu.streams().find(|stream| stream.state != StreamState::Attached) {
            return Err(format!("{stream:?}"));
        }
        self.check_others(1 - HOSTILE)?;
        self.check()
    }
}
