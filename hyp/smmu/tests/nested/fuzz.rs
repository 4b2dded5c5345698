//! Arbitrary guests: registers, queues, tables and commands made up, beside a guest that behaves.

use bulkhead_dma::flush::{Kind, Stage1Mode};
use bulkhead_smmu::model::{Caching, DmaAccess, ModelConfig, Mutation, Visibility};
use bulkhead_vdev::mmio::Width;
use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest},
    sample::select,
    test_runner::TestCaseError,
};

use crate::{
    guest::{CMDQ, CONTEXTS, EVENTQ, PAGES, RAM, Ram, SLOTS, STRTAB, VA},
    hostile::{Forget, HOSTILE},
    streams::VIRTUAL,
    world::World,
};

/// What somebody does.
#[derive(Clone, Debug)]
enum Step {
    /// The guest stores to a register.
    Register { offset: u64, width: Width, value: u64 },
    /// The same, with everything off before, and on after.
    SetUp { offset: u64, value: u64 },
    /// It stores to its memory.
    Store { at: u64, value: u64 },
    /// It adds commands, and tells of them.
    Commands(Vec<[u64; 2]>),
    /// It has everything forgotten.
    Settle(Forget),
    /// Its device does something.
    Device { which: usize, va: u64, is_write: bool },
    /// Its events arrive.
    Events,
    /// The other VM goes on.
    Other,
}

/// Numbers of the kinds that stand in registers and structures.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..PAGES, 0..64_u64).prop_map(|(page, low)| RAM + page * 4096 + low),
        2 => (0..PAGES, any::<u16>()).prop_map(|(page, high)| (RAM + page * 4096) | u64::from(high) << 48 | 3),
        2 => 0..600_u64,
        1 => (0..64_u32).prop_map(|bit| 1 << bit),
        1 => (0..64_u32).prop_map(|bit| u64::MAX << bit),
        1 => any::<u64>(),
    ]
}

/// The width of a register.
fn width(offset: u64) -> Width {
    if matches!(offset, 0x80 | 0x90 | 0xa0) { Width::Double } else { Width::Word }
}

fn register() -> impl Strategy<Value = Step> {
    // By what there is to find behind them.
    let known = vec![
        (0x20, 0b1101),
        (0x20, 0b1100),
        (0x20, 0b1000),
        (0x20, 0b0101),
        (0x44, 1 << 31),
        (0x44, 1 << 31 | 1 << 20),
        (0x80, STRTAB),
        (0x80, STRTAB + 0x4000),
        (0x80, STRTAB + 0x4c0),
        (0x88, 8),
        (0x88, 4),
        (0x88, 63),
        (0x88, 1 << 16 | 6 << 6 | 8),
        (0x88, 1 << 16 | 10 << 6 | 40),
        (0x90, CMDQ | 8),
        (0x90, CMDQ | 1),
        (0x90, STRTAB | 8),
        (0x90, CONTEXTS | 31),
        (0xa0, EVENTQ | 5),
        (0xa0, STRTAB | 3),
        (0xa0, CONTEXTS),
        (0x64, 0),
        (0x64, 1),
    ];
    let widths = select(vec![Width::Word, Width::Word, Width::Double, Width::Half, Width::Byte]);
    let offsets = select(vec![
        0x20, 0x24, 0x2c, 0x44, 0x50, 0x64, 0x68, 0x70, 0x80, 0x84, 0x88, 0x90, 0x94, 0x98, 0x9c, 0xa0, 0xa4, 0xb0,
    ]);
    let indices = select(vec![0x98, 0x9c, 0x1_00a8, 0x1_00ac]);
    prop_oneof![
        4 => select(known.clone()).prop_map(|(offset, value)| Step::SetUp { offset, value }),
        6 => select(known).prop_map(|(offset, value)| {
            Step::Register { offset, width: width(offset), value }
        }),
        2 => (offsets, widths.clone(), number()).prop_map(|(offset, width, value)| Step::Register { offset, width, value }),
        2 => (indices, 0..600_u64).prop_map(|(offset, value)| Step::Register { offset, width: Width::Word, value }),
        1 => (0..0x2_0000_u64, widths, number()).prop_map(|(offset, width, value)| Step::Register { offset, width, value }),
    ]
}

/// A word of an entry, of a descriptor, of a table, or anywhere.
fn store() -> impl Strategy<Value = Step> {
    let entry_at =
        (select(vec![8, 9, 16]), select(vec![STRTAB, STRTAB + 0x4000])).prop_map(|(stream, at)| at + stream * 64);
    let entry = prop_oneof![
        6 => (select(vec![4, 5, 5, 5]), 0..2_u64).prop_map(|(config, context)| CONTEXTS + context * 64 + (config << 1 | 1)),
        1 => (39..56_u32).prop_map(|bit| CONTEXTS + (1 << bit | 0b1011)),
        2 => (0..8_u64, number()).prop_map(|(config, number)| number & !15 | config << 1 | 1),
        1 => number(),
    ];
    let span = (0..4_u64, number(), 0..12_u64);
    let context = (0..2_u64, 0..4_u64, prop_oneof![3 => Just(0), 1 => (0..64_u32).prop_map(|bit| 1 << bit)]);
    let leaf =
        (0..2_usize, 0..3_usize, 0..SLOTS as u64, prop_oneof![3 => (0..PAGES).prop_map(Ram::leaf), 2 => number()]);
    prop_oneof![
        3 => (entry_at.clone(), entry).prop_map(|(at, value)| Step::Store { at, value }),
        1 => (entry_at.clone(), select(vec![0, 1 << 27, 3 << 6])).prop_map(|(at, value)| Step::Store { at: at + 8, value }),
        1 => (entry_at, 1..8_u64, number()).prop_map(|(at, word, value)| Step::Store { at: at + word * 8, value }),
        1 => span.prop_map(|(place, table, span)| Step::Store { at: STRTAB + place * 8, value: table & !31 | span }),
        2 => context.prop_map(|(context, asid, flip)| {
            Step::Store { at: CONTEXTS + context * 64, value: Ram::context(asid) ^ flip }
        }),
        1 => (0..2_u64, 1..8_u64, number()).prop_map(|(context, word, value)| {
            Step::Store { at: CONTEXTS + context * 64 + word * 8, value }
        }),
        5 => leaf.prop_map(|(table, level, slot, value)| {
            // The root and the next each have one entry that leads on.
            let index = [VA >> 30 & 511, VA >> 21 & 511, slot][level];
            Step::Store { at: Ram::root(table) + level as u64 * 4096 + index * 8, value }
        }),
        1 => (0..PAGES * 512, number()).prop_map(|(word, value)| Step::Store { at: RAM + word * 8, value }),
    ]
}

/// Commands that mostly exist.
fn command() -> impl Strategy<Value = [u64; 2]> {
    let opcodes = vec![
        0x01, 0x03, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x12, 0x12, 0x13, 0x30, 0x46, 0x46, 0x20, 0x28, 0x2a,
        0x18, 0x40,
    ];
    let opcode = prop_oneof![20 => select(opcodes), 1 => 0..256_u64];
    let stream = prop_oneof![6 => select(VIRTUAL.to_vec()).prop_map(u64::from), 1 => 0..0x400_u64, 1 => any::<u64>()];
    let address = prop_oneof![
        4 => (0..SLOTS as u64, 0..2_u64).prop_map(|(slot, is_leaf)| VA + slot * 4096 + is_leaf),
        2 => (0..SLOTS as u64, 4..8_u64).prop_map(|(slot, hints)| VA + slot * 4096 + (hints << 8)),
        2 => number(),
    ];
    let fields = prop_oneof![3 => Just(0), 2 => (0..32_u64, 0..32_u64).prop_map(|(num, scale)| num << 12 | scale << 20), 1 => any::<u64>()];
    let asid = prop_oneof![3 => 0..4_u64, 1 => any::<u64>()];
    (opcode, stream, fields, asid, address).prop_map(|(opcode, stream, fields, asid, address)| {
        [opcode | fields & !0xff | stream << 32 | asid << 48, address]
    })
}

fn step() -> impl Strategy<Value = Step> {
    let va = prop_oneof![3 => (0..SLOTS as u64).prop_map(|slot| VA + slot * 4096), 1 => number()];
    prop_oneof![
        4 => register(),
        6 => store(),
        5 => vec(command(), 1..6).prop_map(Step::Commands),
        2 => any::<[u8; 2]>().prop_map(|[config, tlb]| Step::Settle(Forget(config, tlb))),
        5 => (0..2_usize, va, any::<bool>()).prop_map(|(which, va, is_write)| Step::Device { which, va, is_write }),
        1 => Just(Step::Events),
        4 => Just(Step::Other),
    ]
}

fn machines() -> impl Strategy<Value = (ModelConfig, Stage1Mode)> {
    let modes = vec![
        Stage1Mode::Auto,
        Stage1Mode::Fixed(Kind::Page),
        Stage1Mode::Fixed(Kind::Range),
        Stage1Mode::Fixed(Kind::Context),
        Stage1Mode::Each,
    ];
    let visibilities = select(vec![Visibility::Late, Visibility::Early]);
    let cachings = select(vec![Caching::Whole, Caching::ByWord]);
    (visibilities, cachings, select(modes)).prop_map(|(visibility, caching, mode)| {
        (ModelConfig { visibility, caching, ..ModelConfig::new(ModelConfig::QEMU) }, mode)
    })
}

fn take(world: &mut World, step: Step) -> Result<(), String> {
    match step {
        Step::Register { offset, width, value } => world.hostile_write(offset, width, value),
        Step::SetUp { offset, value } => {
            world.hostile_write(0x20, Width::Word, 0);
            world.hostile_write(offset, width(offset), value);
            world.hostile_write(0x20, Width::Word, 0b1101);
        }
        Step::Store { at, value } => world.vms[HOSTILE].ram.store(at, value),
        Step::Commands(commands) => {
            let count = commands.len();
            for (place, command) in (1..).zip(commands) {
                world.hostile_command(command, place % 2 == 1 || place == count);
            }
        }
        Step::Settle(how) => world.settle(how)?,
        Step::Device { which, va, is_write } => {
            let access = if is_write { DmaAccess::Write } else { DmaAccess::Read };
            let _ = world.hostile_dma(which, va, access);
        }
        Step::Events => world.hand_events(),
        Step::Other => world.step_of(1 - HOSTILE)?,
    }
    Ok(())
}

/// A life, and that everything is in order at its end.
fn live((config, mode): (ModelConfig, Stage1Mode), seed: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new(config, mode, Mutation::None, seed);
    let live = || {
        for step in steps {
            take(&mut world, step)?;
        }
        world.settle(Forget(0, 0))?;
        world.check_all()
    };
    live().map_err(TestCaseError::fail)
}

/// Each thing that an SMMU goes by, by itself.
fn corpus() -> Vec<Vec<Step>> {
    let word = |offset, value| Step::Register { offset, width: Width::Word, value };
    let settle = |how| Step::Settle(Forget(how, 0));
    let entry = STRTAB + u64::from(VIRTUAL[0]) * 64;
    let store = |at, value| Step::Store { at, value };
    vec![
        // Off, and GBPA.ABORT set, cleared, and kept over CR0.
        vec![word(0x20, 12), settle(0), word(0x44, 0x8010_0000), settle(0), word(0x20, 13), settle(0), word(0x20, 12)],
        vec![word(0x20, 12), word(0x44, 0x8010_0000), word(0x44, 0x8000_0000), settle(0)],
        // A table of 16 entries, and of 2^63.
        vec![Step::SetUp { offset: 0x88, value: 4 }],
        vec![Step::SetUp { offset: 0x88, value: 63 }],
        // A table aligned to less than its size.
        vec![Step::SetUp { offset: 0x80, value: STRTAB + 0x200 }],
        // Two levels: one span long enough for the first stream alone, then for both.
        vec![
            store(STRTAB, (STRTAB + 0x2000) | 4),
            store(STRTAB + 0x2000 + 8 * 64, CONTEXTS | 11),
            store(STRTAB + 0x2000 + 16 * 64, CONTEXTS | 11),
            Step::SetUp { offset: 0x88, value: 1 << 16 | 6 << 6 | 8 },
            settle(0),
            store(STRTAB, (STRTAB + 0x2000) | 6),
            settle(0),
        ],
        // What an entry may not say: stalls, stage 2, a descriptor past the addresses, outside of RAM, not there.
        vec![store(entry + 8, 1 << 27), settle(3)],
        vec![store(entry, CONTEXTS | 13), settle(3)],
        vec![store(entry, CONTEXTS | 15), settle(3)],
        vec![store(entry, CONTEXTS | 1 << 40 | 11), settle(3)],
        vec![store(entry, 0x0800_000b), settle(3)],
        vec![store(entry, CONTEXTS | 10), settle(3)],
        // What it may: abort, bypass, and the other context.
        vec![store(entry, 1), settle(3), store(entry, 9), settle(2), store(entry, (CONTEXTS + 64) | 11), settle(3)],
        // A new descriptor behind an entry that stays.
        vec![settle(0), store(CONTEXTS + 8, Ram::root(1)), settle(3), store(CONTEXTS, 0), settle(1)],
    ]
}

/// Would miss: one rule of those that chance rarely comes to.
#[test]
fn each_rule_is_kept() {
    for steps in corpus() {
        for mode in [Stage1Mode::Auto, Stage1Mode::Each] {
            let config = ModelConfig { caching: Caching::Whole, ..ModelConfig::new(ModelConfig::QEMU) };
            // Pages to be seen behind both tables.
            let mapped = (0..2).flat_map(|table| {
                let at = Ram::root(table) + 2 * 4096;
                (0..SLOTS as u64)
                    .map(move |slot| Step::Store { at: at + slot * 8, value: Ram::leaf(slot + table as u64) })
            });
            let lived =
                live((config, mode), 1, mapped.chain([Step::Settle(Forget(0, 0))]).chain(steps.clone()).collect());
            lived.unwrap_or_else(|what| panic!("{steps:x?}: {what}"));
        }
    }
}

/// `count` cases, or as many as the environment says in `PROPTEST_CASES`.
fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig { max_shrink_iters: 4096, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: count, ..config } }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Would miss: anything that a guest says by which its devices reach what it did not have, or what it had flushed;
    /// which the hardware refuses; or which its neighbour notices.
    #[test]
    fn whatever_a_guest_does_is_its_own_affair(machine in machines(), seed in any::<u64>(), steps in vec(step(), 0..120)) {
        live(machine, seed, steps)?;
    }
}
