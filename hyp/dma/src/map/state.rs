//! The states of a map as types.

use core::marker::PhantomData;

use super::{Channel, Direction, Handle, HandleError, LoadError, Segment};

/// What a state is, for [`Map`]: one of [`Empty`], [`Loaded`], [`Unflushed`].
pub trait State {}

macro_rules! states {
    ($($(#[doc = $doc:literal])+ $name:ident)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub enum $name {}
            impl State for $name {}
        )+
    };
}

states! {
    /// Created: nothing is mapped, and no SMMU remembers anything.
    Empty
    /// Loaded.
    Loaded
    /// Unloaded: nothing is mapped, and an SMMU may remember what was.
    Unflushed
}

/// A map in a state that is known.
#[derive(Debug)]
pub struct Map<'c, 't, S: State> {
    channel: &'c mut Channel<'t>,
    handle: Handle,
    state: PhantomData<S>,
}

/// A map in the state that it is in.
#[derive(Debug)]
pub enum AnyMap<'c, 't> {
    /// It can be loaded.
    Empty(Map<'c, 't, Empty>),
    /// It can be unloaded.
    Loaded(Map<'c, 't, Loaded>),
    /// It can be settled once its batch is.
    Unflushed(Map<'c, 't, Unflushed>),
}

impl<'t> Channel<'t> {
    /// A map by its state.
    pub fn map(&mut self, handle: Handle) -> Result<AnyMap<'_, 't>, HandleError> {
        let view = self.view(handle)?;
        Ok(match (view.is_loaded, view.is_unflushed) {
            (true, _) => AnyMap::Loaded(Map::new(self, handle)),
            (_, true) => AnyMap::Unflushed(Map::new(self, handle)),
            _ => AnyMap::Empty(Map::new(self, handle)),
        })
    }
}

impl<'c, 't, S: State> Map<'c, 't, S> {
    fn new(channel: &'c mut Channel<'t>, handle: Handle) -> Self {
        Self { channel, handle, state: PhantomData }
    }

    /// Its handle.
    pub const fn handle(&self) -> Handle {
        self.handle
    }
}

impl<'c, 't> Map<'c, 't, Empty> {
    /// Loads it. On error it is as it was.
    pub fn load(
        self,
        direction: Direction,
        segments: &mut [Segment],
    ) -> Result<Map<'c, 't, Loaded>, (Self, LoadError)> {
        match self.channel.load(self.handle, direction, segments) {
            Ok(_) => Ok(Map::new(self.channel, self.handle)),
            Err(error) => Err((self, error)),
        }
    }
}

impl<'c, 't> Map<'c, 't, Loaded> {
    /// Unloads it.
    pub fn unload(self) -> Result<Map<'c, 't, Unflushed>, HandleError> {
        self.channel.unload(self.handle)?;
        Ok(Map::new(self.channel, self.handle))
    }
}

impl<'c, 't> Map<'c, 't, Unflushed> {
    /// As created again, if the flush of its batch was accepted.
    pub fn settle(self) -> Result<Map<'c, 't, Empty>, Self> {
        let is_unflushed = self.channel.view(self.handle).is_ok_and(|view| view.is_unflushed);
        if is_unflushed { Err(self) } else { Ok(Map::new(self.channel, self.handle)) }
    }
}
