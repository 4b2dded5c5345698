//! What a map can hold: memory that stays where it is while it is loaded.

use core::sync::atomic::{AtomicU8, AtomicU64};

use crate::Hypervisor;

/// Memory for a device: owned, or borrowed for good, so that nobody touches or frees it before it is unloaded.
pub trait Buffers {
    /// Whether a device may write to it.
    const IS_WRITABLE: bool;

    /// Says where each piece is: its IPA and its bytes, in order.
    fn spans(&self, hypervisor: &impl Hypervisor, each: &mut impl FnMut(u64, u64));
}

/// Memory by its IPA. The caller keeps it for the device until it is unloaded, as with `bus_dmamap_load_raw`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// IPA of the first byte.
    pub ipa: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Buffers for Span {
    const IS_WRITABLE: bool = true;

    fn spans(&self, _: &impl Hypervisor, each: &mut impl FnMut(u64, u64)) {
        each(self.ipa, self.bytes);
    }
}

macro_rules! slices {
    ($($(#[$doc:meta])* $slice:ty: $is_writable:literal,)+) => {
        $(
            $(#[$doc])*
            impl Buffers for $slice {
                const IS_WRITABLE: bool = $is_writable;

                fn spans(&self, hypervisor: &impl Hypervisor, each: &mut impl FnMut(u64, u64)) {
                    let bytes = u64::try_from(size_of_val::<_>(&**self)).unwrap_or(u64::MAX);
                    each(hypervisor.ipa(self.as_ptr().addr()), bytes);
                }
            }
        )+
    };
}

slices! {
    /// Memory that the device has to itself.
    &'static mut [u8]: true,
    /// Memory that the device reads.
    &'static [u8]: false,
    /// Memory that device and program share: descriptors, buffers that stay loaded.
    &'static [AtomicU64]: true,
    /// The same, byte by byte.
    &'static [AtomicU8]: true,
}

impl<B: Buffers, const N: usize> Buffers for [B; N] {
    const IS_WRITABLE: bool = B::IS_WRITABLE;

    fn spans(&self, hypervisor: &impl Hypervisor, each: &mut impl FnMut(u64, u64)) {
        for buffers in self {
            buffers.spans(hypervisor, each);
        }
    }
}

impl<A: Buffers, B: Buffers> Buffers for (A, B) {
    const IS_WRITABLE: bool = A::IS_WRITABLE && B::IS_WRITABLE;

    fn spans(&self, hypervisor: &impl Hypervisor, each: &mut impl FnMut(u64, u64)) {
        self.0.spans(hypervisor, each);
        self.1.spans(hypervisor, each);
    }
}

impl<B: Buffers> Buffers for Option<B> {
    const IS_WRITABLE: bool = B::IS_WRITABLE;

    fn spans(&self, hypervisor: &impl Hypervisor, each: &mut impl FnMut(u64, u64)) {
        if let Some(buffers) = self {
            buffers.spans(hypervisor, each);
        }
    }
}
