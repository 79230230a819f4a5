//! A real nginx as upstream.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::place::Place;
use crate::process::{Process, until};

pub struct Nginx {
    pub process: Process,
    pub address: SocketAddr,
    place: Place,
}

impl Nginx {
    /// Starts nginx with these directives inside its `server` block; `$NAME` is `name` in answers.
    pub fn start(server: &str) -> Nginx {
        Nginx::listening("", server)
    }

    /// nginx that speaks HTTP/2 in clear, and nothing else.
    pub fn http2(server: &str) -> Nginx {
        Nginx::listening(" http2", server)
    }

    fn listening(how: &str, server: &str) -> Nginx {
        let place = Place::new();
        let address = place.address();
        let folder = place.folder.path().display().to_string();
        let text = format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 100000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n\
             fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
             server {{ listen {address}{how}; {server} }} }}\n"
        );
        place.write("nginx.conf", &text);
        let process = Nginx::spawn(&place, address);
        Nginx { process, address, place }
    }

    fn spawn(place: &Place, address: SocketAddr) -> Process {
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(place.path("nginx.conf")).arg("-p").arg(place.folder.path());
        let process = Process::start(command, place.path("nginx.log"));
        until("nginx", || TcpStream::connect(address).ok());
        process
    }

    /// Starts it again, where it was, after it was killed.
    pub fn start_again(&mut self) {
        self.process = Nginx::spawn(&self.place, self.address);
    }

    /// Writes a file into the folder that `root .` stands for.
    pub fn write(&self, name: &str, text: &str) {
        self.place.write(name, text);
    }

    /// nginx that answers every path with `text`.
    pub fn saying(text: &str) -> Nginx {
        Nginx::start(&format!("location / {{ return 200 '{text}'; }}"))
    }
}
