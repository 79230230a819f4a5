//! `heddle ca` and `heddle token`: what operators do with the authority and with the tokens by which services join.

use heddle_proto::heddle::admin::v1 as api;
use serde_json::{Value, json};

use super::look::show;
use super::render::{self, table};
use super::session::{Authority, ClientError, authority};
use crate::args::{CaArgs, CaCommand, Output, TokenArgs, TokenCommand};
use crate::output::say;

/// Digits of a fingerprint that the table shows.
const SHORT: usize = 16;

/// `heddle ca …`.
///
/// # Errors
/// The control plane cannot be asked, or refuses.
pub async fn ca(args: CaArgs) -> Result<(), ClientError> {
    let mut client = authority(&args.server).await?;
    match args.command {
        CaCommand::Show { output } => overview(&mut client, output).await,
        CaCommand::Rotate { cancel, force } => {
            let answer = client.rotate_authority(api::RotateAuthorityRequest { cancel, force }).await?.into_inner();
            say(&format!("{}\n", phase(answer.phase())));
            answer.waits_for.iter().for_each(|wait| say(&format!("  waits: {wait}\n")));
            Ok(())
        }
        CaCommand::Export => {
            say(&client.export_bundle(api::ExportBundleRequest {}).await?.into_inner().pem);
            Ok(())
        }
        CaCommand::Audit { limit, refused, output } => audit(&mut client, limit, refused, output).await,
    }
}

/// `heddle token …`.
///
/// # Errors
/// As for `ca`.
pub async fn token(args: TokenArgs) -> Result<(), ClientError> {
    let mut client = authority(&args.server).await?;
    match args.command {
        TokenCommand::Create { service, gateway, namespace, ttl } => {
            let service = service.or(gateway).unwrap_or_default();
            // The least that can be said is a second; less would be the server's default.
            let ttl_seconds = ttl.map_or(0, |ttl| ttl.as_secs().max(1));
            let answer = client.create_token(api::CreateTokenRequest { namespace, service, ttl_seconds }).await?.into_inner();
            say(&format!("{}\n", answer.token));
            if let Some(about) = answer.about {
                eprintln!(
                    "for {}, once, until {}; shown only this once (id {})",
                    about.spiffe_id,
                    render::time(about.expires.as_ref()),
                    about.id
                );
            }
            Ok(())
        }
        TokenCommand::List { output } => tokens(&mut client, output).await,
        TokenCommand::Revoke { id } => {
            client.revoke_token(api::RevokeTokenRequest { id: id.clone() }).await?;
            say(&format!("- {id}\n"));
            Ok(())
        }
    }
}

fn phase(phase: api::RotationPhase) -> &'static str {
    match phase {
        api::RotationPhase::Steady => "steady: one root, which signs",
        api::RotationPhase::Spreading => "spreading: the old root signs until every node has the new one",
        api::RotationPhase::Retiring => {
            "retiring: the new root signs; the old one is trusted until nothing that it signed is valid"
        }
        api::RotationPhase::Unspecified => "unknown: this control plane is newer than this command",
    }
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(SHORT).collect()
}

async fn overview(client: &mut Authority, output: Output) -> Result<(), ClientError> {
    let answer = client.show_authority(api::ShowAuthorityRequest {}).await?.into_inner();
    if output != Output::Table {
        show(&overview_json(&answer), output);
        return Ok(());
    }
    let kind = if answer.external { "an operator's authority" } else { "a root of its own" };
    say(&format!("trust domain {}, {kind}; identities are valid for {} s\n", answer.trust_domain, answer.svid_ttl_seconds));
    say(&format!("{}\n", phase(answer.phase())));
    answer.waits_for.iter().for_each(|wait| say(&format!("  waits: {wait}\n")));
    let root = |root: &api::Root| {
        vec![
            short(&root.fingerprint),
            if root.signing { "signs" } else { "trusted" }.into(),
            render::time(root.not_after.as_ref()),
            root.live_identities.to_string(),
            render::time(root.last_expiry.as_ref()),
        ]
    };
    say("\n");
    say(&table(
        &["ROOT", "STATE", "EXPIRES", "LIVE", "LAST OF THEM EXPIRES"],
        &answer.roots.iter().map(root).collect::<Vec<_>>(),
    ));
    if !answer.holders.is_empty() {
        let holder = |holder: &api::BundleHolder| {
            let holds = if holder.version == answer.bundle_version { "present" } else { "older" };
            let clock = holder.clock_skew_ms.map_or_else(|| "-".to_owned(), ahead_by);
            let expires = holder.not_after.as_ref().map_or_else(|| "-".to_owned(), |at| render::time(Some(at)));
            vec![holder.node.clone(), holder.spiffe_id.clone(), holds.into(), expires, clock]
        };
        say("\n");
        say(&table(&["NODE", "IDENTITY", "BUNDLES", "EXPIRES", "CLOCK"], &answer.holders.iter().map(holder).collect::<Vec<_>>()));
    }
    if !answer.federated.is_empty() {
        let domain = |one: &api::FederatedDomain| vec![one.trust_domain.clone(), one.roots.to_string(), one.trouble.clone()];
        say("\n");
        say(&table(&["FEDERATED", "ROOTS", "TROUBLE"], &answer.federated.iter().map(domain).collect::<Vec<_>>()));
    }
    Ok(())
}

/// By how much a clock is ahead, in seconds: what is as good as nothing is neither behind nor ahead.
fn ahead_by(ms: i64) -> String {
    // Halves go away from zero, as in any rounding that people do.
    let tenths = (ms.unsigned_abs() + 50) / 100;
    let sign = if ms < 0 && tenths > 0 { '-' } else { '+' };
    format!("{sign}{}.{} s", tenths / 10, tenths % 10)
}

fn overview_json(answer: &api::ShowAuthorityResponse) -> Value {
    let time = |stamp: &Option<prost_types::Timestamp>| stamp.as_ref().map(|stamp| render::time(Some(stamp)));
    let root = |root: &api::Root| {
        json!({
            "fingerprint": root.fingerprint, "signing": root.signing, "not_before": time(&root.not_before), "not_after": time(&root.not_after),
            "live_identities": root.live_identities, "last_expiry": time(&root.last_expiry),
        })
    };
    let holder = |holder: &api::BundleHolder| {
        json!({
            "node": holder.node, "spiffe_id": holder.spiffe_id, "version": holder.version, "clock_skew_ms": holder.clock_skew_ms,
            "not_after": time(&holder.not_after),
        })
    };
    let domain =
        |one: &api::FederatedDomain| json!({ "trust_domain": one.trust_domain, "roots": one.roots, "trouble": one.trouble });
    let phase = match answer.phase() {
        api::RotationPhase::Steady => "steady",
        api::RotationPhase::Spreading => "spreading",
        api::RotationPhase::Retiring => "retiring",
        api::RotationPhase::Unspecified => "unknown",
    };
    json!({
        "trust_domain": answer.trust_domain, "bundle_version": answer.bundle_version, "external": answer.external,
        "svid_ttl_seconds": answer.svid_ttl_seconds, "live_identities": answer.live_identities,
        "phase": phase, "waits_for": answer.waits_for,
        "roots": answer.roots.iter().map(root).collect::<Vec<_>>(),
        "holders": answer.holders.iter().map(holder).collect::<Vec<_>>(),
        "federated": answer.federated.iter().map(domain).collect::<Vec<_>>(),
    })
}

async fn audit(client: &mut Authority, limit: u32, refused_only: bool, output: Output) -> Result<(), ClientError> {
    let request = api::ListAuditRequest { limit, before: 0, refused_only };
    let entries = client.list_audit(request).await?.into_inner().entries;
    if output != Output::Table {
        let item = |entry: &api::AuditEntry| {
            json!({
                "number": entry.number, "time": render::time(entry.time.as_ref()), "verdict": entry.verdict, "detail": entry.detail,
                "proof": entry.proof, "subject": entry.subject, "peer": entry.peer, "spiffe_id": entry.spiffe_id, "serial": entry.serial,
                "not_after": entry.not_after.as_ref().map(|stamp| render::time(Some(stamp))),
            })
        };
        show(&Value::Array(entries.iter().map(item).collect()), output);
        return Ok(());
    }
    let row = |entry: &api::AuditEntry| {
        let what = if entry.detail.is_empty() { format!("serial {}", entry.serial) } else { entry.detail.clone() };
        let by = if entry.subject.is_empty() { entry.proof.clone() } else { format!("{} {}", entry.proof, entry.subject) };
        vec![render::time(entry.time.as_ref()), entry.verdict.clone(), entry.spiffe_id.clone(), by, entry.peer.clone(), what]
    };
    say(&table(&["TIME", "VERDICT", "IDENTITY", "PROOF", "PEER", "WHAT"], &entries.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}

async fn tokens(client: &mut Authority, output: Output) -> Result<(), ClientError> {
    let tokens = client.list_tokens(api::ListTokensRequest {}).await?.into_inner().tokens;
    if output != Output::Table {
        let item = |token: &api::JoinToken| {
            json!({
                "id": token.id, "spiffe_id": token.spiffe_id, "author": token.author, "created": render::time(token.created.as_ref()),
                "expires": render::time(token.expires.as_ref()), "used": token.used.as_ref().map(|stamp| render::time(Some(stamp))),
            })
        };
        show(&Value::Array(tokens.iter().map(item).collect()), output);
        return Ok(());
    }
    let row = |token: &api::JoinToken| {
        let used = token.used.as_ref().map_or_else(|| "no".to_owned(), |stamp| render::time(Some(stamp)));
        vec![token.id.clone(), token.spiffe_id.clone(), render::time(token.expires.as_ref()), used, token.author.clone()]
    };
    say(&table(&["ID", "IDENTITY", "EXPIRES", "USED", "AUTHOR"], &tokens.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::ahead_by;

    #[test]
    fn a_clock_that_is_right_is_not_behind() {
        for (ms, text) in [
            (0, "+0.0 s"),
            (-1, "+0.0 s"),
            (-49, "+0.0 s"),
            (49, "+0.0 s"),
            (-50, "-0.1 s"),
            (1_949, "+1.9 s"),
            (-47_020, "-47.0 s"),
        ] {
            assert_eq!(ahead_by(ms), text, "{ms} ms");
        }
    }
}
