//! A VM's virtual PCI bridge and the physical functions behind it: effects applied, streams attached and taken back.

use bulkhead_core::{
    addr::{AddrRange, Ipa, PhysAddr},
    ids::{SmmuId, Vmid},
    pci::{self, BarKind, ConfigSpace, PciDevice, PciDevices, Reset, ResetStep, registers},
    stage2::Stage2Error,
};
use bulkhead_dma::{FlushWitness, Unflushed};
use bulkhead_smmu::StreamState;
use bulkhead_vdev::{
    mmio::Width,
    vpci::{BARS, Bar, BarError, BarWidth, BridgeFull, Effect, FunctionConfig, VirtualFunction, Vpci},
};
use heapless::Vec;
use log::{error, warn};
use spin::Once;

use crate::{
    dmamap::Retired,
    guest_memory::GuestRam,
    lock::Mutex,
    pci::Ecam,
    smmu, time, viommu, virtio,
    vm::{Device, Vm},
};

/// Effects of one write: a bridge of eight functions can move every BAR once.
const EFFECTS_MAX: usize = 2 * BARS * bulkhead_core::vplat::DEVICES_MAX + 4;

/// Configuration space, one access sequence at a time.
static CONFIG: Mutex<Option<Ecam>> = Mutex::new(None);
/// Every function of the machine.
static DEVICES: Once<PciDevices> = Once::new();

/// Hands over what boot found.
pub fn install(ecam: Ecam, devices: PciDevices) {
    *CONFIG.lock() = Some(ecam);
    DEVICES.call_once(|| devices);
}

/// Every function of the machine.
pub fn devices() -> &'static [PciDevice] {
    DEVICES.get().map_or(&[], |devices| devices.as_slice())
}

fn with_config<R>(f: impl FnOnce(&mut Ecam) -> R) -> Option<R> {
    CONFIG.lock().as_mut().map(f)
}

/// Why a VM's functions cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
pub enum BridgeError {
    /// The function is not there.
    #[error("PCI function {0} is not there")]
    Absent(bulkhead_core::ids::PciFunction),
    /// A BAR cannot be shown.
    #[error("PCI function {function}: {problem}")]
    Bar {
        /// The function.
        function: bulkhead_core::ids::PciFunction,
        /// What is wrong with it.
        problem: BarError,
    },
    /// Too many functions.
    #[error(transparent)]
    Full(#[from] BridgeFull),
    /// The SMMU refused the stream.
    #[error("PCI function {function}, stream {}: {problem}", stream.stream)]
    Stream {
        /// The function.
        function: bulkhead_core::ids::PciFunction,
        /// Its stream.
        stream: bulkhead_core::ids::StreamKey,
        /// What the driver said.
        problem: bulkhead_smmu::Error,
    },
    /// The SMMU of the stream was refused at boot.
    #[error("PCI function {0}: its SMMU is not in use")]
    NoSmmu(bulkhead_core::ids::PciFunction),
    /// The guest moved its BARs over too many regions.
    #[error("BAR at {at}: {problem}")]
    Map {
        /// Where the guest put it.
        at: Ipa,
        /// What stage 2 said.
        problem: Stage2Error,
    },
}

/// The physical functions behind a bridge, in its order.
struct Physical<'a>(&'a [PciDevice]);

impl FunctionConfig for Physical<'_> {
    fn read32(&self, function: usize, offset: u16) -> u32 {
        let Some(device) = self.0.get(function) else { return !0 };
        with_config(|config| config.read32(device.function, offset)).unwrap_or(!0)
    }
}

/// The virtual bridge and its functions.
pub struct Bridge {
    virtual_bridge: Vpci,
    functions: Vec<PciDevice, { bulkhead_core::vplat::DEVICES_MAX }>,
    is_attached: bool,
}

fn bars_of(device: &PciDevice) -> Result<[Option<Bar>; BARS], BarError> {
    let mut bars = [None; BARS];
    for (number, bar) in device.memory_bars() {
        let (width, is_prefetchable) = match bar.kind {
            BarKind::Memory64 { is_prefetchable } => (BarWidth::Bits64, is_prefetchable),
            BarKind::Memory32 { is_prefetchable } => (BarWidth::Bits32, is_prefetchable),
            BarKind::Io => continue,
        };
        if let Some(slot) = bars.get_mut(number) {
            *slot = Some(Bar::new(bar.cpu, bar.size_bytes, width, is_prefetchable)?);
        }
    }
    Ok(bars)
}

impl Bridge {
    /// A bridge with the VM's functions, nothing attached.
    ///
    /// # Errors
    /// A function is absent, or one of its BARs has a size that PCI does not have.
    pub fn new(own: &[Device]) -> Result<Self, BridgeError> {
        let mut functions = Vec::new();
        for device in own {
            let found = pci::find(devices(), device.function).ok_or(BridgeError::Absent(device.function))?;
            functions.push(*found).map_err(|_| BridgeFull)?;
        }
        let mut virtual_bridge = Vpci::new();
        for (place, (device, own)) in functions.iter().zip(own).enumerate() {
            let function = device.function;
            let bars = bars_of(device).map_err(|problem| BridgeError::Bar { function, problem })?;
            virtual_bridge.add(VirtualFunction::probe(&Physical(&functions), place, bars, own.virtual_pin))?;
        }
        Ok(Self { virtual_bridge, functions, is_attached: false })
    }

    /// Puts the functions' registers in place and their streams in the VM's table. Bus mastering waits for the guest.
    ///
    /// # Errors
    /// An SMMU refused a stream: [`Bridge::detach`] takes back what was attached.
    pub fn attach(&mut self, vm: &Vm) -> Result<(), BridgeError> {
        self.is_attached = true;
        for (device, own) in self.functions.iter().zip(vm.devices()) {
            let function = own.function;
            // Behind a virtio IOMMU a stream stays in abort until the guest attaches it.
            let attach = |driver: &mut smmu::Driver| match vm.viommu {
                Some(_) => viommu::gate::stand_by(driver, own.stream.stream),
                None => driver.attach(own.stream.stream, &vm.dma_config),
            };
            smmu::with(own.stream.smmu, attach)
                .ok_or(BridgeError::NoSmmu(function))?
                .map_err(|problem| BridgeError::Stream { function, stream: own.stream, problem })?;
            with_config(|config| {
                pci::open_path(config, devices(), function);
                pci::restore(config, device);
                config.write16(function, registers::COMMAND, registers::COMMAND_MEMORY);
            });
        }
        Ok(())
    }

    /// Rule 4: registers unmapped, mastering off, streams in abort and flushed, functions reset. `ram` and the
    /// space of DMA maps learn of each SMMU whose flush completed: only then do they settle.
    pub fn detach(&mut self, vm: &Vm, ram: &mut Unflushed<GuestRam>, maps: &mut Option<Unflushed<Retired>>) {
        if !core::mem::replace(&mut self.is_attached, false) {
            return;
        }
        let mut effects = Vec::<Effect, EFFECTS_MAX>::new();
        self.virtual_bridge.reset(|effect| {
            let _ = effects.push(effect);
        });
        for effect in &effects {
            if let Err(problem) = self.apply(vm, *effect) {
                error!("vm {}: {problem}", vm.name());
            }
        }
        for &id in vm.smmus() {
            match smmu::with(id, |driver| take_back(driver, vm)) {
                Some(Ok(flushed)) => {
                    let witness = Witness { smmu: id, flushed };
                    let maps = maps.as_mut().map_or(Ok(()), |maps| maps.witness(&witness));
                    if let Err(problem) = ram.witness(&witness).and(maps) {
                        error!("vm {}: {problem}", vm.name());
                    }
                }
                Some(Err(problem)) => error!("vm {}: smmu {}: {problem}", vm.name(), id.0),
                None => (),
            }
        }
        for device in &self.functions {
            reset_function(device);
        }
    }

    /// The guest reads its configuration space.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        self.virtual_bridge.read(offset, width, &Physical(&self.functions))
    }

    /// The guest writes its configuration space.
    ///
    /// # Errors
    /// A BAR could not be mapped: the VM has to end.
    pub fn write(&mut self, vm: &Vm, offset: u64, width: Width, value: u64) -> Result<(), BridgeError> {
        let mut effects = Vec::<Effect, EFFECTS_MAX>::new();
        let physical = Physical(&self.functions);
        self.virtual_bridge.write(offset, width, value, &physical, |effect| {
            // There is room for the most that one write can cause.
            let _ = effects.push(effect);
        });
        for effect in &effects {
            self.apply(vm, *effect)?;
        }
        Ok(())
    }

    fn apply(&self, vm: &Vm, effect: Effect) -> Result<(), BridgeError> {
        match effect {
            Effect::Map { ipa, phys, size_bytes, .. } => change(vm, ipa, Some(phys), size_bytes),
            Effect::Unmap { ipa, size_bytes, .. } => change(vm, ipa, None, size_bytes),
            Effect::BusMaster { function, is_on } => {
                self.set_command(function, registers::COMMAND_MASTER, is_on && self.is_contained(vm, function));
                Ok(())
            }
            Effect::IntxDisable { function, is_disabled } => {
                self.set_command(function, registers::COMMAND_INTX_DISABLE, is_disabled);
                Ok(())
            }
            Effect::FunctionReset { function } => {
                if let Some(device) = self.functions.get(function) {
                    reset_function(device);
                    with_config(|config| {
                        pci::restore(config, device);
                        config.write16(device.function, registers::COMMAND, registers::COMMAND_MEMORY);
                    });
                }
                Ok(())
            }
        }
    }

    /// Whether the function's stream is in the VM's table, or behind its virtio IOMMU: no bus mastering before that.
    fn is_contained(&self, vm: &Vm, function: usize) -> bool {
        let Some(own) = vm.devices().nth(function) else { return false };
        let state = smmu::with(own.stream.smmu, |driver| driver.find_stream(own.stream.stream)).flatten();
        match state {
            // In abort, or in a table of the VM's.
            None => self.is_attached && vm.viommu.is_some(),
            Some(info) => {
                let is_own = info.vmid == vm.dma_config.vmid || vm.viommu.is_some();
                is_own && matches!(info.state, StreamState::Attached | StreamState::Silenced)
            }
        }
    }

    fn set_command(&self, function: usize, bits: u16, is_on: bool) {
        let Some(device) = self.functions.get(function) else { return };
        with_config(|config| {
            let command = config.read16(device.function, registers::COMMAND);
            let command = if is_on { command | bits } else { command & !bits };
            // The status half beside it is write-one-to-clear: zeros leave it.
            config.write32(device.function, registers::COMMAND, u32::from(command));
            // What was under way before the write is over once the function answers.
            let _ = config.read16(device.function, registers::COMMAND);
        });
    }
}

/// A completed flush, and where.
struct Witness {
    smmu: SmmuId,
    flushed: smmu::Flushed,
}

impl FlushWitness for Witness {
    fn smmu(&self) -> SmmuId {
        self.smmu
    }
    fn vmid(&self) -> Vmid {
        self.flushed.vmid()
    }
}

/// Every stream of the VM at this SMMU in abort, then its translations dropped.
fn take_back(driver: &mut smmu::Driver, vm: &Vm) -> Result<smmu::Flushed, bulkhead_smmu::Error> {
    let id = driver.id();
    for own in vm.devices().filter(|own| own.stream.smmu == id) {
        if driver.find_stream(own.stream.stream).is_some() {
            // One proof for all of them follows.
            let _ = driver.detach(own.stream.stream)?;
        }
    }
    driver.flush_vmid(vm.dma_config.vmid)
}

fn change(vm: &Vm, ipa: Ipa, phys: Option<PhysAddr>, size_bytes: u64) -> Result<(), BridgeError> {
    let Some(range) = AddrRange::new(ipa, size_bytes) else { return Ok(()) };
    let mut tables = vm.tables.lock();
    match phys {
        Some(phys) => tables.map_device(range, phys),
        None => tables.unmap_device(range),
    }
    .map_err(|problem| BridgeError::Map { at: ipa, problem })
}

/// Makes the function ready to be reset; false when it has no way of its own.
pub fn prepare_reset(device: &PciDevice) -> bool {
    device.capabilities.reset.is_some() || with_config(|config| virtio::prepare(config, device)).unwrap_or(false)
}

/// Resets a function in its own way, waiting as its specification says, each time at most two seconds.
fn reset_function(device: &PciDevice) {
    let Some(mut reset) = with_config(|config| Reset::start(config, device)) else { return };
    loop {
        match with_config(|config| reset.step(config)) {
            Some(ResetStep::Wait { us }) => time::delay_us(u64::from(us)),
            Some(ResetStep::Failed) => {
                warn!("PCI function {} did not come back from its reset", device.function);
                return;
            }
            Some(ResetStep::Unsupported) => {
                // What has no reset at all was named at boot.
                let _ = with_config(|config| virtio::reset(config, device));
                return;
            }
            Some(ResetStep::Done) | None => return,
        }
    }
}
