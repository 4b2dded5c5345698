//! Packets that come in: a map for each buffer, made once, loaded for each packet.

use alloc::{collections::VecDeque, vec, vec::Vec};

use super::{BATCH, FRAME_BYTES, HEADER_BYTES, QUEUE_LEN, Queue};
use crate::{
    dma::{Direction, Dma, Segment},
    hal, heap,
};

/// Bytes that the device may write: a cluster, as mbufs have.
const BUFFER_BYTES: usize = 2048;
/// As many as the queue holds, and a batch that is loaded while another one is unloaded: a map cannot be loaded again
/// before its unload has taken effect.
const SLOTS: usize = QUEUE_LEN + BATCH;

/// A buffer in a page of its own, and its map.
struct Slot<M> {
    map: M,
    buffer: &'static mut [u8],
    /// Of the last packet, header included.
    used_bytes: usize,
}

/// The receive queue and its slots, by number.
pub struct Receive<M> {
    queue: Queue,
    slots: Vec<Slot<M>>,
    /// Slot of each descriptor that the device has.
    slot_of: Vec<usize>,
    /// Neither loaded nor to be read, in the order of their maps' leases: batches are then contiguous.
    idle: VecDeque<usize>,
    /// To be given to the device once they are loaded.
    loading: Vec<usize>,
    /// Back from the device, to be read once they are unloaded.
    unloading: Vec<usize>,
    /// To be read.
    ready: VecDeque<usize>,
    packets: u64,
}

/// A packet to be read, out of `Receive`.
pub struct Received<'a, M>(&'a mut Receive<M>);

impl<M> Receive<M> {
    /// All maps and buffers; the queue is filled by the first turns.
    pub(super) fn new<D: Dma<Map = M>>(queue: Queue, dma: &mut D) -> Self {
        let slot = |_| {
            let (buffer, _) = heap::pages(1).split_at_mut(BUFFER_BYTES);
            Slot { map: dma.create(BUFFER_BYTES as u64, 1), buffer, used_bytes: 0 }
        };
        Self {
            queue,
            slots: (0..SLOTS).map(slot).collect(),
            slot_of: vec![0; QUEUE_LEN],
            idle: (0..SLOTS).collect(),
            loading: Vec::with_capacity(BATCH),
            unloading: Vec::with_capacity(BATCH),
            ready: VecDeque::with_capacity(BATCH),
            packets: 0,
        }
    }

    /// Packets so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether the device has written something.
    pub(super) fn has_used(&self) -> bool {
        self.queue.can_pop()
    }

    /// Whether the device is to interrupt when it has.
    pub(super) fn interrupt_on_use(&mut self, is_wanted: bool) {
        self.queue.set_dev_notify(is_wanted);
    }

    /// Asks for the unloads of what has come, and for the loads of what takes its place.
    pub(super) fn gather<D: Dma<Map = M>>(&mut self, dma: &mut D) {
        while self.unloading.len() < BATCH {
            let Some(token) = self.queue.peek_used() else { break };
            let number = self.slot_of[usize::from(token)];
            let slot = &mut self.slots[number];
            // SAFETY: this buffer was added under this token, and nothing has touched it since.
            let used = unsafe { self.queue.pop_used(token, &[], &mut [&mut *slot.buffer]) };
            slot.used_bytes = used.map_or(0, |bytes| bytes as usize);
            dma.unload(&mut slot.map);
            self.unloading.push(number);
        }
        while self.loading.len() < BATCH && self.queue.available_desc() > self.loading.len() {
            let Some(number) = self.idle.pop_front() else { break };
            let slot = &mut self.slots[number];
            dma.load(&mut slot.map, &[Segment::of(slot.buffer)], Direction::DeviceWrites);
            self.loading.push(number);
        }
    }

    /// Loads and unloads that were asked for.
    pub(super) fn gathered(&self) -> usize {
        self.unloading.len() + self.loading.len()
    }

    /// After the call: what came may be read, the device gets new buffers. Whether it is to be told.
    pub(super) fn commit<D: Dma<Map = M>>(&mut self, dma: &D) -> bool {
        self.ready.extend(self.unloading.drain(..));
        let is_new = !self.loading.is_empty();
        for number in self.loading.drain(..) {
            let slot = &mut self.slots[number];
            hal::offer(dma.iovas(&slot.map));
            // SAFETY: the buffer lives for ever, and is left alone until the device has given it back.
            let token = unsafe { self.queue.add(&[], &mut [&mut *slot.buffer]) };
            self.slot_of[usize::from(token.expect("descriptors were counted"))] = number;
        }
        is_new && self.queue.should_notify()
    }

    /// The oldest packet, where there is one.
    pub fn take(&mut self) -> Option<Received<'_, M>> {
        if self.ready.is_empty() { None } else { Some(Received(self)) }
    }
}

impl<M> Received<'_, M> {
    /// Lets `read` see the frame; its buffer is free again after that.
    pub fn read<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        let receive = self.0;
        let number = receive.ready.pop_front().expect("`take` has seen one");
        let slot = &receive.slots[number];
        let end = slot.used_bytes.clamp(HEADER_BYTES, HEADER_BYTES + FRAME_BYTES);
        let result = read(&slot.buffer[HEADER_BYTES..end]);
        receive.packets += 1;
        receive.idle.push_back(number);
        result
    }
}
