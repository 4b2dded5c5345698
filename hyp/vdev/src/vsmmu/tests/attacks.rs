//! What a guest must not achieve by commands (rule 14).

use core::sync::atomic::Ordering::Relaxed;

use bulkhead_core::stage1::Stage1Pages;
use proptest::prelude::{any, proptest};

use super::*;

/// GERROR.CMDQ_ERR.
pub(super) const CMDQ_ERR: u64 = 1 << 0;
/// CONS.ERR.
const ILLEGAL: u64 = 1 << 24;
pub(super) const ABORT: u64 = 2 << 24;

/// A VM whose queues are on and whose SMMU is, with nothing in its stream table.
pub(super) fn enabled() -> Vm {
    let mut vm = Vm::new();
    vm.write_double(0x80, STRTAB);
    vm.write(0x88, 8);
    vm.write_double(0x90, CMDQ | 8);
    vm.write(0x50, 1);
    vm.write(0x20, 0b1001);
    vm.calls();
    vm
}

/// Puts commands at the start of the queue, and has them carried out.
pub(super) fn issue(vm: &mut Vm, commands: &[[u64; 2]]) -> Vec<Call> {
    for (command, at) in commands.iter().zip((CMDQ..).step_by(16)) {
        vm.put(at, command);
    }
    vm.write(0x98, u64::try_from(commands.len()).expect("few"));
    vm.calls()
}

/// Would miss: an opcode of EL2, EL3, stage 2, ATS, PRI or stalls, or one that does not exist, that has any effect; an error
/// that does not stop the queue, is not told, or does not go on from the same command once it is acknowledged.
#[test]
fn unknown_opcodes_stop_the_queue() {
    let known = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x46];
    for opcode in (0..=0xff).filter(|opcode| !known.contains(opcode)) {
        for fields in [0, 0xffff_ffff_ffff_fb00] {
            let mut vm = enabled();
            let calls = issue(&mut vm, &[[0x10, 0], [opcode | fields, fields], [0x46, 0]]);
            assert_eq!(calls, [Call::Flush(Stage1Flush::All)], "opcode {opcode:#x}");
            assert_eq!((vm.read(0x9c), vm.read(0x60)), (ILLEGAL | 1, CMDQ_ERR));
            assert_eq!(vm.smmu.take_interrupts(), Interrupts::GERROR);
            // It stays where it is, whatever the producer does.
            vm.write(0x98, 3);
            assert_eq!((vm.calls(), vm.read(0x9c)), (vec![], ILLEGAL | 1));
            // As Linux does: a CMD_SYNC in its place.
            vm.put(CMDQ + 16, &[0x46 | 2 << 12, 0]);
            vm.write(0x64, CMDQ_ERR);
            assert_eq!((vm.calls(), vm.read(0x9c) & 0xf_ffff), (vec![Call::Sync, Call::Sync], 3));
        }
    }
}

/// Would miss: a Secure stream, a reserved signal, a range of nothing, that is anything but CERROR_ILL.
#[test]
fn reserved_fields_are_illegal() {
    let secure = (1..=6).map(|opcode| [opcode | 1 << 10 | 8 << 32, 0]);
    let ranges = [[0x12, 1 << 10], [0x13, 2 << 10], [0x12, 3 << 10], [0x12, 2 << 10 | 1 << 8]];
    for command in secure.chain(ranges).chain([[0x46 | 3 << 12, CMDQ]]) {
        let mut vm = enabled();
        assert_eq!(issue(&mut vm, &[command]), [], "{command:x?}");
        assert_eq!((vm.read(0x9c), vm.read(0x60)), (ILLEGAL, CMDQ_ERR), "{command:x?}");
    }
}

/// Would miss: a VMID that is looked at, a stream that is not the VM's and reaches the host, a range past the end.
#[test]
fn a_command_reaches_only_its_own_vm() {
    let mut vm = enabled();
    for stream in [0, 7, 9, 0x18, 0x100, 0x108, 0xffff_ffff_u64] {
        let calls = issue(&mut vm, &[[0x03 | stream << 32, 1], [0x05 | stream << 32, 1], [0x06 | stream << 32, 0]]);
        assert_eq!(calls, [], "stream {stream:#x}");
        vm.write(0x20, 0b0001);
        vm.write(0x9c, 0);
        vm.write(0x98, 0);
        vm.write(0x20, 0b1001);
    }
    let vmid = 0xffff << 32;
    let last = Stage1Pages { asid: Some(9), first: !0xfff, pages: 1, is_leaf: false };
    let calls = issue(
        &mut vm,
        &[
            [0x10 | vmid, 0],
            [0x11 | vmid | 9 << 48, 0],
            [0x12 | vmid | 9 << 48, !0xfff],
            // 32 << 31 granules of 64 KiB, from the last page on.
            [0x12 | vmid | 9 << 48 | 31 << 12 | 31 << 20, !0xfff | 3 << 10],
            [0x30 | vmid, 0],
        ],
    );
    let expected =
        [Stage1Flush::All, Stage1Flush::Asid(9), Stage1Flush::Pages(last), Stage1Flush::Pages(last), Stage1Flush::All];
    assert_eq!(calls, expected.map(Call::Flush));
}

/// Would miss: an error that is taken back when it occurs again before it was acknowledged, or told of twice.
#[test]
fn an_active_error_stays_active() {
    let mut vm = enabled();
    let lost = [0x46 | 1 << 12, 0x0900_0000];
    for count in 1..4 {
        assert_eq!(issue(&mut vm, &vec![lost; count]), vec![Call::Sync; count]);
        assert_eq!((vm.read(0x60), vm.smmu.take_interrupts()), (1 << 4, Interrupts::GERROR));
        vm.write(0x64, 1 << 4);
        assert_eq!((vm.read(0x60), vm.read(0x64)), (1 << 4, 1 << 4));
        vm = enabled();
    }
}

/// Would miss: a context that is forgotten, or an entry that is read, while the SMMU is off.
#[test]
fn an_smmu_that_is_off_has_nothing_to_forget() {
    let mut vm = enabled();
    vm.write(0x20, 0b1000);
    vm.calls();
    let commands = [[0x03 | 8 << 32, 1], [0x04, 31], [0x05 | 8 << 32, 1], [0x06 | 8 << 32, 0]];
    assert_eq!(issue(&mut vm, &commands), []);
}

/// Would miss: a range of streams that is too short or too long, or not aligned to its size.
#[test]
fn ranges_of_streams_are_powers_of_two() {
    for (stream, range, expected) in [
        (0, 2, &[][..]),
        (0, 3, &[8]),
        (15, 3, &[8]),
        (16, 3, &[16]),
        (31, 3, &[16]),
        (9, 4, &[8, 16]),
        (32, 4, &[]),
        (0xffff_ffff, 31, &[8, 16]),
        (0, 30, &[8, 16]),
        (1 << 31, 30, &[]),
    ] {
        let calls = issue(&mut enabled(), &[[0x04 | stream << 32, range]]);
        let expected: Vec<_> = expected.iter().map(|&stream| Call::Configure(stream, StreamConfig::Invalid)).collect();
        assert_eq!(calls, expected, "stream {stream:#x}, range {range}");
    }
}

/// Would miss: a field that an SMMU without 16-bit ASIDs and without ranges does not have, and that is looked at.
#[test]
fn fields_that_do_not_exist_are_ignored() {
    let mut vm = enabled();
    vm.smmu.ability = Ability { has_asid16: false, has_range_invalidation: false, ..ABILITY };
    let calls = issue(&mut vm, &[[0x12 | 31 << 12 | 0x1234 << 48, 0x5000 | 1 << 10 | 1], [0x11 | 0x1234 << 48, 0]]);
    let page = Stage1Pages { asid: Some(0x34), first: 0x5000, pages: 1, is_leaf: true };
    assert_eq!(calls, [Stage1Flush::Pages(page), Stage1Flush::Asid(0x34)].map(Call::Flush));
    for (oas_bits, oas) in
        [(0, 0), (32, 0), (33, 1), (39, 2), (40, 2), (42, 3), (43, 4), (44, 4), (45, 5), (52, 5), (255, 5)]
    {
        let smmu = Vsmmu::new(Ability { oas_bits, has_asid16: false, is_terminate_only: false, ..ABILITY });
        let of = |offset| smmu.read(offset, Width::Word);
        assert_eq!((of(0x14), of(0)), (0x10 | oas, 0x0940_201a), "{oas_bits} bits");
    }
}

/// Would miss: an SMMU in front of two that promises what one of them cannot do, or makes an entry that one refuses.
#[test]
fn two_smmus_have_what_both_have() {
    let old = Ability { has_asid16: false, is_terminate_only: false, has_range_invalidation: false, oas_bits: 44 };
    let both = Ability { has_asid16: false, is_terminate_only: true, has_range_invalidation: false, oas_bits: 39 };
    // TERM_MODEL = 1 makes CD.A = 0 ILLEGAL (5.4.2); without it both values may be.
    assert_eq!((ABILITY.of_both(old), old.of_both(ABILITY)), (both, both));
    assert_eq!((ABILITY.of_both(ABILITY), old.of_both(old)), (ABILITY, old));
}

proptest! {
    /// Would miss: a command of any bits with an effect on anything but this VM's translations and streams.
    #[test]
    fn any_command_is_of_the_list(low in any::<u64>(), high in any::<u64>(), opcode in 0..0x80_u64) {
        let mut vm = enabled();
        let before = vm.ram.iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>();
        let calls = issue(&mut vm, &[[low & !0xff | opcode, high]]);
        for call in &calls {
            match call {
                Call::Configure(stream, _) | Call::ForgetContext(stream) => assert!(STREAMS.contains(stream)),
                Call::Flush(Stage1Flush::Pages(pages)) => {
                    assert!(pages.pages >= 1 && pages.first % 4096 == 0);
                    assert!(u128::from(pages.first) + u128::from(pages.pages) * 4096 <= 1 << 64);
                }
                Call::Flush(_) | Call::Sync => {}
            }
        }
        assert!(calls.len() <= STREAMS.len());
        if opcode != 0x46 {
            let after = vm.ram.iter().map(|word| word.load(Relaxed));
            assert!(after.skip(0x202).eq(before.into_iter().skip(0x202)));
        }
    }
}
