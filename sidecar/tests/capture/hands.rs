//! Somebody inside a namespace who listens and asks as he is told. He answers with his name and where the asker wanted to go.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use heddle_agent::{original_destination, set_transparent};
use heddle_node::config::{Document, Expansion, Format};
use heddle_node::sockets::set_mark;
use heddle_sidecar::capture::{CaptureSettings, Doors, Report, Tools};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

/// How long anything may take before a story fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// What stands before an answer, among the words of the test harness.
const ANSWER: &str = "> ";

/// A process in a namespace; it ends when this is dropped.
pub struct Hands {
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Hands {
    /// Run by a command in front of it, where that says anything.
    pub async fn start(namespace: &str, by: &str) -> Hands {
        let mut process = Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(by.split_whitespace())
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Hands { orders, answers, process }
    }

    /// Ends it, and all that it listens to.
    pub async fn end(mut self) {
        self.process.kill().await.unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    async fn order(&mut self, order: &str) -> String {
        let work = async {
            self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
            loop {
                let line = self.answers.next_line().await.unwrap().expect("the child has ended");
                if let Some((_, answer)) = line.split_once(ANSWER) {
                    return answer.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("no answer to: {order}"))
    }

    /// `tcp|udp|dns|agent NAME ADDRESS plain|transparent`
    pub async fn listen(&mut self, what: &str) {
        assert_eq!(self.order(&format!("listen {what}")).await, "ok", "{what}");
    }

    /// `establish` (until SIGTERM), `expect` an agent while doing so, `verify` or `remove` with these settings: what was seen, or why not, in one line.
    pub async fn capture(&mut self, what: &str, settings: &str) -> String {
        self.order(&format!("capture {what} {{ capture: {{ {settings} }} }}")).await
    }

    /// What the one who answers says first, asked with a mark unless that is 0.
    pub async fn ask(&mut self, to: &str, mark: u32) -> String {
        self.order(&format!("ask {to} {mark}")).await
    }

    pub async fn ask_udp(&mut self, to: &str) -> String {
        self.order(&format!("ask_udp {to}")).await
    }

    /// The same, and the connection stays.
    pub async fn hold(&mut self, to: &str) -> String {
        self.order(&format!("hold {to}")).await
    }

    /// What comes back over that connection.
    pub async fn say(&mut self, text: &str) -> String {
        self.order(&format!("say {text}")).await
    }
}

/// The other end: reads orders until there are no more.
pub fn obey() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mut line, mut held) = (String::new(), None);
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE / 2, obey_one(&words, &mut held)).await });
        let answer = match answer {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => format!("error {error}"),
            Err(_) => "error: too late".to_owned(),
        };
        println!("{ANSWER}{answer}");
        std::io::stdout().flush().unwrap();
        line.clear();
    }
}

async fn obey_one(words: &[&str], held: &mut Option<BufReader<TcpStream>>) -> std::io::Result<String> {
    match *words {
        ["listen", "tcp", name, address, how] => {
            tokio::spawn(serve(tcp(address.parse().unwrap(), how == "transparent")?, name.to_owned()));
            Ok("ok".to_owned())
        }
        ["listen", kind @ ("dns" | "agent"), _, address, _] => {
            // With authority or without.
            let flags = if kind == "agent" { [0x85, 0x83] } else { [0x81, 0x83] };
            tokio::spawn(no_such_name(UdpSocket::bind(address).await?, flags));
            Ok("ok".to_owned())
        }
        ["listen", "udp", name, address, _] => {
            tokio::spawn(answer(UdpSocket::bind(address).await?, name.to_owned()));
            Ok("ok".to_owned())
        }
        ["ask", to, mark] => first_line(&mut connect(to, mark.parse().unwrap()).await?).await,
        ["ask_udp", to] => {
            let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).await?;
            socket.connect(to).await?;
            socket.send(b"question").await?;
            let mut room = [0; 64];
            let read = socket.recv(&mut room).await?;
            Ok(String::from_utf8_lossy(&room[..read]).trim().to_owned())
        }
        ["hold", to] => first_line(held.insert(connect(to, 0).await?)).await,
        ["say", text] => {
            let held = held.as_mut().unwrap();
            held.write_all(format!("{text}\n").as_bytes()).await?;
            first_line(held).await
        }
        ["capture", what, ref settings @ ..] => Ok(capture(what, &settings.join(" ")).await.replace('\n', "; ")),
        _ => Ok(format!("what is {words:?}?")),
    }
}

async fn capture(what: &str, settings: &str) -> String {
    let document = Document::parse("sidecar.yaml", settings, Format::Yaml, Expansion::Off).unwrap();
    let (settings, tools) = (document.read(CaptureSettings::read).unwrap(), Tools::of_system());
    let mut term = signal(SignalKind::terminate()).unwrap();
    let stop = async {
        term.recv().await;
    };
    let done = match what {
        "establish" => tools.establish(&settings, Doors::OfAnyone, stop).await,
        "expect" => tools.establish(&settings, Doors::OfAgent, stop).await,
        "verify" => tools.verify(&settings).await,
        _ => tools.remove(&settings).await.map(|()| Report::default()),
    };
    done.map_or_else(|error| format!("refused: {error}"), |report| report.to_string())
}

async fn connect(to: &str, mark: u32) -> std::io::Result<BufReader<TcpStream>> {
    let to: SocketAddr = to.parse().unwrap();
    let socket = if to.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    if mark != 0 {
        set_mark(&socket, mark)?;
    }
    Ok(BufReader::new(socket.connect(to).await?))
}

async fn first_line(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line.trim().to_owned())
}

fn tcp(address: SocketAddr, transparent: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if transparent {
        set_transparent(&socket, address.ip())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(16)?;
    TcpListener::from_std(socket.into())
}

/// Says who it is and where the client wanted to go, then repeats what it hears.
async fn serve(listener: TcpListener, name: String) {
    while let Ok((stream, _)) = listener.accept().await {
        let greeting = format!("{name} {}\n", original_destination(&stream).unwrap());
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.into_split();
            let _ = writer.write_all(greeting.as_bytes()).await;
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    }
}

async fn answer(socket: UdpSocket, name: String) {
    let mut room = [0; 64];
    while let Ok((_, from)) = socket.recv_from(&mut room).await {
        let _ = socket.send_to(format!("{name}\n").as_bytes(), from).await;
    }
}

/// A name server that knows no name.
async fn no_such_name(socket: UdpSocket, flags: [u8; 2]) {
    let mut room = [0; 512];
    while let Ok((read, from)) = socket.recv_from(&mut room).await {
        // An answer, recursion wanted and to be had, no such name.
        room[2..4].copy_from_slice(&flags);
        let _ = socket.send_to(&room[..read], from).await;
    }
}
