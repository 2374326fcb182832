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
