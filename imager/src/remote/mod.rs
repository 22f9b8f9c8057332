//! The client side of the conversation with the server: HTTP over TLS with a pinned key.
