//! Pseudo-random accesses of every size to every emulated device: the hypervisor lives, the devices still work.
#![no_std]
#![no_main]

use bulkhead_core::vplat::{ECAM_BASE, ECAM_SIZE, GICD_BASE, GICD_SIZE, GICR_BASE, GICR_STRIDE, UART_BASE, UART_SIZE};
use bulkhead_guest_tests::{
    check, console, cpu,
    edu::{self, Edu},
    gic::{self, Bank},
    irq, mem, mmu, params, println, program,
    random::Random,
    timer::{self, Timer},
};

program!(main);

/// UARTDR: junk written here is output, which is another test's subject.
const UART_DATA_END: u64 = 8;

struct Area {
    name: &'static str,
    base: u64,
    bytes: u64,
    first_writable: u64,
}

fn touch(area: &Area, random: &mut Random) {
    let size = 1 << random.below(4);
    // Half of the accesses to where most registers are.
    let span = if random.below(2) == 0 { area.bytes } else { area.bytes.min(0x1000) };
    let any = random.below(span);
    // Device memory must be accessed aligned; the alias is Normal memory.
    let (offset, address) = if params::number("unaligned", 0) != 0 {
        (any, mmu::NORMAL_ALIAS + area.base + any)
    } else {
        (any & !(size - 1), area.base + (any & !(size - 1)))
    };
    let value = match random.below(4) {
        0 => 0,
        1 => u64::MAX,
        _ => random.next_u64(),
    };
    let is_write = random.below(3) != 0 && offset >= area.first_writable;
    let low = value.to_le_bytes();
    match (is_write, size) {
        (true, 1) => mem::write8(address, low[0]),
        (true, 2) => mem::write16(address, u16::from_le_bytes([low[0], low[1]])),
        (true, 4) => mem::write32(address, u32::from_le_bytes([low[0], low[1], low[2], low[3]])),
        (true, _) => mem::write64(address, value),
        (false, 1) => drop(mem::read8(address)),
        (false, 2) => drop(mem::read16(address)),
        (false, 4) => drop(mem::read32(address)),
        (false, _) => drop(mem::read64(address)),
    }
}

fn on_interrupt(intid: u32) {
    if intid == 27 {
        Timer::Virtual.stop();
    } else {
        gic::set(intid, Bank::Disable);
    }
}

fn main() {
    let rounds = params::number("rounds", 20_000);
    let mut random = Random::new(params::number("seed", 1));
    let areas = [
        Area { name: "GICD", base: GICD_BASE.as_u64(), bytes: GICD_SIZE, first_writable: 0 },
        Area { name: "GICR", base: GICR_BASE.as_u64(), bytes: GICR_STRIDE * params::cpus() as u64, first_writable: 0 },
        Area { name: "UART", base: UART_BASE.as_u64(), bytes: UART_SIZE, first_writable: UART_DATA_END },
        Area { name: "ECAM", base: ECAM_BASE.as_u64(), bytes: ECAM_SIZE, first_writable: 0 },
        Area { name: "device 1", base: ECAM_BASE.as_u64() + (1 << 15), bytes: 0x100, first_writable: 0 },
    ];
    for area in &areas {
        println!("fuzzing {}", area.name);
        for _ in 0..rounds {
            touch(area, &mut random);
        }
        console::enable();
        println!("ok: {} survived", area.name);
    }

    gic::init();
    irq::set_handler(on_interrupt);
    gic::set(27, Bank::Enable);
    Timer::Virtual.set(timer::ticks(1000));
    cpu::unmask();
    check!(timer::wait_until(1000, || irq::count(0, 27) == 1), "the GIC works afterwards");
    let has_edu =
        params::number("edu", 0) == 0 || Edu::find(0).is_some_and(|edu| edu.identification() == edu::IDENTIFICATION);
    check!(has_edu, "so does the PCI device");
}
