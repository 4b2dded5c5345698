//! Changes of flush policy, each of which is a line; pages of stage-1 faults, one after the other; queues full of commands; then
//! a reset, after which the device works.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    edu::BUFFER_BYTES,
    mem, params, println, program, psci,
    smmu::{COMMANDS_LOG2, Rig, command, register},
    timer,
};

program!(main);

const IOVA: u64 = 0x20_0000_0000;

/// Faults up to `faults=` seconds of the physical counter, which goes on through a reset; commands up to `commands=`.
fn main() {
    let (faults, commands) = (params::number("faults", 6), params::number("commands", 9));
    let mut rig = Rig::new(1);
    rig.probe.edu.wait();
    check!(rig.start() && rig.works(), "stage 1 works");
    if timer::seconds() >= commands {
        return;
    }
    println!("flooding with changes of policy");
    let is_done =
        (0..100).all(|_| rig.smmu.sync(&[command::tlbi_most(1)]) && rig.smmu.sync(&[command::tlbi_va(1, IOVA)]));
    check!(is_done, "every change of policy");
    println!("flooding with faults");
    let mut iova = IOVA;
    while timer::seconds() < faults {
        rig.probe.edu.write(iova, 0, BUFFER_BYTES);
        iova += BUFFER_BYTES;
    }
    println!("flooding with commands");
    let commands_max = 1_u32 << COMMANDS_LOG2;
    let smmu = rig.smmu;
    for place in 0..commands_max {
        // What costs most: a new configuration of every stream, and a wait for each.
        let word = if place % 2 == 0 { command::cfgi_all() } else { command::sync() };
        mem::write64(smmu.command_queue() + u64::from(place) * 16, word[0]);
        mem::write64(smmu.command_queue() + u64::from(place) * 16 + 8, word[1]);
    }
    let mut rounds = 0;
    while timer::seconds() < commands {
        smmu.write(register::CMDQ_PROD, smmu.read(register::CMDQ_CONS) & 0x1ff ^ commands_max);
        rounds += 1;
    }
    println!("resetting after {rounds} queues");
    psci::system_reset();
}
