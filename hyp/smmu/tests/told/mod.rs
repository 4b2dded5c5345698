//! A flush's command as the driver is told of it, or one page short of it.

use bulkhead_core::addr::{Ipa, PAGE_SIZE};
use bulkhead_dma::flush::Command;
use bulkhead_smmu::Invalidation;

pub fn told(command: Command, is_leaf: bool, is_short: bool) -> Invalidation {
    let ipa = |page: u64| Ipa::new(page * PAGE_SIZE);
    match command {
        Command::Page { page } if is_short => Invalidation::Page { ipa: ipa(page + 1), is_leaf },
        Command::Page { page } => Invalidation::Page { ipa: ipa(page), is_leaf },
        Command::Range { page, num, scale } => {
            let num = if is_short { num.saturating_sub(1) } else { num };
            Invalidation::Range { ipa: ipa(page), num, scale, is_leaf }
        }
        Command::Context => Invalidation::Context,
    }
}
