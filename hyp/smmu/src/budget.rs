//! How many faults a stream may record before it is silenced (rule 17).

/// What to do about one more fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Within the budget: report it.
    Report,
    /// The budget has just run out: silence the stream, and say so once.
    Silence,
    /// Over the budget: counted as dropped, said nothing about.
    Drop,
}

/// A token bucket of faults: full at first, one taken per fault, refilled as a whole when a window has passed.
///
/// Pure: the time is passed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultBudget {
    limit: u32,
    window_us: u64,
    window_start_us: u64,
    used: u32,
    dropped: u64,
}

impl FaultBudget {
    /// A budget of `limit` faults in each `window_us` microseconds. A limit of 0 reports nothing ever.
    pub const fn new(limit: u32, window_us: u64) -> Self {
        Self { limit, window_us, window_start_us: 0, used: 0, dropped: 0 }
    }

    /// Takes one fault at time `now_us` into account.
    pub fn take(&mut self, now_us: u64) -> Verdict {
        if now_us.saturating_sub(self.window_start_us) >= self.window_us {
            self.window_start_us = now_us;
            self.used = 0;
        }
        if self.used < self.limit {
            self.used += 1;
            return Verdict::Report;
        }
        self.dropped = self.dropped.saturating_add(1);
        if self.used == self.limit {
            self.used = self.used.saturating_add(1);
            Verdict::Silence
        } else {
            Verdict::Drop
        }
    }

    /// Fills the bucket up if it has run out. One that was not used up stays as it is: else who empties it could have it
    /// filled each time before it is empty.
    pub const fn renew(&mut self) {
        if self.used > self.limit {
            self.used = 0;
        }
    }

    /// Faults that were not reported, since the start.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests;
