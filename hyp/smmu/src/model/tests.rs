//! The model is strict: each mistake that a driver can make is seen.

mod mutants;
mod nested;
mod sloppy;

use bulkhead_core::{addr::Iova, ids::StreamId};

use super::{ModelConfig, Violation};

const IOVA: Iova = Iova::new(0x4000_0000);
const NIC: StreamId = StreamId(8);

fn is_foreign(violation: &Violation) -> bool {
    matches!(violation, Violation::Foreign { .. })
}

fn is_freed(violation: &Violation) -> bool {
    matches!(violation, Violation::FreedReachable { .. })
}

fn qemu() -> ModelConfig {
    ModelConfig::new(ModelConfig::QEMU)
}
