//! A VM's virtual SMMU: the guest's registers and commands to what the physical SMMUs do, their events to the guest.

mod report;
mod streams;

use bulkhead_core::{
    bundle::NestedFlush,
    vplat::{VSMMU_EVENTQ_INTID, VSMMU_GERROR_INTID, VSMMU_SYNC_INTID},
};
use bulkhead_dma::flush::{Costs, Kind, Stage1Batch, Stage1Counters, Stage1Mode, Stage1Policy};
use bulkhead_vdev::{
    mmio::Width,
    vsmmu::{Ability, Interrupts, Next, Vsmmu},
};

pub use self::report::report;
use self::streams::Streams;
use crate::{guest_view::GuestView, lock::Mutex, percpu::PerCpu, virtual_gic, vm::Vm};

/// The virtual SMMU of one VM.
pub struct VirtualSmmu {
    device: Vsmmu,
    /// The guest's invalidations since its last CMD_SYNC.
    batch: Stage1Batch,
    /// What they become.
    policy: Stage1Policy,
    /// The guest's CMD_SYNCs.
    syncs: u64,
}

impl VirtualSmmu {
    /// A virtual SMMU in its reset state.
    pub fn new(flush: NestedFlush, ability: Ability) -> Self {
        let mode = match flush {
            NestedFlush::Auto => Stage1Mode::Auto,
            NestedFlush::Page => Stage1Mode::Fixed(Kind::Page),
            NestedFlush::Range => Stage1Mode::Fixed(Kind::Range),
            NestedFlush::Context => Stage1Mode::Fixed(Kind::Context),
            NestedFlush::Each => Stage1Mode::Each,
        };
        let policy = Stage1Policy::new(mode, ability.has_range_invalidation, Costs::START);
        Self { device: Vsmmu::new(ability), batch: Stage1Batch::new(), policy, syncs: 0 }
    }

    /// What was gathered and sent.
    pub const fn counters(&self) -> Stage1Counters {
        self.policy.counters()
    }

    /// CMD_SYNCs of the guest.
    pub const fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Back to the reset state. The streams are in stage 2 alone, or detached: what was gathered is forgotten with them.
    pub fn reset(&mut self) {
        self.device.reset();
        self.batch = Stage1Batch::new();
        self.policy.reset();
    }

    /// Events for the guest were lost.
    pub fn lose(&mut self) {
        self.device.lose();
    }

    /// The guest reads a register.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        self.device.read(offset, width)
    }
}

/// The guest writes a register. False when there is more to do: the write is to be repeated.
pub fn write(
    vsmmu: &Mutex<VirtualSmmu>,
    cpu: &'static PerCpu,
    vm: &'static Vm,
    (offset, width, value): (u64, Width, u64),
) -> bool {
    let Some(mut memory) = GuestView::new(cpu, vm) else { return false };
    let mut locked = vsmmu.lock();
    let VirtualSmmu { device, batch, policy, syncs } = &mut *locked;
    let next = device.write(offset, width, value, &mut memory, &mut Streams { vm, batch, policy, syncs });
    let raised = device.take_interrupts();
    drop(locked);
    drop(memory);
    if !raised.is_empty() {
        raise(vm, raised);
    }
    next == Next::Done
}

/// Edges of the virtual SMMU's interrupts.
fn raise(vm: &Vm, raised: Interrupts) {
    let lines = [
        (Interrupts::EVENTQ, VSMMU_EVENTQ_INTID),
        (Interrupts::CMD_SYNC, VSMMU_SYNC_INTID),
        (Interrupts::GERROR, VSMMU_GERROR_INTID),
    ];
    for (_, line) in lines.iter().filter(|(which, _)| raised.contains(*which)) {
        virtual_gic::pulse(vm, *line);
    }
}

/// Writes a record into the guest's event queue.
pub fn deliver(vsmmu: &Mutex<VirtualSmmu>, cpu: &'static PerCpu, vm: &'static Vm, record: [u64; 4]) {
    let Some(mut memory) = GuestView::new(cpu, vm) else { return };
    let mut locked = vsmmu.lock();
    locked.device.record(record, &mut memory);
    let raised = locked.device.take_interrupts();
    drop(locked);
    drop(memory);
    raise(vm, raised);
}
