//! The integration tests: the real daemon and the real servers that it talks to, started here and ended by their own pid.

mod kannel;
mod support;
