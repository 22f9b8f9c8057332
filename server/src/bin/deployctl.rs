//! `deployctl`.
fn main() {}
