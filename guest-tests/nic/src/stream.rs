//! One stream of known words, one way, timed and checked.

use bulkhead_guest_tests::{check, println};
use smoltcp::socket::tcp::{Socket, State};
use zerocopy::FromBytes;

use crate::{
    dma::Dma,
    stack::{Progress, Stack},
};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
/// What the peer multiplies the number of a word with, too: `tools/src/station/stream.rs`.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// The socket's buffers begin at a multiple of this, and whole words move: aligned loads, as any program would make them.
const ALIGNED: &str = "words stay aligned in the socket's buffers";
/// Local ports begin here.
const PORT: u16 = 49152;

/// Where the data go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the peer.
    Send = 0,
    /// From the peer.
    Receive = 1,
}

/// A position in the stream and the sum of the words before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    word: u64,
    sum: u64,
}

impl Cursor {
    fn add(&mut self, word: u64) {
        self.word = self.word.wrapping_add(STEP);
        self.sum = self.sum.rotate_left(1).wrapping_add(word);
    }

    /// Writes the next words; the bytes that were written.
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let whole = buffer.len() / WORD * WORD;
        let words = <[u64]>::mut_from_bytes(&mut buffer[..whole]).expect(ALIGNED);
        for word in words {
            *word = self.word;
            self.add(self.word);
        }
        whole
    }

    /// Reads words; the bytes that were read.
    fn sum_up(&mut self, buffer: &[u8]) -> usize {
        let whole = buffer.len() / WORD * WORD;
        let words = <[u64]>::ref_from_bytes(&buffer[..whole]).expect(ALIGNED);
        for word in words {
            self.add(*word);
        }
        whole
    }
}

/// Moves `bytes` bytes one way and prints what it took.
pub fn run<D: Dma>(stack: &mut Stack<D>, way: Way, bytes: u64) {
    stack.connect(PORT + way as u16);
    stack.run_until(|socket| if socket.may_send() { Progress::Done } else { Progress::Nothing });
    let request = [(way as u64).to_le_bytes(), bytes.to_le_bytes()].concat();
    stack.socket().send_slice(&request).expect("connected");

    let (dma, traffic, start) = (stack.nic.dma_counts(), stack.nic.traffic(), stack.nic.awake_us());
    let mut cursor = Cursor::default();
    let mut left = bytes;
    stack.run_until(|socket| match left {
        0 => Progress::Done,
        _ => {
            let moved = step(socket, way, left, &mut cursor);
            left -= moved;
            if moved > 0 { Progress::Made } else { Progress::Nothing }
        }
    });
    // Both ways end with the peer's sum: for what was sent, it is the word that all of it has arrived.
    let mut theirs = [0; WORD];
    stack.run_until(|socket| match socket.recv_queue() {
        0..WORD => Progress::Nothing,
        _ => {
            socket.recv_slice(&mut theirs).expect("there are enough bytes");
            Progress::Done
        }
    });
    let us = stack.nic.awake_us() - start;
    let (dma_after, traffic_after) = (stack.nic.dma_counts(), stack.nic.traffic());

    println!(
        "nic {} bytes={bytes} us={us} out={} in={} loads={} unloads={} hypercalls={} hypercalls_ns={} null_calls_ns={} sleeps={} sum={:#018x}",
        if way == Way::Send { "send" } else { "receive" },
        traffic_after.sent - traffic.sent,
        traffic_after.received - traffic.received,
        dma_after.loads - dma.loads,
        dma_after.unloads - dma.unloads,
        dma_after.hypercalls - dma.hypercalls,
        dma_after.hypercalls_ns - dma.hypercalls_ns,
        dma_after.null_calls_ns - dma.null_calls_ns,
        traffic_after.sleeps - traffic.sleeps,
        cursor.sum,
    );
    check!(u64::from_le_bytes(theirs) == cursor.sum, "{:?}: both ends have the same sum", way; theirs);
    stack.socket().close();
    stack.run_until(|socket| match socket.state() {
        // Nobody waits here for packets that come late.
        State::Closed | State::TimeWait => Progress::Done,
        _ => Progress::Nothing,
    });
    stack.socket().abort();
}

/// Moves what the socket takes or has, whole words only: the socket's buffers then never tear one at their end.
fn step(socket: &mut Socket<'_>, way: Way, left: u64, cursor: &mut Cursor) -> u64 {
    let most = |available: usize| available.min(usize::try_from(left).unwrap_or(usize::MAX));
    let moved = match way {
        Way::Send => socket
            .send(|free| {
                let len = most(free.len());
                let written = cursor.fill(&mut free[..len]);
                (written, written)
            })
            .ok(),
        Way::Receive => socket
            .recv(|data| {
                let read = cursor.sum_up(&data[..most(data.len())]);
                (read, read)
            })
            .ok(),
    };
    moved.unwrap_or_default() as u64
}
