//! What a guest may ask of the station: to take a stream of known words, or to give one.

use smoltcp::socket::tcp::Socket;

const WORD: usize = 8;
/// A request: 0 to take or 1 to give, and how many bytes, a multiple of 8; two little-endian words.
const REQUEST_BYTES: usize = 2 * WORD;
const GIVE: u64 = 1;
/// Each word is this much more than the one before, from 0 on: `guest-tests/nic/src/stream.rs` has the same.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One connection's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// The request has not come.
    #[default]
    Asked,
    /// Words still come.
    Taking(Cursor),
    /// Words still go.
    Giving(Cursor),
    /// The sum has gone.
    Done,
}

/// A position in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    left_bytes: u64,
    word: u64,
    sum: u64,
}

impl Cursor {
    fn add(&mut self, word: u64) {
        self.word = self.word.wrapping_add(STEP);
        self.sum = self.sum.rotate_left(1).wrapping_add(word);
        self.left_bytes = self.left_bytes.saturating_sub(WORD as u64);
    }

    fn most(&self, available: usize) -> usize {
        available.min(usize::try_from(self.left_bytes).unwrap_or(usize::MAX))
    }

    /// Reads the next words; the bytes that were read.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let (words, _) = bytes[..self.most(bytes.len())].as_chunks::<WORD>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        words.len() * WORD
    }

    /// Writes the next words; the bytes that were written.
    fn give(&mut self, bytes: &mut [u8]) -> usize {
        let most = self.most(bytes.len());
        let (words, _) = bytes[..most].as_chunks_mut::<WORD>();
        for word in &mut *words {
            *word = self.word.to_le_bytes();
            self.add(self.word);
        }
        words.len() * WORD
    }
}

impl Stream {
    /// Does what can be done now; whether anything was.
    pub fn serve(&mut self, socket: &mut Socket<'_>) -> bool {
        match self {
            Self::Asked if socket.recv_queue() >= REQUEST_BYTES => {
                let mut words = [[0; WORD]; 2];
                let read = socket.recv_slice(words.as_flattened_mut());
                let [what, left_bytes] = words.map(u64::from_le_bytes);
                let cursor = Cursor { left_bytes, word: 0, sum: 0 };
                *self = if what == GIVE { Self::Giving(cursor) } else { Self::Taking(cursor) };
                read.is_ok()
            }
            Self::Taking(cursor) | Self::Giving(cursor) if cursor.left_bytes == 0 => {
                // Room is made for the sum by what is read or acknowledged; until then it is tried again.
                let is_sent = socket.can_send() && socket.send_queue() + WORD <= socket.send_capacity();
                if is_sent {
                    let _ = socket.send_slice(&cursor.sum.to_le_bytes());
                    *self = Self::Done;
                }
                is_sent
            }
            Self::Taking(cursor) => socket.recv(|bytes| same(cursor.take(bytes))).is_ok_and(|moved| moved > 0),
            Self::Giving(cursor) => socket.send(|bytes| same(cursor.give(bytes))).is_ok_and(|moved| moved > 0),
            Self::Asked | Self::Done => {
                if !socket.may_recv() && socket.may_send() {
                    socket.close();
                }
                false
            }
        }
    }
}

fn same(moved: usize) -> (usize, usize) {
    (moved, moved)
}

#[cfg(test)]
mod tests {
    use super::{Cursor, STEP};

    /// Would miss: a sum that does not tell the order of words, or two ends that count differently.
    #[test]
    fn what_is_given_is_what_is_taken() {
        let mut bytes = [0; 44];
        let mut given = Cursor { left_bytes: 40, word: 0, sum: 0 };
        assert_eq!(given.give(&mut bytes), 40);
        assert_eq!(given.left_bytes, 0);
        assert_eq!(&bytes[8..16], STEP.to_le_bytes());
        let mut taken = Cursor { left_bytes: 40, word: 0, sum: 0 };
        assert_eq!(taken.take(&bytes[..12]), 8);
        assert_eq!(taken.take(&bytes[8..]), 32);
        assert_eq!(taken, given);
        bytes.swap(0, 8);
        let mut swapped = Cursor { left_bytes: 40, word: 0, sum: 0 };
        swapped.take(&bytes);
        assert_ne!(swapped.sum, given.sum);
    }
}
