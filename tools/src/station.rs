//! The other end of a guest's wire: a station with a TCP stack of its own, in this process.
//!
//! QEMU's user network would do for packets, but its window of 64 KiB would bound the batches that a guest can make.

mod stream;
mod wire;

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use smoltcp::{
    iface::{Config, Interface, SocketSet},
    socket::tcp,
    time,
    wire::{EthernetAddress, IpAddress, IpCidr},
};

use crate::qemu::QemuLine;
use stream::Stream;
use wire::Wire;

const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 1, 1]);
const ADDRESS: IpAddress = IpAddress::v4(10, 0, 0, 1);
const PORT: u16 = 5001;
/// Of each direction; what a guest has in flight is bounded by its own window.
const BUFFER_BYTES: usize = 1 << 20;
/// A guest may open its next connection before the last one's end is settled.
const SOCKETS: usize = 2;

/// Tells apart the stations of one process.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A station that waits for its wire. It ends with the machine at the other end.
#[derive(Debug)]
pub struct Station {
    name: String,
}

impl Station {
    /// Starts a station, which serves whoever connects to it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let name = format!("bulkhead-{}-{}", process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(&name).context("a name for the station's wire")?;
        let listener = UnixListener::bind_addr(&address).context("the station's wire")?;
        thread::spawn(move || {
            // An error is the end of the machine, which ends the station as well.
            listener.accept().and_then(|(socket, _)| serve(&mut Wire::new(socket)?))
        });
        Ok(Self { name })
    }

    /// Plugs the wire into the network `id` of `line`.
    pub fn plug_into(&self, line: &mut QemuLine, id: &str) {
        let address = format!("addr.type=unix,addr.path={},addr.abstract=on", self.name);
        line.option("-netdev", &format!("stream,id={id},server=off,{address}"));
    }
}

fn socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    // A guest whose clock stands still while it waits must not wait for a timer here.
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

/// Answers until the wire is cut.
fn serve(wire: &mut Wire) -> io::Result<()> {
    let start = Instant::now();
    let now = || time::Instant::from_micros(i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX));
    let mut interface = Interface::new(Config::new(MAC.into()), wire, now());
    interface.update_ip_addrs(|addresses| {
        // The list has room for one.
        let _ = addresses.push(IpCidr::new(ADDRESS, 24));
    });
    let mut sockets = SocketSet::new(Vec::new());
    let mut streams = [(); SOCKETS].map(|()| (sockets.add(socket()), Stream::default()));
    loop {
        let mut has_moved = false;
        for (handle, stream) in &mut streams {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
            if !socket.is_open() {
                *stream = Stream::default();
                socket.listen(PORT).map_err(|error| io::Error::other(format!("{error:?}")))?;
            }
            has_moved |= stream.serve(socket);
        }
        interface.poll(now(), wire, &mut sockets);
        wire.flush()?;
        if !has_moved {
            wire.wait()?;
        }
    }
}
