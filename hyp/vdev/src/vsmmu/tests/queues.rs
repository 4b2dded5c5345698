//! What a guest must not achieve by queues: where they are, how long, when they change (rules 14, 16, 17, 18).

use super::{
    attacks::{ABORT, CMDQ_ERR, enabled, issue},
    *,
};

/// Would miss: a queue that is read in MMIO, below or past RAM, or around the end of all addresses.
#[test]
fn a_queue_out_of_ram_is_an_aborted_fetch() {
    for base in [0, 0x0900_0000, RAM - 0x1000, RAM + RAM_BYTES, 1 << 51, 0x00ff_ffff_ffff_f000, 0x7fff_ffff_ffff_f000] {
        let mut vm = enabled();
        vm.write(0x20, 1);
        vm.write_double(0x90, base | 8);
        vm.write(0x98, 1);
        vm.write(0x20, 0b1001);
        assert_eq!(vm.calls(), []);
        assert_eq!((vm.read(0x9c), vm.read(0x60)), (ABORT, CMDQ_ERR), "base {base:#x}");
    }
}

/// Would miss: a queue larger than was said to be possible, a base that is not aligned to its size, an index past its end.
#[test]
fn a_queues_size_is_bounded() {
    for log2 in [8, 9, 19, 31] {
        let mut vm = enabled();
        vm.write(0x20, 1);
        // A page of commands that exist, and around it such that do not.
        for page in [RAM, RAM + 0x2000] {
            (page..page + 0x1000).step_by(8).for_each(|at| vm.put(at, &[0xff]));
        }
        (CMDQ..CMDQ + 0x1000).step_by(16).for_each(|at| vm.put(at, &[0x11 | 3 << 48, 0]));
        vm.write_double(0x90, CMDQ | 0xfe0 | log2);
        vm.write(0x20, 0b1001);
        vm.write(0x98, u64::MAX);
        assert_eq!((vm.read(0x98), vm.read(0x9c), vm.read(0x60)), (0x1ff, 0x1ff, 0));
        assert_eq!(vm.calls(), [Call::Flush(Stage1Flush::Asid(3)); 0x1ff]);
    }
}

/// Would miss: more than one call's worth of commands, streams or CMD_SYNCs while the VM's other CPUs wait.
#[test]
fn a_call_is_bounded() {
    for (command, most) in [([0x10, 0], 64), ([0x46, 0], 64), ([0x04, 31], 16), ([0x03 | 8 << 32, 1], 8)] {
        let mut vm = enabled();
        (CMDQ..CMDQ + 0x1000).step_by(16).for_each(|at| vm.put(at, &command));
        let mut calls = 0;
        while vm.write_once(0x98, Width::Word, 0xf_ffff) == Next::More {
            let count = vm.calls().len();
            assert!(count <= most, "{count} of {command:x?}");
            calls += 1;
        }
        assert_eq!(vm.read(0x9c), 0x1ff);
        assert!((7..=511).contains(&calls));
    }
}

/// Would miss: a message outside of the VM's RAM that is stored anywhere, is not told of, or keeps the CMD_SYNC from being
/// consumed; a message that is more than its 32 bits.
#[test]
fn a_message_is_a_store_to_ram_or_nothing() {
    let message = |at: u64| [0x46 | 1 << 12 | 0x1234_5678 << 32, at];
    for at in [RAM - 4, RAM + RAM_BYTES, 0x0809_0040, 0x00ff_ffff_ffff_fffc, 4] {
        let mut vm = enabled();
        assert_eq!(issue(&mut vm, &[message(at)]), [Call::Sync]);
        assert_eq!((vm.read(0x9c), vm.read(0x60)), (1, 1 << 4), "message to {at:#x}");
        assert!(vm.smmu.take_interrupts().contains(Interrupts::GERROR));
    }
    let mut vm = enabled();
    assert_eq!(issue(&mut vm, &[message(0)]), [Call::Sync]);
    assert_eq!((vm.read(0x60), vm.smmu.take_interrupts()), (0, Interrupts::CMD_SYNC));
    for at in [RAM, RAM + 4, RAM + RAM_BYTES - 4, CMDQ + 8, CMDQ + 0xffc] {
        let mut vm = enabled();
        vm.put(at & !7, &[u64::MAX]);
        issue(&mut vm, &[message(at | 3)]);
        let word = if at == CMDQ + 8 { (CMDQ + 8) | 3 } else { u64::MAX };
        let expected =
            if at & 4 == 0 { word & !0xffff_ffff | 0x1234_5678 } else { word & 0xffff_ffff | 0x1234_5678 << 32 };
        assert_eq!((vm.get(at & !7), vm.read(0x60)), (expected, 0), "message to {at:#x}");
    }
}

/// Would miss: a CMD_SYNC that is complete although the hardware's is not.
#[test]
fn a_sync_that_failed_is_not_complete() {
    let mut vm = enabled();
    vm.host.has_failed = true;
    let sync = [0x46 | 1 << 12, CMDQ];
    assert_eq!(issue(&mut vm, &[sync]), [Call::Sync]);
    assert_eq!((vm.read(0x9c), vm.read(0x60), vm.get(CMDQ)), (ABORT, CMDQ_ERR, sync[0]));
    vm.host.has_failed = false;
    vm.write(0x64, CMDQ_ERR);
    assert_eq!((vm.calls(), vm.read(0x9c) & 0xf_ffff, vm.get(CMDQ) & 0xffff_ffff), (vec![Call::Sync], 1, 0));
}

/// Would miss: a command that the hardware did not carry out and that is passed over, or tried for ever.
#[test]
fn what_failed_stops_the_queue() {
    let elsewhere = STRTAB + 0x800;
    for (command, call) in [
        ([0x46 | 1 << 12, elsewhere], Call::Sync),
        ([0x46, 0], Call::Sync),
        ([0x03 | 1 << 35, 0], Call::Configure(8, StreamConfig::Invalid)),
        ([0x05 | 1 << 35, 0], Call::ForgetContext(8)),
    ] {
        let mut vm = enabled();
        vm.put(elsewhere, &[7]);
        vm.host.has_failed = true;
        assert_eq!(issue(&mut vm, &[[0x11, 0], command, [0x30, 0]]).last(), Some(&call), "{command:x?}");
        assert_eq!((vm.read(0x9c), vm.read(0x60), vm.get(elsewhere)), (ABORT | 1, CMDQ_ERR, 7), "{command:x?}");
    }
}

/// A host that lets another vCPU rewrite the whole queue while a command is carried out.
struct Rewriting<'m>(&'m Vm, Vec<Call>);

impl Rewriting<'_> {
    fn rewrite(&mut self, call: Call) {
        self.1.push(call);
        for at in (CMDQ..CMDQ + 0x1000).step_by(16) {
            // A CMD_SYNC to the stream table, of which nobody reads a second word.
            self.0.put(at, &[0x46 | 1 << 12 | 0xdead << 32, STRTAB]);
        }
    }
}

impl Host for Rewriting<'_> {
    fn has_stream(&self, stream: u32) -> bool {
        STREAMS.contains(&stream)
    }
    fn streams(&self) -> impl Iterator<Item = u32> {
        STREAMS.into_iter()
    }
    fn configure(&mut self, stream: u32, config: &StreamConfig) -> Result<(), HostFailed> {
        self.rewrite(Call::Configure(stream, *config));
        Ok(())
    }
    fn forget_context(&mut self, stream: u32) -> Result<(), HostFailed> {
        self.rewrite(Call::ForgetContext(stream));
        Ok(())
    }
    fn flush(&mut self, flush: Stage1Flush) {
        self.rewrite(Call::Flush(flush));
    }
    fn sync(&mut self) -> Result<(), HostFailed> {
        self.rewrite(Call::Sync);
        Ok(())
    }
}

/// Would miss: a command that is read again after it was checked.
#[test]
fn a_command_is_copied_once() {
    for command in [[0x46 | 1 << 12 | 7 << 32, EVENTQ], [0x46 | 1 << 12 | 7 << 32, CMDQ + 0x20]] {
        let vm = enabled();
        vm.put(CMDQ, &command);
        let mut smmu = vm.smmu.clone();
        let mut host = Rewriting(&vm, vec![]);
        let next = smmu.write(0x98, Width::Word, 1, &mut Slab::new(Ipa::new(RAM), &vm.ram), &mut host);
        assert_eq!((next, host.1), (Next::Done, vec![Call::Sync]));
        assert_eq!((vm.get(STRTAB), vm.get(command[1]) & 0xffff_ffff), (0, 7));
    }
}

/// Would miss: a table or a queue that moves, or an index that is set, while the SMMU uses it; a message, while its interrupt
/// is on.
#[test]
fn what_is_in_use_does_not_change() {
    let mut vm = enabled();
    vm.write(0x50, 0b101);
    vm.write(0x20, 0b1101);
    let guarded = [
        0x2c, 0x68, 0x6c, 0x70, 0x74, 0x80, 0x84, 0x88, 0x90, 0x94, 0x9c, 0xa0, 0xa4, 0xb0, 0xb4, 0xb8, 0xbc, 0x1_00a8,
    ];
    for offset in guarded {
        let before = vm.read(offset);
        vm.write(offset, before ^ 0x20);
        vm.write(offset, before ^ 2);
        assert_eq!(vm.read(offset), before, "offset {offset:#x}");
    }
    vm.write(0x20, 0);
    vm.write(0x50, 0);
    for offset in guarded {
        let before = vm.read(offset);
        let bit = if matches!(offset, 0x80 | 0xb0 | 0x68) { 0x40 } else { 2 };
        vm.write(offset, before ^ bit);
        assert_eq!(vm.read(offset), before ^ bit, "offset {offset:#x}");
    }
}
