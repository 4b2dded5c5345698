//! Resets of one function, as steps between which the caller waits.

use super::{ConfigSpace, FunctionReset, PciDevice, bar, registers as reg};

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetStep {
    /// Wait this long, then take the next step.
    Wait {
        /// Microseconds.
        us: u32,
    },
    /// The function was reset: [`restore`] it.
    Done,
    /// The function has no reset of its own: its state is what its driver left, and [`restore`] stops it.
    Unsupported,
    /// The function does not come back.
    Failed,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Mastering is off; what is under way may finish. Polls left.
    Drain(u8),
    /// The reset was started.
    Started,
    /// The way back from D3hot was started.
    Woken,
    /// Waiting for it to answer. Polls left.
    Answer(u8),
    Over(ResetStep),
}

/// A reset under way: call [`Reset::step`] until it says something else than to wait.
///
/// Function-level reset (PCI Express Base Specification 6.6.2): mastering off, transactions done (at most 100 ms),
/// the reset, 100 ms without an access, then the function answers (within 1 s here).
pub struct Reset {
    device: PciDevice,
    phase: Phase,
}

const POLL_US: u32 = 10_000;

impl Reset {
    /// Stops the function: no mastering, no decode, no interrupt.
    pub fn start(config: &mut impl ConfigSpace, device: &PciDevice) -> Self {
        config.write32(device.function, reg::COMMAND, u32::from(reg::COMMAND_INTX_DISABLE));
        Self { device: *device, phase: Phase::Drain(10) }
    }

    /// Takes a step.
    pub fn step(&mut self, config: &mut impl ConfigSpace) -> ResetStep {
        let (phase, step) = match self.phase {
            Phase::Drain(polls) => match self.device.capabilities.reset {
                None => (Phase::Over(ResetStep::Unsupported), ResetStep::Unsupported),
                Some(reset) if polls > 0 && self.is_pending(config, reset) => {
                    (Phase::Drain(polls - 1), ResetStep::Wait { us: POLL_US })
                }
                Some(reset) => {
                    self.trigger(config, reset);
                    (Phase::Started, ResetStep::Wait { us: 100_000 })
                }
            },
            Phase::Started => match self.device.capabilities.reset {
                Some(FunctionReset::Power(offset)) => {
                    self.set_power(config, offset, 0);
                    (Phase::Woken, ResetStep::Wait { us: POLL_US })
                }
                _ => self.answer(config, 100),
            },
            Phase::Woken => self.answer(config, 100),
            Phase::Answer(polls) => self.answer(config, polls),
            Phase::Over(step) => (self.phase, step),
        };
        self.phase = phase;
        step
    }

    fn is_pending(&self, config: &impl ConfigSpace, reset: FunctionReset) -> bool {
        let function = self.device.function;
        match reset {
            FunctionReset::Express(offset) => {
                let word = config.read32(function, u16::from(offset) + reg::EXPRESS_DEVICE_CONTROL);
                word != u32::MAX && word & reg::DEVICE_STATUS_PENDING != 0
            }
            FunctionReset::Advanced(offset) => {
                config.read8(function, u16::from(offset) + reg::ADVANCED_CONTROL + 1) & 1 != 0
            }
            FunctionReset::Power(_) => false,
        }
    }

    fn trigger(&self, config: &mut impl ConfigSpace, reset: FunctionReset) {
        let function = self.device.function;
        match reset {
            FunctionReset::Express(offset) => {
                let offset = u16::from(offset) + reg::EXPRESS_DEVICE_CONTROL;
                let control = config.read32(function, offset) & reg::DEVICE_CONTROL_MASK;
                config.write32(function, offset, control | reg::DEVICE_CONTROL_FLR);
            }
            FunctionReset::Advanced(offset) => {
                config.write32(function, u16::from(offset) + reg::ADVANCED_CONTROL, 1);
            }
            FunctionReset::Power(offset) => self.set_power(config, offset, reg::POWER_D3),
        }
    }

    fn set_power(&self, config: &mut impl ConfigSpace, offset: u8, state: u32) {
        let offset = u16::from(offset) + reg::POWER_CONTROL;
        // Bit 15, the wake-up status, is cleared by writing one: it is written as zero.
        let control = config.read32(self.device.function, offset) & 0x7ffc;
        config.write32(self.device.function, offset, control | state);
    }

    fn answer(&self, config: &impl ConfigSpace, polls: u8) -> (Phase, ResetStep) {
        // A function that is not ready answers with all ones, or with vendor 1 where retries are visible.
        let [low, high, ..] = config.read32(self.device.function, reg::IDS).to_le_bytes();
        match (u16::from_le_bytes([low, high]), polls) {
            (0xffff | 1, 0) => (Phase::Over(ResetStep::Failed), ResetStep::Failed),
            (0xffff | 1, polls) => (Phase::Answer(polls - 1), ResetStep::Wait { us: POLL_US }),
            _ => (Phase::Over(ResetStep::Done), ResetStep::Done),
        }
    }
}

/// Writes what a reset took, or a driver changed: BARs, no ROM, command 0 (no mastering, no decode, INTx not disabled).
pub fn restore(config: &mut impl ConfigSpace, device: &PciDevice) {
    config.write32(device.function, reg::COMMAND, 0);
    bar::write(config, device.function, &device.bars);
    if device.bridge.is_none() {
        config.write32(device.function, reg::ROM, 0);
    }
}
