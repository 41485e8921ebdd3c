//! Experiments: a controlled outage under traffic, with a count of every message. This is the part that decides, and it is pure:
//! what happens next ([`phases`]), when the next message is due ([`pace`]), what became of each ([`account`], [`order`]), whether
//! the hypothesis held ([`bounds`]), what is told of it ([`report`], [`compare`]), and what is still to be undone ([`undo`]).

pub mod account;
pub mod bounds;
pub mod compare;
pub mod order;
pub mod pace;
pub mod phases;
pub mod report;
pub mod undo;
