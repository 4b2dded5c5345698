//! Several edu devices in one VM, perhaps behind bridges or on one interrupt line: each does DMA and interrupts.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use bulkhead_guest_tests::{
    check, cpu,
    edu::Edu,
    gic::{self, Bank},
    irq, mem, params, println, program, timer,
};
use spin::Once;

program!(main);

const EDUS_MAX: usize = 4;

static EDUS: [Once<Edu>; EDUS_MAX] = [const { Once::new() }; EDUS_MAX];
static SEEN: [AtomicU32; EDUS_MAX] = [const { AtomicU32::new(0) }; EDUS_MAX];

/// A shared line: ask every device.
fn on_interrupt(_intid: u32) {
    for (edu, seen) in EDUS.iter().zip(&SEEN) {
        if let Some(edu) = edu.get() {
            let status = edu.interrupt_status();
            if status != 0 {
                seen.store(status, Ordering::SeqCst);
                edu.acknowledge(status);
            }
        }
    }
}

fn main() {
    gic::init();
    irq::set_handler(on_interrupt);
    let wanted = usize::try_from(params::number("edus", 2)).unwrap_or(EDUS_MAX).min(EDUS_MAX);
    let base = params::scratch();
    for (index, slot) in EDUS.iter().enumerate().take(wanted) {
        let Some(edu) = Edu::find(index) else {
            println!("FAIL: edu {index} is missing");
            return;
        };
        slot.call_once(|| edu);
        let intid = edu.function.intid();
        println!("edu {index}: device {}, pin {}, INTID {intid}", edu.function.device(), edu.function.pin());
        edu.acknowledge(u32::MAX);
        gic::set_edge(intid, false);
        gic::set(intid, Bank::Enable);
    }
    cpu::unmask();
    let edus = || EDUS.iter().filter_map(Once::get);
    for (index, edu) in edus().enumerate() {
        let at = base + index as u64 * 0x1_0000;
        mem::fill(at, 4096, index as u64);
        let is_copied = edu.read(at, 0, 4096) && edu.write(at + 0x8000, 0, 4096);
        check!(is_copied && mem::find_changed(at + 0x8000, 4096, index as u64).is_none(), "edu {index}: DMA");
    }
    for round in 1..=50 {
        // All raise at once; each must be seen.
        for edu in edus() {
            edu.raise(round);
        }
        let has_seen = || SEEN.iter().take(wanted).all(|seen| seen.load(Ordering::SeqCst) == round);
        if !timer::wait_until(1000, has_seen) {
            println!("FAIL: round {round}: {:?}", SEEN.each_ref().map(|seen| seen.load(Ordering::SeqCst)));
            return;
        }
    }
    println!("ok: 50 interrupts of each");
}
