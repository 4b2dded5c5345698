//! What a driver asks its SMMU for again and again: a batch of invalidations and a CMD_SYNC that clears its own slot, by one
//! store of CMDQ_PROD, and nothing else that comes to the hypervisor.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check, mem, params, program,
    smmu::{COMMANDS_LOG2, Rig, command, register},
};

program!(main);

/// `rounds=N` batches of `commands=N` single pages that do not lie together and a CMD_SYNC each.
fn main() {
    let mut rig = Rig::new(1);
    check!(rig.start() && rig.works(), "stage 1 works");
    let smmu = rig.smmu;
    let (rounds, commands) = (params::number("rounds", 1000), params::number("commands", 1));
    let slot = |at: u64| smmu.command_queue() + at % (1 << COMMANDS_LOG2) * 16;
    let put = |at: u64, [low, high]: command::Command| {
        mem::write64(slot(at), low);
        mem::write64(slot(at) + 8, high);
    };
    let mut at = u64::from(smmu.read(register::CMDQ_PROD));
    let mut is_done = true;
    for round in 0..rounds {
        for page in 0..commands {
            put(at, command::tlbi_va(1, (round * 64 + page * 2) << 12));
            at += 1;
        }
        let sync = slot(at);
        put(at, command::sync_message(sync, 0));
        at += 1;
        smmu.write(register::CMDQ_PROD, (at % (2 << COMMANDS_LOG2)) as u32);
        is_done &= mem::read32(sync) == 0;
    }
    check!(is_done, "every slot was cleared");
}
