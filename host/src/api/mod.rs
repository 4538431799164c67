//! What the host itself answers: features, version, logs, health, metrics.
