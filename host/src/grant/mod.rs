//! What a plugin may do.
//!
//! An operator's [`Policy`] binds the needs of a plugin's manifest to places; what both agree on is the plugin's
//! [`Effective`] right. Every capability holds the plugin's [`Guard`] and asks [`Guard::decide`] before it acts. There is no
//! second way to a "yes": a capability that does not ask has no target either, since targets live in [`Effective`].
//!
//! This floor refuses to act itself: it opens no file, resolves no name, sends nothing. It answers, counts and explains.
//!
//! - [`policy`]: the operator's file
//! - [`action`]: everything a plugin can attempt, each with its sentence
//! - [`decide`](mod@decide): the one function
//! - [`deny`]: what the operator forbids to all, which always wins
//! - [`effective`]: grants as resolved places and limits
//! - [`guard`]: the object a capability holds; changes while plugins run
//! - [`limits`]: what it may use up
//! - [`denial`], [`audit`]: what was refused, once, with the line that would allow it
//! - [`approvals`]: which component a policy is for
//! - [`edit`], [`explain`], [`sentence`](mod@sentence), [`diff`](mod@diff): working with policies
//! - [`resolved`]: which names the host resolved to which addresses

pub mod action;
pub mod approvals;
pub mod audit;
pub mod decide;
pub mod denial;
pub mod deny;
pub mod diff;
pub mod edit;
pub mod effective;
pub mod explain;
pub mod guard;
pub mod limits;
pub mod matchers;
pub mod policy;
pub mod resolved;
pub mod sentence;

pub(crate) use action::without_query;
pub use action::{Action, Capability};
pub use decide::Decision;
pub use denial::Denial;
pub use deny::Deny;
pub use effective::Effective;
pub use guard::{Connected, Guard, HostRules, WeakGuard};
pub use limits::Limits;
pub use policy::{Missing, Policy, Resolution};
