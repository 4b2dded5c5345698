//! Maps, batches and the driver against the strict model, under a device that replays stale addresses.
//!
//! Every map has a slot of the VM's IOVA space. A loaded page must lead to its frame; a page that was unloaded may
//! lead to its old frame, which is still its own, until its batch's SYNC, and nowhere after. The device tries
//! addresses at random at any moment. Each way to be careless has to be found.

mod told;
#[path = "strict/world.rs"]
mod world;

use self::world::{Fault, World};
use bulkhead_smmu::model::{ModelConfig, Visibility};

/// Operations of the quick run, for each kind of SMMU and each policy.
const QUICK: u64 = 20_000;

fn configs() -> [ModelConfig; 6] {
    let late = [ModelConfig::QEMU, ModelConfig::MMU600, ModelConfig::HTTU].map(ModelConfig::new);
    let early = late.map(|config| ModelConfig { visibility: Visibility::Early, ..config });
    [late[0], late[1], late[2], early[0], early[1], early[2]]
}

fn live(config: ModelConfig, kind: usize, fault: Fault, seed: u64, operations: u64) -> Result<World, String> {
    let mut world = World::new(config, kind, fault, seed);
    for step in 0..operations {
        world.step().map_err(|what| format!("operation {step}: {what}"))?;
        // The model keeps what it saw; to look is to copy.
        if step % 1024 == 0 {
            world.check()?;
        }
    }
    world.check()?;
    Ok(world)
}

/// Would miss: a page or an IOVA used again before the SYNC that covers it, on any kind of SMMU, by any policy.
#[test]
fn nothing_is_reused_before_its_sync() {
    for (index, config) in configs().into_iter().enumerate() {
        for kind in 0..world::POLICIES {
            live(config, kind, Fault::None, 1 + index as u64, QUICK).map(|_| ()).expect("strict");
        }
    }
}

/// Would miss: a page that the device reached and whose access flag tells nothing, or one that it did not reach and
/// that counts; sampled loads on an SMMU that would fault for them.
#[test]
fn access_flags_tell_what_was_touched() {
    for (config, is_able) in [(ModelConfig::HTTU, true), (ModelConfig::QEMU, false), (ModelConfig::MMU600, false)] {
        let lived = live(ModelConfig::new(config), 0, Fault::None, 11, QUICK).map(|world| world.sampled);
        let (sampled, touched) = lived.expect("strict");
        assert_eq!((sampled > 1000, touched > 100), (is_able, is_able), "{touched} of {sampled}");
        assert!(touched < sampled || !is_able, "some loads are never reached");
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
            let what = found.map(|_| ()).expect_err("unnoticed");
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
            live(config, kind, Fault::None, seed * 1_000 + index as u64, each).map(|_| ()).expect("strict");
            done += each;
        }
        println!("{done} operations");
    }
}
