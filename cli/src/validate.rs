//! `heddle validate`: all checks of a start, without starting anything.

use std::path::PathBuf;
use std::sync::Arc;

use heddle_agent::filters::Registry;
use heddle_controlplane::provider::{FixedProvider, check_files};
use heddle_controlplane::state::Keeper;
use heddle_controlplane::store::Memory;
use heddle_controlplane::validate::Rules;
use heddle_node::clock;

use crate::args::ValidateArgs;
use crate::configuration::{self, Configuration};
use crate::environment;

/// Checks configuration and resources; gives what to print when all is well.
///
/// # Errors
/// All mistakes, one a line.
pub async fn validate(args: ValidateArgs) -> Result<String, String> {
    let configuration = configuration::read(args.config.config.as_deref()).map_err(|error| error.to_string())?;
    let mut paths = args.resources;
    paths.extend(configuration.control_plane.file.as_ref().map(|file| file.path.clone()));
    let count = check(&configuration, &paths).await?;
    let mut text = format!("{}: good\n", configuration.file);
    if !paths.is_empty() {
        text.push_str(&format!("{count} resources: good\n"));
    }
    if args.show {
        text.push_str(&format!("{configuration:#?}\n"));
    }
    Ok(text)
}

/// Offers everything to a keeper that stores nothing, and reads its verdict.
async fn check(configuration: &Configuration, paths: &[PathBuf]) -> Result<usize, String> {
    let catalog = Arc::new(Registry::default());
    let clock: heddle_controlplane::store::Clock = Arc::new(clock::unix_ms);
    let keeper = Keeper::start(Arc::new(Memory::new(clock.clone())), Arc::new(Rules::new(catalog)), clock)
        .await
        .map_err(|error| error.to_string())?;
    let mut updates = vec![FixedProvider::listeners(&configuration.file, configuration.control_plane.listeners.clone()).update()];
    for path in paths {
        if !path.exists() {
            return Err(format!("{}: there is no such file or directory", path.display()));
        }
        updates.extend(check_files(path, environment::variables()));
    }
    keeper.offer(updates).await.map_err(|error| error.to_string())?;
    let sources = keeper.sources();
    let errors: Vec<String> = sources.iter().flat_map(|source| source.errors.clone()).collect();
    if errors.is_empty() { Ok(sources.iter().map(|source| source.resources).sum()) } else { Err(errors.join("\n")) }
}
