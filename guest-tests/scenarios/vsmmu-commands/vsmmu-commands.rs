//! Every opcode with fields in range and out of it, streams of others, queues of strange sizes, a queue that another vCPU
//! rewrites: what is no command stops the queue until it is acknowledged, and nobody else notices any of it.
#![no_std]
#![no_main]

mod queues;

use bulkhead_guest_tests::{
    check, mem, params, println, program,
    smmu::{Rig, STREAM, command, entry, register},
    timer,
};

program!(main);

/// What an SMMU with stage 1 alone has; CMD_TLBI_NSNH_ALL is one of them (4.4.4).
const KNOWN: [u64; 12] = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x46];

/// Puts one command in front of a CMD_SYNC; the error that it stops with. The queue goes on afterwards.
fn outcome(rig: &Rig, words: command::Command) -> Option<u32> {
    let smmu = rig.smmu;
    let place = smmu.read(register::CMDQ_CONS) & 0xff;
    smmu.submit(&[words, command::sync()]);
    smmu.is_drained();
    let error = smmu.error();
    if error.is_some() {
        let stands = smmu.read(register::CMDQ_CONS) & 0xff;
        assert!(stands == place, "CONS names the command: {stands} for {place}");
        // What the driver does: another command in its place, then the acknowledgement.
        let at = smmu.command_queue() + u64::from(place) * 16;
        mem::write64(at, command::sync()[0]);
        mem::write64(at + 8, 0);
        smmu.acknowledge();
        // An acknowledgement alone goes on as well; PROD is what a driver writes anyway.
        smmu.submit(&[command::sync()]);
        assert!(smmu.is_drained(), "the queue goes on");
    }
    error
}

fn opcodes(rig: &mut Rig) {
    let illegal = Some(register::ERROR_ILLEGAL);
    for opcode in 0..=0xff {
        let is_known = KNOWN.contains(&opcode);
        // Nothing else set; everything; the other VM's VMID and stream.
        let plain = outcome(rig, [opcode, 0]);
        let full = outcome(rig, [opcode | !0xff, u64::MAX]);
        let others = outcome(rig, [opcode | 0x0002_0018 << 32, 0x6000_0000]);
        let is_right =
            if is_known { plain.is_none() && others.is_none() } else { [plain, full, others] == [illegal; 3] };
        if !is_right {
            println!("FAIL: opcode {opcode:#x}: {plain:?} {full:?} {others:?}");
        }
    }
    check!(outcome(rig, [0x03 | 1 << 10 | STREAM << 32, 1]) == illegal, "a Secure stream");
    check!(outcome(rig, [0x46 | 3 << 12, 0]) == illegal, "CMD_SYNC, CS = 3");
    check!(outcome(rig, [0x12, 1 << 10]) == illegal, "an empty range without a level");
    check!(outcome(rig, [0x12 | 31 << 12 | 31 << 20, !0xff]).is_none(), "the largest range");
    check!(outcome(rig, [0x04 | STREAM << 32, 31]).is_none(), "every stream");
    check!(rig.restore() && rig.works(), "stage 1 works after 256 opcodes");
}

/// Entries for streams that are others', physical numbers included, and commands that name them.
fn streams(rig: &mut Rig) {
    let smmu = rig.smmu;
    for stream in [0x00, 0x10, 0x18, 0x20, 0xf8] {
        entry::store(smmu.linear_table() + stream * 64, entry::ABORT);
    }
    for stream in [0x00, 0x10, 0x18, 0x20, 0xf8, 0x100, 0x1_0018, 0xffff_ffff] {
        let commands = [command::cfgi_ste(stream), command::cfgi_cd(stream), [0x06 | stream << 32, 0]];
        check!(smmu.sync(&commands), "stream {stream:#x}");
    }
    check!(smmu.sync(&[command::cfgi_all(), [0x04 | 0x18 << 32, 3]]), "all and ranges");
    check!(rig.works(), "stage 1 works after streams");
}

fn main() {
    let mut rig = Rig::new(1);
    check!(rig.start() && rig.works(), "stage 1 works");
    timer::delay_ms(params::number("wait", 0));
    opcodes(&mut rig);
    streams(&mut rig);
    queues::attack(&mut rig);
}
