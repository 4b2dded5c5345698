//! Isolation groups: functions that one VM must have together (security rule 6).

use super::{BRIDGE_DEPTH_MAX, PciDevice, bridge_above};
use crate::ids::PciFunction;

/// Sets each function's group to the lowest Routing ID that it cannot be told apart or kept apart from.
///
/// Everything behind a bridge without access control services is one group, the bridge included: requests go from
/// function to function there without passing the SMMU, or arrive under the bridge's id. The functions of one device
/// are one group unless it has such services itself.
pub fn assign(devices: &mut [PciDevice]) {
    for place in 0..devices.len() {
        let Some(function) = devices.get(place).map(|device| device.function) else { continue };
        let top = topmost(devices, function);
        let group = device_leader(devices, top);
        if let Some(device) = devices.get_mut(place) {
            device.group = group.routing_id();
        }
    }
}

/// The highest bridge above `function` that does not isolate, or the function itself.
fn topmost(devices: &[PciDevice], function: PciFunction) -> PciFunction {
    let mut top = function;
    let mut at = function;
    for _ in 0..BRIDGE_DEPTH_MAX {
        let Some(bridge) = bridge_above(devices, at) else { break };
        at = bridge.function;
        if bridge.bridge.is_some_and(|buses| !buses.is_isolating) {
            top = at;
        }
    }
    top
}

/// Function 0 of a device whose functions are one group, else the function itself.
fn device_leader(devices: &[PciDevice], function: PciFunction) -> PciFunction {
    let device = devices.iter().find(|device| device.function == function);
    // Functions of a root port's device are isolated by the port's own services, as far as it has them.
    let is_apart =
        device.is_some_and(|device| !device.is_multifunction || device.bridge.is_some_and(|buses| buses.is_isolating));
    if is_apart {
        return function;
    }
    PciFunction::from_routing_id(function.segment(), function.routing_id() & !7)
}
