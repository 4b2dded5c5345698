//! A device's fault: one line that names VM, device, stream, address, access and reason.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bulkhead_core::{
    addr::{Iova, Ipa},
    ids::{PciFunction, SmmuId, StreamId, StreamKey},
    vplat,
};
use bulkhead_smmu::{EVENT_WORDS, Event};
use bulkhead_vdev::virtio_iommu::Fault;
use log::{error, warn};

use crate::{lines, lock::Mutex, percpu::PerCpu, smmu, time, viommu, vm, vm::Vm, vsmmu};

/// Events read at a time, with the SMMU's lock held.
const EVENTS_AT_A_TIME: u32 = 64;
/// Times that one interrupt does so: four full queues.
const ROUNDS_MAX: usize = 128;

/// The event queue's interrupt of one SMMU.
pub fn event_interrupt(id: SmmuId) {
    // The SMMU raises its interrupt when an empty queue gets an event (IHI 0070 3.18.2): what is left behind would not
    // be told of again.
    for _ in 0..ROUNDS_MAX {
        if !poll(id) {
            return;
        }
    }
    IS_LEFT.store(true, Relaxed);
    time::arm_ms(1);
}

/// Whether an SMMU has events that were left behind.
static IS_LEFT: AtomicBool = AtomicBool::new(false);

/// EL2's timer: goes on with what was left behind.
pub fn tick() {
    if IS_LEFT.swap(false, Relaxed) {
        look();
    }
}

/// Looks at every SMMU's queue, whoever raised an interrupt.
pub fn look() {
    (0..).take(smmu::SMMUS_MAX).map(SmmuId).for_each(event_interrupt);
}

/// Handles what is in the queue. Whether there is more.
fn poll(id: SmmuId) -> bool {
    // Told of once the driver is let go: no VM's flush waits for the console.
    let mut ours = heapless::Vec::<([u64; EVENT_WORDS], bool), { EVENTS_AT_A_TIME as usize }>::new();
    let polled = smmu::with(id, |driver| {
        driver.poll_events(EVENTS_AT_A_TIME, |event, owner| {
            if !hand_over(id, event) {
                // As many as are read.
                let _ = ours.push((event.raw, owner.is_some()));
            }
        })
    });
    for (raw, has_owner) in &ours {
        report(id, &Event::decode(*raw), *has_owner);
    }
    let Some(polled) = polled else { return false };
    if polled.has_overflowed && lines::may_show(None, "none") {
        warn!("smmu {}: the event queue overflowed, faults were lost", id.0);
    }
    for stream in &polled.silenced {
        // Once or twice in the life of its VM.
        warn!("smmu {} stream {stream}: a flood of faults, the SMMU records no more of them", id.0);
    }
    if let Some(problem) = polled.error {
        error!("smmu {}: {problem}", id.0);
    }
    polled.has_more
}

/// What a guest is told of an event.
pub enum Told {
    /// A record for the event queue of its SMMU.
    Record([u64; 4]),
    /// A fault for its virtio IOMMU.
    Fault(Fault),
}

/// Events of one VM that can wait for it to be told: as many as the queue of its SMMU holds. Further ones are lost, counted,
/// and an overflow to the guest.
const WAITING: usize = 128;

/// What one VM is to be told.
#[derive(Default)]
pub struct Waiting {
    events: heapless::Deque<Told, WAITING>,
    has_lost: bool,
    /// Events that found no room.
    pub lost: u64,
}

/// Leaves an event that a guest is to see to a CPU of its own: a lock that a VM's vCPUs keep busy is waited for by that
/// VM. False for an event that is ours alone, or for both.
fn hand_over(smmu: SmmuId, event: &Event) -> bool {
    let Some((vm, place)) = vm::of_stream(StreamKey { smmu, stream: event.stream }) else { return false };
    let stream = vplat::virtual_stream(place);
    let told = if vm.vsmmu.is_some() {
        event.for_guest(StreamId(stream)).map(Told::Record)
    } else {
        let is_write = event.access.is_some_and(|access| access.is_write);
        let address = event.iova.map(|iova| iova.as_u64());
        vm.viommu.is_some().then_some(Told::Fault(Fault { endpoint: stream, address, is_write }))
    };
    let Some(told) = told else { return false };
    let is_its_own = matches!(told, Told::Record(_)) && event.stage != Some(2);
    let mut waiting = vm.waiting.lock();
    let was_empty = waiting.events.is_empty();
    if waiting.events.push_back(told).is_err() {
        (waiting.has_lost, waiting.lost) = (true, waiting.lost.wrapping_add(1));
    }
    drop(waiting);
    if was_empty && let Some(home) = vm.cpus().next() {
        home.kick();
    }
    is_its_own
}

/// Tells the VM of this CPU what waits for it.
#[inline(never)]
pub fn tell(cpu: &'static PerCpu, vm: &'static Vm) {
    for _ in 0..WAITING {
        let mut waiting = vm.waiting.lock();
        let (told, has_lost) = (waiting.events.pop_front(), core::mem::take(&mut waiting.has_lost));
        drop(waiting);
        if has_lost && let Some(vsmmu) = &vm.vsmmu {
            vsmmu.lock().lose();
        }
        match (told, &vm.vsmmu, &vm.viommu) {
            (None, ..) => return,
            (Some(Told::Record(record)), Some(vsmmu), _) => vsmmu::deliver(vsmmu, cpu, vm, record),
            (Some(Told::Fault(fault)), _, Some(viommu)) => viommu::gate::deliver(viommu, cpu, vm, &fault),
            _ => (),
        }
    }
    cpu.kick();
}

/// The global error interrupt of one SMMU.
pub fn global_error_interrupt(id: SmmuId) {
    if let Some(Some(report)) = smmu::with(id, |driver| driver.handle_gerror()) {
        error!("smmu {}: global error: {report}", id.0);
    }
}

/// Reads what is left in the queues, for a fault whose interrupt is still under way.
pub fn drain(id: SmmuId) {
    event_interrupt(id);
    global_error_interrupt(id);
}

/// The last line, so that a burst of faults in one page is one line.
static LAST: Mutex<Last> = Mutex::new(Last { key: None, line_us: 0, repeats: 0 });

/// How long after a line the same fault is part of it, in microseconds.
const REPEAT_US: u64 = 100_000;

/// What makes two faults the same for a reader: stream, page, kind of access, reason.
type Key = (StreamKey, u64, bool, u8);

struct Last {
    key: Option<Key>,
    line_us: u64,
    repeats: u64,
}

fn report(smmu: SmmuId, event: &Event, has_owner: bool) {
    let page = event.iova.map_or(0, |iova| iova.as_u64() >> 12);
    let is_write = event.access.is_some_and(|access| access.is_write);
    let key = (StreamKey { smmu, stream: event.stream }, page, is_write, event.reason.number());
    let found = vm::of_stream(key.0);
    let name = found.map_or(if has_owner { "?" } else { "none" }, |(vm, _)| vm.name());
    let mut last = LAST.lock();
    let now_us = time::now_us();
    if last.key == Some(key) && now_us - last.line_us < REPEAT_US {
        last.repeats += 1;
        return;
    }
    let repeats = core::mem::take(&mut last.repeats);
    (last.key, last.line_us) = (Some(key), now_us);
    drop(last);
    let vm = found.map(|(vm, _)| vm);
    let owner = vm.map(|vm| vm.id);
    if !lines::may_show(owner, name) {
        return;
    }
    if repeats != 0 && lines::may_show(owner, name) {
        warn!("the fault before came {repeats} times more in its page");
    }
    let function = found.and_then(|(vm, place)| Some(vm.devices().nth(place)?.function));
    let iova = Address(event.iova.map(|iova| iova.as_u64()));
    let access = match event.access {
        Some(access) if access.is_fetch => "fetch",
        Some(access) if access.is_write => "write",
        Some(_) => "read",
        None => "access",
    };
    let is_in_no_domain = event.iova.is_none() && vm.is_some_and(|vm| vm.viommu.is_some());
    let meaning = if is_in_no_domain { "the guest has it in no domain" } else { event.reason.meaning() };
    let reason = event.reason.name();
    // Where the guest has a stage 1, the IOVA is its own; our stage 2 was asked for what came out of it.
    let is_nested = vm.is_some_and(|vm| vm.vsmmu.is_some());
    let ipa = Output(event.ipa.filter(|_| is_nested));
    let place = Where(if is_nested { event.ipa.map(|ipa| Iova::new(ipa.as_u64())) } else { event.iova }, vm);
    let (smmu, stream, device) = (smmu.0, event.stream, Device(function));
    warn!(
        "fault vm={name} device={device} smmu={smmu} stream={stream} iova={iova}{ipa} {access} reason={reason}: {meaning}{place}"
    );
}

/// Where an address lies from what the VM's devices reach.
struct Where(Option<Iova>, Option<&'static Vm>);

impl core::fmt::Display for Where {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (Some(iova), Some(vm)) = (self.0, self.1) else { return Ok(()) };
        if vm.viommu.is_some() {
            return f.write_str(", by its virtio IOMMU");
        }
        vm.dma.describe(iova, f)
    }
}

/// What a guest's stage 1 made of the address.
struct Output(Option<Ipa>);

impl core::fmt::Display for Output {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |ipa| write!(f, " ipa={:#x}", ipa.as_u64()))
    }
}

struct Device(Option<PciFunction>);

impl core::fmt::Display for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(function) => function.fmt(f),
            None => f.write_str("unassigned"),
        }
    }
}

struct Address(Option<u64>);

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{address:#x}"),
            None => f.write_str("-"),
        }
    }
}
