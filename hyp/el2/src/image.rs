//! Where the image lies: the linker's symbols as addresses.

use bulkhead_core::addr::{AddrRange, PhysAddr};

macro_rules! symbols {
    ($($(#[$doc:meta])* $name:ident = $symbol:ident;)*) => {
        mod linker {
            unsafe extern "C" {
                $(pub safe static $symbol: u8;)*
            }
        }
        $(
            $(#[$doc])*
            pub fn $name() -> PhysAddr {
                PhysAddr::new((&raw const linker::$symbol).addr() as u64)
            }
        )*
    };
}

symbols! {
    /// First byte of the image.
    start = __image_start;
    /// End of the code that runs at boot alone, which the image begins with.
    boot_text_end = __boot_text_end;
    /// End of the code behind it that stays where a VM is behind a virtio IOMMU.
    viommu_text_end = __viommu_text_end;
    /// End of code.
    text_end = __text_end;
    /// End of read-only data.
    rodata_end = __rodata_end;
    /// End of what the image file holds.
    data_end = __data_end;
    /// The unmapped page under the boot stack.
    boot_stack_guard = __boot_stack_guard;
    /// First frame of the pool.
    pool_start = __pool_start;
    /// End of the pool.
    pool_end = __pool_end;
    /// End of all that belongs to the hypervisor.
    end = __image_end;
    /// Entry of secondary CPUs.
    secondary_start = secondary_start;
}

/// Everything from the first byte of the image to the end of the pool.
pub fn range() -> AddrRange<PhysAddr> {
    between(start(), end())
}

/// A range between two of the symbols above.
pub fn between(from: PhysAddr, to: PhysAddr) -> AddrRange<PhysAddr> {
    AddrRange::between(from, to).expect("the linker script orders its symbols")
}
