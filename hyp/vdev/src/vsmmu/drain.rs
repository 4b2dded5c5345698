//! The command queue's consumer: a bounded number of commands a call (IHI 0070 4.1, 7.1).

use heapless::Vec;
use tock_registers::fields::FieldValue;

use super::{
    COMMANDS_MAX, Host, HostFailed, Next, Vsmmu,
    command::{COMMAND_LOG2, Command, Completion},
    interrupt::{Gerror, Interrupts},
    queue::Queue,
    registers::{CMDQ_CONS, CMDQ_LOG2, CR0, offset},
};
use crate::memory::{GuestMemory, Word};

/// Commands' worth of work that a stream's new configuration is: some CMD_SYNCs and a fetch.
const CONFIGURE_WORK: u32 = 8;

type Error = FieldValue<u32, CMDQ_CONS::Register>;

impl Vsmmu {
    /// Carries out commands until the queue is empty, has stopped, or it was enough for one call.
    pub(super) fn drain(&mut self, memory: &mut impl GuestMemory, host: &mut impl Host) -> Next {
        let queue = Queue::new(self.registers.double(offset::CMDQ_BASE), CMDQ_LOG2, COMMAND_LOG2);
        let mut left = COMMANDS_MAX;
        loop {
            let consumer = self.registers.word(offset::CMDQ_CONS);
            let run = queue.run(self.registers.word(offset::CMDQ_PROD), consumer);
            if run == 0 || !self.is_consuming() {
                return Next::Done;
            }
            if left == 0 {
                return Next::More;
            }
            let Some(commands) = copy(memory, queue.at(consumer).as_u64(), run.min(left)) else {
                self.stop(CMDQ_CONS::ERR::Abort, memory);
                return Next::Done;
            };
            for command in commands {
                let work = match self.carry_out(command, &queue, memory, host) {
                    Ok(work) => work,
                    Err(error) => {
                        self.stop(error, memory);
                        return Next::Done;
                    }
                };
                left = left.saturating_sub(work);
                if left == 0 {
                    break;
                }
            }
        }
    }

    /// Carries out one command, and moves past it: the work that it was, at least 1.
    fn carry_out(
        &mut self,
        words: [u64; 2],
        queue: &Queue,
        memory: &mut impl GuestMemory,
        host: &mut impl Host,
    ) -> Result<u32, Error> {
        let command = Command::decode(words, &self.ability).ok_or(CMDQ_CONS::ERR::Illegal)?;
        let mut work = 1;
        match command {
            Command::Flush(flush) => host.flush(flush),
            Command::Sync(_) => host.sync().map_err(aborted)?,
            Command::ForgetStreams(first, last) if self.is_enabled() => {
                work += CONFIGURE_WORK * self.configure(first, last, true, memory, host).map_err(aborted)?;
            }
            Command::ForgetContext(stream) if self.is_enabled() && host.has_stream(stream) => {
                host.forget_context(stream).map_err(aborted)?;
            }
            Command::Prefetch | Command::ForgetStreams(..) | Command::ForgetContext(_) => {}
        }
        let consumer = self.registers.word(offset::CMDQ_CONS);
        self.registers.set(offset::CMDQ_CONS, queue.advance(consumer, 1));
        if let Command::Sync(Completion::Message(at, data)) = command
            && self.signal(Interrupts::CMD_SYNC, (at, data), memory).is_none()
        {
            self.raise(Gerror::MSI_CMDQ_ABT_ERR, memory);
        }
        Ok(work)
    }

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

fn aborted(_: HostFailed) -> Error {
    CMDQ_CONS::ERR::Abort
}

/// Copies commands that lie one after the other: each word is read once.
fn copy(memory: &mut impl GuestMemory, at: u64, count: u32) -> Option<Vec<[u64; 2], { COMMANDS_MAX as usize }>> {
    let (commands, _) = memory.words(bulkhead_core::addr::Ipa::new(at), count as usize * 2)?.as_chunks();
    Some(commands.iter().take(COMMANDS_MAX as usize).map(|[low, high]| [low.get(), high.get()]).collect())
}
