//! Properties of an endpoint (virtio 1.3, 5.13.6.7): the window of MSIs.

use super::{config::Ability, domains::Range};

/// Bytes of the list: one property, and an empty one behind it.
pub const BYTES: u32 = 32;

const RESV_MEM: u16 = 1;
const RESV_MEM_MSI: u8 = 1;
/// Bytes of the value of a RESV_MEM.
const RESV_MEM_BYTES: u16 = 20;

/// The list that every endpoint has.
pub fn properties(ability: &Ability) -> [u8; BYTES as usize] {
    let Range { first, last } = ability.msi;
    let [kind_low, kind_high] = RESV_MEM.to_le_bytes();
    let [length_low, length_high] = RESV_MEM_BYTES.to_le_bytes();
    let head = [kind_low, kind_high, length_low, length_high, RESV_MEM_MSI, 0, 0, 0];
    let value = head.into_iter().chain(first.to_le_bytes()).chain(last.to_le_bytes());
    let mut list = [0; BYTES as usize];
    list.iter_mut().zip(value).for_each(|(place, byte)| *place = byte);
    list
}
