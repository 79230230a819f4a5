//! The command line of `heddle store`. It only describes; nothing is done here.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `heddle store`.
#[derive(Debug, Args)]
#[command(
    after_help = "A store is named by the heddle.yaml of its control plane, or, when it is a file, by its data directory. \
A file must not be in use; on etcd, take a backup whenever you like, but restore and migrate while no control plane runs: \
that is looked at, and refused.\n\
Secrets stay sealed: keep secrets.key of the data directory beside the backup."
)]
pub struct StoreArgs {
    /// What to do with it
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Write everything that a store holds, with its history, into a file
    Backup {
        /// The file; it must not exist yet
        file: PathBuf,
        /// Whose store: a heddle.yaml or a data directory
        #[arg(long, value_name = "STORE", default_value = "heddle.yaml")]
        from: PathBuf,
    },
    /// Put a backup into a store that is empty
    Restore {
        /// The file
        file: PathBuf,
        /// Whose store: a heddle.yaml or a data directory
        #[arg(long, value_name = "STORE", default_value = "heddle.yaml")]
        to: PathBuf,
        #[command(flatten)]
        over: Over,
    },
    /// Copy a store, with its history, into another one that is empty
    Migrate {
        /// Whose store: a heddle.yaml or a data directory
        #[arg(long, value_name = "STORE")]
        from: PathBuf,
        /// Into whose store
        #[arg(long, value_name = "STORE")]
        to: PathBuf,
        #[command(flatten)]
        over: Over,
    },
}

/// What a restore may go over.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Over {
    /// Replace what is there; a file is kept beside the new one
    #[arg(long)]
    pub force: bool,
    /// Restore on etcd although control planes run beside it: they read everything anew, and what they write meanwhile is lost
    #[arg(long)]
    pub running: bool,
}
