//! A device's fault: one line that names VM, device, stream, address, access and reason.

use bulkhead_core::ids::{PciFunction, SmmuId, StreamId, StreamKey};
use bulkhead_smmu::{Event, StreamInfo};
use log::{error, warn};

use crate::{smmu, vm};

/// Events handled at a time, with the SMMU's lock held.
const EVENTS_AT_A_TIME: u32 = 64;
/// Times that one interrupt does so: four full queues.
const ROUNDS_MAX: usize = 16;

/// The event queue's interrupt of one SMMU.
pub fn event_interrupt(id: SmmuId) {
    // The SMMU raises its interrupt when an empty queue gets an event (IHI 0070 3.18.2): what is left behind would not
    // be told of again.
    for _ in 0..ROUNDS_MAX {
        if !poll(id) {
            return;
        }
    }
    warn!("smmu {}: more events than can be handled at once", id.0);
}

/// Handles what is in the queue. Whether there is more.
fn poll(id: SmmuId) -> bool {
    let polled = smmu::with(id, |driver| driver.poll_events(EVENTS_AT_A_TIME, |event, owner| report(id, event, owner)));
    let Some(polled) = polled else { return false };
    if polled.has_overflowed {
        warn!("smmu {}: the event queue overflowed, faults were lost", id.0);
    }
    for stream in &polled.silenced {
        warn!("smmu {} stream {stream}: too many faults, further ones are counted but not shown", id.0);
    }
    if let Some(problem) = polled.error {
        error!("smmu {}: {problem}", id.0);
    }
    polled.has_more
}

/// The global error interrupt of one SMMU.
pub fn global_error_interrupt(id: SmmuId) {
    if let Some(Some(report)) = smmu::with(id, |driver| driver.handle_gerror()) {
        error!("smmu {}: global error: {report}", id.0);
    }
}

/// Reads what is left in the queues, for a fault whose interrupt is still under way.
pub fn drain(id: SmmuId) {
    event_interrupt(id);
    global_error_interrupt(id);
}

fn report(smmu: SmmuId, event: &Event, owner: Option<&StreamInfo>) {
    let (name, function) = match find_device(smmu, event.stream) {
        Some((name, function)) => (name, Some(function)),
        None => (if owner.is_some() { "?" } else { "none" }, None),
    };
    let device = heapless::format!(16; "{}", Device(function)).unwrap_or_default();
    let iova = heapless::format!(20; "{}", Address(event.iova.map(|iova| iova.as_u64()))).unwrap_or_default();
    let access = match event.access {
        Some(access) if access.is_fetch => "fetch",
        Some(access) if access.is_write => "write",
        Some(_) => "read",
        None => "access",
    };
    warn!(
        "fault vm={name} device={device} smmu={} stream={} iova={iova} {access} reason={}: {}",
        smmu.0,
        event.stream,
        event.reason.name(),
        event.reason.meaning()
    );
}

/// The VM and the function behind a stream.
fn find_device(smmu: SmmuId, stream: StreamId) -> Option<(&'static str, PciFunction)> {
    let key = StreamKey { smmu, stream };
    vm::all().find_map(|vm| vm.devices().find(|device| device.stream == key).map(|device| (vm.name(), device.function)))
}

struct Device(Option<PciFunction>);

impl core::fmt::Display for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(function) => function.fmt(f),
            None => f.write_str("unassigned"),
        }
    }
}

struct Address(Option<u64>);

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{address:#x}"),
            None => f.write_str("-"),
        }
    }
}
