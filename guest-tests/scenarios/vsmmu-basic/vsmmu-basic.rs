//! A driver of the VM's own SMMU: tables, commands and events do what the architecture says.
#![no_std]
#![no_main]

use bulkhead_core::vplat::{VSMMU_EVENTQ_INTID, VSMMU_SYNC_INTID};
use bulkhead_guest_tests::{
    check, cpu,
    edu::Edu,
    gic::{self, Bank},
    irq, mem, params, program,
    smmu::{Access, BLOCK_BYTES, Event, Probe, STREAM, Smmu, Space, command, entry, register},
    timer,
};

program!(main);

/// Where the tables map things: nowhere near RAM's addresses.
const IOVA: u64 = 0x12_3456_7000;
const BLOCK_IOVA: u64 = 0x20_0000_0000;
const PAGE: u64 = 4096;

/// Memory of the program, behind that of the SMMU.
struct Memory {
    space: u64,
    other_space: u64,
    probe: u64,
    first: u64,
    second: u64,
    block: u64,
}

struct Guest {
    smmu: Smmu,
    probe: Probe,
    memory: Memory,
}

/// The next event must be that of our stream at `iova`, with `reason`; those behind it, of the same access, are thrown away.
fn expect_event(smmu: Smmu, reason: u64, iova: u64) {
    let event = smmu.wait_event();
    let is_it = event.is_some_and(|event| {
        event.reason() == reason && event.stream() == STREAM && event.address() == iova && !event.has_stage2()
    });
    check!(is_it, "the event"; event.map(|event| event.words));
    smmu.drain_events();
}

fn registers(smmu: Smmu) {
    let features = smmu.read(register::IDR0);
    check!(features & 0b11 == 0b10, "stage 1, no stage 2"; features);
    check!(features & (1 << 10 | 1 << 16 | 1 << 9) == 0, "no ATS, no PRI, no EL2"; features);
    check!(smmu.read(register::IDR1) & 0x3f == 8, "256 streams");
    check!(smmu.read(register::CR0) == 0 && smmu.read(register::GBPA) == 0, "off, and not in abort");
}

fn off(guest: &mut Guest) {
    let Guest { smmu, probe, memory } = guest;
    check!(probe.reaches(memory.first, memory.first), "off: memory by its own address");
    smmu.set_global_abort(true);
    check!(!probe.writes(memory.first, memory.first), "GBPA.ABORT: nothing is written");
    check!(!probe.reads(memory.first, memory.first), "GBPA.ABORT: nothing is read");
    smmu.set_global_abort(false);
    check!(probe.reaches(memory.first, memory.first), "off, without ABORT: as before");
}

fn translation(guest: &mut Guest, space: &mut Space) {
    let Guest { smmu, probe, memory } = guest;
    probe.through_stage1(true);
    smmu.start();
    check!(smmu.set_space(0, space), "CMD_SYNC with a message to RAM");
    space.map(IOVA, memory.first, Access::Both);
    space.map(IOVA + PAGE, memory.second, Access::Read);
    space.map_block(BLOCK_IOVA, memory.block, Access::Both);
    check!(probe.reaches(IOVA, memory.first), "a page");
    check!(probe.reaches(IOVA + 0xff8, memory.first + 0xff8), "its end");
    check!(probe.reaches(BLOCK_IOVA + 0x1_2340, memory.block + 0x1_2340), "a block of 2 MiB");
    check!(probe.reads(IOVA + PAGE, memory.second), "a page that is to be read");
    check!(!probe.writes(IOVA + PAGE, memory.second), "but not written");
    expect_event(*smmu, Event::PERMISSION, IOVA + PAGE);
    check!(!probe.writes(IOVA + 2 * PAGE, memory.first), "nothing behind them");
    expect_event(*smmu, Event::TRANSLATION, IOVA + 2 * PAGE);
    let interrupts = irq::count(0, VSMMU_EVENTQ_INTID.0);
    check!(!probe.writes(memory.first, memory.first), "nothing by its own address");
    expect_event(*smmu, Event::TRANSLATION, memory.first);
    check!(irq::count(0, VSMMU_EVENTQ_INTID.0) > interrupts, "with an interrupt");
}

/// Maps, has it cached, moves it, and flushes by `flush`: the device must follow.
fn moves(guest: &mut Guest, space: &mut Space, name: &str, flush: command::Command) {
    let Guest { smmu, probe, memory } = guest;
    space.map(IOVA, memory.first, Access::Both);
    check!(smmu.sync(&[command::tlbi_all()]) && probe.reaches(IOVA, memory.first), "{name}: before");
    space.map(IOVA, memory.second, Access::Both);
    check!(smmu.sync(&[flush]) && probe.reaches(IOVA, memory.second), "{name}: moved");
    space.unmap(IOVA);
    check!(smmu.sync(&[flush]) && !probe.writes(IOVA, memory.second), "{name}: unmapped, not written");
    expect_event(*smmu, Event::TRANSLATION, IOVA);
    check!(!probe.reads(IOVA, memory.second), "{name}: nor read");
    smmu.drain_events();
}

fn global(guest: &mut Guest, space: &mut Space) {
    let Guest { smmu, probe, memory } = guest;
    space.map_global(IOVA, memory.first);
    check!(smmu.sync(&[command::tlbi_all()]) && probe.reaches(IOVA, memory.first), "a global page");
    space.unmap(IOVA);
    check!(smmu.sync(&[command::tlbi_va(space.asid, IOVA)]), "flushed by address");
    check!(!probe.writes(IOVA, memory.first), "it is gone");
    smmu.drain_events();
}

fn contexts(guest: &mut Guest, space: &mut Space, other: &mut Space) {
    let Guest { smmu, probe, memory } = guest;
    space.map(IOVA, memory.first, Access::Both);
    other.map(IOVA, memory.second, Access::Both);
    check!(smmu.set_space(0, space) && probe.reaches(IOVA, memory.first), "the first space");
    entry::store(smmu.context(0), entry::context(other));
    let is_done = smmu.sync(&[command::cfgi_cd(STREAM)]);
    check!(is_done && probe.reaches(IOVA, memory.second), "CMD_CFGI_CD: the second space");
    check!(smmu.set_space(1, space) && probe.reaches(IOVA, memory.first), "CMD_CFGI_STE: another descriptor");
    check!(smmu.set_entry(entry::ABORT), "Config abort");
    check!(!probe.writes(IOVA, memory.first), "nothing is written");
    check!(smmu.wait_event().is_none(), "and nothing recorded");
    probe.through_stage1(false);
    check!(smmu.set_entry(entry::BYPASS), "Config bypass");
    check!(probe.reaches(memory.first, memory.first), "memory by its own address");
    check!(smmu.set_entry(entry::INVALID), "no entry");
    check!(!probe.writes(memory.first, memory.first), "nothing is written without");
    check!(smmu.wait_event().is_some_and(|event| event.reason() == Event::BAD_STE), "which is recorded");
    smmu.drain_events();
    probe.through_stage1(true);
    check!(smmu.set_space(0, space) && probe.reaches(IOVA, memory.first), "translated again");
}

fn synchronisation(smmu: Smmu) {
    smmu.submit(&[command::tlbi_all(), command::sync()]);
    check!(smmu.is_drained(), "CMD_SYNC by CONS");
    let count = irq::count(0, VSMMU_SYNC_INTID.0);
    smmu.submit(&[command::sync_interrupt()]);
    let came = timer::wait_until(1000, || irq::count(0, VSMMU_SYNC_INTID.0) == count + 1);
    check!(came, "CMD_SYNC by interrupt");
    // Twice round the queue.
    let is_done = (0..20).all(|_| smmu.sync(&[command::tlbi_vaa(IOVA); 29]));
    check!(is_done, "600 commands");
}

fn two_levels(guest: &mut Guest, space: &Space) {
    let Guest { smmu, probe, memory } = guest;
    smmu.stop();
    mem::write64(smmu.first_level(), smmu.second_level() | 7);
    entry::store(smmu.second_level() + STREAM * 64, entry::stage1(smmu.context(2)));
    entry::store(smmu.context(2), entry::context(space));
    smmu.write64(register::STRTAB_BASE, smmu.first_level());
    smmu.write(register::STRTAB_BASE_CFG, register::TWO_LEVEL | 6 << 6 | 8);
    check!(smmu.set_control(register::QUEUES | register::SMMUEN), "a stream table of two levels");
    check!(probe.reaches(IOVA, memory.first), "two levels: a page");
    // One entry less than the stream's.
    mem::write64(smmu.first_level(), smmu.second_level() | 4);
    check!(smmu.sync(&[command::cfgi_all()]), "the second level ends before the stream");
    check!(!probe.writes(IOVA, memory.first), "nothing is written past its end");
    smmu.drain_events();
}

fn off_again(guest: &mut Guest) {
    let Guest { smmu, probe, memory } = guest;
    probe.through_stage1(false);
    smmu.stop();
    check!(probe.reaches(memory.second, memory.second), "off again: memory by its own address");
    smmu.set_global_abort(true);
    check!(!probe.writes(memory.second, memory.second), "off again, in abort");
}

fn main() {
    gic::init();
    for line in [VSMMU_EVENTQ_INTID.0, VSMMU_SYNC_INTID.0] {
        gic::set_edge(line, true);
        gic::set(line, Bank::Enable);
    }
    cpu::unmask();
    let at = params::scratch();
    let part = |number: u64| at + number * 0x1_0000;
    let memory = Memory {
        space: part(1),
        other_space: part(2),
        probe: part(3),
        first: part(4),
        second: part(5),
        block: at + BLOCK_BYTES,
    };
    let smmu = Smmu::new(at);
    registers(smmu);
    let probe = Probe::new(Edu::first(), memory.probe);
    let mut space = Space::new(memory.space, 5);
    let mut other = Space::new(memory.other_space, 6);
    probe.map(&mut space);
    probe.map(&mut other);
    let mut guest = Guest { smmu, probe, memory };
    off(&mut guest);
    translation(&mut guest, &mut space);
    for (name, flush) in [
        ("by address", command::tlbi_va(5, IOVA)),
        ("by range", command::tlbi_range(5, IOVA - PAGE, 4)),
        ("by address of all ASIDs", command::tlbi_vaa(IOVA)),
        ("by ASID", command::tlbi_asid(5)),
        ("all", command::tlbi_all()),
    ] {
        moves(&mut guest, &mut space, name, flush);
    }
    global(&mut guest, &mut space);
    contexts(&mut guest, &mut space, &mut other);
    synchronisation(smmu);
    two_levels(&mut guest, &space);
    off_again(&mut guest);
}
