//! Assembly of a guest's output into lines that cannot imitate another's.
//!
//! What passes: printable ASCII, tab, bytes from 0x80 on except where they could be C1 controls, and colour sequences
//! (`ESC [ digits ; … m`, SGR). Every other control byte, ESC of any other sequence included, becomes `^X`; DEL becomes
//! `^?`. CR is dropped. So a guest can colour its own line, but neither move the cursor, nor clear, nor retitle the
//! terminal, nor start a line that another VM seems to have written. Whoever prints a line ends it with a colour reset.

use heapless::Vec;

/// Most bytes of one line; a longer one is cut into several.
pub const LINE_MAX: usize = 256;
/// Longest colour sequence that passes.
const SGR_MAX: usize = 20;
/// Room that one input byte and the sequence it ends may take: each byte as `^X` at most.
const STEP_MAX: usize = 2 * (SGR_MAX + 1);

/// Output of one VM that is not yet a line.
#[derive(Clone, Debug, Default)]
pub struct LineBuffer {
    text: Vec<u8, LINE_MAX>,
    /// An escape sequence so far, ESC first.
    escape: Vec<u8, SGR_MAX>,
    /// Bytes that a UTF-8 sequence still lacks.
    utf8_left: u8,
    /// The line was cut or flushed before its end: an end that follows at once is no empty line.
    is_continued: bool,
}

impl LineBuffer {
    /// Empty.
    pub const fn new() -> Self {
        Self { text: Vec::new(), escape: Vec::new(), utf8_left: 0, is_continued: false }
    }

    /// Takes one byte; calls `print` with each line that it completes, without its end. At most twice.
    pub fn push(&mut self, byte: u8, mut print: impl FnMut(&[u8])) {
        match byte {
            b'\n' => {
                self.abandon_escape();
                if !(self.is_continued && self.text.is_empty()) {
                    print(&self.text);
                }
                self.text.clear();
                self.is_continued = false;
                return;
            }
            b'\r' => return,
            _ => {}
        }
        if self.text.len() + STEP_MAX > LINE_MAX {
            self.flush(&mut print);
        }
        self.take(byte);
    }

    /// Whether there is anything that [`LineBuffer::flush`] would print.
    pub fn is_pending(&self) -> bool {
        !self.text.is_empty()
    }

    /// Prints what there is of a line: a prompt, after idle time. Returns whether there was anything.
    pub fn flush(&mut self, mut print: impl FnMut(&[u8])) -> bool {
        if self.text.is_empty() {
            return false;
        }
        print(&self.text);
        self.text.clear();
        self.is_continued = true;
        true
    }

    fn take(&mut self, byte: u8) {
        if !self.escape.is_empty() {
            if self.take_escape(byte) {
                return;
            }
            self.abandon_escape();
        }
        match byte {
            0x1b => {
                self.utf8_left = 0;
                self.put_escape(byte);
            }
            b'\t' | b' '..=b'~' => {
                self.utf8_left = 0;
                self.put(byte);
            }
            0x80..=0xff => self.take_utf8(byte),
            _ => self.put_visible(byte),
        }
    }

    /// Whether `byte` belongs to the colour sequence so far.
    fn take_escape(&mut self, byte: u8) -> bool {
        let is_next = match self.escape.len() {
            1 => byte == b'[',
            _ => matches!(byte, b'0'..=b'9' | b';'),
        };
        if self.escape.len() > 1 && byte == b'm' {
            for n in 0..self.escape.len() {
                let byte = self.escape.get(n).copied().unwrap_or(b' ');
                self.put(byte);
            }
            self.put(b'm');
            self.escape.clear();
            return true;
        }
        is_next && self.put_escape(byte)
    }

    fn put_escape(&mut self, byte: u8) -> bool {
        self.escape.push(byte).is_ok()
    }

    /// The sequence was none that passes: its ESC is shown, the rest is text.
    fn abandon_escape(&mut self) {
        let escape = core::mem::take(&mut self.escape);
        for &byte in &escape {
            if byte == 0x1b { self.put_visible(byte) } else { self.put(byte) }
        }
    }

    /// Well-formed UTF-8 passes, C1 controls (U+0080 to U+009F, or the bare bytes) do not.
    fn take_utf8(&mut self, byte: u8) {
        match byte {
            0x80..=0xbf if self.utf8_left > 0 => {
                self.utf8_left -= 1;
                let is_c1 = self.text.last() == Some(&0xc2) && byte < 0xa0;
                if is_c1 {
                    self.text.pop();
                    self.put(b'?');
                } else {
                    self.put(byte);
                }
            }
            0xc2..=0xdf => self.start_utf8(byte, 1),
            0xe0..=0xef => self.start_utf8(byte, 2),
            0xf0..=0xf4 => self.start_utf8(byte, 3),
            _ => {
                self.utf8_left = 0;
                self.put(b'?');
            }
        }
    }

    fn start_utf8(&mut self, byte: u8, left: u8) {
        self.utf8_left = left;
        self.put(byte);
    }

    fn put_visible(&mut self, byte: u8) {
        self.utf8_left = 0;
        self.put(b'^');
        self.put(byte ^ 0x40);
    }

    fn put(&mut self, byte: u8) {
        // There is room: `push` sees to it. A byte too many would be dropped.
        let _ = self.text.push(byte);
    }
}
