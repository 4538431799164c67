//! Sockets in: listeners, TLS, limits, who is calling, routing by method + path + audience, draining.
