//! A control plane and an agent as two processes that know each other's address only.

use std::process::Command;

use crate::heddle::{Heddle, Setup, binary};
use crate::process::Process;

/// `control` is where the Admin API is; its `http`, `https` and `agent` addresses are those of the agent.
pub struct Separate {
    pub control: Heddle,
    pub agent: Process,
}

impl Separate {
    pub fn start() -> Separate {
        let control = Heddle::control_plane(Setup::default());
        let folder = control.place.folder.path().display();
        let text = format!(
            "node: {{ id: gw-2, data_dir: \"{folder}/agent-data\" }}\n\
             agent: {{ workers: 2, admin: \"{}\" }}\n\
             controlplane: {{ address: \"{}\" }}\n",
            control.agent, control.xds
        );
        control.place.write("agent.yaml", &text);
        let agent = Separate::spawn(&control);
        control.wait_agent();
        Separate { control, agent }
    }

    fn spawn(control: &Heddle) -> Process {
        let mut command = Command::new(binary());
        command.args(["agent", "-c", "agent.yaml"]).current_dir(control.place.folder.path());
        Process::start(command, control.place.path("agent.log"))
    }

    /// Kills the agent and starts it with what it has on disk.
    pub fn restart_agent(&mut self) {
        self.agent.kill();
        self.agent = Separate::spawn(&self.control);
        self.control.wait_agent();
    }
}
