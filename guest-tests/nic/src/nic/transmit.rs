//! Packets that go out: three segments each, as mbufs from a program in userland have.

use alloc::{collections::VecDeque, vec, vec::Vec};

use super::{BATCH, FRAME_BYTES, HEADER_BYTES, QUEUE_LEN, Queue};
use crate::{
    dma::{Direction, Dma, SEGMENTS_MAX, Segment},
    hal,
    heap::{self, PAGE_BYTES},
};

/// Packets of full length that the queue holds.
const QUEUE_PACKETS: usize = QUEUE_LEN / SEGMENTS_MAX;
/// As many as the queue holds, and a batch that is written meanwhile.
const SLOTS: usize = QUEUE_PACKETS + BATCH;
/// Ethernet, IPv4 and TCP headers.
const PROTOCOL_BYTES: usize = 14 + 20 + 20;
/// Where the virtio header begins: half of a full packet's payload then lies in one page and half in the next.
const START: usize = PAGE_BYTES - (FRAME_BYTES - PROTOCOL_BYTES) / 2 - PROTOCOL_BYTES - HEADER_BYTES;
/// Slots that answers to received packets find free, whatever is being sent.
const RESERVED: usize = 4;

/// Bytes of a place for a packet that is hardly more than headers, an acknowledgement for instance. These places are
/// mapped for good, as drivers do that copy what is small: such a packet takes no load.
const SMALL_BYTES: usize = 128;

/// A buffer of two pages, its map, and its place for small packets.
struct Buffer<M> {
    map: M,
    pages: &'static mut [u8],
    small: &'static mut [u8],
    small_iova: u64,
    /// Without the virtio header.
    frame_bytes: usize,
}

impl<M> Buffer<M> {
    fn is_small(&self) -> bool {
        HEADER_BYTES + self.frame_bytes <= SMALL_BYTES
    }

    /// The packet's parts: headers, payload in the first page, payload in the second; a small one is one part.
    fn parts(&self) -> [&[u8]; SEGMENTS_MAX] {
        if self.is_small() {
            return [&self.small[..HEADER_BYTES + self.frame_bytes], &[], &[]];
        }
        let payload = START + HEADER_BYTES + PROTOCOL_BYTES;
        let end = START + HEADER_BYTES + self.frame_bytes;
        let middle = end.min(PAGE_BYTES);
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
    /// In the order of their maps' leases: batches are then contiguous.
    idle: VecDeque<usize>,
    /// Written, to be loaded.
    pending: VecDeque<usize>,
    /// To be given to the device once they are loaded; small ones are.
    loading: Vec<usize>,
    /// Sent, idle once they are unloaded.
    unloading: Vec<usize>,
    packets: u64,
}

/// The right to write one packet.
pub struct Slot<'a, M>(&'a mut Transmit<M>);

impl<M> Transmit<M> {
    pub(super) fn new<D: Dma<Map = M>>(queue: Queue, dma: &mut D) -> Self {
        let (small, small_iova) =
            hal::map_for_good(dma, (SLOTS * SMALL_BYTES).div_ceil(PAGE_BYTES), Direction::DeviceReads);
        let bytes = (HEADER_BYTES + FRAME_BYTES) as u64;
        let buffer = |(small, small_iova)| Buffer {
            map: dma.create(bytes, SEGMENTS_MAX),
            pages: heap::pages(2),
            small,
            small_iova,
            frame_bytes: 0,
        };
        let places = small.chunks_exact_mut(SMALL_BYTES).zip((small_iova..).step_by(SMALL_BYTES));
        Self {
            queue,
            buffers: places.take(SLOTS).map(buffer).collect(),
            slot_of: vec![0; QUEUE_LEN],
            idle: (0..SLOTS).collect(),
            pending: VecDeque::with_capacity(SLOTS),
            loading: Vec::with_capacity(BATCH),
            unloading: Vec::with_capacity(SLOTS),
            packets: 0,
        }
    }

    /// Packets so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets of full length that the queue has room for.
    fn room(&self) -> usize {
        self.queue.available_desc() / SEGMENTS_MAX
    }

    /// Whether the queue has no room for a batch: until then, what was sent stays loaded.
    fn is_short(&self) -> bool {
        self.room() < BATCH
    }

    /// Whether the device still has much to send: it will give back many slots at once.
    pub(super) fn is_busy(&self) -> bool {
        QUEUE_PACKETS - self.room() > QUEUE_PACKETS / 4
    }

    /// Whether the device is to interrupt when it has sent something; of interest only to who waits for room.
    pub(super) fn interrupt_on_use(&mut self, is_wanted: bool) {
        let is_short = self.is_short();
        self.queue.set_dev_notify(is_wanted && is_short);
    }

    /// Whether the device has sent something and its room is needed.
    pub(super) fn has_used(&self) -> bool {
        self.is_short() && self.queue.can_pop()
    }

    /// Asks for the loads of what is to be sent, and, when room runs short, for the unloads of what has been.
    pub(super) fn gather<D: Dma<Map = M>>(&mut self, dma: &mut D) {
        if self.is_short() {
            while self.unloading.len() < BATCH {
                let Some(token) = self.queue.peek_used() else { break };
                let number = self.slot_of[usize::from(token)];
                let buffer = &mut self.buffers[number];
                let count = buffer.count();
                // SAFETY: these parts were added under this token, and nothing has touched them since.
                let sent = unsafe { self.queue.pop_used(token, &buffer.parts()[..count], &mut []) };
                sent.expect("the device returns what it was given");
                if buffer.is_small() {
                    self.idle.push_back(number);
                } else {
                    dma.unload(&mut buffer.map);
                    self.unloading.push(number);
                }
            }
        }
        while self.loading.len() < BATCH && self.loading.len() < self.room() {
            let Some(number) = self.pending.pop_front() else { break };
            let buffer = &mut self.buffers[number];
            if !buffer.is_small() {
                let count = buffer.count();
                let segments = buffer.parts().map(Segment::of);
                dma.load(&mut buffer.map, &segments[..count], Direction::DeviceReads);
            }
            self.loading.push(number);
        }
    }

    /// Loads and unloads that were asked for, and packets that need none.
    pub(super) fn gathered(&self) -> usize {
        self.unloading.len() + self.loading.len()
    }

    /// After the call: the device gets what was loaded. Whether it is to be told.
    pub(super) fn commit<D: Dma<Map = M>>(&mut self, dma: &D) -> bool {
        self.idle.extend(self.unloading.drain(..));
        let is_new = !self.loading.is_empty();
        for number in self.loading.drain(..) {
            let buffer = &self.buffers[number];
            let small = [buffer.small_iova, 0, 0];
            hal::offer(if buffer.is_small() { small } else { dma.iovas(&buffer.map) });
            // SAFETY: the buffer lives for ever, and is left alone until the device has given it back.
            let token = unsafe { self.queue.add(&buffer.parts()[..buffer.count()], &mut []) };
            self.slot_of[usize::from(token.expect("descriptors were counted"))] = number;
            self.packets += 1;
        }
        is_new && self.queue.should_notify()
    }

    /// A slot for a packet of the program's own accord.
    pub fn slot(&mut self) -> Option<Slot<'_, M>> {
        let is_free = self.idle.len() > RESERVED && self.pending.len() + self.loading.len() < BATCH;
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
        let number = transmit.idle.pop_front().expect("a slot was seen free");
        let buffer = &mut transmit.buffers[number];
        buffer.frame_bytes = bytes;
        let frame = HEADER_BYTES..HEADER_BYTES + bytes;
        let result =
            write(if buffer.is_small() { &mut buffer.small[frame] } else { &mut buffer.pages[START..][frame] });
        transmit.pending.push_back(number);
        result
    }
}
