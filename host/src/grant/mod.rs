//! What a plugin may do: the policy model and one `decide()`; denials; audit.
