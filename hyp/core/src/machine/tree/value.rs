//! The bytes of a property, read as cells or as texts.

/// The bytes of a property.
#[derive(Clone, Copy)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The cells, a remainder of less than four bytes left out.
    pub fn cells(self) -> Cells<'a> {
        Cells(self.0)
    }

    /// The one cell.
    pub fn cell(self) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.try_into().ok()?))
    }

    /// A number of one or two cells, by the length.
    pub fn number(self) -> Option<u64> {
        match self.0.len() {
            4 | 8 => self.cells().number(self.0.len() / 4),
            _ => None,
        }
    }

    /// The text up to the first zero byte.
    pub fn text(self) -> Option<&'a str> {
        self.strings().next()
    }

    /// The texts, each ended by a zero byte.
    pub fn strings(self) -> impl Iterator<Item = &'a str> {
        let ended = self.0.strip_suffix(&[0]).unwrap_or(self.0);
        ended.split(|&byte| byte == 0).map(|text| core::str::from_utf8(text).unwrap_or(""))
    }
}

/// Reads cells one after the other.
#[derive(Clone, Copy, Default)]
pub struct Cells<'a>(&'a [u8]);

impl Cells<'_> {
    /// Whether fewer than four bytes are left.
    pub fn is_empty(self) -> bool {
        self.0.len() < 4
    }

    /// A number of `count` cells, at most two; zero cells are the number 0.
    pub fn number(&mut self, count: usize) -> Option<u64> {
        match count {
            0 => Some(0),
            1 => Some(u64::from(self.next()?)),
            2 => Some(u64::from(self.next()?) << 32 | u64::from(self.next()?)),
            _ => None,
        }
    }

    /// Leaves `count` cells out.
    #[inline(never)]
    pub fn skip_cells(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count.checked_mul(4)?..)?;
        Some(())
    }
}

impl Iterator for Cells<'_> {
    type Item = u32;

    #[inline(never)]
    fn next(&mut self) -> Option<u32> {
        let (cell, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*cell))
    }
}
