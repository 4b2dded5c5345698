//! A guest's general registers, as `vectors.s` leaves them on the stack.

/// 256 bytes: x0 to x30 and one more word.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct TrapFrame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer at a fault of the hypervisor; unused for a guest's exit.
    pub stack_pointer: u64,
}

impl TrapFrame {
    /// All zero.
    pub const ZERO: Self = Self { x: [0; 31], stack_pointer: 0 };

    /// A register by its number in a syndrome: 31 is the zero register.
    pub fn get(&self, register: u8) -> u64 {
        self.x.get(usize::from(register)).copied().unwrap_or(0)
    }

    /// Writes a register by its number in a syndrome; a write to 31 is lost, as it is for xzr.
    pub fn set(&mut self, register: u8, value: u64) {
        if let Some(slot) = self.x.get_mut(usize::from(register)) {
            *slot = value;
        }
    }
}
