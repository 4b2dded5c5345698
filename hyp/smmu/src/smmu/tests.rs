//! The driver against the strict model: no violation, whatever the SMMU is like.

mod busy;
mod configure;
mod events;
mod failures;
mod nested;
mod random;
mod stage1;
mod streams;
mod take_over;
mod tickets;

use std::vec::Vec;

use bulkhead_core::{
    addr::{Iova, Ipa, PhysAddr},
    ids::{SmmuId, Vmid},
    stage1::{ContextTable, StreamConfig},
    stage2::S2Config,
};

use super::{Config, Smmu};
use crate::{
    event::Reason,
    features::IdRegisters,
    model::{Caching, Model, ModelConfig, Outcome, TestTable, Visibility},
};

/// Opcodes, as IHI 0070 chapter 4 has them.
const CFGI_STE: u8 = 0x03;
const CFGI_CD_ALL: u8 = 0x06;
const NH_ALL: u8 = 0x10;
const NH_ASID: u8 = 0x11;
const NH_VA: u8 = 0x12;
const NH_VAA: u8 = 0x13;
const S12_VMALL: u8 = 0x28;
const S2_IPA: u8 = 0x2a;
const SYNC: u8 = 0x46;

const IPA: Ipa = Ipa::new(0x4000_0000);
const IOVA: Iova = Iova::new(0x4000_0000);
const HOLE: Iova = Iova::new(0x5000_0000);

/// A stage 1 whose context descriptor is at this IPA.
const fn stage1(at: u64) -> StreamConfig {
    StreamConfig::Stage1(ContextTable { at: Ipa::new(at), inner: 1, outer: 1, shareability: 3 })
}

fn linear(id: IdRegisters) -> IdRegisters {
    IdRegisters { idr0: id.idr0 & !(3 << 27), ..id }
}

/// Every kind of SMMU that a test of a sequence has to be run on.
fn every_config() -> Vec<ModelConfig> {
    let no_ranges = IdRegisters { idr3: 0, ..ModelConfig::QEMU };
    let mut all = Vec::new();
    for id in
        [ModelConfig::QEMU, linear(ModelConfig::QEMU), no_ranges, ModelConfig::MMU600, linear(ModelConfig::MMU600)]
    {
        for visibility in [Visibility::Late, Visibility::Early] {
            for caching in [Caching::Whole, Caching::ByWord] {
                for lag in [0, 3] {
                    for is_left_on in [false, true] {
                        all.push(ModelConfig { id, visibility, caching, lag, is_left_on });
                    }
                }
            }
        }
    }
    all
}

/// Streams up to 0x3ff: four PCI buses, linear table of 64 KiB.
fn config() -> Config {
    Config::new(40, 0x3ff)
}

fn take_over(model: &Model) -> Smmu<Model> {
    Smmu::take_over(model.clone(), SmmuId(0), config()).expect("take-over")
}

/// A VM of one page of memory, mapped at `IPA`.
struct Vm {
    s2: S2Config,
    frame: PhysAddr,
    table: TestTable,
}

fn vm(model: &Model, vmid: u16) -> Vm {
    let frame = model.alloc(1, 4096);
    let mut table = TestTable::new(model);
    table.map_page(IPA, frame, true);
    let vmid = Vmid::new(vmid).expect("a vmid");
    Vm { s2: S2Config { vmid, root: table.root(), ipa_bits: 39, output_bits: 40 }, frame, table }
}

fn reason(outcome: Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Faulted(event) => Some(event.reason),
        _ => None,
    }
}
