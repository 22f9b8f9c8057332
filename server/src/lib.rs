//! The management server: boots machines, stores images, runs executions.
//!
//! Owns: the modules of `deployd` and `deployctl`. Does not own: message shapes
//! (`wire`) or stored formats of images (`image`).
//!
//! [`netboot`] gets a machine to the Deploy-OS, [`exec`] decides what it does there,
//! [`store`] keeps images, [`http`] is how all of them are reached, [`db`] what is
//! remembered. [`daemon`] puts them together; [`ctl`] is the command line.

pub mod app;
mod care;
pub mod cast;
pub mod ctl;
pub mod daemon;
pub mod db;
pub mod exec;
pub mod failure;
pub mod http;
pub mod identity;
pub mod netboot;
pub mod options;
pub mod secrets;
pub mod store;
pub mod view;
pub mod web;
