//! The vocabulary of emulated accesses: width, offset, value.

/// Width of one access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
    /// Eight bytes.
    Double,
}

impl Width {
    /// Every width, narrowest first.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Half, Self::Word, Self::Double];

    /// The width of `bytes` bytes: `None` unless 1, 2, 4 or 8.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Half),
            4 => Some(Self::Word),
            8 => Some(Self::Double),
            _ => None,
        }
    }

    /// The width in bytes.
    #[inline(always)]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// Ones in the bits that an access of this width carries.
    #[inline(always)]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    /// `value` without the bits that an access of this width does not carry.
    #[inline(always)]
    pub const fn narrow(self, value: u64) -> u64 {
        value & self.mask()
    }

    /// `value` sign-extended from this width to 64 bits (SSE of ESR_ELx.ISS, DDI 0487).
    pub const fn sign_extend(self, value: u64) -> u64 {
        let shift = 64 - 8 * self.bytes();
        (((value << shift) as i64) >> shift) as u64
    }

    /// Whether `offset` is a multiple of the width.
    pub const fn is_aligned(self, offset: u64) -> bool {
        offset & (self.bytes() - 1) == 0
    }

    /// The bytes of `register` that this access reads, `offset` bytes into it. Zero past the register's end.
    pub const fn extract(self, register: u64, offset: u64) -> u64 {
        if offset >= 8 {
            return 0;
        }
        self.narrow(register >> (8 * offset))
    }

    /// `register` with the bytes from `offset` on replaced by `value`. Unchanged past the register's end.
    pub const fn insert(self, register: u64, offset: u64, value: u64) -> u64 {
        if offset >= 8 {
            return register;
        }
        let mask = self.mask() << (8 * offset);
        (register & !mask) | ((value << (8 * offset)) & mask)
    }
}

/// One access of a guest to an emulated device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Bytes from the start of the device.
    pub offset: u64,
    /// Width.
    pub width: Width,
    /// The value written, narrowed to the width; `None` for a read.
    pub write: Option<u64>,
}

impl Access {
    /// A read.
    pub const fn read(offset: u64, width: Width) -> Self {
        Self { offset, width, write: None }
    }

    /// A write of `value`, of which the bits inside `width` count.
    pub const fn write(offset: u64, width: Width, value: u64) -> Self {
        Self { offset, width, write: Some(width.narrow(value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::Width;

    /// Would miss nothing of the four widths: every byte position of a register is tried.
    #[test]
    fn insert_then_extract_is_the_value_and_touches_nothing_else() {
        for width in Width::ALL {
            for offset in (0..8).step_by(usize::try_from(width.bytes()).expect("small")) {
                let value = width.narrow(0x1122_3344_5566_7788);
                let register = width.insert(u64::MAX, offset, value);
                assert_eq!(width.extract(register, offset), value);
                assert_eq!(width.insert(register, offset, width.mask()), u64::MAX);
            }
            assert_eq!(width.extract(u64::MAX, 8), 0);
            assert_eq!(width.insert(5, 8, 9), 5);
        }
    }

    #[test]
    fn sign_extension_copies_the_top_bit_of_the_access() {
        assert_eq!(Width::Byte.sign_extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(Width::Byte.sign_extend(0x17f), 0x7f);
        assert_eq!(Width::Word.sign_extend(0x8000_0000), 0xffff_ffff_8000_0000);
        assert_eq!(Width::Double.sign_extend(7), 7);
    }

    #[test]
    fn only_powers_of_two_up_to_eight_are_widths() {
        for bytes in 0..20 {
            let width = Width::from_bytes(bytes);
            assert_eq!(width.is_some(), matches!(bytes, 1 | 2 | 4 | 8));
            assert!(width.is_none_or(|width| width.bytes() == bytes));
        }
    }
}
