//! `deployctl`.
