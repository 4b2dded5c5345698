//! Commands and stream tables, as the architecture has them.

use bulkhead_core::stage1::{ContextTable, Stage1Pages};

use super::*;

impl Reference {
    /// One command: what a CMD_SYNC stores where; else CONS.ERR.
    pub fn command(&mut self, low: u64, high: u64) -> Result<Option<(u64, u32)>, u32> {
        let field = |word: u64, shift: u32, bits: u32| word >> shift & ((1 << bits) - 1);
        let stream = u32::try_from(field(low, 32, 32)).expect("32 bits");
        let is_on = self.bits(0x24, 0, 1) == 1;
        let opcode = field(low, 0, 8);
        if (1..=6).contains(&opcode) && field(low, 10, 1) == 1 {
            return Err(1);
        }
        let asid = u16::try_from(field(low, 48, 16)).expect("16 bits");
        match opcode {
            1 | 2 => {}
            3 if is_on => self.configure(stream, stream, true).map_err(|_| 2_u32)?,
            4 if is_on => {
                let size = 2_u64 << field(high, 0, 5);
                let first = u64::from(stream) / size * size;
                let half = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                self.configure(half(first), half(first + size - 1), true).map_err(|_| 2_u32)?;
            }
            5 | 6 if is_on && STREAMS.contains(&stream) => self.host.forget_context(stream).map_err(|_| 2_u32)?,
            3..=6 => {}
            0x10 | 0x30 => self.host.flush(Stage1Flush::All),
            0x11 => self.host.flush(Stage1Flush::Asid(asid)),
            0x12 | 0x13 => {
                let (granule, level) = (field(high, 10, 2), field(high, 8, 2));
                let (num, scale) = (field(low, 12, 5), field(low, 20, 5));
                let first = high / 4096 * 4096;
                let mut bytes: u128 = 4096;
                if granule != 0 {
                    let is_hint = level != 0 && !(granule == 2 && level == 1);
                    if num == 0 && scale == 0 && !is_hint {
                        return Err(1);
                    }
                    bytes = u128::from(num + 1) * (1 << scale) * (1 << (10 + 2 * granule));
                }
                let bytes = bytes.min((1 << 64) - u128::from(first));
                let pages = u64::try_from(bytes / 4096).expect("at most 2^52");
                let asid = (opcode == 0x12).then_some(asid);
                let is_leaf = field(high, 0, 1) == 1;
                self.host.flush(Stage1Flush::Pages(Stage1Pages { asid, first, pages, is_leaf }));
            }
            0x46 => {
                let signal = field(low, 12, 2);
                if signal == 3 {
                    return Err(1);
                }
                self.host.sync().map_err(|_| 2_u32)?;
                return Ok((signal == 1).then_some((high & 0x00ff_ffff_ffff_fffc, stream)));
            }
            _ => return Err(1),
        }
        Ok(None)
    }

    pub fn configure(&mut self, first: u32, last: u32, is_on: bool) -> Result<(), HostFailed> {
        for stream in STREAMS.into_iter().filter(|stream| (first..=last).contains(stream)) {
            let config = match (is_on, self.bits(0x44, 20, 1)) {
                (true, _) => self.entry(stream).unwrap_or(StreamConfig::Invalid),
                (false, 1) => StreamConfig::Abort,
                (false, _) => StreamConfig::Bypass,
            };
            self.host.configure(stream, &config)?;
        }
        Ok(())
    }

    /// What the entry says; else the number of the event and an address.
    pub fn entry(&self, stream: u32) -> Result<StreamConfig, (u64, u64)> {
        let missing = (0x02, 0);
        let size = 1_u128 << self.bits(0x88, 0, 6);
        if u128::from(stream) >= size.min(256) {
            return Err(missing);
        }
        let align = |at: u64, bytes: u128| u64::try_from(u128::from(at) / bytes * bytes).expect("below");
        let address = |word: u64| word & 0x00ff_ffff_ffff_ffc0;
        let base = address(self.address(0x80));
        let at = if self.bits(0x88, 16, 2) == 1 {
            let split = match self.bits(0x88, 6, 5) {
                8 => 256,
                10 => 1024,
                _ => 64,
            };
            let at =
                align(base, (size / split * 8).max(64)) + u64::from(stream) / u64::try_from(split).expect("small") * 8;
            let descriptor = self.load(at).ok_or((0x03, at))?;
            let span = descriptor & 0x1f;
            let place = u128::from(stream) % split;
            if span == 0 || span > 11 || 1 << (span - 1) > split || place >= 1 << (span - 1) {
                return Err(missing);
            }
            align(address(descriptor), 64 << (span - 1)) + u64::try_from(place).expect("small") * 64
        } else {
            align(base, size * 64) + u64::from(stream) * 64
        };
        let (low, high) = self.load(at).zip(self.load(at + 8)).ok_or((0x03, at))?;
        let two = |shift: u32| u8::try_from(high >> shift & 3).expect("two bits");
        Ok(match (low & 1, low >> 1 & 7) {
            (0, _) => StreamConfig::Invalid,
            (_, 0..=3) => StreamConfig::Abort,
            (_, 4) => StreamConfig::Bypass,
            (_, 5) if high >> 27 & 1 == 0 && address(low) < 1 << ABILITY.oas_bits => {
                let shareability = if two(6) == 1 { 0 } else { two(6) };
                let at = Ipa::new(address(low));
                StreamConfig::Stage1(ContextTable { at, inner: two(2), outer: two(4), shareability })
            }
            _ => StreamConfig::Invalid,
        })
    }
}
