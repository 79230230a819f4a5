//! One bash for all commands of a page, so that variables live from command to command; whatever it started ends with it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use crate::heddle::{Heddle, KEY, binary};
use crate::process::PATIENCE;

/// Ends the output of each command (ASCII "record separator").
const MARK: u8 = 0x1e;

pub struct Shell {
    bash: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    errors: PathBuf,
}

/// What a command left behind.
pub struct Done {
    pub output: String,
    pub code: String,
}

impl Shell {
    /// A shell with the variables that pages use: `KEY`, and what the command line of Heddle reads.
    pub fn open(heddle: &Heddle) -> Shell {
        let errors = heddle.place.path("errors.log");
        let mut paths = vec![binary().parent().unwrap().to_owned()];
        paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new("bash");
        command
            .env("KEY", KEY)
            .env("HEDDLE_ADMIN_KEY", KEY)
            .env("HEDDLE_SERVER", format!("http://{}", heddle.xds))
            .env("PATH", std::env::join_paths(paths).unwrap())
            .current_dir(heddle.place.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors).unwrap())
            .process_group(0);
        let mut bash = command.spawn().expect("bash is installed");
        let (input, pipe) = (bash.stdin.take().unwrap(), bash.stdout.take().unwrap());
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while pipe.read_until(MARK, &mut bytes).is_ok_and(|read| read > 0) && sender.send(std::mem::take(&mut bytes)).is_ok()
            {
            }
        });
        Shell { bash, input, output, errors }
    }

    /// Runs a command and waits for its end.
    pub fn run(&mut self, command: &str) -> Done {
        std::fs::write(&self.errors, "").unwrap();
        writeln!(self.input, "{{ {command}\n}} </dev/null\nprintf '\\036%s\\036' $?").unwrap();
        let part = || match self.output.recv_timeout(PATIENCE) {
            Ok(mut bytes) => {
                bytes.pop();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Err(_) => Err(format!("(no end within {PATIENCE:?})")),
        };
        match part() {
            Ok(output) => Done { output, code: part().unwrap_or_else(|why| why) },
            Err(why) => Done { output: String::new(), code: why },
        }
    }

    /// What the last command said on its standard error.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The whole group: also what a page started in the background.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.bash.id())]).status();
        let _ = self.bash.wait();
    }
}
