//! Packets that go out: three segments each, as mbufs from a program in userland have.

use alloc::{collections::VecDeque, vec, vec::Vec};

use super::{BATCH, FRAME_BYTES, HEADER_BYTES, QUEUE_LEN, Queue};
use crate::{
    dma::{Direction, Dma, SEGMENTS_MAX, Segment},
    hal,
    heap::{self, PAGE_BYTES},
};

/// Each packet takes three descriptors at most.
const SLOTS: usize = QUEUE_LEN / SEGMENTS_MAX;
/// Ethernet, IPv4 and TCP headers.
const PROTOCOL_BYTES: usize = 14 + 20 + 20;
/// Where the virtio header begins: half of a full packet's payload then lies in one page and half in the next.
const START: usize = PAGE_BYTES - (FRAME_BYTES - PROTOCOL_BYTES) / 2 - PROTOCOL_BYTES - HEADER_BYTES;
/// Slots that answers to received packets find free, whatever is being sent.
const RESERVED: usize = 4;

/// A buffer of two pages, and its map.
struct Buffer<M> {
    map: M,
    pages: &'static mut [u8],
    /// Without the virtio header.
    frame_bytes: usize,
}

impl<M> Buffer<M> {
    /// The packet's parts: headers, payload in the first page, payload in the second.
    fn parts(&self) -> [&[u8]; SEGMENTS_MAX] {
        let start_to_payload = HEADER_BYTES + PROTOCOL_BYTES.min(self.frame_bytes);
        let end = START + HEADER_BYTES + self.frame_bytes;
        let payload = START + start_to_payload;
        let middle = end.clamp(payload, PAGE_BYTES.max(payload));
        [&self.pages[START..payload], &self.pages[payload..middle], &self.pages[middle..end]]
    }

    fn count(&self) -> usize {
        self.parts().iter().take_while(|part| !part.is_empty()).count()
    }
}

/// The transmit queue and its slots, by number.
pub struct Transmit<M> {
    queue: Queue,
    buffers: Vec<Buffer<M>>,
    /// Slot of each chain's first descriptor.
    slot_of: Vec<usize>,
    idle: Vec<usize>,
    /// Written, to be loaded and given to the device.
    pending: VecDeque<usize>,
    /// Loads that were asked for, from the front of `pending`.
    loading: usize,
    /// Sent, idle once they are unloaded.
    unloading: Vec<usize>,
    packets: u64,
}

/// The right to write one packet.
pub struct Slot<'a, M>(&'a mut Transmit<M>);

impl<M> Transmit<M> {
    pub(super) fn new<D: Dma<Map = M>>(queue: Queue, dma: &mut D) -> Self {
        let bytes = (HEADER_BYTES + FRAME_BYTES) as u64;
        let buffer = |_| Buffer { map: dma.create(bytes, SEGMENTS_MAX), pages: heap::pages(2), frame_bytes: 0 };
        Self {
            queue,
            buffers: (0..SLOTS).map(buffer).collect(),
            slot_of: vec![0; QUEUE_LEN],
            idle: (0..SLOTS).rev().collect(),
            pending: VecDeque::with_capacity(SLOTS),
            loading: 0,
            unloading: Vec::with_capacity(SLOTS),
            packets: 0,
        }
    }

    /// Packets so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether the device is to interrupt when it has sent something; of interest only to who waits for a free slot.
    pub(super) fn interrupt_on_use(&mut self, is_wanted: bool) {
        let is_short = self.idle.len() < BATCH;
        self.queue.set_dev_notify(is_wanted && is_short);
    }

    /// Whether a turn would free slots that are short, or send something.
    pub(super) fn is_worth_a_turn(&self) -> bool {
        !self.pending.is_empty() || (self.idle.len() < BATCH && self.queue.can_pop())
    }

    /// Asks for the loads of what is to be sent, and, when slots run short, for the unloads of what has been.
    pub(super) fn gather<D: Dma<Map = M>>(&mut self, dma: &mut D) {
        if self.idle.len() < BATCH {
            while self.unloading.len() < BATCH {
                let Some(token) = self.queue.peek_used() else { break };
                let number = self.slot_of[usize::from(token)];
                let buffer = &mut self.buffers[number];
                let count = buffer.count();
                // SAFETY: these parts were added under this token, and nothing has touched them since.
                let sent = unsafe { self.queue.pop_used(token, &buffer.parts()[..count], &mut []) };
                sent.expect("the device returns what it was given");
                dma.unload(&mut buffer.map);
                self.unloading.push(number);
            }
        }
        self.loading = self.pending.len().min(BATCH);
        for number in self.pending.iter().take(self.loading) {
            let buffer = &mut self.buffers[*number];
            let count = buffer.count();
            let segments = buffer.parts().map(Segment::of);
            dma.load(&mut buffer.map, &segments[..count], Direction::DeviceReads);
        }
    }

    /// After the call: the device gets what was loaded. Whether it is to be told.
    pub(super) fn commit<D: Dma<Map = M>>(&mut self, dma: &D) -> bool {
        self.idle.append(&mut self.unloading);
        for number in self.pending.drain(..self.loading) {
            let buffer = &self.buffers[number];
            hal::offer(dma.iovas(&buffer.map));
            // SAFETY: the buffer lives for ever, and is left alone until the device has given it back.
            let token = unsafe { self.queue.add(&buffer.parts()[..buffer.count()], &mut []) };
            self.slot_of[usize::from(token.expect("descriptors were counted"))] = number;
            self.packets += 1;
        }
        self.loading > 0 && self.queue.should_notify()
    }

    /// A slot for a packet of the program's own accord.
    pub fn slot(&mut self) -> Option<Slot<'_, M>> {
        let is_free = self.idle.len() > RESERVED && self.pending.len() < BATCH;
        is_free.then_some(Slot(self))
    }

    /// A slot for the answer to a packet.
    pub fn answer_slot(&mut self) -> Option<Slot<'_, M>> {
        if self.idle.is_empty() { None } else { Some(Slot(self)) }
    }
}

impl<M> Slot<'_, M> {
    /// Lets `write` fill a frame of `bytes` bytes, to be sent with the next turn.
    pub fn write<R>(self, bytes: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let transmit = self.0;
        let number = transmit.idle.pop().expect("a slot was seen free");
        let buffer = &mut transmit.buffers[number];
        buffer.frame_bytes = bytes;
        let frame = START + HEADER_BYTES;
        let result = write(&mut buffer.pages[frame..frame + bytes]);
        transmit.pending.push_back(number);
        result
    }
}
