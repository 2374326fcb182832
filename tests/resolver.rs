//! Names that are looked up while the server runs, with a real name server.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::net::UdpSocket;

use support::dnsmasq::Dnsmasq;
use support::http;
use support::pushgate::Pushgate;
use support::wait::until;

/// What stands around the locations and upstreams of a test. A server of its own says where requests came to.
fn start(http_block: &str, locations: &str, dns: u16) -> Pushgate {
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;
        events { worker_connections 64; }
        http {
            %%HTTP%%
            server { listen 127.0.0.1:%%BACK%%; listen 127.0.0.2:%%BACK%%; return 200 \"at $server_addr\"; }
            server { listen 127.0.0.1:%%PORT%%; set $back %%BACK%%; location /none { return 404; } %%LOCATIONS%% }
        }";
    let back = support::ports::Port::free();
    let back = back.number.to_string();
    let fill = |text: &str| text.replace("%%DNS%%", &dns.to_string()).replace("%%BACK%%", &back);
    Pushgate::start(config, &[("HTTP", &fill(http_block)), ("LOCATIONS", &fill(locations)), ("BACK", &back)])
}

const BY_NAME: &str = "location / { proxy_pass http://$arg_name:$back; }";

#[test]
fn a_name_with_variables_is_looked_up() {
    let dns = Dnsmasq::start(60, &[("one.test", "127.0.0.1"), ("two.test", "127.0.0.2")]);
    let server = start("resolver 127.0.0.1:%%DNS%%;", BY_NAME, dns.port());
    for _ in 0..2 {
        assert_eq!(http::get(server.port(), "/?name=one.test").body, "at 127.0.0.1");
        assert_eq!(http::get(server.port(), "/?name=TWO.test.").body, "at 127.0.0.2");
        assert_eq!(http::get(server.port(), "/?name=127.0.0.2").body, "at 127.0.0.2");
    }
    assert_eq!(http::get(server.port(), "/?name=three.test").status, 502);
    server.until_logged(&["[error]", "three.test could not be resolved (3: Host not found)", "GET /?name=three.test"]);
    assert_eq!(http::get(server.port(), "/?name=a..b").status, 502);
    server.until_logged(&["a..b could not be resolved (3: Host not found)"]);
}

#[test]
fn without_a_resolver_only_addresses_do() {
    let server = start("", BY_NAME, 1);
    assert_eq!(http::get(server.port(), "/?name=127.0.0.2").body, "at 127.0.0.2");
    assert_eq!(http::get(server.port(), "/?name=one.test").status, 502);
    server.until_logged(&["[error]", "no resolver defined to resolve one.test"]);
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
    let many: Vec<String> = (1..=120).map(|last| format!("127.0.0.{last}")).collect();
    let names: Vec<(&str, &str)> = many.iter().map(|address| ("many.test", address.as_str())).collect();
    let dns = Dnsmasq::start(60, &names);
    // All but two refuse, so that all have been tried when one answers.
    let location = "location / { proxy_pass http://$arg_name:$back; add_header Tried $upstream_addr; }";
    let server = start("resolver 127.0.0.1:%%DNS%%;", location, dns.port());
    let mut most = 0;
    for _ in 0..20 {
        let answer = http::get(server.port(), "/?name=many.test");
        assert_eq!(answer.status, 200);
        most = most.max(answer.header("Tried").unwrap().split(", ").count());
    }
    assert!(most > 40, "{most} would have come in a datagram");
}

#[test]
fn an_answer_holds_for_its_time() {
    let dns = Dnsmasq::start(1, &[("one.test", "127.0.0.1")]);
    let location = "location / { proxy_pass http://$arg_name:$back; }
        location /long { resolver 127.0.0.1:%%DNS%% valid=1h; proxy_pass http://$arg_name:$back; }";
    let server = start("resolver 127.0.0.1:%%DNS%%;", location, dns.port());
    let at = |path: &str| http::get(server.port(), &format!("{path}?name=one.test")).body;
    assert_eq!((at("/"), at("/long")), ("at 127.0.0.1".into(), "at 127.0.0.1".into()));
    dns.set(&[("one.test", "127.0.0.2")]);
    until("the new address is used", || at("/") == "at 127.0.0.2");
    assert_eq!(at("/long"), "at 127.0.0.1");
}

#[test]
fn silence_has_an_end() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let server = start("resolver 127.0.0.1:%%DNS%%; resolver_timeout 200ms;", BY_NAME, port);
    assert_eq!(http::get(server.port(), "/?name=one.test").status, 502);
    server.until_logged(&["one.test could not be resolved (110: Operation timed out)"]);
}

/// An upstream by names; without a `zone` and a resolver it would be refused.
fn upstream(servers: &str) -> String {
    format!("upstream names {{ zone names 64k; resolver 127.0.0.1:%%DNS%% ipv6=off; resolver_timeout 1s; {servers} }}")
}

const TO_NAMES: &str = "location / { proxy_pass http://names; }";

#[test]
fn servers_of_an_upstream_follow_their_name() {
    let dns = Dnsmasq::start(1, &[("one.test", "127.0.0.1")]);
    let server = start(&upstream("server one.test:%%BACK%% resolve;"), TO_NAMES, dns.port());
    let at = || http::get(server.port(), "/").body;
    until("the name is looked up", || at() == "at 127.0.0.1");
    dns.set(&[("one.test", "127.0.0.2")]);
    until("the new address is used", || at() == "at 127.0.0.2");
    (0..5).for_each(|_| assert_eq!(at(), "at 127.0.0.2"));
    dns.set(&[("one.test", "127.0.0.1"), ("one.test", "127.0.0.2")]);
    until("both are used", || [at(), at()].iter().any(|at| at == "at 127.0.0.1"));
    let both = [at(), at()];
    assert_ne!(both[0], both[1]);
    // A name that nobody has any more has no servers.
    dns.set(&[]);
    until("nobody is left", || http::get(server.port(), "/").status == 502);
    server.until_logged(&["[error]", "one.test could not be resolved (3: Host not found)"]);
    server.until_logged(&["no live upstreams"]);
    dns.set(&[("one.test", "127.0.0.1")]);
    until("it is back", || at() == "at 127.0.0.1");
}

#[test]
fn a_reload_begins_with_what_is_known() {
    let dns = Dnsmasq::start(60, &[("one.test", "127.0.0.1")]);
    let block = "resolver 127.0.0.1:%%DNS%%; upstream names { zone names 64k; server one.test:%%BACK%% resolve; }";
    let server = start(block, TO_NAMES, dns.port());
    until("the name is looked up", || http::get(server.port(), "/").status == 200);
    // Nobody answers any more.
    drop(dns);
    for _ in 0..3 {
        server.signal("HUP");
        for _ in 0..20 {
            assert_eq!(http::get(server.port(), "/").body, "at 127.0.0.1");
        }
    }
}

#[test]
fn a_service_says_ports_and_backups() {
    let back = support::ports::Port::free();
    let records = [
        format!("--srv-host=_http._tcp.all.test,one.test,{},1,5", back.number),
        format!("--srv-host=_http._tcp.all.test,two.test,{},2,5", back.number),
        format!("--srv-host=own.name.all.test,two.test,{},0,0", back.number),
    ];
    let dns = Dnsmasq::start_with(1, &[("one.test", "127.0.0.1"), ("two.test", "127.0.0.2")], &records);
    let block = format!(
        "server {{ listen 127.0.0.1:{0}; listen 127.0.0.2:{0}; location / {{ return 200 \"at $server_addr\"; }}
             location /two {{ if ($server_addr = 127.0.0.1) {{ return 503; }} return 200 \"at $server_addr\"; }} }}
         resolver 127.0.0.1:%%DNS%%; proxy_next_upstream http_503;
         upstream names {{ zone names 64k; server all.test service=http resolve; }}
         upstream own {{ zone own 64k; server all.test service=own.name resolve; }}",
        back.number
    );
    let locations = format!("{TO_NAMES} location /own {{ proxy_pass http://own; }}");
    let server = start(&block, &locations, dns.port());
    until("the service is looked up", || http::get(server.port(), "/").body == "at 127.0.0.1");
    (0..5).for_each(|_| assert_eq!(http::get(server.port(), "/").body, "at 127.0.0.1"));
    assert_eq!(http::get(server.port(), "/two").body, "at 127.0.0.2", "the backup");
    until("the other service is looked up", || http::get(server.port(), "/own").body == "at 127.0.0.2");
}
