//! Queues: sizes, indices that lie, and contents that change under the reader's eyes.

use core::sync::atomic::{AtomicBool, Ordering};

use bulkhead_guest_tests::{
    check, mem, params,
    random::Random,
    smmu::{COMMANDS_LOG2, Rig, Smmu, command, register},
    smp, timer,
};

static IS_OVER: AtomicBool = AtomicBool::new(false);
static HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// The command queue anew, with the register's size field as given.
fn reopen(smmu: Smmu, log2: u64, index: u32) {
    assert!(smmu.set_control(register::SMMUEN), "the queues go off");
    smmu.write64(register::CMDQ_BASE, smmu.command_queue() | log2);
    smmu.write(register::CMDQ_PROD, index);
    smmu.write(register::CMDQ_CONS, index);
    smmu.acknowledge();
    assert!(smmu.set_control(register::QUEUES | register::SMMUEN), "the queues go on");
}

fn sizes(rig: &mut Rig) {
    let smmu = rig.smmu;
    reopen(smmu, 0, 0);
    smmu.submit(&[command::sync()]);
    smmu.write(register::CMDQ_PROD, 1);
    check!(smmu.is_drained(), "a queue of one command");
    // More than IDR1.CMDQS is as much as that.
    for log2 in [9, 19, 31] {
        reopen(smmu, log2, 0);
        check!(smmu.sync(&[command::tlbi_all(); 100]), "a queue of 2^{log2}");
    }
}

/// PROD says that there are more than the queue holds, or fewer than none.
fn indices(rig: &mut Rig) {
    let smmu = rig.smmu;
    for (producer, consumer) in [(0xf_ffff, 0), (0x1ff, 0), (0xff, 0x1ff), (0, 1), (0xffff_ffff, 0xf_ffff)] {
        for word in (0..4096).step_by(16) {
            mem::write64(smmu.command_queue() + word, command::sync()[0]);
            mem::write64(smmu.command_queue() + word + 8, 0);
        }
        reopen(smmu, u64::from(COMMANDS_LOG2), consumer);
        let before = timer::now_ms();
        smmu.write(register::CMDQ_PROD, producer);
        let ms = timer::now_ms() - before;
        check!(smmu.is_drained() && ms < 2000, "PROD {producer:#x} for CONS {consumer:#x}"; ms);
    }
    reopen(smmu, u64::from(COMMANDS_LOG2), 0);
    check!(rig.works(), "stage 1 works after indices");
}

/// A vCPU that stores over the queue and the stream table, without pause.
fn rewrite() {
    let queue = Smmu::at_first().command_queue();
    let table = Smmu::at_first().linear_table();
    let mut random = Random::new(5);
    let commands = [
        command::tlbi_all(),
        command::sync_message(params::ram_end() + 0x40, 7),
        command::sync_message(0x0808_0040, 7),
        command::cfgi_ste(0x18),
        command::cfgi_all(),
        [0x20, 0],
        [0x28 | 2 << 32, 0],
        [u64::MAX, u64::MAX],
    ];
    while !IS_OVER.load(Ordering::Relaxed) {
        let value = random.next_u64();
        let [low, high] = commands[(value % 8) as usize];
        let slot = queue + (value >> 8 & 0xff) * 16;
        mem::write64(slot, low);
        mem::write64(slot + 8, high);
        // Config, valid or not, and an address for its descriptor: of all places in 1 GiB.
        mem::write64(table + 8 * 64, value >> 16 & 0x3fff_ffc0 | value >> 60);
    }
    HAS_ENDED.store(true, Ordering::Release);
}

fn rewritten(rig: &mut Rig) {
    let smmu = rig.smmu;
    check!(smp::start(1, rewrite) == 0, "another vCPU");
    let end = timer::now_ms() + params::number("rewrite_ms", 3000);
    let mut rounds = 0_u32;
    let mut errors = 0_u32;
    while timer::now_ms() < end {
        smmu.write(register::CMDQ_PROD, smmu.read(register::CMDQ_CONS) & 0x1ff ^ 0x100);
        if smmu.error().is_some() {
            errors += 1;
        }
        smmu.acknowledge();
        rounds += 1;
        if rounds.is_multiple_of(64) {
            rig.probe.read(Rig::IOVA);
        }
    }
    IS_OVER.store(true, Ordering::Relaxed);
    check!(timer::wait_until(5000, || HAS_ENDED.load(Ordering::Acquire)), "the other vCPU ends");
    check!(rounds > 10 && errors > 0, "queues that are rewritten are taken, or stop"; rounds; errors);
}

pub fn attack(rig: &mut Rig) {
    sizes(rig);
    indices(rig);
    rewritten(rig);
    check!(rig.start() && rig.works(), "stage 1 works in the end");
}
