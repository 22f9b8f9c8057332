//! What `deployctl status --json` says, as far as tests look at it.
