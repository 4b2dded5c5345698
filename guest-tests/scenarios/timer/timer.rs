//! Both EL1 timers on both CPUs: a thousand interrupts each, none lost, none twice.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bulkhead_guest_tests::{
    check, cpu,
    gic::{self, Bank},
    irq, program, smp,
    sysreg::{ICC_CTLR_EL1, ICC_EOIR1_EL1, ICC_HPPIR1_EL1, ICC_IAR1_EL1},
    timer::{self, Timer},
};

program!(main);

const ROUNDS: u32 = 1000;
const VIRTUAL: u32 = 27;
const PHYSICAL: u32 = 30;
/// ICC_CTLR_EL1.EOImode.
const EOI_DROPS_ONLY: u64 = 2;
const NOTHING: u64 = 1023;

static EARLY: AtomicU32 = AtomicU32::new(0);
static SECONDARY_DONE: AtomicBool = AtomicBool::new(false);

fn timer_of(intid: u32) -> Option<Timer> {
    match intid {
        VIRTUAL => Some(Timer::Virtual),
        PHYSICAL => Some(Timer::Physical),
        _ => None,
    }
}

fn on_interrupt(intid: u32) {
    let Some(timer) = timer_of(intid) else { return };
    if !timer.is_due() {
        EARLY.fetch_add(1, Ordering::SeqCst);
    }
    if irq::count(cpu::index(), intid) < ROUNDS {
        timer.set(timer::ticks(100));
    } else {
        timer.stop();
    }
}

fn run_both() {
    for intid in [VIRTUAL, PHYSICAL] {
        gic::set(intid, Bank::Enable);
    }
    Timer::Virtual.set(timer::ticks(100));
    Timer::Physical.set(timer::ticks(130));
    cpu::unmask();
    let cpu = cpu::index();
    while irq::count(cpu, VIRTUAL) < ROUNDS || irq::count(cpu, PHYSICAL) < ROUNDS {
        cpu::wfi();
    }
    timer::delay_ms(20);
    cpu::mask();
}

fn secondary() {
    gic::init_cpu();
    run_both();
    SECONDARY_DONE.store(true, Ordering::SeqCst);
}

/// Masked: the level stays pending until the timer is stopped, and is active between acknowledge and end.
fn by_hand(intid: u32, timer: Timer) {
    gic::set(intid, Bank::Enable);
    timer.set(timer::ticks(1000));
    let came = timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == u64::from(intid));
    check!(came && timer.is_due(), "{timer:?}: pending when due");
    check!(gic::is_set(intid, Bank::SetPending), "{timer:?}: ISPENDR shows the level");
    check!(ICC_IAR1_EL1.read() == u64::from(intid), "{timer:?}: acknowledged");
    check!(gic::is_set(intid, Bank::SetActive), "{timer:?}: ISACTIVER shows it");
    timer.stop();
    ICC_EOIR1_EL1.write(u64::from(intid));
    check!(!gic::is_set(intid, Bank::SetActive), "{timer:?}: not active after EOI");
    timer::delay_ms(2);
    check!(ICC_HPPIR1_EL1.read() == NOTHING, "{timer:?}: stopped, nothing pending");

    timer.set(timer::ticks(100));
    timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == u64::from(intid));
    let first = ICC_IAR1_EL1.read();
    ICC_EOIR1_EL1.write(first);
    let again = timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == u64::from(intid));
    check!(first == u64::from(intid) && again, "{timer:?}: ended with the level still up, it comes again");
    gic::set(intid, Bank::Disable);
    check!(timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == NOTHING), "{timer:?}: disabled, it does not signal");
    gic::set(intid, Bank::Enable);
    let again = timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == u64::from(intid));
    check!(again, "{timer:?}: enabled, it signals again");
    ICC_CTLR_EL1.write(ICC_CTLR_EL1.read() | EOI_DROPS_ONLY);
    let first = ICC_IAR1_EL1.read();
    ICC_EOIR1_EL1.write(first);
    gic::set(intid, Bank::ClearActive);
    ICC_CTLR_EL1.write(ICC_CTLR_EL1.read() & !EOI_DROPS_ONLY);
    let again = timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == u64::from(intid));
    check!(first == u64::from(intid) && again, "{timer:?}: deactivated by ICACTIVER, it comes again");
    timer.stop();
    timer::delay_ms(2);
    // A list register that holds it already may still deliver it, once.
    let late = ICC_IAR1_EL1.read();
    if late == u64::from(intid) {
        ICC_EOIR1_EL1.write(late);
    }
    timer::delay_ms(2);
    check!(ICC_HPPIR1_EL1.read() == NOTHING, "{timer:?}: stopped before acknowledge, it comes once at most");
}

fn main() {
    gic::init();
    by_hand(VIRTUAL, Timer::Virtual);
    by_hand(PHYSICAL, Timer::Physical);

    irq::set_handler(on_interrupt);
    check!(smp::start(1, secondary) == 0, "cpu 1 started");
    run_both();
    check!(timer::wait_until(20_000, || SECONDARY_DONE.load(Ordering::SeqCst)), "cpu 1 has had its interrupts");
    for cpu in 0..2 {
        let (virt, phys) = (irq::count(cpu, VIRTUAL), irq::count(cpu, PHYSICAL));
        check!((virt, phys) == (ROUNDS, ROUNDS), "cpu {}: exactly 1000 of each timer", cpu; (virt, phys));
    }
    check!(EARLY.load(Ordering::SeqCst) == 0, "none came when its timer was not due"; EARLY.load(Ordering::SeqCst));
}
