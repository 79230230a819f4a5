//! Commands that change the configuration, or tell what a change would do.

use heddle_proto::heddle::admin::v1 as api;

use super::render;
use super::session::{ClientError, connect};
use crate::args::{ApplyArgs, DeleteArgs, DiffArgs, RollbackArgs};
use crate::files;
use crate::output::say;

/// `heddle apply`.
///
/// # Errors
/// A file cannot be read, or the control plane refuses; then nothing was changed.
pub async fn apply(args: ApplyArgs, author: String) -> Result<(), ClientError> {
    let changes = read(&args.files)?;
    let request = api::ApplyRequest { changes, dry_run: args.dry_run, prune: args.prune, author, force: false, if_revision: 0 };
    let answer = connect(&args.server).await?.apply(request).await?.into_inner();
    say(&render::outcomes(&answer.outcomes));
    if !answer.applied && !args.dry_run {
        return Err(ClientError::Refused("nothing was changed: mend what is marked with ! and apply again".into()));
    }
    if args.dry_run {
        say(&format!("dry run: nothing was changed (revision {})\n", answer.revision));
    } else {
        say(&format!("revision {}\n", answer.revision));
    }
    Ok(())
}

/// `heddle diff`; says whether there is a difference.
///
/// # Errors
/// As for `apply`.
pub async fn diff(args: DiffArgs) -> Result<bool, ClientError> {
    let request = api::DiffRequest { changes: read(&args.files)?, prune: args.prune };
    let answer = connect(&args.server).await?.diff(request).await?.into_inner();
    say(&render::outcomes(&answer.outcomes));
    if answer.outcomes.iter().any(|outcome| outcome.effect() == api::Effect::Refused) {
        return Err(ClientError::Refused("these files would be refused: mend what is marked with !".into()));
    }
    Ok(answer.outcomes.iter().any(|outcome| outcome.effect() != api::Effect::Unchanged))
}

/// `heddle delete`.
///
/// # Errors
/// It does not exist, is referred to, or came from a provider.
pub async fn delete(args: DeleteArgs, author: String) -> Result<(), ClientError> {
    let key = api::Key { collection: args.collection, id: args.id };
    let name = render::key(&key);
    let request = api::DeleteRequest { key: Some(key), force: args.force, author };
    let answer = connect(&args.server).await?.delete(request).await?.into_inner();
    say(&format!("- {name}\nrevision {}\n", answer.revision));
    Ok(())
}

/// `heddle rollback`.
///
/// # Errors
/// The revision is not in the history any more, or what it holds is not valid today.
pub async fn rollback(args: RollbackArgs, author: String) -> Result<(), ClientError> {
    let key = args.collection.zip(args.id).map(|(collection, id)| api::Key { collection, id });
    let request = api::RollbackRequest { to_revision: args.to, key, author, dry_run: args.dry_run };
    let answer = connect(&args.server).await?.rollback(request).await?.into_inner();
    say(&render::outcomes(&answer.outcomes));
    say(&format!("{}revision {}\n", if args.dry_run { "dry run: nothing was changed, " } else { "" }, answer.revision));
    Ok(())
}

fn read(paths: &[std::path::PathBuf]) -> Result<Vec<api::Change>, ClientError> {
    let resources = files::read_resources(paths).map_err(ClientError::Usage)?;
    let change = |(key, value): (heddle_controlplane::model::Key, serde_json::Value)| api::Change {
        key: Some(api::Key { collection: key.kind.plural().into(), id: key.id.to_string() }),
        json: Some(value.to_string().into_bytes()),
    };
    Ok(resources.into_iter().map(change).collect())
}
