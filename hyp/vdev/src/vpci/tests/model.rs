//! Any sequence of writes against a table of what is mapped (security rule 20).

use std::{collections::BTreeMap, vec::Vec};

use super::space::{bar, nic};
use crate::{
    mmio::Width,
    vpci::{Bar, BarWidth, Effect, VirtualFunction, Vpci},
};
use bulkhead_core::vplat::{PCI_MEM_BASE, PCI_MEM_SIZE};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

const FUNCTIONS: usize = 3;

/// By function: its BARs. Of different sizes and widths, one larger than the window.
fn bars(function: usize) -> [Option<Bar>; 6] {
    let base = 0x100_0000_0000 * (function as u64 + 1);
    let mut bars = [None; 6];
    bars[0] = bar(base, 0x1000 << function, BarWidth::Bits32);
    bars[1] = bar(base + 0x1_0000_0000, 0x10_0000, BarWidth::Bits64);
    bars[3] = bar(base + 0x2_0000_0000, 0x100, BarWidth::Bits32);
    bars[4] = bar(base + 0x40_0000_0000, 0x4000_0000, BarWidth::Bits64);
    bars
}

fn offset() -> impl Strategy<Value = u64> {
    let register = prop_oneof![4 => Just(4u64), 8 => 0x10..0x28u64, 1 => 0x70..0x80u64, 1 => any::<u64>()];
    (0..FUNCTIONS as u64 + 2, register).prop_map(|(device, register)| device << 15 | register)
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..0x40u64).prop_map(|n| 0x2000_0000 + n * 0x800),
        2 => (0..8u64).prop_map(|n| 0x2000_0000 + n * 0x10_0000),
        2 => Just(2),
        1 => Just(6),
        1 => Just(0),
        1 => Just(u64::MAX),
        1 => Just(0x8000),
        2 => any::<u64>(),
    ]
}

fn width() -> impl Strategy<Value = Width> {
    (0..8usize).prop_map(|n| *Width::ALL.get(n).unwrap_or(&Width::Word))
}

/// What EL2's stage 2 would hold: start -> (size, physical start, function).
#[derive(Default)]
struct Stage2(BTreeMap<u64, (u64, u64, usize)>);

impl Stage2 {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Unmap { function, ipa, size_bytes } => {
                let (size, _, owner) = self.0.remove(&ipa.as_u64()).expect("only what is mapped is unmapped");
                assert_eq!((size, owner), (size_bytes, function));
            }
            Effect::Map { function, ipa, phys, size_bytes } => {
                let (start, end) = (ipa.as_u64(), ipa.as_u64() + size_bytes);
                assert!(start % 4096 == 0 && size_bytes % 4096 == 0 && size_bytes > 0);
                assert!(start >= PCI_MEM_BASE.as_u64() && end <= PCI_MEM_BASE.as_u64() + PCI_MEM_SIZE);
                for (&other, &(size, ..)) in &self.0 {
                    assert!(other + size <= start || end <= other, "{start:#x} over {other:#x}");
                }
                let owned = bars(function).into_iter().flatten().any(|bar| {
                    bar.base().as_u64() <= phys.as_u64()
                        && phys.as_u64() + size_bytes <= bar.base().as_u64() + bar.size_bytes()
                });
                assert!(owned, "{phys} is no BAR of function {function}");
                self.0.insert(start, (size_bytes, phys.as_u64(), function));
            }
            Effect::BusMaster { function, .. }
            | Effect::IntxDisable { function, .. }
            | Effect::FunctionReset { function } => {
                assert!(function < FUNCTIONS);
            }
        }
    }
}

/// What should be mapped, from what the guest reads back: independent of how it came about.
fn expected(vpci: &Vpci, config: &super::space::Physical) -> BTreeMap<u64, (u64, u64, usize)> {
    let mut taken: Vec<(u64, u64)> = Vec::new();
    let mut expected = BTreeMap::new();
    for function in 0..FUNCTIONS {
        let read = |offset: u64| vpci.read((function as u64 + 1) << 15 | offset, Width::Word, config);
        for (n, bar) in bars(function).into_iter().enumerate() {
            let Some(bar) = bar else { continue };
            let at = 0x10 + 4 * n as u64;
            let upper = if bar.width() == BarWidth::Bits64 { read(at + 4) << 32 } else { 0 };
            let start = upper | (read(at) & !0xf);
            let Some(end) = start.checked_add(bar.size_bytes()) else { continue };
            let is_inside = start >= 0x2000_0000 && end <= 0x4000_0000;
            let is_free = taken.iter().all(|&(from, to)| end <= from || to <= start);
            if read(4) & 2 != 0 && is_inside && is_free {
                taken.push((start, end));
                expected.insert(start, (bar.size_bytes(), bar.base().as_u64(), function));
            }
        }
    }
    expected
}

proptest! {
    /// Would miss a mapping outside the window, over another, of a foreign page, one too many, or one forgotten.
    #[test]
    fn what_is_mapped_is_what_the_registers_say(
        writes in proptest::collection::vec((offset(), width(), value()), 0..120), resets in 0..200usize
    ) {
        let config = nic();
        let mut vpci = Vpci::new();
        for function in 0..FUNCTIONS {
            vpci.add(VirtualFunction::probe(&config, function, bars(function), 1)).expect("there is room");
        }
        let mut stage2 = Stage2::default();
        for (n, (offset, width, value)) in writes.into_iter().enumerate() {
            if n == resets {
                vpci.reset(|effect| stage2.apply(effect));
                assert!(stage2.0.is_empty());
            }
            vpci.write(offset, width, value, &config, |effect| stage2.apply(effect));
            assert_eq!(stage2.0, expected(&vpci, &config));
            let _ = vpci.read(offset, width, &config);
        }
        vpci.reset(|effect| stage2.apply(effect));
        assert!(stage2.0.is_empty());
    }
}
