//! Arguments of rules of retention.
//!
//! Owns: their names and help. Does not own: what they do.

use clap::{Args, Subcommand};

/// Commands for rules of retention.
#[derive(Debug, Subcommand)]
pub enum Retention {
    /// Show all rules.
    Show,
    /// Set a rule. An image stays if any of its parts keeps it; a pinned one stays, and the
    /// newest one that is not damaged.
    Set {
        /// For which images.
        #[command(flatten)]
        of: RetentionOf,
        /// What is kept.
        #[command(flatten)]
        rule: RetentionRule,
    },
    /// Remove a rule.
    Clear {
        /// For which images.
        #[command(flatten)]
        of: RetentionOf,
    },
}

/// For which images a rule is; for all that have no other one if neither is given.
#[derive(Debug, Args)]
pub struct RetentionOf {
    /// Images of this name, as it is ordered ("{machine}-{date}" for all that come of it).
    #[arg(long)]
    pub image: Option<String>,
    /// Images of this machine, for each name.
    #[arg(long, conflicts_with = "image")]
    pub machine: Option<String>,
}

/// What a rule keeps.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct RetentionRule {
    /// The newest N.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub last: u32,
    /// The newest of each of the last N days that have one (UTC).
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub daily: u32,
    /// The newest of each of the last N weeks that have one.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub weekly: u32,
    /// The newest of each of the last N months that have one.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub monthly: u32,
    /// All that are not older than N days.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub days: u32,
}
