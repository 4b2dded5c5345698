//! The whole way of a guest's invalidation: its command queue, the virtual SMMU, batch, policy, driver, strict model.
//!
//! Two VMs with the same ASIDs and addresses behind one SMMU. A page that was unmapped may lead to its old frame until
//! the guest's CMD_SYNC is consumed, and nowhere after; what a command's loss leaves behind has to be found.

#[path = "nested/fuzz.rs"]
mod fuzz;
#[path = "nested/guest.rs"]
mod guest;
#[path = "nested/hostile.rs"]
mod hostile;
#[path = "nested/reference.rs"]
mod reference;
#[path = "nested/streams.rs"]
mod streams;
#[path = "nested/world.rs"]
mod world;

use self::world::World;
use bulkhead_dma::flush::{Kind, Stage1Mode};
use bulkhead_smmu::{
    features::IdRegisters,
    model::{ModelConfig, Mutation, Visibility},
};

const OPERATIONS: u64 = 500;
/// Until what is left out is found.
const OPERATIONS_OF_MUTANTS: u64 = 3_000;
const MODES: [Stage1Mode; 5] = [
    Stage1Mode::Auto,
    Stage1Mode::Fixed(Kind::Page),
    Stage1Mode::Fixed(Kind::Range),
    Stage1Mode::Fixed(Kind::Context),
    Stage1Mode::Each,
];

fn live(config: ModelConfig, mode: Stage1Mode, mutation: Mutation, seed: u64, operations: u64) -> Result<(), String> {
    let mut world = World::new(config, mode, mutation, seed);
    for step in 0..operations {
        world.step().map_err(|what| format!("operation {step}: {what}"))?;
    }
    world.check()
}

/// Would miss: a flush that the virtual SMMU, the batch, the policy or the driver makes less of than the guest asked for.
#[test]
fn what_a_guest_flushed_is_gone_by_its_sync() {
    let no_ranges = IdRegisters { idr3: 0, ..ModelConfig::QEMU };
    let mut seed = 0;
    for id in [ModelConfig::QEMU, no_ranges] {
        for visibility in [Visibility::Late, Visibility::Early] {
            for mode in MODES {
                seed += 1;
                let config = ModelConfig { visibility, ..ModelConfig::new(id) };
                let lived = live(config, mode, Mutation::None, seed, OPERATIONS);
                lived.unwrap_or_else(|what| panic!("{mode:?}: {what}"));
            }
        }
    }
}

/// Would miss: a test that sees nothing, whatever is left out.
#[test]
fn what_is_left_out_is_caught() {
    for (mutation, mode) in [
        (Mutation::DropCommand(0x12), Stage1Mode::Fixed(Kind::Page)),
        (Mutation::DropCommand(0x12), Stage1Mode::Fixed(Kind::Range)),
        (Mutation::DropCommand(0x10), Stage1Mode::Fixed(Kind::Context)),
        (Mutation::DropCommand(0x06), Stage1Mode::Auto),
        (Mutation::DropCommand(0x03), Stage1Mode::Auto),
        (Mutation::RetagFlushes(3 << 32), Stage1Mode::Auto),
        (Mutation::RetagFlushes(3 << 48), Stage1Mode::Fixed(Kind::Page)),
    ] {
        let found = live(ModelConfig::new(ModelConfig::QEMU), mode, mutation, 7, OPERATIONS_OF_MUTANTS);
        assert!(found.is_err(), "{mutation:?} by {mode:?} is not noticed");
    }
}
