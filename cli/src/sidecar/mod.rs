//! `heddle capture` and `heddle sidecar`: from arguments and the agent's file to what the sidecar's crate does.

mod args;

use std::io::IsTerminal;
use std::process::ExitCode;

pub use args::{CaptureArgs, SidecarArgs};
use args::{CaptureCommand, CaptureFlags};
use heddle_sidecar::capture::{CaptureError, CaptureSettings, Doors, Tools};
use heddle_sidecar::wrapper::{self, Captured, Plan, Times};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::say;
use crate::{FAILED, WRONG, configuration, environment, fail};

/// Obeys `heddle capture`.
pub async fn capture(args: CaptureArgs) -> ExitCode {
    let tools = Tools::of_system();
    let done = match args.command {
        CaptureCommand::Apply(args) => match settings(args.flags) {
            Ok(settings) if args.dry_run => tools.rehearse(&settings),
            Ok(settings) => match stopped() {
                Ok(stopped) => {
                    let doors = if args.expect_agent { Doors::OfAgent } else { Doors::OfAnyone };
                    tools.establish(&settings, doors, stopped).await.map(|report| report.to_string())
                }
                Err(error) => return fail(FAILED, &format!("signals cannot be received: {error}")),
            },
            Err(code) => return code,
        },
        CaptureCommand::Remove(args) => match settings(args.flags) {
            Ok(settings) if settings.fail_closed && args.service_result.is_some_and(|result| result != "success") => {
                Ok("the rules stay in force (capture.fail_closed), as the service has failed\n".to_owned())
            }
            Ok(settings) => tools.remove(&settings).await.map(|()| String::new()),
            Err(code) => return code,
        },
        CaptureCommand::Verify(flags) => match settings(flags) {
            Ok(settings) => tools.verify(&settings).await.map(|report| report.to_string()),
            Err(code) => return code,
        },
        CaptureCommand::Show(args) => match settings(args.flags) {
            Ok(settings) if args.dry_run => tools.rehearse(&settings),
            Ok(settings) => tools.show(&settings).await,
            Err(code) => return code,
        },
    };
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error @ CaptureError::Settings(_)) => fail(WRONG, &error),
        Err(error) => fail(FAILED, &error),
    }
}

/// Ends when somebody wants this process to end, which does not end by it from now on.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [term, int, hup] = kinds.map(signal);
    let (mut term, mut int, mut hup) = (term?, int?, hup?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    })
}

fn settings(flags: CaptureFlags) -> Result<CaptureSettings, ExitCode> {
    let file = match &flags.config {
        Some(path) => configuration::read(Some(path)).map_err(|error| fail(WRONG, &error))?.capture,
        None => CaptureSettings::default(),
    };
    Ok(flags.over(file))
}

/// Obeys `heddle sidecar`: ends as the application does.
pub async fn sidecar(args: SidecarArgs) -> ExitCode {
    let configuration = match configuration::read(Some(&args.config)) {
        Ok(configuration) => configuration,
        Err(error) => return fail(WRONG, &error),
    };
    if let Err(error) = heddle_node::telemetry::init_logs(&configuration.node.log) {
        return fail(FAILED, &error);
    }
    let mut settings = configuration.capture;
    if args.capture
        && let Err(message) = tell_apart(&mut settings, args.user.map(|user| user.uid), environment::user())
    {
        return fail(WRONG, &message);
    }
    let program = match environment::program() {
        Ok(program) => program,
        Err(error) => return fail(FAILED, &format!("the path of this program cannot be had: {error}")),
    };
    let plan = Plan {
        agent: vec![program.into(), "agent".into(), "-c".into(), args.config.into()],
        app: args.command,
        user: args.user,
        capture: args.capture.then(|| Captured { tools: Tools::of_system(), settings }),
        folder: configuration.node.node.data_dir,
        times: Times { ready: args.ready_timeout, drain: args.drain, grace: args.grace },
        notifier: environment::notifier(),
        terminal: std::io::stdin().is_terminal(),
    };
    match wrapper::run(plan).await {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(FAILED, &error),
    }
}

/// The agent runs as `own`, the application as `app` where that is said: by that, or by a mark that somebody sets, capture knows whose traffic is
/// whose.
fn tell_apart(settings: &mut CaptureSettings, app: Option<u32>, own: u32) -> Result<(), String> {
    if settings.proxy_mark.is_some() || (settings.outbound_port.is_none() && settings.dns_port.is_none()) {
        return Ok(());
    }
    if app.is_none_or(|app| app == own) {
        return Err("--capture: the application and the agent run as the same user, so their traffic cannot be told apart: give the application another one (--user UID:GID)".to_owned());
    }
    match settings.proxy_uid.replace(own) {
        Some(uid) if uid != own => Err(format!(
            "capture.proxy_uid is {uid}, but the agent would run as {own}, as this process does: start it as {uid}, or leave proxy_uid out"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn capture_knows_the_application_from_its_agent() {
        let told = |uid, mark, app| {
            let mut settings = CaptureSettings { proxy_uid: uid, proxy_mark: mark, ..CaptureSettings::default() };
            tell_apart(&mut settings, app, 5).map(|()| settings.proxy_uid)
        };
        assert_eq!(told(None, None, Some(9)), Ok(Some(5)));
        assert_eq!(told(Some(5), None, Some(9)), Ok(Some(5)));
        assert_eq!(told(None, Some(7), None), Ok(None));
        let mut inbound_only = CaptureSettings { outbound_port: None, dns_port: None, ..CaptureSettings::default() };
        assert_eq!(tell_apart(&mut inbound_only, None, 5), Ok(()));
        assert!(told(None, None, None).unwrap_err().contains("--user"));
        assert!(told(None, None, Some(5)).unwrap_err().contains("--user"));
        assert!(told(Some(1337), None, Some(9)).unwrap_err().contains("is 1337"));
    }
}
