//! Two sidecars: what an application sends goes by its own to that of another service, and to the application behind it.

use heddle_xds::client::{Demand, Standing};
use heddle_xds::model::{self, Kind, MeshPeer};

use super::super::super::Counters;
use super::super::Leads;
use super::tunnels::greeting;
use super::*;

/// The sidecar of `api`, as the application beside it calls it.
pub(super) struct Outward {
    address: SocketAddr,
    pub(super) demand: Demand,
    compiler: Compiler,
    pub(super) worker: Rc<pipeline::Worker>,
    pub(super) counters: Arc<Counters>,
    _listeners: Listeners<Pipeline>,
}

impl Outward {
    pub(super) fn leading(leads: Leads, authority: &Authority) -> Outward {
        let identity = authority.member(API);
        let context = Context { identity: identity.clone(), ..Context::default() };
        let pool = Clusters::new(Arc::new(context), None, tokio::runtime::Handle::current());
        let references = References::new(Arc::new(|_: &str| None), "".into(), Outbound::default());
        let compiler = Compiler::new(1, pool, Outbound::default(), references);
        let shared = pipeline::Shared {
            counters: Sharded::new(1),
            unmatched: Arc::new(RouteStats::new(1)),
            details: Sharded::new(1),
            hostname: "test".into(),
            identity: identity.clone(),
        };
        let worker = pipeline::Worker::new(0, Pools::new(), Arc::new(shared), fastrand::Rng::with_seed(1), None, None);
        let demand = Demand::default();
        worker.set_callees(pipeline::Callees {
            demand: demand.clone(),
            namespace: "shop".into(),
            lets_others_pass: true,
            outside: None,
            stats: Arc::default(),
            silent_until: Arc::default(),
        });
        let listener = Arc::new(harness::listener(EdgeLimits::default()));
        let doors = Shared::default();
        let counters = Arc::<Counters>::default();
        let service = Rc::new(Worker::new(Pipeline::new(worker.clone()), counters.clone()));
        let mut listeners = Listeners::new(service, doors.clone(), Duration::from_secs(5));
        assert!(listeners.reconcile(&[Wanted { listener: listener.clone(), entry: Entry::Outbound(leads) }]).is_empty());
        let address = doors.admission.address(&listener.name, listener.address);
        Outward { address, demand, compiler, worker, counters, _listeners: listeners }
    }

    /// Is told of the service `shop/web`, whose sidecar is at `address`.
    pub(super) fn learn(&mut self, protocol: MeshProtocol, address: SocketAddr) {
        self.learn_of(protocol, address, |_| ());
    }

    /// The same, as this edits how it is called.
    fn learn_of(&mut self, protocol: MeshProtocol, address: SocketAddr, edit: impl FnOnce(&mut model::Upstream)) {
        self.learn_at(protocol, (address, &[]), edit);
    }

    /// The same, called on these ports alone.
    pub(super) fn learn_at(
        &mut self,
        protocol: MeshProtocol,
        (address, ports): (SocketAddr, &[u16]),
        edit: impl FnOnce(&mut model::Upstream),
    ) {
        let mut upstream = model::Upstream {
            label: "shop/web".into(),
            retries: None,
            mesh: Some(MeshPeer { identities: vec![format!("spiffe://mesh.example{WEB}").into()], port: None }),
            ..model::Upstream::new("mesh/shop/web")
        };
        edit(&mut upstream);
        let service = model::MeshService {
            name: "shop/web".into(),
            protocol,
            vip: None,
            ports: ports.to_vec(),
            plugins: Vec::new(),
            timeouts: None,
            upstream: Arc::new(upstream),
            depends: Vec::new(),
            own_ports: Vec::new(),
        };
        let host = address.ip().to_string().into();
        let endpoint =
            model::Endpoint { host, port: address.port(), weight: 1, priority: 0, zone: "".into(), ..model::Endpoint::default() };
        let endpoints = model::Endpoints { upstream: "mesh/shop/web".into(), endpoints: [endpoint].into() };
        self.compiler.set(Resource::Endpoints(endpoints)).unwrap();
        self.compiler.set(Resource::MeshService(service)).unwrap();
        self.worker.swap(self.compiler.tables());
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

pub(super) fn to_web() -> Leads {
    Leads::To("shop/web".into(), None)
}

#[tokio::test]
async fn a_request_goes_from_application_to_application_and_its_first_waits_until_the_service_is_known() {
    story(async {
        let (address, seen) = answering(OK).await;
        let web = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut api = Outward::leading(to_web(), &web.authority);
        let mut stream = api.connect().await;
        let asking = spawn_local(async move {
            let forged = "GET /a HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nX-Forwarded-Client-Cert: By=evil\r\nX-oDd: 1\r\nConnection: close\r\n\r\n";
            ask(&mut stream, forged).await
        });
        while api.demand.standing(Kind::Endpoints, "mesh/shop/web") != Some(Standing::Asked) {
            tokio::task::yield_now().await;
        }
        api.learn(MeshProtocol::Http, web.address);
        let answer = asking.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
        assert!(answer.contains("\r\nX-ODD: 1\r\n"), "names keep their case on the way back: {answer}");
        let seen = seen.borrow()[0].clone();
        assert!(seen.contains("\r\nX-oDd: 1\r\n"), "names keep their case: {seen}");
        assert!(seen.to_ascii_lowercase().contains("host: web.shop\r\n") && !seen.contains("evil"), "{seen}");
        assert!(seen.contains("URI=spiffe://mesh.example/ns/shop/svc/api"), "{seen}");
    })
    .await;
}

/// As the control plane tells it of a service whose `peer_authentication` says `disable`.
fn in_clear(upstream: &mut model::Upstream) {
    (upstream.mesh, upstream.in_clear) = (None, true);
}

#[tokio::test]
async fn a_service_that_wants_that_is_called_in_clear_and_one_that_merely_refuses_the_handshake_is_not() {
    story(async {
        let (address, seen) = answering(OK).await;
        let disabled = Sidecar::before(address, MeshProtocol::Auto, |inbound| inbound.mode = Some(PeerMode::Disable));
        let mut api = Outward::leading(to_web(), &disabled.authority);
        api.learn_of(MeshProtocol::Auto, disabled.address, in_clear);
        let request = "GET /a HTTP/1.1\r\nHost: web\r\nX-oDd: 1\r\nConnection: close\r\n\r\n";
        assert!(ask(&mut api.connect().await, request).await.ends_with("ok"));
        assert!(seen.borrow()[0].contains("\r\nX-oDd: 1\r\n") && !seen.borrow()[0].contains("spiffe://"), "{:?}", seen.borrow());
        assert_eq!(disabled.stats.callers_in_clear()[address.port().to_string()]["connections"], 1);
        // Somebody who answers in clear at the address of a member is told nothing, whatever becomes of the handshake.
        let heard = Rc::<RefCell<Vec<u8>>>::default();
        let kept = heard.clone();
        let thief = application(move |mut stream| {
            let kept = kept.clone();
            async move {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).await.unwrap();
                kept.borrow_mut().extend_from_slice(&bytes[..read]);
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await;
        api.learn(MeshProtocol::Http, thief);
        assert!(ask(&mut api.connect().await, request).await.starts_with("HTTP/1.1 502 "));
        let heard = heard.borrow();
        assert!(
            heard.first() == Some(&22) && !heard.windows(4).any(|some| some == b"GET "),
            "the beginning of a handshake, and no more"
        );
    })
    .await;
}

#[tokio::test]
async fn bytes_to_a_service_that_is_called_in_clear_need_no_tunnel() {
    story(async {
        let disabled = Sidecar::before(greeting().await, MeshProtocol::Tcp, |inbound| inbound.mode = Some(PeerMode::Disable));
        let mut api = Outward::leading(to_web(), &disabled.authority);
        api.learn_of(MeshProtocol::Tcp, disabled.address, in_clear);
        let mut stream = api.connect().await;
        let mut greeted = [0; 11];
        stream.read_exact(&mut greeted).await.unwrap();
        assert_eq!(&greeted, b"220 ready\r\n");
    })
    .await;
}

#[tokio::test]
async fn a_proxy_finds_services_by_host_and_says_when_there_is_none() {
    story(async {
        let (address, _) = answering(OK).await;
        let web = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut api = Outward::leading(Leads::ByHost, &web.authority);
        api.learn(MeshProtocol::Http, web.address);
        for host in ["web", "web.shop", "web.shop.mesh:80", "web.shop.svc.cluster.local"] {
            let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert!(ask(&mut api.connect().await, &request).await.ends_with("ok"), "{host}");
        }
        let request = "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n";
        let answer = ask(&mut api.connect().await, request).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("no such service in the mesh"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_proxy_passes_requests_to_others_on_where_that_is_wanted() {
    story(async {
        let (address, _) = answering(OK).await;
        let web = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut api = Outward::leading(Leads::ByHost, &web.authority);
        api.learn(MeshProtocol::Http, web.address);
        let (stranger, seen) = answering(OK).await;
        let request = |host: &str| {
            format!("GET http://{host}/a?b HTTP/1.1\r\nHost: {host}\r\nProxy-Connection: keep-alive\r\nConnection: close\r\n\r\n")
        };
        let refused = ask(&mut api.connect().await, &request(&stranger.to_string())).await;
        assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
        let callees = api.worker.callees();
        api.worker.set_callees(pipeline::Callees { outside: Some(Arc::default()), ..callees });
        for _ in 0..2 {
            assert!(ask(&mut api.connect().await, &request(&stranger.to_string())).await.ends_with("ok"));
        }
        let told = seen.borrow().join("\n").to_ascii_lowercase();
        assert!(told.contains("get /a?b http/1.1") && told.contains(&format!("host: {stranger}")), "{told}");
        assert!(!told.contains("proxy-connection"), "{told}");
        let before = seen.borrow().len();
        let encrypted = request(&stranger.to_string()).replacen("http://", "https://", 1);
        let answer = ask(&mut api.connect().await, &encrypted).await;
        assert!(answer.starts_with("HTTP/1.1 501 ") && answer.contains("CONNECT"), "{answer}");
        assert_eq!(seen.borrow().len(), before, "what is to be encrypted does not go out in clear");
        // What names a service is one of the mesh still, and the proxy does not ask itself.
        assert!(ask(&mut api.connect().await, &request("web.shop")).await.ends_with("ok"));
        for nobody in ["api.shop.mesh".to_owned(), "no such host".to_owned(), api.address.to_string()] {
            let answer = ask(&mut api.connect().await, &request(&nobody)).await;
            assert!(!answer.starts_with("HTTP/1.1 200 "), "{nobody}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_opens_tunnels_to_services_and_to_others() {
    story(async {
        let echo = || {
            application(|mut stream| async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            })
        };
        let db = Sidecar::before(echo().await, MeshProtocol::Tcp, |_| ());
        let mut api = Outward::leading(Leads::ByHost, &db.authority);
        api.learn(MeshProtocol::Tcp, db.address);
        let outside = echo().await;
        for authority in ["web.shop:5432".to_owned(), "web:5432".to_owned(), outside.to_string()] {
            let mut stream = api.connect().await;
            stream.write_all(format!("CONNECT {authority} HTTP/1.1\r\nHost: web\r\n\r\nearly").as_bytes()).await.unwrap();
            let answer = head(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("connection"), "{authority}: {answer}");
            stream.write_all(b" and late").await.unwrap();
            let mut echoed = [0; 14];
            stream.read_exact(&mut echoed).await.unwrap();
            assert_eq!(&echoed, b"early and late", "{authority}");
        }
        for (target, status) in [("web.shop", "400"), ("u@web:1", "400"), ("web:port", "400")] {
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
            let answer = ask(&mut api.connect().await, &request).await;
            assert_eq!(answer.split(' ').nth(1), Some(status), "{target}: {answer}");
        }
        let content = "CONNECT web:1 HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(ask(&mut api.connect().await, content).await.split(' ').nth(1), Some("400"));
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_somebody_else_is_not_talked_to() {
    story(async {
        let (address, seen) = answering(OK).await;
        let web = Sidecar::before(address, MeshProtocol::Http, |_| ());
        web.identity.set_svid(web.authority.svid(API, clock::wall() + HOUR));
        let mut api = Outward::leading(to_web(), &web.authority);
        api.learn(MeshProtocol::Http, web.address);
        let answer = ask(&mut api.connect().await, GET).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("\"service\":\"shop/web\""), "{answer}");
        assert!(answer.contains("identity of the endpoint refused") && seen.borrow().is_empty(), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn opaque_bytes_go_both_ways_whoever_speaks_first() {
    story(async {
        let greeting = application(|mut stream| async move {
            stream.write_all(b"220 hello\r\n").await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
        })
        .await;
        let web = Sidecar::before(greeting, MeshProtocol::Tcp, |_| ());
        for protocol in [MeshProtocol::Tcp, MeshProtocol::Auto] {
            let mut api = Outward::leading(to_web(), &web.authority);
            api.learn(protocol, web.address);
            let mut stream = api.connect().await;
            let mut greeted = [0; 11];
            stream.read_exact(&mut greeted).await.unwrap();
            assert_eq!(&greeted, b"220 hello\r\n", "{protocol:?}");
            stream.write_all(b"\x00\xffbytes").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"\x00\xffbytes", "half-closed, {protocol:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_not_captured_is_not_passed_on_to_ourselves() {
    story(async {
        let web = Sidecar::before("127.0.0.1:9".parse().unwrap(), MeshProtocol::Http, |_| ());
        let api = Outward::leading(Leads::Captured { is_transparent: false }, &web.authority);
        assert!(ends_within(&mut api.connect().await, Duration::from_secs(5)).await);
    })
    .await;
}

#[tokio::test]
async fn who_waits_before_it_speaks_http_reaches_an_application_that_begins_http2_of_itself() {
    story(async {
        let (address, came) = super::versions::http2_only(false).await;
        let web = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut api = Outward::leading(to_web(), &web.authority);
        api.learn(MeshProtocol::Auto, web.address);
        let mut stream = api.connect().await;
        // The application has been called for it, and was heard.
        while !web.door.ports.first.heard().unwrap().is_read() {
            tokio::task::yield_now().await;
        }
        let answer = ask(&mut stream, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("two"), "{answer}");
        let answer = ask(&mut api.connect().await, GET).await;
        assert!(answer.contains("two") && came.borrow().len() == 2, "{answer}");
    })
    .await;
}

/// Status and body of what is answered over HTTP/2 in clear.
async fn asks_http2(stream: TcpStream) -> (u16, String) {
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    spawn_local(async move { drop(connection.await) });
    let request = http::Request::get("http://web.shop/a").body(()).unwrap();
    let (response, _) = requests.ready().await.unwrap().send_request(request, true).unwrap();
    let mut response = response.await.unwrap();
    let body = response.body_mut().data().await.and_then(Result::ok).unwrap_or_default();
    (response.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn http2_in_clear_reaches_whatever_the_application_speaks_that_has_not_said_it() {
    story(async {
        let (plain, _) = answering(OK).await;
        let (both, _) = super::versions::speaking_both(Rc::default()).await;
        let (open, shy) = (super::versions::http2_only(false).await.0, super::versions::http2_only(true).await.0);
        for (address, answer) in [(plain, "ok"), (both, "ok"), (open, "two"), (shy, "two")] {
            let web = Sidecar::before(address, MeshProtocol::Auto, |_| ());
            let mut api = Outward::leading(to_web(), &web.authority);
            api.learn(MeshProtocol::Auto, web.address);
            for _ in 0..2 {
                assert_eq!(asks_http2(api.connect().await).await, (200, answer.to_owned()));
            }
        }
        // Who is late finds that the application has begun of itself.
        let web = Sidecar::before(open, MeshProtocol::Auto, |_| ());
        let mut api = Outward::leading(to_web(), &web.authority);
        api.learn(MeshProtocol::Auto, web.address);
        let stream = api.connect().await;
        while !web.door.ports.first.heard().unwrap().is_read() {
            tokio::task::yield_now().await;
        }
        assert_eq!(asks_http2(stream).await, (200, "two".to_owned()));
    })
    .await;
}

/// A tunnel of the proxy to this authority, which has begun.
pub(super) async fn tunnel(api: &Outward, authority: &str) -> TcpStream {
    let mut stream = api.connect().await;
    stream.write_all(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(head(&mut stream).await, "HTTP/1.1 200 OK\r\n\r\n", "{authority}");
    stream
}

#[tokio::test]
async fn requests_within_a_tunnel_of_the_proxy_are_read_and_bytes_pass() {
    story(async {
        let (plain, seen) = answering(OK).await;
        let modern = super::versions::http2_only(false).await.0;
        for (protocol, address, answer) in [
            (MeshProtocol::Http, plain, "ok"),
            (MeshProtocol::Auto, plain, "ok"),
            (MeshProtocol::Grpc, modern, "two"),
            (MeshProtocol::Auto, modern, "two"),
        ] {
            let web = Sidecar::before(address, protocol, |_| ());
            let mut api = Outward::leading(Leads::ByHost, &web.authority);
            api.learn(protocol, web.address);
            assert_eq!(asks_http2(tunnel(&api, "web.shop:80").await).await, (200, answer.to_owned()), "{protocol:?}");
            let within = ask(&mut tunnel(&api, "web.shop.mesh:80").await, GET).await;
            assert!(within.starts_with("HTTP/1.1 200 ") && within.contains(answer), "{protocol:?}: {within}");
        }
        assert!(seen.borrow().iter().all(|head| head.contains("URI=spiffe://mesh.example/ns/shop/svc/api")), "{seen:?}");

        let web = Sidecar::before(super::tunnels::greeting().await, MeshProtocol::Auto, |_| ());
        let mut api = Outward::leading(Leads::ByHost, &web.authority);
        api.learn(MeshProtocol::Auto, web.address);
        let mut stream = tunnel(&api, "web.shop:25").await;
        let mut said = [0; 11];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"220 ready\r\n");
        stream.write_all(b"\x00\xff QUIT\r\n").await.unwrap();
        let mut echoed = [0; 9];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"\x00\xff QUIT\r\n");

        let mut stream = api.connect().await;
        let answer =
            ask(&mut stream, "CONNECT nobody.shop.mesh:80 HTTP/1.1\r\nHost: nobody.shop.mesh:80\r\nConnection: close\r\n\r\n")
                .await;
        assert!(answer.starts_with("HTTP/1.1 50"), "who is not there is not promised: {answer}");
    })
    .await;
}
