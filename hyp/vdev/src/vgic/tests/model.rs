//! The virtual GIC against a naive one: one struct an interrupt, no list registers, no bitmaps.

use std::{collections::BTreeMap, vec, vec::Vec};

use super::machine::{LINKED, Machine};
use crate::{
    mmio::Width,
    vgic::{Effects, Entry},
};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

const VCPUS: usize = 3;
/// Few, so that they meet: an SGI, PPIs (27 is linked), a line, edges, linked SPIs (36, 37).
const INTIDS: [u32; 9] = [1, 20, 27, 33, 34, 35, 36, 37, 40];
const LEVEL: u32 = 33;

#[derive(Clone, Default, Debug)]
struct Irq {
    is_disabled: bool,
    latch: bool,
    level: bool,
    active: Option<usize>,
    /// A physical interrupt was taken for it, and nothing has ended it since.
    hw_since: bool,
    target: usize,
    priority: u8,
}

impl Irq {
    fn pending(&self) -> bool {
        self.latch || self.level
    }

    fn is_deliverable(&self) -> bool {
        self.pending() && !self.is_disabled && self.active.is_none()
    }
}

type Key = (usize, u32);

/// Where a key's interrupt is: (vCPU or 0, INTID).
struct Model {
    irqs: BTreeMap<Key, Irq>,
    /// By vCPU, what it has acknowledged, in order.
    stacks: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Inject(usize, u32),
    Level(bool),
    Acknowledge(usize),
    End(usize, usize),
    Exit(usize),
    Enable(usize, usize, u32, bool),
    Pend(usize, usize, u32, bool),
    ClearActive(usize, usize),
    Route(usize, u32, usize),
    Priority(usize, usize, u32, u8),
    Quiesce,
}

fn op() -> impl Strategy<Value = Op> {
    let vcpu = 0..VCPUS;
    let intid = (0..INTIDS.len()).prop_map(|n| INTIDS[n]);
    prop_oneof![
        8 => (vcpu.clone(), intid.clone()).prop_map(|(v, i)| Op::Inject(v, i)),
        2 => any::<bool>().prop_map(Op::Level),
        8 => vcpu.clone().prop_map(Op::Acknowledge),
        6 => (vcpu.clone(), 0..4usize).prop_map(|(v, n)| Op::End(v, n)),
        2 => vcpu.clone().prop_map(Op::Exit),
        3 => (vcpu.clone(), vcpu.clone(), intid.clone(), any::<bool>()).prop_map(|(v, t, i, b)| Op::Enable(v, t, i, b)),
        3 => (vcpu.clone(), vcpu.clone(), intid.clone(), any::<bool>()).prop_map(|(v, t, i, b)| Op::Pend(v, t, i, b)),
        1 => (vcpu.clone(), 0..4usize).prop_map(|(v, n)| Op::ClearActive(v, n)),
        2 => (vcpu.clone(), intid.clone(), 0..VCPUS).prop_map(|(v, i, t)| Op::Route(v, i, t)),
        1 => (vcpu.clone(), vcpu, intid, 0..32u8).prop_map(|(v, t, i, p)| Op::Priority(v, t, i, p * 8)),
        3 => Just(Op::Quiesce),
    ]
}

fn is_linked(intid: u32) -> bool {
    LINKED.contains(&intid)
}

struct Run {
    machine: Machine,
    model: Model,
    /// EOImode 1: a guest ends what it likes, in any order; else by nesting.
    is_dir: bool,
    /// Every kick is served at once, so that the two agree exactly.
    is_prompt: bool,
}

impl Run {
    fn new(lrs: u8, is_dir: bool, is_prompt: bool) -> Self {
        let mut irqs = BTreeMap::new();
        for intid in INTIDS {
            for vcpu in 0..if intid < 32 { VCPUS } else { 1 } {
                irqs.insert((vcpu, intid), Irq { target: vcpu, ..Irq::default() });
            }
        }
        let mut machine = Machine::new(VCPUS, lrs);
        // All SPIs but the line are edges.
        let _ = machine.vgic.dist_write(0, 0xc08, Width::Word, 0xaaaa_aaaa & !(3 << 2));
        let _ = machine.vgic.dist_write(0, 0xc0c, Width::Word, 0xaaaa_aaaa);
        Self { machine, model: Model { irqs, stacks: vec![Vec::new(); VCPUS] }, is_dir, is_prompt }
    }

    fn irq(&mut self, key: Key) -> &mut Irq {
        self.model.irqs.get_mut(&key).expect("known")
    }

    /// A write of `bit` of the set or clear register at `offset`, by `vcpu`; what it changes is seen everywhere at once.
    fn write_bit(&mut self, vcpu: usize, key: Key, offset: u64) {
        let (target, intid) = key;
        self.machine.quiesce();
        self.machine.exit(vcpu, |vgic| {
            let effects = if intid < 32 {
                vgic.redist_write(vcpu, target, 0x1_0000 + offset, Width::Word, 1 << intid)
            } else {
                vgic.dist_write(vcpu, offset + 4, Width::Word, 1 << (intid - 32))
            };
            ((), effects)
        });
        self.machine.quiesce();
    }

    fn settle(&mut self, key: Key) {
        let irq = self.irq(key);
        if !irq.pending() && irq.active.is_none() {
            irq.hw_since = false;
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Inject(vcpu, intid) => {
                let key = Machine::key(vcpu, intid);
                if intid == LEVEL || (is_linked(intid) && self.machine.physical.contains(&key)) {
                    return;
                }
                self.irq(key).latch = true;
                if is_linked(intid) {
                    self.machine.physical.push(key);
                    self.irq(key).hw_since = true;
                }
                // A PPI comes to its own CPU, which leaves the guest for it; an SPI may come to any.
                if intid < 32 {
                    self.machine.exit(vcpu, |vgic| ((), kick(vgic.inject(vcpu, intid))));
                } else {
                    let mask = self.machine.vgic.inject_spi(intid);
                    self.machine.kicked |= mask;
                }
            }
            Op::Level(is_high) => {
                self.irq((0, LEVEL)).level = is_high;
                let mask = self.machine.vgic.set_level(LEVEL, is_high);
                self.machine.kicked |= mask;
                // A fall is not kicked for; here all look, so that none is taken after it.
                if !is_high {
                    (0..VCPUS).for_each(|vcpu| self.machine.bare_exit(vcpu));
                }
            }
            Op::Acknowledge(vcpu) => self.acknowledge(vcpu),
            Op::End(vcpu, n) => self.end(vcpu, n),
            Op::Exit(vcpu) => self.machine.bare_exit(vcpu),
            Op::Enable(vcpu, target, intid, is_on) => {
                let key = Machine::key(target, intid);
                self.write_bit(vcpu, key, if is_on { 0x100 } else { 0x180 });
                self.irq(key).is_disabled = !is_on;
            }
            Op::Pend(vcpu, target, intid, is_set) => {
                let key = Machine::key(target, intid);
                if is_set && (intid == LEVEL || is_linked(intid)) && !self.is_prompt {
                    return;
                }
                self.write_bit(vcpu, key, if is_set { 0x200 } else { 0x280 });
                self.irq(key).latch = is_set;
                self.settle(key);
            }
            Op::ClearActive(vcpu, n) => {
                let Some((owner, intid)) = self.pick_active(vcpu, n) else { return };
                let key = Machine::key(owner, intid);
                if !self.is_dir {
                    return;
                }
                self.model.stacks[owner].retain(|&other| other != intid);
                self.write_bit(vcpu, key, 0x380);
                self.irq(key).active = None;
                self.settle(key);
            }
            Op::Route(vcpu, intid, target) => {
                if intid < 32 {
                    return;
                }
                self.machine.quiesce();
                let offset = 0x6000 + 8 * u64::from(intid);
                self.machine.exit(vcpu, |vgic| ((), vgic.dist_write(vcpu, offset, Width::Double, target as u64)));
                self.machine.quiesce();
                self.irq((0, intid)).target = target;
            }
            Op::Priority(vcpu, target, intid, priority) => {
                let key = Machine::key(target, intid);
                if self.irq(key).active.is_some() {
                    return;
                }
                self.machine.quiesce();
                self.machine.exit(vcpu, |vgic| {
                    let effects = if intid < 32 {
                        let offset = 0x1_0400 + u64::from(intid);
                        vgic.redist_write(vcpu, target, offset, Width::Byte, priority.into())
                    } else {
                        vgic.dist_write(vcpu, 0x400 + u64::from(intid), Width::Byte, priority.into())
                    };
                    ((), effects)
                });
                // What is in a list register keeps its old priority until it leaves it.
                (0..VCPUS).for_each(|vcpu| self.machine.bare_exit(vcpu));
                self.machine.quiesce();
                self.irq(key).priority = priority;
            }
            Op::Quiesce => self.machine.quiesce(),
        }
        if self.is_prompt {
            self.machine.quiesce();
        }
    }

    fn acknowledge(&mut self, vcpu: usize) {
        let Some(entry) = self.machine.next(vcpu) else { return };
        if !self.is_dir
            && let Some(&running) = self.model.stacks[vcpu].last()
            && self.irq(Machine::key(vcpu, running)).priority <= entry.priority
        {
            return;
        }
        let intid = entry.intid;
        self.machine.acknowledge(vcpu, intid);
        self.model.stacks[vcpu].push(intid);
        let is_prompt = self.is_prompt;
        let irq = self.irq(Machine::key(vcpu, intid));
        assert!(irq.active.is_none(), "{intid} taken while active: {irq:?}");
        assert!(!is_prompt || irq.is_deliverable(), "{intid} taken, but {irq:?}");
        assert!(!is_prompt || irq.target == vcpu, "{intid} taken by {vcpu}, but {irq:?}");
        irq.latch = false;
        irq.active = Some(vcpu);
    }

    fn pick_active(&self, vcpu: usize, n: usize) -> Option<(usize, u32)> {
        let stack = &self.model.stacks[vcpu];
        if self.is_dir { stack.get(n).map(|&intid| (vcpu, intid)) } else { stack.last().map(|&intid| (vcpu, intid)) }
    }

    fn end(&mut self, vcpu: usize, n: usize) {
        let Some((_, intid)) = self.pick_active(vcpu, n) else { return };
        self.machine.end(vcpu, intid, self.is_dir);
        self.model.stacks[vcpu].retain(|&other| other != intid);
        let irq = self.irq(Machine::key(vcpu, intid));
        irq.active = None;
        irq.hw_since = false;
    }

    /// At rest: what guests read, what the list registers hold and what is active in hardware agree with the model.
    fn check(&mut self) {
        self.machine.quiesce();
        for (&(vcpu, intid), irq) in &self.model.irqs.clone() {
            let (target, shift, add) = if intid < 32 { (Some(vcpu), intid, 0) } else { (None, intid - 32, 4) };
            let active = self.machine.read(target, 0x300 + add) >> shift & 1 == 1;
            let pending = self.machine.read(target, 0x200 + add) >> shift & 1 == 1;
            self.machine.quiesce();
            assert_eq!(active, irq.active.is_some(), "active state of {intid} on {vcpu}: {irq:?}");
            // Delayed, two edges may be told apart that hardware would merge; none may be lost.
            assert!(pending || !irq.pending(), "{intid} on {vcpu} was lost: {irq:?}");
            assert!(!self.is_prompt || pending == irq.pending(), "{intid} on {vcpu} came from nowhere: {irq:?}");
            let is_physical = self.machine.physical.contains(&(vcpu, intid));
            assert!(is_physical || !irq.hw_since, "the twin of {intid} was deactivated early: {irq:?}");
            assert!(pending || active || !is_physical, "the twin of {intid} stays active for ever: {irq:?}");
        }
        self.check_list_registers();
    }

    fn check_list_registers(&self) {
        let mut seen = Vec::new();
        for (vcpu, core) in self.machine.cores.iter().enumerate() {
            let valid = core.lrs.lr.iter().map(|&raw| Entry::from_raw(raw)).filter(|e| e.pending || e.active);
            for entry in valid {
                let key = Machine::key(vcpu, entry.intid);
                assert!(!seen.contains(&key), "{} is in two list registers", entry.intid);
                assert!(!(entry.physical.is_some() && entry.pending && entry.active));
                seen.push(key);
            }
            let waiting = self.model.irqs.iter().filter(|((own, intid), irq)| {
                let is_mine = if *intid < 32 { *own == vcpu } else { irq.target == vcpu };
                is_mine && irq.is_deliverable()
            });
            if let Some(most_urgent) = waiting.map(|(_, irq)| irq.priority).min() {
                let next = self.machine.next(vcpu).expect("something waits, so something is offered");
                assert!(next.priority <= most_urgent, "{next:?} is offered to {vcpu} before {most_urgent}");
            }
        }
    }

    /// Enables everything and lets the guests take and end all there is.
    fn drain(&mut self) {
        self.step(Op::Level(false));
        for key in self.model.irqs.keys().copied().collect::<Vec<_>>() {
            self.step(Op::Enable(0, key.0, key.1, true));
        }
        for _ in 0..200 {
            for vcpu in 0..VCPUS {
                while !self.model.stacks[vcpu].is_empty() {
                    self.end(vcpu, 0);
                }
                self.machine.quiesce();
                self.acknowledge(vcpu);
                self.machine.quiesce();
            }
        }
        self.check();
        for (key, irq) in &self.model.irqs {
            assert!(!irq.pending() && irq.active.is_none(), "{key:?} is never done: {irq:?}");
        }
        assert!(self.machine.physical.is_empty(), "{:?} stay active for ever", self.machine.physical);
    }
}

fn kick(kick: u8) -> Effects {
    Effects { kick, ..Effects::default() }
}

fn run(lrs: u8, is_dir: bool, is_prompt: bool, ops: &[Op]) {
    let mut run = Run::new(lrs, is_dir, is_prompt);
    for &op in ops {
        run.step(op);
        if is_prompt {
            run.check();
        }
    }
    run.check();
    run.drain();
}

proptest! {
    /// Every kick served at once: agreement is exact after every step.
    #[test]
    fn agrees_with_the_naive_gic(
        lrs in 1..5u8, is_dir in any::<bool>(), ops in proptest::collection::vec(op(), 1..60)
    ) {
        run(lrs, is_dir, true, &ops);
    }

    /// Kicks delayed, so that guests take and end interrupts that others change meanwhile: none is lost.
    #[test]
    fn loses_nothing_while_kicks_are_under_way(
        lrs in 1..5u8, is_dir in any::<bool>(), ops in proptest::collection::vec(op(), 1..80)
    ) {
        run(lrs, is_dir, false, &ops);
    }
}
