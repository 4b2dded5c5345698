//! INTx of the edu device: a hundred interrupts, each once; levels, masks, DMA's own interrupt.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bulkhead_guest_tests::{
    check, cpu,
    edu::Edu,
    gic::{self, Bank},
    irq, mem, params, pci, println, program,
    sysreg::{ICC_CTLR_EL1, ICC_DIR_EL1, ICC_EOIR1_EL1, ICC_HPPIR1_EL1, ICC_IAR1_EL1},
    timer,
};
use spin::Once;

program!(main);

const NOTHING: u64 = 1023;
/// ICC_CTLR_EL1.EOImode.
const EOI_DROPS_ONLY: u64 = 2;
const ROUNDS: u32 = 100;

static EDU: Once<Edu> = Once::new();
static SEEN: AtomicU32 = AtomicU32::new(0);
static KEEP_LEVEL: AtomicBool = AtomicBool::new(false);

fn on_interrupt(_intid: u32) {
    if let Some(edu) = EDU.get() {
        let status = edu.interrupt_status();
        SEEN.store(status, Ordering::SeqCst);
        if !KEEP_LEVEL.swap(false, Ordering::SeqCst) {
            edu.acknowledge(status);
        }
    }
}

/// Deactivated by the distributor's register in place of the CPU interface: the physical one must be as well.
fn by_register(edu: Edu, intid: u32) {
    let id = u64::from(intid);
    ICC_CTLR_EL1.write(ICC_CTLR_EL1.read() | EOI_DROPS_ONLY);
    edu.raise(1);
    timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == id);
    ICC_IAR1_EL1.read();
    edu.acknowledge(1);
    ICC_EOIR1_EL1.write(id);
    check!(gic::is_set(intid, Bank::SetActive), "EOImode 1: active after EOI");
    gic::set(intid, Bank::ClearActive);
    check!(!gic::is_set(intid, Bank::SetActive), "ICACTIVER deactivates it");
    edu.raise(1);
    check!(timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == id), "and the line can interrupt again");
    ICC_IAR1_EL1.read();
    edu.acknowledge(1);
    ICC_EOIR1_EL1.write(id);
    ICC_DIR_EL1.write(id);
    ICC_CTLR_EL1.write(ICC_CTLR_EL1.read() & !EOI_DROPS_ONLY);
}

fn by_hand(edu: Edu, intid: u32) {
    let id = u64::from(intid);
    edu.raise(1);
    check!(timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == id), "raised: pending");
    check!(gic::is_set(intid, Bank::SetPending), "ISPENDR shows it");
    check!(ICC_IAR1_EL1.read() == id, "acknowledged");
    check!(gic::is_set(intid, Bank::SetActive), "ISACTIVER shows it");
    ICC_EOIR1_EL1.write(id);
    check!(timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == id), "ended with the line up: it comes again");
    ICC_IAR1_EL1.read();
    edu.acknowledge(1);
    ICC_EOIR1_EL1.write(id);
    timer::delay_ms(5);
    check!(ICC_HPPIR1_EL1.read() == NOTHING, "line down: it does not");
    check!(!gic::is_set(intid, Bank::SetPending), "ISPENDR is clear");

    by_register(edu, intid);

    edu.function.set_command(edu.function.command() | pci::INTX_DISABLE);
    edu.raise(1);
    timer::delay_ms(5);
    check!(ICC_HPPIR1_EL1.read() == NOTHING, "INTx disabled in Command: nothing comes");
    edu.function.set_command(edu.function.command() & !pci::INTX_DISABLE);
    check!(timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == id), "enabled: it does");
    gic::set(intid, Bank::Disable);
    check!(timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == NOTHING), "disabled in the GIC: kept back");
    gic::set(intid, Bank::Enable);
    check!(timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == id), "enabled in the GIC: it comes");
    ICC_IAR1_EL1.read();
    edu.acknowledge(1);
    ICC_EOIR1_EL1.write(id);
}

fn main() {
    gic::init();
    let edu = Edu::first();
    EDU.call_once(|| edu);
    edu.acknowledge(u32::MAX);
    let intid = edu.function.intid();
    println!("pin {}, INTID {intid}", edu.function.pin());
    gic::set_edge(intid, false);
    gic::set(intid, Bank::Enable);
    by_hand(edu, intid);

    irq::set_handler(on_interrupt);
    cpu::unmask();
    let mut lost = 0;
    for round in 1..=ROUNDS {
        edu.raise(round);
        if !timer::wait_until(1000, || irq::count(0, intid) == round && SEEN.load(Ordering::SeqCst) == round) {
            lost += 1;
        }
        if params::number("slow", 0) != 0 {
            timer::delay_ms(10);
        }
    }
    check!(lost == 0 && irq::count(0, intid) == ROUNDS, "100 interrupts, each once"; (lost, irq::count(0, intid)));

    KEEP_LEVEL.store(true, Ordering::SeqCst);
    edu.raise(0x55);
    check!(timer::wait_until(1000, || irq::count(0, intid) == ROUNDS + 2), "a level kept up comes twice");

    let at = params::scratch();
    mem::fill(at, 64, 1);
    edu.start_write_with_interrupt(at, 0, 64);
    check!(timer::wait_until(5000, || SEEN.load(Ordering::SeqCst) == 0x100), "DMA's interrupt comes");
    check!(mem::find_changed(at, 64, 1).is_some(), "and the data is there before it");
    cpu::mask();
    check!(irq::count(0, intid) == ROUNDS + 3 && irq::spurious() == 0, "none too many"; irq::count(0, intid));
}
