//! Base address registers: sizing and writing, with decode off.

use super::{Bar, BarKind, ConfigSpace, device::DeviceFault, registers::BAR0};
use crate::{addr::PhysAddr, ids::PciFunction};

/// Offset of a BAR by its number.
const fn offset(number: usize) -> u16 {
    BAR0 + number.to_le_bytes()[0] as u16 * 4
}

/// Sizes the first `count` BARs; decode is off. The registers hold the size masks afterwards.
pub fn size(
    config: &mut impl ConfigSpace,
    function: PciFunction,
    count: usize,
) -> Result<[Option<Bar>; 6], DeviceFault> {
    let mut bars = [None; 6];
    let mut number = 0;
    while number < count {
        config.write32(function, offset(number), u32::MAX);
        let low = config.read32(function, offset(number));
        let Some(kind) = kind(low) else {
            number += 1;
            continue;
        };
        let place = number;
        let mask = match kind {
            BarKind::Io => u64::from(low & !0b11) | 0xffff_ffff_ffff_0000,
            BarKind::Memory32 { .. } => u64::from(low & !0b1111) | 0xffff_ffff_0000_0000,
            BarKind::Memory64 { .. } => {
                number += 1;
                let bad = DeviceFault::BadBar { bar: short(place), mask: u64::from(low) };
                if number == count {
                    return Err(bad);
                }
                config.write32(function, offset(number), u32::MAX);
                u64::from(config.read32(function, offset(number))) << 32 | u64::from(low & !0b1111)
            }
        };
        let size_bytes = mask.wrapping_neg();
        if !size_bytes.is_power_of_two() {
            return Err(DeviceFault::BadBar { bar: short(place), mask });
        }
        if let Some(slot) = bars.get_mut(place) {
            *slot = Some(Bar { kind, pci_address: 0, cpu: PhysAddr::new(0), size_bytes });
        }
        number += 1;
    }
    Ok(bars)
}

/// `None` for a register that is not there: it keeps no bit of a write of all ones.
const fn kind(low: u32) -> Option<BarKind> {
    let is_prefetchable = low & 0b1000 != 0;
    match low & 0b111 {
        _ if low == 0 => None,
        0b001 | 0b011 | 0b101 | 0b111 => Some(BarKind::Io),
        0b100 => Some(BarKind::Memory64 { is_prefetchable }),
        _ => Some(BarKind::Memory32 { is_prefetchable }),
    }
}

/// Writes the addresses of `bars`, 0 for those without; decode is off.
pub fn write(config: &mut impl ConfigSpace, function: PciFunction, bars: &[Option<Bar>; 6]) {
    for (number, bar) in bars.iter().enumerate() {
        let Some(bar) = bar else { continue };
        let [a, b, c, d, e, f, g, h] = bar.pci_address.to_le_bytes();
        config.write32(function, offset(number), u32::from_le_bytes([a, b, c, d]));
        if matches!(bar.kind, BarKind::Memory64 { .. }) {
            config.write32(function, offset(number + 1), u32::from_le_bytes([e, f, g, h]));
        }
    }
}

/// A BAR's number for a message.
pub fn short(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
