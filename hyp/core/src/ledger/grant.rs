//! The right to point a stream at a VM.

use crate::ids::{PciFunction, StreamKey, VmId, Vmid};

/// Authority over one stream, for one VM. The ledger alone makes one, and no two for one stream.
#[derive(PartialEq, Eq, Debug)]
pub struct StreamGrant {
    stream: StreamKey,
    vm: VmId,
    function: PciFunction,
}

impl StreamGrant {
    pub(super) const fn new(stream: StreamKey, vm: VmId, function: PciFunction) -> Self {
        Self { stream, vm, function }
    }

    /// The stream.
    pub const fn stream(&self) -> StreamKey {
        self.stream
    }

    /// The VM whose memory it may reach.
    pub const fn vm(&self) -> VmId {
        self.vm
    }

    /// Tag of that VM's translations.
    pub const fn vmid(&self) -> Vmid {
        Vmid::of(self.vm)
    }

    /// The function that sends on it.
    pub const fn function(&self) -> PciFunction {
        self.function
    }
}
