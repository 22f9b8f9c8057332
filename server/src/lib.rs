//! The management server: boots machines, stores images, runs executions.

pub mod netboot;
