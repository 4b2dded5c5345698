//! Tables, descriptors and entries where they may not be, or with everything set.

use bulkhead_guest_tests::{
    check, mem,
    smmu::{Access, Event, Rig, STREAM, STREAMS_LOG2, command, entry, register},
};

use super::{IOVA, Target, few_targets, walks_nowhere};

/// In a place of its own at level 1, so that tables for it are not shared.
const TABLE_IOVA: u64 = 0x40_0000_0000;

/// The table of the last level, then the root, then the descriptor, at the target.
fn walks(rig: &mut Rig, Target { name, at }: Target) {
    rig.space.point(TABLE_IOVA, 2, at);
    check!(rig.smmu.sync(&[command::tlbi_all()]), "flushed");
    walks_nowhere(rig, "table", name, TABLE_IOVA);
    let mut words = entry::context(&rig.space);
    words[1] = at;
    entry::store(rig.smmu.context(1), words);
    check!(rig.smmu.set_entry(entry::stage1(rig.smmu.context(1))), "another root");
    walks_nowhere(rig, "root", name, IOVA);
    check!(rig.smmu.set_entry(entry::stage1(at)), "another descriptor");
    walks_nowhere(rig, "descriptor", name, IOVA);
    check!(rig.restore(), "put back");
}

/// The stream table at the target, linear, and the second level of another.
fn stream_table(rig: &mut Rig, Target { name, at }: Target) {
    let smmu = rig.smmu;
    smmu.stop();
    smmu.write64(register::STRTAB_BASE, at);
    smmu.write(register::STRTAB_BASE_CFG, STREAMS_LOG2);
    check!(smmu.set_control(register::QUEUES | register::SMMUEN), "linear stream table at {name}");
    walks_nowhere(rig, "linear stream table", name, Rig::IOVA);
    smmu.stop();
    smmu.write64(register::STRTAB_BASE, smmu.first_level());
    smmu.write(register::STRTAB_BASE_CFG, register::TWO_LEVEL | 6 << 6 | STREAMS_LOG2);
    mem::write64(smmu.first_level(), at | 7);
    check!(smmu.set_control(register::QUEUES | register::SMMUEN), "second level at {name}");
    walks_nowhere(rig, "second level", name, Rig::IOVA);
}

/// Sizes that no table has: the base is aligned to them, so that the entry is where it was, or out of reach.
fn sizes(rig: &mut Rig) {
    let smmu = rig.smmu;
    let two_levels = register::TWO_LEVEL | 8;
    for (config, has_entry) in
        [(0, false), (3, false), (4, true), (63, false), (two_levels, false), (0x0003_07ff, false), (0x0002_0008, true)]
    {
        smmu.stop();
        smmu.write64(register::STRTAB_BASE, smmu.linear_table());
        smmu.write(register::STRTAB_BASE_CFG, config);
        let is_on = smmu.set_control(register::QUEUES | register::SMMUEN);
        let works = rig.works();
        check!(is_on && works == has_entry, "STRTAB_BASE_CFG {config:#x}"; works);
        smmu.drain_events();
    }
    check!(rig.start() && rig.works(), "stage 1 works after sizes");
}

/// Stage 2 and everything else set beside a stage 1: it is a stage 1, and our stage 2 is under it.
fn entries(rig: &mut Rig) {
    let smmu = rig.smmu;
    let mut words = [u64::MAX; 8];
    // S1STALLD, which an SMMU without stalls does not allow, would make it no entry.
    words[1] = !(1 << 27);
    words[0] = entry::stage1(smmu.context(0))[0] | 0x1f << 59 | 3 << 4;
    // A table of stage 2 made of our own memory, and the other VM's number.
    words[2] = 0x0404_0000_0000_0000 | 2;
    words[3] = rig.free;
    check!(smmu.set_entry(words), "an entry with stage 2");
    check!(rig.works(), "an entry with stage 2 is stage 1 under ours");
    rig.space.map(IOVA, 0x6000_0000, Access::Both);
    rig.probe.load();
    rig.probe.write(IOVA);
    rig.probe.read(IOVA);
    check!(rig.probe.has_read_nothing(), "an entry with stage 2: nothing foreign was read");
    rig.space.unmap(IOVA);
    for config in [6, 7] {
        let mut words = words;
        words[0] = words[0] & !(7 << 1) | config << 1;
        check!(smmu.set_entry(words), "Config {config}");
        rig.probe.read(Rig::IOVA);
        let event = smmu.wait_event();
        check!(event.is_some_and(|event| event.reason() == Event::BAD_STE), "Config {config}: C_BAD_STE"; event);
        smmu.drain_events();
    }
    check!(smmu.set_entry([u64::MAX; 8]), "an entry with everything set");
    check!(!rig.works(), "an entry with everything set is none");
    smmu.drain_events();
}

/// What the architecture does not allow in a descriptor is the hardware's to refuse.
fn descriptors(rig: &mut Rig) {
    let smmu = rig.smmu;
    check!(rig.restore() && rig.works(), "stage 1 works after entries");
    let good = entry::context(&rig.space);
    for (name, words) in [
        ("everything", [u64::MAX; 8]),
        ("not valid", [0; 8]),
        ("stalls", [good[0] | 1 << 44, good[1], 0, 0xff, 0, 0, 0, 0]),
        ("no address", [good[0] | 0x3f, good[1], 0, 0xff, 0, 0, 0, 0]),
    ] {
        entry::store(smmu.context(0), words);
        check!(smmu.sync(&[command::cfgi_cd(STREAM)]), "descriptor, {name}");
        rig.probe.read(Rig::IOVA);
        let event = smmu.wait_event();
        check!(event.is_some_and(|event| event.reason() == Event::BAD_CD), "descriptor, {name}: C_BAD_CD"; event);
        smmu.drain_events();
    }
    check!(rig.restore() && rig.works(), "stage 1 works after descriptors");
}

pub fn attack(rig: &mut Rig) {
    for target in few_targets() {
        walks(rig, target);
    }
    check!(rig.works(), "stage 1 works after walks");
    for target in few_targets() {
        stream_table(rig, target);
    }
    check!(rig.start() && rig.works(), "stage 1 works after stream tables");
    // A base so high that the entry's address wraps.
    stream_table(rig, Target { name: "the top", at: 0x000f_ffff_ffff_ffc0 });
    check!(rig.start() && rig.works(), "stage 1 works after the top");
    sizes(rig);
    entries(rig);
    descriptors(rig);
}
