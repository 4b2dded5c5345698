//! A machine of several CPUs with list registers, as IHI 0069 describes them, whose guests run on the virtual GIC.

use std::vec::Vec;

use crate::{
    mmio::Width,
    vgic::{Deactivation, Effects, Entry, ListRegisters, Read, Vgic, hcr},
};

/// A CPU: what hardware knows.
pub(super) struct Core {
    pub(super) lrs: ListRegisters,
    pub(super) hcr: u64,
    eoi_count: u8,
}

/// CPUs, the virtual GIC, and the physical interrupts' active states.
pub(super) struct Machine {
    pub(super) vgic: Vgic,
    pub(super) cores: Vec<Core>,
    /// vCPUs that have been kicked and have not left the guest yet.
    pub(super) kicked: u8,
    /// Physical SPIs by virtual INTID; PPIs by vCPU.
    pub(super) physical: Vec<(usize, u32)>,
}

pub(super) const LINKED: [u32; 3] = [27, 36, 37];

impl Machine {
    pub(super) fn new(vcpus: usize, lrs: u8) -> Self {
        let mut vgic = Vgic::new(vcpus);
        for intid in LINKED {
            vgic.link(intid, intid).expect("in range");
        }
        super::registers::enable_all(&mut vgic);
        let core = |_| Core { lrs: ListRegisters::new(lrs), hcr: hcr::EN, eoi_count: 0 };
        Self { vgic, cores: (0..vcpus).map(core).collect(), kicked: 0, physical: Vec::new() }
    }

    pub(super) fn key(vcpu: usize, intid: u32) -> (usize, u32) {
        (if intid < 32 { vcpu } else { 0 }, intid)
    }

    pub(super) fn apply(&mut self, effects: Effects) {
        self.kicked |= effects.kick;
        let twins: Vec<Deactivation> = self.vgic.deactivations(effects).collect();
        for twin in twins {
            let key = Self::key(twin.vcpu, twin.physical.into());
            assert!(self.physical.contains(&key), "{twin:?} is not active");
            self.physical.retain(|active| *active != key);
        }
    }

    /// `vcpu` leaves the guest, EL2 does `f`, and it enters again.
    pub(super) fn exit<R>(&mut self, vcpu: usize, f: impl FnOnce(&mut Vgic) -> (R, Effects)) -> R {
        let core = &mut self.cores[vcpu];
        core.lrs.eoi_count = core.eoi_count;
        let lrs = core.lrs;
        let effects = self.vgic.sync(vcpu, &lrs);
        self.apply(effects);
        let (result, effects) = f(&mut self.vgic);
        self.apply(effects);
        if self.vgic.needs_flush(vcpu) {
            let core = &mut self.cores[vcpu];
            let flush = self.vgic.flush(vcpu, &mut core.lrs);
            core.hcr = flush.hcr;
            core.eoi_count = 0;
            assert_eq!(core.lrs.used & !flush.write, 0);
            assert!(core.lrs.used.count_ones() <= core.lrs.count().into());
            self.apply(flush.effects);
        }
        self.kicked &= !(1 << vcpu);
        result
    }

    pub(super) fn bare_exit(&mut self, vcpu: usize) {
        self.exit(vcpu, |_| ((), Effects::default()));
    }

    /// Whether the CPU's maintenance interrupt is raised (IHI 0069 4.6, ICH_MISR_EL2).
    pub(super) fn has_maintenance(&self, vcpu: usize) -> bool {
        let core = &self.cores[vcpu];
        let entries = || core.lrs.lr.iter().map(|&raw| Entry::from_raw(raw));
        let none_pending = entries().all(|entry| !entry.pending || entry.active);
        (core.hcr & hcr::NPIE != 0 && none_pending)
            || (core.hcr & hcr::LRENPIE != 0 && core.eoi_count != 0)
            || entries().any(|entry| !entry.pending && !entry.active && entry.eoi)
    }

    /// All kicks and maintenance interrupts, until there are none. Bounded: a storm is a bug.
    pub(super) fn quiesce(&mut self) {
        for _ in 0..100 {
            let Some(vcpu) = (0..self.cores.len()).find(|&v| self.kicked >> v & 1 == 1 || self.has_maintenance(v))
            else {
                return;
            };
            self.bare_exit(vcpu);
        }
        panic!("maintenance interrupts or kicks without end");
    }

    /// The most urgent pending list register of a CPU.
    pub(super) fn next(&self, vcpu: usize) -> Option<Entry> {
        let entries = self.cores[vcpu].lrs.lr.iter().map(|&raw| Entry::from_raw(raw));
        entries.filter(|entry| entry.pending && !entry.active).min_by_key(|entry| entry.priority)
    }

    /// The guest acknowledges `intid`, which is in a list register.
    pub(super) fn acknowledge(&mut self, vcpu: usize, intid: u32) {
        self.change(vcpu, intid, |entry| Entry { pending: false, active: true, ..entry });
    }

    /// The guest ends `intid`: EOImode 0 by ICC_EOIR1_EL1, else by ICC_DIR_EL1, which may trap.
    pub(super) fn end(&mut self, vcpu: usize, intid: u32, is_dir: bool) {
        if is_dir && self.cores[vcpu].hcr & hcr::TDIR != 0 {
            self.exit(vcpu, |vgic| ((), vgic.deactivate(vcpu, intid)));
            return;
        }
        let is_there = self.cores[vcpu].lrs.lr.iter().map(|&raw| Entry::from_raw(raw));
        let found = is_there.into_iter().find(|entry| entry.intid == intid && entry.active);
        match found {
            None => self.cores[vcpu].eoi_count += 1,
            Some(entry) => {
                if entry.physical.is_some() {
                    let key = Self::key(vcpu, intid);
                    assert!(self.physical.contains(&key), "{intid} ended twice in hardware");
                    self.physical.retain(|active| *active != key);
                }
                self.change(vcpu, intid, |entry| Entry { active: false, ..entry });
            }
        }
    }

    fn change(&mut self, vcpu: usize, intid: u32, f: impl Fn(Entry) -> Entry) {
        for raw in &mut self.cores[vcpu].lrs.lr {
            let entry = Entry::from_raw(*raw);
            if entry.intid == intid && (entry.pending || entry.active) {
                *raw = f(entry).to_raw();
            }
        }
    }

    /// Reads a register of the distributor (`target` none) or of a redistributor, as the guest on vCPU 0 does.
    pub(super) fn read(&mut self, target: Option<usize>, offset: u64) -> u64 {
        for _ in 0..3 {
            let read = self.exit(0, |vgic| {
                let read = match target {
                    None => vgic.dist_read(0, offset, Width::Word),
                    Some(target) => vgic.redist_read(0, target, 0x1_0000 + offset, Width::Word),
                };
                (read, Effects::default())
            });
            match read {
                Read::Value(value) => return value,
                Read::Retry(kick) => {
                    assert_ne!(kick, 0);
                    for vcpu in (0..self.cores.len()).filter(|v| kick >> v & 1 == 1) {
                        self.bare_exit(vcpu);
                    }
                }
            }
        }
        panic!("a read was never answered");
    }
}
