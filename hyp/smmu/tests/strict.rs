//! Maps, batches and the driver against the strict model, under a device that replays stale addresses.
//!
//! Every map has a slot of the VM's IOVA space. A loaded page must lead to its frame; a page that was unloaded may
//! lead to its old frame, which is still its own, until its batch's SYNC, and nowhere after. The device tries
//! addresses at random at any moment. Each way to be careless has to be found.

#[path = "strict/world.rs"]
mod world;

use self::world::{Fault, World};
use bulkhead_smmu::model::{ModelConfig, Visibility};

/// Operations of the quick run, for each kind of SMMU and each policy.
const QUICK: u64 = 20_000;

fn configs() -> [ModelConfig; 4] {
    let late = [ModelConfig::QEMU, ModelConfig::MMU600].map(ModelConfig::new);
    let early = late.map(|config| ModelConfig { visibility: Visibility::Early, ..config });
    [late[0], late[1], early[0], early[1]]
}

fn live(config: ModelConfig, kind: usize, fault: Fault, seed: u64, operations: u64) -> Result<(), String> {
    let mut world = World::new(config, kind, fault, seed);
    for step in 0..operations {
        world.step().map_err(|what| format!("operation {step}: {what}"))?;
        // The model keeps what it saw; to look is to copy.
        if step % 1024 == 0 {
            world.check()?;
        }
    }
    world.check()
}

/// Would miss: a page or an IOVA used again before the SYNC that covers it, on any kind of SMMU, by any policy.
#[test]
fn nothing_is_reused_before_its_sync() {
    for (index, config) in configs().into_iter().enumerate() {
        for kind in 0..world::POLICIES {
            live(config, kind, Fault::None, 1 + index as u64, QUICK).expect("strict");
        }
    }
}

/// Would miss: a test that sees nothing, whatever is left out.
#[test]
fn every_careless_way_is_caught() {
    for (fault, expected) in [
        (Fault::NoTlbi, "leads to"),
        (Fault::NoSync, "leads to"),
        (Fault::NoBarrier, "did not flush"),
        (Fault::OnePageShort, "leads to"),
        (Fault::RefillBeforeSync, "leads to"),
    ] {
        for kind in [world::RANGE, world::PAGE] {
            let found = live(ModelConfig::new(ModelConfig::QEMU), kind, fault, 7, 20_000);
            let what = found.expect_err("unnoticed");
            assert!(what.contains(expected), "{fault:?}: {what}");
        }
    }
}

/// The long run: `STRICT_OPERATIONS` operations, by default a million.
#[test]
#[ignore = "long: set STRICT_OPERATIONS, use --release"]
fn long_run() {
    let wanted = std::env::var("STRICT_OPERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000u64);
    let seed = std::env::var("STRICT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1u64);
    let kinds = configs().len() * world::POLICIES;
    let each = wanted.div_ceil(kinds as u64);
    let mut done = 0;
    for (index, config) in configs().into_iter().enumerate() {
        for kind in 0..world::POLICIES {
            live(config, kind, Fault::None, seed * 1_000 + index as u64, each).expect("strict");
            done += each;
        }
        println!("{done} operations");
    }
}
