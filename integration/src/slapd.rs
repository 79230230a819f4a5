//! A real directory server: OpenLDAP's slapd, with a configuration and a database of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use crate::place::Place;
use crate::process::{Process, until};

/// People below `ou=users,dc=example,dc=org`; their passwords are `<name> opens`.
const PEOPLE: [&str; 2] = ["ann", "bob"];

pub struct Slapd {
    pub process: Process,
    pub address: SocketAddr,
    configuration: PathBuf,
    scheme: &'static str,
    place: Place,
}

impl Slapd {
    /// In clear.
    pub fn start() -> Slapd {
        Slapd::with("ldap", "")
    }

    /// Over TLS, with this certificate and key (PEM).
    pub fn over_tls(certificate: &str, key: &str) -> Slapd {
        Slapd::with_files("ldaps", &[("cert.pem", certificate), ("key.pem", key)])
    }

    fn with_files(scheme: &'static str, files: &[(&str, &str)]) -> Slapd {
        let place = Place::new();
        let [certificate, key] = [0, 1].map(|at| place.write(files[at].0, files[at].1));
        let more = format!("TLSCertificateFile {}\nTLSCertificateKeyFile {}\n", certificate.display(), key.display());
        Slapd::at(place, scheme, &more)
    }

    fn with(scheme: &'static str, more: &str) -> Slapd {
        Slapd::at(Place::new(), scheme, more)
    }

    fn at(place: Place, scheme: &'static str, more: &str) -> Slapd {
        let address = place.address();
        let folder = place.folder.path().display().to_string();
        std::fs::create_dir(place.path("db")).unwrap();
        let text = format!(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {folder}/pid\n{more}\
             database mdb\nmaxsize 10485760\nsuffix \"dc=example,dc=org\"\ndirectory {folder}/db\n"
        );
        let configuration = place.write("slapd.conf", &text);
        let mut entries = "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n\
             dn: ou=users,dc=example,dc=org\nobjectClass: organizationalUnit\nou: users\n"
            .to_owned();
        for name in PEOPLE {
            entries.push_str(&format!(
                "\ndn: cn={name},ou=users,dc=example,dc=org\nobjectClass: person\ncn: {name}\nsn: {name}\nuserPassword: {name} opens\n"
            ));
        }
        let entries = place.write("entries.ldif", &entries);
        let added = Command::new("/usr/sbin/slapadd").arg("-f").arg(&configuration).arg("-l").arg(entries).output().unwrap();
        assert!(added.status.success(), "slapadd: {}", String::from_utf8_lossy(&added.stderr));
        let process = run(&place, &configuration, scheme, address);
        Slapd { process, address, configuration, scheme, place }
    }

    /// As plugins name it.
    pub fn uri(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Starts it again at the same address.
    pub fn start_again(&mut self) {
        self.process = run(&self.place, &self.configuration, self.scheme, self.address);
    }
}

/// With a level of debugging it stays in the foreground, even with 0.
fn run(place: &Place, configuration: &std::path::Path, scheme: &str, address: SocketAddr) -> Process {
    let mut command = Command::new("/usr/sbin/slapd");
    command.args(["-d", "0", "-h", &format!("{scheme}://{address}"), "-f"]).arg(configuration);
    let process = Process::start(command, place.path("slapd.log"));
    until("slapd", || TcpStream::connect(address).ok());
    process
}
