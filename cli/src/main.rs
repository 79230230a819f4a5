//! The only binary: reads arguments and wires the floors together.

mod args;
mod ask;
mod client;
mod configuration;
mod drain;
mod endpoints;
mod environment;
mod explain;
mod files;
mod inject;
mod members;
mod output;
mod run;
mod sidecar;
mod store;
mod validate;

use std::process::ExitCode;
use std::thread::JoinHandle;

use args::{Cli, Command, ConfigArgs};
use clap::{CommandFactory, Parser};
use configuration::Configuration;

/// Something failed.
const FAILED: u8 = 1;
/// The configuration or the command line is wrong (clap's own code for the latter).
const WRONG: u8 = 2;
/// `diff` found changes.
const DIFFERENT: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Only fails when a provider is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error),
    };
    runtime.block_on(obey(cli.command))
}

async fn obey(command: Command) -> ExitCode {
    match command {
        Command::Run(args) => Box::pin(serve(&args.config, |configuration| run::all(configuration, args.demo))).await,
        Command::Controlplane(args) => Box::pin(serve(&args, run::control_plane)).await,
        Command::Agent(args) => {
            let bootstrap = args.envoy_bootstrap;
            Box::pin(serve(&args.config, |configuration| run::agent(configuration, bootstrap))).await
        }
        Command::Validate(args) => match validate::validate(args).await {
            Ok(text) => {
                output::say(&text);
                ExitCode::SUCCESS
            }
            Err(mistakes) => fail(WRONG, &mistakes),
        },
        Command::Apply(args) => done(client::apply(args, environment::author()).await),
        Command::Get(args) => done(client::get(args).await),
        Command::Delete(args) => done(client::delete(args, environment::author()).await),
        Command::Diff(args) => match client::diff(args).await {
            Ok(true) => ExitCode::from(DIFFERENT),
            other => done(other.map(drop)),
        },
        Command::History(args) => done(client::history(args).await),
        Command::Rollback(args) => done(client::rollback(args, environment::author()).await),
        Command::Nodes(args) => done(client::nodes(args).await),
        Command::Rollout(args) => done(client::rollout(args).await),
        Command::Members(args) => told(members::run(&args)),
        Command::Mesh(args) => told(client::mesh(&args, heddle_node::clock::unix_ms())),
        Command::Ca(args) => done(client::ca(args).await),
        Command::Token(args) => done(client::token(args).await),
        Command::Store(args) => match store::run(args.command).await {
            Ok(text) => {
                output::say(&text);
                ExitCode::SUCCESS
            }
            Err(error) => fail(FAILED, &error),
        },
        Command::Explain(args) => done(client::explain(args).await),
        Command::Inject(args) => match inject::run(*args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(mistakes) => fail(WRONG, &mistakes),
        },
        Command::Drain(args) => told(drain::run(&args)),
        Command::Endpoints(args) => told(endpoints::run(&args, heddle_node::clock::unix_ms())),
        Command::Capture(args) => sidecar::capture(*args).await,
        Command::Sidecar(args) => sidecar::sidecar(args).await,
        Command::Echo { addresses } => match run::echo(&addresses).await {
            Ok(never) => match never {},
            Err(error) => fail(FAILED, &error),
        },
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "heddle", &mut script);
            output::say(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
    }
}

/// Reads the configuration and runs something with it until it ends.
async fn serve<F: Future<Output = Result<(), Box<dyn std::error::Error>>>>(
    args: &ConfigArgs,
    run: impl FnOnce(Configuration) -> F,
) -> ExitCode {
    let configuration = match configuration::read(args.config.as_deref()) {
        Ok(configuration) => configuration,
        Err(error) => return fail(WRONG, &error),
    };
    if let Err(error) = heddle_node::telemetry::init_logs(&configuration.node.log) {
        return fail(FAILED, &error);
    }
    let randomness = gather_randomness();
    match run(configuration).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What it works with is torn down at the exit, under its feet: it would abort.
            let _ = randomness.map(JoinHandle::join);
            fail(if is_configuration(&*error) { WRONG } else { FAILED }, &error)
        }
    }
}

/// Lets the first random bytes be gathered beside the start: they take tens of milliseconds, for which otherwise the first key or handshake would wait.
fn gather_randomness() -> Option<JoinHandle<()>> {
    let gather = || drop(rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut [0]));
    // Without the thread, whoever needs them first waits.
    std::thread::Builder::new().name("randomness".to_owned()).spawn(gather).ok()
}

/// Whether a failed start is the configuration's fault.
fn is_configuration(error: &(dyn std::error::Error + 'static)) -> bool {
    use heddle_controlplane::app::StartError;
    matches!(error.downcast_ref(), Some(StartError::Resources(_))) || error.is::<run::BootstrapError>()
}

fn told(answer: Result<String, String>) -> ExitCode {
    match answer {
        Ok(text) => {
            output::say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(FAILED, &error),
    }
}

fn done(result: Result<(), client::ClientError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ client::ClientError::Usage(_)) => fail(WRONG, &error),
        Err(error) => fail(FAILED, &error),
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("heddle: {error}");
    ExitCode::from(code)
}
