//! The maps of `bulkhead-dma`, its batches and policies, and the driver, against the strict model, under a device that
//! replays stale addresses.
//!
//! Random calls create, load, unload and destroy maps of two channels; the tables that they store to are the ones that
//! the model walks. A device tries addresses at any moment, and everything that a SYNC retired right after it: what is
//! loaded leads to its own page, what was unloaded may lead there until its SYNC, and nothing leads anywhere else. No
//! IOVA is given out again before its SYNC, and no table comes back that can still be walked. Each way to be careless
//! has to be found.

#[path = "maps/shadow.rs"]
mod shadow;
#[path = "maps/tables.rs"]
mod tables;
mod told;
#[path = "maps/walker.rs"]
mod walker;
#[path = "maps/world.rs"]
mod world;

use bulkhead_core::bundle::DmamapStrategy;
use bulkhead_dma::flush::{Kind, Mode};
use bulkhead_smmu::model::{ModelConfig, Visibility};

use self::{
    walker::Fault,
    world::{Counts, POLICIES, World},
};

/// Operations of the quick run, for each SMMU, strategy and policy.
const QUICK: u64 = 2_000;

/// With range commands, without, and with access flags, each seeing stores late and early. Maps are refused on what does
/// not snoop.
fn configs() -> [ModelConfig; 6] {
    let mut plain = ModelConfig::QEMU;
    plain.idr3 &= !(1 << 10);
    let late = [ModelConfig::QEMU, plain, ModelConfig::HTTU].map(ModelConfig::new);
    let early = late.map(|config| ModelConfig { visibility: Visibility::Early, ..config });
    [late[0], late[1], late[2], early[0], early[1], early[2]]
}

fn live(mut world: World, operations: u64) -> Result<Counts, String> {
    for step in 0..operations {
        world.step().map_err(|what| format!("operation {step}: {what}"))?;
        // The model keeps what it saw; to look is to copy.
        if step % 1024 == 0 {
            world.check().map_err(|what| format!("operation {step}: {what}"))?;
        }
    }
    world.check()?;
    world.finish()
}

fn live_everywhere(seed: u64, each: u64, mut tell: impl FnMut(DmamapStrategy, u64, Counts)) {
    for (index, config) in configs().into_iter().enumerate() {
        for strategy in DmamapStrategy::ALL {
            for mode in POLICIES {
                let world = World::new(config, strategy, mode, Fault::None, seed + index as u64);
                let counts = live(world, each).unwrap_or_else(|what| panic!("{strategy:?}, {mode:?}: {what}"));
                tell(strategy, each, counts);
            }
        }
    }
}

/// Would miss: a page, an IOVA or a table that is used again before the SYNC that covers it, by any strategy and any
/// policy; a load that a device does not see; anything that is not given back.
#[test]
fn nothing_is_reused_before_its_sync() {
    let (mut replays, mut sampled, mut touched) = (0, 0, 0);
    live_everywhere(1, QUICK, |_, _, counts| {
        replays += counts.replays;
        sampled += counts.sampled;
        touched += counts.touched;
    });
    assert!(replays > 10_000, "{replays} accesses to what a SYNC retired");
    assert!(0 < touched && touched < sampled, "{touched} of {sampled} sampled pages were touched");
}

/// Would miss: a test that sees nothing, whatever is left out.
#[test]
fn every_careless_way_is_caught() {
    let fixed = Mode::Fixed;
    for (fault, modes, expected) in [
        (Fault::NoTlbi, [fixed(Kind::Range), fixed(Kind::Page)], "leads to"),
        (Fault::NoTlbiOfContext, [fixed(Kind::Context); 2], "leads to"),
        (Fault::NoSync, [fixed(Kind::Range), fixed(Kind::Context)], "leads to"),
        (Fault::NoBarrier, [fixed(Kind::Range), Mode::Auto], "did not flush"),
        (Fault::NoBarrierAfterLoad, [fixed(Kind::Range), Mode::Auto], "is loaded and refused"),
        (Fault::NoBarrierForTables, [fixed(Kind::Range), fixed(Kind::Context)], "leads to|FreedReachable"),
        (Fault::OnePageShort, [fixed(Kind::Range), fixed(Kind::Page)], "leads to"),
        (Fault::LeafOnly, [fixed(Kind::Range), Mode::Auto], "leads to|FreedReachable"),
        (Fault::RefillBeforeSync, [fixed(Kind::Range), Mode::Auto], "leads to"),
    ] {
        for strategy in DmamapStrategy::ALL {
            for mode in modes {
                let world = World::new(ModelConfig::new(ModelConfig::QEMU), strategy, mode, fault, 7);
                let found = live(world, 20_000);
                let what = found.err().unwrap_or_else(|| panic!("{fault:?} with {strategy:?}: unnoticed"));
                assert!(
                    expected.split('|').any(|known| what.contains(known)),
                    "{fault:?} with {strategy:?}, {mode:?}: {what}"
                );
            }
        }
    }
}

/// The long run: `STRICT_OPERATIONS` operations, by default a million.
#[test]
#[ignore = "long: set STRICT_OPERATIONS, use --release"]
fn long_run() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = number("STRICT_OPERATIONS").unwrap_or(1_000_000);
    let seed = number("STRICT_SEED").unwrap_or(1) * 1_000;
    let runs = configs().len() * DmamapStrategy::ALL.len() * POLICIES.len();
    let (mut done, mut replays, mut reached) = (0, 0, 0);
    live_everywhere(seed, wanted.div_ceil(runs as u64), |strategy, each, counts| {
        (done, replays, reached) = (done + each, replays + counts.replays, reached + counts.reached);
        println!("{done} operations, {replays} replays, {reached} accesses that reached; {strategy:?}: {counts:?}");
    });
}
