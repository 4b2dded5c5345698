//! The virtual GIC, interrupt by interrupt: state bits, priorities, routing, more at once than list registers.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use bulkhead_core::vplat::GICD_BASE;
use bulkhead_guest_tests::{
    check, cpu,
    gic::{self, Bank},
    irq, mem, program, psci, smp,
    sysreg::{
        ICC_BPR1_EL1, ICC_CTLR_EL1, ICC_DIR_EL1, ICC_EOIR1_EL1, ICC_HPPIR1_EL1, ICC_IAR1_EL1, ICC_PMR_EL1, ICC_RPR_EL1,
    },
    timer,
};

program!(main);

const NOTHING: u64 = 1023;
const IDLE_PRIORITY: u64 = 0xff;
/// An SPI that no device of the virtual platform has.
const SPI: u32 = 50;

fn pending() -> u64 {
    ICC_HPPIR1_EL1.read()
}

fn acknowledge() -> u64 {
    ICC_IAR1_EL1.read()
}

fn end(intid: u64) {
    ICC_EOIR1_EL1.write(intid);
}

fn becomes(intid: u64) -> bool {
    timer::wait_until(1000, || pending() == intid)
}

fn identification() {
    let gicd = GICD_BASE.as_u64();
    let typer = mem::read32(gicd + gic::GICD_TYPER);
    check!(typer & 31 == 1, "GICD_TYPER: 64 INTIDs"; typer);
    check!(typer & 1 << 17 == 0, "GICD_TYPER: no LPIs"; typer);
    check!(mem::read32(gicd + 0xffe8) & 0xf0 == 0x30, "GICD_PIDR2: GICv3");
    check!(mem::read32(gicd) & 0x10 != 0, "GICD_CTLR: affinity routing");
    let first = mem::read64(gic::redistributor_of(0) + gic::GICR_TYPER);
    let second = mem::read64(gic::redistributor_of(1) + gic::GICR_TYPER);
    check!(first >> 32 == 0 && second >> 32 == 1, "GICR_TYPER: affinities"; (first, second));
    check!(first & 0x10 == 0 && second & 0x10 != 0, "GICR_TYPER: the last one says so"; (first, second));
    let low = mem::read32(gic::redistributor_of(1) + gic::GICR_TYPER);
    let high = mem::read32(gic::redistributor_of(1) + gic::GICR_TYPER + 4);
    check!(u64::from(high) << 32 | u64::from(low) == second, "GICR_TYPER: by halves");
}

fn state_bits(intid: u32) {
    let id = u64::from(intid);
    gic::set(intid, Bank::Disable);
    gic::set(intid, Bank::SetPending);
    check!(gic::is_set(intid, Bank::SetPending) && pending() == NOTHING, "{intid}: pending while disabled, no signal");
    gic::set(intid, Bank::Enable);
    check!(becomes(id), "{intid}: enabled, signals");
    gic::set(intid, Bank::Disable);
    check!(becomes(NOTHING) && gic::is_set(intid, Bank::ClearPending), "{intid}: disabled while pending, kept back");
    gic::set(intid, Bank::Enable);
    gic::set(intid, Bank::ClearPending);
    check!(becomes(NOTHING) && !gic::is_set(intid, Bank::SetPending), "{intid}: ICPENDR takes it back");

    gic::set(intid, Bank::SetPending);
    let acknowledged = becomes(id) && acknowledge() == id;
    let bits = (gic::is_set(intid, Bank::SetPending), gic::is_set(intid, Bank::SetActive));
    check!(acknowledged && bits == (false, true), "{intid}: active, no longer pending"; bits);
    gic::set(intid, Bank::SetPending);
    let bits = (gic::is_set(intid, Bank::SetPending), gic::is_set(intid, Bank::SetActive));
    check!(bits == (true, true) && pending() == NOTHING, "{intid}: active and pending, not signalled"; bits);
    end(id);
    check!(becomes(id) && acknowledge() == id, "{intid}: comes again after the end");
    end(id);
    check!(becomes(NOTHING), "{intid}: and not a third time");

    gic::set(intid, Bank::SetActive);
    gic::set(intid, Bank::SetPending);
    check!(gic::is_set(intid, Bank::ClearActive) && pending() == NOTHING, "{intid}: ISACTIVER holds it back");
    gic::set(intid, Bank::ClearActive);
    check!(becomes(id), "{intid}: ICACTIVER lets it come");
    let taken = acknowledge();
    end(taken);
    check!(taken == id && becomes(NOTHING), "{intid}: once");
}

fn priorities() {
    for intid in [1, SPI] {
        gic::set_priority(intid, 0x50);
        let neighbours = (gic::priority(intid - 1), gic::priority(intid + 1));
        let word = mem::read32(gic::frame(intid) + gic::PRIORITY + u64::from(intid & !3));
        let in_word = word >> (intid % 4 * 8) & 0xff;
        check!(gic::priority(intid) == 0x50 && in_word == 0x50, "{intid}: IPRIORITYR by byte and by word");
        check!(neighbours == (0xa0, 0xa0), "{intid}: a byte write leaves its neighbours"; neighbours);
        gic::set_priority(intid, 0xa0);
    }

    for (intid, priority) in [(40, 0x80), (41, 0x20), (42, 0x60), (43, 0x40)] {
        gic::set_priority(intid, priority);
        gic::set(intid, Bank::Enable);
        gic::set(intid, Bank::SetPending);
    }
    let order = [(); 4].map(|()| {
        let intid = acknowledge();
        end(intid);
        intid
    });
    check!(order == [41, 43, 42, 40], "four priorities, delivered highest first"; order);

    ICC_PMR_EL1.write(0x60);
    gic::set(40, Bank::SetPending);
    check!(acknowledge() == NOTHING, "masked by ICC_PMR");
    gic::set(43, Bank::SetPending);
    let taken = acknowledge();
    check!(taken == 43, "a higher one passes the mask"; taken);
    end(taken);
    ICC_PMR_EL1.write(0xff);
    check!(becomes(40) && acknowledge() == 40, "unmasked, the low one comes");
    end(40);

    ICC_BPR1_EL1.write(0);
    gic::set(40, Bank::SetPending);
    let low = acknowledge();
    gic::set(41, Bank::SetPending);
    let high = acknowledge();
    let running = ICC_RPR_EL1.read();
    check!((low, high, running) == (40, 41, 0x20), "a higher one preempts an active one"; (low, high, running));
    end(high);
    check!(ICC_RPR_EL1.read() == 0x80, "the running priority drops step by step");
    end(low);
    check!(ICC_RPR_EL1.read() == IDLE_PRIORITY, "and to idle");

    let low = {
        gic::set(41, Bank::SetPending);
        acknowledge()
    };
    gic::set(40, Bank::SetPending);
    check!(low == 41 && acknowledge() == NOTHING, "a lower one does not preempt");
    end(low);
    let next = acknowledge();
    check!(next == 40, "it comes afterwards"; next);
    end(next);
}

/// EOImode 1: the priority drop and the deactivation apart.
fn split_end() {
    ICC_CTLR_EL1.write(ICC_CTLR_EL1.read() | 2);
    gic::set(SPI, Bank::Enable);
    gic::set(SPI, Bank::SetPending);
    let taken = acknowledge();
    end(taken);
    let is_active = gic::is_set(SPI, Bank::SetActive);
    check!(
        taken == u64::from(SPI) && is_active && ICC_RPR_EL1.read() == IDLE_PRIORITY,
        "EOImode 1: EOIR drops, stays active"
    );
    ICC_DIR_EL1.write(taken);
    check!(!gic::is_set(SPI, Bank::SetActive), "EOImode 1: DIR deactivates");
    ICC_CTLR_EL1.write(ICC_CTLR_EL1.read() & !2);
}

/// All SGIs and 24 SPIs at once: far more than list registers.
fn flood() {
    let spis = 40..64;
    for intid in (0..16).chain(spis.clone()) {
        gic::set_priority(intid, 0xa0);
        gic::set(intid, Bank::Enable);
        gic::set(intid, Bank::SetPending);
    }
    let mut seen = 0_u64;
    let mut twice = 0_u64;
    for _ in 0..100 {
        let intid = acknowledge();
        if intid == NOTHING {
            if pending() == NOTHING && timer::wait_until(5, || pending() != NOTHING) {
                continue;
            }
            break;
        }
        twice |= seen & 1 << intid;
        seen |= 1 << intid;
        end(intid);
    }
    let wanted = 0xffff | 0xff_ffff << 40;
    check!(seen == wanted && twice == 0, "40 interrupts pending at once, each comes once"; (seen, twice));

    for round in 0..3 {
        for intid in (0..16).chain(spis.clone()) {
            gic::set(intid, Bank::SetPending);
        }
        let mut held = [0; 8];
        // Each of a higher priority than the one before: all eight are active at once.
        for ((slot, intid), priority) in held.iter_mut().zip((0..64).rev()).zip((0_u8..=9).rev()) {
            gic::set_priority(intid, priority << 4);
            *slot = acknowledge();
        }
        let expected = core::array::from_fn(|step| 63 - step as u64);
        check!(held == expected, "eight active at once, others pending, round {round}"; held);
        for intid in held.iter().rev() {
            end(*intid);
        }
        while acknowledge_and_end() != NOTHING {}
        for intid in 40..64 {
            gic::set_priority(intid, 0xa0);
        }
    }
    for intid in spis {
        gic::set(intid, Bank::Disable);
    }
}

fn acknowledge_and_end() -> u64 {
    timer::wait_until(5, || pending() != NOTHING);
    let intid = acknowledge();
    if intid != NOTHING {
        end(intid);
    }
    intid
}

static IS_UP: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);
static TARGET: AtomicUsize = AtomicUsize::new(usize::MAX);

fn secondary() {
    gic::init_cpu();
    cpu::unmask();
    IS_UP.store(true, Ordering::SeqCst);
    while !STOP.load(Ordering::SeqCst) {
        cpu::wfi();
    }
}

fn note_target(intid: u32) {
    if intid == SPI {
        TARGET.store(cpu::index(), Ordering::SeqCst);
    }
}

fn routing() {
    irq::set_handler(note_target);
    check!(smp::start(1, secondary) == psci::SUCCESS, "cpu 1 started");
    timer::wait_until(2000, || IS_UP.load(Ordering::SeqCst));
    gic::set_priority(SPI, 0xa0);
    gic::set(SPI, Bank::Enable);
    cpu::unmask();
    for target in [1, 0, 1, 1, 0] {
        TARGET.store(usize::MAX, Ordering::SeqCst);
        gic::route(SPI, target);
        gic::set(SPI, Bank::SetPending);
        timer::wait_until(1000, || TARGET.load(Ordering::SeqCst) != usize::MAX);
        let actual = TARGET.load(Ordering::SeqCst);
        check!(actual == target, "SPI goes to cpu {target}, where IROUTER says"; actual);
    }
    cpu::mask();
    gic::route(SPI, 0);
    gic::set(SPI, Bank::SetPending);
    becomes(u64::from(SPI));
    TARGET.store(usize::MAX, Ordering::SeqCst);
    gic::route(SPI, 1);
    timer::wait_until(1000, || TARGET.load(Ordering::SeqCst) != usize::MAX);
    check!(TARGET.load(Ordering::SeqCst) == 1, "moved to cpu 1 while pending on cpu 0");
    check!(becomes(NOTHING), "and gone from cpu 0");
}

static LOW_ENTERED: AtomicU32 = AtomicU32::new(0);
static HIGH_DURING_LOW: AtomicBool = AtomicBool::new(false);
static IN_LOW: AtomicBool = AtomicBool::new(false);

fn nest(intid: u32) {
    match intid {
        45 => {
            IN_LOW.store(true, Ordering::SeqCst);
            LOW_ENTERED.fetch_add(1, Ordering::SeqCst);
            cpu::unmask();
            gic::set(46, Bank::SetPending);
            timer::wait_until(1000, || HIGH_DURING_LOW.load(Ordering::SeqCst));
            cpu::mask();
            IN_LOW.store(false, Ordering::SeqCst);
        }
        46 => HIGH_DURING_LOW.store(IN_LOW.load(Ordering::SeqCst), Ordering::SeqCst),
        _ => {}
    }
}

fn preemption() {
    irq::set_handler(nest);
    for (intid, priority) in [(45, 0x80), (46, 0x40)] {
        gic::set_priority(intid, priority);
        gic::set(intid, Bank::Enable);
    }
    cpu::unmask();
    gic::set(45, Bank::SetPending);
    timer::wait_until(1000, || LOW_ENTERED.load(Ordering::SeqCst) == 1);
    cpu::mask();
    check!(HIGH_DURING_LOW.load(Ordering::SeqCst), "a handler is interrupted by a higher priority");
    check!(irq::count(0, 45) == 1 && irq::count(0, 46) == 1, "each once");
}

fn main() {
    gic::init();
    identification();
    state_bits(3);
    state_bits(SPI);
    priorities();
    split_end();
    flood();
    routing();
    preemption();
    check!(irq::spurious() == 0, "no spurious interrupt"; irq::spurious());
    STOP.store(true, Ordering::SeqCst);
}
