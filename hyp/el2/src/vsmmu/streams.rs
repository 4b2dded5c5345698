//! A VM's streams and translations as its virtual SMMU acts on them.

use bulkhead_core::{
    ids::{SmmuId, StreamId, Vmid},
    stage1::{Stage1Flush, StreamConfig},
    vplat,
};
use bulkhead_dma::flush::{Stage1Batch, Stage1Policy, Stage1Switch, Stage1Work};
use bulkhead_smmu::{Error, Ticket};
use bulkhead_vdev::vsmmu::{Host, HostFailed};

use crate::{
    lines,
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
    /// The guest's CMD_SYNCs.
    pub syncs: &'a mut u64,
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
            let part = format_args!(": device {}", device.function);
            lines::problem(self.vm.id, self.vm.name(), part, &problem);
            HostFailed
        })
    }

    /// Has every physical SMMU of the VM's devices forget what was gathered.
    fn send(&mut self) {
        // What the guest stored to its tables comes before the commands.
        sysreg::dsb_ish();
        let work = self.batch.close(self.policy);
        if let Err(problem) = tell(self.vm, self.vm.smmus(), &work) {
            lines::problem(self.vm.id, self.vm.name(), format_args!(""), &problem);
            self.batch.fail();
        }
    }

    /// A change of policy, for the trace.
    #[cold]
    fn tell_switch(&mut self) {
        let Some(Stage1Switch { asid, switch }) = self.policy.take_switch() else { return };
        let tell = |part| lines::switch(self.vm.id, self.vm.name(), part, &switch);
        match asid {
            Some(asid) => tell(format_args!(" asid {asid}")),
            None => tell(format_args!("")),
        }
    }
}

/// Has `smmus`, each once and at most as many as a VM has devices, forget `work`: all are told before the first is waited for.
fn tell(vm: &Vm, smmus: &[SmmuId], work: &Stage1Work<'_>) -> Result<(), NotFlushed> {
    let [id, others @ ..] = smmus else { return Ok(()) };
    let (vmid, only) = (vm.dma_config.vmid, work.only());
    // Written where it is not done at once: nothing is copied where it is.
    let mut rest = Err(NotFlushed::NotInUse(id.0));
    let is_done = smmu::with(*id, |driver| {
        let ticket = only.and_then(|flush| driver.submit_stage1_at_once(vmid, flush));
        if let Some(ticket) = &ticket
            && ticket.is_complete()
        {
            return true;
        }
        rest = submit(driver, vmid, work, ticket);
        false
    });
    let told = if others.is_empty() { Ok(()) } else { tell(vm, others, work) };
    if is_done != Some(true)
        && let Some(ticket) = rest?
    {
        let _ = smmu::wait(*id, ticket)?;
    }
    told
}

/// Submits `work`, unless it has a ticket already, and looks once: what is left to wait for.
#[inline(never)]
fn submit(
    driver: &mut smmu::Driver,
    vmid: Vmid,
    work: &Stage1Work<'_>,
    ticket: Option<Ticket>,
) -> Result<Option<Ticket>, NotFlushed> {
    let submitted = ticket.map_or_else(|| driver.submit_stage1(vmid, work.iter()), Ok);
    let polled = submitted.and_then(|mut ticket| Ok((driver.poll(&mut ticket)?.is_none(), ticket)));
    match polled {
        Ok((is_under_way, ticket)) => Ok(is_under_way.then_some(ticket)),
        Err(failed) => Err(driver.reason(&failed).into()),
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

    #[inline(always)]
    fn flush(&mut self, flush: Stage1Flush) {
        self.batch.add(flush);
        if self.policy.closes_each() {
            self.send();
        }
    }

    fn sync(&mut self) -> Result<(), HostFailed> {
        *self.syncs = self.syncs.wrapping_add(1);
        self.send();
        if self.policy.has_switched() {
            self.tell_switch();
        }
        if self.batch.take_failure() { Err(HostFailed) } else { Ok(()) }
    }
}
