//! OMAPI, the protocol by which dhcpd is told of hosts while it runs (`omapi(3)`, `dhcpd(8)`): messages over TCP, each with a
//! handle, an operation and named values, signed with a key that both sides know.
//!
//! It does what this plugin needs: create, find, change and remove `host` objects. [`message`] lays out bytes, [`session`] holds
//! one conversation.

pub mod message;
pub mod session;
