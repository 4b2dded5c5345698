//! Calls and rings against naive maps.

mod calls;
mod fuzz;
mod rings;

use core::sync::atomic::AtomicU64;
use std::vec::Vec;

use bulkhead_abi::{Direction, Error, Function, NO_LIMIT, Segment, ring::Entry};
use bulkhead_core::addr::{Ipa, PAGE_SIZE};
use zerocopy::{FromZeros, IntoBytes};

use super::{
    answer,
    model::{Model, Slab},
};

/// First byte of the VM's RAM, which a boundary of 2 MiB divides.
const RAM: u64 = BOUNDARY - 32 * PAGE_SIZE;
const BOUNDARY: u64 = 0x4020_0000;
/// Its bytes.
const RAM_BYTES: u64 = 64 * PAGE_SIZE;
/// Where tests keep segment arrays.
const ARRAY: u64 = RAM + 0x1000;
/// Where tests keep rings.
const RING: u64 = RAM + 0x10_000;

/// A VM, and its memory.
struct Vm {
    model: Model,
    words: Vec<AtomicU64>,
}

impl Vm {
    fn new() -> Self {
        let words: Vec<_> = (0..RAM_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
        let ram = Slab::new(Ipa::new(RAM), &words).ram().expect("not empty");
        Self { model: Model::new(ram, 8), words }
    }

    fn slab(&self) -> Slab<'_> {
        Slab::new(Ipa::new(RAM), &self.words)
    }

    fn put(&self, at: u64, value: &(impl IntoBytes + zerocopy::Immutable + ?Sized)) {
        self.slab().write(Ipa::new(at), value.as_bytes()).expect("in RAM");
    }

    fn get<T: FromZeros + IntoBytes + zerocopy::FromBytes>(&self, at: u64) -> T {
        let mut value = T::new_zeroed();
        self.slab().read(Ipa::new(at), value.as_mut_bytes()).expect("in RAM");
        value
    }

    fn raw(&self, x: [u64; 7]) -> [u64; 4] {
        answer(&self.model, &mut self.slab(), &x)
    }

    fn call(&self, function: Function, arguments: &[u64]) -> Result<[u64; 3], Error> {
        let mut x = [0; 7];
        x[0] = function.id().into();
        x[1..=arguments.len()].copy_from_slice(arguments);
        let [status, x1, x2, x3] = self.raw(x);
        match Error::from_register(status) {
            Ok(()) => Ok([x1, x2, x3]),
            Err(error) => {
                assert_eq!([x1, x2, x3], [0; 3]);
                Err(error.expect("an error of the list"))
            }
        }
    }

    /// A map of `size` bytes and `segments` segments on channel 0.
    fn create(&self, size: u64, segments: u64) -> [u64; 3] {
        self.call(Function::Create, &[0, size, segments, 0, 0, NO_LIMIT]).expect("created")
    }

    fn load(&self, handle: u64, direction: Direction, segments: &[(u64, u64)]) -> Result<Vec<u64>, Error> {
        let array: Vec<_> = segments.iter().map(|&(ipa, bytes)| Segment { ipa, bytes, iova: 0xdead }).collect();
        self.put(ARRAY, array.as_slice());
        let count = u64::try_from(segments.len()).expect("few");
        self.call(Function::Load, &[handle, ARRAY, count, direction.number().into()])?;
        Ok((0..count).map(|place| self.get::<Segment>(ARRAY + place * 24).iova).collect())
    }

    fn entry(&self, index: u32, log2: u64) -> u64 {
        RING + bulkhead_abi::ring::entry_offset(index, log2)
    }

    fn status(&self, index: u32, log2: u64) -> i32 {
        self.get::<Entry>(self.entry(index, log2)).status
    }
}
