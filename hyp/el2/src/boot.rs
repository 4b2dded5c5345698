//! From the first instruction to every CPU waiting for its VM.

use core::arch::global_asm;

use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use bulkhead_core::{
    addr::{AddrRange, PhysAddr},
    ids::Mpidr,
    machine::{self, Machine, UartKind},
};
use log::{error, info};
use spin::Once;

use crate::{
    console,
    frames::FramePool,
    image, memory,
    memory::Memory,
    mmu::{Access, Mmu},
    percpu::PerCpu,
    start, sysreg,
    uart::Uart,
};

global_asm!(include_str!("boot.s"));
global_asm!(
    include_str!("vectors.s"),
    hardening = sym crate::speculation::SMC_ON_EXIT,
    exit = sym crate::trap::guest_exit,
    own = sym crate::panic::own_exception,
);

/// The machine, once its device tree has been read.
static MACHINE: Once<Machine> = Once::new();

/// The machine that this image runs on.
pub fn machine() -> &'static Machine {
    MACHINE.get().expect("the machine is read before anything asks for it")
}

/// Why the boot stopped before there was a console: for a debugger, at this symbol.
// SAFETY: the one definition of this name; nothing but a debugger looks for it.
#[unsafe(no_mangle)]
static mut BULKHEAD_BOOT_FAILURE: [u8; 64] = [0; 64];

/// Leaves `why` where a debugger finds it, and stops.
fn stop_silently(why: &str) -> ! {
    let target: *mut u8 = (&raw mut BULKHEAD_BOOT_FAILURE).cast();
    for (index, byte) in why.bytes().take(64).enumerate() {
        // SAFETY: one CPU runs, nothing else touches the array, and the index is below its length.
        let place = unsafe { target.add(index) };
        // SAFETY: as above.
        unsafe { place.write_volatile(byte) };
    }
    crate::panic::stop()
}

fn stop_boot(why: core::fmt::Arguments<'_>) -> ! {
    error!("{why}");
    let smmus = crate::smmu::abort_all();
    error!("the boot cannot go on; {smmus} SMMUs abort every stream");
    crate::panic::stop()
}

/// The DTB's bytes, if `address` has one: 8-byte aligned, magic right, size plausible (Devicetree Specification 5.2).
fn dtb_range(address: u64) -> Option<AddrRange<PhysAddr>> {
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    let header: *const [u8; 8] = core::ptr::with_exposed_provenance(usize::try_from(address).ok()?);
    // SAFETY: the boot protocol says that x0 is a DTB in memory; eight aligned bytes of it are read.
    let header = unsafe { header.read() };
    let bytes = machine::declared_bytes(&header).ok()?;
    AddrRange::new(PhysAddr::new(address), bytes as u64)
}

/// The bytes of a range that is mapped read-only, or readable with the MMU off.
///
/// # Safety
/// Nobody writes to the range as long as the machine runs.
pub unsafe fn bytes_of(range: AddrRange<PhysAddr>) -> &'static [u8] {
    let start = crate::pointer::to(range.start().as_u64());
    let size = usize::try_from(range.size_bytes()).unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(start, size) }
}

// SAFETY: the one definition of this name; boot.s calls it with these arguments.
#[unsafe(no_mangle)]
extern "C" fn boot_primary(dtb: u64) -> ! {
    crate::el1::init_el2();
    let mut pool = FramePool::new(image::range(), image::pool_start());
    let Ok(mut mmu) = Mmu::new(&mut pool) else { stop_silently("the frame pool is too small for EL2's tables") };
    let Some(dtb) = dtb_range(dtb) else { stop_silently("x0 is not the address of a device tree") };
    if mmu.map(dtb, Access::Read, &mut pool).is_err() {
        stop_silently("the frame pool is too small to map the device tree");
    }
    mmu.turn_on();
    memory::adopt(Memory { pool, mmu });
    console::init_log();
    // SAFETY: the range is mapped read-only and reserved in the ledger.
    let dtb_bytes = unsafe { bytes_of(dtb) };
    match Machine::from_dtb(dtb_bytes) {
        Ok(machine) => {
            open_console(machine.console.as_ref());
            if !console::is_present() {
                stop_silently("the device tree names no console that is known");
            }
            MACHINE.call_once(|| machine);
        }
        Err(problem) => {
            open_console(Machine::console_of(dtb_bytes).ok().flatten().as_ref());
            stop_boot(format_args!("device tree at {dtb}: {problem}"));
        }
    }
    start::machine(dtb)
}

/// Maps and opens the UART that the device tree names.
fn open_console(console: Option<&machine::Uart>) {
    let Some(console) = console else { return };
    if console.kind != UartKind::Pl011 || memory::map(console.registers, Access::Device).is_err() {
        return;
    }
    // SAFETY: the device tree says that a PL011 is there, it is mapped, and nobody else drives it.
    if let Some(uart) = unsafe { Uart::new(console.registers.start()) } {
        console::set_uart(uart);
    }
}

/// Entered at a level other than EL2: there is no hypervisor to be, but the reason can be told.
// SAFETY: the one definition of this name; boot.s calls it with these arguments.
#[unsafe(no_mangle)]
extern "C" fn boot_wrong_level(dtb: u64) -> ! {
    let Some(range) = dtb_range(dtb) else { stop_silently("not entered at EL2, and x0 is not a device tree") };
    // SAFETY: with the MMU off the DTB is readable where it lies, and nobody else runs.
    let bytes = unsafe { bytes_of(range) };
    if let Ok(Some(console)) = Machine::console_of(bytes)
        && console.kind == UartKind::Pl011
    {
        // SAFETY: the device tree says that a PL011 is there; with the MMU off it is reached as device memory.
        if let Some(mut uart) = unsafe { Uart::new(console.registers.start()) } {
            let text = "[bulkhead] error: entered below EL2: start the machine with virtualisation on (QEMU: -M virt,virtualization=on)\r\n";
            text.bytes().for_each(|byte| uart.write_byte(byte));
        }
    }
    stop_silently("not entered at EL2")
}

// SAFETY: the one definition of this name; boot.s calls it with these arguments.
#[unsafe(no_mangle)]
extern "C" fn boot_secondary(cpu: &'static PerCpu) -> ! {
    crate::el1::init_el2();
    if let Err(problem) = start::cpu(cpu) {
        error!("{}: {problem}", cpu.id);
        crate::panic::stop();
    }
    cpu.set_online();
    sysreg::dsb_sy();
    crate::idle::after_boot()
}

/// Affinity of the CPU that asks.
pub fn own_mpidr() -> Mpidr {
    Mpidr::new(MPIDR_EL1.get())
}

/// Says why the machine cannot run, and stops with every stream in abort.
pub fn fail(why: core::fmt::Arguments<'_>) -> ! {
    info!("{} CPU(s), {} SMMU(s)", machine().cpus.len(), machine().smmus.len());
    stop_boot(why)
}
