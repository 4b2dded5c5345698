//! What a stream's flushes were, since its VM started.

use super::{batch::Work, policy::Scope};

/// Flushes and commands by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlushCounters {
    /// Flushes asked for with nothing to flush: no command, no SYNC.
    pub nothing: u64,
    /// Flushes page by page.
    pub by_page: u64,
    /// Flushes by range: one or several.
    pub by_range: u64,
    /// Flushes of the whole VMID.
    pub by_context: u64,
    /// Flushes put off by the deferred mode.
    pub deferred: u64,
    /// Invalidation commands: pages.
    pub page_commands: u64,
    /// Invalidation commands: ranges, those of a single page counted.
    pub range_commands: u64,
    /// Pages gathered.
    pub pages: u64,
    /// Maps gathered.
    pub maps: u64,
    /// Times that the kind of flush changed.
    pub switches: u64,
    /// Flushes that failed.
    pub failed: u64,
}

impl FlushCounters {
    /// Commands and CMD_SYNCs in all; each context flush is one command.
    pub const fn commands(&self) -> u64 {
        self.page_commands + self.range_commands + self.by_context
    }

    /// CMD_SYNCs.
    pub const fn syncs(&self) -> u64 {
        self.by_page + self.by_range + self.by_context
    }

    /// Takes note of a closed batch of `pages` pages in `maps` maps.
    #[inline]
    pub(super) fn note(&mut self, work: &Work<'_>, pages: u64, maps: u32) {
        self.pages = self.pages.wrapping_add(pages);
        self.maps = self.maps.wrapping_add(maps.into());
        let (flushes, commands) = match work.scope() {
            Scope::Nothing => (&mut self.nothing, None),
            Scope::Pages => (&mut self.by_page, Some((&mut self.page_commands, work.run_pages()))),
            Scope::Runs => (&mut self.by_range, Some((&mut self.range_commands, work.runs()))),
            Scope::Range => (&mut self.by_range, Some((&mut self.range_commands, 1))),
            Scope::Context => (&mut self.by_context, None),
        };
        *flushes = flushes.wrapping_add(1);
        if let Some((commands, count)) = commands {
            *commands = commands.wrapping_add(count);
        }
    }
}
