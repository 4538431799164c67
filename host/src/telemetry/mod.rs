//! Log ring, tracing, metrics.
