//! Maps under every strategy, against a device that remembers all it ever reached.

mod attacks;
mod constraints;
mod everyday;
mod growth;
mod harness;
mod random;
mod sampled;

use bulkhead_core::bundle::DmamapStrategy;

const STRATEGIES: [DmamapStrategy; 6] = DmamapStrategy::ALL;
