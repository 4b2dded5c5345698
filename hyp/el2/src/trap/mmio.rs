//! Loads and stores that stage 2 refused: the virtual devices, or the end of the VM.

use bulkhead_core::{
    addr::Ipa,
    esr::{Abort, Transfer},
    vplat,
};
use bulkhead_vdev::{
    mmio::Width,
    vgic::{Effects, Read},
};

use super::{Stray, Trapped};
use crate::{
    console, keyboard,
    lock::Mutex,
    stats::Reason,
    time,
    viommu::{self, VirtualIommu},
    virtual_gic,
    vsmmu::{self, VirtualSmmu},
};

/// An access to a virtual device.
#[derive(Clone, Copy)]
struct Request {
    offset: u64,
    width: Width,
    transfer: Transfer,
    is_write: bool,
}

/// Whether the guest goes on behind its instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Skip,
    Repeat,
}

/// Inlined: it is looked for in one place after the other, at each exit.
#[inline(always)]
fn offset_in(base: Ipa, size_bytes: u64, at: Ipa, width: Width) -> Option<u64> {
    let offset = at.as_u64().wrapping_sub(base.as_u64());
    (offset < size_bytes && width.bytes() <= size_bytes - offset).then_some(offset)
}

/// Emulates the access, or ends the VM.
pub fn data_abort(trapped: &mut Trapped<'_>, abort: &Abort) -> Reason {
    let what = if abort.is_write { "write" } else { "read" };
    let Some(ipa) = abort.ipa.filter(|_| !abort.is_table_walk) else {
        trapped.end(format_args!("{what} {}", Stray(abort)));
        return Reason::Other;
    };
    if abort.is_cache_maintenance {
        // Maintenance of memory that is not there: nothing is cached, nothing to do.
        trapped.skip();
        return Reason::Other;
    }
    let Some(transfer) = abort.transfer else {
        trapped.end(format_args!(
            "{what} {}: the instruction (pair, writeback, exclusive or vector) cannot be emulated",
            Stray(abort)
        ));
        return Reason::Other;
    };
    let Some(width) = Width::from_bytes(u64::from(transfer.size_bytes)) else { return Reason::Other };
    let gicr_size = trapped.vm.vcpu_count() as u64 * vplat::GICR_STRIDE;
    let request = |offset| Request { offset, width, transfer, is_write: abort.is_write };
    // The most frequent first, where there is one.
    let (reason, next) = if let Some(vsmmu) = &trapped.vm.vsmmu
        && let Some(offset) = offset_in(vplat::VSMMU_BASE, vplat::VSMMU_SIZE, ipa, width)
    {
        (Reason::Smmu, virtual_smmu(trapped, vsmmu, request(offset)))
    } else if let Some(offset) = offset_in(vplat::UART_BASE, vplat::UART_SIZE, ipa, width) {
        (Reason::Uart, uart(trapped, request(offset)))
    } else if let Some(offset) = offset_in(vplat::GICD_BASE, vplat::GICD_SIZE, ipa, width) {
        (Reason::Gic, distributor(trapped, request(offset)))
    } else if let Some(offset) = offset_in(vplat::GICR_BASE, gicr_size, ipa, width) {
        (Reason::Gic, redistributor(trapped, request(offset)))
    } else if let Some(offset) = offset_in(vplat::ECAM_BASE, vplat::ECAM_SIZE, ipa, width) {
        (Reason::Pci, ecam(trapped, request(offset)))
    } else if let Some(viommu) = &trapped.vm.viommu
        && let Some(offset) = offset_in(vplat::VIOMMU_BASE, vplat::VIOMMU_SIZE, ipa, width)
    {
        (Reason::Smmu, virtio_iommu(trapped, viommu, request(offset)))
    } else {
        trapped.end(format_args!("{what} {}", Stray(abort)));
        return Reason::Other;
    };
    if next == Next::Skip {
        trapped.skip();
    }
    reason
}

impl Request {
    #[inline(always)]
    fn value(&self, trapped: &Trapped<'_>) -> u64 {
        self.width.narrow(trapped.frame.get(self.transfer.register))
    }

    fn complete(&self, trapped: &mut Trapped<'_>, value: u64) {
        let extended = if self.transfer.is_signed { self.width.sign_extend(value) } else { self.width.narrow(value) };
        let value = if self.transfer.is_64_bit { extended } else { extended & 0xffff_ffff };
        trapped.frame.set(self.transfer.register, value);
    }
}

/// Apart from the other devices, which have larger frames.
#[inline(never)]
fn virtual_smmu(trapped: &mut Trapped<'_>, vsmmu: &'static Mutex<VirtualSmmu>, request: Request) -> Next {
    if !request.is_write {
        let value = vsmmu.lock().read(request.offset, request.width);
        request.complete(trapped, value);
        return Next::Skip;
    }
    let value = request.value(trapped);
    let is_done = vsmmu::write(vsmmu, trapped.cpu, trapped.vm, (request.offset, request.width, value));
    if is_done { Next::Skip } else { Next::Repeat }
}

fn virtio_iommu(trapped: &mut Trapped<'_>, viommu: &'static Mutex<VirtualIommu>, request: Request) -> Next {
    if !request.is_write {
        let value = viommu::gate::read(viommu, request.offset, request.width);
        request.complete(trapped, value);
        return Next::Skip;
    }
    let value = request.value(trapped);
    let is_done = viommu::gate::write(viommu, trapped.cpu, trapped.vm, (request.offset, request.width, value));
    if is_done { Next::Skip } else { Next::Repeat }
}

fn distributor(trapped: &mut Trapped<'_>, request: Request) -> Next {
    let (cpu, vm, vcpu) = (trapped.cpu, trapped.vm, trapped.vcpu);
    if request.is_write {
        let value = request.value(trapped);
        virtual_gic::with(cpu, vm, vcpu, |vgic| ((), vgic.dist_write(vcpu, request.offset, request.width, value)));
        return Next::Skip;
    }
    let read = virtual_gic::with(cpu, vm, vcpu, |vgic| {
        (vgic.dist_read(vcpu, request.offset, request.width), Effects::default())
    });
    finish_read(trapped, request, read)
}

fn redistributor(trapped: &mut Trapped<'_>, request: Request) -> Next {
    let (cpu, vm, vcpu) = (trapped.cpu, trapped.vm, trapped.vcpu);
    let target = usize::try_from(request.offset / vplat::GICR_STRIDE).unwrap_or(usize::MAX);
    let offset = request.offset % vplat::GICR_STRIDE;
    if request.is_write {
        let value = request.value(trapped);
        virtual_gic::with(cpu, vm, vcpu, |vgic| ((), vgic.redist_write(vcpu, target, offset, request.width, value)));
        return Next::Skip;
    }
    let read = virtual_gic::with(cpu, vm, vcpu, |vgic| {
        (vgic.redist_read(vcpu, target, offset, request.width), Effects::default())
    });
    finish_read(trapped, request, read)
}

fn finish_read(trapped: &mut Trapped<'_>, request: Request, read: Read) -> Next {
    match read {
        Read::Value(value) => {
            request.complete(trapped, value);
            Next::Skip
        }
        Read::Retry(mask) => {
            virtual_gic::kick(trapped.cpu, trapped.vm, mask);
            Next::Repeat
        }
    }
}

fn uart(trapped: &mut Trapped<'_>, request: Request) -> Next {
    let vm = trapped.vm;
    let mut serial = vm.serial.lock();
    let was_high = serial.uart.irq_level();
    if request.is_write {
        let value = request.value(trapped);
        if let Some(byte) = serial.uart.write(request.offset, request.width, value) {
            serial.last_output = time::ticks_relaxed();
            console::guest_byte(vm, &mut serial.line, byte);
        }
    } else {
        let value = serial.uart.read(request.offset, request.width);
        request.complete(trapped, value);
    }
    let is_high = serial.uart.irq_level();
    let has_partial_line = serial.line.is_pending();
    let can_receive = serial.uart.can_receive();
    if is_high != was_high {
        // Under the lock: a byte that arrives on another CPU must not be followed by an older level.
        virtual_gic::set_level(vm, vplat::UART_INTID, is_high);
    }
    drop(serial);
    if has_partial_line {
        keyboard::ask_tick();
    }
    if can_receive && !request.is_write {
        keyboard::feed_waiting(vm);
    }
    Next::Skip
}

fn ecam(trapped: &mut Trapped<'_>, request: Request) -> Next {
    let vm = trapped.vm;
    if request.is_write {
        let value = request.value(trapped);
        let outcome = vm.bridge.lock().write(vm, request.offset, request.width, value);
        if let Err(problem) = outcome {
            trapped.end(format_args!("{problem}"));
        }
    } else {
        let value = vm.bridge.lock().read(request.offset, request.width);
        request.complete(trapped, value);
    }
    Next::Skip
}
