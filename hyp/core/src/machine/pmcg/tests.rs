//! Groups as boards have them, and whose they are taken to be.

use std::{format, vec::Vec};

use dtoolkit::model::{DeviceTree, DeviceTreeNode};

use super::{
    super::{
        Machine,
        sample::{Is, node, set, virt},
    },
    Pmcg, PmcgClaim,
};
use crate::{
    addr::{AddrRange, PhysAddr},
    ids::SmmuId,
};

fn page(start: u64) -> AddrRange<PhysAddr> {
    AddrRange::new(PhysAddr::new(start), 0x1000).expect("a page")
}

/// A group with its pages, and no interrupt.
fn group(pages: &[u32]) -> DeviceTreeNode {
    let reg: Vec<u32> = pages.iter().flat_map(|start| [0, *start, 0, 0x1000]).collect();
    let first = pages.first().expect("a page");
    node(&format!("pmu@{first:x}"), &[("compatible", Is::Text("arm,smmu-v3-pmcg")), ("reg", Is::Cells(&reg))])
}

fn smmu(start: u32, bytes: u32) -> DeviceTreeNode {
    let reg = [0, start, 0, bytes];
    node(&format!("iommu@{start:x}"), &[("compatible", Is::Text("arm,smmu-v3")), ("reg", Is::Cells(&reg))])
}

fn read(nodes: impl IntoIterator<Item = DeviceTreeNode>) -> Machine {
    let mut tree: DeviceTree = virt();
    tree.root.remove_child("smmuv3@9050000");
    nodes.into_iter().for_each(|node| tree.root.add_child(node));
    Machine::from_dtb(&tree.to_dtb()).expect("a machine")
}

fn claims(machine: &Machine) -> Vec<Option<(u8, PmcgClaim)>> {
    machine.pmcgs.iter().map(|group| machine.smmu_of(group).map(|(SmmuId(id), claim)| (id, claim))).collect()
}

/// Would miss: a page taken for another, a group without page 1 or without an interrupt refused.
#[test]
fn pages_are_read_with_or_without_the_second() {
    let machine = read([smmu(0x2b40_0000, 0x2_0000), group(&[0x2b42_0000, 0x2b43_0000]), group(&[0x2b44_0000])]);
    assert_eq!(
        machine.pmcgs.as_slice(),
        [
            Pmcg { registers: page(0x2b42_0000), counters: Some(page(0x2b43_0000)) },
            Pmcg { registers: page(0x2b44_0000), counters: None },
        ]
    );
}

/// As on i.MX 95, whose SMMU node covers all groups, and on Agilex 5, whose node covers that of the walker alone.
#[test]
fn one_smmu_has_all_groups() {
    let machine = read([smmu(0x490d_0000, 0x10_0000), group(&[0x490d_2000, 0x490f_2000]), group(&[0x4911_2000])]);
    assert_eq!(claims(&machine), [Some((0, PmcgClaim::Inside)); 2]);
    let machine = read([smmu(0x1600_0000, 0x3_0000), group(&[0x1600_2000, 0x1602_2000]), group(&[0x1604_2000])]);
    assert_eq!(claims(&machine), [Some((0, PmcgClaim::Inside)), Some((0, PmcgClaim::Only))]);
}

/// Would miss: a guess told as a fact, a group given to an SMMU above it or to an SMMUv2.
#[test]
fn with_several_smmus_nearness_is_a_guess() {
    let v2 = [("compatible", Is::Text("arm,mmu-500")), ("reg", Is::Cells(&[0, 0x2000_0000, 0, 0x1_0000]))];
    let machine = read([
        smmu(0x3000_0000, 0x2_0000),
        smmu(0x1000_0000, 0x2_0000),
        node("iommu@20000000", &v2),
        group(&[0x1004_2000]),
        group(&[0x2000_2000]),
        group(&[0x3004_2000]),
        group(&[0x3000_2000]),
        group(&[0x0f00_0000]),
    ]);
    let nearest = |id| Some((id, PmcgClaim::Nearest));
    assert_eq!(claims(&machine), [nearest(1), nearest(1), nearest(0), Some((0, PmcgClaim::Inside)), None]);
    assert_eq!(claims(&read([group(&[0x1004_2000])])), [None]);
}

/// Statistics are no reason not to boot.
#[test]
fn disabled_groups_are_absent_and_too_many_left_out() {
    let mut tree = virt();
    tree.root.add_child(group(&[0x1000_0000]));
    set(&mut tree, "/pmu@10000000", "status", &Is::Text("disabled"));
    assert!(Machine::from_dtb(&tree.to_dtb()).expect("a machine").pmcgs.is_empty());
    let machine = read((0..40).map(|number| group(&[0x1000_0000 + number * 0x1_0000])));
    assert_eq!(machine.pmcgs.len(), super::PMCGS_MAX);
}
