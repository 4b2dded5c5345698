//! Addresses as pointers: EL2 maps what it uses where it lies.

/// The pointer to `address`. On a 64-bit machine every address is one; whoever follows it says why it may.
pub fn to<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}
