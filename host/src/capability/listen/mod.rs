//! Sockets that the host holds for services, and what it sends for them.

pub mod frame;
