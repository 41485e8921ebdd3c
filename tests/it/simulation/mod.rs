//! The daemon's own drivers in a simulated world: virtual time, a network that loses, delays, repeats and is cut, people who cannot always
//! be reached, a disk that says no, a process that dies at any moment. One number, the seed, decides everything.
//!
//! What runs is what runs in production: scheduler, runner, switchboard, evaluator, delivery and the store on SQLite. Only the three edges of
//! the world are made up, and whoever makes them up keeps account of what really happened: at the end every promise is checked by that.

/// Hands questions through to the store.
macro_rules! delegate {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)+) => {
        $(fn $name(&self $(, $argument: $kind)*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            Box::pin(std::future::ready(at_once(self.store().$name($($argument),*))))
        })+
    };
}

mod account;
mod disk;
mod life;
mod net;
mod people;
mod process;
mod profile;
mod storm;
mod sum;
mod world;

pub(crate) use life::simulate;
pub(crate) use profile::{Accounts, Death, Profile};
pub(crate) use storm::Storm;
pub(crate) use sum::Sum;
pub(crate) use world::Point;
