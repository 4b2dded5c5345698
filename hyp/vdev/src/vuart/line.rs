//! Assembly of a guest's output into lines that cannot imitate another's.
//!
//! What passes: printable ASCII, tab, well-formed UTF-8 of printable characters, and colour sequences (`ESC [ digits ; …
//! m`, SGR). Every other control byte, ESC of any other sequence included, becomes `^X`; DEL becomes `^?`; malformed
//! UTF-8, C1 controls and characters that change the direction of writing become `?`. CR is dropped, the question for the cursor (`ESC [ 6 n`) too. So a guest can
//! colour its own line, but neither move the cursor, nor clear, nor retitle the terminal, nor start a line that another
//! VM seems to have written. Whoever prints a line ends it with a colour reset.

use heapless::Vec;

/// Most bytes of one line; a longer one is cut into several.
pub const LINE_MAX: usize = 256;
/// Longest colour sequence that passes.
const SGR_MAX: usize = 20;
/// Room that one input byte may take: an escape sequence or character that it ends, and itself as `^X`.
const STEP_MAX: usize = SGR_MAX + 8;

/// Output of one VM that is not yet a line.
#[derive(Clone, Debug, Default)]
pub struct LineBuffer {
    text: Vec<u8, LINE_MAX>,
    /// An escape sequence so far, ESC first.
    escape: Vec<u8, SGR_MAX>,
    /// A UTF-8 character so far.
    character: Vec<u8, 4>,
    /// The line was cut or flushed before its end: an end that follows at once is no empty line.
    is_continued: bool,
}

impl LineBuffer {
    /// Empty.
    pub const fn new() -> Self {
        Self { text: Vec::new(), escape: Vec::new(), character: Vec::new(), is_continued: false }
    }

    /// Takes one byte; calls `print` with each line that it completes, without its end. At most twice.
    pub fn push(&mut self, byte: u8, mut print: impl FnMut(&[u8])) {
        if self.text.len() + STEP_MAX > LINE_MAX {
            self.flush(&mut print);
        }
        match byte {
            b'\n' => {
                self.abandon();
                if !(self.is_continued && self.text.is_empty()) {
                    print(&self.text);
                }
                self.text.clear();
                self.is_continued = false;
            }
            b'\r' => {}
            _ => self.take(byte),
        }
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
        if self.take_escape(byte) || self.take_character(byte) {
            return;
        }
        self.abandon();
        match byte {
            // There is room in an empty sequence.
            0x1b => self.escape.extend([byte]),
            0xc2..=0xf4 => self.character.extend([byte]),
            b'\t' | b' '..=b'~' => self.put(&[byte]),
            0x80..=0xff => self.put(b"?"),
            _ => self.put(&[b'^', byte ^ 0x40]),
        }
    }

    /// Whether `byte` belongs to the colour sequence so far.
    fn take_escape(&mut self, byte: u8) -> bool {
        let is_next = match self.escape.len() {
            0 => return false,
            1 => byte == b'[',
            _ => matches!(byte, b'0'..=b'9' | b';' | b'm') || (byte == b'n' && self.escape.ends_with(b"[6")),
        };
        if !is_next || self.escape.push(byte).is_err() {
            return false;
        }
        if byte == b'n' {
            // "Where is the cursor?": there is no terminal of its own to answer, and shells ask at every prompt.
            self.escape.clear();
        }
        if byte == b'm' {
            let sequence = core::mem::take(&mut self.escape);
            self.put(&sequence);
        }
        true
    }

    /// Whether `byte` belongs to the UTF-8 character so far.
    fn take_character(&mut self, byte: u8) -> bool {
        let wanted = match self.character.first() {
            None => return false,
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(_) => 4,
        };
        if !matches!(byte, 0x80..=0xbf) || self.character.push(byte).is_err() {
            return false;
        }
        if self.character.len() == wanted {
            let character = core::mem::take(&mut self.character);
            let is_printable = core::str::from_utf8(&character).is_ok_and(|text| text.chars().all(is_printable));
            self.put(if is_printable { &character } else { b"?" });
        }
        true
    }

    /// What was begun turned out to be nothing that passes: ESC is shown, the rest of its sequence is text.
    fn abandon(&mut self) {
        let escape = core::mem::take(&mut self.escape);
        if let Some((_, rest)) = escape.split_first() {
            self.put(b"^[");
            self.put(rest);
        }
        if !core::mem::take(&mut self.character).is_empty() {
            self.put(b"?");
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        // There is room: `push` sees to it. What had none would be dropped.
        let _ = self.text.extend_from_slice(bytes);
    }
}

/// No control and nothing that reorders or hides text: line and paragraph separators, marks of direction.
fn is_printable(character: char) -> bool {
    let is_layout = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    !character.is_control() && !is_layout && character != '\u{feff}'
}
