//! The TCP stack over the NIC.

use alloc::vec::Vec;

use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant,
    wire::{EthernetAddress, IpAddress, IpCidr},
};

use crate::{
    dma::Dma,
    nic::{FRAME_BYTES, Nic, Received, Slot},
};

/// This guest, and the peer on the host side.
const ADDRESS: IpAddress = IpAddress::v4(10, 0, 0, 2);
/// The peer's address and port.
pub const PEER: (IpAddress, u16) = (IpAddress::v4(10, 0, 0, 1), 5001);
/// Bytes that may be on their way: less than what the receive queue holds, so that no packet is ever lost.
const WINDOW_BYTES: usize = 256 << 10;

impl<M> RxToken for Received<'_, M> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        self.read(read)
    }
}

impl<M> TxToken for Slot<'_, M> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        self.write(len, write)
    }
}

impl<D: Dma> Device for Nic<D> {
    type RxToken<'a>
        = Received<'a, D::Map>
    where
        D: 'a;
    type TxToken<'a>
        = Slot<'a, D::Map>
    where
        D: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let answer = self.transmit.answer_slot()?;
        Some((self.receive.take()?, answer))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        self.transmit.slot()
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        // As for a NIC that does it: `stream` has a sum of its own over all that it moves.
        capabilities.checksum.tcp = Checksum::None;
        capabilities
    }
}

/// The stack's clock stands still in sleep: nothing is lost on this wire, so nothing is to be sent again because the
/// peer takes its time.
fn now<D: Dma>(nic: &Nic<D>) -> Instant {
    Instant::from_micros(i64::try_from(nic.awake_us()).unwrap_or(i64::MAX))
}

/// The interface with its one socket.
pub struct Stack<D: Dma> {
    /// The device below.
    pub nic: Nic<D>,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl<D: Dma> Stack<D> {
    /// Brings the interface up.
    pub fn new(mut nic: Nic<D>) -> Self {
        let start = now(&nic);
        let config = Config::new(EthernetAddress(nic.mac()).into());
        let mut interface = Interface::new(config, &mut nic, start);
        interface.update_ip_addrs(|addresses| {
            // The list has room for one.
            let _ = addresses.push(IpCidr::new(ADDRESS, 24));
        });
        let buffer = || tcp::SocketBuffer::new(alloc::vec![0; WINDOW_BYTES]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // No timer wakes this program: an acknowledgement that waits for one would wait for ever.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Self { nic, interface, sockets, socket }
    }

    /// The socket.
    pub fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Begins to connect to the peer from `port`.
    pub fn connect(&mut self, port: u16) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        socket.connect(self.interface.context(), PEER, port).expect("the socket is closed");
    }

    /// Moves packets until `is_done` finds what it waits for; sleeps when there is nothing to move.
    pub fn run_until(&mut self, mut is_done: impl FnMut(&mut tcp::Socket<'static>) -> Progress) {
        loop {
            let polled = self.interface.poll(now(&self.nic), &mut self.nic, &mut self.sockets);
            let progress = is_done(self.sockets.get_mut(self.socket));
            if progress == Progress::Done {
                return;
            }
            let is_idle = polled == PollResult::None && progress == Progress::Nothing;
            let has_turned = self.nic.turn(is_idle);
            if is_idle && !has_turned {
                self.nic.wait();
            }
        }
    }
}

/// What the program could do with its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It moved data.
    Made,
    /// It could do nothing.
    Nothing,
    /// It has what it wanted.
    Done,
}
