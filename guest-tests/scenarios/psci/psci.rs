//! Every PSCI and SMCCC call, with good and bad parameters.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bulkhead_guest_tests::{
    boot, check,
    gic::{self, Bank},
    params, program, psci, smp,
    timer::{self, Timer},
};

program!(main);

const ADDRESSES_OF_NO_RAM: [u64; 5] = [0, 0x0900_0000, 0x3fff_f000, 0x80_0000_0000, 0xffff_ffff_ffff_f000];

static RUNS: AtomicU32 = AtomicU32::new(0);
static LEAVE: AtomicBool = AtomicBool::new(false);

fn secondary() {
    RUNS.fetch_add(1, Ordering::SeqCst);
    while !LEAVE.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
}

fn functions() {
    let version = psci::call32(psci::VERSION, [0; 3]);
    check!(version >= 0x1_0001, "PSCI 1.1 or later"; version);
    let version = psci::call32(psci::SMCCC_VERSION, [0; 3]);
    check!(version >= 0x1_0001, "SMCCC 1.1 or later"; version);
    for function in [
        psci::VERSION,
        psci::CPU_OFF,
        psci::CPU_ON_32,
        psci::CPU_ON_64,
        psci::AFFINITY_INFO_32,
        psci::AFFINITY_INFO_64,
        psci::SYSTEM_OFF,
        psci::SYSTEM_RESET,
        psci::FEATURES,
        psci::SMCCC_VERSION,
    ] {
        let status = psci::call32(psci::FEATURES, [u64::from(function), 0, 0]);
        check!(status >= 0, "PSCI_FEATURES knows {function:#x}"; status);
    }
    for function in [0x8400_001f_u32, 0x8400_0015, 0xc400_00ff, 0xdead_beef, 0, u32::MAX] {
        let status = psci::call32(psci::FEATURES, [u64::from(function), 0, 0]);
        check!(status == -1, "PSCI_FEATURES does not know {function:#x}"; status);
    }
    for function in [0x8400_001f_u64, 0xc400_001f, 0x8600_ff01, 0xc500_0000, 0xffff_ffff, 0, 0x1234_5678, u64::MAX] {
        let status = psci::hvc(function, [0; 3])[0].cast_signed();
        let status32 = status << 32 >> 32;
        check!(status32 == psci::NOT_SUPPORTED, "call {function:#x} is not supported"; status);
    }
    let status = psci::call32(psci::SMCCC_ARCH_FEATURES, [u64::from(psci::SMCCC_ARCH_FEATURES), 0, 0]);
    check!(status >= -1, "SMCCC_ARCH_FEATURES answers"; status);
    let status = psci::call32(psci::MIGRATE_INFO_TYPE, [0; 3]);
    check!(status == 2 || status == -1, "no trusted OS to migrate"; status);
}

fn bad_parameters() {
    for cpu in [2_u64, 7, 0x100, 0x1_0000, 0x1_0000_0001, 0x8000_0001, u64::MAX] {
        let status = psci::cpu_on(cpu, boot::secondary_entry(), 1);
        check!(status == psci::INVALID_PARAMETERS, "CPU_ON of cpu {cpu:#x}"; status);
        let status = psci::affinity_info(cpu);
        check!(status == psci::INVALID_PARAMETERS, "AFFINITY_INFO of cpu {cpu:#x}"; status);
    }
    let status = psci::call(psci::AFFINITY_INFO_64, [0, 4, 0]);
    check!(status == psci::INVALID_PARAMETERS, "AFFINITY_INFO of a level that is not there"; status);
    for entry in ADDRESSES_OF_NO_RAM.into_iter().chain([params::ram_end()]) {
        let status = psci::cpu_on(1, entry, 1);
        let is_refused = matches!(status, psci::INVALID_ADDRESS | psci::INVALID_PARAMETERS);
        check!(is_refused, "CPU_ON at {entry:#x}, where no RAM is"; status);
    }
    check!(psci::affinity_info(1) == 1, "cpu 1 is still off");
    check!(psci::cpu_on(0, boot::secondary_entry(), 0) == psci::ALREADY_ON, "CPU_ON of itself");
}

fn suspend() {
    gic::init();
    gic::set(27, Bank::Enable);
    Timer::Virtual.set(timer::ticks(20_000));
    let status = psci::call(psci::CPU_SUSPEND_64, [0, boot::secondary_entry(), 0]);
    // A standby state may end for any reason; a hypervisor may leave the call out.
    check!(matches!(status, -3..=0), "CPU_SUSPEND to standby returns"; status);
    Timer::Virtual.stop();
}

fn hvc_forms() {
    check!(
        psci::hvc_odd(u64::from(psci::VERSION), [0; 3])[0].cast_signed() < i64::MAX,
        "HVC with an immediate survived"
    );
    let result = psci::hvc(0xffff_ffff_8400_0000, [0; 3])[0];
    check!(result != 0, "function ids are 32 bits: the upper half is not looked at, or refused"; result);
}

fn main() {
    functions();
    bad_parameters();
    suspend();
    hvc_forms();
    check!(smp::start(1, secondary) == psci::SUCCESS, "CPU_ON of cpu 1");
    check!(timer::wait_until(2000, || RUNS.load(Ordering::SeqCst) == 1), "it runs");
    LEAVE.store(true, Ordering::SeqCst);
    check!(timer::wait_until(2000, || psci::affinity_info(1) == 1), "CPU_OFF of cpu 1");
    let status = psci::call32(psci::CPU_ON_32, [1, boot::secondary_entry(), 1]);
    check!(status == 0, "CPU_ON, the 32-bit form"; status);
    check!(timer::wait_until(2000, || RUNS.load(Ordering::SeqCst) == 2), "it runs");
    check!(timer::wait_until(2000, || psci::call32(psci::AFFINITY_INFO_32, [1, 0, 0]) == 1), "and is off");
}
