//! What EL2 does for a virtual SMMU.

use bulkhead_core::{
    ids::{StreamId, Vmid},
    stage1::{Stage1Flush, StreamConfig},
};
use bulkhead_dma::flush::{Stage1Batch, Stage1Policy};
use bulkhead_smmu::{
    Error, Smmu,
    model::{Model, Mutant},
};
use bulkhead_vdev::vsmmu::{Host, HostFailed};

/// The VMs' devices, as each of them sees them.
pub const VIRTUAL: [u32; 2] = [8, 16];

/// One VM's streams and translations.
pub struct Streams<'w> {
    pub smmu: &'w mut Smmu<Mutant<Model>>,
    pub vm: usize,
    pub vmid: Vmid,
    pub batch: &'w mut Stage1Batch,
    pub policy: &'w mut Stage1Policy,
}

/// The physical stream of a VM's virtual one.
pub fn physical(vm: usize, stream: u32) -> StreamId {
    StreamId(stream + [0x100, 0][vm])
}

impl Streams<'_> {
    fn send(&mut self) {
        let work = self.batch.close(self.policy);
        let at_once = work.only().and_then(|flush| self.smmu.submit_stage1_at_once(self.vmid, flush));
        let sent = at_once.map_or_else(|| self.smmu.submit_stage1(self.vmid, work.iter()), Ok);
        if sent.and_then(|ticket| self.smmu.wait(ticket)).is_err() {
            self.batch.fail();
        }
    }
}

impl Host for Streams<'_> {
    fn has_stream(&self, stream: u32) -> bool {
        VIRTUAL.contains(&stream)
    }
    fn streams(&self) -> impl Iterator<Item = u32> {
        VIRTUAL.into_iter()
    }
    fn configure(&mut self, stream: u32, config: &StreamConfig) -> Result<(), HostFailed> {
        self.smmu.configure(physical(self.vm, stream), config).map_err(|_: Error| HostFailed)
    }
    fn forget_context(&mut self, stream: u32) -> Result<(), HostFailed> {
        self.smmu.forget_context(physical(self.vm, stream)).map_err(|_| HostFailed)
    }
    fn flush(&mut self, flush: Stage1Flush) {
        self.batch.add(flush);
        if self.policy.closes_each() {
            self.send();
        }
    }
    fn sync(&mut self) -> Result<(), HostFailed> {
        self.send();
        if self.batch.take_failure() { Err(HostFailed) } else { Ok(()) }
    }
}
