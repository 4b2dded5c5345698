//! A virtual machine: what it owns, and every object that a trap may need, each behind its own lock.
//!
//! `hyp/README.md` has the order of locks. None is held across an eret.

use core::{
    fmt,
    sync::atomic::{
        AtomicU8, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use bulkhead_core::{
    addr::{AddrRange, Ipa, PhysAddr},
    bundle,
    ids::{CpuId, IntId, PciFunction, SmmuId, StreamKey, VmId, Vmid},
    name::Name,
    stage2::S2Config,
    vplat::{self, DEVICES_MAX, VCPUS_MAX, VMS_MAX},
};
use bulkhead_dma::{Flushed, Quarantined, Unflushed};
use bulkhead_vdev::{
    psci::Psci,
    vgic::Vgic,
    vuart::{LineBuffer, Vuart},
};
use log::error;
use spin::Once;

use crate::{
    bridge::Bridge, faults::Waiting, guest_memory::GuestRam, lock::Mutex, percpu, percpu::Task, reach::Reach,
    tables::GuestTables, viommu::VirtualIommu, vsmmu::VirtualSmmu,
};

/// A passed-through function.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// The function.
    pub function: PciFunction,
    /// Its stream.
    pub stream: StreamKey,
    /// The physical interrupt of its pin, if it has one.
    pub interrupt: Option<IntId>,
    /// The virtual pin, 1 to 4, or 0 for none.
    pub virtual_pin: u8,
}

/// Life of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// No vCPU runs, its streams are in abort.
    Stopped = 0,
    /// Memory is being scrubbed and loaded.
    Starting = 1,
    /// At least one vCPU runs.
    Running = 2,
    /// Devices are being taken back.
    Stopping = 3,
    /// A flush timed out: nobody may start it again, and its memory stays its own.
    Quarantined = 4,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Quarantined => "quarantined",
        })
    }
}

/// What a VM is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Request {
    /// Nothing.
    None = 0,
    /// Boot again.
    Reset = 1,
    /// Stop.
    Stop = 2,
}

impl Request {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Reset,
            2 => Self::Stop,
            _ => Self::None,
        }
    }
}

/// Whose a VM's RAM is, of those who could write it.
pub enum Ram {
    /// No device leads there: it may be scrubbed and loaded.
    Free(Flushed<GuestRam>),
    /// The VM and its devices use it, or a CPU prepares it.
    InUse(Option<GuestRam>),
    /// A flush timed out: a device may write it for ever.
    Quarantined(Quarantined<GuestRam>),
}

/// The virtual UART and what it has printed of a line.
pub struct Serial {
    /// The UART.
    pub uart: Vuart,
    /// Output that is not a whole line yet.
    pub line: LineBuffer,
    /// When the last byte came, in ticks.
    pub last_output: u64,
}

/// A virtual machine.
pub struct Vm {
    /// Which one.
    pub id: VmId,
    name: Name,
    cpus: heapless::Vec<CpuId, VCPUS_MAX>,
    /// Its RAM as the guest sees it.
    pub ram: AddrRange<Ipa>,
    /// Where that RAM is.
    pub ram_phys: AddrRange<PhysAddr>,
    ram_state: Mutex<Ram>,
    devices: heapless::Vec<Device, DEVICES_MAX>,
    smmus: heapless::Vec<SmmuId, DEVICES_MAX>,
    /// Its part of the bundle.
    pub image: bundle::Vm,
    /// The CPU's stage 2.
    pub tables: Mutex<GuestTables>,
    vmid: Vmid,
    /// What its devices reach.
    pub dma: Reach,
    /// How SMMUs walk that.
    pub dma_config: S2Config,
    /// The virtual GIC.
    pub vgic: Mutex<Vgic>,
    /// The virtual UART.
    pub serial: Mutex<Serial>,
    /// The virtual PCI bridge.
    pub bridge: Mutex<Bridge>,
    /// The virtual SMMU, if its devices are nested.
    pub vsmmu: Option<Mutex<VirtualSmmu>>,
    /// The virtio IOMMU, if its devices are behind one.
    pub viommu: Option<Mutex<VirtualIommu>>,
    /// What either is to tell the guest.
    pub waiting: Mutex<Waiting>,
    /// Power states of the vCPUs.
    pub psci: Mutex<Psci>,
    /// CNTVOFF_EL2 of its vCPUs.
    pub counter_offset: AtomicU64,
    /// Times that it was booted.
    pub boots: AtomicU64,
    state: AtomicU8,
    request: AtomicU8,
    /// vCPUs that run, or were promised to.
    inside: AtomicU8,
}

/// What [`Vm::new`] is made of.
pub struct Parts {
    /// Which one.
    pub id: VmId,
    /// Its part of the bundle.
    pub image: bundle::Vm,
    /// Where its RAM is.
    pub ram_phys: AddrRange<PhysAddr>,
    /// Its functions.
    pub devices: heapless::Vec<Device, DEVICES_MAX>,
    /// The CPU's stage 2, RAM mapped.
    pub tables: GuestTables,
    /// What its devices reach.
    pub dma: Reach,
    /// The RAM, which nothing leads to yet.
    pub ram: Flushed<GuestRam>,
    /// The virtual PCI bridge.
    pub bridge: Bridge,
    /// The virtual SMMU, if its devices are nested.
    pub vsmmu: Option<VirtualSmmu>,
    /// The virtio IOMMU, if its devices are behind one.
    pub viommu: Option<VirtualIommu>,
    /// The virtual GIC, its lines linked.
    pub vgic: Vgic,
    /// Power states.
    pub psci: Psci,
}

/// The VM whose device has a stream, and the device's place in it.
pub fn of_stream(stream: StreamKey) -> Option<(&'static Vm, usize)> {
    all().find_map(|vm| Some((vm, vm.devices().position(|device| device.stream == stream)?)))
}

impl Vm {
    /// A stopped VM.
    pub fn new(parts: Parts) -> Self {
        Self {
            id: parts.id,
            name: parts.image.full_name(),
            cpus: parts.image.cpus().collect(),
            ram: parts.image.ram(),
            ram_phys: parts.ram_phys,
            smmus: smmus_of(&parts.devices),
            devices: parts.devices,
            image: parts.image,
            tables: Mutex::new(parts.tables),
            vmid: parts.dma.config().vmid,
            dma_config: parts.dma.config(),
            dma: parts.dma,
            ram_state: Mutex::new(Ram::Free(parts.ram)),
            vgic: Mutex::new(parts.vgic),
            serial: Mutex::new(Serial { uart: Vuart::new(), line: LineBuffer::new(), last_output: 0 }),
            bridge: Mutex::new(parts.bridge),
            vsmmu: parts.vsmmu.map(Mutex::new),
            viommu: parts.viommu.map(Mutex::new),
            waiting: Mutex::new(Waiting::default()),
            psci: Mutex::new(parts.psci),
            counter_offset: AtomicU64::new(0),
            boots: AtomicU64::new(0),
            state: AtomicU8::new(State::Stopped as u8),
            request: AtomicU8::new(Request::None as u8),
            inside: AtomicU8::new(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// How many vCPUs it has.
    pub fn vcpu_count(&self) -> usize {
        self.cpus.len()
    }

    /// The CPU of a vCPU.
    pub fn cpu_of(&self, vcpu: usize) -> Option<CpuId> {
        self.cpus.get(vcpu).copied()
    }

    /// Its CPUs' blocks, in the order of vCPUs.
    pub fn cpus(&self) -> impl Iterator<Item = &'static percpu::PerCpu> + '_ {
        self.cpus.iter().filter_map(|&id| percpu::of(id))
    }

    /// How its CPUs walk their table.
    pub fn cpu_config(&self) -> S2Config {
        S2Config::of(self.tables.lock().tree(), self.vmid)
    }

    /// Its functions.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter()
    }

    /// The SMMUs of its devices, each once.
    pub fn smmus(&self) -> &[SmmuId] {
        &self.smmus
    }

    /// Takes the RAM to prepare it; `None` when it is in use or quarantined.
    pub fn take_free_ram(&self) -> Option<Flushed<GuestRam>> {
        let mut state = self.ram_state.lock();
        match core::mem::replace(&mut *state, Ram::InUse(None)) {
            Ram::Free(ram) => Some(ram),
            other => {
                *state = other;
                None
            }
        }
    }

    /// The RAM is prepared: VM and devices may have it.
    pub fn use_ram(&self, ram: GuestRam) {
        *self.ram_state.lock() = Ram::InUse(Some(ram));
    }

    /// Begins to take the RAM back from the devices.
    pub fn retire_ram(&self) -> Option<Unflushed<GuestRam>> {
        match &mut *self.ram_state.lock() {
            Ram::InUse(ram) => Some(ram.take()?.retire(self.dma_config.vmid, self.smmus().iter().copied())),
            Ram::Free(_) | Ram::Quarantined(_) => None,
        }
    }

    /// Ends what [`Vm::retire_ram`] began: free if every flush was witnessed, else quarantined. Says which.
    pub fn settle_ram(&self, ram: Unflushed<GuestRam>) -> bool {
        let settled = ram.settle();
        let is_free = settled.is_ok();
        *self.ram_state.lock() = match settled {
            Ok(ram) => Ram::Free(ram),
            Err(ram) => Ram::Quarantined(ram.quarantine()),
        };
        is_free
    }

    /// The virtual interrupt that a physical one of its devices becomes.
    pub fn line_of(&self, physical: IntId) -> Option<IntId> {
        let device = self.devices.iter().find(|device| device.interrupt == Some(physical))?;
        Some(IntId(vplat::INTX_INTID_BASE.0 + u32::from(device.virtual_pin.checked_sub(1)?)))
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        match self.state.load(Acquire) {
            1 => State::Starting,
            2 => State::Running,
            3 => State::Stopping,
            4 => State::Quarantined,
            _ => State::Stopped,
        }
    }

    /// Moves from one state to the next; false when it was not in `from`, and nothing has changed.
    pub fn change_state(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, AcqRel, Acquire).is_ok()
    }

    /// What it is asked to do.
    pub fn request(&self) -> Request {
        Request::from_bits(self.request.load(Acquire))
    }

    /// Forgets what it was asked to do, and says what it was.
    pub fn take_request(&self) -> Request {
        Request::from_bits(self.request.swap(Request::None as u8, AcqRel))
    }

    /// Asks a running VM to stop or boot again: its vCPUs leave the guest, the last one does it. A stop outdoes a reset.
    pub fn ask(&self, request: Request) {
        self.request.fetch_max(request as u8, AcqRel);
        for cpu in self.cpus() {
            cpu.kick();
        }
        // With no vCPU running nobody leaves: the first vCPU's CPU is told to look.
        if self.inside.load(Acquire) == 0
            && self.state() == State::Running
            && let Some(first) = self.cpus().next()
        {
            first.post_if_idle(Task::TearDown);
        }
    }

    /// Ends the VM for something that its guest did.
    pub fn end(&self, vcpu: usize, why: fmt::Arguments<'_>) {
        error!("vm {} ended: vcpu {vcpu}: {why}", self.name());
        self.ask(Request::Stop);
    }

    /// Counts a vCPU as running, before anybody can see it run.
    pub fn enter(&self, vcpu: usize) {
        self.inside.fetch_or(1u8.checked_shl(u32::try_from(vcpu).unwrap_or(8)).unwrap_or(0), AcqRel);
    }

    /// Counts a vCPU as gone; true when it was the last.
    pub fn leave(&self, vcpu: usize) -> bool {
        let bit = 1u8.checked_shl(u32::try_from(vcpu).unwrap_or(8)).unwrap_or(0);
        self.inside.fetch_and(!bit, AcqRel) & !bit == 0
    }

    /// Whether a vCPU runs or was promised to.
    pub fn is_inside(&self, vcpu: usize) -> bool {
        self.inside.load(Relaxed) >> vcpu & 1 == 1
    }

    /// Whether no vCPU runs.
    pub fn is_empty(&self) -> bool {
        self.inside.load(Acquire) == 0
    }

    /// The physical address of an IPA in its RAM.
    pub fn translate(&self, ipa: Ipa) -> Option<PhysAddr> {
        self.translate_range(ipa, 1)
    }

    /// The physical address of `size_bytes` bytes at an IPA, if all of them are its RAM.
    #[inline(always)]
    pub fn translate_range(&self, ipa: Ipa, size_bytes: u64) -> Option<PhysAddr> {
        // From an IPA below, it is past the end.
        let offset = ipa.as_u64().wrapping_sub(self.ram.start().as_u64());
        let left = self.ram.size_bytes().checked_sub(offset)?;
        if size_bytes == 0 || size_bytes > left {
            return None;
        }
        self.ram_phys.start().checked_add(offset)
    }
}

/// The SMMUs of `devices`, each once.
fn smmus_of(devices: &[Device]) -> heapless::Vec<SmmuId, DEVICES_MAX> {
    let mut smmus = heapless::Vec::<SmmuId, DEVICES_MAX>::new();
    for device in devices {
        if !smmus.contains(&device.stream.smmu) {
            // As many as devices.
            let _ = smmus.push(device.stream.smmu);
        }
    }
    smmus
}

static VMS: [Once<Vm>; VMS_MAX] = [const { Once::new() }; VMS_MAX];

/// Makes a VM known.
pub fn register(parts: Parts) -> Option<&'static Vm> {
    VMS.get(parts.id.index()).map(|slot| slot.call_once(|| Vm::new(parts)))
}

/// Every VM that could be made.
pub fn all() -> impl Iterator<Item = &'static Vm> {
    VMS.iter().filter_map(Once::get)
}

/// The VM with this name.
pub fn find(name: &str) -> Option<&'static Vm> {
    all().find(|vm| vm.name() == name)
}
