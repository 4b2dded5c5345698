//! The NIC: two virtqueues, and the loads and unloads of both gathered into one call a turn.

mod receive;
mod transmit;

use alloc::boxed::Box;

use bulkhead_guest_tests::{
    cpu,
    gic::{self, Bank},
    sysreg::{CNTFRQ_EL0, CNTVCT_EL0, ICC_EOIR1_EL1, ICC_IAR1_EL1},
};
use virtio_drivers::{
    queue::VirtQueue,
    transport::{Transport, pci::PciTransport},
};

use crate::{
    dma::{Counts, Dma},
    hal::{self, NicHal},
};
use receive::Receive;
pub use receive::Received;
pub use transmit::Slot;
use transmit::Transmit;

/// Descriptors of each queue; QEMU's default.
const QUEUE_LEN: usize = 256;
/// Pages of a queue's descriptors with its available ring, and of its used ring (virtio 1.2, 2.7).
const QUEUE_PAGES: [usize; 2] = [2, 1];
/// Queue numbers (virtio 1.2, 5.1.2).
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
/// Most packets of one way that one call loads, and most that it unloads.
const BATCH: usize = 64;
/// Loads and unloads that are worth a call while there is other work.
const CALL_LEN: usize = 2 * BATCH;
/// Bytes of the header before each frame (virtio 1.2, 5.1.6), all zero: nothing is offloaded.
const HEADER_BYTES: usize = 12;
/// Bytes of the longest Ethernet frame, without its checksum.
pub const FRAME_BYTES: usize = 1514;

/// On the heap: it is large for a stack of 32 KiB.
type Queue = Box<VirtQueue<NicHal, QUEUE_LEN>>;

bitflags::bitflags! {
    /// Features that the driver knows (virtio 1.2, 5.1.3 and 6).
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        /// The device has a MAC address.
        const MAC = 1 << 5;
        /// The interface of virtio 1.0 and later.
        const VERSION_1 = 1 << 32;
        /// The device goes through an IOMMU.
        const ACCESS_PLATFORM = 1 << 33;
    }
}

/// Packets each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// That came in.
    pub received: u64,
    /// That went out.
    pub sent: u64,
    /// Times that there was nothing to do but wait.
    pub sleeps: u64,
}

/// A virtio NIC and its driver.
pub struct Nic<D: Dma> {
    dma: D,
    transport: PciTransport,
    intid: u32,
    mac: [u8; 6],
    sleeps: u64,
    /// Ticks of the virtual counter that passed in sleep.
    asleep_ticks: u64,
    /// What comes in.
    pub receive: Receive<D::Map>,
    /// What goes out.
    pub transmit: Transmit<D::Map>,
}

impl<D: Dma> Nic<D> {
    /// Starts the device behind `transport`, which interrupts by `intid`.
    pub fn new(mut transport: PciTransport, intid: u32, mut dma: D) -> Self {
        transport.begin_init(Features::MAC | Features::VERSION_1 | Features::ACCESS_PLATFORM);
        let mac = core::array::from_fn(|index| transport.read_config_space(index).expect("the MAC address lies first"));
        let receive = Receive::new(queue(&mut transport, RECEIVE_QUEUE, &mut dma), &mut dma);
        let transmit = Transmit::new(queue(&mut transport, TRANSMIT_QUEUE, &mut dma), &mut dma);
        transport.finish_init();
        gic::set_edge(intid, false);
        gic::set(intid, Bank::Enable);
        Self { dma, transport, intid, mac, sleeps: 0, asleep_ticks: 0, receive, transmit }
    }

    /// The device's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Microseconds that this program has been awake, by the virtual counter: how long the peer takes is not its time,
    /// and where virtual time follows instructions, it jumps while every CPU sleeps.
    pub fn awake_us(&self) -> u64 {
        (CNTVCT_EL0.read() - self.asleep_ticks) * 1000 / (CNTFRQ_EL0.read() / 1000)
    }

    /// Loads and unloads so far.
    pub fn dma_counts(&self) -> Counts {
        self.dma.counts()
    }

    /// Packets so far.
    pub fn traffic(&self) -> Traffic {
        Traffic { received: self.receive.packets(), sent: self.transmit.packets(), sleeps: self.sleeps }
    }

    /// Takes back what the device is done with, gives it what is new: all maps of both by one call, and that when enough
    /// have gathered, or when there is nothing else to do and nothing more to come by itself. Whether anything was done.
    pub fn turn(&mut self, is_idle: bool) -> bool {
        self.receive.gather(&mut self.dma);
        self.transmit.gather(&mut self.dma);
        let gathered = self.receive.gathered() + self.transmit.gathered();
        let is_urgent = is_idle && !self.transmit.is_busy();
        if gathered == 0 || (gathered < CALL_LEN && !is_urgent) {
            return false;
        }
        self.dma.run();
        if self.receive.commit(&self.dma) {
            self.transport.notify(RECEIVE_QUEUE);
        }
        if self.transmit.commit(&self.dma) {
            self.transport.notify(TRANSMIT_QUEUE);
        }
        true
    }

    /// Sleeps until the device has something, unless it has by now.
    pub fn wait(&mut self) {
        self.receive.interrupt_on_use(true);
        self.transmit.interrupt_on_use(true);
        // Before the look at the queues, the device must see that interrupts are wanted.
        cpu::dsb();
        if !self.receive.has_used() && !self.transmit.has_used() {
            self.sleeps += 1;
            let start = CNTVCT_EL0.read();
            // Interrupts are masked: this returns with the interrupt pending.
            cpu::wfi();
            self.asleep_ticks += CNTVCT_EL0.read() - start;
        }
        self.receive.interrupt_on_use(false);
        self.transmit.interrupt_on_use(false);
        self.acknowledge();
    }

    /// Acknowledges an interrupt where there is one: at the device first, whose line would stay up otherwise.
    fn acknowledge(&mut self) {
        let intid = ICC_IAR1_EL1.read();
        if intid == u64::from(self.intid) {
            self.transport.ack_interrupt();
            ICC_EOIR1_EL1.write(intid);
        }
    }
}

fn queue<D: Dma>(transport: &mut PciTransport, number: u16, dma: &mut D) -> Queue {
    hal::prepare_queue(dma, QUEUE_PAGES);
    let queue = VirtQueue::new(transport, number, false, false).expect("the device has queues of this length");
    let mut queue = Box::new(queue);
    queue.set_dev_notify(false);
    queue
}
