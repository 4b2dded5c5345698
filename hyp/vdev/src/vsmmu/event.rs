//! The event queue's producer (IHI 0070 3.5.4, 7.2, 7.4).

use super::{
    Vsmmu,
    interrupt::Gerror,
    queue::Queue,
    registers::{CR0, EVENTQ_LOG2, offset},
};
use crate::memory::{GuestMemory, Word};

/// Size of an event record in bytes, as a logarithm.
const EVENT_LOG2: u32 = 5;
/// EVENTQ_PROD.OVFLG and EVENTQ_CONS.OVACKFLG.
const OVERFLOW: u32 = 1 << 31;

impl Vsmmu {
    /// Records an event of one of the VM's streams for the guest, with its own StreamID and addresses (`event` is of four
    /// words, 7.3), as far as its queue is on and has room: else it is lost, and an overflow is one flag.
    pub fn record(&mut self, event: [u64; 4], memory: &mut impl GuestMemory) {
        let queue = Queue::new(self.registers.double(offset::EVENTQ_BASE), EVENTQ_LOG2, EVENT_LOG2);
        let producer = self.registers.word(offset::EVENTQ_PROD);
        let consumer = self.registers.word(offset::EVENTQ_CONS);
        if !self.registers.fields::<CR0::Register>(offset::CR0ACK).is_set(CR0::EVENTQEN)
            || self.is_active(Gerror::EVENTQ_ABT_ERR)
        {
            return;
        }
        let Some(event) = self.explain(event, memory) else { return };
        if queue.is_full(producer, consumer) {
            return self.lose();
        }
        match memory.words(queue.at(producer), event.len()) {
            Some(words) => words.iter().zip(event).for_each(|(word, value)| word.set(value)),
            None => return self.raise(Gerror::EVENTQ_ABT_ERR, memory),
        }
        self.registers.set(offset::EVENTQ_PROD, producer & OVERFLOW | queue.advance(producer, 1));
        if queue.index(producer ^ consumer) == 0 {
            self.raise_eventq(memory);
        }
    }

    /// Events were lost, for want of room in the queue or before they came to it: one flag until the guest has seen it.
    pub fn lose(&mut self) {
        let (producer, consumer) = (self.registers.word(offset::EVENTQ_PROD), self.registers.word(offset::EVENTQ_CONS));
        if self.registers.fields::<CR0::Register>(offset::CR0ACK).is_set(CR0::EVENTQEN)
            && (producer ^ consumer) & OVERFLOW == 0
        {
            self.registers.set(offset::EVENTQ_PROD, producer ^ OVERFLOW);
        }
    }
}
