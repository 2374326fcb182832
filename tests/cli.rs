//! The command line of the real binary: nginx's flags, and our commands.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::pushgate;

const GOOD: &str = "events {}\nhttp { server { listen 127.0.0.1:81; location /a/ { } } }\n";

/// A prefix folder with a configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn with(config: &str) -> Self {
        let place = Self(pushgate::prefix());
        place.write("conf/nginx.conf", config);
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path().join(path), text).unwrap();
    }

    /// Runs nginx's command line.
    fn nginx(&self, args: &[&str]) -> Said {
        Said::of(pushgate::command(self.path()).args(args).output().unwrap(), self.path())
    }

    /// Runs a command of ours on the configuration.
    fn command(&self, args: &[&str]) -> Said {
        let mut command = Command::new(pushgate::binary());
        let output = command.args(args).current_dir(self.path().join("conf")).output().unwrap();
        Said::of(output, self.path())
    }
}

/// What a run printed, with `PREFIX` for the folder.
#[derive(Debug)]
struct Said {
    exit: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output, prefix: &Path) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&prefix.display().to_string(), "PREFIX");
        Self { exit: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

#[track_caller]
fn check(said: &Said, exit: i32, out: &str, err: &str) {
    assert_eq!((said.exit, said.out.as_str(), said.err.as_str()), (Some(exit), out, err));
}

#[test]
fn a_good_configuration_is_ok() {
    let place = Place::with(GOOD);
    let ok = "pushgate: the configuration file PREFIX/conf/nginx.conf syntax is ok\n\
              pushgate: configuration file PREFIX/conf/nginx.conf test is successful\n";
    check(&place.nginx(&["-t"]), 0, "", ok);
    check(&place.nginx(&["-tq"]), 0, "", "");
    assert!(!place.path().join("logs/nginx.pid").exists(), "a test leaves no file of a process that is not there");
}

#[test]
fn only_the_first_refusal_is_said() {
    let place = Place::with("events {}\nhttp { server_name_ a; foo; }\n");
    let err = "pushgate: [emerg] unknown directive \"server_name_\" in PREFIX/conf/nginx.conf:2\n\
               pushgate: configuration file PREFIX/conf/nginx.conf test failed\n";
    check(&place.nginx(&["-t"]), 1, "", err);
    let err = "pushgate: [emerg] unknown directive \"server_name_\" in PREFIX/conf/nginx.conf:2\n";
    check(&place.nginx(&[]), 1, "", err);
    check(&place.nginx(&["-s", "reload"]), 1, "", err);
}

#[test]
fn a_log_that_can_not_be_opened_fails_the_test() {
    let place = Place::with(&format!("error_log none/x.log;\n{GOOD}"));
    let err = "pushgate: the configuration file PREFIX/conf/nginx.conf syntax is ok\n\
               pushgate: [emerg] open() \"PREFIX/none/x.log\" failed (2: No such file or directory)\n\
               pushgate: configuration file PREFIX/conf/nginx.conf test failed\n";
    check(&place.nginx(&["-t"]), 1, "", err);
}

#[test]
fn a_dump_has_every_file_once() {
    let place = Place::with("events {}\nhttp { include a.conf; server { include a.conf; } }\n");
    place.write("conf/a.conf", "root /x;\n");
    let said = place.nginx(&["-T", "-q"]);
    let out = "# configuration file PREFIX/conf/nginx.conf:\n\
               events {}\nhttp { include a.conf; server { include a.conf; } }\n\n\
               # configuration file PREFIX/conf/a.conf:\nroot /x;\n\n";
    check(&said, 0, out, "");
}

#[test]
fn the_process_is_found_by_its_file() {
    let place = Place::with(GOOD);
    let err = "pushgate: [error] open() \"PREFIX/logs/nginx.pid\" failed (2: No such file or directory)\n";
    check(&place.nginx(&["-s", "stop"]), 1, "", err);
    for (text, shown) in [("", ""), ("x\n", "x"), ("0\n", "0"), ("-1\n", "-1"), ("+5", "+5")] {
        place.write("logs/nginx.pid", text);
        let err = format!("pushgate: [error] invalid PID number \"{shown}\" in \"PREFIX/logs/nginx.pid\"\n");
        check(&place.nginx(&["-s", "stop"]), 1, "", &err);
    }
    // Above the kernel's largest number of a process.
    place.write("logs/nginx.pid", "2000000000\n");
    check(&place.nginx(&["-s", "quit"]), 1, "", "pushgate: [alert] kill(2000000000, 3) failed (3: No such process)\n");
}

#[test]
fn versions_and_help() {
    let place = Place::with("");
    let said = place.nginx(&["-v"]);
    assert!(said.err.starts_with("nginx version: pushgate/"), "{said:?}");
    let said = place.nginx(&["-V"]);
    assert!(said.err.contains("configure arguments: --prefix=/usr/share/nginx "), "{said:?}");
    // As certbot and others look for.
    assert!(
        said.err.contains(" --with-http_ssl_module ") && said.err.contains("TLS SNI support enabled\n"),
        "{said:?}"
    );
    assert!(said.err.contains(" --without-http-cache ") && !said.err.contains("--with-http_dav_module"), "{said:?}");
    let said = place.nginx(&["-h"]);
    assert!(said.err.contains("-s signal") && said.err.contains("check"), "{said:?}");
    let said = place.command(&["help", "check"]);
    assert!(said.exit == Some(0) && said.out.contains("--strict"), "{said:?}");
    assert_eq!(place.command(&["check", "--help"]).out, said.out);
    assert_eq!(place.command(&["help", "nothing"]).exit, Some(2));
}

#[test]
fn check_says_all_at_once_with_what_includes() {
    let place = Place::with("events {}\nhttp {\n    include a.conf;\n    rooot /x;\n}\n");
    place.write("conf/a.conf", "events {}\n");
    let out = "\
error[context]: \"events\" directive is not allowed here
 --> a.conf:1:1
  |
1 | events {}
  | ^^^^^^
  |
  = note: included from nginx.conf:3
  = help: it is allowed in: main

error[unknown-directive]: unknown directive \"rooot\"
 --> nginx.conf:4:5
  |
4 |     rooot /x;
  |     ^^^^^
  |
  = help: did you mean \"root\"?

nginx.conf: 2 errors
";
    check(&place.command(&["check", "nginx.conf"]), 1, out, "");
}

#[test]
fn check_needs_nothing_outside() {
    let config = format!("user nobody-here;\npid /nowhere/x;\nerror_log /nowhere/y;\n{GOOD}");
    let place = Place::with(&config);
    check(&place.command(&["check", "nginx.conf"]), 0, "nginx.conf: no problems\n", "");
}

#[test]
fn check_fails_on_warnings_only_if_strict() {
    let place = Place::with("events {}\nhttp { server { listen 81; location /x { alias /y/; } } }\n");
    let said = place.command(&["check", "nginx.conf"]);
    assert!(said.exit == Some(0) && said.out.ends_with("nginx.conf: 1 warning\n"), "{said:?}");
    assert_eq!(place.command(&["check", "--strict", "nginx.conf"]).exit, Some(1));
}

#[test]
fn check_says_how_it_is_used() {
    let place = Place::with(GOOD);
    let err = "pushgate check: invalid option: \"--fast\"; see pushgate help check\n";
    check(&place.command(&["check", "--fast"]), 2, "", err);
    let err = "pushgate check: there is no format \"xml\"; there are: text json sarif; see pushgate help check\n";
    check(&place.command(&["check", "--format", "xml"]), 2, "", err);
}

#[test]
fn check_speaks_json_and_sarif() {
    let place = Place::with("events {}\nhttp {\n    include a.conf;\n}\n");
    place.write("conf/a.conf", "root /x;\nroot ü \"y\";\n");
    let said = place.command(&["check", "nginx.conf", "--format=json"]);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    let finding = &document["findings"][0];
    assert_eq!(
        (&document["errors"], &finding["code"], &finding["file"]),
        (&1.into(), &"arity".into(), &"a.conf".into())
    );
    let place_of = |name: &str| finding[name].as_u64().unwrap();
    assert_eq!([place_of("line"), place_of("column"), place_of("end_line"), place_of("end_column")], [2, 1, 2, 11]);
    assert_eq!(finding["included_from"][0]["line"], 3);

    let said = place.command(&["check", "nginx.conf", "--format", "sarif"]);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    let result = &document["runs"][0]["results"][0];
    assert_eq!(
        (&document["version"], &result["ruleId"], &result["level"]),
        (&"2.1.0".into(), &"arity".into(), &"error".into())
    );
    let physical = &result["locations"][0]["physicalLocation"];
    assert_eq!(physical["artifactLocation"]["uri"], "a.conf");
    assert_eq!(physical["region"]["startLine"], 2);
}

#[test]
fn explain_says_where_a_url_leads() {
    let place = Place::with(GOOD);
    let out = "\
request     GET /a/b
address     127.0.0.1:81 (nginx.conf:2)
server      without a name (nginx.conf:2)
            no server has the name \"x\"; it is the first server of the address
location    /a/ (nginx.conf:2)
            the longest prefix
";
    let said = place.command(&["explain", "http://x:81//a/./b?c", "-c", "nginx.conf"]);
    assert!(said.exit == Some(0) && said.out.starts_with(out), "{said:?}");
    let said = place.command(&["explain", "/a/", "-c", "nginx.conf", "--format", "json"]);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["location"]["name"], "/a/");
    let err = "pushgate explain: nothing listens on port 80; there are: 127.0.0.1:81\n";
    check(&place.command(&["explain", "http://x/", "-c", "nginx.conf"]), 1, "", err);
    check(&place.command(&["explain"]), 2, "", "pushgate explain: a URL is missing; see pushgate help explain\n");
}

#[test]
fn directives_are_described() {
    let place = Place::with("");
    let said = place.command(&["directives", "listen"]);
    assert!(said.out.starts_with("listen address[:port]") && said.out.contains("context  server\n"), "{said:?}");
    let err = "pushgate directives: there is no directive \"lissten\"; did you mean \"listen\"?\n";
    check(&place.command(&["directives", "lissten"]), 1, "", err);
    let said = place.command(&["directives", "--format", "json"]);
    let all: Value = serde_json::from_str(&said.out).unwrap();
    assert!(all.as_array().unwrap().iter().any(|one| one["name"] == "perl" && one["status"] == "unsupported"));
}

#[test]
fn a_start_says_what_only_compiling_finds() {
    let server = "server { listen 127.0.0.1:%%PORT%%; server_name twice; }";
    let config =
        format!("daemon off; pid logs/nginx.pid; error_log logs/error.log; events {{}} http {{ {server} {server} }}");
    let server = pushgate::Pushgate::start(&config, &[]);
    let said = server.read("logs/startup.txt");
    let expected = format!("conflicting server name \"twice\" on 127.0.0.1:{}, ignored", server.port());
    assert!(said.contains("[warn] ") && said.contains(&expected), "{said}");
}

#[test]
fn the_example_configurations_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf.d");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let output = Command::new(pushgate::binary()).arg("check").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stdout));
        count += 1;
    }
    assert!(count > 0, "conf.d has examples");
}

#[test]
fn an_include_takes_what_glob_takes() {
    let place = Place::with("events {} http { include d/*.conf; include **/last; }");
    std::fs::create_dir(place.path().join("conf/d")).unwrap();
    for (file, text) in [("d/a.conf", "server { return 204; }"), ("d/.b.conf", "nonsense;"), ("d/last", "map a $b {}")]
    {
        place.write(&format!("conf/{file}"), text);
    }
    assert_eq!(place.nginx(&["-t"]).exit, Some(0), "{:?}", place.nginx(&["-t"]));
    place.write("conf/d/last", "nonsense;");
    assert_eq!(place.nginx(&["-t"]).exit, Some(1));
}

#[test]
fn lists_for_servers_are_looked_into_where_there_is_one() {
    let place = Place::with("events {} http { proxy_set_header A $nowhere; fastcgi_param B $nowhere; }");
    assert_eq!(place.nginx(&["-t"]).exit, Some(0), "{:?}", place.nginx(&["-t"]));
    for more in ["server {}", "map $nowhere $x {}"] {
        place.write("conf/nginx.conf", &format!("events {{}} http {{ proxy_set_header A $nowhere; {more} }}"));
        let said = place.nginx(&["-t"]);
        assert!(said.err.contains("unknown \"nowhere\" variable"), "{said:?}");
    }
}
