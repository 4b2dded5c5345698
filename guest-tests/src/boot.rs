//! Start-up: the arm64 Image header, the boot CPU's first Rust code, secondaries' too.

use core::arch::global_asm;

use crate::{console, cpu, params, println, psci, smp};

global_asm!(include_str!("boot/start.S"));

unsafe extern "Rust" {
    /// The program: defined by [`crate::program!`].
    safe fn guest_main();
}

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static secondary_start: u8;
}

/// First address of the loaded program.
pub fn image_start() -> u64 {
    (&raw const __image_start).addr() as u64
}

/// One past the program's bss and stacks: memory from here to the end of RAM belongs to no Rust object.
pub fn image_end() -> u64 {
    (&raw const __image_end).addr() as u64
}

/// Where CPU_ON sends a secondary; its context is the CPU's number.
pub fn secondary_entry() -> u64 {
    (&raw const secondary_start).addr() as u64
}

// SAFETY: the one definition of this name, called by start.S with the ABI declared here.
#[unsafe(no_mangle)]
extern "C" fn rust_primary(device_tree: u64) -> ! {
    console::enable();
    params::read(device_tree);
    guest_main();
    println!("done");
    psci::system_off()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn rust_secondary(cpu: usize) -> ! {
    smp::run_entry(cpu);
    let status = psci::cpu_off();
    println!("FAIL: CPU_OFF of cpu {cpu} returned {status}");
    cpu::halt()
}

/// Names the function that is the program: `program!(main)`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        // SAFETY: each program defines this name once; boot.rs declares it with the same signature.
        #[unsafe(no_mangle)]
        fn guest_main() {
            $main()
        }
    };
}
