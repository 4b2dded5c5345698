//! Tests of reading a bundle: every error once, any bytes never a panic.

use std::{vec, vec::Vec};

use proptest::prelude::{Just, ProptestConfig, any, prop_oneof, proptest};

use super::{
    Bundle, BundleError, DmamapFault, DmamapRecord, Header, RecordError, VmRecord, dma_mode,
    sample::{RAM, pack, record, seal},
};
use crate::{
    addr::{AddrRange, Ipa},
    ids::{CpuId, PciFunction},
    vplat::RAM_BASE,
};

fn fault(change: impl FnOnce(&mut VmRecord)) -> RecordError {
    let mut changed = record("a");
    change(&mut changed);
    match Bundle::parse(&pack(&[changed])) {
        Err(BundleError::Vm { fault, .. }) => fault,
        other => panic!("expected a record's fault, got {other:?}"),
    }
}

#[test]
fn layout_has_no_padding() {
    assert_eq!((size_of::<Header>(), size_of::<VmRecord>()), (40, 264));
}

#[test]
fn reads_what_was_packed_at_any_alignment() {
    let bytes = pack(&[record("one"), record("two")]);
    for shift in 0..8 {
        let mut moved = vec![0; shift];
        moved.extend_from_slice(&bytes);
        moved.extend_from_slice(&[0; 100]);
        let bundle = Bundle::parse(&moved[shift..]).expect("a good bundle");
        assert_eq!(bundle.vms().len(), 2);
        let vm = &bundle.vms()[1];
        assert_eq!(vm.name(), "two");
        assert_eq!(vm.cpus().collect::<Vec<_>>(), [CpuId(1), CpuId(2)]);
        assert_eq!(vm.ram_phys(), None);
        assert_eq!(vm.devices()[1].function(), PciFunction::from_routing_id(0, 0x10));
        assert_eq!(bundle.blob(&vm.loads()[1]), [0xa5; 7]);
    }
    assert_eq!(Bundle::declared_bytes(&bytes[..40]), Ok(8199));
}

#[test]
fn refuses_a_damaged_file() {
    let bytes = pack(&[record("a")]);
    for length in 0..bytes.len() {
        let error = Bundle::parse(&bytes[..length]).expect_err("truncated");
        assert!(matches!(error, BundleError::Truncated { .. }), "{length}: {error:?}");
    }
    for place in 40..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        let error = Bundle::parse(&changed).expect_err("changed");
        assert!(matches!(error, BundleError::BadChecksum { .. }), "{place}: {error:?}");
    }
    let mut magic = bytes.clone();
    magic[0] = b'b';
    assert!(matches!(Bundle::parse(&magic), Err(BundleError::BadMagic(_))));
    let mut version = bytes.clone();
    version[8] = 1;
    assert_eq!(Bundle::parse(&version).expect_err("version"), BundleError::BadVersion(1));
    let body = &bytes[40..];
    assert_eq!(Bundle::parse(&seal(body, 0, 0)).expect_err("none"), BundleError::BadVmCount(0));
    assert_eq!(Bundle::parse(&seal(body, 9, 0)).expect_err("nine"), BundleError::BadVmCount(9));
    assert_eq!(Bundle::parse(&seal(body, 1, 8)).expect_err("flag"), BundleError::UnknownFlags(8));
    let short = seal(&body[..200], 1, 0);
    assert!(matches!(Bundle::parse(&short), Err(BundleError::Truncated { .. })));
}

#[test]
fn refuses_bad_names() {
    let mut upper = record("a");
    upper.name[0] = b'A';
    assert_eq!(Bundle::parse(&pack(&[upper])).expect_err("upper"), BundleError::BadName(0));
    let mut gap = record("a");
    gap.name[3] = b'b';
    assert_eq!(Bundle::parse(&pack(&[gap])).expect_err("gap"), BundleError::BadName(0));
    let mut empty = record("a");
    empty.name = [0; 16];
    assert_eq!(Bundle::parse(&pack(&[record("a"), empty])).expect_err("empty"), BundleError::BadName(1));
    let twice = Bundle::parse(&pack(&[record("a"), record("a")])).expect_err("twice");
    assert_eq!(std::format!("{twice}"), "two VMs of the bundle are named a: rename one");
}

#[test]
fn refuses_each_bad_record() {
    let ram = AddrRange::new(RAM_BASE, RAM).expect("ram");
    assert_eq!(fault(|r| r.cpu_count = 0), RecordError::BadCpuCount(0));
    assert_eq!(fault(|r| r.cpu_count = 9), RecordError::BadCpuCount(9));
    assert_eq!(fault(|r| r.cpus[1] = 1), RecordError::DuplicateCpu(1));
    assert_eq!(fault(|r| r.flags = 2), RecordError::UnknownFlags(2));
    for bytes in [0, 0x1000, (2 << 20) + 1, 512 << 30, u64::MAX, !0x1f_ffff] {
        assert_eq!(fault(|r| r.ram_bytes = bytes), RecordError::BadRam(bytes));
    }
    for entry in [0, ram.end().as_u64(), ram.start().as_u64() + 2, u64::MAX] {
        assert_eq!(fault(|r| r.entry_ipa = entry), RecordError::BadEntry(Ipa::new(entry), ram));
    }
    assert_eq!(fault(|r| r.dtb_ipa = 8), RecordError::BadDtb(Ipa::new(8), ram));
    assert_eq!(fault(|r| r.load_count = 5), RecordError::TooManyLoads(5));
    assert_eq!(fault(|r| r.device_count = 9), RecordError::TooManyDevices(9));
    for offset in [0, 4095, 12288, u64::MAX - 4095] {
        let fault = fault(|r| r.loads[0].offset = offset);
        assert!(matches!(fault, RecordError::LoadOutsideBundle { .. }), "{offset:#x}: {fault:?}");
    }
    assert!(matches!(fault(|r| r.loads[0].size_bytes = 0), RecordError::LoadOutsideBundle { .. }));
    assert!(matches!(fault(|r| r.loads[1].size_bytes = 8), RecordError::LoadOutsideBundle { .. }));
    for ipa in [0, ram.end().as_u64() - 4, u64::MAX] {
        assert!(matches!(fault(|r| r.loads[0].ipa = ipa), RecordError::LoadOutsideRam(..)));
    }
    assert!(matches!(fault(|r| r.loads[1].ipa = r.loads[0].ipa + 4), RecordError::LoadsOverlap(..)));
    let function = PciFunction::from_routing_id(0, 8);
    assert_eq!(fault(|r| r.devices[1].routing_id = 8), RecordError::DuplicateDevice(function));
    assert_eq!(fault(|r| r.devices[0].dma_mode = 4), RecordError::UnknownDmaMode(function, 4));
}

/// Would miss: a VM with RAM and maps in one table, or settings that nobody reads and that say otherwise.
#[test]
fn refuses_bad_dma_maps() {
    let [one, two] = [8, 16].map(|routing_id| PciFunction::from_routing_id(0, routing_id));
    let maps = DmamapRecord { maps: 16, tables: 4, ..DmamapRecord::default() };
    assert_eq!(fault(|r| r.devices[1].dma_mode = dma_mode::DMAMAP), RecordError::MixedDmaModes(one, two));
    assert_eq!(fault(|r| r.dmamap = maps), RecordError::DmamapUnused);
    assert_eq!(fault(|r| r.nested_flush = 1), RecordError::NestedUnused);
    assert_eq!(fault(|r| r.nested_flush = 5), RecordError::UnknownNestedFlush(5));
    let both = |record: &mut VmRecord| record.devices[..2].iter_mut().for_each(|device| device.dma_mode = 1);
    let too_few = DmamapFault::OutOfRange { key: "maps", value: 0, max: 16_384 };
    assert_eq!(fault(both), RecordError::Dmamap(too_few));
    let mut good = record("a");
    both(&mut good);
    good.dmamap = maps;
    let bytes = pack(&[good, record("b")]);
    let bundle = Bundle::parse(&bytes).expect("a good bundle");
    assert_eq!(bundle.vms()[0].dmamap().map(|dmamap| (dmamap.maps, dmamap.tables)), Some((16, 4)));
    assert_eq!(bundle.vms()[1].dmamap(), None);
}

/// A bundle, built once.
fn good() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| pack(&[record("a")]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Any bytes: an error at most, also where the checksum holds and records are garbage.
    #[test]
    fn never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        count in prop_oneof![Just(1_u32), Just(2), any::<u32>()],
        edits in proptest::collection::vec((0_usize..256, any::<u8>()), 0..6),
    ) {
        let _ = Bundle::parse(&body);
        let _ = Bundle::parse(&seal(&body, count, 0));
        let mut bytes = good().to_vec();
        for (place, value) in edits {
            bytes[40 + place] = value;
        }
        if let Ok(bundle) = Bundle::parse(&seal(&bytes[40..], 1, 0)) {
            for load in bundle.vms()[0].loads() {
                assert_eq!(bundle.blob(load).len() as u64, load.size_bytes);
            }
        }
    }
}
