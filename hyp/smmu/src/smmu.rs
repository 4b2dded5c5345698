//! One physical SMMU: what it is asked to do, and what it says.

mod configure;
mod events;
mod flush;
mod stage1;
mod streams;
mod take_over;
mod writer;

use bulkhead_core::{
    ids::{SmmuId, StreamId, Vmid},
    stage1::StreamConfig,
    stage2::S2Config,
};
use heapless::Vec;

use self::flush::Rides;
pub use self::take_over::panic_abort;
use crate::{
    budget::FaultBudget,
    cmdq::{Cmdq, CommandCounters},
    error::Error,
    evtq::Evtq,
    features::Features,
    platform::Platform,
    stream_table::StreamTable,
};

/// Streams that can be attached to one SMMU at a time.
pub const MAX_STREAMS: usize = 64;

/// How an SMMU is taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Size in bits of the highest physical address that will be mapped.
    pub needed_oas_bits: u8,
    /// Highest StreamID that the machine can give a device behind this SMMU.
    pub last_stream: u32,
    /// Do the cache maintenance even if the SMMU says that it is coherent.
    pub is_forced_non_coherent: bool,
    /// How long any one wait for the SMMU may take, in microseconds.
    pub timeout_us: u64,
    /// Faults that a stream may record in each `fault_window_us` before it is silenced.
    pub fault_limit: u32,
    /// See `fault_limit`, in microseconds.
    pub fault_window_us: u64,
}

impl Config {
    /// The usual settings for a machine with physical addresses of `needed_oas_bits` and streams up to `last_stream`:
    /// waits of up to 100 ms, 32 faults a second.
    pub const fn new(needed_oas_bits: u8, last_stream: u32) -> Self {
        Self {
            needed_oas_bits,
            last_stream,
            is_forced_non_coherent: false,
            timeout_us: 100_000,
            fault_limit: 32,
            fault_window_us: 1_000_000,
        }
    }

    const fn budget(&self) -> FaultBudget {
        FaultBudget::new(self.fault_limit, self.fault_window_us)
    }
}

/// What a stream that the driver knows may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamState {
    /// Translated as configured, by its VM's table at last; faults are recorded.
    Attached,
    /// It is over its budget: faults are not recorded any more, except for those of a stage 1 that its VM configured
    /// since.
    Silenced,
    /// Aborted, nothing recorded, still its VM's: it went on flooding the event queue when silenced, or the caller
    /// wanted it so.
    Aborted,
    /// A wait for the SMMU ran out while its entry or its translations were being taken back: what it reaches is not
    /// known, so that its VM's memory has to be kept until a detach succeeds.
    Quarantined,
}

/// One stream, for the shell and for fault reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// The stream.
    pub stream: StreamId,
    /// Whose it is.
    pub vmid: Vmid,
    /// What it may do.
    pub state: StreamState,
    /// What its VM configured, within that.
    pub config: StreamConfig,
    /// Events that it recorded.
    pub faults: u64,
    /// Events of those that were not reported, the stream being over its budget.
    pub dropped: u64,
}

/// What the driver counts, since take-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Commands by kind.
    pub commands: CommandCounters,
    /// Streams attached.
    pub attaches: u64,
    /// Streams detached.
    pub detaches: u64,
    /// Flushes of a whole VMID.
    pub vmid_flushes: u64,
    /// Flushes of a range of addresses.
    pub range_flushes: u64,
    /// Events read.
    pub events: u64,
    /// Events of those that were not reported.
    pub events_dropped: u64,
    /// Times that the event queue overflowed.
    pub overflows: u64,
    /// Times that a global error was found.
    pub global_errors: u64,
}

/// Proof that the SMMU has forgotten every translation of a VMID (or of a range of it) that its table does not hold
/// now. Only the driver makes it, after the CMD_SYNC: pages taken out of the table before are free to be reused.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "pages may be reused only with this proof"]
pub struct Flushed {
    vmid: Vmid,
}

impl Flushed {
    /// Whose translations were flushed.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }
}

/// What one call of [`Smmu::poll_events`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Polled {
    /// Events read.
    pub seen: u32,
    /// Events reported to the caller.
    pub reported: u32,
    /// Events were lost: the queue was full.
    pub has_overflowed: bool,
    /// More events are waiting: call again. The SMMU raises its interrupt only for an event that finds the queue empty
    /// (IHI 0070 3.18.2), so that nothing else will tell of them.
    pub has_more: bool,
    /// Streams that ran out of their budget in this call and were silenced, or aborted if they had been silenced.
    pub silenced: Vec<StreamId, SILENCED_PER_POLL>,
    /// Why a stream that should have been silenced could not be.
    pub error: Option<Error>,
}

/// Streams that one call of [`Smmu::poll_events`] silences at most; others are silenced by the next.
pub const SILENCED_PER_POLL: usize = 4;

/// A stream with an owner.
#[derive(Clone, Copy)]
struct Stream {
    id: StreamId,
    s2: S2Config,
    state: StreamState,
    config: StreamConfig,
    /// It had a stage 1: the TLB may hold translations of both stages in one.
    had_stage1: bool,
    /// Its context descriptor is to be forgotten with the next flush of its VM's stage 1.
    is_context_stale: bool,
    faults: u64,
    budget: FaultBudget,
}

/// What is kept of a stream that its VM took out.
#[derive(Clone, Copy)]
struct Past {
    id: StreamId,
    state: StreamState,
    faults: u64,
    budget: FaultBudget,
}

impl Stream {
    fn info(&self) -> StreamInfo {
        StreamInfo {
            stream: self.id,
            vmid: self.s2.vmid,
            state: self.state,
            config: self.config,
            faults: self.faults,
            dropped: self.budget.dropped(),
        }
    }
}

/// An SMMUv3 that the hypervisor has taken over: every stream is in abort until it is attached.
// In this order what a submission touches lies together, within reach of an instruction's offset.
#[repr(C)]
pub struct Smmu<P> {
    platform: P,
    cmdq: Cmdq,
    id: SmmuId,
    features: Features,
    rides: Rides,
    /// By VMID as in `rides`: whether a stream's context descriptor may be stale.
    stale_contexts: u16,
    config: Config,
    table: StreamTable,
    evtq: Evtq,
    streams: Vec<Stream, MAX_STREAMS>,
    past: Vec<Past, MAX_STREAMS>,
    /// Shared by every stream that has no owner.
    stray_budget: FaultBudget,
    counters: Counters,
    /// Why the last flush failed that did.
    failure: Error,
}

impl<P: Platform> Smmu<P> {
    /// Which SMMU of the machine.
    pub const fn id(&self) -> SmmuId {
        self.id
    }

    /// What it can do.
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// What has been counted since take-over.
    pub fn counters(&self) -> Counters {
        Counters { commands: self.cmdq.counters(), ..self.counters }
    }

    /// Every stream that has an owner, in the order of attachment.
    pub fn streams(&self) -> impl Iterator<Item = StreamInfo> + '_ {
        self.streams.iter().map(Stream::info)
    }

    /// What is known of `stream`; `None` when it has no owner (it is in abort then).
    pub fn find_stream(&self, stream: StreamId) -> Option<StreamInfo> {
        self.streams.iter().find(|known| known.id == stream).map(Stream::info)
    }

    /// The platform, for a caller that shares it.
    pub fn platform(&mut self) -> &mut P {
        &mut self.platform
    }
}

#[cfg(test)]
mod tests;
