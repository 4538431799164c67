//! Written by another engineer in /work/wt/settings; see NOTE-FROM-LEAD.md at the root of this worktree.
