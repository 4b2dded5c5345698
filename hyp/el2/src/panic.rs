//! The end: every stream in abort, other CPUs stopped, registers and a backtrace with names.

use core::{
    fmt,
    panic::PanicInfo,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, MPIDR_EL1, Readable, SPSR_EL2};

use crate::{boot_text, console, console::Writer, frame::TrapFrame, image, percpu, symbols, sysreg};

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Whether a CPU has panicked: every other one must stop.
pub fn is_panicking() -> bool {
    PANICKING.load(SeqCst)
}

/// Stops this CPU for good.
pub fn stop() -> ! {
    loop {
        sysreg::instruction!("wfi");
    }
}

fn say(text: fmt::Arguments<'_>) {
    console::line(Writer::Hypervisor, "panic", text);
}

/// An address of code as a name and an offset.
struct Code(u64);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.0.wrapping_sub(image::start().as_u64());
        write!(f, "{:#x}", self.0)?;
        if offset < image::text_end().as_u64() - image::start().as_u64() {
            write!(f, " image+{offset:#x}")?;
            if let Some((name, within)) = symbols::find(offset) {
                write!(f, " {name}+{within:#x}")?;
            }
            if boot_text::is_gone(self.0) {
                f.write_str(" (boot code, given back)")?;
            }
        }
        Ok(())
    }
}

/// First things first: no device may go on with a hypervisor that does not know what it is doing.
/// Returns false when another CPU panicked before.
fn begin() -> bool {
    if PANICKING.swap(true, SeqCst) {
        return false;
    }
    let _ = crate::smmu::abort_all();
    for cpu in percpu::online() {
        if cpu.mpidr.as_u64() != bulkhead_core::ids::Mpidr::new(MPIDR_EL1.get()).as_u64() {
            cpu.kick();
        }
    }
    // Long enough for the others to leave hypervisor code; a CPU that is stuck there stays stuck.
    crate::time::delay_us(10_000);
    true
}

/// Whether eight bytes at `address` can be read: inside the image, its stacks and the pool.
fn is_ours(address: u64) -> bool {
    address.is_multiple_of(8)
        && image::range().contains(bulkhead_core::addr::PhysAddr::new(address))
        && address < image::end().as_u64() - 16
}

fn backtrace(mut frame_pointer: u64) {
    for depth in 0..24 {
        if !is_ours(frame_pointer) {
            return;
        }
        let record: *const [u64; 2] = crate::pointer::to(frame_pointer);
        // SAFETY: the sixteen bytes lie in the hypervisor's own mapped, readable memory, and any value of them is fine.
        let [next, address] = unsafe { record.read_volatile() };
        if address == 0 {
            return;
        }
        say(format_args!("  #{depth} {}", Code(address.wrapping_sub(4))));
        if next <= frame_pointer {
            return;
        }
        frame_pointer = next;
    }
}

fn end() -> ! {
    say(format_args!("every stream is in abort, every CPU is stopped; reset the machine"));
    stop()
}

/// A fault of the hypervisor itself, from `vectors.s`, on the emergency stack.
pub extern "C" fn own_exception(frame: &TrapFrame, kind: u64) -> ! {
    if !begin() {
        stop();
    }
    let kind = ["synchronous exception", "IRQ", "FIQ", "SError"][(kind & 3) as usize];
    say(format_args!("{kind} in the hypervisor, at {}", Code(ELR_EL2.get())));
    let (esr, far, hpfar, spsr) = (ESR_EL2.get(), FAR_EL2.get(), HPFAR_EL2.get(), SPSR_EL2.get());
    say(format_args!("esr {esr:#x} (class {:#04x}), far {far:#x}, hpfar {hpfar:#x}, spsr {spsr:#x}", esr >> 26 & 0x3f));
    for (index, four) in frame.x.chunks(4).enumerate() {
        let at = |i: usize| four.get(i).copied().unwrap_or(0);
        let first = index * 4;
        say(format_args!("x{first:<2} {:016x} {:016x} {:016x} {:016x}", at(0), at(1), at(2), at(3)));
    }
    say(format_args!("sp  {:016x}, lr {}", frame.stack_pointer, Code(frame.x[30])));
    backtrace(frame.x[29]);
    end()
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !begin() {
        stop();
    }
    match info.location() {
        Some(location) => say(format_args!("{} at {}:{}", info.message(), location.file(), location.line())),
        None => say(format_args!("{}", info.message())),
    }
    let frame_pointer: u64;
    // SAFETY: reads a general register.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) frame_pointer, options(nomem, nostack)) };
    backtrace(frame_pointer);
    end()
}

#[cfg(not(target_os = "none"))]
const _: fn(&PanicInfo<'_>) = |_| ();
