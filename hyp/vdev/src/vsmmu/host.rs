//! What a virtual SMMU asks of the hypervisor.

use bulkhead_core::stage1::{Stage1Flush, StreamConfig};

/// The hardware did not do what it was told to: a queue that stands still, a stream in quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the smmu did not do it")]
pub struct HostFailed;

/// The physical SMMU as one VM may have it. Streams are named by their virtual StreamIDs.
pub trait Host {
    /// Whether `stream` is the VM's.
    fn has_stream(&self, stream: u32) -> bool;

    /// The VM's streams, at most [`DEVICES_MAX`](bulkhead_core::vplat::DEVICES_MAX).
    fn streams(&self) -> impl Iterator<Item = u32>;

    /// Makes `config` what transactions of `stream`, which is the VM's, meet. Complete on return, with what was cached of
    /// its context descriptor forgotten; translations are the guest's to flush.
    ///
    /// # Errors
    /// [`HostFailed`]; the stream's transactions are aborted then, or meet what they met before.
    fn configure(&mut self, stream: u32, config: &StreamConfig) -> Result<(), HostFailed>;

    /// Forgets what is cached of the context descriptor of `stream`, which is the VM's, by the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`HostFailed`].
    fn forget_context(&mut self, stream: u32) -> Result<(), HostFailed>;

    /// Gathers translations to be forgotten by the next [`sync`](Self::sync).
    fn flush(&mut self, flush: Stage1Flush);

    /// Sends everything that was gathered, and returns when it is done.
    ///
    /// # Errors
    /// [`HostFailed`]: it is not, and what was gathered is still due.
    fn sync(&mut self) -> Result<(), HostFailed>;
}
