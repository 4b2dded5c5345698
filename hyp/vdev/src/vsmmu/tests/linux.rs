//! What Linux' driver does (drivers/iommu/arm/arm-smmu-v3 of 6.12), step by step.

use bulkhead_core::stage1::{ContextTable, Stage1Pages};

use super::*;

const STE_CD: u64 = RAM + 0x1_1040;

/// The driver: its producer index.
pub(super) struct Driver {
    pub(super) vm: Vm,
    producer: u32,
}

impl Driver {
    /// Commands and a CMD_SYNC whose message clears the first word of its own slot, which is then polled.
    pub(super) fn issue(&mut self, commands: &[[u64; 2]]) -> Vec<Call> {
        let slot = |producer: u32| CMDQ + u64::from(producer & 0xff) * 16;
        for command in commands {
            self.vm.put(slot(self.producer), command);
            self.producer = (self.producer + 1) & 0x1ff;
        }
        let sync = slot(self.producer);
        self.vm.put(sync, &[0x46 | 1 << 12 | 3 << 22 | 0xf << 24, sync]);
        self.producer = (self.producer + 1) & 0x1ff;
        self.vm.write(0x98, self.producer.into());
        assert_eq!(self.vm.get(sync) & 0xffff_ffff, 0, "CMD_SYNC timeout");
        assert_eq!(self.vm.read(0x9c), self.producer.into());
        self.vm.calls()
    }

    fn write_sync(&mut self, offset: u64, acknowledge: u64, value: u64) {
        self.vm.write(offset, value);
        assert_eq!(self.vm.read(acknowledge), value);
    }

    /// arm_smmu_device_hw_probe and arm_smmu_device_reset, with a linear table since SIDSIZE is 8.
    pub(super) fn probe() -> Self {
        let mut driver = Self { vm: Vm::new(), producer: 0 };
        assert_eq!(driver.vm.read(0x0), 0x0d40_301a);
        assert_eq!(driver.vm.read(0x4), 8 << 21 | 7 << 16 | 8);
        assert_eq!(driver.vm.read(0xc), 1 << 10);
        assert_eq!(driver.vm.read(0x14), 1 << 4 | 2);
        assert_eq!(driver.vm.read(0x18), 0);
        assert_eq!(driver.vm.read(0x20) & 1, 0);
        driver.write_sync(0x20, 0x24, 0);
        driver.vm.write(0x28, 0xd75);
        driver.vm.write(0x2c, 0b110);
        driver.vm.write_double(0x80, 1 << 62 | STRTAB);
        driver.vm.write(0x88, 8);
        driver.vm.write_double(0x90, 1 << 62 | CMDQ | 8);
        driver.vm.write(0x98, 0);
        driver.vm.write(0x9c, 0);
        driver.write_sync(0x20, 0x24, 0b1000);
        // CFGI_ALL, TLBI_NSNH_ALL, each with its SYNC.
        assert_eq!(driver.issue(&[[0x04, 31]]), [Call::Sync]);
        assert_eq!(driver.issue(&[[0x30, 0]]), [Call::Flush(Stage1Flush::All), Call::Sync]);
        driver.vm.write_double(0xa0, 1 << 62 | EVENTQ | 7);
        driver.vm.write(0x1_00a8, 0);
        driver.vm.write(0x1_00ac, 0);
        driver.write_sync(0x20, 0x24, 0b1100);
        driver.write_sync(0x50, 0x54, 0);
        driver.vm.write_double(0x68, 0);
        driver.vm.write_double(0xb0, 0);
        driver.write_sync(0x50, 0x54, 0b101);
        for stream in STREAMS {
            driver.vm.put(STRTAB + u64::from(stream) * 64, &[1]);
        }
        driver.write_sync(0x20, 0x24, 0b1101);
        let aborts = STREAMS.map(|stream| Call::Configure(stream, StreamConfig::Abort));
        assert_eq!(driver.vm.calls(), aborts);
        driver
    }
}

/// Would miss: a register that the driver's probe reads or polls, a SYNC that it waits for.
#[test]
fn the_driver_probes() {
    let mut driver = Driver::probe();
    assert_eq!(driver.vm.smmu.take_interrupts(), Interrupts::empty());
    // arm_smmu_device_disable.
    driver.write_sync(0x20, 0x24, 0);
    assert_eq!(driver.vm.calls(), STREAMS.map(|stream| Call::Configure(stream, StreamConfig::Bypass)));
}

/// Would miss: an entry's fields at the wrong place, an attach without a new configuration, a context that stays cached.
#[test]
fn a_device_gets_a_domain() {
    let mut driver = Driver::probe();
    assert_eq!(driver.issue(&[[0x05 | 8 << 32, 1]]), [Call::ForgetContext(8), Call::Sync]);
    // As make_cdtable_ste: word 1 first, then word 0.
    driver.vm.put(STRTAB + 8 * 64 + 8, &[1 << 2 | 1 << 4 | 3 << 6]);
    driver.vm.put(STRTAB + 8 * 64, &[1 | 5 << 1 | STE_CD]);
    let table = ContextTable { at: Ipa::new(STE_CD), inner: 1, outer: 1, shareability: 3 };
    let expected = [Call::Configure(8, StreamConfig::Stage1(table)), Call::Sync];
    assert_eq!(driver.issue(&[[0x03 | 8 << 32, 1]]), expected);
    // PREFETCH_CONFIG comes without a SYNC of its own.
    assert_eq!(driver.issue(&[[0x01 | 8 << 32, 0]]), [Call::Sync]);
}

/// Would miss: a range or an ASID that is decoded wrong; a flush that is not before its SYNC.
#[test]
fn unmaps_are_flushed() {
    let mut driver = Driver::probe();
    let asid = 0x1234;
    let leaf = |num: u64, scale: u64, level: u64, at: u64| {
        [0x12 | num << 12 | scale << 20 | asid << 48, at | 1 << 10 | level << 8 | 1]
    };
    let pages = |first, pages, is_leaf| {
        Call::Flush(Stage1Flush::Pages(Stage1Pages { asid: Some(0x1234), first, pages, is_leaf }))
    };
    // One page, 37 pages, one 2 MiB block, a table of 512 pages.
    assert_eq!(driver.issue(&[leaf(0, 0, 3, 0xffff_e000)]), [pages(0xffff_e000, 1, true), Call::Sync]);
    let calls = driver.issue(&[leaf(4, 0, 3, 0x1_0000), leaf(0, 5, 3, 0x1_5000)]);
    assert_eq!(calls, [pages(0x1_0000, 5, true), pages(0x1_5000, 32, true), Call::Sync]);
    assert_eq!(driver.issue(&[leaf(0, 9, 2, 0x20_0000)]), [pages(0x20_0000, 512, true), Call::Sync]);
    let walk = [0x12 | asid << 48 | 9 << 20, 0x20_0000 | 1 << 10];
    assert_eq!(driver.issue(&[walk]), [pages(0x20_0000, 512, false), Call::Sync]);
    assert_eq!(driver.issue(&[[0x11 | asid << 48, 0]]), [Call::Flush(Stage1Flush::Asid(0x1234)), Call::Sync]);
}

/// Would miss: a queue's end, in the middle of a batch; a batch of the driver's largest size that is cut off.
#[test]
fn a_batch_crosses_the_queues_end() {
    let mut driver = Driver::probe();
    let batch = vec![[0x11 | 7 << 48, 0]; 64];
    for _ in 0..9 {
        let calls = driver.issue(&batch);
        assert_eq!(calls.len(), 65);
        assert_eq!(calls.last(), Some(&Call::Sync));
    }
}
