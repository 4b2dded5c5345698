//! A VM's streams and translations as its virtual SMMU acts on them.

use bulkhead_core::{
    ids::{SmmuId, StreamId},
    stage1::{Stage1Flush, StreamConfig},
    vplat,
};
use bulkhead_dma::flush::{Stage1Batch, Stage1Policy, Stage1Switch};
use bulkhead_smmu::{Error, Ticket};
use bulkhead_vdev::vsmmu::{Host, HostFailed};
use log::{error, info};

use crate::{
    smmu::{self, NotFlushed},
    sysreg,
    vm::{Device, Vm},
};

/// What one access of the guest acts on.
pub struct Streams<'a> {
    /// Whose they are.
    pub vm: &'static Vm,
    /// Invalidations since the last CMD_SYNC.
    pub batch: &'a mut Stage1Batch,
    /// What they become.
    pub policy: &'a mut Stage1Policy,
    /// Why something since the last CMD_SYNC was not done.
    pub problem: Option<NotFlushed>,
}

impl Streams<'_> {
    fn device(&self, stream: u32) -> Option<&'static Device> {
        self.vm
            .devices()
            .enumerate()
            .find(|(place, _)| vplat::virtual_stream(*place) == stream)
            .map(|(_, device)| device)
    }

    fn with(
        &self,
        stream: u32,
        act: impl FnOnce(&mut smmu::Driver, StreamId) -> Result<(), Error>,
    ) -> Result<(), HostFailed> {
        let device = self.device(stream).ok_or(HostFailed)?;
        smmu::flush_with(device.stream.smmu, |driver| act(driver, device.stream.stream)).map_err(|problem| {
            error!("vm {}: device {}: {problem}", self.vm.name(), device.function);
            HostFailed
        })
    }

    /// Has every physical SMMU of the VM's devices forget what was gathered: all are told before the first is waited for.
    fn send(&mut self) {
        let vmid = self.vm.dma_config.vmid;
        // What the guest stored to its tables comes before the commands.
        sysreg::dsb_ish();
        let work = self.batch.close(self.policy);
        let mut tickets = heapless::Vec::<(SmmuId, Ticket), { smmu::SMMUS_MAX }>::new();
        for id in self.vm.smmus() {
            let submit = |driver: &mut smmu::Driver| {
                driver.submit_stage1(vmid, work.iter()).map_err(|failed| driver.reason(&failed))
            };
            match smmu::flush_with(id, submit) {
                // As many as SMMUs.
                Ok(ticket) => drop(tickets.push((id, ticket))),
                Err(problem) => self.problem = Some(problem),
            }
        }
        for (id, ticket) in tickets {
            if let Err(problem) = smmu::wait(id, ticket) {
                self.problem = Some(problem);
            }
        }
    }

    /// A change of policy, for the trace.
    fn tell_switch(&mut self) {
        let Some(Stage1Switch { asid, from, to, from_ns, to_ns }) = self.policy.take_switch() else { return };
        let name = self.vm.name();
        match asid {
            Some(asid) => {
                info!("vm {name} asid {asid}: flushes by {to:?} instead of {from:?}, {to_ns} ns instead of {from_ns}")
            }
            None => info!("vm {name}: flushes by {to:?} instead of {from:?}, {to_ns} ns instead of {from_ns}"),
        }
    }
}

impl Host for Streams<'_> {
    fn has_stream(&self, stream: u32) -> bool {
        self.device(stream).is_some()
    }

    fn streams(&self) -> impl Iterator<Item = u32> {
        (0..self.vm.devices().count()).map(vplat::virtual_stream)
    }

    fn configure(&mut self, stream: u32, config: &StreamConfig) -> Result<(), HostFailed> {
        self.with(stream, |driver, stream| driver.configure(stream, config))
    }

    fn forget_context(&mut self, stream: u32) -> Result<(), HostFailed> {
        self.with(stream, |driver, stream| driver.forget_context(stream))
    }

    fn flush(&mut self, flush: Stage1Flush) {
        self.batch.add(flush);
        if self.policy.closes_each() {
            self.send();
        }
    }

    fn sync(&mut self) -> Result<(), HostFailed> {
        self.send();
        self.tell_switch();
        let Some(problem) = self.problem.take() else { return Ok(()) };
        error!("vm {}: {problem}", self.vm.name());
        // Still due, as all that there is.
        self.batch.add(Stage1Flush::All);
        Err(HostFailed)
    }
}
