//! Ethernet frames over a socket: QEMU's `stream` network, each frame after its length.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use smoltcp::{
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

/// Bytes of the longest Ethernet frame, without its checksum.
const FRAME_BYTES: usize = 1514;
/// Bytes of a frame's length, big-endian.
const LENGTH_BYTES: usize = 4;
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How long a wait takes at most: the stack's timers have no finer grain.
const WAIT: Duration = Duration::from_millis(20);

/// The wire's end.
#[derive(Debug)]
pub struct Wire {
    socket: UnixStream,
    /// Of a frame that has not come whole.
    partial: Vec<u8>,
    received: VecDeque<Vec<u8>>,
    /// Frames with their lengths, to be sent together.
    outgoing: Vec<u8>,
    chunk: Vec<u8>,
}

impl Wire {
    /// Takes a connected socket.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(WAIT))?;
        Ok(Self {
            socket,
            partial: Vec::new(),
            received: VecDeque::new(),
            outgoing: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    /// Waits until something has come, or for some milliseconds.
    ///
    /// # Errors
    /// When the wire is cut.
    pub fn wait(&mut self) -> io::Result<()> {
        match self.socket.read(&mut self.chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.partial.extend_from_slice(&self.chunk[..len]);
                let taken = split(&self.partial, &mut self.received);
                self.partial.drain(..taken);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends what has gathered.
    ///
    /// # Errors
    /// When the wire is cut.
    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.outgoing)?;
        self.outgoing.clear();
        Ok(())
    }
}

/// Puts the whole frames at the start of `bytes` to `frames`; the bytes that they took.
fn split(bytes: &[u8], frames: &mut VecDeque<Vec<u8>>) -> usize {
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let Some(frame) = after.get(..u32::from_be_bytes(*length) as usize) else { break };
        frames.push_back(frame.to_vec());
        rest = &after[frame.len()..];
    }
    bytes.len() - rest.len()
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a frame that goes.
#[derive(Debug)]
pub struct Room<'a>(&'a mut Vec<u8>);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let length = u32::try_from(len).unwrap_or_default();
        self.0.extend_from_slice(&length.to_be_bytes());
        let start = self.0.len();
        self.0.resize(start + len, 0);
        write(&mut self.0[start..])
    }
}

impl Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Frame, Room<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Frame(frame), Room(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        Some(Room(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        // The guest leaves them to its NIC, and this wire damages nothing.
        capabilities.checksum.tcp = Checksum::None;
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::split;

    /// Would miss: a frame that comes in two reads, taken for two frames or dropped.
    #[test]
    fn frames_are_whole() {
        let mut frames = VecDeque::new();
        let bytes = [0, 0, 0, 2, 7, 8, 0, 0, 0, 1, 9, 0, 0, 0, 3, 1, 2];
        assert_eq!(split(&bytes, &mut frames), 11);
        assert_eq!(frames, [vec![7, 8], vec![9]]);
        assert_eq!(split(&bytes[11..], &mut frames), 0);
        assert_eq!(split(&bytes[11..14], &mut frames), 0);
    }
}
