//! Which instance of a service the sidecars of its callers choose: as its owner wants it balanced, in the own zone first, and away from those that fail. (Who is called by weight
//! and by header is told in `mesh_traffic`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_integration::app::App;
use heddle_integration::client::{self, Answer};
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::process::until;
use serde_json::{Value, json};

/// `web` calls `api`, of which there are two instances.
struct Story {
    mesh: Mesh,
    apps: [App; 2],
    instances: [Node; 2],
    web: Node,
}

impl Story {
    /// Each node says this of itself: the two instances, and their caller.
    fn start(apps: [App; 2], said: [&str; 3]) -> Story {
        let mesh = Mesh::start("");
        let begin =
            |id: &str, app: &App, node: &str| mesh.begin_sidecar(id, &Service { node, ..Service::http("api", app.address) });
        let instances = [begin("api-1", &apps[0], said[0]), begin("api-2", &apps[1], said[1])];
        instances.iter().for_each(Node::wait_ready);
        let beside = mesh.control.place.address();
        let web = mesh.sidecar(&Service { calls: &["api"], node: said[2], ..Service::http("web", beside) });
        let story = Story { mesh, apps, instances, web };
        story.mesh.until_reached(&story.web, "/");
        until("both of them", || {
            let shown = client::get(story.web.admin, "/endpoints").unwrap().text();
            story.instances.iter().all(|instance| shown.contains(&instance.inbound.to_string())).then_some(())
        });
        story
    }

    fn ask(&self) -> Answer {
        client::get(self.web.outbound[0], "/").unwrap()
    }

    /// Who answers so many requests in a row.
    fn answers(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.ask().text()).collect()
    }

    /// How clients reach `api` from now on.
    fn is_reached(&self, mut how: Value, step: &str) {
        // By this the caller's sidecar shows that it has been told.
        how["plugins"] = json!({ "response-rewrite": { "headers": { "set": { "X-Told": step } } } });
        self.mesh.control.put("/mesh_services/api", how);
        until("the sidecar to be told", || (self.ask().field("x-told") == Some(step)).then_some(()));
    }

    /// Requests that each of them has had.
    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|nth| self.apps[nth].count("GET /load"))
    }

    /// Which share of a load the first one gets.
    fn share_of_the_first(&self) -> f64 {
        let before = self.counts();
        let load = Load::start(self.web.outbound[0], "/load", 8);
        until("the load", || (load.requests() >= 150).then_some(()));
        let tally = load.stop();
        assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
        let [first, second] = [0, 1].map(|nth| (self.counts()[nth] - before[nth]) as f64);
        first / (first + second)
    }
}

#[test]
fn an_instance_that_answers_with_errors_is_left_out_by_what_its_callers_see_and_comes_back() {
    let story = Story::start([App::saying("one"), App::saying("two")], [""; 3]);
    let ejections = |story: &Story| {
        let page = story.web.metrics();
        let counted = page.lines().filter(|line| line.starts_with("heddle_upstream_endpoint_ejections_total{"));
        counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    assert_eq!(ejections(&story), 0);
    story.apps[0].breaks(true);
    // Nobody probes anything here: the requests themselves find it out.
    let mut failed = 0;
    until("it to be left out", || {
        failed += usize::from(story.ask().status == 503);
        (ejections(&story) > 0).then_some(())
    });
    assert!(failed >= 5, "it is judged by five errors in a row: {failed}");
    assert!(story.answers(20).iter().all(|who| who == "two"));
    story.apps[0].breaks(false);
    until("it to be back", || (story.ask().text() == "one").then_some(()));
    until("it to be as good as the other", || story.answers(20).contains(&"one".to_owned()).then_some(()));
}

#[test]
fn callers_stay_in_their_zone_while_it_can_carry_them_and_fail_over_without_a_failure() {
    let mut story = Story::start([App::saying("near"), App::saying("far")], [", zone: a", ", zone: b", ", zone: a"]);
    assert!(story.answers(40).iter().all(|who| who == "near"));
    let load = Load::start(story.web.outbound[0], "/", 4);
    story.instances[0].process.kill();
    until("the other zone", || story.answers(10).iter().all(|who| who == "far").then_some(()));
    let further = load.requests() + 100;
    until("the load to go on", || (load.requests() >= further).then_some(()));
    let near = Service { node: ", zone: a", ..Service::http("api", story.apps[0].address) };
    story.instances[0] = story.mesh.begin_sidecar("api-3", &near);
    until("the own zone again", || story.answers(20).iter().all(|who| who == "near").then_some(()));
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);

    // Where others may not take over, nobody does.
    story.is_reached(json!({ "locality": { "mode": "strict" } }), "strict");
    assert!(story.answers(20).iter().all(|who| who == "near"));
    story.instances[0].process.kill();
    until("nobody to be left", || (story.ask().status == 503).then_some(()));
    story.mesh.control.put("/mesh_services/api", json!({ "locality": { "mode": "off" } }));
    until("the other zone", || (story.ask().text() == "far").then_some(()));
}

#[test]
fn the_faster_of_two_instances_gets_more_unless_the_owner_wants_turns() {
    // The first one works for long enough that it is the slow one whatever else the machine does.
    let story = Story::start([App::taking("slow", Duration::from_millis(250)), App::saying("fast")], [""; 3]);
    let shares: Vec<(&str, f64)> = ["ewma", "least_conn", "roundrobin"]
        .into_iter()
        .map(|kind| {
            story.is_reached(json!({ "type": kind }), kind);
            (kind, story.share_of_the_first())
        })
        .collect();
    for (kind, share) in &shares {
        let expected = if *kind == "roundrobin" { 0.45..0.55 } else { 0.0..0.35 };
        assert!(
            expected.contains(share),
            "{kind}: the slow one had {share:.2} of the requests, expected {expected:?}; {shares:?}"
        );
    }
}
