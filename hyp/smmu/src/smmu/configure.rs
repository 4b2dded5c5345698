//! What a VM wants done with its streams, within what it may do (security rule 15).

use bulkhead_core::{
    ids::{StreamId, Vmid},
    stage1::StreamConfig,
};

use super::{Smmu, Stream, StreamState};
use crate::{
    command::Command,
    error::Error,
    platform::Platform,
    ste::{Recording, Ste, SteError},
};

impl<P: Platform> Smmu<P> {
    /// Makes an attached stream do what its VM's own stream table says. Complete when it returns, the stream's context
    /// descriptor is forgotten as well; the guest flushes the translations of its stage 1 itself, as it would on an
    /// SMMU of its own.
    ///
    /// - A context descriptor out of reach makes the entry invalid, as if it did not say more (3.4.3).
    /// - A silenced stream stays quiet, unless it gets a stage 1, of which the guest decides what is recorded: it has
    ///   one more budget then, and is aborted at its end. An aborted one stays aborted: the configuration is kept, and shows, and does nothing.
    ///
    /// On [`Error::StreamQuarantined`], [`Error::NotAttached`], and where the SMMU has no stage 1, nothing has changed.
    /// If the SMMU does not answer, the stream is left quarantined.
    pub fn configure(&mut self, stream: StreamId, config: &StreamConfig) -> Result<(), Error> {
        let known = self.known(stream)?;
        let (state, old) = (known.state, known.config);
        let made = self.entry(known, config, state);
        let (config, ste) = match made {
            Err(Error::Entry(SteError::Context { .. })) => {
                let config = StreamConfig::Invalid;
                (config, self.entry(known, &config, state)?)
            }
            made => (*config, made?),
        };
        let has_stage1 = matches!(config, StreamConfig::Stage1(_));
        match state {
            StreamState::Quarantined => return Err(Error::StreamQuarantined { stream }),
            StreamState::Aborted => {}
            // The entry is as it has to be: the guest wants its descriptor read again.
            _ if config == old => return self.forget_entry(stream),
            StreamState::Attached | StreamState::Silenced => {
                if has_stage1 {
                    // From now on a flush of pages of stage 2 would leave what the TLB holds of both stages in one.
                    self.known_mut(stream)?.had_stage1 = true;
                    self.cmdq.set_nested(true);
                }
                let _ = self.rewrite(stream, &ste, state)?;
            }
        }
        let known = self.known_mut(stream)?;
        known.config = config;
        if state == StreamState::Silenced && has_stage1 {
            known.budget.renew();
        }
        Ok(())
    }

    /// The entry of a stream that its VM wants to be configured so, in `state`.
    pub(super) fn entry(&self, known: &Stream, config: &StreamConfig, state: StreamState) -> Result<Ste, Error> {
        let recording = if state == StreamState::Attached { Recording::On } else { Recording::Off };
        Ok(match config {
            StreamConfig::Invalid if recording == Recording::On => Ste::invalid(),
            StreamConfig::Invalid | StreamConfig::Abort => Ste::abort(),
            StreamConfig::Bypass => Ste::stage2(&known.s2, &self.features, recording)?,
            StreamConfig::Stage1(context) => Ste::nested(&known.s2, context, &self.features)?,
        })
    }

    /// Whether the TLB may hold translations of `vmid` of both stages in one, which no flush by IPA forgets (16.2.1).
    pub(super) fn had_stage1(&self, vmid: Vmid) -> bool {
        self.cmdq.is_nested() && self.streams.iter().any(|known| known.s2.vmid == vmid && known.had_stage1)
    }

    /// Makes the SMMU read the entry again, and the context descriptors behind it (4.3.1).
    fn forget_entry(&mut self, stream: StreamId) -> Result<(), Error> {
        let forgotten = self.cmdq.submit(&mut self.platform, &[Command::CfgiSte { stream, is_leaf: true }]);
        forgotten.inspect_err(|_| {
            self.invalidate_entry(stream);
            self.set_state(stream, StreamState::Quarantined);
        })
    }
}
