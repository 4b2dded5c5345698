//! The command queue's consumer: a bounded number of commands a call (IHI 0070 4.1, 7.1).

use core::sync::atomic::AtomicU64;

use tock_registers::fields::FieldValue;

use super::{
    COMMANDS_MAX, Host, HostFailed, Next, Vsmmu,
    command::{COMMAND_LOG2, Command, Completion, Decoder, Forget},
    interrupt::{Gerror, Interrupts, store, store_half},
    queue::Queue,
    registers::{CMDQ_CONS, CMDQ_LOG2, CR0, offset},
};
use crate::memory::{GuestMemory, Word};

/// Commands' worth of work that a stream's new configuration is: some CMD_SYNCs and a fetch.
const CONFIGURE_WORK: u32 = 8;

type Error = FieldValue<u32, CMDQ_CONS::Register>;

/// Commands that lie one after the other, at an address of the guest.
struct Run<'m> {
    words: &'m [AtomicU64],
    at: u64,
}

/// Why a burst ended before the run did.
enum Break {
    /// At a CMD_SYNC, not carried out, whose message goes to other memory: where, and what.
    Sync(u64, u32),
    /// At one for new configuration, not carried out either.
    Forget(Forget),
    /// At one that cannot be.
    Error(Error),
}

impl Vsmmu {
    /// Carries out commands of `queue`, which the registers describe, until it is empty, has stopped, or it was enough for one call.
    #[inline(always)]
    pub(super) fn drain(&mut self, queue: &Queue, memory: &mut impl GuestMemory, host: &mut impl Host) -> Next {
        let mut left = COMMANDS_MAX;
        loop {
            let consumer = self.registers.word(offset::CMDQ_CONS);
            let count = queue.run(self.registers.word(offset::CMDQ_PROD), consumer);
            if count == 0 || !self.is_consuming() {
                return Next::Done;
            }
            if left == 0 {
                return Next::More;
            }
            let at = queue.at(consumer);
            let count = count.min(left);
            let (done, outcome) = match memory.words(at, count as usize * 2) {
                Some(words) => self.burst(&Run { words, at: at.as_u64() }, host),
                None => (0, Err(Break::Error(CMDQ_CONS::ERR::Abort))),
            };
            left -= done;
            self.registers.set(offset::CMDQ_CONS, queue.advance(consumer, done));
            let carried_out = match outcome {
                Ok(()) => continue,
                Err(Break::Sync(at, data)) => host.sync().map(|()| self.complete(at, data, memory)).map(|()| 1),
                Err(Break::Forget(what)) => self.forget(what, memory, host),
                Err(Break::Error(error)) => {
                    self.stop(error, memory);
                    continue;
                }
            };
            match carried_out {
                Ok(work) => {
                    left = left.saturating_sub(work);
                    self.registers.set(offset::CMDQ_CONS, queue.advance(consumer, done + 1));
                }
                Err(HostFailed) => self.stop(CMDQ_CONS::ERR::Abort, memory),
            }
        }
    }

    /// Carries out what needs no memory but the run's own: each word is read once. How many that were.
    fn burst(&mut self, run: &Run<'_>, host: &mut impl Host) -> (u32, Result<(), Break>) {
        let decoder = Decoder::new(&self.ability);
        let (commands, _) = run.words.as_chunks();
        let mut done = 0;
        for [low, high] in commands {
            let outcome = match decoder.decode([low.get(), high.get()]) {
                Some(Command::Flush(flush)) => {
                    host.flush(flush);
                    Ok(())
                }
                Some(Command::Sync(Completion::Message(at, data))) => match run.word(at) {
                    Some(word) => host.sync().map_err(Break::from).map(|()| store_half(word, at, data)),
                    None => Err(Break::Sync(at, data)),
                },
                Some(Command::Sync(Completion::None)) => host.sync().map_err(Break::from),
                Some(Command::Prefetch) => Ok(()),
                Some(Command::Forget(what)) => Err(Break::Forget(what)),
                None => Err(Break::Error(CMDQ_CONS::ERR::Illegal)),
            };
            if outcome.is_err() {
                return (done, outcome);
            }
            done += 1;
        }
        (done, Ok(()))
    }

    /// Has new configuration take effect: the work that it was, at least 1.
    fn forget(&self, what: Forget, memory: &mut impl GuestMemory, host: &mut impl Host) -> Result<u32, HostFailed> {
        match what {
            Forget::Streams(first, last) if self.is_enabled() => {
                return Ok(1 + CONFIGURE_WORK * self.configure(first, last, true, memory, host)?);
            }
            Forget::Context(stream) if self.is_enabled() && host.has_stream(stream) => host.forget_context(stream)?,
            // Nothing is cached while the SMMU is off, and nothing of a stream that is not the VM's.
            Forget::Streams(..) | Forget::Context(_) => {}
        }
        Ok(1)
    }

    /// Says that a CMD_SYNC is complete: by wire only where it has no message. (4.7.3 has the wire in both cases. A driver
    /// that polls its message would pay for an interrupt that nobody waits for.)
    fn complete(&mut self, at: u64, data: u32, memory: &mut impl GuestMemory) {
        if at == 0 {
            self.interrupts |= Interrupts::CMD_SYNC;
        } else if store(memory, at, data).is_none() {
            self.raise(Gerror::MSI_CMDQ_ABT_ERR, memory);
        }
    }

    /// The command queue.
    #[inline(always)]
    pub(super) fn command_queue(&self) -> Queue {
        Queue::new(self.registers.double(offset::CMDQ_BASE), CMDQ_LOG2, COMMAND_LOG2)
    }

    #[inline(always)]
    fn is_consuming(&self) -> bool {
        self.registers.fields::<CR0::Register>(offset::CR0ACK).is_set(CR0::CMDQEN) && !self.is_active(Gerror::CMDQ_ERR)
    }

    /// Stops at the command that CONS names, until the guest acknowledges.
    fn stop(&mut self, error: Error, memory: &mut impl GuestMemory) {
        let mut cons = self.registers.fields::<CMDQ_CONS::Register>(offset::CMDQ_CONS);
        cons.modify(error);
        self.registers.set(offset::CMDQ_CONS, cons.get());
        self.raise(Gerror::CMDQ_ERR, memory);
    }
}

impl Run<'_> {
    /// The word of the run that holds the byte at `at`: Linux has a CMD_SYNC's own slot written.
    fn word(&self, at: u64) -> Option<&AtomicU64> {
        let place = usize::try_from(at.checked_sub(self.at)? / 8).ok()?;
        self.words.get(place)
    }
}

impl From<HostFailed> for Break {
    fn from(_: HostFailed) -> Self {
        Self::Error(CMDQ_CONS::ERR::Abort)
    }
}
